//! Random matrices, the worked example of the golden values, and central differences.
#![allow(dead_code, reason = "each test file uses its own part")]

use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rate_reduction::{Codebook, Precision, random_codebook};

/// A generator that gives the same numbers on every machine.
pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Independent standard normal entries.
pub fn gaussian(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    Array2::from_shape_simple_fn((rows, columns), || StandardNormal.sample(rng))
}

/// A codebook that is not orthonormal, as trained ones are not.
pub fn loose_codebook(d: usize, heads: usize, p: usize, rng: &mut ChaCha8Rng) -> Codebook<f64> {
    Codebook::new((0..heads).map(|_| gaussian(d, p, rng) * 0.5).collect()).unwrap()
}

/// Orthonormal bases.
pub fn orthonormal_codebook(d: usize, heads: usize, p: usize, rng: &mut ChaCha8Rng) -> Codebook<f64> {
    random_codebook(d, heads, p, rng).unwrap()
}

/// Shorthand for eps, not squared.
pub fn eps(value: f64) -> Precision {
    Precision::from_eps(value).unwrap()
}

/// `<a, b>`.
pub fn inner(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> f64 {
    a.iter().zip(&b).map(|(x, y)| x * y).sum()
}

/// `||a||_F`.
pub fn norm(a: ArrayView2<'_, f64>) -> f64 {
    inner(a, a).sqrt()
}

/// `||a - b||_F / ||b||_F`.
pub fn relative(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> f64 {
    norm((&a - &b).view()) / norm(b)
}

/// The gradient of a scalar function by central differences, entry by entry.
pub fn numeric_gradient(x: &Array2<f64>, f: impl Fn(ArrayView2<'_, f64>) -> f64) -> Array2<f64> {
    let h = 1e-5;
    Array2::from_shape_fn(x.raw_dim(), |at| {
        let mut moved = x.clone();
        moved[at] = x[at] + h;
        let up = f(moved.view());
        moved[at] = x[at] - h;
        (up - f(moved.view())) / (2.0 * h)
    })
}

/// The derivative of a matrix function along a direction, by central differences.
pub fn numeric_directional(
    x: &Array2<f64>,
    direction: &Array2<f64>,
    f: impl Fn(ArrayView2<'_, f64>) -> Array2<f64>,
) -> Array2<f64> {
    let h = 1e-5;
    (f((x + &(direction * h)).view()) - f((x - &(direction * h)).view())) / (2.0 * h)
}

/// `Z[i][j] = sin(1 + i + 4 j)`, `4 x 3`.
pub fn golden_tokens() -> Array2<f64> {
    Array2::from_shape_fn((4, 3), |(i, j)| (1.0 + i as f64 + 4.0 * j as f64).sin())
}

/// Two bases of dimension 2, Gram-Schmidt of the column pairs of `cos(0.7 (1 + i) (1 + m))`.
pub fn golden_codebook() -> Codebook<f64> {
    let a = Array2::from_shape_fn((4, 4), |(i, m)| (0.7 * (1.0 + i as f64) * (1.0 + m as f64)).cos());
    let pair = |m: usize| rate_reduction::orthonormalize(a.slice(ndarray::s![.., m..m + 2])).unwrap();
    Codebook::new(vec![pair(0), pair(2)]).unwrap()
}

/// `D[i][j] = cos(0.3 (i + 1) (j + 2))`, `4 x 4`.
pub fn golden_dictionary() -> Array2<f64> {
    Array2::from_shape_fn((4, 4), |(i, j)| (0.3 * (i as f64 + 1.0) * (j as f64 + 2.0)).cos())
}
