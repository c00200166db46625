//! ReduNet on the digits of `data/digits.csv.gz` (8 x 8 pixels): on vectors, on images that may be anywhere (cyclic
//! translations), and on rings of images that may be turned (rotations).
//!
//! ```text
//! zcat data/digits.csv.gz | cargo run -p rate-reduction --example redunet_digits
//! ```
//!
//! Training images a class, channels and layers may follow: `-- 20 15 25`.

use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

use ndarray::{Array2, Array4, Axis};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rate_reduction::redunet::{FilterBank, polar_rings};
use rate_reduction::theory::invariance::{Labelled, run_on_signals};
use rate_reduction::{Memberships, NearestSubspace, Precision, ReduNet, ReduNetConfig, Result, Width};

const SIDE: usize = 8;
const CLASSES: usize = 10;
const RINGS: usize = 4;
const ANGLES: usize = 32;
/// Directions of a class: of 64 on vectors; over shifts of `64 C`, where those of one image alone are 64.
const WIDTH: Width = Width::Rank(6);
const SHIFT_WIDTH: Width = Width::Energy(0.95);

struct Digits {
    images: Array4<f64>,
    labels: Vec<usize>,
}

impl Digits {
    /// A column an image.
    fn vectors(&self) -> Array2<f64> {
        self.images.to_shape((self.labels.len(), SIDE * SIDE)).expect("8 x 8 pixels").t().to_owned()
    }

    fn labelled<'a>(&'a self, signals: &'a Array4<f64>) -> Labelled<'a, f64> {
        Labelled { signals: signals.view(), labels: &self.labels }
    }

    /// Every image on rings, a channel a ring.
    fn rings(&self) -> Result<Array4<f64>> {
        let mut rings = Array4::zeros((self.labels.len(), RINGS, 1, ANGLES));
        for (mut ring, image) in rings.axis_iter_mut(Axis(0)).zip(self.images.axis_iter(Axis(0))) {
            ring.index_axis_mut(Axis(1), 0).assign(&polar_rings(image.index_axis(Axis(0), 0), RINGS, ANGLES)?);
        }
        Ok(rings)
    }
}

/// The first `each` images of every class, and the others.
fn read(each: usize) -> std::result::Result<(Digits, Digits), Box<dyn Error>> {
    let mut parts = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    let mut taken = [0; CLASSES];
    for line in std::io::stdin().lock().lines() {
        let numbers: Vec<f64> = line?.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
        let (label, pixels) = numbers.split_last().ok_or("an empty line")?;
        let label = *label as usize;
        let count = taken.get_mut(label).ok_or("a label above 9")?;
        let (images, labels) = &mut parts[usize::from(*count >= each)];
        images.extend_from_slice(pixels);
        labels.push(label);
        *count += 1;
    }
    let [train, test] = parts.map(|(pixels, labels): (Vec<f64>, Vec<usize>)| {
        Array4::from_shape_vec((labels.len(), 1, SIDE, SIDE), pixels).map(|images| Digits { images, labels })
    });
    Ok((train?, test?))
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |default: usize| arguments.next().unwrap_or(Ok(default));
    let (each, channels, layers) = (next(20)?, next(15)?, next(25)?);
    let (train, test) = read(each)?;
    vectors(&train, &test, layers)?;
    let filters = |inputs, rows, columns| {
        FilterBank::random(channels, inputs, rows, columns, true, &mut ChaCha8Rng::seed_from_u64(0))
    };
    moved("translations", train.labelled(&train.images), test.labelled(&test.images), &filters(1, 3, 3)?, layers)?;
    let rings = (train.rings()?, test.rings()?);
    moved("rotations", train.labelled(&rings.0), test.labelled(&rings.1), &filters(RINGS, 1, 5)?, layers)?;
    Ok(())
}

fn config(layers: usize) -> Result<ReduNetConfig> {
    Ok(ReduNetConfig::new(layers, 0.5, Precision::from_eps_squared(0.1)?))
}

fn vectors(train: &Digits, test: &Digits, layers: usize) -> Result<()> {
    let clock = Instant::now();
    let (z, new) = (train.vectors(), test.vectors());
    let memberships = Memberships::from_labels(&train.labels, CLASSES)?;
    let (network, features) = ReduNet::build(z.view(), &memberships, config(layers)?, |_, _| ())?;
    let passed = network.forward(new.view())?;
    let before = NearestSubspace::fit(z.view(), &train.labels, CLASSES, WIDTH)?;
    let after = NearestSubspace::fit(features.view(), &train.labels, CLASSES, WIDTH)?;
    let ends = (network.objectives()[0].value(), network.objectives()[layers].value());
    println!("vectors: Delta R {:.3} to {:.3} nats", ends.0, ends.1);
    println!("  new images right {:.4}", before.accuracy(new.view(), &test.labels)?);
    println!("  after {layers} layers {:.4}", after.accuracy(passed.view(), &test.labels)?);
    println!("  {:.1} s", clock.elapsed().as_secs_f64());
    Ok(())
}

/// Unseen signals as they are, and moved around, before and after a network that counts both as the same.
fn moved(
    what: &str,
    train: Labelled<'_, f64>,
    test: Labelled<'_, f64>,
    bank: &FilterBank<f64>,
    layers: usize,
) -> Result<()> {
    let clock = Instant::now();
    let run = run_on_signals(train, test, CLASSES, Some(bank), config(layers)?, SHIFT_WIDTH, |_, _| ())?;
    let ends = (run.network.objectives()[0].value(), run.network.objectives()[layers].value());
    println!("{what}: Delta R {:.3} to {:.3} nats", ends.0, ends.1);
    println!("  new images right {:.4}, moved {:.4}", run.before.as_they_are, run.before.moved);
    println!("  after {layers} layers {:.4}, moved {:.4}", run.after.as_they_are, run.after.moved);
    println!("  moved features differ from features of the moved by {:.1e}", run.equivariance_error);
    println!("  {:.1} s", clock.elapsed().as_secs_f64());
    Ok(())
}
