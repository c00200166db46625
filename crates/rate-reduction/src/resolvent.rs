//! The one matrix behind every rate, `I + c X^T X`: its log-determinant, and its inverse applied to X, from one factorisation.
//!
//! Sylvester's identity `det(I_N + c X^T X) = det(I_d + c X X^T)` and the push-through identity
//! `X (I_N + c X^T X)^{-1} = (I_d + c X X^T)^{-1} X` let the smaller of the two forms serve.
//!
//! The smallest eigenvalue is 1, so a Cholesky factorisation is safe as long as the rounding of `c X^T X` stays far below 1. Beyond that
//! (f32 with a small eps, or a huge X) the 1 would drown, and a rank-deficient X would give noise for what should be `ln 1 = 0`; the
//! singular values of X itself keep those digits and are taken instead.

use ndarray::{Array1, Array2, ArrayView2};
use ndarray_linalg::{JobSvd, SVD, SVDDC};

use crate::cholesky::Cholesky;
use crate::product::{gram, product};
use crate::{Error, Real, Result, check};

/// The rounding of `c X^T X`, relative to the identity beside it, above which singular values replace Cholesky.
const DROWNED: f64 = 1e-2;

/// Which of the two matrices of Sylvester's identity is factorised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// `I_N + c Z^T Z`, `N x N`: cheaper when there are fewer tokens than dimensions.
    Tokens,
    /// `I_d + c Z Z^T`, `d x d`: cheaper when there are fewer dimensions than tokens.
    Features,
}

impl Form {
    /// The cheaper form for a `rows x columns` matrix of tokens in columns.
    pub fn smaller(rows: usize, columns: usize) -> Self {
        if columns <= rows { Self::Tokens } else { Self::Features }
    }
}

/// The factor of `I + c X^T X`, or none where rounding would drown the identity.
fn factor<A: Real>(x: ArrayView2<'_, A>, c: A, form: Form) -> Result<Option<Cholesky<A>>> {
    let gram = match form {
        Form::Tokens => gram(c, x.t()),
        Form::Features => gram(c, x),
    };
    let mut shifted = check::computed("I + c X^T X", gram)?;
    let largest = shifted.diag().iter().fold(0.0, |top: f64, v| top.max(v.wide()));
    if largest * A::ULP * (shifted.nrows() as f64).sqrt() > DROWNED {
        return Ok(None);
    }
    shifted.diag_mut().mapv_inplace(|v| v + A::of(1.0));
    Ok(Cholesky::new(shifted))
}

/// `logdet(I + c X^T X)` for a checked X and `c >= 0`.
pub(crate) fn log_det<A: Real>(x: ArrayView2<'_, A>, c: A, form: Form) -> Result<A> {
    let log_det = match factor(x, c, form)? {
        Some(factor) => factor.log_det(),
        None => {
            let (_, sigma, _) = dense(x).svd(false, false).map_err(|e| lapack("X", e))?;
            log_det_of(&sigma, c)
        }
    };
    check::computed_scalar("logdet(I + c X^T X)", log_det)
}

/// `logdet(I + c X^T X)` by the singular values of X.
fn log_det_of<A: Real>(sigma: &Array1<A>, c: A) -> A {
    A::of(sigma.iter().map(|s| (c.wide() * s.wide() * s.wide()).ln_1p()).sum())
}

/// `(I_d + c X X^T)^{-1}` and `1/2 logdet(I_d + c X X^T)` for a checked X and `c >= 0`.
///
/// With fewer tokens than dimensions it is `I - c X (I_N + c X^T X)^{-1} X^T`, which factorises the smaller matrix.
pub(crate) fn inverse_over_features<A: Real>(x: ArrayView2<'_, A>, c: A) -> Result<(Array2<A>, A)> {
    let form = Form::smaller(x.nrows(), x.ncols());
    if form == Form::Features
        && let Some(factor) = factor(x, c, form)?
    {
        let rate = check::computed_scalar("logdet(I + c X X^T)", factor.log_det() * A::of(0.5))?;
        return Ok((check::computed("(I + c X X^T)^{-1}", factor.inverse())?, rate));
    }
    let resolvent = Resolvent::new(x, c)?;
    let rate = resolvent.rate()?;
    let inverse = match form {
        Form::Features => resolvent.inverse,
        Form::Tokens => Array2::eye(x.nrows()) - product(A::of(1.0), resolvent.filtered.view(), x.t()),
    };
    Ok((check::computed("(I + c X X^T)^{-1}", inverse)?, rate))
}

/// The log-determinant, the inverse of the smaller form, and `c X (I + c X^T X)^{-1}`.
pub(crate) struct Resolvent<A> {
    c: A,
    form: Form,
    log_det: A,
    /// `(I_N + c X^T X)^{-1}` or `(I_d + c X X^T)^{-1}`, by `form`.
    inverse: Array2<A>,
    /// `c X (I + c X^T X)^{-1}`, of X's shape.
    filtered: Array2<A>,
}

impl<A: Real> Resolvent<A> {
    /// For a checked X and `c >= 0`.
    pub(crate) fn new(x: ArrayView2<'_, A>, c: A) -> Result<Self> {
        let form = Form::smaller(x.nrows(), x.ncols());
        let (log_det, inverse, filtered) = match factor(x, c, form)? {
            Some(factor) => {
                let inverse = factor.inverse();
                let filtered = match form {
                    Form::Tokens => product(c, x, inverse.view()),
                    Form::Features => product(c, inverse.view(), x),
                };
                (factor.log_det(), inverse, filtered)
            }
            None => by_singular_values(x, c, form)?,
        };
        Ok(Self { c, form, log_det, inverse, filtered })
    }

    /// `1/2 logdet(I + c X^T X)`.
    pub(crate) fn rate(&self) -> Result<A> {
        check::computed_scalar("logdet(I + c X^T X)", self.log_det * A::of(0.5))
    }

    /// The gradient of `1/2 logdet(I + c X^T X)`, which is `c X (I + c X^T X)^{-1}`.
    pub(crate) fn into_gradient(self) -> Result<Array2<A>> {
        check::computed("the gradient of the coding rate", self.filtered)
    }

    /// The Hessian of `1/2 logdet(I + c X^T X)` applied to a direction.
    ///
    /// With `M = (I_N + c X^T X)^{-1}`, the gradient `G = c X M` and `M' = (I_d + c X X^T)^{-1} = I - G X^T`, NIPS Lemma 5 becomes
    /// `c D M - c^2 X M (X^T D + D^T X) M = c M' D M - G D^T G`, which needs one inverse and cancels less.
    pub(crate) fn hessian(&self, x: ArrayView2<'_, A>, direction: ArrayView2<'_, A>) -> Result<Array2<A>> {
        let g = &self.filtered;
        let between = match self.form {
            Form::Tokens => (&direction - g.dot(&x.t().dot(&direction))).dot(&self.inverse),
            Form::Features => self.inverse.dot(&(&direction - direction.dot(&x.t()).dot(g))),
        };
        let curved = g.dot(&direction.t().dot(g));
        check::computed("the Hessian of the coding rate", between * self.c - curved)
    }
}

/// The log-determinant, `V diag(1 / (1 + c s^2)) V^T` of the smaller side, and `U diag(c s / (1 + c s^2)) V^T`.
fn by_singular_values<A: Real>(x: ArrayView2<'_, A>, c: A, form: Form) -> Result<(A, Array2<A>, Array2<A>)> {
    let missing = || Error::Overflow { what: "the singular vectors of X" };
    let (u, sigma, vt) = dense(x).svddc(JobSvd::Some).map_err(|e| lapack("X", e))?;
    let (u, vt) = (u.ok_or_else(missing)?, vt.ok_or_else(missing)?);
    let shrunk = |s: A| 1.0 / (1.0 + c.wide() * s.wide() * s.wide());
    let inverse: Array1<A> = sigma.mapv(|s| A::of(shrunk(s)));
    let filter: Array1<A> = sigma.mapv(|s| A::of(c.wide() * s.wide() * shrunk(s)));
    let small = match form {
        Form::Tokens => (&vt.t() * &inverse).dot(&vt),
        Form::Features => (&u * &inverse).dot(&u.t()),
    };
    Ok((log_det_of(&sigma, c), small, (&u * &filter).dot(&vt)))
}

/// A copy in row-major order. A view of a single row or column may carry a stride of 0, which LAPACK's wrapper refuses.
pub(crate) fn dense<A: Real>(x: ArrayView2<'_, A>) -> Array2<A> {
    let mut copy = Array2::zeros(x.raw_dim());
    copy.assign(&x);
    copy
}

/// Words for a refusal by LAPACK.
pub(crate) fn lapack(what: &'static str, source: ndarray_linalg::error::LinalgError) -> Error {
    Error::Lapack { what, source }
}
