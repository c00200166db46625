//! At what rates a step down the gradient of R^c takes away signal and noise, by shape, number of tokens and precision.

use anyhow::Result;
use rate_reduction::Precision;
use rate_reduction::theory::score_relation::{DenoisingRates, denoising_rates};
use serde_json::{Value, json};
use whitebox_analysis::Series;
use whitebox_analysis::plots::panels;

use super::Shape;
use crate::commands::experiment::ExperimentArgs;
use crate::experiments::output::{Output, chart, digits};
use crate::progress::meter;

/// Seeds that a rate is the mean of.
const SEEDS: u64 = 5;

/// The mean over seeds of signal, noise, ratio and cosine.
fn mean_rates(shape: Shape, sigma: f64, eps: f64, args: &ExperimentArgs) -> Result<[f64; 4]> {
    let seeds = if args.quick { 1 } else { SEEDS };
    let mut sum = [0.0; 4];
    for seed in 0..seeds {
        let (mixture, tokens, _) = shape.draw(sigma, args.seed.wrapping_add(seed))?;
        let found: DenoisingRates = denoising_rates(&tokens, &mixture, Precision::from_eps(eps)?)?;
        let values = [found.signal, found.noise, found.ratio(), found.cosine];
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value / seeds as f64);
    }
    Ok(sum)
}

/// The rates in four settings, and swept over the number of tokens and over eps.
pub fn run(args: &ExperimentArgs, output: &mut Output) -> Result<()> {
    let shape = |n, d, heads, p| Shape { name: "", n, d, heads, p };
    let settings = [
        (shape(196, 768, 12, 64), 0.1),
        (shape(196, 768, 12, 64), 0.5),
        (shape(64, 512, 8, 64), 0.05),
        (shape(1000, 64, 8, 8), 0.1),
    ];
    let settings = if args.quick { &settings[3..] } else { &settings[..] };
    let swept = shape(0, 256, 4, 64);
    let counts: &[usize] = if args.quick { &[32, 256] } else { &[16, 32, 64, 96, 128, 192, 256, 384, 512, 1024] };
    let precisions: &[f64] = if args.quick { &[0.1, 1.0] } else { &[0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0] };
    let (mut bar, mut done) = (meter("rates on signal and noise", "settings"), 0);
    let total = (settings.len() + 2 * counts.len() + 2 * precisions.len()) as u64;
    let mut measured = |shape: Shape, eps: f64| {
        let found = mean_rates(shape, 0.05, eps, args)?;
        done += 1;
        bar(done, total);
        anyhow::Ok(found)
    };
    let (mut rows, mut numbers) = (Vec::new(), Vec::new());
    for &(shape, eps) in settings {
        let found = measured(shape, eps)?;
        let Shape { n, d, heads, p, .. } = shape;
        let gamma = Precision::from_eps(eps)?.gamma(p, n)?;
        let [signal, noise, ratio, cosine] = found;
        let named = [n.to_string(), d.to_string(), heads.to_string(), p.to_string(), digits(eps), digits(gamma)];
        let values = [format!("{signal:.4}"), format!("{noise:.4}"), digits(ratio), format!("{cosine:.2}")];
        rows.push(named.into_iter().chain(values).collect());
        numbers.push(json!({"n": n, "d": d, "heads": heads, "p": p, "sigma": 0.05, "eps": eps, "gamma": gamma,
            "signal": signal, "noise": noise, "ratio": ratio, "cosine": cosine}));
    }
    let what = "Rates at which a step down grad R^c takes away signal and noise, in units of kappa gamma; their \
        ratio; the cosine between the step and the way to the own subspace. Noise of length 0.05, mean of the seeds.";
    let head = ["N", "d", "K", "p", "eps", "gamma", "rate on signal", "rate on noise", "ratio", "cosine"];
    output.table("rates", what, &head, &rows, json!(numbers));

    let mut sweep = |points: &mut dyn FnMut(f64) -> (f64, Shape, f64), values: &[f64], name: String| {
        let mut series = Series { name, points: Vec::new(), band: None };
        for &value in values {
            let (x, shape, eps) = points(value);
            series.points.push((x, measured(shape, eps)?[2].log10()));
        }
        anyhow::Ok(series)
    };
    let counts: Vec<f64> = counts.iter().map(|n| *n as f64).collect();
    let mut by_count = Vec::new();
    for eps in [0.05, 0.5] {
        let mut at = |n: f64| ((n / 256.0).log2(), Shape { n: n as usize, ..swept }, eps);
        by_count.push(sweep(&mut at, &counts, format!("eps {eps}"))?);
    }
    let mut by_eps = Vec::new();
    for n in [64, 1024] {
        let mut at = |eps: f64| (eps.log10(), Shape { n, ..swept }, eps);
        by_eps.push(sweep(&mut at, precisions, format!("{} tokens a subspace of 64", n / 4))?);
    }
    let records =
        |series: &[Series]| -> Value { series.iter().map(|s| json!({"name": s.name, "points": s.points})).collect() };
    output.number("ratio-by-tokens", records(&by_count));
    output.number("ratio-by-eps", records(&by_eps));
    let by_count = chart("By tokens a subspace", "log2 of N / (K p)", "log10 of the ratio", by_count)?;
    let by_eps = chart("By precision", "log10 of eps", "log10 of the ratio", by_eps)?;
    output.figure("rates", &panels("Rate on noise over rate on signal", &[by_count, by_eps], 2));
    Ok(())
}
