//! `analyze` of models of text from the command line: what it writes, that what it says of atoms is so, and what is refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{refused, said, sets, stderr, whitebox};
use serde_json::Value;
use tch::{Device, Tensor, nn};
use whitebox_language::LanguageConfig;
use whitebox_model::probe::{Recorder, Site};
use whitebox_model::weights::{LoadOptions, Weights};

const SIZE: [&str; 6] = [
    "text={path=\"words.txt\", batch_size=8, eval_tokens=256}",
    "train.optimizer.lr=3e-4",
    "task.sample_tokens=0",
    "train.schedule.warmup_steps=1",
    "train.checkpoint.keep_last=10",
    "train.checkpoint.every_steps=10",
];
const CRATE: &str = "model={kind=\"crate_gpt\", d=24, depth=3, heads=3, context=32}";
const GPT2: &str = "model={kind=\"gpt2\", d=24, depth=2, heads=2, context=48}";
const BERT: &str = "model={kind=\"crate_bert\", d=16, depth=2, heads=2, context=24}";

/// Sentences of a few words, by a rule.
fn words(sentences: usize) -> String {
    let (who, does, what) =
        (["the cat", "a dog", "one bird"], ["sees", "hears"], ["<rain> & wind", "the sea", "a hill"]);
    (0..sentences).map(|i| format!("{} {} {}.\n", who[i % 3], does[i % 2], what[(i / 3) % 3])).collect()
}

fn train(folder: &Path, out: &str, values: &[&str]) {
    let mut command = whitebox(folder);
    command.args(["train", "language-demo", "--out", out]).args(sets(&SIZE)).args(sets(values));
    stderr(command.assert().success());
}

/// A folder with a small CRATE-GPT and a GPT-2 on the same text, and the first one's analysis beside the second.
fn analyzed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("analyze-text");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("words.txt"), words(600)).unwrap();
        train(&folder, "crate", &[CRATE, "train.max_steps=40"]);
        train(&folder, "gpt2", &[GPT2, "train.max_steps=10"]);
        let sentence = "the cat sees <rain>";
        said(
            &folder,
            &["analyze", "crate", "--compare", "gpt2", "--samples", "30", "--prompt", sentence, "--out", "inside"],
        );
        folder
    })
}

fn numbers(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("analysis.json")).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("{name} in {value}"))
}

#[test]
fn every_layer_of_every_network_is_measured() {
    let found = numbers(&analyzed().join("inside"));
    let networks = list(&found, "networks");
    let subjects: Vec<_> = networks.iter().map(|n| n["subject"].as_str().unwrap()).collect();
    assert_eq!(
        subjects,
        ["trained, validation", "at initialisation, validation", "after 20 steps, validation", "gpt2, validation"]
    );
    for (network, depth) in networks.iter().zip([3, 3, 3, 2]) {
        assert_eq!((&network["sequences"], &network["images"]), (&30.into(), &Value::Null));
        for part in ["layers", "steps", "activity", "tokens", "operators", "positions"] {
            assert_eq!(list(network, part).len(), depth, "{part} of {}", network["subject"]);
        }
        for positions in list(network, "positions") {
            assert_eq!(list(positions, "block_rate").len(), 8);
            assert_eq!(list(positions, "active").len(), 32);
            // The last prefix is the whole sequence, which is measured as released, too.
            let layer = &network["layers"][positions["layer"].as_u64().unwrap() as usize];
            let [whole, prefix] =
                [&layer["coding_rate"]["mean"], &positions["prefix_rate"][7]["mean"]].map(Value::as_f64);
            assert!((whole.unwrap() - prefix.unwrap()).abs() < 1e-6 * whole.unwrap(), "{whole:?} and {prefix:?}");
            // The mean over positions is the layer's share of active entries.
            let active = list(positions, "active").iter().map(|x| x.as_f64().unwrap()).sum::<f64>() / 32.0;
            let activity = &network["activity"][positions["layer"].as_u64().unwrap() as usize];
            assert!((active - activity["active"]["mean"].as_f64().unwrap()).abs() < 1e-9);
        }
    }
    let rate = |n: usize| networks[n]["layers"][2]["coding_rate"]["mean"].as_f64().unwrap();
    assert!((rate(0) - rate(1)).abs() > 1e-3, "training has changed what was drawn");
    let step = &networks[0]["steps"][1];
    for number in ["/attention/alignment/mean", "/sparsity/change/mean", "/after/objective/mean"] {
        assert!(step.pointer(number).and_then(Value::as_f64).is_some(), "{number}: {step}");
    }
    let operators = &networks[0]["operators"][2];
    assert!(operators["output_distance"].is_number() && operators["dictionary"]["atoms"] == 24, "{operators}");
    // What GPT-2 has not is not made up.
    let gpt2 = &networks[3];
    assert!(gpt2["steps"][0]["attention"].is_null() && gpt2["operators"][0]["subspaces"].is_null(), "{gpt2}");
    assert!(gpt2["activity"][0]["place"].as_str().unwrap().contains("MLP"));
}

/// Every activation in the file is found again at its place by reading those bytes of the text with the model, and none is larger where an atom's largest is said to be.
#[test]
fn atoms_are_where_they_are_said_to_be() {
    let folder = analyzed();
    let found = numbers(&folder.join("inside"));
    let checkpoint = Path::new(found["checkpoint"].as_str().unwrap());
    let weights = Weights::open(&folder.join(checkpoint)).unwrap();
    let config: LanguageConfig = weights.card_of().unwrap().unwrap().model;
    let store = nn::VarStore::new(Device::Cpu);
    let model = config.build(&store.root()).unwrap();
    weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
    let text = fs::read(folder.join("words.txt")).unwrap();
    let length = found["text"]["length"].as_u64().unwrap() as usize;
    // The validation part is the end of the text, and the token behind it is no byte.
    let validation = &text[text.len() + 1 - found["text"]["tokens"].as_u64().unwrap() as usize..];
    let mut checked = 0;
    for layer in list(&found["networks"][0], "atoms") {
        let number = layer["layer"].as_u64().unwrap() as usize;
        assert!(list(layer, "shown").len() <= 5);
        for atom in list(layer, "shown") {
            let mut last = f64::INFINITY;
            for loud in list(atom, "top") {
                let (start, position) = (loud["start"].as_u64().unwrap() as usize, loud["position"].as_i64().unwrap());
                let window = &validation[start..start + length];
                let ids: Vec<i64> = window.iter().map(|byte| i64::from(*byte)).collect();
                let mut seen = Recorder::new(&[Site::ZOut]);
                let _ = model.hidden(&Tensor::from_slice(&ids).view([1, -1]), false, &mut seen).unwrap();
                let code = seen.get(number, Site::ZOut).unwrap().get(0).select(1, atom["atom"].as_i64().unwrap());
                let value = loud["value"].as_f64().unwrap();
                assert!((code.double_value(&[position]) - value).abs() < 1e-4 * (1.0 + value), "{loud}");
                assert!(value > 0.0 && value <= last, "largest first: {atom}");
                last = value;
                let at = position as usize;
                assert_eq!(loud["token"].as_str().unwrap().as_bytes(), &window[at..at + 1]);
                let before = loud["before"].as_str().unwrap().as_bytes();
                assert_eq!(before, &window[at - before.len()..at]);
                assert_eq!(before.len(), at.min(32));
                checked += 1;
            }
        }
    }
    assert!(checked >= 25, "{checked} activations");
}

#[test]
fn attention_is_shown_over_the_sentence() {
    let found = numbers(&analyzed().join("inside"));
    let looked = list(&found, "attention");
    assert_eq!(looked.len(), 2);
    for (looked, heads) in looked.iter().zip([3, 2]) {
        let tokens: String = list(looked, "tokens").iter().map(|token| token.as_str().unwrap()).collect();
        assert_eq!(tokens, "the cat sees <rain>");
        assert_eq!(list(looked, "heads").len(), heads);
        for head in list(looked, "heads") {
            let shares = ["itself", "before", "first"].map(|name| head[name].as_f64().unwrap());
            assert!(shares.iter().all(|share| *share > 0.0) && shares.iter().sum::<f64>() <= 1.0 + 1e-6, "{head}");
        }
    }
}

#[test]
fn the_page_and_its_figures_are_whole() {
    let folder = analyzed().join("inside");
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    for words in [
        "Coding rate and the objective",
        "Sparsity",
        "Does each half",
        "In a causal model a token sees",
        "learned operators",
        "Along the sequence",
        "Attention over a sentence",
        "Head 3 of layer 2, trained",
        "Head 2 of layer 2, gpt2",
        "Tokens that switch an atom on",
        "trained, layer 3, atom",
        "30 sequences of 32 tokens",
        "Mean over sequences",
        "falls in",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("over images"), "sequences are not called images");
    assert!(!page.contains("<rain>") && page.contains("&lt;"), "text is escaped");
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "the page needs no network");
    // The causal triangle: 19 tokens, and of them as many cells as pairs of which the key is not later.
    let map = page.split("Head 1 of layer 2, trained").find(|part| part.contains("query ↓")).unwrap();
    let map = map.split("</svg>").next().unwrap();
    assert_eq!(map.matches("fill-opacity=\"").count(), 19 * 20 / 2);
    let figures: Vec<_> = fs::read_dir(folder.join("figures")).unwrap().flatten().map(|e| e.path()).collect();
    let of = |end: &str| figures.iter().filter(|p| p.extension().is_some_and(|e| e == end)).count();
    assert!(of("svg") > 25 && of("png") == of("svg"), "{} and {}", of("svg"), of("png"));
}

/// An encoder on files of one's own, in another folder than its text.
#[test]
fn a_masked_encoder_is_measured_on_given_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("words.txt"), words(400)).unwrap();
    fs::write(folder.join("other.txt"), words(30)).unwrap();
    fs::write(folder.join("vocab.txt"), vocabulary()).unwrap();
    let mut command = whitebox(folder);
    let values = [BERT, "task={kind=\"masked_language\"}", "text.tokenizer=\"vocab.txt\"", "train.max_steps=4"];
    command.args(["train", "language-demo", "--out", "bert"]);
    let size: Vec<&str> = SIZE.iter().copied().filter(|value| !value.starts_with("task.")).collect();
    stderr(command.args(sets(&size)).args(sets(&values)).assert().success());
    said(folder, &["analyze", "bert", "--data", "other.txt", "--samples", "4", "--out", "inside"]);
    let found = numbers(&folder.join("inside"));
    assert_eq!(found["networks"][0]["subject"], "trained, given");
    assert_eq!(found["text"]["length"], 22, "two of the context's 24 frame the text");
    assert_eq!(list(&found["networks"][0]["positions"][0], "active").len(), 24);
    let tokens = list(&found["attention"][0], "tokens");
    assert_eq!((&tokens[0], tokens.last().unwrap()), (&"[CLS]".into(), &"[SEP]".into()));
    let page = fs::read_to_string(folder.join("inside/report.html")).unwrap();
    assert!(page.contains("none is hidden") && !page.contains("In a causal model"));
    fs::write(folder.join("short.txt"), "a").unwrap();
    refused(folder, &["analyze", "bert", "--data", "short.txt", "--out", "x"], &["short.txt", "2 at least"]);
}

fn vocabulary() -> String {
    let words = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat a dog one bird sees hears < rain > & wind sea hill .";
    words.split(' ').map(|word| format!("{word}\n")).collect()
}

#[test]
fn slips_are_refused() {
    let folder = analyzed();
    let case = |args: &[&str], words: &[&str]| {
        let all = [&["analyze"], args, &["--out", "x"]].concat();
        refused(folder, &all, words);
    };
    refused(folder, &["analyze", "crate", "--out", "inside"], &["inside", "already"]);
    case(&["crate", "--masks", "emoji"], &["--masks", "images", "model of text"]);
    case(&["crate", "--resolution", "16"], &["--resolution", "model of text"]);
    case(&["crate", "--shown", "3"], &["--shown", "model of text"]);
    case(&["crate", "--recipe", "demo"], &["--recipe", "model of text"]);
    case(&["crate", "--samples", "0"], &["--samples"]);
    case(&["crate", "--tokenizer", "gpt2"], &["gpt2", "another tokenizer"]);
    case(&["crate", "--prompt", ""], &["--prompt", "empty"]);
    case(&["crate", "--data", "nothing.txt"], &["nothing.txt"]);
    case(&["crate", "--compare", "nothing"], &["nothing"]);
}

/// Two models that read other tokens, or a text and an image, do not compare.
#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("words.txt"), words(300)).unwrap();
    let small = "model={kind=\"crate_gpt\", d=8, depth=1, heads=2, context=16}";
    train(folder, "bytes", &[small, "train.max_steps=2"]);
    train(folder, "characters", &[small, "text.tokenizer=\"characters\"", "train.max_steps=2"]);
    common::train(folder, "digits", "images", &["train.max_steps=2"]);
    let case = |a: &str, b: &str, words: &[&str]| {
        refused(folder, &["analyze", a, "--compare", b, "--out", "x"], words);
    };
    case("bytes", "characters", &["--compare characters", "tokenizer", "one by one"]);
    case("bytes", "images", &["--compare images", "model of images"]);
    case("images", "bytes", &["model of text"]);
    refused(folder, &["analyze", "images", "--prompt", "a", "--out", "x"], &["--prompt", "models of text"]);
    refused(folder, &["analyze", "images", "--tokenizer", "bytes", "--out", "x"], &["--tokenizer", "models of text"]);
    // A text that is no longer there: said, with the way out.
    fs::remove_file(folder.join("words.txt")).unwrap();
    refused(folder, &["analyze", "bytes", "--out", "x"], &["words.txt", "--data"]);
}
