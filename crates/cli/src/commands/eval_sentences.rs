//! `eval` of a classifier of sentences: on a file of labelled ones, or on the validation part of its own recipe.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tch::Device;
use whitebox_analysis::count;
use whitebox_datasets::text::{TableOptions, TextTable, TokenizerSpec};
use whitebox_model::weights::Weights;

use crate::checkpoint::sentences::{OpenedClassifier, open_classifier};
use crate::progress::meter;
use crate::sentences::{Encoded, SentencesConfig, Target, evaluate, open_table};
use crate::tasks::classify_text::load_classifier;

/// Measures the classifier in a file on the table `data` (CSV or TSV, columns as in its recipe), or on its own validation part; prints a table, or one JSON
/// object. `tokenizer` says whose ids the model reads where its file does not tell.
pub fn run(
    weights: Weights,
    data: Option<&Path>,
    tokenizer: Option<&TokenizerSpec>,
    json: bool,
    device: Device,
) -> Result<()> {
    let opened = open_classifier(weights, tokenizer)?;
    let table = labelled(&opened, data)?;
    let shown = opened.weights.path.display();
    let (length, rows) = match &opened.sentences {
        Some(sentences) => (sentences.length(opened.config.encoder.context())?, sentences.eval_batch_size),
        None => (usize::try_from(opened.config.encoder.context())?.min(128), 64),
    };
    let part = Encoded::new(table, opened.tokenizer.as_ref(), length)?;
    let model = load_classifier(&opened, device)?;
    let found = evaluate(&model, &part, rows, &mut meter("evaluating", "sentences"))?;
    let confusion = found.confusion();
    let classes = opened.classes();
    let by_class: Vec<_> = classes
        .iter()
        .zip(&confusion)
        .enumerate()
        .map(|(class, (name, row))| {
            let total: u64 = row.iter().sum();
            (name, (total > 0).then(|| row[class] as f64 / total as f64), total)
        })
        .collect();
    if json {
        let classes: Vec<_> = by_class
            .iter()
            .map(|(name, accuracy, total)| json!({"class": name, "accuracy": accuracy, "sentences": total}))
            .collect();
        let mut value = json!({
            "checkpoint": opened.weights.path.to_string_lossy(), "sentences": part.len(), "classes": classes, "confusion": confusion,
        });
        for (name, number) in found.metrics() {
            value[name] = json!(number);
        }
        return crate::say(&value.to_string());
    }
    let mut text = format!("{shown}: {} sentences\n", count(part.len() as u64));
    for (name, value) in found.metrics() {
        text += &format!("{name:<20}{value:>9.4}\n");
    }
    for (name, accuracy, total) in by_class.iter().take(100) {
        let accuracy = accuracy.map_or("-".into(), |share| format!("{share:.4}"));
        text += &format!("  {name:<18}{accuracy:>9}  of {total}\n");
    }
    crate::say(text.trim_end())
}

/// The sentences to measure on, with the classes in the model's order.
fn labelled(opened: &OpenedClassifier, data: Option<&Path>) -> Result<TextTable> {
    let shown = opened.weights.path.display();
    let target = if opened.config.outputs == 1 { Target::Score } else { Target::Classes(opened.classes()) };
    let table = match (data, &opened.sentences) {
        (Some(file), sentences) => {
            let table = sentences.as_ref().map_or_else(TableOptions::default, |sentences| sentences.table.clone());
            open_table(file, &target.options(&table))?
        }
        (None, Some(sentences)) => own_validation(sentences)?,
        (None, None) => bail!("{shown} does not tell what it was trained on: name a CSV or TSV file with --data"),
    };
    let found = Target::of(&table).with_context(|| {
        "these sentences have no labels to measure by: name a file with a column of them".to_owned()
    })?;
    if found != target {
        let what = |target: &Target| match target {
            Target::Classes(names) => format!("the classes {}", names.join(", ")),
            Target::Score => "scores".to_owned(),
        };
        bail!("the sentences are labelled by {}, the model in {shown} gives {}", what(&found), what(&target));
    }
    Ok(table)
}

fn own_validation(sentences: &SentencesConfig) -> Result<TextTable> {
    Ok(sentences.open().context("the validation sentences of its recipe (--data FILE names others)")?.validation)
}
