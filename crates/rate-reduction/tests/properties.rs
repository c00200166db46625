//! What the theory says of all tokens, tried on random ones.

mod common;

use common::*;
use ndarray::{Array2, Axis, concatenate, s};
use proptest::prelude::*;
use rate_reduction::*;

/// d, K, p, N, eps and a seed; `K p <= d`, and N on either side of p and d.
fn setting() -> impl Strategy<Value = (usize, usize, usize, usize, f64, u64)> {
    (1usize..4, 1usize..4, 0usize..4, 1usize..12, 0.1f64..2.0, any::<u64>())
        .prop_map(|(k, p, spare, n, e, seed)| (k * p + spare, k, p, n, e, seed))
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * (1.0 + a.abs().max(b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sylvester((d, _, _, n, e, seed) in setting()) {
        let z = gaussian(d, n, &mut rng(seed));
        let tokens = coding_rate_in_form(z.view(), eps(e), Form::Tokens).unwrap();
        let features = coding_rate_in_form(z.view(), eps(e), Form::Features).unwrap();
        prop_assert!(near(tokens, features, 1e-11), "{tokens} and {features}");
    }

    #[test]
    fn rotating_tokens_and_bases_together_changes_no_rate((d, k, p, n, e, seed) in setting()) {
        let mut rng = rng(seed);
        let (z, u) = (gaussian(d, n, &mut rng), loose_codebook(d, k, p, &mut rng));
        let q = orthonormalize(gaussian(d, d, &mut rng).view()).unwrap();
        let turned = Codebook::new(u.bases().iter().map(|u| q.dot(u)).collect()).unwrap();
        let before = rate_reduction(z.view(), &u, eps(e)).unwrap();
        let after = rate_reduction(q.dot(&z).view(), &turned, eps(e)).unwrap();
        prop_assert!(near(before, after, 1e-10), "{before} became {after}");
        let gradient = q.dot(&rate_reduction_gradient(z.view(), &u, eps(e)).unwrap());
        let of_turned = rate_reduction_gradient(q.dot(&z).view(), &turned, eps(e)).unwrap();
        prop_assert!(norm((&gradient - &of_turned).view()) < 1e-9 * (1.0 + norm(gradient.view())));
    }

    #[test]
    fn the_rate_grows_with_finer_coding_and_with_more_tokens((d, _, _, n, e, seed) in setting()) {
        let mut rng = rng(seed);
        let z = gaussian(d, n, &mut rng);
        let coarse = coding_rate(z.view(), eps(e)).unwrap();
        prop_assert!(coding_rate(z.view(), eps(e * 0.9)).unwrap() > coarse);
        // One token more at the same alpha: eps^2 shrinks by N / (N + 1).
        let more = concatenate(Axis(1), &[z.view(), gaussian(d, 1, &mut rng).view()]).unwrap();
        let same_alpha = Precision::from_eps_squared(e * e * n as f64 / (n + 1) as f64).unwrap();
        prop_assert!(coding_rate(more.view(), same_alpha).unwrap() > coarse);
    }

    #[test]
    fn the_hessian_is_symmetric_and_bounded_by_the_lemma((d, k, p, n, e, seed) in setting()) {
        let mut rng = rng(seed);
        let (z, a, b) = (gaussian(d, n, &mut rng), gaussian(d, n, &mut rng), gaussian(d, n, &mut rng));
        let u = orthonormal_codebook(d, k, p, &mut rng);
        let h = |x: &Array2<f64>| coding_rate_hvp(z.view(), x.view(), eps(e)).unwrap();
        let (left, right) = (inner(h(&a).view(), b.view()), inner(h(&b).view(), a.view()));
        prop_assert!(near(left, right, 1e-9), "{left} and {right}");
        // Power iteration: the norm of the image of a unit vector is a lower bound that climbs to the operator norm.
        let mut v = a;
        for _ in 0..20 {
            v /= norm(v.view());
            v = h(&v);
        }
        let bound = eps(e).alpha(d, n).unwrap();
        prop_assert!(norm(v.view()) <= 9.0 / 4.0 * bound, "the lemma");
        prop_assert!(norm(v.view()) <= 5.0 / 4.0 * bound * (1.0 + 1e-9), "the sharper bound");
        let hc = compression_rate_hvp(z.view(), b.view(), &u, eps(e)).unwrap();
        let bound = 9.0 / 4.0 * eps(e).gamma(p, n).unwrap() * norm(b.view());
        prop_assert!(norm(hc.view()) <= bound * (1.0 + 1e-9), "the lemma, subspace by subspace");
    }

    #[test]
    fn knowing_the_classes_never_costs((d, _, _, n, e, seed) in setting()) {
        let mut rng = rng(seed);
        let z = gaussian(d, n, &mut rng);
        let soft = Memberships::new(column_softmax(gaussian(3, n, &mut rng).view()).unwrap()).unwrap();
        let reduction = mcr2(z.view(), &soft, eps(e)).unwrap();
        prop_assert!(reduction.value() >= -1e-12 * (1.0 + reduction.expansion));
        let alone = Memberships::from_labels(&vec![0; n], 1).unwrap();
        prop_assert!(mcr2(z.view(), &alone, eps(e)).unwrap().value().abs() < 1e-11 * (1.0 + reduction.expansion));
    }

    #[test]
    fn attention_is_an_average((d, k, p, n, _, seed) in setting()) {
        let mut rng = rng(seed);
        let (z, u) = (gaussian(d, n, &mut rng) * 3.0, loose_codebook(d, k, p, &mut rng));
        for v in u.project(z.view()).unwrap() {
            let map = attention_map(v.view(), 1.0).unwrap();
            prop_assert!(map.iter().all(|&w| w >= 0.0));
            prop_assert!(map.sum_axis(Axis(0)).iter().all(|sum| (sum - 1.0).abs() < 1e-12));
            let (low, high) = (v.fold(f64::INFINITY, |a, &b| a.min(b)), v.fold(f64::NEG_INFINITY, |a, &b| a.max(b)));
            let averaged = ssa(v.view(), 1.0).unwrap();
            prop_assert!(averaged.iter().all(|&x| x >= low - 1e-9 && x <= high + 1e-9));
        }
    }

    #[test]
    fn ista_forms_agree_and_a_small_step_lowers_the_lasso(n in 1usize..8, d in 1usize..8, seed in any::<u64>()) {
        let mut rng = rng(seed);
        let (x, dictionary) = (gaussian(d, n, &mut rng), gaussian(d, d, &mut rng));
        let plain = ista(x.view(), dictionary.view(), 0.1, 0.2).unwrap();
        let operator = ista_operator(dictionary.view(), 0.1).unwrap();
        let folded = ista_one_product(x.view(), operator.view(), 0.1, 0.2).unwrap();
        prop_assert!(norm((&plain - &folded).view()) < 1e-11 * (1.0 + norm(x.view())));

        // The Frobenius norm bounds the operator norm.
        let (eta, start) = (norm(dictionary.view()).powi(-2), x.mapv(|v| v.max(0.0)));
        let step = proximal_step(start.view(), x.view(), dictionary.view(), eta, 0.2).unwrap();
        let cost = |code: &Array2<f64>| lasso(code.view(), x.view(), dictionary.view(), 0.2).unwrap();
        prop_assert!(cost(&step) <= cost(&start) * (1.0 + 1e-12));
    }

    #[test]
    fn mm_prox_lowers_its_objective((d, _, _, n, e, seed) in setting(), lambda in 0.0f64..1.0) {
        let start = gaussian(d, n, &mut rng(seed)).mapv(f64::abs);
        let phi = |z: &Array2<f64>| mm_prox_objective(z.view(), eps(e), lambda).unwrap();
        let step = mm_prox(start.view(), eps(e), lambda).unwrap();
        prop_assert!(phi(&step) <= phi(&start) + 1e-10 * (1.0 + phi(&start).abs()));
    }

    #[test]
    fn bases_are_orthonormal_and_hold_their_own_tokens((d, k, p, n, _, seed) in setting()) {
        let mut rng = rng(seed);
        let u = orthonormal_codebook(d, k, p, &mut rng);
        prop_assert!(u.bases().iter().all(|u| orthonormality_error(u.view()).unwrap() < 1e-12));
        prop_assert!(coherence(&u).unwrap() < 1e-12, "K p <= d leaves room for orthogonal subspaces");
        for (k, basis) in u.bases().iter().enumerate() {
            let z = basis.dot(&gaussian(p, n, &mut rng));
            prop_assert_eq!(nearest_subspace(z.view(), &u).unwrap(), vec![k; n]);
            let outside = Codebook::new(u.bases().iter().enumerate().filter(|(j, _)| *j != k).map(|(_, b)| b.clone()).collect());
            if let Ok(outside) = outside {
                prop_assert!(compression_rate(z.view(), &outside, eps(0.5)).unwrap() < 1e-12, "orthogonal tokens cost nothing");
            }
        }
    }

    #[test]
    fn single_precision_follows((d, k, p, n, _, seed) in setting()) {
        let mut rng = rng(seed);
        let (z, u) = (unit_norm(gaussian(d, n, &mut rng).view()).unwrap(), orthonormal_codebook(d, k, p, &mut rng));
        let single = |x: &Array2<f64>| x.mapv(|v| v as f32);
        let (z32, u32) = (single(&z), Codebook::new(u.bases().iter().map(single).collect()).unwrap());
        let (rate, rate32) = (rate_reduction(z.view(), &u, eps(0.5)).unwrap(), rate_reduction(z32.view(), &u32, eps(0.5)).unwrap());
        prop_assert!(near(rate, f64::from(rate32), 1e-4), "{rate} and {rate32}");
        let gradient = compression_rate_gradient(z.view(), &u, eps(0.5)).unwrap();
        let gradient32 = compression_rate_gradient(z32.view(), &u32, eps(0.5)).unwrap().mapv(f64::from);
        prop_assert!(norm((&gradient - &gradient32).view()) < 1e-4 * (1.0 + norm(gradient.view())));
    }
}

#[test]
fn the_derivation_closes_as_the_tokens_shrink() {
    let mut rng = rng(21);
    let (u, z) = (orthonormal_codebook(8, 4, 2, &mut rng), gaussian(8, 5, &mut rng));
    let gamma = eps(1.0).gamma(2, 5).unwrap();
    for size in [0.3, 0.1, 0.03, 0.01] {
        let z = &z * size;
        // The series is off by (gamma G_k)^2 (I + gamma G_k)^{-1}, subspace by subspace.
        let grams = u.project(z.view()).unwrap().into_iter().map(|v| norm(v.t().dot(&v).view()));
        let bound = (gamma * grams.fold(0.0, f64::max)).powi(2);
        let errors = chain_errors(z.view(), &u, eps(1.0)).unwrap();
        assert!(errors.neumann.relative <= bound, "at {size}: {errors:?}, bound {bound}");
        assert!(errors.neumann.cosine > 1.0 - bound, "at {size}: {errors:?}");
    }
}

#[test]
fn the_neumann_inverse_is_off_by_a_square() {
    let v = gaussian(4, 5, &mut rng(8)) * 0.2;
    let gram = v.t().dot(&v);
    for gamma in [0.5, 0.1, 0.01] {
        let product = neumann_inverse(gram.view(), gamma).unwrap().dot(&(Array2::<f64>::eye(5) + &gram * gamma));
        let expected = Array2::<f64>::eye(5) - gram.dot(&gram) * (gamma * gamma);
        assert!(norm((product - expected).view()) < 1e-14);
    }
}

#[test]
fn the_last_step_of_the_derivation_is_exact_for_bases_that_span() {
    let mut rng = rng(22);
    let z = unit_norm(gaussian(8, 6, &mut rng).view()).unwrap();
    let spanning = orthonormal_codebook(8, 4, 2, &mut rng);
    let errors = chain_errors(z.view(), &spanning, eps(0.8)).unwrap();
    assert!((errors.softmax.relative - errors.spanning.relative).abs() < 1e-12);
    let kappa = 0.2;
    let gradient = softmax_gradient(z.view(), &spanning, eps(0.8)).unwrap();
    let step = mssa_step(z.view(), &spanning, eps(0.8), kappa).unwrap();
    assert!(relative(step.view(), (&z - &(gradient * kappa)).view()) < 1e-12);
    let narrow = orthonormal_codebook(8, 2, 2, &mut rng);
    let errors = chain_errors(z.view(), &narrow, eps(0.8)).unwrap();
    assert!(errors.spanning.relative > errors.softmax.relative + 0.1, "{errors:?}");
}

#[test]
fn compression_removes_noise_faster_than_signal_when_tokens_are_few_for_the_subspaces() {
    // 24 tokens in 4 subspaces of dimension 16: 6 tokens each.
    let (d, k, p, n, sigma) = (64, 4, 16, 24, 0.05);
    let mut rng = rng(31);
    let u = orthonormal_codebook(d, k, p, &mut rng);
    let mut clean = Array2::<f64>::zeros((d, n));
    for i in 0..n {
        let token = u.bases()[i % k].dot(&gaussian(p, 1, &mut rng)) / (p as f64).sqrt();
        clean.column_mut(i).assign(&token.column(0));
    }
    let z = &clean + &(gaussian(d, n, &mut rng) * (sigma / (d as f64).sqrt()));
    let gradient = compression_rate_gradient(z.view(), &u, eps(0.1)).unwrap();
    let (mut signal, mut noise) = ([0.0; 2], [0.0; 2]);
    for i in 0..n {
        let basis = &u.bases()[i % k];
        let own = |x: &Array2<f64>| basis.dot(&basis.t().dot(&x.slice(s![.., i..i + 1])));
        let (z_in, g_in) = (own(&z), own(&gradient));
        let (z_out, g_out) = (&z.slice(s![.., i..i + 1]) - &z_in, &gradient.slice(s![.., i..i + 1]) - &g_in);
        signal[0] += inner(g_in.view(), z_in.view());
        signal[1] += inner(z_in.view(), z_in.view());
        noise[0] += inner(g_out.view(), z_out.view());
        noise[1] += inner(z_out.view(), z_out.view());
    }
    let ratio = (noise[0] / noise[1]) / (signal[0] / signal[1]);
    assert!(ratio > 5.0, "noise is removed only {ratio} times as fast");
}

#[test]
fn mcr2_is_stationary_where_the_theory_says() {
    // Two orthogonal classes of equal singular values sqrt(x_k), the closed form of the regularised problem's local maximisers.
    let (d, sizes, lambda, precision) = (8usize, [4usize, 6], 0.1, eps(0.5));
    let n = sizes.iter().sum::<usize>();
    let alpha = precision.alpha(d, n).unwrap();
    let mut rng = rng(17);
    let u = orthonormal_codebook(d, 2, 3, &mut rng);
    let mut blocks = Vec::new();
    let mut labels = Vec::new();
    for (k, &size) in sizes.iter().enumerate() {
        let (alpha_k, ratio) = (precision.alpha(d, size).unwrap(), n as f64 / size as f64);
        let eta = (alpha_k - alpha) - lambda * (ratio + 1.0);
        let x = (eta + (eta * eta - 4.0 * lambda * lambda * ratio).sqrt()) / (2.0 * lambda * alpha_k);
        let v = orthonormalize(gaussian(size, 3, &mut rng).view()).unwrap();
        blocks.push(u.bases()[k].dot(&v.t()) * x.sqrt());
        labels.extend(vec![k; size]);
    }
    let z = concatenate(Axis(1), &[blocks[0].view(), blocks[1].view()]).unwrap();
    let gradient = mcr2_gradient(z.view(), &Memberships::from_labels(&labels, 2).unwrap(), precision).unwrap();
    assert!(relative(gradient.view(), (&z * lambda).view()) < 1e-12);
}

#[test]
fn mm_prox_has_its_closed_form_on_orthogonal_unit_tokens() {
    let mut rng = rng(19);
    let tokens = orthonormalize(gaussian(7, 5, &mut rng).view()).unwrap();
    let rotation = orthonormalize(gaussian(7, 7, &mut rng).view()).unwrap();
    let exact = mm_prox(rotation.t().dot(&tokens).view(), eps(0.4), 0.3).unwrap();
    let closed = mm_prox_closed(tokens.view(), rotation.view(), eps(0.4), 0.3).unwrap();
    assert!(norm((exact - closed).view()) < 1e-12);
}

#[test]
fn coherence_sees_shared_directions() {
    let mut rng = rng(23);
    let u = orthonormal_codebook(6, 3, 2, &mut rng);
    let (a, b) = (u.bases()[0].clone(), u.bases()[1].clone());
    let shared = concatenate(Axis(1), &[a.slice(s![.., ..1]), b.slice(s![.., ..1])]).unwrap();
    let mixed = Codebook::new(vec![a.clone() * 3.0, shared]).unwrap();
    assert!((coherence(&mixed).unwrap() - 1.0).abs() < 1e-12, "lengths do not matter");
    let tilted = &a * 0.6 + &b * 0.8;
    assert!((coherence(&Codebook::new(vec![a, tilted]).unwrap()).unwrap() - 0.6).abs() < 1e-12);
    let d: Array2<f64> = ndarray::array![[2.0, 3.0], [0.0, 4.0]];
    assert!((mutual_coherence(d.view()).unwrap() - 0.6).abs() < 1e-15);
    let crowded = orthonormal_codebook(4, 3, 3, &mut rng);
    assert!((coherence(&crowded).unwrap() - 1.0).abs() < 1e-12, "two 3-spaces in R^4 meet");
}

#[test]
fn a_batch_is_its_samples() {
    let mut rng = rng(29);
    let samples: Vec<_> = (0..5).map(|_| gaussian(6, 4, &mut rng)).collect();
    let views: Vec<_> = samples.iter().map(|z| z.view()).collect();
    let batch = ndarray::stack(Axis(0), &views).unwrap();
    let u = orthonormal_codebook(6, 2, 3, &mut rng);
    let (r, rc) =
        (coding_rates(batch.view(), eps(0.5)).unwrap(), compression_rates(batch.view(), &u, eps(0.5)).unwrap());
    let dr = rate_reductions(batch.view(), &u, eps(0.5)).unwrap();
    let gradients = per_sample(batch.view(), |z| compression_rate_gradient(z, &u, eps(0.5))).unwrap();
    for (i, z) in samples.iter().enumerate() {
        assert_eq!(r[i], coding_rate(z.view(), eps(0.5)).unwrap());
        assert_eq!(rc[i], compression_rate(z.view(), &u, eps(0.5)).unwrap());
        assert_eq!(dr[i], r[i] - rc[i]);
        assert_eq!(gradients[i], compression_rate_gradient(z.view(), &u, eps(0.5)).unwrap());
    }
}
