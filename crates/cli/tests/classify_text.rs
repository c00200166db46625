//! Sentences, told apart: trained from scratch and on a pre-trained encoder, stopped and gone on with, scores, and what is refused.

mod common;

use std::fmt::Write;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{BINARY, ENVIRONMENT, fails, records, refused, sets, stderr, whitebox};
use serde_json::Value;

const WORDS: [&str; 8] = ["the", "a", "film", "story", "is", "was", "and", "plot"];

/// A film is good or bad; all other words say nothing.
fn sentence(number: usize) -> (String, bool) {
    let good = number.is_multiple_of(2);
    let mut words: Vec<&str> = (0..4 + number % 3).map(|i| WORDS[(number * 7 + i * 3 + i * i) % WORDS.len()]).collect();
    words.insert(number / 2 % words.len(), if good { "good" } else { "bad" });
    (words.join(" "), good)
}

const RECIPE: &str = r#"
[task]
kind = "classify_text"

[model]
kind = "crate_bert"
d = 16
depth = 1
heads = 2
context = 16
dropout = 0.0

[sentences]
train = "films.tsv"
hold_out = 5
tokenizer = "vocab.txt"
batch_size = 8

[train]
epochs = 8
log_every = 1

[train.optimizer]
rule = "adamw"
lr = 1e-2

[train.schedule]
warmup_epochs = 0
"#;

/// A folder with 150 labelled sentences, a vocabulary and the recipe `mine.toml`.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words = specials.iter().chain(&WORDS).chain(&["good", "bad"]);
    fs::write(folder.path().join("vocab.txt"), words.copied().collect::<Vec<_>>().join("\n")).unwrap();
    let mut table = "sentence\tlabel\n".to_owned();
    for (text, good) in (0..150).map(sentence) {
        writeln!(table, "{text}\t{}", if good { "good film" } else { "bad film" }).unwrap();
    }
    fs::write(folder.path().join("films.tsv"), table).unwrap();
    fs::write(folder.path().join("mine.toml"), RECIPE).unwrap();
    folder
}

#[track_caller]
fn train(folder: &Path, out: &str, values: &[&str]) -> (String, Value) {
    let said = stderr(whitebox(folder).args(line(out, values)).assert().success());
    let result = fs::read(folder.join(out).join("result.json")).unwrap();
    (said, serde_json::from_slice::<Value>(&result).unwrap()["metrics"].clone())
}

fn line(out: &str, values: &[&str]) -> Vec<String> {
    [["train", "mine.toml", "--out", out].map(String::from).to_vec(), sets(values)].concat()
}

#[test]
fn a_word_that_decides_is_learned() {
    let folder = prepared();
    let path = folder.path();
    fs::write(path.join("test.tsv"), "sentence\tlabel\nthe plot was good\tgood film\na bad story\tbad film\n").unwrap();
    let (said, found) = train(path, "run", &["sentences.test=test.tsv"]);
    assert!(said.contains("120 training and 30 validation sentences, 2 to test, 2 classes"), "{said}");
    for measure in ["accuracy", "f1", "matthews", "test_accuracy", "test_matthews"] {
        assert!(found[measure].as_f64().unwrap() > 0.95, "{measure}: {found}");
    }
    let page = fs::read_to_string(path.join("run/report.html")).unwrap();
    assert!(page.contains("Confusions") && page.contains("30 validation sentences"), "the report");
    let model = whitebox_model::weights::Weights::open(&path.join("run/checkpoints/step-00000120/model.safetensors"));
    let opened = whitebox_language::import::open_classifier(model.unwrap(), &serde_json::Map::new()).unwrap();
    assert_eq!(opened.weights.card.unwrap().classes, ["bad film", "good film"]);
    assert_eq!(opened.inferred.config.outputs, 2);

    // Its encoder is taken by another run, and the whole of it where the classes are as many.
    let again = ["init.checkpoint=run", "train.max_steps=1", "train.optimizer.lr=0"];
    let (said, found) = train(path, "again", &again);
    assert!(said.contains("beginning with the weights of run/"), "{said}");
    assert!(found["accuracy"].as_f64().unwrap() > 0.95, "nothing was learned, so nothing may have changed: {found}");
    let (said, _) = train(path, "headless", &[&again[..], &["init.new_head=true"]].concat());
    assert!(said.contains("the encoder of run/") && said.contains("with a new head"), "{said}");
    fails(path, &["predict", "run", "--checkpoint", "run"], &["is a model of text"]);

    // `eval`, on its own validation part and on a file.
    let told = |more: &[&str]| -> Value {
        serde_json::from_str(&common::said(path, &[&["eval", "run", "--json"], more].concat())).unwrap()
    };
    assert!(told(&[])["accuracy"].as_f64().unwrap() > 0.95);
    assert!(told(&["--data", "test.tsv"])["f1"].as_f64().unwrap() > 0.95);
    fails(path, &["eval", "run", "--text", "test.tsv"], &["--data FILE.tsv"]);
}

#[test]
fn an_interrupted_run_ends_in_the_same_bits() {
    let (whole, broken) = (prepared(), prepared());
    // 15 steps an epoch, and a checkpoint every second step: most lie within an epoch.
    let values = ["train.epochs=4", "train.checkpoint.every_steps=2", "task.pool=mean", "model.dropout=0.1"];
    train(whole.path(), "run", &values);
    let run = broken.path().join("run");
    let log = run.join("metrics.jsonl");
    let mut signals = 0;
    for (attempt, lines) in [8, 25, 40].into_iter().enumerate() {
        let args = match attempt {
            0 => line("run", &values),
            _ => ["train", "--resume", "run"].map(String::from).to_vec(),
        };
        let mut child = Command::new(BINARY)
            .current_dir(broken.path())
            .envs(ENVIRONMENT)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let there = || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() >= lines);
        while !there() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        signals += i32::from(child.wait().unwrap().signal() == Some(9));
    }
    assert!(signals >= 2, "the runs ended before they were killed");
    let said = stderr(whitebox(broken.path()).args(["train", "--resume", "run"]).assert().success());
    let outcome = |run: &Path| {
        let read = |name: &str| fs::read(run.join("checkpoints/step-00000060").join(name)).unwrap();
        let losses: Vec<_> = records(run, "step").into_iter().map(|r| (r["step"].clone(), r["loss"].clone())).collect();
        (read("model.safetensors"), read("optimizer.safetensors"), losses)
    };
    let (ours, theirs) = (outcome(&run), outcome(&whole.path().join("run")));
    assert!(ours == theirs, "another outcome; {said}");
}

#[test]
fn a_pre_trained_encoder_is_taken_and_another_tokenizer_refused() {
    let folder = prepared();
    let path = folder.path();
    let text: String = (0..150).map(|number| sentence(number).0 + ".\n").collect();
    fs::write(path.join("text.txt"), text).unwrap();
    let masked = RECIPE.split("[sentences]").next().unwrap().replace("classify_text", "masked_language")
        + "[text]\npath = \"text.txt\"\ntokenizer = \"vocab.txt\"\nbatch_size = 4\n[train]\nmax_steps = 3\n";
    fs::write(path.join("masked.toml"), masked).unwrap();
    let mut command = whitebox(path);
    command.env("WHITEBOX_DATA", path.join("cache"));
    stderr(command.args(["train", "masked.toml", "--out", "encoder"]).assert().success());

    // Without a model of its own and without a tokenizer the recipe takes those of the file.
    let bare = RECIPE.replace("tokenizer = \"vocab.txt\"\n", "");
    let model = bare.find("[model]").unwrap()..bare.find("[sentences]").unwrap();
    let bare = bare.replace(&bare[model], "");
    fs::write(path.join("bare.toml"), bare).unwrap();
    for pool in ["mean", "pooler"] {
        let pool = format!("task.pool={pool}");
        let args = [
            ["train", "bare.toml", "--out"].map(String::from).to_vec(),
            vec![pool.replace('=', "-")],
            sets(&["init.checkpoint=encoder", "train.max_steps=2", &pool]),
        ];
        let said = stderr(whitebox(path).args(args.concat()).assert().success());
        assert!(said.contains("beginning with the encoder of encoder/"), "{said}");
        assert!(said.contains("with a new head"), "{said}");
    }
    let fails_with = |values: &[&str], words: &[&str]| {
        refused(path, &line("other", &[&["init.checkpoint=encoder"], values].concat()), words);
    };
    fs::write(path.join("other.txt"), fs::read_to_string(path.join("vocab.txt")).unwrap().replace("film", "movie"))
        .unwrap();
    fails_with(&["sentences.tokenizer=other.txt"], &["init.checkpoint", "another word", "sentences.tokenizer out"]);
    fails_with(&["model.eta=0.3"], &["another than [model]", "eta: 0.1 before, 0.3 now", "model={}"]);
    fails_with(&["init.checkpoint=nowhere"], &["init.checkpoint", "nowhere"]);
    refused(path, &["train", "bare.toml"], &["model.kind and model.preset are missing", "init.checkpoint"]);
}

#[test]
fn scores_are_learned() {
    let folder = prepared();
    let path = folder.path();
    let mut table = "sentence1\tsentence2\tscore\n".to_owned();
    for number in 0..160 {
        let (first, second) = (sentence(number), sentence(number / 2 + 1));
        writeln!(
            table,
            "{}\t{}\t{}",
            first.0,
            second.0,
            1.5 * f64::from(u8::from(first.1)) + f64::from(u8::from(second.1))
        )
        .unwrap();
    }
    fs::write(path.join("films.tsv"), table).unwrap();
    let (said, found) = train(path, "run", &["train.epochs=12", "task.pool=mean", "task.dropout=0.0"]);
    assert!(said.contains("scores"), "{said}");
    for measure in ["pearson", "spearman"] {
        assert!(found[measure].as_f64().unwrap() > 0.8, "{measure}: {found}");
    }
    assert!(found.get("accuracy").is_none(), "{found}");
    let best = "train.checkpoint.best={metric=\"accuracy\", direction=\"max\"}";
    refused(path, &line("best", &[best]), &["of scores an evaluation measures loss, pearson, spearman"]);
}

#[test]
fn bad_sentences_are_refused() {
    let folder = prepared();
    let path = folder.path();
    let with = |content: &str, values: &[&str], words: &[&str]| {
        fs::write(path.join("films.tsv"), content).unwrap();
        refused(path, &line("run", values), words);
    };
    let good = fs::read_to_string(path.join("films.tsv")).unwrap();
    with("", &[], &["films.tsv", "0 rows"]);
    with("sentence\tlabel\n", &[], &["films.tsv", "0 rows"]);
    with("words\tlabel\na film\tgood\n", &[], &["films.tsv", "words, label", "sentences.table.text"]);
    with(
        &good,
        &["sentences.table.label=grade"],
        &["sentences.table.label = \"grade\"", "films.tsv has the columns sentence, label"],
    );
    with("sentence\nthe film\n", &[], &["films.tsv has no column of labels", "sentences.table.label"]);
    with(&good.replace("bad film", "good film"), &[], &["all 120 training sentences are of the class \"good film\""]);
    with("sentence\tlabel\na\tx\nb\ty\n", &[], &["sentences.hold_out = 5", "2 rows", "a smaller one"]);
    with("sentence\tlabel\na film\n", &[], &["films.tsv", "line 2", "1 columns"]);
    with("sentence\tscore\na\t1\nb\tmany\n", &[], &["films.tsv", "line 3", "\"many\""]);

    fs::write(path.join("films.tsv"), &good).unwrap();
    fs::write(path.join("other.tsv"), "sentence\tlabel\na film\tmiddling\n").unwrap();
    let value = |value: &str, words: &[&str]| refused(path, &line("run", &[value]), words);
    let other = ["sentences.hold_out=5", "sentences.test=other.tsv"];
    refused(path, &line("run", &other), &["other.tsv", "middling", "bad film, good film"]);
    value("sentences.batchsize=3", &["sentences", "unknown field `batchsize`", "did you mean `batch_size`?"]);
    value("sentences.table.lable=x", &["sentences.table", "did you mean `label`?"]);
    value("sentences.batch_size=0", &["sentences.batch_size = 0"]);
    value("sentences.hold_out=1", &["sentences.hold_out = 1", "at least 2"]);
    value("sentences.validation=films.tsv", &["sentences.validation and sentences.hold_out are both there"]);
    value("sentences.set=movie-reviews", &["sentences.set and sentences.train are both there"]);
    value("sentences.train=nowhere.tsv", &["nowhere.tsv"]);
    value("sentences.length=17", &["sentences.length = 17", "16 tokens"]);
    value("sentences.length=2", &["length", "2", "more than the 2 tokens around a text"]);
    value("model.pooler=false", &["no pooler", "mean"]);
    value("task.dropout=2.0", &["dropout"]);
    value("task.pool=max", &["task", "`max`", "pooler"]);
    value("model={kind=\"crate_gpt\", d=16, depth=1, heads=2}", &["classify_text", "crate_gpt", "do not go together"]);
    value("text={path=\"films.tsv\", batch_size=1}", &["the section [text] is of text", "reads labelled sentences"]);
    let recipe = &RECIPE[..RECIPE.find("[sentences]").unwrap()];
    fs::write(path.join("mine.toml"), recipe).unwrap();
    refused(path, &line("run", &[]), &["the section [sentences] is missing"]);
    let args = ["train", "movie-reviews-crate", "--set", "sentences.tokenizer=vocab.txt"];
    refused(path, &args, &["movie-reviews is not at", "cargo xtask data movie-reviews"]);
}

/// Both recipes on a file in the set's own layout: a number, a score, a sentence.
#[test]
fn the_recipes_on_movie_reviews_train() {
    let folder = prepared();
    let path = folder.path();
    fs::create_dir_all(path.join("data/movie-reviews")).unwrap();
    let lines = (1..=60).map(|number| {
        let (text, good) = sentence(number / 3);
        format!("{number}\t{}\t{text}\n", if good { 2.5 } else { -2.5 })
    });
    let file = path.join("data/movie-reviews/movieReviewSnippets_GroundTruth.txt");
    fs::write(file, lines.collect::<String>()).unwrap();
    for recipe in ["movie-reviews-crate", "movie-reviews-bert"] {
        let values = sets(&["sentences.tokenizer=vocab.txt", "train.max_steps=2", "train.schedule.warmup_steps=0"]);
        let mut command = whitebox(path);
        command.env("WHITEBOX_DATA", path.join("data")).args(["train", recipe, "--out", recipe]).args(&values);
        let said = stderr(command.assert().success());
        assert!(said.contains("48 training and 6 validation sentences, 6 to test, 2 classes"), "{said}");
        let last = records(&path.join(recipe), "eval").pop().unwrap();
        assert!(last["metrics"]["loss"].as_f64().unwrap().is_finite(), "{recipe}: {last}");
        let mut command = whitebox(path);
        command.env("WHITEBOX_DATA", path.join("data")).args(["train", recipe, "--dry-run"]).args(&values);
        let told = String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap();
        assert!(told.contains("training sentences") && told.contains("2 of 32 sentences"), "{told}");
    }
}
