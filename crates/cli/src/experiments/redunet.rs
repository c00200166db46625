//! `experiment redunet`: a network whose every layer is built forward, from data alone: on Gaussians, on digits, and on digits that may be turned or anywhere. What it
//! shows is told in docs/experiments/redunet.md.

mod digits;

use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rate_reduction::theory::redunet::{GaussianRun, SphereMixture, run_on_gaussians};
use rate_reduction::{Precision, ReduNetConfig};
use serde_json::{Value, json};
use whitebox_analysis::Series;
use whitebox_analysis::plots::panels;

use super::output::{Output, chart, digits as shown, percent, similarities};
use crate::commands::experiment::ExperimentArgs;
use crate::progress::meter;

/// The book's step, noise and samples a class.
const ETA: f64 = 0.5;
const SIGMA: f64 = 0.1;
const EACH: usize = 500;
/// Tokens of a class in a picture of similarities.
const DRAWN: usize = 24;

/// A mixture: dimension and classes, cosine of the means, squared precision.
struct Case {
    name: &'static str,
    d: usize,
    cosine: f64,
    eps_squared: f64,
}

/// As the book has it (eps 0.1, in 3-D), with means at right angles and nearer; and with the released code's 0.1 for eps^2.
const CASES: [Case; 5] = [
    Case { name: "2-D, means at right angles", d: 2, cosine: 0.0, eps_squared: 0.01 },
    Case { name: "2-D, means at 60 degrees", d: 2, cosine: 0.5, eps_squared: 0.01 },
    Case { name: "3-D, means at right angles", d: 3, cosine: 0.0, eps_squared: 0.01 },
    Case { name: "3-D, means at 60 degrees", d: 3, cosine: 0.5, eps_squared: 0.01 },
    Case { name: "3-D, at 60 degrees, eps^2 = 0.1", d: 3, cosine: 0.5, eps_squared: 0.1 },
];

/// Runs the experiment.
pub fn run(args: &ExperimentArgs) -> Result<()> {
    let mut output = Output::new("redunet", args)?;
    gaussians(args, &mut output)?;
    digits::all(args, &mut output)?;
    output.finish()
}

fn gaussians(args: &ExperimentArgs, output: &mut Output) -> Result<()> {
    let (layers, each) = if args.quick { (200, 60) } else { (2000, EACH) };
    let (mut rows, mut numbers, mut lines, mut pictures) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut bar, mut done) = (meter("layers built on Gaussians", "layers"), 0);
    for case in &CASES {
        let mixture = SphereMixture::<f64>::with_cosine(case.d, case.d, case.cosine, SIGMA)?;
        let config = ReduNetConfig::new(layers, ETA, Precision::from_eps_squared(case.eps_squared)?);
        let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
        let run = run_on_gaussians(&mixture, each, each, config, &mut rng, |_, _| {
            done += 1;
            bar(done, (CASES.len() * (layers + 1)) as u64);
        })?;
        let values: Vec<f64> = run.network.objectives().iter().map(|o| o.value()).collect();
        let rise = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        let (first, last) = (values[0], values[values.len() - 1]);
        rows.push(vec![
            case.name.into(),
            shown(first),
            shown(last),
            format!("{rise:.1e}"),
            format!("{:.3}", run.coherence_before),
            format!("{:.4}", run.coherence_after),
            percent(run.held_out.accuracy_before),
            percent(run.held_out.accuracy_after),
        ]);
        numbers.push(numbers_of(case, &run, (first, last, rise)));
        lines.push(Series { name: case.name.into(), points: thinned(&values), band: None });
        if case.d == 3 && case.cosine > 0.0 && case.eps_squared < 0.05 {
            pictures.push(similarities(
                "held-out tokens before",
                run.held_out.before.view(),
                &run.held_out.labels,
                DRAWN,
            )?);
            pictures.push(similarities(
                "the same behind the network",
                run.held_out.after.view(),
                &run.held_out.labels,
                DRAWN,
            )?);
        }
    }
    let what = format!(
        "Gaussians around means on the sphere, sigma {SIGMA}, {each} tokens a class to build from and as many unseen, {layers} layers, eta {ETA}: rate reduction before the first and behind the \
         last layer in nats, its least rise in a layer, greatest |cos| between the subspaces of two classes, and unseen tokens that the nearest subspace gives their class."
    );
    let head = ["mixture", "Delta R, first", "last", "least rise", "cosine, before", "after", "right, before", "after"];
    output.table("gaussians", &what, &head, &rows, json!(numbers));
    output.figure(
        "objective",
        &chart("Rate reduction by layer, Gaussians", "log10 of the layer", "Delta R (nats)", lines)?,
    );
    output
        .figure("similarity", &panels("|cos| between tokens, class by class (3-D, means at 60 degrees)", &pictures, 2));
    Ok(())
}

fn numbers_of(case: &Case, run: &GaussianRun<f64>, (first, last, rise): (f64, f64, f64)) -> Value {
    json!({
        "mixture": case.name, "d": case.d, "cosine": case.cosine, "eps_squared": case.eps_squared,
        "first": first, "last": last, "least_rise": rise,
        "coherence_before": run.coherence_before, "coherence_after": run.coherence_after,
        "held_out_before": run.held_out.accuracy_before, "held_out_after": run.held_out.accuracy_after,
    })
}

/// Values by the logarithm of their layer: most happens in the first.
fn thinned(values: &[f64]) -> Vec<(f64, f64)> {
    let mut next = 0.0;
    let mut points = Vec::new();
    for (layer, value) in values.iter().enumerate() {
        let at = ((layer + 1) as f64).log10();
        if at >= next || layer + 1 == values.len() {
            points.push((at, *value));
            next = at + 0.02;
        }
    }
    points
}
