//! `analyze` of a model of text: the validation part of its own text, or a user's files, through every measure, and one page.

use anyhow::{Context, Result, bail};
use serde_json::json;
use whitebox_analysis::{Report, count};
use whitebox_model::weights::Weights;

use super::analyze::AnalyzeArgs;
use crate::analysis::page;
use crate::analysis::text::sequences::Text;
use crate::analysis::text::subject::{self, How, Network, Opened, networks};
use crate::analysis::text::{self, TextMeasures};
use crate::checkpoint::read;
use crate::checkpoint::text::is_of_text;
use crate::progress::meter;

/// The model; an option that has no meaning for one is refused.
fn open(args: &AnalyzeArgs, weights: Weights) -> Result<Opened> {
    let how = How { model: args.usage.model(), sets: args.usage.sets(), tokenizer: args.tokenizer.as_ref() };
    let opened = subject::open(weights, how)?;
    let of_images = [
        (args.masks.is_some(), "--masks"),
        (args.resolution.is_some(), "--resolution"),
        (args.shown.is_some(), "--shown"),
        (args.usage.recipe().is_some(), "--recipe"),
    ];
    if let Some((_, flag)) = of_images.iter().find(|(given, _)| *given) {
        bail!("{flag} is for models of images, and {} is a model of text: leave it out", opened.weights.path.display());
    }
    Ok(opened)
}

/// Runs the command on a file that holds a model of text.
pub fn run(args: &AnalyzeArgs, weights: Weights) -> Result<()> {
    let opened = &open(args, weights)?;
    let device = args.usage.device()?;
    let path = &opened.weights.path;
    let tokenizer = opened.tokenizer.as_ref();
    let source = match &args.data[..] {
        [] => Text::of_model(opened)?,
        files => Text::of_files(files, tokenizer)?,
    };
    let mut all = networks(args.checkpoint.as_deref(), opened, device)?;
    if let Some(other) = &args.compare {
        let shown = other.display();
        let how = How { tokenizer: args.tokenizer.as_ref(), ..How::default() };
        let theirs = read(Some(other))?;
        if !is_of_text(&theirs) {
            bail!("--compare {shown} is a model of images, and {} one of text", path.display());
        }
        let found = subject::open(theirs, how)?;
        let (ours, theirs) = (tokenizer.identity(), found.tokenizer.identity());
        if ours.sha256 != theirs.sha256 {
            bail!(
                "--compare {shown} reads by the tokenizer {theirs}, {} by {ours}: they cannot be measured on the same tokens, so analyze them one by one",
                path.display()
            );
        }
        all.push(Network::of_file(&shown.to_string(), &found, device)?);
    }
    let length = all.iter().map(Network::room).min().unwrap_or(1);
    let sequences = source.sequences(args.samples, length)?;
    let sentence = match &args.prompt {
        Some(prompt) => tokenizer.encode(prompt).context("--prompt")?,
        None => sequences.rows.first().cloned().unwrap_or_default(),
    };
    if sentence.is_empty() {
        bail!("--prompt is empty: expected a sentence");
    }
    let folder = page::folder(args.out.as_deref())?;
    let (many, length) = (count(sequences.rows.len() as u64), sequences.rows.first().map_or(0, Vec::len));
    eprintln!(
        "{}: {} parameters\nfolder: {}",
        path.display(),
        count(opened.config.parameters()),
        folder.path.display()
    );

    let mut measures = Vec::new();
    for network in &all {
        eprintln!("{}, {many} sequences of {length} tokens", network.name);
        measures.push(text::measure(network, &sequences, &mut meter("measuring", "sequences"))?);
    }
    let asked_for = || all.iter().filter(|network| network.shown);
    let mut looked = asked_for().map(|network| text::look(network, &sentence)).collect::<Result<Vec<_>>>()?;
    let [some_causal, all_causal] =
        [asked_for().any(|n| n.config.is_causal()), asked_for().all(|n| n.config.is_causal())];
    let shown: Vec<&TextMeasures> = measures.iter().zip(&all).filter(|(_, n)| n.shown).map(|(m, _)| m).collect();
    let mut sections = text::common(&measures, &all)?;
    sections.push(text::positions(&shown, all_causal)?);
    sections.push(text::attention(&mut looked, some_causal));
    sections.push(text::atoms(&shown));

    let numbers = json!({
        "checkpoint": path,
        "compared": args.compare,
        "text": {
            "source": sequences.text,
            "part": sequences.part,
            "tokens": sequences.tokens,
            "tokenizer": tokenizer.identity(),
            "sequences": sequences.rows.len(),
            "length": length,
        },
        "networks": measures,
        "attention": looked,
    });
    let mut summary = vec![format!(
        "Every layer of a model of text was measured on {many} sequences of {length} tokens: whether it compresses, whether it sparsifies, what its heads look at, and which tokens \
         switch its atoms on."
    )];
    summary.extend(shown.iter().filter_map(|measures| told(measures)));
    if !all_causal {
        summary.push("An encoder that is trained on hidden tokens is measured on text of which none is hidden.".into());
    }
    let facts = vec![
        ("Text", sequences.text.clone()),
        ("Tokenizer", tokenizer.identity().to_string()),
        ("Sequences", format!("{many} of {length} tokens, evenly out of the text")),
    ];
    let report = Report {
        title: format!("Inside {}", args.checkpoint.as_deref().unwrap_or(path).display()),
        summary,
        facts: page::facts(path, facts),
        sections,
        ..Report::default()
    };
    page::write(&folder, numbers, &report)
}

/// How sparse the codes are and how the rate goes, in a sentence.
fn told(measures: &TextMeasures) -> Option<String> {
    let common = &measures.common;
    let (first, last) = (common.activity.first()?, common.activity.last()?);
    let rates: Vec<f64> = common.layers.iter().map(|layer| layer.coding_rate.mean).collect();
    let falls = rates.windows(2).filter(|pair| pair[1] < pair[0]).count();
    Some(format!(
        "{}: the code has {:.1} % of its entries above zero in layer {} and {:.1} % in layer {}; the rate R^c falls in {falls} of {} steps from layer to layer.",
        common.network,
        100.0 * first.active.mean,
        first.layer + 1,
        100.0 * last.active.mean,
        last.layer + 1,
        rates.len().saturating_sub(1)
    ))
}
