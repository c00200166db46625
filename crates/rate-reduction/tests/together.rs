//! A rate and its gradient from one factorisation: against the formulas as printed, against each function alone, on any number of threads.

mod common;

use common::*;
use ndarray::{Array2, ArrayView2};
use ndarray_linalg::{Eigh, UPLO};
use rate_reduction::*;

/// `1/2 logdet(I + c X X^T)` and `c (I + c X X^T)^{-1} X` by the eigenvectors of `X X^T`, whichever side is the smaller.
fn printed(x: ArrayView2<'_, f64>, c: f64) -> (f64, Array2<f64>) {
    let (eigenvalues, q) = x.dot(&x.t()).eigh(UPLO::Lower).unwrap();
    let shifted = eigenvalues.mapv(|e| 1.0 + c * e);
    let inverse = (&q / &shifted).dot(&q.t());
    (shifted.iter().map(|e| 0.5 * e.ln()).sum(), inverse.dot(&x) * c)
}

#[test]
fn equal_the_formulas_as_printed() {
    // Around the widths of blocks, N on either side of d and of p.
    for (d, k, p, n) in
        [(1, 1, 1, 1), (20, 3, 6, 16), (33, 2, 17, 49), (48, 4, 33, 15), (97, 2, 49, 130), (130, 3, 64, 97)]
    {
        let mut rng = rng(d as u64);
        let (z, u, e) = (gaussian(d, n, &mut rng), loose_codebook(d, k, p, &mut rng), eps(0.7));
        let (r, gradient) = coding_rate_and_gradient(z.view(), e).unwrap();
        let (expected, expected_gradient) = printed(z.view(), e.alpha(d, n).unwrap());
        assert!((r - expected).abs() < 1e-11 * expected, "R at d {d}, N {n}: {r} and {expected}");
        assert!(relative(gradient.view(), expected_gradient.view()) < 1e-10, "grad R at d {d}, N {n}");

        let (rc, gradient) = compression_rate_and_gradient(z.view(), &u, e).unwrap();
        let (mut expected, mut expected_gradient) = (0.0, Array2::<f64>::zeros((d, n)));
        for basis in u.bases() {
            let (rate, inner) = printed(basis.t().dot(&z).view(), e.gamma(p, n).unwrap());
            expected += rate;
            expected_gradient += &basis.dot(&inner);
        }
        assert!((rc - expected).abs() < 1e-11 * expected, "R^c at d {d}, p {p}, N {n}: {rc} and {expected}");
        assert!(relative(gradient.view(), expected_gradient.view()) < 1e-10, "grad R^c at d {d}, p {p}, N {n}");
    }
}

#[test]
fn equal_each_function_alone() {
    let mut rng = rng(41);
    let (z, u) = (gaussian(24, 40, &mut rng), loose_codebook(24, 3, 8, &mut rng));
    // The last precision lets the identity drown, where singular values serve.
    for e in [eps(0.5), eps(1e-8)] {
        let (r, of_r) = coding_rate_and_gradient(z.view(), e).unwrap();
        assert_eq!((r, &of_r), (coding_rate(z.view(), e).unwrap(), &coding_rate_gradient(z.view(), e).unwrap()));
        let (rc, of_rc) = compression_rate_and_gradient(z.view(), &u, e).unwrap();
        assert_eq!(rc, compression_rate(z.view(), &u, e).unwrap());
        assert_eq!(of_rc, compression_rate_gradient(z.view(), &u, e).unwrap());
        let (dr, of_dr) = rate_reduction_and_gradient(z.view(), &u, e).unwrap();
        assert_eq!((dr, of_dr), (r - rc, of_r - of_rc));
    }
}

#[test]
fn do_not_depend_on_the_number_of_threads() {
    // Large enough for every product to be dealt out.
    let mut rng = rng(43);
    let (z, u) = (gaussian(390, 197, &mut rng), loose_codebook(390, 6, 65, &mut rng));
    let (z32, u32) =
        (z.mapv(|v| v as f32), Codebook::new(u.bases().iter().map(|u| u.mapv(|v| v as f32)).collect()).unwrap());
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            (
                rate_reduction_and_gradient(z.view(), &u, eps(0.5)).unwrap(),
                rate_reduction_and_gradient(z.t(), &u_of_tokens(), eps(0.5)).unwrap(),
                rate_reduction_and_gradient(z32.view(), &u32, eps(0.5)).unwrap(),
            )
        })
    };
    let alone = on(1);
    for threads in [2, 3, 8] {
        assert!(on(threads) == alone, "{threads} threads give other bits than one");
    }
}

/// A codebook for tokens of dimension 197.
fn u_of_tokens() -> Codebook<f64> {
    loose_codebook(197, 3, 60, &mut rng(44))
}
