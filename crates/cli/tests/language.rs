//! Models of text from the command line: packed, trained, measured, written with, and what is refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use assert_cmd::Command as Asserted;
use common::{BINARY, ENVIRONMENT, fails, records, sets, stderr};
use serde_json::Value;

/// A CRATE-GPT of a few thousand parameters on bytes.
const SMALL: [&str; 13] = [
    "model.d=32",
    "model.depth=2",
    "model.heads=4",
    "model.context=32",
    "text.batch_size=8",
    "text.epoch_batches=60",
    "text.stride=16",
    "text.eval_tokens=1024",
    "train.epochs=3",
    "train.log_every=1",
    "train.schedule.warmup_steps=5",
    "task.sample_tokens=24",
    "task.prompt=the ",
];

/// Sentences of a small grammar: much to learn in few steps.
fn sentences(lines: usize) -> String {
    let words = [["the", "a"], ["old", "red"], ["house", "horse"], ["sees", "hears"], ["the", "a"], ["sea", "sun"]];
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as usize % 2
    };
    (0..lines).map(|_| words.map(|pair| pair[next()]).join(" ") + ".\n").collect()
}

fn whitebox(folder: &Path) -> Asserted {
    let mut command = common::whitebox(folder);
    command.env("WHITEBOX_DATA", folder.join("cache"));
    command
}

fn said(folder: &Path, args: &[&str]) -> String {
    let output = whitebox(folder).args(args).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

/// The last command on a text model must fail with one sentence that holds all these words.
#[track_caller]
fn refused(folder: &Path, args: &[&str], words: &[&str]) {
    let message = stderr(whitebox(folder).args(args).assert().failure());
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(message.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in: {message}");
    }
}

#[track_caller]
fn train(folder: &Path, recipe: &str, out: &str, values: &[&str]) -> String {
    let mut command = whitebox(folder);
    command.args(["train", recipe, "--out", out]).args(sets(values));
    stderr(command.assert().success())
}

/// `language-demo` on `book.txt`, small.
fn on_book(more: &[&'static str]) -> Vec<&'static str> {
    // The recipe's own set gives way to the path.
    [&["text={path=\"book.txt\",tokenizer=\"bytes\",batch_size=8}"][..], &SMALL, more].concat()
}

/// A folder with a text, and models trained on it once for all tests: `run` (CRATE-GPT), `gpt2`.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("language");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("book.txt"), sentences(600)).unwrap();
        train(&folder, "language-demo", "run", &on_book(&["train.optimizer.lr=5e-3"]));
        let gpt2 = "model={kind=\"gpt2\",d=32,depth=2,heads=4,context=32,dropout=0.0}";
        train(&folder, "language-demo", "gpt2", &[&on_book(&["train.epochs=1"])[..1], &[gpt2], &SMALL[4..]].concat());
        folder
    })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_run_learns_measures_and_writes() {
    let folder = trained();
    let run = folder.join("run");
    let losses: Vec<f64> = records(&run, "step").iter().map(|r| r["loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 180);
    assert!(losses[0] > 5.0 && losses[179] < 1.2, "{} to {}", losses[0], losses[179]);
    let result = json(&fs::read_to_string(run.join("result.json")).unwrap());
    let metric = |name: &str| result["metrics"][name].as_f64().unwrap();
    assert_eq!((result["images"].as_u64(), result["unit"].as_str()), (Some(1023), Some("tokens")));
    assert!((metric("perplexity") - metric("loss").exp()).abs() < 1e-9);
    // A byte is a token here, and the first is not scored.
    let bits = metric("loss") / std::f64::consts::LN_2 * 1023.0 / 1024.0;
    assert!((metric("bits_per_byte") - bits).abs() < 1e-3, "{result}");
    // The grammar has 6 bits of choice in a line of about 27 bytes.
    assert!(metric("bits_per_byte") < 2.0, "{result}");

    let sample = fs::read_to_string(run.join("sample.txt")).unwrap();
    assert!(sample.starts_with("the") && sample.len() >= 27, "{sample:?}");
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("A sample") && page.contains("tokens/s at the end"), "{page}");
    assert!(page.contains("measured on 1,023 validation tokens"));

    // `eval` finds the text again and measures the same.
    let again = json(&said(folder, &["eval", "run", "--json"]));
    assert!((again["loss"].as_f64().unwrap() - metric("loss")).abs() < 1e-6, "{again}");
    let elsewhere = json(&said(folder, &["eval", "run", "--text", "book.txt", "--stride", "8", "--json"]));
    assert!(elsewhere["loss"].as_f64().unwrap() < metric("loss") * 1.3, "{elsewhere}");
    assert_eq!(elsewhere["bytes"].as_u64(), Some(fs::metadata(folder.join("book.txt")).unwrap().len()));
}

#[test]
fn texts_are_written_alike_with_and_without_cache() {
    let folder = trained();
    let wrote =
        |more: &[&str]| said(folder, &[&["generate", "run", "--prompt", "the ", "--tokens", "20"], more].concat());
    let text = wrote(&["--seed", "3"]);
    assert!(text.starts_with("the ") && text.len() == 25, "{text:?}");
    assert_eq!(wrote(&["--seed", "3", "--no-cache"]), text);
    assert_ne!(wrote(&["--seed", "4", "--temperature", "2"]), text);
    assert_eq!(wrote(&["--temperature", "0"]), wrote(&["--top-k", "1"]));
    // Several prompts: each as it is alone, with its own seed.
    let both = said(
        folder,
        &["generate", "run", "--prompt", "a ", "--prompt", "the ", "--tokens", "20", "--seed", "2", "--json"],
    );
    let rows: Vec<Value> = both.lines().map(json).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(format!("the {}\n", rows[1]["text"].as_str().unwrap()), text);
    assert_eq!((rows[1]["tokens"].as_u64(), rows[1]["ended"].as_str()), (Some(20), Some("length")));
    // A string that ends it, and the end of the context.
    let stopped =
        json(&said(folder, &["generate", "run", "--prompt", "the ", "--stop", " ", "--json", "--temperature", "0"]));
    assert_eq!(stopped["ended"], "stop string");
    assert!(!stopped["text"].as_str().unwrap().contains(' '), "{stopped}");
    let full = json(&said(folder, &["generate", "run", "--prompt", "the ", "--tokens", "99", "--json"]));
    assert_eq!((full["ended"].as_str(), full["tokens"].as_u64()), (Some("context is full"), Some(29)));
    let on = json(&said(folder, &["generate", "run", "--prompt", "the ", "--tokens", "99", "--json", "--window"]));
    assert_eq!((on["ended"].as_str(), on["tokens"].as_u64()), (Some("length"), Some(99)));

    let long = "x".repeat(40);
    refused(folder, &["generate", "run", "--prompt", &long], &["40 tokens", "context of 32"]);
    refused(folder, &["generate", "run", "--prompt", ""], &["empty prompt"]);
    refused(folder, &["generate", "run", "--prompt", "x", "--temperature=-1"], &["temperature"]);
    refused(folder, &["generate", "run", "--prompt", "x", "--top-p", "0"], &["top_p"]);
    refused(folder, &["generate", "nothing", "--prompt", "x"], &["nothing"]);
    fs::write(folder.join("bad.bin"), b"ab\xff").unwrap();
    refused(folder, &["generate", "run", "--prompt-file", "bad.bin"], &["byte 2", "UTF-8"]);
}

/// The cache of a CRATE holds one vector a token and layer, that of a GPT-2 of the same width two.
#[test]
fn the_cache_is_half_of_gpt2s() {
    let table = said(trained(), &["generate", "run", "--bench", "--compare", "gpt2"]);
    let bytes: Vec<u64> = table
        .lines()
        .filter_map(|line| line.split_once("tokens/s, ")?.1.split_once(" bytes"))
        .map(|(number, _)| number.replace(',', "").parse().unwrap())
        .collect();
    assert_eq!(bytes, [4 * 2 * 32 * 32, 2 * 4 * 2 * 32 * 32], "{table}");
}

#[test]
fn a_run_that_is_stopped_within_an_epoch_ends_in_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("book.txt"), sentences(200)).unwrap();
    let values = on_book(&["task.sample_tokens=0", "train.checkpoint.every_steps=7"]);
    train(path, "language-demo", "whole", &values);
    let mut command = Command::new(BINARY);
    command.current_dir(path).envs(ENVIRONMENT).env("WHITEBOX_DATA", path.join("cache"));
    command.args(["train", "language-demo", "--out", "broken"]).args(sets(&values));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = path.join("broken/metrics.jsonl");
    let lines = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    while lines() < 12 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let message = stderr(whitebox(path).args(["train", "--resume", "broken"]).assert().success());
    assert!(message.contains("going on after step"), "{message}");
    let model = |run: &str| fs::read(path.join(run).join("checkpoints/step-00000180/model.safetensors")).unwrap();
    // The command that started a run is in its files; the tensors follow behind.
    let tensors = |run| {
        let file = model(run);
        let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        file[8 + header..].to_vec()
    };
    assert!(tensors("whole") == tensors("broken"));

    // With another text in the same place it would go on with something else.
    fs::write(path.join("book.txt"), sentences(201)).unwrap();
    refused(path, &["train", "--resume", "broken"], &["no longer the one that this run was trained on"]);
    refused(path, &["eval", "broken"], &["has changed since", "--text"]);
}

#[test]
fn text_is_packed_once_and_read_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir_all(path.join("texts")).unwrap();
    for (name, lines) in [("a", 50), ("b", 80)] {
        fs::write(path.join(format!("texts/{name}.txt")), sentences(lines)).unwrap();
    }
    let pack = ["tokenize", "texts", "--tokenizer", "characters", "--validation", "0.2", "--out", "packed"];
    let told = said(path, &pack);
    assert!(told.contains("2 documents") && told.contains("validation"), "{told}");
    let before = common::files(path);
    assert_eq!(said(path, &pack), told);
    assert!(before == common::files(path), "what is packed is left as it is");
    assert!(said(path, &["tokenize", "--verify", "packed"]).contains("is whole"));
    let text = "text={path=\"packed\",batch_size=8}";
    train(path, "language-demo", "run", &[&[text], &SMALL[..], &["train.epochs=1"]].concat());
    assert!(said(path, &["generate", "run", "--prompt", "the ", "--tokens", "5"]).starts_with("the "));
    refused(path, &["generate", "run", "--prompt", "the Ω"], &["Ω", "vocabulary"]);

    let other = ["tokenize", "texts", "--tokenizer", "bytes", "--validation", "0.2", "--out", "packed"];
    refused(path, &other, &["packed", "another tokenizer"]);
    let as_bytes = "text={path=\"packed\",tokenizer=\"bytes\",batch_size=8}";
    let args = [&["train", "language-demo", "--out", "x", "--set", as_bytes], &[][..]].concat();
    refused(path, &args, &["packed by the tokenizer", "text.tokenizer"]);
    said(path, &["tokenize", "texts", "--out", "bytes"]);
    let as_characters = "text={path=\"bytes\",tokenizer=\"characters\",batch_size=8}";
    let args = ["train", "language-demo", "--out", "x", "--set", as_characters];
    refused(path, &args, &["bytes", "text.tokenizer says characters"]);
    let shard = path.join("packed/train/tokens-00000.bin");
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, &whole[..whole.len() - 10]).unwrap();
    refused(path, &["tokenize", "--verify", "packed"], &["tokens-00000.bin"]);
    refused(path, &["train", "language-demo", "--out", "x", "--set", text], &["tokens-00000.bin"]);
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&shard, flipped).unwrap();
    refused(path, &["tokenize", "--verify", "packed"], &["tokens-00000.bin"]);
}

#[test]
fn a_masked_encoder_learns_hidden_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("book.txt"), sentences(400)).unwrap();
    let text =
        "text={path=\"book.txt\",tokenizer=\"data/bert-base-uncased-vocab.txt.gz\",batch_size=8,epoch_batches=60}";
    let model = "model={kind=\"crate_bert\",d=32,depth=2,heads=4,context=32,dropout=0.0}";
    let values = [text, model, "train.epochs=1", "train.log_every=1", "train.optimizer.lr=5e-3", "train.schedule={}"];
    train(path, "gutenberg-bert", "run", &values);
    let result = json(&fs::read_to_string(path.join("run/result.json")).unwrap());
    // From 30,522 words to the few of this text.
    let first = records(&path.join("run"), "step")[0]["loss"].as_f64().unwrap();
    assert!(first > 8.0 && result["metrics"]["loss"].as_f64().unwrap() < 2.6, "{first}: {result}");
    let again = json(&said(path, &["eval", "run", "--json"]));
    assert!((again["loss"].as_f64().unwrap() - result["metrics"]["loss"].as_f64().unwrap()).abs() < 1e-6, "{again}");
    refused(path, &["eval", "run", "--last-word", "book.txt"], &["--last-word", "hidden"]);
    refused(path, &["generate", "run", "--prompt", "x"], &["no language model"]);
    refused(path, &["eval", "run", "--tokenizer", "gpt2"], &["50257", "30522"]);
}

#[test]
fn the_last_word_of_a_line_is_foretold() {
    let folder = trained();
    fs::write(folder.join("lines.txt"), "the old house sees the sea.\na red horse hears a sun.\nword\n").unwrap();
    let found = json(&said(folder, &["eval", "run", "--last-word", "lines.txt", "--json"]));
    assert_eq!(found["lines"], 2);
    let accuracy = found["accuracy"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&accuracy) && found["loss_a_word"].as_f64().unwrap() > 0.0, "{found}");
    // A passage of a .jsonl may have lines of its own; its last word is that of the whole.
    fs::write(folder.join("lines.jsonl"), "{\"text\": \"the old house.\\n\\nit sees the sea.\"}\n").unwrap();
    assert_eq!(json(&said(folder, &["eval", "run", "--last-word", "lines.jsonl", "--json"]))["lines"], 1);
    fs::write(folder.join("words.txt"), "one\ntwo\n").unwrap();
    refused(folder, &["eval", "run", "--last-word", "words.txt"], &["no line of two words"]);
}

#[test]
fn the_demos_model_writes_and_is_as_good_as_its_card_says() {
    let folder = tempfile::tempdir().unwrap();
    let text = said(folder.path(), &["generate", "--prompt", "It is a ", "--tokens", "40", "--seed", "1"]);
    assert!(text.starts_with("It is a ") && text.len() > 40, "{text:?}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/crate-gpt-demo.safetensors");
    let found = json(&said(folder.path(), &["eval", file.to_str().unwrap(), "--json"]));
    assert!((found["bits_per_byte"].as_f64().unwrap() - 2.6956).abs() < 0.01, "{found}");
}

#[test]
fn slips_are_refused() {
    let folder = trained();
    for (name, bytes) in [("empty.txt", &b""[..]), ("latin.txt", b"caf\xe9 au lait\n"), ("one.txt", b"x")] {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let on = |text: &str, more: &[&str], words: &[&str]| {
        let text = format!("text={text}");
        let values = sets(&[&[text.as_str()], more].concat());
        let args: Vec<&str> =
            ["train", "language-demo", "--out", "x"].into_iter().chain(values.iter().map(String::as_str)).collect();
        refused(folder, &args, words);
        assert!(!folder.join("x").exists(), "nothing is begun");
    };
    on("{path=\"empty.txt\",batch_size=2}", &[], &["empty.txt"]);
    on("{path=\"one.txt\",batch_size=2}", &[], &["token"]);
    on("{path=\"latin.txt\",batch_size=2}", &[], &["latin.txt", "byte 3", "UTF-8"]);
    on("{path=\"nowhere\",batch_size=2}", &[], &["nowhere"]);
    on("{path=\"book.txt\",tokenizer=\"gtp2\",batch_size=2}", &[], &["tokenizer", "did you mean \"gpt2\""]);
    on("{path=\"book.txt\",batch_size=0}", &[], &["text.batch_size = 0"]);
    on("{path=\"book.txt\",batch_size=2,contxt=4}", &[], &["unknown field `contxt`"]);
    on("{path=\"book.txt\",set=\"books\",batch_size=2}", &[], &["text.set and text.path"]);
    on("{set=\"gutenberg\",batch_size=2}", &[], &["cargo xtask data gutenberg"]);
    on("{path=\"book.txt\",batch_size=2}", &["model.context=100000"], &["tokens"]);
    on("{path=\"book.txt\",batch_size=2}", &["model.vocabulary=100"], &["vocabulary"]);
    on("{path=\"book.txt\",batch_size=2}", &["task={kind=\"masked_language\"}"], &["do not go together", "crate_bert"]);
    on(
        "{path=\"book.txt\",batch_size=2}",
        &["data={set=\"digits\",channels=1,mean=[0.0],std=[1.0],batch_size=4}"],
        &["[data]"],
    );
    refused(folder, &["eval", "run", "--text", "empty.txt"], &["empty.txt"]);
    on("{path=\"book.txt\",tokenizer=\"characters\",batch_size=2}", &["task.prompt=€"], &["task.prompt", "€"]);
    on("{path=\"book.txt\",batch_size=4000000000}", &[], &["text.batch_size", "memory"]);
    refused(folder, &["eval", "run", "--text", "latin.txt"], &["latin.txt", "UTF-8"]);
    refused(folder, &["eval", "run", "--stride", "0"], &["stride"]);
    refused(folder, &["eval", "run", "--tokenizer", "gpt2", "--text", "book.txt"], &["50257", "knows 257"]);
    fails(folder, &["predict", "book.txt", "--checkpoint", "run"], &["model of text"]);
    fails(folder, &["eval", "--text", "book.txt"], &["--text", "images"]);
}

/// The recipes for more than a laptop, on generated shards; those for one, on sets of their names.
#[test]
fn every_recipe_on_text_trains() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for set in ["gutenberg", "sotu", "tinyshakespeare"] {
        fs::create_dir_all(path.join("cache").join(set)).unwrap();
        fs::write(path.join("cache").join(set).join("a.txt"), sentences(120)).unwrap();
    }
    let short = [
        "train.max_steps=2",
        "train.accumulate=1",
        "text.batch_size=1",
        "text.eval_batch_size=1",
        "text.eval_tokens=40",
        "train.schedule={}",
    ];
    let small =
        ["tinyshakespeare", "tinyshakespeare-gpt2", "gutenberg", "gutenberg-alpha", "gutenberg-gpt2", "gutenberg-tost"];
    for recipe in small {
        train(path, recipe, recipe, &[&short[..], &["task.sample_tokens=3"]].concat());
    }
    for recipe in ["gutenberg-bert", "gutenberg-bert-bert"] {
        train(path, recipe, recipe, &short);
    }
    fs::write(path.join("corpus.txt"), sentences(900)).unwrap();
    for (tokenizer, out) in [("gpt2", "openwebtext"), ("data/bert-base-uncased-vocab.txt.gz", "wikipedia")] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(tokenizer);
        let tokenizer = if file.exists() { file.to_str().unwrap() } else { tokenizer };
        said(path, &["tokenize", "corpus.txt", "--tokenizer", tokenizer, "--validation", "0.2", "--out", out]);
    }
    let sample = [&short[..], &["task.sample_tokens=2", "train.precision=float32"]].concat();
    train(path, "openwebtext-crate-gpt-base", "owt", &sample);
    train(path, "wikipedia-crate-bert-base", "wiki", &[&short[..], &["train.precision=float32"]].concat());
    for run in small.iter().chain(&["gutenberg-bert", "owt", "wiki"]) {
        let last = records(&path.join(run), "eval").pop().unwrap();
        assert_eq!(last["step"], 2, "{run}");
        assert!(last["metrics"]["loss"].as_f64().unwrap().is_finite(), "{run}: {last}");
    }
}
