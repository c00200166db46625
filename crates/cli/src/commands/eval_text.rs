//! `eval` of a model of text: how well it foretells one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use whitebox_analysis::count;
use whitebox_datasets::text::{Manifest, Masking, MaskingConfig, Part, Sources, TokenSet, Tokenizer};
use whitebox_language::LanguageModel;
use whitebox_language::import::is_language_model;
use whitebox_model::probe::NoProbe;
use whitebox_model::weights::Weights;

use crate::checkpoint::text::{OpenedText, open_language, open_masked};
use crate::commands::eval::EvalArgs;
use crate::likelihood::{self, Frame, Likelihood, beginning};
use crate::progress::meter;
use crate::recipe::TaskConfig;
use crate::tasks::language::{load_language, load_masked};

/// Sequences in a batch.
const ROWS: usize = 16;

/// Runs the command on a file that holds a model of text.
pub fn run(args: &EvalArgs, weights: Weights, device: Device) -> Result<()> {
    let path = weights.path.clone();
    let (model, sets) = (args.usage.model(), args.usage.sets());
    let found = if is_language_model(&weights) {
        let opened = open_language(weights, model, sets, args.tokenizer.as_ref())?;
        opened.notes.iter().for_each(|note| eprintln!("{note}"));
        let model = load_language(&opened, device)?;
        match &args.last_word {
            Some(file) => last_words(model.as_ref(), opened.tokenizer.as_ref(), file)?,
            None => {
                let (name, set) = text_of(args, &opened)?;
                let stride = args.stride.or(opened.text.as_ref().and_then(|text| text.stride));
                let found =
                    likelihood::of_set(model.as_ref(), &set, stride, ROWS, &mut meter("evaluating", "windows"))?;
                measures(&name, found)
            }
        }
    } else {
        if args.last_word.is_some() || args.stride.is_some() {
            bail!(
                "--last-word and --stride are for models that foretell the next token; this one foretells hidden ones"
            );
        }
        let opened = open_masked(weights, model, sets, args.tokenizer.as_ref())?;
        opened.notes.iter().for_each(|note| eprintln!("{note}"));
        hidden_words(args, &opened, device)?
    };
    print(args, &path, found)
}

/// The measures in the order in which they are shown.
type Measures = Vec<(String, Value)>;

fn measures(name: &str, found: Likelihood) -> Measures {
    let mut all: Measures = vec![("text".into(), json!(name))];
    all.extend(found.metrics().into_iter().map(|(name, value)| (name, json!(value))));
    all.extend([("tokens".into(), json!(found.tokens)), ("bytes".into(), json!(found.bytes))]);
    all
}

fn print(args: &EvalArgs, path: &Path, found: Measures) -> Result<()> {
    if args.json {
        let mut object = json!({ "checkpoint": path.to_string_lossy() });
        for (name, value) in found {
            object[name] = value;
        }
        return crate::say(&object.to_string());
    }
    let mut text = path.display().to_string();
    for (name, value) in found {
        let shown = match &value {
            Value::String(text) => text.clone(),
            Value::Number(n) if n.is_u64() => count(n.as_u64().unwrap_or(0)),
            Value::Number(n) => format!("{:.4}", n.as_f64().unwrap_or(f64::NAN)),
            other => other.to_string(),
        };
        text += &format!("\n{:<16}{shown:>12}", name.replace('_', " "));
    }
    crate::say(&text)
}

/// The text that is asked for: files, or the validation part of the text that the model was trained on.
fn text_of<C>(args: &EvalArgs, opened: &OpenedText<C>) -> Result<(String, Arc<TokenSet>)> {
    let tokenizer = opened.tokenizer.as_ref();
    if !args.text.is_empty() {
        let names: Vec<String> = args.text.iter().map(|path| path.display().to_string()).collect();
        return Ok((names.join(", "), whole(&args.text, tokenizer)?));
    }
    let Some(text) = &opened.text else {
        bail!("{} does not tell its text: name text files with --text", opened.weights.path.display());
    };
    let sets = text.open()?;
    if opened.packed.as_ref().is_some_and(|packed| *packed != sets.fingerprint) {
        bail!(
            "its text has changed since it was trained on it, and what validates may have been learned from: name text files with --text"
        );
    }
    if sets.tokenizer.identity().sha256 != tokenizer.identity().sha256 {
        bail!("its text is packed by {}, and --tokenizer says {}", sets.tokenizer.identity(), tokenizer.identity());
    }
    Ok(("validation part".into(), beginning(&sets.validation, text.eval_tokens, tokenizer)?))
}

/// The whole text of some files, or the validation part (where there is none the training part) of a packed folder.
fn whole(paths: &[PathBuf], tokenizer: &dyn Tokenizer) -> Result<Arc<TokenSet>> {
    if let [one] = paths
        && one.join("manifest.json").is_file()
    {
        let held_out = Manifest::read(one)?.part(Part::Validation).is_some();
        let set = TokenSet::open(one, if held_out { Part::Validation } else { Part::Train })?;
        if set.identity().sha256 != tokenizer.identity().sha256 {
            bail!(
                "{} was packed by {}, and the model reads ids of {}: name the text itself",
                one.display(),
                set.identity(),
                tokenizer.identity()
            );
        }
        return Ok(Arc::new(set));
    }
    let sources = Sources::open(paths, false)?;
    let end = tokenizer.end_of_text();
    let (mut ids, mut documents) = (Vec::new(), Vec::new());
    for chunk in sources.chunks() {
        for piece in chunk?.pieces {
            if piece.offset == 0 {
                documents.push(ids.len() as u64);
            }
            let more = tokenizer.encode(&piece.text).with_context(|| names(paths))?;
            ids.extend(more);
            if piece.offset + piece.text.len() as u64 == piece.document_bytes {
                ids.extend(end);
            }
        }
    }
    documents.dedup();
    documents.retain(|&begin| begin < ids.len() as u64);
    Ok(Arc::new(TokenSet::from_ids(ids, documents, sources.text_bytes(), tokenizer.identity().clone())?))
}

fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Accuracy on the last word of each line of a file, and its likelihood, given all before it (LAMBADA). A word counts as foretold where each of its tokens is the
/// most probable one.
fn last_words(model: &dyn LanguageModel, tokenizer: &dyn Tokenizer, file: &Path) -> Result<Measures> {
    let sources = Sources::open([file], false)?;
    // A document of a .jsonl is a passage with lines of its own.
    let passages = file.to_string_lossy().trim_end_matches(".gz").ends_with(".jsonl");
    let mut lines: Vec<String> = Vec::new();
    let mut add = |line: &str| {
        let line = line.trim();
        if line.contains(char::is_whitespace) {
            lines.push(line.to_owned());
        }
    };
    for chunk in sources.chunks() {
        for piece in chunk?.pieces {
            match passages {
                true => add(&piece.text),
                false => piece.text.lines().for_each(&mut add),
            }
        }
    }
    if lines.is_empty() {
        bail!("{} holds no line of two words or more", file.display());
    }
    let (mut right, mut nats, mut cut) = (0u64, 0.0, 0u64);
    let context = model.context() as usize;
    let mut progress = meter("evaluating", "lines");
    for (number, line) in lines.iter().enumerate() {
        let at = line.rfind(char::is_whitespace).unwrap_or(0);
        let encoded = |text: &str| -> Result<Vec<u32>> {
            let ids = tokenizer.encode(text).with_context(|| format!("{line:?}"))?;
            if ids.is_empty() {
                bail!("{line:?}: {text:?} becomes no token of {}: remove the line", tokenizer.identity());
            }
            Ok(ids)
        };
        let (before, word) = (encoded(&line[..at])?, encoded(&line[at..])?);
        let all: Vec<i64> = before.iter().chain(&word).map(|&id| i64::from(id)).collect();
        // What does not fit is left out at the beginning.
        let seen = &all[all.len().saturating_sub(context + 1)..];
        cut += u64::from(seen.len() < all.len());
        let n = word.len().min(seen.len() - 1);
        let inputs = Tensor::from_slice(&seen[..seen.len() - 1]).unsqueeze(0);
        let (ok, loss) = tch::no_grad(|| -> Result<(bool, f64)> {
            let hidden = model.hidden(&inputs, false, &mut NoProbe)?;
            let last = hidden.narrow(1, hidden.size()[1] - n as i64, n as i64);
            let scores = model.logits(&last).to_kind(Kind::Float).log_softmax(-1, None::<Kind>).squeeze_dim(0);
            let word = Tensor::from_slice(&seen[seen.len() - n..]).to_device(scores.device());
            let ok = scores.argmax(-1, false).eq_tensor(&word).all();
            let sum = scores.gather(1, &word.unsqueeze(1), false).sum(Kind::Double);
            Ok((i64::try_from(ok.to_kind(Kind::Int64))? == 1, -f64::try_from(sum)?))
        })?;
        right += u64::from(ok);
        nats += loss;
        progress(number as u64 + 1, lines.len() as u64);
    }
    let n = lines.len() as f64;
    Ok(vec![
        ("text".into(), json!(file.display().to_string())),
        ("accuracy".into(), json!(right as f64 / n)),
        ("loss_a_word".into(), json!(nats / n)),
        ("lines".into(), json!(lines.len())),
        ("lines_cut".into(), json!(cut)),
    ])
}

fn hidden_words(
    args: &EvalArgs,
    opened: &OpenedText<whitebox_language::MaskedConfig>,
    device: Device,
) -> Result<Measures> {
    let model = load_masked(opened, device)?;
    let task = opened.weights.card.as_ref().and_then(|card| card.task.clone());
    let config = match task.map(serde_json::from_value::<TaskConfig>).transpose()? {
        Some(TaskConfig::MaskedLanguage(masking)) => masking,
        _ => MaskingConfig::default(),
    };
    let (name, set) = text_of(args, opened)?;
    let tokenizer = opened.tokenizer.as_ref();
    let masking = Masking::new(tokenizer, config, crate::tasks::language::EVALUATION_SEED)?;
    let frame = Frame::of(tokenizer);
    let mut progress = meter("evaluating", "windows");
    let found = likelihood::of_hidden(model.as_ref(), &set, &masking, &frame, ROWS, device, &mut progress)?;
    let mut all: Measures = vec![("text".into(), json!(name))];
    all.extend(found.metrics().into_iter().map(|(name, value)| (name, json!(value))));
    all.push(("hidden_tokens".into(), json!(found.tokens)));
    Ok(all)
}
