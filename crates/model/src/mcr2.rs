//! Maximal coding rate reduction (MCR^2) as a loss: features of a class lie in few directions, those of all classes together in many.
//!
//! Features as rows, `Z` of size `N x d`, memberships `Pi` of size `N x K`, `m_k = sum_i Pi_ik`:
//!
//! ```text
//! R         = 1/2 logdet(I + d/(N eps^2) Z^T Z)
//! R(Pi)     = sum_k m_k/(2N) logdet(I + d/(m_k eps^2) Z^T diag(Pi_k) Z)
//! Delta R   = R - R(Pi),   the loss is  -(gamma_1 R - gamma_2 R(Pi))
//! ```
//!
//! What the released MCR^2 code calls `eps` is eps^2, its `gam1` multiplies alpha and its `gam2` the rate; both are 1 here and in its supervised run. A class without
//! members contributes nothing; the released code adds 1e-8 to its mass. Features are to be of unit norm, or the loss is won by growing: [`unit_rows`].
//! The oracle is `rate_reduction::mcr2`.

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// The two terms of `Delta R`, scalars in nats that hang in the autograd graph.
#[derive(Debug)]
pub struct Mcr2 {
    /// R, the rate of all features together.
    pub expansion: Tensor,
    /// R(Pi), the weighted rates of the classes.
    pub compression: Tensor,
}

impl Mcr2 {
    /// `-(R - R(Pi))`, to be minimised.
    pub fn loss(&self) -> Tensor {
        &self.compression - &self.expansion
    }
}

/// The rate reduction of features under memberships. Computed in the kind of the features, at least float32.
///
/// # Shapes
/// `features`: `[N, d]`, `memberships`: `[N, K]`, rows that sum to 1 (`one_hot` of labels, or a softmax); the results are scalars.
///
/// # Errors
/// Shapes that do not fit each other, no features, a precision that is not above zero, or features that are not finite.
pub fn mcr2(features: &Tensor, memberships: &Tensor, eps_squared: f64) -> Result<Mcr2> {
    let (n, d) = features.size2()?;
    if n == 0 || d == 0 || memberships.dim() != 2 || memberships.size()[0] != n {
        return Err(Error::Input {
            found: format!("features [{n}, {d}] with memberships {:?}", memberships.size()),
            expected: format!("memberships [{n}, classes], and at least one feature"),
        });
    }
    if !(eps_squared > 0.0 && eps_squared.is_finite()) {
        return Err(Error::Input { found: format!("eps^2 = {eps_squared}"), expected: "a number above 0".into() });
    }
    let kind = if features.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let (z, pi) = (features.f_to_kind(kind)?, memberships.f_to_kind(kind)?);
    let scale = d as f64 / eps_squared;
    let eye = |size: i64| Tensor::f_eye(size, (kind, z.device()));
    // The smaller of Z^T Z and Z Z^T: their determinants are the same.
    let gram = if d <= n { z.f_tr()?.f_matmul(&z)? } else { z.f_matmul(&z.f_tr()?)? };
    let all = gram.f_mul_scalar(scale / n as f64)?.f_add(&eye(d.min(n))?)?;
    let mass = pi.f_sum_dim_intlist([0i64].as_slice(), false, None)?; // k
    // A class without members: 0 log det I, whatever the divisor.
    let divisor = mass.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
    let weighted = z.f_unsqueeze(0)?.f_mul(&pi.f_tr()?.f_div(&divisor.f_unsqueeze(1)?)?.f_unsqueeze(2)?)?; // k n d
    let by_class = weighted.f_transpose(1, 2)?.f_matmul(&z)?; // k d d
    let classes = by_class.f_mul_scalar(scale)?.f_add(&eye(d)?)?;
    let compression = half_log_det(&classes)?.f_mul(&mass)?.f_sum(kind)?.f_div_scalar(n as f64)?;
    Ok(Mcr2 { expansion: half_log_det(&all)?, compression })
}

/// Rows scaled to norm 1; a row of zeros stays one.
///
/// # Errors
/// What libtorch refuses.
pub fn unit_rows(features: &Tensor) -> Result<Tensor> {
    let norm = features.f_norm_scalaropt_dim(2, [-1i64].as_slice(), true)?.f_clamp_min(1e-12)?;
    Ok(features.f_div(&norm)?)
}

/// `1/2 logdet` of symmetric positive definite matrices by their Cholesky factors.
fn half_log_det(matrices: &Tensor) -> Result<Tensor> {
    let factor = matrices.f_linalg_cholesky(false).map_err(|_| Error::Input {
        found: "features whose I + Z^T Z has no Cholesky factor".into(),
        expected: "finite ones of about unit norm".into(),
    })?;
    Ok(factor.f_diagonal(0, -2, -1)?.f_log()?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?)
}
