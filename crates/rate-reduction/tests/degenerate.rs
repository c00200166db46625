//! Degenerate input gives an error that says what is wrong, or the right limit; never NaN.

mod common;

use approx::assert_abs_diff_eq;
use common::*;
use ndarray::{Array1, Array2, Array3, Axis, array, concatenate};
use rate_reduction::*;

/// Every function of tokens, a codebook and a precision, by name.
fn all_of_tokens(z: &Array2<f64>, u: &Codebook<f64>) -> Vec<(&'static str, Result<()>)> {
    let (z, e) = (z.view(), eps(0.5));
    let d = Array2::<f64>::eye(u.dim());
    let w = u.to_matrix();
    let layer = MultiHead::new(u, w.view(), None).unwrap();
    let ones = Array2::<f64>::ones(z.raw_dim());
    let labels = Memberships::from_labels(&vec![0; z.ncols().max(1)], 2).unwrap();
    vec![
        ("R", coding_rate(z, e).map(drop)),
        ("R^c", compression_rate(z, u, e).map(drop)),
        ("Delta R", rate_reduction(z, u, e).map(drop)),
        ("grad R", coding_rate_gradient(z, e).map(drop)),
        ("grad R^c", compression_rate_gradient(z, u, e).map(drop)),
        ("grad Delta R", rate_reduction_gradient(z, u, e).map(drop)),
        ("Hess R", coding_rate_hvp(z, ones.view(), e).map(drop)),
        ("Hess R^c", compression_rate_hvp(z, ones.view(), u, e).map(drop)),
        ("Hess Delta R", rate_reduction_hvp(z, ones.view(), u, e).map(drop)),
        ("objective", sparse_rate_reduction(z, u, e, 0.1, Sparsity::L0).map(drop)),
        ("nonzeros", nonzero_fraction(z).map(drop)),
        ("MCR^2", mcr2(z, &labels, e).map(drop)),
        ("grad MCR^2", mcr2_gradient(z, &labels, e).map(drop)),
        ("Neumann", neumann_gradient(z, u, e).map(drop)),
        ("softmax", softmax_gradient(z, u, e).map(drop)),
        ("spanning", spanning_gradient(z, u, e).map(drop)),
        ("MSSA", mssa(z, u, e).map(drop)),
        ("MSSA step", mssa_step(z, u, e, 0.1).map(drop)),
        ("released MSSA", layer.forward(z).map(drop)),
        ("released MSSA backward", layer.backward(z, ones.view()).map(drop)),
        ("ISTA", ista(z, d.view(), 0.1, 0.1).map(drop)),
        ("ISTA in one product", ista_one_product(z, d.view(), 0.1, 0.1).map(drop)),
        ("ISTA backward", ista_backward(z, d.view(), 0.1, 0.1, ones.view()).map(drop)),
        ("LASSO", lasso(z, z, d.view(), 0.1).map(drop)),
        ("MM-prox", mm_prox(z, e, 0.1).map(drop)),
        ("MM-prox objective", mm_prox_objective(z.mapv(f64::abs).view(), e, 0.1).map(drop)),
        ("MM-prox closed", mm_prox_closed(z, d.view(), e, 0.1).map(drop)),
        ("unit norm", unit_norm(z).map(drop)),
        ("nearest subspace", nearest_subspace(z, u).map(drop)),
    ]
}

#[test]
fn not_finite_is_named_everywhere() {
    let u = orthonormal_codebook(4, 2, 2, &mut rng(1));
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut z = gaussian(4, 3, &mut rng(2));
        z[(2, 1)] = bad;
        for (name, outcome) in all_of_tokens(&z, &u) {
            assert!(
                matches!(outcome, Err(Error::NotFinite { row: 2, column: 1, .. })),
                "{name} with {bad}: {outcome:?}"
            );
        }
    }
}

#[test]
fn no_tokens_is_an_error_everywhere() {
    let u = orthonormal_codebook(4, 2, 2, &mut rng(1));
    for (name, outcome) in all_of_tokens(&Array2::zeros((4, 0)), &u) {
        assert!(matches!(outcome, Err(Error::Empty { .. })), "{name}: {outcome:?}");
    }
    assert!(coding_rate(Array2::<f64>::zeros((0, 3)).view(), eps(0.5)).is_err());
    assert!(released_compression_measure(Array3::<f64>::zeros((2, 3, 0)).view()).is_err());
    assert!(released_compression_measure(Array3::<f64>::zeros((0, 3, 2)).view()).is_err());
    assert!(coding_rates(Array3::<f64>::zeros((0, 3, 2)).view(), eps(0.5)).unwrap().is_empty(), "no samples, no rates");
}

#[test]
fn overflow_is_an_error_not_infinity() {
    let u = orthonormal_codebook(4, 2, 2, &mut rng(1));
    let z = Array2::from_elem((4, 3), 1e200);
    for outcome in [
        coding_rate(z.view(), eps(0.5)).map(drop),
        compression_rate_gradient(z.view(), &u, eps(0.5)).map(drop),
        mssa(z.view(), &u, eps(0.5)).map(drop),
        neumann_gradient(z.view(), &u, eps(0.5)).map(drop),
    ] {
        assert!(matches!(outcome, Err(Error::Overflow { .. })), "{outcome:?}");
    }
    let z = Array2::from_elem((4, 3), 1e300);
    assert!(matches!(ista(z.view(), (Array2::eye(4) * -1e10).view(), 1.0, 0.1), Err(Error::Overflow { .. })));
    for extreme in [1e300, 1e-300] {
        let unit = unit_norm(Array2::from_elem((4, 3), extreme).view()).unwrap();
        assert_abs_diff_eq!(unit, Array2::from_elem((4, 3), 0.5), epsilon = 1e-15);
    }
}

#[test]
fn zero_tokens_have_the_right_limits() {
    let u = orthonormal_codebook(4, 2, 2, &mut rng(1));
    let (zero, z) = (Array2::<f64>::zeros((4, 3)), gaussian(4, 3, &mut rng(2)));
    assert_eq!(rate_reduction(zero.view(), &u, eps(0.5)).unwrap(), 0.0);
    assert_eq!(rate_reduction_gradient(zero.view(), &u, eps(0.5)).unwrap(), zero);
    let alpha = eps(0.5).alpha(4, 3).unwrap();
    let curvature = coding_rate_hvp(zero.view(), z.view(), eps(0.5)).unwrap();
    assert_abs_diff_eq!(curvature, &z * alpha, epsilon = 1e-12);
    assert_eq!(mssa(zero.view(), &u, eps(0.5)).unwrap(), zero);
    assert_eq!(nonzero_fraction(zero.view()).unwrap(), 0.0);
    // A zero token beside others adds nothing at the same alpha.
    let padded = concatenate(Axis(1), &[z.view(), zero.view()]).unwrap();
    let same_alpha = Precision::from_eps_squared(0.125).unwrap();
    let (alone, beside) = (coding_rate(z.view(), eps(0.5)).unwrap(), coding_rate(padded.view(), same_alpha).unwrap());
    assert_abs_diff_eq!(alone, beside, epsilon = 1e-12);
    assert!(matches!(unit_norm(padded.view()), Err(Error::ZeroToken { column: 3, .. })));
    assert!(matches!(nearest_subspace(padded.view(), &u), Err(Error::ZeroToken { column: 3, .. })));
    assert!(released_compression_measure(Array3::<f64>::zeros((1, 2, 2)).view()).is_err());
    assert!(matches!(chain_errors(zero.view(), &u, eps(0.5)), Err(Error::ZeroGradient)));
}

#[test]
fn rank_deficient_tokens_have_the_right_limit() {
    // N copies of one token: R = 1/2 ln(1 + alpha N |z|^2), and the gradient points along the token.
    let token = gaussian(6, 1, &mut rng(3));
    let square = inner(token.view(), token.view());
    for n in [1, 4, 9] {
        let copies = token.broadcast((6, n)).unwrap().to_owned();
        let alpha = eps(0.5).alpha(6, n).unwrap();
        let expected = 0.5 * (alpha * n as f64 * square).ln_1p();
        assert_abs_diff_eq!(coding_rate(copies.view(), eps(0.5)).unwrap(), expected, epsilon = 1e-12);
        let gradient = coding_rate_gradient(copies.view(), eps(0.5)).unwrap();
        let along = &copies * (alpha / (1.0 + alpha * n as f64 * square));
        assert!(relative(gradient.view(), along.view()) < 1e-10);
    }
}

#[test]
fn digits_survive_where_the_identity_would_drown() {
    // alpha |z|^2 is about 1e8: past what f32 can hold beside 1, so the rank-deficient directions need the singular values.
    let token = gaussian(6, 1, &mut rng(3));
    for n in [4, 9] {
        let weights = gaussian(1, n, &mut rng(4));
        let z = token.dot(&weights);
        let single = z.mapv(|v| v as f32);
        let fine = eps(1e-4);
        let (rate, rate32) = (coding_rate(z.view(), fine).unwrap(), coding_rate(single.view(), fine).unwrap());
        assert!((rate - f64::from(rate32)).abs() < 1e-2 * rate, "{rate} and {rate32}");
        let expected = 0.5 * (fine.alpha(6, n).unwrap() * inner(z.view(), z.view())).ln_1p();
        assert_abs_diff_eq!(rate, expected, epsilon = 1e-6);
        let gradient = coding_rate_gradient(z.view(), fine).unwrap();
        let gradient32 = coding_rate_gradient(single.view(), fine).unwrap();
        // Rounding the tokens to f32 tilts the gradient itself; only its part along the token is comparable.
        let (part, part32) = (inner(gradient.view(), z.view()), inner(gradient32.mapv(f64::from).view(), z.view()));
        assert!((part - 1.0).abs() < 1e-6 && (part32 - 1.0).abs() < 1e-2, "{part} and {part32}");
    }
}

#[test]
fn singular_values_and_cholesky_agree() {
    // In f64 the switch happens near alpha |z|^2 = 1e13; on full-rank tokens both sides of it are accurate.
    for (d, n) in [(5, 3), (3, 5)] {
        let (z, along) = (gaussian(d, n, &mut rng(6)), gaussian(d, n, &mut rng(7)));
        let scaled = |e: f64| {
            let fine = eps(e);
            let rate: f64 = coding_rate(z.view(), fine).unwrap() + d.min(n) as f64 * e.ln();
            (
                rate,
                coding_rate_gradient(z.view(), fine).unwrap(),
                coding_rate_hvp(z.view(), along.view(), fine).unwrap(),
            )
        };
        let (by_cholesky, by_values) = (scaled(1e-5), scaled(1e-8));
        assert_abs_diff_eq!(by_cholesky.0, by_values.0, epsilon = 1e-7);
        assert!(relative(by_values.1.view(), by_cholesky.1.view()) < 1e-6);
        assert!(relative(by_values.2.view(), by_cholesky.2.view()) < 1e-6);
    }
}

#[test]
fn classes_without_members_cost_nothing() {
    let z = gaussian(4, 5, &mut rng(5));
    let labels = [0, 0, 2, 2, 2];
    let three = Memberships::from_labels(&labels, 3).unwrap();
    let two = Memberships::from_labels(&labels.map(|l| l / 2), 2).unwrap();
    assert_eq!(mcr2(z.view(), &three, eps(0.5)).unwrap(), mcr2(z.view(), &two, eps(0.5)).unwrap());
    assert_eq!(mcr2_gradient(z.view(), &three, eps(0.5)).unwrap(), mcr2_gradient(z.view(), &two, eps(0.5)).unwrap());
    // Next to no mass is close to none.
    let mut pi = Array2::<f64>::zeros((2, 5));
    pi.row_mut(0).fill(1.0);
    pi.row_mut(1).fill(1e-300);
    let faint = Memberships::new(pi).unwrap();
    assert!(mcr2(z.view(), &faint, eps(0.5)).unwrap().value().abs() < 1e-12);
    assert!(mcr2_gradient(z.view(), &faint, eps(0.5)).unwrap().iter().all(|g| g.abs() < 1e-12));
}

#[test]
fn memberships_are_distributions() {
    assert!(matches!(Memberships::new(array![[0.5, 0.6], [0.5, 0.6]]), Err(Error::Membership { token: 1, .. })));
    assert!(matches!(Memberships::new(array![[1.5], [-0.5]]), Err(Error::Membership { token: 0, .. })));
    assert!(matches!(Memberships::new(array![[f64::NAN]]), Err(Error::NotFinite { .. })));
    assert!(matches!(
        Memberships::<f64>::from_labels(&[0, 3], 3),
        Err(Error::Label { token: 1, label: 3, classes: 3 })
    ));
    assert!(Memberships::<f64>::from_labels(&[], 3).is_err());
    assert!(Memberships::<f64>::from_labels(&[0], 0).is_err());
}

#[test]
fn shapes_must_fit() {
    let u = orthonormal_codebook(4, 2, 2, &mut rng(1));
    let (z, turned) = (gaussian(4, 3, &mut rng(2)), gaussian(3, 4, &mut rng(2)));
    let labels = Memberships::from_labels(&[0, 1, 0, 1], 2).unwrap();
    let w = u.to_matrix();
    let layer = MultiHead::new(&u, w.view(), None).unwrap();
    let bias = Array1::<f64>::zeros(3);
    let d = Array2::<f64>::eye(3);
    for (name, outcome) in [
        ("R^c", compression_rate(turned.view(), &u, eps(0.5)).map(drop)),
        ("grad R^c", compression_rate_gradient(turned.view(), &u, eps(0.5)).map(drop)),
        ("Hess R", coding_rate_hvp(z.view(), turned.view(), eps(0.5)).map(drop)),
        ("MCR^2", mcr2(z.view(), &labels, eps(0.5)).map(drop)),
        ("MSSA", mssa(turned.view(), &u, eps(0.5)).map(drop)),
        ("output map", MultiHead::new(&u, d.view(), None).map(drop)),
        ("output bias", MultiHead::new(&u, w.view(), Some(bias.view())).map(drop)),
        ("upstream", layer.backward(z.view(), turned.view()).map(drop)),
        ("ISTA", ista(z.view(), d.view(), 0.1, 0.1).map(drop)),
        ("ISTA's D", ista(z.view(), z.view(), 0.1, 0.1).map(drop)),
        ("ISTA's operator", ista_operator(z.view(), 0.1).map(drop)),
        ("MM-prox", mm_prox_closed(z.view(), d.view(), eps(0.5), 0.1).map(drop)),
        ("Gram matrix", neumann_inverse(z.view(), 0.1).map(drop)),
        ("codebook", Codebook::new(vec![z.clone(), turned.clone()]).map(drop)),
    ] {
        assert!(matches!(outcome, Err(Error::Shape { .. })), "{name}: {outcome:?}");
    }
    let message = compression_rate(turned.view(), &u, eps(0.5)).unwrap_err().to_string();
    assert!(message.contains("[3, 4]") && message.contains("[4, 4]") && message.contains("transpose"), "{message}");
    for heads in [0, 2] {
        assert!(matches!(Codebook::from_matrix(z.view(), heads), Err(Error::Heads { columns: 3, .. })));
    }
    assert!(Codebook::<f64>::new(vec![]).is_err());
}

#[test]
fn parameters_must_be_in_range() {
    let (z, u) = (gaussian(4, 3, &mut rng(2)), orthonormal_codebook(4, 2, 2, &mut rng(1)));
    let d = Array2::<f64>::eye(4);
    for bad in [-0.1, f64::NAN, f64::INFINITY] {
        for (name, outcome) in [
            ("lambda", sparse_rate_reduction(z.view(), &u, eps(0.5), bad, Sparsity::L1).map(drop)),
            ("kappa", mssa_step(z.view(), &u, eps(0.5), bad).map(drop)),
            ("eta", ista(z.view(), d.view(), bad, 0.1).map(drop)),
            ("ISTA's lambda", ista(z.view(), d.view(), 0.1, bad).map(drop)),
            ("MM-prox's lambda", mm_prox(z.view(), eps(0.5), bad).map(drop)),
            ("scale", attention_map(z.view(), bad).map(drop)),
        ] {
            assert!(matches!(outcome, Err(Error::Parameter { .. })), "{name} = {bad}: {outcome:?}");
        }
    }
    let single = z.mapv(|v| v as f32);
    let finest = Precision::from_eps_squared(1e-300).unwrap();
    assert!(matches!(coding_rate(single.view(), finest), Err(Error::Overflow { .. })), "alpha does not fit f32");
    assert!(mm_prox_objective((z.mapv(f64::abs) * -1.0).view(), eps(0.5), 0.1).is_err());
}

#[test]
fn dependent_columns_have_no_basis() {
    let full = random_codebook::<f32>(96, 4, 24, &mut rng(1)).unwrap().to_matrix();
    assert!(orthonormality_error(full.view()).unwrap() < 1e-5, "a whole space's worth of f32 bases can be drawn");
    let a = gaussian(5, 1, &mut rng(9));
    let twice = concatenate(Axis(1), &[a.view(), (&a * 2.0).view()]).unwrap();
    assert!(matches!(orthonormalize(twice.view()), Err(Error::RankDeficient { column: 1, .. })));
    assert!(matches!(orthonormalize(Array2::<f64>::zeros((3, 2)).view()), Err(Error::RankDeficient { column: 0, .. })));
    assert!(matches!(
        orthonormalize(Array2::<f64>::eye(3).slice(ndarray::s![..2, ..])),
        Err(Error::RankDeficient { column: 2, .. })
    ));
    assert!(coherence(&Codebook::new(vec![twice.clone(), twice]).unwrap()).is_err());
    assert!(
        random_codebook::<f64>(3, 2, 4, &mut rng(1)).is_err() && random_codebook::<f64>(3, 0, 1, &mut rng(1)).is_err()
    );
    assert!(random_codebook::<f64>(3, 2, 0, &mut rng(1)).is_err());
}

#[test]
fn a_bad_sample_is_named() {
    let mut batch = Array3::<f64>::ones((4, 3, 2));
    batch[(2, 0, 1)] = f64::NAN;
    let error = coding_rates(batch.view(), eps(0.5)).unwrap_err();
    assert!(matches!(error, Error::Sample { index: 2, .. }));
    assert!(error.to_string().contains("sample 2") && error.to_string().contains("NaN"), "{error}");
}
