//! ReduNet on handwritten digits: as vectors beside simple classifiers, and with the forms that count an image and all its turns, or all its places, as one.

use anyhow::Result;
use ndarray::{Array2, Array4, Axis};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rate_reduction::redunet::{FilterBank, polar_rings};
use rate_reduction::theory::invariance::{Labelled, moved_each, run_on_signals};
use rate_reduction::{Memberships, NearestSubspace, Precision, ReduNet, ReduNetConfig, Width};
use serde_json::json;
use tch::Tensor;
use whitebox_analysis::Series;
use whitebox_datasets::{Dataset, digits};

use crate::commands::experiment::ExperimentArgs;
use crate::data::embedded_folder;
use crate::experiments::output::{Output, chart, digits as shown, percent};
use crate::frozen::{Features, Linear, knn};
use crate::progress::meter;

const CLASSES: usize = 10;
const SIDE: usize = 8;
const RINGS: usize = 4;
const ANGLES: usize = 32;
/// Neighbours that vote, and the penalty of the linear model.
const NEIGHBOURS: i64 = 5;
const DECAY: f64 = 1e-3;
/// Directions of a class: of 64 on vectors; over shifts of 64 a channel, where those of one image alone are 64.
const WIDTH: Width = Width::Rank(6);
const SHIFT_WIDTH: Width = Width::Energy(0.95);

/// Some digits, `N x 1 x 8 x 8` in 0..1.
struct Digits {
    images: Array4<f64>,
    labels: Vec<usize>,
}

impl Digits {
    fn labelled(&self) -> Labelled<'_, f64> {
        Labelled { signals: self.images.view(), labels: &self.labels }
    }
}

/// Sizes of the runs.
#[derive(Clone, Copy)]
struct Size {
    each: usize,
    unseen: usize,
    channels: usize,
    layers: usize,
}

/// All three forms, into one table.
pub fn all(args: &ExperimentArgs, output: &mut Output) -> Result<()> {
    let size = match args.quick {
        true => Size { each: 8, unseen: 60, channels: 6, layers: 4 },
        false => Size { each: 50, unseen: usize::MAX, channels: 20, layers: 40 },
    };
    let (train, test) = read(size)?;
    let rings = |part: &Digits| -> Result<Digits> {
        Ok(Digits { images: on_rings(&part.images)?, labels: part.labels.clone() })
    };
    let bank = |inputs, rows, columns| {
        FilterBank::random(size.channels, inputs, rows, columns, true, &mut ChaCha8Rng::seed_from_u64(args.seed))
    };
    let mut found = Found::default();
    let (turned_train, turned_test) = (rings(&train)?, rings(&test)?);
    vectors("anywhere", "translations", &train, &test, size, &mut found)?;
    signals("anywhere, shift-invariant", "translations", &train, &test, &bank(1, 3, 3)?, size, &mut found)?;
    vectors("turned", "rotations", &turned_train, &turned_test, size, &mut found)?;
    signals(
        "turned, shift-invariant",
        "rotations",
        &turned_train,
        &turned_test,
        &bank(RINGS, 1, 5)?,
        size,
        &mut found,
    )?;
    let what = format!(
        "Handwritten digits of 8 x 8, {} images a class to build from, {} unseen ones, {} layers, eta 0.5, eps^2 = 0.1: share of the unseen that is classified rightly, as they are and each moved by its own \
         cyclic shift (rotations: of {RINGS} rings of {ANGLES} angles). Nearest subspace before the first layer and behind the last; beside it, on the same pixels, {NEIGHBOURS} nearest neighbours and a linear model. The \
         shift-invariant form lifts to {} channels by random filters.",
        size.each,
        test.labels.len(),
        size.layers,
        size.channels
    );
    let head = [
        "form",
        "Delta R, first",
        "last",
        "before",
        "after",
        "before, moved",
        "after, moved",
        "neighbours",
        "linear",
        "neighbours, moved",
        "linear, moved",
    ];
    output.table("digits", &what, &head, &found.rows, json!(found.numbers));
    output.figure(
        "digits",
        &chart("Rate reduction by layer, digits", "layer", "Delta R over its maximum in the run", found.lines)?,
    );
    Ok(())
}

#[derive(Default)]
struct Found {
    rows: Vec<Vec<String>>,
    numbers: Vec<serde_json::Value>,
    lines: Vec<Series>,
}

impl Found {
    fn add(&mut self, form: &str, what: &str, objectives: &[f64], rights: [f64; 4], simple: Option<[f64; 4]>) {
        let (first, last) = (objectives[0], objectives[objectives.len() - 1]);
        let mut row = vec![form.to_owned(), shown(first), shown(last)];
        row.extend(rights.iter().map(|share| percent(*share)));
        row.extend((0..4).map(|i| simple.map_or("-".into(), |simple| percent(simple[i]))));
        self.rows.push(row);
        self.numbers.push(json!({
            "form": form, "moves": what, "first": first, "last": last, "before": rights[0], "after": rights[1],
            "before_moved": rights[2], "after_moved": rights[3], "simple": simple,
        }));
        let most = objectives.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let points = objectives.iter().enumerate().map(|(layer, value)| (layer as f64, value / most)).collect();
        self.lines.push(Series { name: form.into(), points, band: None });
    }
}

/// The first images of every class, and the others.
fn read(size: Size) -> Result<(Digits, Digits)> {
    let all = digits::open(&embedded_folder()?)?;
    let mut parts = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    let mut taken = [0; CLASSES];
    for i in 0..all.len() {
        let label = all.label(i);
        let (pixels, labels) = &mut parts[usize::from(taken[label] >= size.each)];
        taken[label] += 1;
        if labels.len() < size.unseen.max(CLASSES * size.each) {
            pixels.extend(all.image(i)?.pixels.iter().map(|value| f64::from(*value) / 255.0));
            labels.push(label);
        }
    }
    let [train, test] = parts.map(|(pixels, labels): (Vec<f64>, Vec<usize>)| {
        Array4::from_shape_vec((labels.len(), 1, SIDE, SIDE), pixels).map(|images| Digits { images, labels })
    });
    Ok((train?, test?))
}

/// Every image on rings, a channel a ring: a turn becomes a shift.
fn on_rings(images: &Array4<f64>) -> Result<Array4<f64>> {
    let mut rings = Array4::zeros((images.dim().0, RINGS, 1, ANGLES));
    for (mut ring, image) in rings.axis_iter_mut(Axis(0)).zip(images.axis_iter(Axis(0))) {
        ring.index_axis_mut(Axis(1), 0).assign(&polar_rings(image.index_axis(Axis(0), 0), RINGS, ANGLES)?);
    }
    Ok(rings)
}

/// A column an image.
fn columns(images: &Array4<f64>) -> Result<Array2<f64>> {
    let n = images.dim().0;
    Ok(images.to_shape((n, images.len() / n.max(1)))?.t().to_owned())
}

fn config(size: Size) -> Result<ReduNetConfig> {
    Ok(ReduNetConfig::new(size.layers, 0.5, Precision::from_eps_squared(0.1)?))
}

fn vectors(form: &str, what: &str, train: &Digits, test: &Digits, size: Size, found: &mut Found) -> Result<()> {
    let mut bar = meter("layers built on digits", "layers");
    let shifted = moved_each(test.images.view());
    let (z, new, new_moved) = (columns(&train.images)?, columns(&test.images)?, columns(&shifted)?);
    let memberships = Memberships::from_labels(&train.labels, CLASSES)?;
    let mut done = 0;
    let (network, features) = ReduNet::build(z.view(), &memberships, config(size)?, |_, _| {
        done += 1;
        bar(done, size.layers as u64 + 1);
    })?;
    let before = NearestSubspace::fit(z.view(), &train.labels, CLASSES, WIDTH)?;
    let after = NearestSubspace::fit(features.view(), &train.labels, CLASSES, WIDTH)?;
    let right = |subspaces: &NearestSubspace<f64>, z: &Array2<f64>| subspaces.accuracy(z.view(), &test.labels);
    let rights = [
        right(&before, &new)?,
        right(&after, &network.forward(new.view())?)?,
        right(&before, &new_moved)?,
        right(&after, &network.forward(new_moved.view())?)?,
    ];
    let simple = simple(train, &[&test.images, &shifted], &test.labels)?;
    let objectives: Vec<f64> = network.objectives().iter().map(|o| o.value()).collect();
    found.add(&format!("{form}, vectors"), what, &objectives, rights, Some(simple));
    Ok(())
}

/// Neighbours and a linear model on the images as they are and moved.
fn simple(train: &Digits, asked: &[&Array4<f64>; 2], labels: &[usize]) -> Result<[f64; 4]> {
    let features = |images: &Array4<f64>, labels: &[usize]| {
        let n = images.dim().0 as i64;
        let values: Vec<f32> = images.iter().map(|value| *value as f32).collect();
        let labels: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
        Features {
            values: Tensor::from_slice(&values).view([n, -1]),
            labels: Tensor::from_slice(&labels),
            skipped: Vec::new(),
        }
    };
    let known = features(&train.images, &train.labels);
    let linear = Linear::fit(&known, CLASSES as i64, DECAY, &mut |_, _| ())?;
    let mut rights = [0.0; 4];
    for (i, images) in asked.iter().enumerate() {
        let asked = features(images, labels);
        rights[2 * i] = knn(&known, &asked, CLASSES as i64, &[NEIGHBOURS], &mut |_, _| ())?[0];
        rights[2 * i + 1] = linear.accuracy(&asked);
    }
    Ok(rights)
}

fn signals(
    form: &str,
    what: &str,
    train: &Digits,
    test: &Digits,
    bank: &FilterBank<f64>,
    size: Size,
    found: &mut Found,
) -> Result<()> {
    let mut bar = meter("layers built on digits and their shifts", "layers");
    let (seen, new) = (train.labelled(), test.labelled());
    let mut done = 0;
    let run = run_on_signals(seen, new, CLASSES, Some(bank), config(size)?, SHIFT_WIDTH, |_, _| {
        done += 1;
        bar(done, size.layers as u64 + 1);
    })?;
    let objectives: Vec<f64> = run.network.objectives().iter().map(|o| o.value()).collect();
    let rights = [run.before.as_they_are, run.after.as_they_are, run.before.moved, run.after.moved];
    found.add(form, what, &objectives, rights, None);
    Ok(())
}
