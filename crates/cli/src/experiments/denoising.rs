//! `experiment denoising`: one step of each kind on noisy tokens; in files of their own the rates of the gradient on
//! signal and noise, and the flow between noise and mixture. What it shows is told in docs/experiments/denoising.md.

mod flow;
mod rates;

use anyhow::Result;
use ndarray::ArrayView2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rate_reduction::theory::denoising::{Closeness, DenoisingStep, closeness, denoising_step};
use rate_reduction::theory::mixture::GaussianMixture;
use rate_reduction::theory::sampling::NoisyTokens;
use rate_reduction::{Precision, random_codebook};
use serde_json::{Value, json};
use whitebox_analysis::Series;
use whitebox_analysis::plots::panels;

use super::output::{Output, chart, digits, percent};
use crate::commands::experiment::ExperimentArgs;
use crate::progress::meter;

/// Tokens, their dimension, subspaces and their dimension.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    n: usize,
    d: usize,
    heads: usize,
    p: usize,
}

/// As in CRATE-S: 33 tokens a subspace of 64 dimensions.
const ROOMY: Shape = Shape { name: "roomy", n: 196, d: 384, heads: 6, p: 64 };
/// 125 tokens a subspace of 16 dimensions.
const CROWDED: Shape = Shape { name: "crowded", n: 500, d: 64, heads: 4, p: 16 };

impl Shape {
    /// Random orthonormal subspaces with tokens of length about 1 in them; `sigma` is the length of a token's noise.
    fn draw(&self, sigma: f64, seed: u64) -> Result<(GaussianMixture<f64>, NoisyTokens<f64>, f64)> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let codebook = random_codebook(self.d, self.heads, self.p, &mut rng)?;
        let mixture = GaussianMixture::even(codebook, 1.0 / self.p as f64)?;
        let each = sigma / (self.d as f64).sqrt();
        let tokens = mixture.sample(self.n, each, &mut rng)?;
        Ok((mixture, tokens, each))
    }

    fn words(&self) -> String {
        format!("{} (N {}, d {}, K {}, p {})", self.name, self.n, self.d, self.heads, self.p)
    }
}

/// Runs the experiment.
pub fn run(args: &ExperimentArgs) -> Result<()> {
    let mut output = Output::new("denoising", args)?;
    steps(args, &mut output)?;
    rates::run(args, &mut output)?;
    flow::run(args, &mut output)?;
    output.finish()
}

/// Before any step, and after a full one of each kind.
fn after_each_step(shape: Shape, sigma: f64, eps: f64, seed: u64) -> Result<Vec<(&'static str, Closeness)>> {
    let (mixture, tokens, each) = shape.draw(sigma, seed)?;
    let precision = Precision::from_eps(eps)?;
    let measure = |z: ArrayView2<'_, f64>| closeness(z, &tokens, &mixture, precision);
    let mut rows = vec![("none", measure(tokens.noisy.view())?)];
    for step in DenoisingStep::ALL {
        let moved = denoising_step(step, tokens.noisy.view(), &mixture, each, precision, 1.0)?;
        rows.push((step.name(), measure(moved.view())?));
    }
    Ok(rows)
}

fn steps(args: &ExperimentArgs, output: &mut Output) -> Result<()> {
    let sigmas = [0.1, 0.3, 1.0];
    let drawn: Vec<f64> = (0..if args.quick { 3 } else { 9 }).map(|i| 0.03 * 2f64.powf(f64::from(i) * 0.75)).collect();
    let shapes = if args.quick { vec![CROWDED] } else { vec![ROOMY, CROWDED] };
    let total = (shapes.len() * 2 * sigmas.len() + drawn.len()) as u64;
    let (mut bar, mut done) = (meter("steps of each kind", "settings"), 0);
    for &shape in &shapes {
        for (key, eps) in [("fine", 0.1), ("unit-gamma", (shape.p as f64 / shape.n as f64).sqrt())] {
            let mut columns = Vec::new();
            for sigma in sigmas {
                columns.push(after_each_step(shape, sigma, eps, args.seed)?);
                done += 1;
                bar(done, total);
            }
            let rows = columns[0].iter().enumerate().map(|(i, (name, _))| {
                let found = columns.iter().map(|column| column[i].1);
                let pair = |c: Closeness| [percent(c.outside), digits(c.to_clean)];
                std::iter::once((*name).to_owned())
                    .chain(found.clone().flat_map(pair))
                    .chain(found.map(|c| digits(c.unit_compression)))
                    .collect()
            });
            let rows: Vec<Vec<String>> = rows.collect();
            let numbers: Vec<Value> = sigmas
                .iter()
                .zip(&columns)
                .flat_map(|(sigma, column)| column.iter().map(move |(name, c)| record(*sigma, name, c)))
                .collect();
            let what = format!(
                "One step of size 1, {}, eps {eps:.3}: share of a token's length outside its subspace, distance to the \
                 clean token (its length is 1), and R^c of the tokens at unit length in nats, at noise of length 0.1, 0.3 and 1.",
                shape.words()
            );
            let head = [
                "step",
                "outside, 0.1",
                "to clean",
                "outside, 0.3",
                "to clean",
                "outside, 1",
                "to clean",
                "R^c, 0.1",
                "0.3",
                "1",
            ];
            output.table(&format!("steps-{}-{key}", shape.name), &what, &head, &rows, json!(numbers));
        }
    }
    let shape = shapes[0];
    let mut curves = Vec::new();
    for &sigma in &drawn {
        curves.push(after_each_step(shape, sigma, 0.1, args.seed)?);
        done += 1;
        bar(done, total);
    }
    let by_noise = |title: &str, y_label: &str, value: fn(&Closeness) -> f64| {
        let shown =
            ["none", "exact score", "gradient of R^c", "attention, gamma absorbed", "attention, logits times p"];
        let series = shown.iter().map(|name| {
            let of = |column: &Vec<(&str, Closeness)>| {
                column.iter().find(|(n, _)| n == name).map_or(f64::NAN, |c| value(&c.1))
            };
            let points = drawn.iter().zip(&curves).map(|(sigma, column)| (sigma.log10(), of(column))).collect();
            Series { name: (*name).into(), points, band: None }
        });
        chart(title, "log10 of the noise's length", y_label, series.collect())
    };
    let outside = by_noise("Off the own subspace", "share of the length", |c| c.outside)?;
    let clean = by_noise("From the clean token", "distance", |c| c.to_clean)?;
    output.figure("steps", &panels("One step of denoising, by noise", &[outside, clean], 2));
    Ok(())
}

fn record(sigma: f64, step: &str, c: &Closeness) -> Value {
    json!({"sigma": sigma, "step": step, "to_subspace": c.to_subspace, "to_clean": c.to_clean, "outside": c.outside,
        "compression": c.compression, "unit_compression": c.unit_compression})
}
