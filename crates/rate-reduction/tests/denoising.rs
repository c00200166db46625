//! Scores, denoising and signal-to-noise as the papers claim them: against finite differences, explicit matrices and
//! known figures; and where a claim ends.

mod common;

use common::*;
use ndarray::{Array2, ArrayView2, array};
use ndarray_linalg::{Eigh, UPLO};
use proptest::prelude::*;
use rate_reduction::theory::attention_only::*;
use rate_reduction::theory::denoising::*;
use rate_reduction::theory::flow::*;
use rate_reduction::theory::mixture::*;
use rate_reduction::theory::score_relation::*;
use rate_reduction::*;

/// A mixture with weights and variances that differ.
fn uneven(seed: u64) -> GaussianMixture<f64> {
    let codebook = random_codebook(7, 3, 2, &mut rng(seed)).unwrap();
    GaussianMixture::new(codebook, vec![0.5, 0.2, 0.3], array![[1.0, 0.3], [0.5, 2.0], [0.1, 0.7]]).unwrap()
}

fn even(d: usize, heads: usize, p: usize, variance: f64, seed: u64) -> GaussianMixture<f64> {
    GaussianMixture::even(random_codebook(d, heads, p, &mut rng(seed)).unwrap(), variance).unwrap()
}

/// Proposition 1 word by word, with each `M_k` formed by an eigendecomposition; weighted by `pi_k det M_k` where asked
/// for.
fn printed(
    x: ArrayView2<'_, f64>,
    m: &GaussianMixture<f64>,
    parts: &[(f64, Array2<f64>)],
    sigma: f64,
    weighted: bool,
) -> Array2<f64> {
    let d = m.codebook().dim();
    let roots: Vec<(f64, Array2<f64>)> = parts
        .iter()
        .map(|(weight, covariance)| {
            let (e, q) = (covariance + &(Array2::<f64>::eye(d) * sigma * sigma)).eigh(UPLO::Lower).unwrap();
            let root = (&q * &e.mapv(|e| e.powf(-0.5))).dot(&q.t());
            (if weighted { weight * e.mapv(|e| e.powf(-0.5)).product() } else { 1.0 }, root)
        })
        .collect();
    let mut score = Array2::zeros(x.raw_dim());
    for (token, mut out) in x.columns().into_iter().zip(score.columns_mut()) {
        let shares: Vec<f64> =
            roots.iter().map(|(w, root)| w * (-0.5 * root.t().dot(&token).mapv(|v| v * v).sum()).exp()).collect();
        let sum: f64 = shares.iter().sum();
        for (share, (_, root)) in shares.iter().zip(&roots) {
            out.scaled_add(-share / sum, &root.dot(&root.t().dot(&token)));
        }
    }
    score
}

fn covariances(m: &GaussianMixture<f64>, weights: &[f64], variances: &Array2<f64>) -> Vec<(f64, Array2<f64>)> {
    let of = |(k, u): (usize, &Array2<f64>)| (weights[k], (u * &variances.row(k)).dot(&u.t()));
    m.codebook().bases().iter().enumerate().map(of).collect()
}

#[test]
fn the_score_is_the_gradient_of_log_q() {
    for sigma in [0.3, 1.0] {
        let m = uneven(1);
        let x = m.sample(5, sigma, &mut rng(2)).unwrap().noisy;
        let numeric = numeric_gradient(&x, |x| m.log_density(x, sigma).unwrap().sum());
        assert!(relative(m.score(x.view(), sigma).unwrap().view(), numeric.view()) < 1e-7, "sigma {sigma}");
    }
}

#[test]
fn the_density_integrates_to_one() {
    // One subspace of the plane: a sum over a fine grid.
    let m = GaussianMixture::even(Codebook::new(vec![array![[0.6], [0.8]]]).unwrap(), 0.5).unwrap();
    let (step, half) = (0.05, 100i32);
    let side = (2 * half + 1) as usize;
    let at = |i: usize| (i as i32 - half) as f64 * step;
    let grid = Array2::from_shape_fn((2, side * side), |(row, i)| at(if row == 0 { i / side } else { i % side }));
    let mass: f64 = m.log_density(grid.view(), 0.5).unwrap().mapv(f64::exp).sum() * step * step;
    assert!((mass - 1.0).abs() < 1e-6, "{mass}");
}

#[test]
fn proposition_1_holds_where_its_condition_does() {
    let sigma = 0.4;
    let m = even(7, 3, 2, 0.6, 3);
    let x = m.sample(6, sigma, &mut rng(4)).unwrap().noisy;
    assert!(m.condition_gap(sigma).unwrap() < 1e-12);
    let parts = covariances(&m, &[1.0; 3], &Array2::from_elem((3, 2), 0.6));
    let closed = m.proposition_score(x.view(), sigma).unwrap();
    assert!(relative(closed.view(), printed(x.view(), &m, &parts, sigma, false).view()) < 1e-10);
    assert!(relative(closed.view(), m.score(x.view(), sigma).unwrap().view()) < 1e-12);

    // Elsewhere the general form is right and the proposition's is not.
    let m = uneven(3);
    let x = m.sample(40, sigma, &mut rng(4)).unwrap().noisy;
    let parts = covariances(&m, &[0.5, 0.2, 0.3], &array![[1.0, 0.3], [0.5, 2.0], [0.1, 0.7]]);
    let exact = m.score(x.view(), sigma).unwrap();
    assert!(relative(exact.view(), printed(x.view(), &m, &parts, sigma, true).view()) < 1e-10);
    let closed = m.proposition_score(x.view(), sigma).unwrap();
    assert!(relative(closed.view(), printed(x.view(), &m, &parts, sigma, false).view()) < 1e-10);
    assert!(m.condition_gap(sigma).unwrap() > 0.5);
    assert!(relative(closed.view(), exact.view()) > 0.01, "the condition would not matter");
}

#[test]
fn eq_6_is_the_limit_of_small_noise() {
    let m = even(12, 3, 4, 1.0, 5);
    let off = |sigma: f64| {
        let x = m.sample(50, sigma, &mut rng(6)).unwrap().noisy;
        relative(m.project(x.view(), sigma).unwrap().view(), m.denoise(x.view(), sigma).unwrap().view())
    };
    assert!(off(0.3) > off(0.1) && off(0.1) > off(0.01) && off(0.01) < 2e-4, "{} {} {}", off(0.3), off(0.1), off(0.01));
}

#[test]
fn each_step_does_what_the_page_on_denoising_says() {
    // A practical shape: 33 tokens a subspace of 64 dimensions.
    let (m, sigma, precision) = (even(384, 6, 64, 1.0 / 64.0, 1), 0.3 / 384f64.sqrt(), eps(0.1));
    let tokens = m.sample(196, sigma, &mut rng(1)).unwrap();
    let before = closeness(tokens.noisy.view(), &tokens, &m, precision).unwrap();
    let after = |step| {
        let moved = denoising_step(step, tokens.noisy.view(), &m, sigma, precision, 1.0).unwrap();
        closeness(moved.view(), &tokens, &m, precision).unwrap()
    };
    let best = after(DenoisingStep::Posterior);
    assert!(best.outside < 1e-6 && best.to_clean < 0.5 * before.to_clean, "{best:?}");
    assert!(after(DenoisingStep::Projector).to_clean >= best.to_clean, "nothing beats the posterior mean");
    for step in [DenoisingStep::Gradient, DenoisingStep::Sharpened] {
        let found = after(step);
        assert!(found.outside < 0.9 * before.outside && found.to_clean < 0.9 * before.to_clean, "{step:?}: {found:?}");
        assert!(found.unit_compression < before.unit_compression, "{step:?}: {found:?}");
    }
    // At this eps gamma ||G|| is far above 1: the Neumann step flies off, and so does the printed factor gamma.
    assert!(after(DenoisingStep::Neumann).to_clean > 10.0 && after(DenoisingStep::Attention).to_clean > 1.0);
    // Unit tokens have logits below 1: the softmax is nearly flat and averages the signal away.
    assert!(after(DenoisingStep::Averaging).outside > 0.8);
}

#[test]
fn one_token_at_the_papers_eps_is_attention_on_itself() {
    // N = 1, kappa = 1, eps = sqrt(p / N): gamma = 1, and both attentions project on all subspaces.
    let (m, precision) = (even(9, 2, 3, 1.0, 2), eps(3f64.sqrt()));
    let x = m.sample(1, 0.2, &mut rng(3)).unwrap().noisy;
    let step = |step| denoising_step(step, x.view(), &m, 0.2, precision, 1.0).unwrap();
    let u = m.codebook().to_matrix();
    let projected = u.dot(&u.t().dot(&x));
    assert!(relative(step(DenoisingStep::Attention).view(), projected.view()) < 1e-12);
    assert!(relative(step(DenoisingStep::Averaging).view(), projected.view()) < 1e-12);
}

/// Mean of five seeds: the rates on signal and noise, and their ratio.
fn rates(n: usize, d: usize, heads: usize, p: usize, sigma: f64, e: f64) -> (f64, f64, f64, f64) {
    let runs: Vec<DenoisingRates> = (0..5)
        .map(|seed| {
            let m = even(d, heads, p, 1.0 / p as f64, seed);
            let tokens = m.sample(n, sigma / (d as f64).sqrt(), &mut rng(100 + seed)).unwrap();
            denoising_rates(&tokens, &m, eps(e)).unwrap()
        })
        .collect();
    let mean = |f: fn(&DenoisingRates) -> f64| runs.iter().map(f).sum::<f64>() / 5.0;
    (mean(|r| r.signal), mean(|r| r.noise), mean(DenoisingRates::ratio), mean(|r| r.cosine))
}

#[test]
fn noise_leaves_faster_than_signal_at_known_rates() {
    for (n, d, heads, p, sigma, e, expected) in [
        (196, 768, 12, 64, 0.05, 0.1, 23.9),
        (196, 768, 12, 64, 0.05, 0.5, 2.12),
        (64, 512, 8, 64, 0.05, 0.05, 284.0),
        (1000, 64, 8, 8, 0.05, 0.1, 1.07),
    ] {
        let (_, _, ratio, _) = rates(n, d, heads, p, sigma, e);
        assert!((ratio / expected - 1.0).abs() < 0.15, "N {n}, d {d}, eps {e}: {ratio:.3}, expected {expected}");
    }
}

#[test]
fn the_score_relation_needs_few_tokens_a_subspace_and_a_small_eps() {
    let (_, noise, ratio, cosine) = rates(64, 256, 4, 64, 0.05, 0.05);
    // 16 tokens in 64 dimensions: three quarters of every foreign subspace are empty.
    assert!(ratio > 50.0 && cosine > 0.7 && (0.55..0.76).contains(&noise), "{ratio} {cosine} {noise}");
    let (_, _, coarse, _) = rates(64, 256, 4, 64, 0.05, 2.0);
    assert!(coarse < 1.3, "eps 2: {coarse}");
    let (_, _, crowded, cosine) = rates(1024, 256, 4, 64, 0.05, 0.05);
    assert!(crowded < 2.0 && cosine < 0.2, "256 tokens in 64 dimensions: {crowded} {cosine}");
}

#[test]
fn the_flow_leads_from_noise_to_the_mixture_and_back() {
    let m = even(32, 4, 4, 1.0, 1);
    let start = gaussian(32, 400, &mut rng(5)) * 10.0;
    let run = |steps: usize| {
        let levels = noise_levels(10.0, 0.01, steps).unwrap();
        let back: Vec<f64> = levels.iter().rev().copied().collect();
        let mut seen = 0;
        let end = flow(start.view(), &m, &levels, |_, _| seen += 1).unwrap();
        assert_eq!(seen, steps + 1);
        let returned = flow(end.view(), &m, &back, |_, _| ()).unwrap();
        (relative(returned.view(), start.view()), end)
    };
    let ((coarse, _), (fine, end)) = (run(50), run(200));
    assert!(fine < 0.01 && fine < 0.3 * coarse, "way back: {coarse} in 50 steps, {fine} in 200");

    // What arrives has the mixture's law: noise of 0.01 an entry outside the subspaces, variance 1 inside, a quarter of the tokens in each.
    let own = nearest_subspace(end.view(), m.codebook()).unwrap();
    let heads = m.codebook().project(end.view()).unwrap();
    let inside: f64 = own.iter().enumerate().map(|(i, k)| heads[*k].column(i).mapv(|v| v * v).sum()).sum();
    let outside = norm(end.view()).powi(2) - inside;
    assert!((outside / (28.0 * 400.0)).sqrt() < 0.012, "{}", outside);
    assert!((inside / 1600.0 - 1.0).abs() < 0.12, "{}", inside / 1600.0);
    for k in 0..4 {
        let here = own.iter().filter(|o| **o == k).count();
        assert!((70..130).contains(&here), "{here} tokens of 400 in subspace {k}");
    }
}

#[test]
fn descent_of_the_rate_can_be_run_backwards() {
    let m = even(48, 4, 12, 1.0 / 12.0, 1);
    let tokens = m.sample(20, 0.04, &mut rng(2)).unwrap();
    let run = |steps: usize| {
        let size = 1.0 / steps as f64;
        let to = compression_flow(tokens.noisy.view(), m.codebook(), eps(0.1), size, steps, |_| ()).unwrap();
        let from = compression_flow(to.view(), m.codebook(), eps(0.1), -size, steps, |_| ()).unwrap();
        let [start, end] = [&tokens.noisy, &to].map(|z| closeness(z.view(), &tokens, &m, eps(0.1)).unwrap());
        assert!(end.outside < 0.85 * start.outside && end.compression < start.compression, "{start:?} {end:?}");
        relative(from.view(), tokens.noisy.view())
    };
    let (coarse, fine) = (run(10), run(40));
    assert!(fine < 0.02 && fine < 0.35 * coarse, "{coarse} {fine}");
}

fn snr(delta: f64, attention: Attention, layers: usize) -> Vec<SnrLayer> {
    let m = even(128, 4, 32, 1.0, 1);
    let tokens = attention_only_tokens(&m, 200, delta, &mut rng(7)).unwrap();
    snr_by_layer(&tokens, &m, 0.5, attention, layers).unwrap()
}

#[test]
fn attention_alone_multiplies_the_snr_by_a_known_factor() {
    let trace = snr(0.05, Attention::Thresholded { tau: 0.6 }, 4);
    for pair in trace.windows(2) {
        assert_eq!(pair[0].selection, Some(Selection { own: 200, neighbours: 0, cross: 0 }));
        for (after, before) in pair[1].snr.iter().zip(&pair[0].snr) {
            assert!((after / before / 1.3 - 1.0).abs() < 0.01, "{before} became {after}");
        }
    }
}

#[test]
fn cross_terms_end_the_growth() {
    let attention = Attention::Thresholded { tau: 0.6 };
    for (delta, layers) in [(0.2, 6), (0.5, 2)] {
        let trace = snr(delta, attention, layers);
        let growth = |l: usize| trace[l + 1].mean() / trace[l].mean();
        let cross = |l: usize| trace[l].selection.unwrap().cross;
        assert!(cross(layers - 1) > 20 && growth(layers - 1) < 1.2, "delta {delta}: {trace:?}");
        // As long as nothing crosses, the factor is exact.
        (0..layers).filter(|l| cross(*l) == 0).for_each(|l| assert!((growth(l) - 1.3).abs() < 1e-3, "{delta}, {l}"));
    }
    let soft = snr(0.2, Attention::Softmax, 4);
    assert!(soft[1].mean() > soft[0].mean() && soft[4].mean() < soft[0].mean(), "{soft:?}");
}

#[test]
fn bad_arguments_are_named() {
    let (m, x) = (even(6, 2, 3, 1.0, 1), gaussian(6, 4, &mut rng(1)));
    let loose = loose_codebook(6, 2, 3, &mut rng(1));
    assert!(matches!(GaussianMixture::even(loose, 1.0), Err(Error::NotOrthonormal { basis: 0, .. })));
    let of =
        |weights, variance| GaussianMixture::new(m.codebook().clone(), weights, Array2::from_elem((2, 3), variance));
    assert!(of(vec![0.5], 1.0).is_err() && of(vec![0.5, 0.6], 1.0).is_err() && of(vec![1.0, 0.0], 1.0).is_err());
    assert!(of(vec![0.5, 0.5], 0.0).is_err() && of(vec![0.5, 0.5], f64::NAN).is_err());
    for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-200] {
        assert!(m.score(x.view(), sigma).is_err() && m.log_density(x.view(), sigma).is_err(), "sigma {sigma}");
    }
    assert!(m.sample(0, 0.1, &mut rng(1)).is_err() && m.sample(3, -0.1, &mut rng(1)).is_err());
    assert!(m.score(gaussian(5, 4, &mut rng(1)).view(), 1.0).is_err(), "another d");
    assert!(noise_levels(1.0, 0.0, 3).is_err() && noise_levels(1.0, 0.1, 0).is_err());
    assert!(attention_only_tokens(&m, 5, 0.1, &mut rng(1)).is_err(), "5 tokens for 2 subspaces");
    let step = |subspace: &[usize], tau| {
        attention_only_step(x.view(), subspace, &m, 0.5, Attention::Thresholded { tau }).map(drop)
    };
    assert!(step(&[0, 1, 0, 1], 0.6).is_ok() && step(&[0, 1, 0], 0.6).is_err() && step(&[0, 1, 0, 1], 1.5).is_err());
    assert!(signal_to_noise(x.view(), &[0, 1, 0, 2], &m).is_err(), "there is no third subspace");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_posterior_is_a_shrunken_combination(seed in any::<u64>(), sigma in 1e-3f64..10.0) {
        let m = uneven(seed);
        let x = m.sample(8, sigma, &mut rng(seed)).unwrap().noisy;
        let denoised = m.denoise(x.view(), sigma).unwrap();
        for (z, x) in denoised.columns().into_iter().zip(x.columns()) {
            prop_assert!(z.dot(&z) <= x.dot(&x) * (1.0 + 1e-12));
        }
        // Tweedie: the same number by way of the score.
        let tweedie = &x + m.score(x.view(), sigma).unwrap() * (sigma * sigma);
        prop_assert!(norm((&tweedie - &denoised).view()) <= 1e-9 * norm(x.view()));
    }
}
