//! A mixture of Gaussians on subspaces, seen through noise: its density, score, and the denoisers that follow from
//! it.
//!
//! ```text
//! z = U_s a,  s ~ pi,  a ~ N(0, diag(v_s))         x = z + sigma w,  w ~ N(0, I_d)
//! q(x)             = sum_k pi_k N(x; 0, S_k),      S_k = U_k diag(v_k) U_k^T + sigma^2 I,   M_k = S_k^{-1/2}
//! grad log q(x)    = -sum_k r_k(x) M_k M_k^T x,    r = softmax_k(log(pi_k det M_k) - 1/2 ||M_k^T x||^2)
//! E[z | x]         = x + sigma^2 grad log q(x)     (Tweedie)
//! Proposition 1      the same with r = softmax_k(-1/2 ||M_k^T x||^2), where pi_k det M_k is the same for every k
//! eq 6               E[z | x] ~ sum_k softmax_k(||U_k^T x||^2 / (2 sigma^2)) U_k U_k^T x,   sigma small
//! ```
//!
//! NIPS section 2.2 and Appendix A.1. The paper's proposition assumes equal `pi_k det M_k`; here the score is that of
//! any mixture, and the proposition's form stands beside it, so that what the assumption costs can be measured. No `d x
//! d` matrix is formed: `M_k^2` is `sigma^{-2}` times the identity less `U_k diag(v / (v + sigma^2)) U_k^T`. Products
//! are in the arrays' type, all that concerns memberships in f64.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::{Codebook, Error, Real, Result, check, orthonormality_error};

/// How far a basis may be from orthonormal, in roundings of its type times d.
const SLACK_ULPS: f64 = 100.0;

/// Where the soft memberships of a token come from.
#[derive(Clone, Copy)]
enum Rule {
    Exact,
    Proposition,
    Projector,
}

/// K zero-mean Gaussians, the k-th on the span of an orthonormal `U_k`.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianMixture<A> {
    pub(super) codebook: Codebook<A>,
    pub(super) weights: Vec<f64>,
    pub(super) variances: Array2<f64>,
}

impl<A: Real> GaussianMixture<A> {
    /// From orthonormal bases, the probability of each (`K`), and the variances along its columns (`K x p`).
    ///
    /// # Errors
    /// The bases must be orthonormal; weights positive with sum 1; variances positive and finite.
    pub fn new(codebook: Codebook<A>, weights: Vec<f64>, variances: Array2<f64>) -> Result<Self> {
        let (heads, p) = (codebook.heads(), codebook.subspace_dim());
        for (basis, u) in codebook.bases().iter().enumerate() {
            let error = orthonormality_error(u.view())?.wide();
            if error > SLACK_ULPS * A::ULP * codebook.dim() as f64 {
                return Err(Error::NotOrthonormal { basis, error });
            }
        }
        check::shape("the mixture's weights", &[weights.len()], &[heads])?;
        check::shape("the mixture's variances", variances.shape(), &[heads, p])?;
        let bad = weights.iter().copied().find(|w| !(*w > 0.0 && w.is_finite()));
        if let Some(value) = bad {
            return Err(Error::Parameter { name: "a weight of the mixture", value, expected: "positive and finite" });
        }
        let sum: f64 = weights.iter().sum();
        if (sum - 1.0).abs() > 1e-9 {
            return Err(Error::Parameter { name: "the sum of the mixture's weights", value: sum, expected: "1" });
        }
        if let Some(&value) = variances.iter().find(|v| !(**v > 0.0 && v.is_finite())) {
            return Err(Error::Parameter { name: "a variance", value, expected: "positive and finite" });
        }
        Ok(Self { codebook, weights, variances })
    }

    /// Subspaces of equal probability, with one variance in all their directions. At `1 / p` a token's length is about
    /// 1, which is where LayerNorm keeps the tokens of a network. `pi_k det M_k` is the same for all, so Proposition 1
    /// holds.
    ///
    /// # Errors
    /// As for [`GaussianMixture::new`].
    pub fn even(codebook: Codebook<A>, variance: f64) -> Result<Self> {
        let (heads, p) = (codebook.heads(), codebook.subspace_dim());
        Self::new(codebook, vec![1.0 / heads as f64; heads], Array2::from_elem((heads, p), variance))
    }

    /// The bases.
    pub fn codebook(&self) -> &Codebook<A> {
        &self.codebook
    }

    /// `log q(x)` of every token, in nats.
    ///
    /// # Shapes
    /// `x` is `d x N`; the result has N entries.
    ///
    /// # Errors
    /// `x` must be finite, not empty and of the codebook's d; `sigma` positive, with a square that is finite and not 0.
    pub fn log_density(&self, x: ArrayView2<'_, A>, sigma: f64) -> Result<Array1<f64>> {
        let (d, p) = (self.codebook.dim() as f64, self.codebook.subspace_dim() as f64);
        let square = noise_variance(sigma)?;
        let logits = self.logits(self.coordinates(x)?.view(), square, Rule::Exact);
        let shared = -0.5 * d * (2.0 * std::f64::consts::PI).ln() - 0.5 * (d - p) * square.ln();
        let densities = logits.axis_iter(Axis(1)).zip(x.axis_iter(Axis(1))).map(|(logits, x)| {
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|l| (l - top).exp()).sum();
            let length: f64 = x.iter().map(|v| v.wide().powi(2)).sum();
            shared + top + sum.ln() - 0.5 * length / square
        });
        check::computed("log q", densities.collect())
    }

    /// `grad log q(x)`: the exact score of the noisy mixture.
    ///
    /// # Shapes
    /// `x` and the result are `d x N`.
    ///
    /// # Errors
    /// As for [`GaussianMixture::log_density`].
    pub fn score(&self, x: ArrayView2<'_, A>, sigma: f64) -> Result<Array2<A>> {
        self.score_by(x, sigma, Rule::Exact)
    }

    /// The score as Proposition 1 prints it: exact where `pi_k det M_k` is the same for every k
    /// ([`GaussianMixture::condition_gap`] is 0).
    ///
    /// # Shapes
    /// `x` and the result are `d x N`.
    ///
    /// # Errors
    /// As for [`GaussianMixture::log_density`].
    pub fn proposition_score(&self, x: ArrayView2<'_, A>, sigma: f64) -> Result<Array2<A>> {
        self.score_by(x, sigma, Rule::Proposition)
    }

    /// By how much Proposition 1's condition fails: the largest difference of `log(pi_k det M_k)` between two
    /// subspaces, in nats.
    ///
    /// # Errors
    /// `sigma` must be positive, with a square that is finite and not 0.
    pub fn condition_gap(&self, sigma: f64) -> Result<f64> {
        let square = noise_variance(sigma)?;
        let offsets: Vec<f64> = (0..self.weights.len()).map(|k| self.log_weight(k, square)).collect();
        let (low, high) = offsets.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &o| (l.min(o), h.max(o)));
        Ok(high - low)
    }

    /// `E[z | x]`, the denoiser of least mean square error, by Tweedie's formula.
    ///
    /// # Shapes
    /// `x` and the result are `d x N`.
    ///
    /// # Errors
    /// As for [`GaussianMixture::log_density`].
    pub fn denoise(&self, x: ArrayView2<'_, A>, sigma: f64) -> Result<Array2<A>> {
        self.denoise_by(x, sigma, Rule::Exact)
    }

    /// NIPS eq 6: the token's projections on all subspaces, weighted by a softmax of their energies. The limit of
    /// [`GaussianMixture::denoise`] for small noise.
    ///
    /// # Shapes
    /// `x` and the result are `d x N`.
    ///
    /// # Errors
    /// As for [`GaussianMixture::log_density`].
    pub fn project(&self, x: ArrayView2<'_, A>, sigma: f64) -> Result<Array2<A>> {
        self.denoise_by(x, sigma, Rule::Projector)
    }

    fn score_by(&self, x: ArrayView2<'_, A>, sigma: f64, rule: Rule) -> Result<Array2<A>> {
        let denoised = self.denoise_by(x, sigma, rule)?;
        let scale: A = check::rounded("1 / sigma^2", 1.0 / noise_variance(sigma)?)?;
        check::computed("the score", (denoised - x) * scale)
    }

    fn denoise_by(&self, x: ArrayView2<'_, A>, sigma: f64, rule: Rule) -> Result<Array2<A>> {
        let square = noise_variance(sigma)?;
        let mut heads = self.coordinates(x)?;
        let mut r = self.logits(heads.view(), square, rule);
        for mut column in r.axis_iter_mut(Axis(1)) {
            let top = column.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            column.mapv_inplace(|l| (l - top).exp());
            let sum = column.sum();
            column.mapv_inplace(|v| v / sum);
        }
        let p = self.codebook.subspace_dim();
        for (row, mut coordinates) in heads.axis_iter_mut(Axis(0)).enumerate() {
            let (k, v) = (row / p, self.variances[(row / p, row % p)]);
            let shrink = if matches!(rule, Rule::Projector) { 1.0 } else { v / (v + square) };
            coordinates.zip_mut_with(&r.row(k), |c, r| *c = A::of(c.wide() * r * shrink));
        }
        check::computed("the denoised tokens", self.codebook.spread(heads.view()))
    }

    /// `[U_1^T X; ...; U_K^T X]`.
    fn coordinates(&self, x: ArrayView2<'_, A>) -> Result<Array2<A>> {
        self.codebook.admit(x)?;
        self.codebook.coordinates(x)
    }

    /// What the softmax over the subspaces is taken of, `K x N`. The part of `-1/2 ||M_k^T x||^2` that all k share,
    /// `-||x||^2 / (2 sigma^2)`, is left out, as it would drown the rest at small sigma.
    fn logits(&self, heads: ArrayView2<'_, A>, square: f64, rule: Rule) -> Array2<f64> {
        let p = self.codebook.subspace_dim();
        Array2::from_shape_fn((self.weights.len(), heads.ncols()), |(k, i)| {
            let quadratic: f64 = (0..p)
                .map(|j| {
                    let v = self.variances[(k, j)];
                    let kept = if matches!(rule, Rule::Projector) { 1.0 } else { v / (v + square) };
                    kept * heads[(k * p + j, i)].wide().powi(2)
                })
                .sum();
            let offset = if matches!(rule, Rule::Exact) { self.log_weight(k, square) } else { 0.0 };
            offset + 0.5 * quadratic / square
        })
    }

    /// `log(pi_k det M_k)` without the factor that all k share.
    fn log_weight(&self, k: usize, square: f64) -> f64 {
        self.weights[k].ln() - 0.5 * self.variances.row(k).iter().map(|v| (v + square).ln()).sum::<f64>()
    }
}

/// `sigma^2`, if it can be divided by.
fn noise_variance(sigma: f64) -> Result<f64> {
    let square = sigma * sigma;
    if sigma > 0.0 && square.is_normal() {
        return Ok(square);
    }
    Err(Error::Parameter { name: "sigma", value: sigma, expected: "positive, with a square that is finite and not 0" })
}
