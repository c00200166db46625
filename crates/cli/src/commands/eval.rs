//! `eval`: a checkpoint measured on a set.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use whitebox_analysis::count;
use whitebox_datasets::text::TokenizerSpec;
use whitebox_datasets::{Dataset, ImageFolder};
use whitebox_language::import::is_classifier;

use super::{eval_sentences, eval_text};
use crate::checkpoint::text::is_of_text;
use crate::checkpoint::{ModelUse, read};
use crate::data::{DataConfig, SetName};
use crate::evaluate::evaluate;
use crate::images::check_fit;
use crate::progress::meter;
use crate::tasks::classify::load_model;

/// Measure a checkpoint: loss, accuracy, accuracy by class.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask eval                                   # the demo's model on its validation images
  cargo xtask eval runs/mine
  cargo xtask eval runs/mine --data photos/val       # a folder of images by class
  cargo xtask eval official.pth.tar --set model.heads=6 --recipe mine.toml --data imagenet/val
  cargo xtask eval --json
  cargo xtask eval runs/language                     # loss, perplexity, bits per byte of its text
  cargo xtask eval gpt2/model.safetensors --text book.txt --stride 256
  cargo xtask eval runs/language --last-word lambada.jsonl
  cargo xtask eval runs/reviews --data mine.tsv      # a classifier of sentences")]
pub struct EvalArgs {
    /// A weight file, a run folder or a checkpoint folder [default: the demo's model].
    pub(super) checkpoint: Option<PathBuf>,
    /// A folder of images by class, or of the set's own files, instead of the validation images of the model's recipe.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Of a language model: text files to measure it on, or a folder that `tokenize` made [default: the validation part of its text].
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "data")]
    pub(super) text: Vec<PathBuf>,
    /// Of a language model: tokens between windows; fewer give each token more to go by [default: half the context].
    #[arg(long, value_name = "TOKENS")]
    pub(super) stride: Option<usize>,
    /// Of a language model: accuracy on the last word of each line of a file, as LAMBADA has it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "stride"])]
    pub(super) last_word: Option<PathBuf>,
    /// Of a language model: whose ids it reads, where its file does not tell.
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) tokenizer: Option<TokenizerSpec>,
    #[command(flatten)]
    pub(super) usage: ModelUse,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<()> {
    let weights = read(args.checkpoint.as_deref())?;
    if is_classifier(&weights) {
        if !args.text.is_empty() || args.last_word.is_some() || args.stride.is_some() {
            bail!(
                "--text, --last-word and --stride are for language models; a classifier of sentences takes --data FILE.tsv"
            );
        }
        return eval_sentences::run(
            weights,
            args.data.as_deref(),
            args.tokenizer.as_ref(),
            args.json,
            args.usage.device()?,
        );
    }
    if is_of_text(&weights) {
        if args.data.is_some() {
            bail!(
                "--data is of images or of labelled sentences: name the text that a language model is measured on with --text"
            );
        }
        return eval_text::run(args, weights, args.usage.device()?);
    }
    if !args.text.is_empty() || args.last_word.is_some() || args.stride.is_some() || args.tokenizer.is_some() {
        bail!("--text, --last-word, --stride and --tokenizer are for models of text, and this is one of images");
    }
    let (opened, data, device) = args.usage.open(weights)?;
    let named = opened.weights.card.as_ref().map(|card| card.classes.clone()).unwrap_or_default();
    let set = open_set(args, data.clone(), &named)?;
    if set.classes().len() as i64 != opened.config.classes() {
        bail!("the set has {} classes, the model {}", set.classes().len(), opened.config.classes());
    }
    let loader = data.eval_loader(set.clone())?;
    check_fit(&loader, &opened.config.grid())?;
    let model = load_model(&opened, device)?;
    let found = evaluate(model.as_ref(), &loader, device, &mut meter("evaluating", "batches"))?;
    let n = found.predictions.len() as u64;
    let by_class = set.classes().iter().zip(&found.confusion).enumerate().map(|(i, (name, row))| {
        let total: u64 = row.iter().sum();
        (name, (total > 0).then(|| row[i] as f64 / total as f64), total)
    });
    let by_class: Vec<_> = by_class.collect();
    if args.json {
        let classes: Vec<_> =
            by_class.iter().map(|(n, a, t)| json!({"class": n, "accuracy": a, "images": t})).collect();
        let mut value = json!({
            "checkpoint": opened.weights.path.to_string_lossy(), "images": n, "skipped": found.skipped, "classes": classes,
            "confusion": found.confusion,
        });
        for (name, number) in found.metrics() {
            value[name] = json!(number);
        }
        return crate::say(&value.to_string());
    }
    let mut text = format!("{}: {} images\n", opened.weights.path.display(), count(n));
    for (name, value) in found.metrics() {
        text += &format!("{name:<20}{value:>9.4}\n");
    }
    if !found.skipped.is_empty() {
        text += &format!("{} images could not be decoded and were left out\n", found.skipped.len());
    }
    if by_class.len() <= 100 {
        for (name, accuracy, total) in by_class {
            let accuracy = accuracy.map_or("-".into(), |a| format!("{a:.4}"));
            text += &format!("  {name:<18}{accuracy:>9}  of {total}\n");
        }
    }
    crate::say(text.trim_end())
}

/// The images: a whole folder by class, the set's own files at another place, or the recipe's own validation part. `named` are the
/// model's class names, where it knows any.
fn open_set(args: &EvalArgs, mut data: DataConfig, named: &[String]) -> Result<Arc<dyn Dataset>> {
    let Some(folder) = &args.data else { return Ok(data.open()?.validation) };
    let shown = folder.display();
    if !folder.exists() {
        bail!("--data {shown}: there is nothing there");
    }
    let by_class = match named {
        [] => ImageFolder::open(folder),
        names => ImageFolder::open_with_classes(folder, names),
    };
    match by_class {
        Ok(images) => Ok(Arc::new(images)),
        Err(error) if data.set == SetName::ImageFolder => Err(error.into()),
        Err(by_class) => {
            data.path = Some(folder.clone());
            match data.open() {
                Ok(sets) => Ok(sets.validation),
                Err(own) => {
                    bail!("--data {shown} holds neither images by class ({by_class}) nor the set's own files ({own:#})")
                }
            }
        }
    }
}
