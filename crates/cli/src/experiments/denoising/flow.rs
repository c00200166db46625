//! From noise to the mixture in many small steps, and back: along the score in the plane, and down the gradient of R^c.

use anyhow::Result;
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rate_reduction::theory::denoising::closeness;
use rate_reduction::theory::flow::{compression_flow, flow, noise_levels};
use rate_reduction::theory::mixture::GaussianMixture;
use rate_reduction::theory::sampling::NoisyTokens;
use rate_reduction::{Codebook, Precision, deviation, nearest_subspace};
use serde_json::json;
use whitebox_analysis::plots::{Figure, panels, scatter};

use super::{CROWDED, ROOMY};
use crate::commands::experiment::ExperimentArgs;
use crate::experiments::output::{Output, digits, percent};
use crate::progress::meter;

/// The probability flow in the plane, drawn and there and back; then descent of R^c there and back.
pub fn run(args: &ExperimentArgs, output: &mut Output) -> Result<()> {
    let (from, to) = (5.0, 0.02);
    // Three lines through the plane, 60 degrees apart.
    let line = |k: usize| {
        let angle = (0.25 + k as f64) * std::f64::consts::PI / 3.0;
        Array2::from_shape_vec((2, 1), vec![angle.cos(), angle.sin()])
    };
    let lines = (0..3).map(line).collect::<Result<Vec<_>, _>>()?;
    let mixture = GaussianMixture::even(Codebook::new(lines)?, 1.0)?;
    let tokens = if args.quick { 60 } else { 400 };
    let pure = mixture.sample(tokens, from, &mut ChaCha8Rng::seed_from_u64(args.seed))?.noisy;
    let counts: &[usize] = if args.quick { &[10, 20] } else { &[25, 50, 100, 200, 400] };
    let (mut rows, mut numbers) = (Vec::new(), Vec::new());
    let mut bar = meter("from noise to the mixture and back", "flows");
    for (i, &steps) in counts.iter().enumerate() {
        let levels = noise_levels(from, to, steps)?;
        let back: Vec<f64> = levels.iter().rev().copied().collect();
        let end = flow(pure.view(), &mixture, &levels, |_, _| ())?;
        let returned = flow(end.view(), &mixture, &back, |_, _| ())?;
        let error = deviation(returned.view(), pure.view())?.relative;
        let own = nearest_subspace(end.view(), mixture.codebook())?;
        let arrived = NoisyTokens { clean: end.clone(), noisy: end.clone(), subspace: own };
        let off = closeness(end.view(), &arrived, &mixture, Precision::from_eps(0.1)?)?.outside;
        rows.push(vec![steps.to_string(), percent(off), percent(error)]);
        numbers.push(json!({"steps": steps, "outside": off, "way_back_error": error}));
        bar(i as u64 + 1, counts.len() as u64);
    }
    let what = format!(
        "The probability flow of a mixture on three lines of the plane, from noise {from} to noise {to} and back: \
         share of the length off the nearest line at the end, and how far the way back misses the start."
    );
    output.table("flow", &what, &["steps", "off the lines", "error of the way back"], &rows, json!(numbers));

    let levels = noise_levels(from, to, counts[counts.len() - 1])?;
    let end = flow(pure.view(), &mixture, &levels, |_, _| ())?;
    let own = nearest_subspace(end.view(), mixture.codebook())?;
    let mut stages: Vec<(f64, Array2<f64>)> = Vec::new();
    let wanted = [from, 1.0, 0.3, to];
    flow(pure.view(), &mixture, &levels, |sigma, z| {
        if stages.len() < wanted.len() && sigma <= wanted[stages.len()] * (1.0 + 1e-9) {
            stages.push((wanted[stages.len()], z.to_owned()));
        }
    })?;
    let figures: Vec<Figure> = stages
        .iter()
        .map(|(sigma, z)| {
            let groups: Vec<Vec<(f64, f64)>> = (0..3)
                .map(|k| (0..tokens).filter(|i| own[*i] == k).map(|i| (z[(0, i)], z[(1, i)])).collect())
                .collect();
            scatter(&format!("noise {sigma}"), "", &groups, 3.0 * sigma.max(1.0))
        })
        .collect();
    output.figure("flow", &panels("From noise to the mixture, coloured by where a token ends", &figures, 4));
    rate_flow(args, output)
}

/// Small steps of gradient descent on R^c, and of ascent back.
fn rate_flow(args: &ExperimentArgs, output: &mut Output) -> Result<()> {
    let shape = if args.quick { CROWDED } else { ROOMY };
    let (mixture, tokens, _) = shape.draw(0.3, args.seed)?;
    let precision = Precision::from_eps(0.1)?;
    let counts: &[usize] = if args.quick { &[4] } else { &[10, 40, 160] };
    let (mut rows, mut numbers) = (Vec::new(), Vec::new());
    let mut bar = meter("down the rate and back", "flows");
    let start = closeness(tokens.noisy.view(), &tokens, &mixture, precision)?;
    for (i, &steps) in counts.iter().enumerate() {
        let size = 2.0 / steps as f64;
        let end = compression_flow(tokens.noisy.view(), mixture.codebook(), precision, size, steps, |_| ())?;
        let back = compression_flow(end.view(), mixture.codebook(), precision, -size, steps, |_| ())?;
        let found = closeness(end.view(), &tokens, &mixture, precision)?;
        let error = deviation(back.view(), tokens.noisy.view())?.relative;
        rows.push(vec![
            steps.to_string(),
            format!("{} to {}", percent(start.outside), percent(found.outside)),
            format!("{} to {}", digits(start.compression), digits(found.compression)),
            percent(error),
        ]);
        numbers.push(json!({"steps": steps, "outside": found.outside, "compression": found.compression,
            "way_back_error": error}));
        bar(i as u64 + 1, counts.len() as u64);
    }
    let what = format!(
        "Gradient descent on R^c with kappa gamma of 2 in all, {}, noise of length 0.3, eps 0.1, and as many \
         steps of ascent back.",
        shape.words()
    );
    output.table(
        "rate-flow",
        &what,
        &["steps", "outside", "R^c, nats", "error of the way back"],
        &rows,
        json!(numbers),
    );
    Ok(())
}
