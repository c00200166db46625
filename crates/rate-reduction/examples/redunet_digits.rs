//! ReduNet on the digits of `data/digits.csv.gz` (8 x 8 pixels): on vectors, and on images of any cyclic translation.
//!
//! ```text
//! zcat data/digits.csv.gz | cargo run -p rate-reduction --example redunet_digits
//! ```
//!
//! Training images a class, channels and layers may follow: `-- 20 15 25`.

use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

use ndarray::{Array2, Array4, s};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rate_reduction::redunet::FilterBank;
use rate_reduction::{
    Memberships, NearestSubspace, Precision, ReduNet, ReduNetConfig, Result, ShiftReduNet, Shifts, Width,
};

const SIDE: usize = 8;
const CLASSES: usize = 10;
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

    /// Every image moved on by its own number of rows and columns.
    fn translated(&self) -> Self {
        let images = Array4::from_shape_fn(self.images.raw_dim(), |(i, c, y, x)| {
            self.images[(i, c, (y + i) % SIDE, (x + i / SIDE) % SIDE)]
        });
        Self { images, labels: self.labels.clone() }
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
    translations(&train, &test, channels, layers)?;
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

fn translations(train: &Digits, test: &Digits, channels: usize, layers: usize) -> Result<()> {
    let clock = Instant::now();
    let bank = FilterBank::random(channels, 1, 3, 3, true, &mut ChaCha8Rng::seed_from_u64(0))?;
    let lifted = bank.lift(train.images.view())?;
    let (new, moved) = (bank.lift(test.images.view())?, bank.lift(test.translated().images.view())?);
    let memberships = Memberships::from_labels(&train.labels, CLASSES)?;
    let (network, features) = ShiftReduNet::build(lifted.view(), &memberships, config(layers)?, |_, _| ())?;
    let ends = (network.objectives()[0].value(), network.objectives()[layers].value());
    println!("translations, {channels} channels: Delta R {:.3} to {:.3} nats", ends.0, ends.1);
    let shifts: &Shifts<f64> = network.shifts();
    let fit = |signals: &Array4<f64>| {
        NearestSubspace::fit_shifts(shifts, shifts.tokens(signals.view())?.view(), &train.labels, CLASSES, SHIFT_WIDTH)
    };
    let (before, after) = (fit(&lifted)?, fit(&features)?);
    println!(
        "  class 0 spans {} of {} directions before, {} after",
        before.dimensions()[0],
        channels * SIDE * SIDE,
        after.dimensions()[0]
    );
    let right = |fitted: &NearestSubspace<f64>, signals: &Array4<f64>| {
        fitted.accuracy(shifts.tokens(signals.view())?.view(), &test.labels)
    };
    println!("  new images right {:.4}, translated {:.4}", right(&before, &new)?, right(&before, &moved)?);
    let (new, moved) = (network.forward(new.view())?, network.forward(moved.view())?);
    println!("  after {layers} layers {:.4}, translated {:.4}", right(&after, &new)?, right(&after, &moved)?);
    let first = after.energies(shifts.tokens(new.slice(s![..1, .., .., ..]))?.view())?;
    println!("  shares of the first image's energy by class: {:.2}", first.column(0));
    println!("  {:.1} s", clock.elapsed().as_secs_f64());
    Ok(())
}
