//! `experiment snr`: the signal-to-noise ratio in an attention-only transformer, layer by layer, and the cross terms
//! that end its growth. What it shows is told in docs/experiments/snr.md.

use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rate_reduction::random_codebook;
use rate_reduction::theory::attention_only::{Attention, SnrLayer, attention_only_tokens, snr_by_layer};
use rate_reduction::theory::mixture::GaussianMixture;
use serde_json::{Value, json};
use whitebox_analysis::Series;
use whitebox_analysis::plots::{Figure, panels};

use super::output::{Output, chart, digits};
use crate::commands::experiment::ExperimentArgs;
use crate::progress::meter;

const ETA: f64 = 0.5;
const TAU: f64 = 0.6;
const DELTAS: [f64; 4] = [0.02, 0.05, 0.2, 0.5];
/// d, K, p and N.
const SHAPE: (usize, usize, usize, usize) = (128, 4, 32, 200);

/// The mean over seeds at one depth.
struct Depth {
    snr: f64,
    /// The smallest and largest factor of the layer over seeds and subspaces.
    factor: Option<(f64, f64, f64)>,
    cross: f64,
}

/// Runs the experiment.
pub fn run(args: &ExperimentArgs) -> Result<()> {
    let mut output = Output::new("snr", args)?;
    let (layers, seeds) = if args.quick { (3, 1) } else { (8, 5) };
    let kinds = [("thresholded", Attention::Thresholded { tau: TAU }), ("softmax", Attention::Softmax)];
    let (mut bar, mut done) = (meter("layers of attention alone", "settings"), 0);
    let mut figures = Vec::new();
    for (key, attention) in kinds {
        let mut traces = Vec::new();
        for delta in DELTAS {
            traces.push(mean_trace(args.seed, seeds, delta, attention, layers)?);
            done += 1;
            bar(done, (kinds.len() * DELTAS.len()) as u64);
        }
        table(&mut output, key, &traces, layers);
        figures.push(by_layer(key, &traces)?);
    }
    output.figure("", &panels("Signal-to-noise ratio by layer, attention alone", &figures, 2));
    output.finish()
}

fn mean_trace(seed: u64, seeds: u64, delta: f64, attention: Attention, layers: usize) -> Result<Vec<Depth>> {
    let (d, heads, p, n) = SHAPE;
    let mut runs: Vec<Vec<SnrLayer>> = Vec::new();
    for s in 0..seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(s));
        let mixture = GaussianMixture::<f64>::even(random_codebook(d, heads, p, &mut rng)?, 1.0)?;
        let tokens = attention_only_tokens(&mixture, n, delta, &mut rng)?;
        runs.push(snr_by_layer(&tokens, &mixture, ETA, attention, layers)?);
    }
    let mean = |f: &dyn Fn(&Vec<SnrLayer>) -> f64| runs.iter().map(f).sum::<f64>() / runs.len() as f64;
    let depth = |l: usize| {
        let factors: Vec<f64> = runs
            .iter()
            .filter(|run| l + 1 < run.len())
            .flat_map(|run| run[l + 1].snr.iter().zip(&run[l].snr).map(|(after, before)| after / before))
            .collect();
        let low = factors.iter().copied().fold(f64::INFINITY, f64::min);
        let high = factors.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let middle = factors.iter().sum::<f64>() / factors.len().max(1) as f64;
        Depth {
            snr: mean(&|run| run[l].mean()),
            factor: (!factors.is_empty()).then_some((low, middle, high)),
            cross: mean(&|run| run[l].selection.map_or(0.0, |s| s.cross as f64)),
        }
    };
    Ok((0..=layers).map(depth).collect())
}

fn table(output: &mut Output, key: &str, traces: &[Vec<Depth>], layers: usize) {
    let rows: Vec<Vec<String>> = (0..layers)
        .map(|l| {
            let cells = traces.iter().flat_map(|trace| {
                let (low, middle, high) = trace[l].factor.unwrap_or((f64::NAN, f64::NAN, f64::NAN));
                let spread = if high - low < 0.0005 {
                    format!("{middle:.3}")
                } else {
                    format!("{middle:.3} ({low:.2} to {high:.2})")
                };
                [digits(trace[l].snr), spread, digits(trace[l].cross)]
            });
            std::iter::once((l + 1).to_string()).chain(cells).collect()
        })
        .collect();
    let head: Vec<String> = std::iter::once("layer".to_owned())
        .chain(DELTAS.iter().flat_map(|delta| [format!("SNR, delta {delta}"), "factor".into(), "cross".into()]))
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let numbers: Vec<Value> = DELTAS
        .iter()
        .zip(traces)
        .map(|(delta, trace)| {
            let layer = |d: &Depth| {
                json!({"snr": d.snr, "factor": d.factor.map(|f| f.1), "least": d.factor.map(|f| f.0),
                "most": d.factor.map(|f| f.2), "cross": d.cross})
            };
            json!({"delta": delta, "layers": trace.iter().map(layer).collect::<Vec<_>>()})
        })
        .collect();
    let (d, heads, p, n) = SHAPE;
    let what = format!(
        "Attention {key}, d {d}, K {heads}, p {p}, N {n}, eta {ETA}, tau {TAU}: SNR before the layer, the factor by which \
         the layer multiplies it (mean, and extremes over subspaces and seeds), and cross terms, weights above the bar \
         in foreign heads; 1 + eta tau is {}.",
        1.0 + ETA * TAU
    );
    output.table(key, &what, &head, &rows, json!(numbers));
}

fn by_layer(key: &str, traces: &[Vec<Depth>]) -> Result<Figure> {
    let mut series: Vec<Series> = DELTAS
        .iter()
        .zip(traces)
        .map(|(delta, trace)| Series {
            name: format!("delta {delta}"),
            points: trace.iter().enumerate().map(|(l, depth)| (l as f64, depth.snr.log10())).collect(),
            band: None,
        })
        .collect();
    if let Some(first) = traces.first().filter(|_| key == "thresholded") {
        let growth = |l: usize| (l as f64, first[0].snr.log10() + l as f64 * (1.0 + ETA * TAU).log10());
        series.push(Series { name: "1 + eta tau".into(), points: (0..first.len()).map(growth).collect(), band: None });
    }
    let title = format!("{}{}", key[..1].to_uppercase(), &key[1..]);
    chart(&title, "layers", "log10 of the SNR", series)
}
