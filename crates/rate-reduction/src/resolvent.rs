//! The one matrix behind every rate, `I + c X^T X`: its log-determinant, and its inverse applied to X.
//!
//! Sylvester's identity `det(I_N + c X^T X) = det(I_d + c X X^T)` and the push-through identity
//! `X (I_N + c X^T X)^{-1} = (I_d + c X X^T)^{-1} X` let the smaller of the two forms serve.
//!
//! The smallest eigenvalue is 1, so a Cholesky factorisation is safe as long as the rounding of `c X^T X` stays far below 1. Beyond that
//! (f32 with a small eps, or a huge X) the 1 would drown, and a rank-deficient X would give noise for what should be `ln 1 = 0`; the
//! singular values of X itself keep those digits and are taken instead.

use ndarray::{Array1, Array2, ArrayView2};
use ndarray_linalg::{DeterminantC, FactorizeCInto, InverseCInto, JobSvd, SVD, SVDDC, UPLO};

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

/// `I + c X^T X`, or none where rounding would drown the identity.
fn shifted<A: Real>(x: ArrayView2<'_, A>, c: A, form: Form) -> Result<Option<Array2<A>>> {
    let gram = match form {
        Form::Tokens => x.t().dot(&x),
        Form::Features => x.dot(&x.t()),
    };
    let mut shifted = check::computed("I + c X^T X", gram * c)?;
    let largest = shifted.diag().iter().fold(0.0, |top: f64, v| top.max(v.wide()));
    if largest * A::ULP * (shifted.nrows() as f64).sqrt() > DROWNED {
        return Ok(None);
    }
    shifted.diag_mut().mapv_inplace(|v| v + A::of(1.0));
    Ok(Some(shifted))
}

/// `logdet(I + c X^T X)` for a checked X and `c >= 0`.
pub(crate) fn log_det<A: Real>(x: ArrayView2<'_, A>, c: A, form: Form) -> Result<A> {
    let log_det = match shifted(x, c, form)? {
        Some(m) => m.factorizec_into(UPLO::Lower).map_err(|e| lapack("I + c X^T X", e))?.ln_detc(),
        None => {
            let (_, sigma, _) = dense(x).svd(false, false).map_err(|e| lapack("X", e))?;
            A::of(sigma.iter().map(|s| (c.wide() * s.wide() * s.wide()).ln_1p()).sum())
        }
    };
    check::computed_scalar("logdet(I + c X^T X)", log_det)
}

/// The inverse of the smaller form, and `B = X (I + c X^T X)^{-1}`.
pub(crate) struct Resolvent<A> {
    c: A,
    form: Form,
    /// `(I_N + c X^T X)^{-1}` or `(I_d + c X X^T)^{-1}`, by `form`.
    inverse: Array2<A>,
    /// B, of X's shape.
    filtered: Array2<A>,
}

impl<A: Real> Resolvent<A> {
    /// For a checked X and `c >= 0`.
    pub(crate) fn new(x: ArrayView2<'_, A>, c: A) -> Result<Self> {
        let form = Form::smaller(x.nrows(), x.ncols());
        let (inverse, filtered) = match shifted(x, c, form)? {
            Some(m) => {
                let factor = m.factorizec_into(UPLO::Lower).map_err(|e| lapack("I + c X^T X", e))?;
                let inverse = factor.invc_into().map_err(|e| lapack("I + c X^T X", e))?;
                let filtered = match form {
                    Form::Tokens => x.dot(&inverse),
                    Form::Features => inverse.dot(&x),
                };
                (inverse, filtered)
            }
            None => by_singular_values(x, c, form)?,
        };
        Ok(Self { c, form, inverse, filtered })
    }

    /// `c B`: the gradient of `1/2 logdet(I + c X^T X)`.
    pub(crate) fn gradient(&self) -> Result<Array2<A>> {
        check::computed("the gradient of the coding rate", &self.filtered * self.c)
    }

    /// The Hessian of `1/2 logdet(I + c X^T X)` applied to a direction.
    ///
    /// With `M = (I_N + c X^T X)^{-1}` and `M' = (I_d + c X X^T)^{-1} = I - c B X^T`, NIPS Lemma 5 becomes
    /// `c D M - c^2 X M (X^T D + D^T X) M = c M' D M - c^2 B D^T B`, which needs one inverse and cancels less.
    pub(crate) fn hessian(&self, x: ArrayView2<'_, A>, direction: ArrayView2<'_, A>) -> Result<Array2<A>> {
        let (c, b) = (self.c, &self.filtered);
        let between = match self.form {
            Form::Tokens => (&direction - b.dot(&x.t().dot(&direction)) * c).dot(&self.inverse),
            Form::Features => self.inverse.dot(&(&direction - direction.dot(&x.t()).dot(b) * c)),
        };
        let curved = b.dot(&direction.t().dot(b)) * c;
        check::computed("the Hessian of the coding rate", (between - curved) * c)
    }
}

/// `V diag(1 / (1 + c s^2)) V^T` of the smaller side, and `U diag(s / (1 + c s^2)) V^T`.
fn by_singular_values<A: Real>(x: ArrayView2<'_, A>, c: A, form: Form) -> Result<(Array2<A>, Array2<A>)> {
    let missing = || Error::Overflow { what: "the singular vectors of X" };
    let (u, sigma, vt) = dense(x).svddc(JobSvd::Some).map_err(|e| lapack("X", e))?;
    let (u, vt) = (u.ok_or_else(missing)?, vt.ok_or_else(missing)?);
    let shrunk = |s: A| 1.0 / (1.0 + c.wide() * s.wide() * s.wide());
    let inverse: Array1<A> = sigma.mapv(|s| A::of(shrunk(s)));
    let filter: Array1<A> = sigma.mapv(|s| A::of(s.wide() * shrunk(s)));
    let small = match form {
        Form::Tokens => (&vt.t() * &inverse).dot(&vt),
        Form::Features => (&u * &inverse).dot(&u.t()),
    };
    Ok((small, (&u * &filter).dot(&vt)))
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
