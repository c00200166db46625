//! `experiment optima`: what maximising the objective makes of random tokens, beside configurations made by hand and
//! the closed form of MCR^2. What it shows is told in docs/experiments/optima.md.

use anyhow::Result;
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rate_reduction::theory::ascent::{Coding, Penalty, ascend};
use rate_reduction::theory::configurations::Configuration;
use rate_reduction::theory::optima::{
    class_codebook, class_coherence, class_spectra, mcr2_spectrum, off_axis_energy, outside_nearest,
};
use rate_reduction::{
    Codebook, Memberships, Precision, Sparsity, coherence, nonzero_fraction, random_codebook, rate_reduction,
    sparse_rate_reduction,
};
use serde_json::json;
use whitebox_analysis::plots::{Figure, magnitudes, panels};

use super::output::{Output, digits, percent};
use crate::commands::experiment::ExperimentArgs;
use crate::progress::meter;

const D: usize = 24;
const CLASSES: usize = 3;
const P: usize = 8;
const EPS: f64 = 0.5;
/// The share of a class's energy that its subspace holds.
const HELD: f64 = 0.99;

/// Runs the experiment.
pub fn run(args: &ExperimentArgs) -> Result<()> {
    let mut output = Output::new("optima", args)?;
    let n = if args.quick { 48 } else { 96 };
    let labels: Vec<usize> = (0..n).map(|i| i % CLASSES).collect();
    configurations(args, n, &labels, &mut output)?;
    let shown = ascents(args, n, &labels, &mut output)?;
    fixed(args, n, &mut output)?;
    spectrum(args, &mut output)?;
    output.figure("", &panels("Tokens of three classes (columns): magnitude on each axis (rows)", &shown, 2));
    output.finish()
}

/// Four configurations made by hand, by Delta R against the subspaces that their classes span.
fn configurations(args: &ExperimentArgs, n: usize, labels: &[usize], output: &mut Output) -> Result<()> {
    let (precision, lambda) = (Precision::from_eps(EPS)?, 0.01);
    let (mut rows, mut numbers) = (Vec::new(), Vec::new());
    for configuration in Configuration::ALL {
        let z = configuration.tokens(D, CLASSES, P, n, &mut ChaCha8Rng::seed_from_u64(args.seed))?;
        let u = class_codebook(z.view(), labels, CLASSES, P)?;
        let found = sparse_rate_reduction(z.view(), &u, precision, lambda, Sparsity::L0)?;
        let (gain, together) = (found.expansion - found.compression, coherence(&u)?);
        let nonzeros = nonzero_fraction(z.view())?;
        let name = configuration.name();
        let values = [found.expansion, found.compression, gain, found.value()].map(digits);
        rows.push(
            [name.to_owned()].into_iter().chain(values).chain([format!("{together:.3}"), percent(nonzeros)]).collect(),
        );
        numbers.push(json!({"configuration": name, "r": found.expansion, "rc": found.compression, "delta_r": gain,
            "objective": found.value(), "coherence": together, "nonzeros": nonzeros}));
    }
    let what = format!(
        "Configurations of {n} unit tokens in {CLASSES} classes, d {D}, p {P}, eps {EPS}: rates in nats against \
         each class's {P} strongest directions, the objective Delta R - {lambda} ||Z||_0, coherence of these subspaces, share of non-zero entries."
    );
    let head = ["configuration", "R", "R^c", "Delta R", "objective", "coherence", "non-zeros"];
    output.table("configurations", &what, &head, &rows, json!(numbers));
    Ok(())
}

/// Ascent from random tokens with known memberships, by the weight of the l1 term; the pictures of some.
fn ascents(args: &ExperimentArgs, n: usize, labels: &[usize], output: &mut Output) -> Result<Vec<Figure>> {
    let (steps, seeds) = if args.quick { (150, 1) } else { (3000, 3) };
    let lambdas: &[f64] = if args.quick { &[0.0, 0.02] } else { &[0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.1] };
    let precision = Precision::from_eps(EPS)?;
    let memberships = Memberships::from_labels(labels, CLASSES)?;
    let coding = Coding::Memberships(&memberships);
    let (mut rows, mut numbers, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    let mut bar = meter("ascent from random tokens", "steps");
    let total = (lambdas.len() * seeds * steps) as u64;
    for (i, &lambda) in lambdas.iter().enumerate() {
        let (mut gain, mut objective, mut together, mut off, mut nonzeros, mut taken) = (0.0, 0.0, 0f64, 0f64, 0.0, 0);
        let mut ranks = Vec::new();
        for seed in 0..seeds {
            let mut rng = ChaCha8Rng::seed_from_u64(args.seed.wrapping_add(seed as u64));
            let start = Configuration::Random.tokens(D, CLASSES, P, n, &mut rng)?;
            if shown.is_empty() {
                shown.push(picture("random", &start, labels)?);
            }
            let before = ((i * seeds + seed) * steps) as u64;
            let found = ascend(start.view(), coding, precision, Penalty::UnitL1(lambda), steps, |done| {
                bar(before + done as u64, total);
            })?;
            let z = found.z.view();
            let share = 1.0 / seeds as f64;
            gain += share * coding.value(z, precision)?;
            objective += share * found.values.last().copied().unwrap_or(f64::NAN);
            nonzeros += share * nonzero_fraction(z)?;
            together = together.max(class_coherence(z, labels, CLASSES, HELD)?);
            off = off.max(off_axis_energy(z, labels, CLASSES)?);
            taken = taken.max(found.values.len() - 1);
            if seed == 0 {
                let spectra = class_spectra(z, labels, CLASSES)?;
                let filled = |s: &Vec<f64>| s.iter().filter(|v| **v > 0.1 * s[0]).count().to_string();
                ranks = spectra.iter().map(filled).collect();
                if lambda == 0.0 || lambda == 0.02 || lambda == 0.1 {
                    shown.push(picture(&format!("lambda {lambda}"), &found.z, labels)?);
                }
            }
        }
        let gaps = [format!("{together:.4}"), percent(off), percent(nonzeros), ranks.join(", "), taken.to_string()];
        rows.push([lambda.to_string(), digits(gain), digits(objective)].into_iter().chain(gaps).collect());
        numbers.push(
            json!({"lambda": lambda, "delta_r": gain, "objective": objective, "coherence": together, "off_axis": off,
            "nonzeros": nonzeros, "ranks": ranks, "steps": taken}),
        );
    }
    bar(total, total);
    let what = format!(
        "Ascent of Delta R(Z, Pi) - lambda ||Z||_1 from random unit tokens with known memberships ({n} tokens, d {D}, \
         eps {EPS}): means of {seeds} seeds; of coherence, energy off the axes and steps the largest."
    );
    let head = ["lambda", "Delta R", "objective", "coherence", "off the axes", "non-zeros", "dimensions", "steps"];
    output.table("ascent", &what, &head, &rows, json!(numbers));
    Ok(shown)
}

/// Tokens sorted by class, class by class in another colour.
fn picture(title: &str, z: &Array2<f64>, labels: &[usize]) -> Result<Figure> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    let home = |i: usize| {
        z.column(i).iter().enumerate().fold((0, 0.0), |top, (a, v)| if v.abs() > top.1 { (a, v.abs()) } else { top }).0
    };
    order.sort_by_key(|i| (labels[*i], home(*i)));
    // The axes in the order of the classes that have most energy there.
    let owner = |axis: usize| {
        let mut held = [0.0; CLASSES];
        z.row(axis).iter().zip(labels).for_each(|(v, k)| held[*k] += v * v);
        (0..CLASSES).fold(0, |best, k| if held[k] > held[best] { k } else { best })
    };
    let mut axes: Vec<usize> = (0..z.nrows()).collect();
    axes.sort_by_key(|axis| owner(*axis));
    let entries: Vec<Vec<f64>> = axes.iter().map(|axis| order.iter().map(|i| z[(*axis, *i)]).collect()).collect();
    let groups: Vec<usize> = order.iter().map(|i| labels[*i]).collect();
    Ok(magnitudes(title, "", &entries, &groups)?)
}

/// Ascent against subspaces that are fixed: what Delta R alone does not bring about.
fn fixed(args: &ExperimentArgs, n: usize, output: &mut Output) -> Result<()> {
    let precision = Precision::from_eps(EPS)?;
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    let start = Configuration::Random.tokens(D, CLASSES, P, n, &mut rng)?;
    let codebooks: [(&str, Codebook<f64>); 3] = [
        ("spanning, in general position", random_codebook(D, CLASSES, P, &mut rng)?),
        ("spanning, along the axes", Codebook::from_matrix(Array2::eye(D).view(), CLASSES)?),
        ("half of the space", random_codebook(D, CLASSES, P / 2, &mut rng)?),
    ];
    let (mut rows, mut numbers) = (Vec::new(), Vec::new());
    for (name, codebook) in &codebooks {
        for lambda in [0.0, 0.02] {
            let coding = Coding::Codebook(codebook);
            let found = ascend(start.view(), coding, precision, Penalty::UnitL1(lambda), 1000, |_| ())?;
            let measure = |z: &Array2<f64>| {
                anyhow::Ok((rate_reduction(z.view(), codebook, precision)?, outside_nearest(z.view(), codebook)?))
            };
            let ((g0, o0), (g1, o1)) = (measure(&start)?, measure(&found.z)?);
            rows.push(vec![
                (*name).to_owned(),
                lambda.to_string(),
                format!("{} to {}", digits(g0), digits(g1)),
                format!("{} to {}", percent(o0), percent(o1)),
            ]);
            numbers.push(json!({"codebook": name, "lambda": lambda, "delta_r": [g0, g1], "outside_nearest": [o0, o1]}));
        }
    }
    let what = format!(
        "The same ascent against a fixed codebook of {CLASSES} subspaces (R^c of eq 7, memberships unknown): Delta R \
         in nats, and the share of energy outside the subspace nearest to each token, before and after."
    );
    output.table("fixed", &what, &["codebook", "lambda", "Delta R", "outside the nearest"], &rows, json!(numbers));
    Ok(())
}

/// The regularised MCR^2 from random tokens, against its closed form.
fn spectrum(args: &ExperimentArgs, output: &mut Output) -> Result<()> {
    let (d, sizes, lambda, precision) = (12, [30, 20, 10], 0.05, Precision::from_eps(EPS)?);
    let labels: Vec<usize> = sizes.iter().enumerate().flat_map(|(k, n)| vec![k; *n]).collect();
    let memberships = Memberships::from_labels(&labels, sizes.len())?;
    let expected = mcr2_spectrum(&sizes, d, precision, lambda)?;
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    let start = Configuration::Random.tokens(d, 3, 4, labels.len(), &mut rng)? * (d as f64).sqrt();
    let steps = if args.quick { 300 } else { 3000 };
    let coding = Coding::Memberships(&memberships);
    let found = ascend(start.view(), coding, precision, Penalty::Frobenius(lambda), steps, |_| ())?;
    let (mut rows, mut numbers) = (Vec::new(), Vec::new());
    for ((spectrum, x), size) in class_spectra(found.z.view(), &labels, sizes.len())?.iter().zip(&expected).zip(sizes) {
        let filled: Vec<f64> = spectrum.iter().map(|s| s * s).filter(|square| *square > 0.02 * x).collect();
        let error = filled.iter().map(|square| (square / x - 1.0).abs()).fold(0.0, f64::max);
        rows.push(vec![size.to_string(), format!("{x:.4}"), filled.len().to_string(), format!("{:.1e}", error)]);
        numbers.push(json!({"size": size, "expected": x, "found": filled, "error": error}));
    }
    let together = class_coherence(found.z.view(), &labels, sizes.len(), 0.999)?;
    let what = format!(
        "Ascent of the regularised MCR^2, Delta R(Z, Pi) - {}||Z||_F^2, d {d}, eps {EPS}, {} steps, coherence at the \
         end {together:.1e}: squared singular values of each class against x_k.",
        lambda / 2.0,
        found.values.len() - 1
    );
    let head = ["tokens in the class", "x_k", "directions filled", "largest relative error"];
    output.table("spectrum", &what, &head, &rows, json!({"classes": numbers, "coherence": together}));
    Ok(())
}
