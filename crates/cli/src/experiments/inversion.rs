//! `experiment inversion`: does a decoder's layer undo its partner in the encoder? What it shows is told in docs/experiments/inversion.md.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tch::{Device, Tensor, nn};
use whitebox_analysis::Series;
use whitebox_analysis::plots::{Figure, panels};
use whitebox_autoencoder::inversion::{Inversion, inversions};
use whitebox_autoencoder::{AutoencoderConfig, CrateMae, Masking};
use whitebox_model::weights::{LoadOptions, Weights};

use super::output::{Output, chart, digits};
use crate::checkpoint::in_run;
use crate::commands::experiment::ExperimentArgs;
use crate::commands::sweep::finished;
use crate::images::images_of;
use crate::recipe::{self, Named, TaskConfig};

/// A network to be looked at: its name, and what differs from the recipe of the masked autoencoder's demo.
type Case = (&'static str, &'static [&'static str]);

const PLAIN: &[&str] = &["task.masking.ratio=0", "task.loss.over=whole"];

/// Plain autoencoders whose decoders begin in three ways, and the masked one as released.
const CASES: [Case; 4] = [
    ("independent", PLAIN),
    ("inverted", &["model.decoder_init=inverted", PLAIN[0], PLAIN[1]]),
    ("tied", &["model.decoder_init=tied", PLAIN[0], PLAIN[1]]),
    ("masked", &[]),
];

/// A case's name, and its layers before and after training.
type Found = (&'static str, Vec<Inversion>, Vec<Inversion>);

/// The layers of a case, before or after.
type Layers = fn(&Found) -> &Vec<Inversion>;

/// Validation images that are passed through.
const IMAGES: i64 = 256;

/// Runs the experiment.
pub fn run(args: &ExperimentArgs) -> Result<()> {
    let mut output = Output::new("inversion", args)?;
    let mut found = Vec::new();
    for (name, sets) in CASES {
        let named = recipe_of(sets, args)?;
        let folder = finished(&named, &output.folder().join(name), Device::Cpu)?;
        let images = images(&named)?;
        let before = measured(&named, None, &images)?;
        let after = measured(&named, Some(&in_run(&folder.path)?), &images)?;
        found.push((name, before, after));
    }
    let rows = found.iter().flat_map(|(name, before, after)| {
        before.iter().zip(after).map(move |(b, a)| {
            let numbers = [b.pair, a.pair, b.stack, a.stack].map(|n| [digits(n.error), digits(n.cosine)]);
            [(*name).to_owned(), (b.layer + 1).to_string()].into_iter().chain(numbers.into_iter().flatten()).collect()
        })
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let what = "Relative error and mean cosine of what comes back, tokens normalised: one encoder layer and its partner (pair), all layers \
        up to it and their partners (stack), before and after training.";
    let head = [
        "decoder",
        "layer",
        "pair, before: error",
        "cosine",
        "after: error",
        "cosine",
        "stack, before: error",
        "cosine",
        "after: error",
        "cosine",
    ];
    output.table("layers", what, &head, &rows, found.iter().map(record).collect());
    let (before, after): (Layers, Layers) = (|case| &case.1, |case| &case.2);
    let figures = [
        by_layer("One layer and its partner, before training", &found, before, |i| i.pair.error)?,
        by_layer("The same, after training", &found, after, |i| i.pair.error)?,
        by_layer("All layers up to it, before training", &found, before, |i| i.stack.error)?,
        by_layer("The same, after training", &found, after, |i| i.stack.error)?,
    ];
    output.figure("", &panels("Error of what comes back, by encoder layer", &figures, 2));
    output.finish()
}

/// The demo's masked autoencoder with more layers and what a case changes.
fn recipe_of(sets: &[&str], args: &ExperimentArgs) -> Result<Named> {
    let (depth, epochs, warmup) = if args.quick { (2, 1, 0.1) } else { (4, 6, 0.5) };
    let mut all: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    all.extend([
        format!("model.depth={depth}"),
        format!("train.seed={}", args.seed),
        format!("train.epochs={epochs}"),
        format!("train.schedule.warmup_epochs={warmup}"),
        "report.layer_images=0".into(),
    ]);
    if args.quick {
        all.push("train.max_steps=30".into());
    }
    recipe::load("mae-demo", &all)
}

/// The first validation images, `[IMAGES, C, H, W]`.
fn images(named: &Named) -> Result<Tensor> {
    let mut data = named.recipe.images()?.clone();
    data.eval_batch_size = IMAGES as usize;
    let sets = data.open()?;
    let batch = data.eval_loader(sets.validation)?.epoch(0, 0).next().context("the set has no validation images")??;
    Ok(images_of(&batch, Device::Cpu))
}

/// Every layer of the model as drawn, or as a file has it.
fn measured(named: &Named, file: Option<&Path>, images: &Tensor) -> Result<Vec<Inversion>> {
    let AutoencoderConfig::CrateMae(config) = named.recipe.autoencoder_config()? else {
        bail!("the recipe's model is no CRATE-MAE");
    };
    let TaskConfig::Reconstruct(task) = &named.recipe.task else { bail!("the recipe's task is no reconstruction") };
    tch::manual_seed(named.recipe.train.seed as i64);
    let store = nn::VarStore::new(Device::Cpu);
    let model = CrateMae::new(&store.root(), &config)?;
    if let Some(file) = file {
        Weights::open(file)?.load_into(&store.variables(), LoadOptions::default())?;
    }
    let seeds: Vec<u64> = (0..images.size()[0] as u64).collect();
    let masking: Masking = task.masking;
    Ok(inversions(&model, images, &masking.seeded(&seeds, config.grid().shape(), Device::Cpu)?)?)
}

fn record((name, before, after): &Found) -> Value {
    let layers = |found: &[Inversion]| -> Value {
        let one = |i: &Inversion| {
            json!({"layer": i.layer, "pair": {"error": i.pair.error, "cosine": i.pair.cosine},
                "stack": {"error": i.stack.error, "cosine": i.stack.cosine}})
        };
        found.iter().map(one).collect()
    };
    json!({"decoder": name, "before": layers(before), "after": layers(after)})
}

fn by_layer(title: &str, found: &[Found], layers: Layers, value: fn(&Inversion) -> f64) -> Result<Figure> {
    let series = found.iter().map(|case| Series {
        name: case.0.into(),
        points: layers(case).iter().map(|i| (i.layer as f64 + 1.0, value(i))).collect(),
        band: None,
    });
    chart(title, "encoder layer", "relative error", series.collect())
}
