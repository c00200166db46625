//! Tokens drawn from a mixture, before and after noise is added (NIPS section 2.2; the token model of JMLR Theorem 6):
//!
//! ```text
//! z_i = U_{s_i} a_i,   s_i ~ pi,   a_i ~ N(0, diag(v_{s_i}))          x_i = z_i + sigma w_i,   w_i ~ N(0, I_d)
//! ```
//!
//! Everything is drawn in f64 and rounded to the arrays' type, token by token, so that the same generator gives the
//! same tokens in both types, and a longer sample begins with the shorter one.

use ndarray::{Array1, Array2, Axis};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::mixture::GaussianMixture;
use crate::{Error, Real, Result, check};

/// Tokens of a mixture before and after noise was added.
#[derive(Debug, Clone, PartialEq)]
pub struct NoisyTokens<A> {
    /// `z`, `d x N`: each token in its subspace.
    pub clean: Array2<A>,
    /// `x = z + sigma w`, `d x N`.
    pub noisy: Array2<A>,
    /// For each token the index of its subspace, below K.
    pub subspace: Vec<usize>,
}

impl<A: Real> GaussianMixture<A> {
    /// `n` independent tokens, and the same with noise of standard deviation `sigma` added to every entry.
    ///
    /// # Errors
    /// `n` must be positive; `sigma` finite and not negative.
    pub fn sample(&self, n: usize, sigma: f64, rng: &mut (impl Rng + ?Sized)) -> Result<NoisyTokens<A>> {
        let sigma = check::non_negative("sigma", sigma)?;
        let (d, p) = (self.codebook.dim(), self.codebook.subspace_dim());
        if n == 0 {
            return Err(Error::Empty { what: "the sample", rows: d, columns: n });
        }
        let (mut clean, mut noisy) = (Array2::zeros((d, n)), Array2::zeros((d, n)));
        let mut subspace = Vec::with_capacity(n);
        for (mut z, mut x) in clean.axis_iter_mut(Axis(1)).zip(noisy.axis_iter_mut(Axis(1))) {
            let k = self.draw_subspace(rng);
            let normal = |rng: &mut _| -> f64 { StandardNormal.sample(rng) };
            let a = Array1::from_shape_fn(p, |j| A::of(self.variances[(k, j)].sqrt() * normal(rng)));
            z.assign(&self.codebook.bases()[k].dot(&a));
            x.zip_mut_with(&z, |x, z| *x = A::of(z.wide() + sigma * normal(rng)));
            subspace.push(k);
        }
        Ok(NoisyTokens { clean, noisy, subspace })
    }

    fn draw_subspace(&self, rng: &mut (impl Rng + ?Sized)) -> usize {
        let mut left: f64 = rng.random();
        for (k, w) in self.weights.iter().enumerate() {
            left -= w;
            if left < 0.0 {
                return k;
            }
        }
        self.weights.len() - 1
    }
}
