//! `experiment mcr2`: the same small CRATE trained on digits by maximal coding rate reduction and by cross-entropy: what becomes of the classes' subspaces. What it shows
//! is told in docs/experiments/mcr2.md.

use anyhow::Result;
use ndarray::Array2;
use rate_reduction::{NearestSubspace, Width};
use serde_json::json;
use tch::{Device, Kind, Tensor, nn};
use whitebox_analysis::Series;
use whitebox_analysis::plots::panels;
use whitebox_datasets::{Dataset, Subset, digits};
use whitebox_model::mcr2::{mcr2, unit_rows};
use whitebox_model::{CrateConfig, ModelConfig, NoProbe, VisionModel};
use whitebox_train::{Optimizer, OptimizerConfig, cross_entropy};

use super::output::{Output, chart, digits as shown, percent, similarities};
use crate::commands::experiment::ExperimentArgs;
use crate::data::embedded_folder;
use crate::progress::meter;

const CLASSES: i64 = 10;
/// eps^2 as in the released supervised run.
const EPS_SQUARED: f64 = 0.5;
const BATCH: i64 = 480;
const RATE: f64 = 2e-3;
/// Directions of a class that its subspace keeps: those of most of its energy. What is left are directions of noise, which classes share.
const WIDTH: Width = Width::Energy(0.95);
/// Features of a class in a picture of similarities.
const DRAWN: usize = 8;

/// Images with their labels.
struct Part {
    images: Tensor,
    labels: Tensor,
}

/// What is minimised.
#[derive(Clone, Copy, PartialEq)]
enum Loss {
    Mcr2,
    CrossEntropy,
}

/// A trained network's features and how they came about.
struct Trained {
    /// R, R(Pi) of the training features after each epoch.
    rates: Vec<[f64; 2]>,
    /// Features of training and unseen images, as columns.
    features: [Array2<f64>; 2],
    /// Accuracy of the network's own head on the unseen images; none where it was not trained.
    head: Option<f64>,
}

/// Runs the experiment.
pub fn run(args: &ExperimentArgs) -> Result<()> {
    let mut output = Output::new("mcr2", args)?;
    let (epochs, seeds) = if args.quick { (4, 1) } else { (400, 2) };
    let (train, test) = read()?;
    let [labels, unseen] = [&train, &test].map(|part| numbers_of(&part.labels));
    let (labels, unseen) = (labels?, unseen?);
    let (mut rows, mut numbers, mut lines, mut pictures) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut bar, mut done) = (meter("training on digits", "epochs"), 0);
    for (name, loss) in [("MCR^2", Loss::Mcr2), ("cross-entropy", Loss::CrossEntropy)] {
        for seed in 0..seeds {
            let trained = train_one(loss, args.seed.wrapping_add(seed), &train, &test, epochs, || {
                done += 1;
                bar(done, 2 * seeds * epochs);
            })?;
            let [seen, new] = &trained.features;
            let subspaces = NearestSubspace::fit(seen.view(), &labels, CLASSES as usize, WIDTH)?;
            let accuracy = subspaces.accuracy(new.view(), &unseen)?;
            let cosines = subspaces.cosines()?;
            let between: Vec<f64> =
                cosines.indexed_iter().filter(|((i, j), _)| i < j).map(|(_, value)| *value).collect();
            let mean = between.iter().sum::<f64>() / between.len() as f64;
            let greatest = between.iter().copied().fold(0.0, f64::max);
            let last = trained.rates.last().copied().unwrap_or([f64::NAN; 2]);
            rows.push(vec![
                name.into(),
                seed.to_string(),
                shown(last[0]),
                shown(last[1]),
                shown(last[0] - last[1]),
                format!("{mean:.3}"),
                format!("{greatest:.3}"),
                percent(accuracy),
                trained.head.map_or("-".into(), percent),
            ]);
            numbers.push(json!({"loss": name, "seed": seed, "rate": last[0], "classes": last[1], "cosine_mean": mean, "cosine_greatest": greatest,
                "nearest_subspace": accuracy, "head": trained.head, "rates": trained.rates}));
            if seed == 0 {
                let line = |what: &str, of: fn(&[f64; 2]) -> f64| Series {
                    name: format!("{what}, {name}"),
                    points: trained.rates.iter().enumerate().map(|(epoch, r)| (epoch as f64 + 1.0, of(r))).collect(),
                    band: None,
                };
                lines.extend([line("R", |r| r[0]), line("R(Pi)", |r| r[1]), line("Delta R", |r| r[0] - r[1])]);
                pictures.push(similarities(&format!("{name}, unseen digits"), new.view(), &unseen, DRAWN)?);
            }
        }
    }
    let what = format!(
        "A CRATE of 64 dimensions and 3 layers on {} digits, {} unseen, {epochs} epochs of batches of {BATCH}, AdamW at {RATE}: rates of the unit features of the training images in nats at the end \
         (eps^2 = {EPS_SQUARED}), |cos| between the subspaces of two classes (greatest of each pair; mean and greatest over pairs), unseen digits that the nearest subspace and the network's head give their class.",
        labels.len(),
        unseen.len()
    );
    let head = ["loss", "seed", "R", "R(Pi)", "Delta R", "cosine, mean", "greatest", "nearest subspace", "head"];
    output.table("training", &what, &head, &rows, json!(numbers));
    output.figure("rates", &chart("Rates of the training features", "epoch", "nats", lines)?);
    output.figure("similarity", &panels("|cos| between features, class by class", &pictures, 2));
    output.finish()
}

fn read() -> Result<(Part, Part)> {
    let (train, test) = Subset::hold_out(std::sync::Arc::new(digits::open(&embedded_folder()?)?), 5)?;
    Ok((part(&train)?, part(&test)?))
}

/// All images of a set, in units of the recipe `digits`.
fn part(set: &dyn Dataset) -> Result<Part> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for i in 0..set.len() {
        pixels.extend(set.image(i)?.pixels.iter().map(|value| (f32::from(*value) / 255.0 - 0.305) / 0.376));
        labels.push(set.label(i) as i64);
    }
    Ok(Part { images: Tensor::from_slice(&pixels).view([-1, 1, 8, 8]), labels: Tensor::from_slice(&labels) })
}

fn numbers_of(labels: &Tensor) -> Result<Vec<usize>> {
    Ok(Vec::<i64>::try_from(labels)?.into_iter().map(|label| label as usize).collect())
}

fn train_one(
    loss: Loss,
    seed: u64,
    train: &Part,
    test: &Part,
    epochs: u64,
    mut progress: impl FnMut(),
) -> Result<Trained> {
    tch::manual_seed(seed as i64);
    let store = nn::VarStore::new(Device::Cpu);
    let shape = CrateConfig {
        image: [8, 8],
        patch: [2, 2],
        channels: 1,
        classes: CLASSES,
        d: 64,
        depth: 3,
        heads: 4,
        ..CrateConfig::default()
    };
    let mut model = ModelConfig::Crate(shape).build(&store.root())?;
    let mut variables: Vec<_> = store.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    let mut optimizer = Optimizer::new(&variables, &OptimizerConfig { weight_decay: 0.05, ..Default::default() })?;
    let n = train.labels.size()[0];
    let batches = n / BATCH;
    let mut rates = Vec::new();
    for epoch in 0..epochs {
        model.set_training(true);
        let order = Tensor::randperm(n, (Kind::Int64, Device::Cpu));
        for batch in 0..batches {
            let chosen = order.narrow(0, batch * BATCH, BATCH);
            let (images, labels) = (train.images.index_select(0, &chosen), train.labels.index_select(0, &chosen));
            optimizer.clear_grads()?;
            let value = match loss {
                Loss::Mcr2 => {
                    let features = unit_rows(&model.features(&images, &mut NoProbe)?)?;
                    mcr2(&features, &labels.one_hot(CLASSES), EPS_SQUARED)?.loss()
                }
                Loss::CrossEntropy => cross_entropy(&model.forward(&images, &mut NoProbe)?, &labels, 0.0, None)?,
            };
            value.f_backward()?;
            let at = (epoch * batches as u64 + batch as u64) as f64 / (epochs * batches as u64) as f64;
            let warm = (at * 20.0).min(1.0);
            optimizer.step(RATE * warm * 0.5 * (1.0 + (std::f64::consts::PI * at).cos()))?;
        }
        model.set_training(false);
        let features = features_of(model.as_ref(), train)?;
        let found = mcr2(&features, &train.labels.one_hot(CLASSES), EPS_SQUARED)?;
        rates.push([found.expansion.double_value(&[]), found.compression.double_value(&[])]);
        progress();
    }
    let head = (loss == Loss::CrossEntropy).then(|| -> Result<f64> {
        let logits = tch::no_grad(|| model.forward(&test.images, &mut NoProbe))?;
        Ok(logits.argmax(-1, false).eq_tensor(&test.labels).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]))
    });
    let features = [columns(&features_of(model.as_ref(), train)?)?, columns(&features_of(model.as_ref(), test)?)?];
    Ok(Trained { rates, features, head: head.transpose()? })
}

/// Unit features of all images, a row an image.
fn features_of(model: &dyn VisionModel, part: &Part) -> Result<Tensor> {
    Ok(tch::no_grad(|| unit_rows(&model.features(&part.images, &mut NoProbe)?))?)
}

fn columns(rows: &Tensor) -> Result<Array2<f64>> {
    let (n, d) = rows.size2()?;
    let values = Vec::<f64>::try_from(rows.to_kind(Kind::Double).contiguous().view([-1]))?;
    Ok(Array2::from_shape_vec((n as usize, d as usize), values)?.reversed_axes())
}
