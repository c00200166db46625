//! Maximal coding rate reduction with soft memberships (MCR^2), the supervised forerunner of the sparse rate reduction:
//!
//! ```text
//! Delta R(Z, Pi) = 1/2 logdet(I + alpha Z Z^T) - sum_k tr(Pi_k)/(2N) logdet(I + alpha_k Z Pi_k Z^T),   alpha_k = d / (tr(Pi_k) eps^2)
//! gradient       = E Z - sum_k (tr(Pi_k)/N) C_k Z Pi_k,   E = alpha (I + alpha Z Z^T)^{-1},  C_k = alpha_k (I + alpha_k Z Pi_k Z^T)^{-1}
//! ```
//!
//! With `X_k = Z Pi_k^{1/2}` both determinants are coding rates, so the smaller form serves here too. A class without members
//! contributes 0, the limit as `tr(Pi_k)` goes to 0; the released code adds 1e-8 to the trace instead.
//! What the released MCR^2 code calls `eps` is eps^2.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::coding_rate::half_log_det;
use crate::resolvent::Resolvent;
use crate::{Error, Form, Precision, Real, Result, check, coding_rate, coding_rate_gradient};

/// How far a token's memberships may sum from 1, in units of the number type's rounding.
const SLACK_ULPS: f64 = 1e3;

/// The diagonals of `Pi_1, ..., Pi_K`: for each token a distribution over the classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Memberships<A> {
    pi: Array2<A>,
}

impl<A: Real> Memberships<A> {
    /// From soft memberships.
    ///
    /// # Shapes
    /// `pi` is `K x N`: row k is the diagonal of `Pi_k`, column i the distribution of token i.
    ///
    /// # Errors
    /// Entries must be finite and not negative; every column must sum to 1 within rounding.
    pub fn new(pi: Array2<A>) -> Result<Self> {
        check::matrix("the memberships", pi.view())?;
        for (token, column) in pi.columns().into_iter().enumerate() {
            let sum: f64 = column.iter().map(|v| v.wide()).sum();
            let smallest = column.iter().fold(f64::INFINITY, |low, v| low.min(v.wide()));
            if smallest < 0.0 || (sum - 1.0).abs() > SLACK_ULPS * A::ULP {
                return Err(Error::Membership { token, sum, smallest });
            }
        }
        Ok(Self { pi })
    }

    /// From one label a token.
    ///
    /// # Errors
    /// There must be at least one token, and every label must be below `classes`.
    pub fn from_labels(labels: &[usize], classes: usize) -> Result<Self> {
        let mut pi = Array2::zeros((classes, labels.len()));
        for (token, &label) in labels.iter().enumerate() {
            let entry = pi.get_mut((label, token)).ok_or(Error::Label { token, label, classes })?;
            *entry = A::of(1.0);
        }
        check::matrix("the memberships", pi.view())?;
        Ok(Self { pi })
    }

    /// `K x N`.
    pub fn view(&self) -> ArrayView2<'_, A> {
        self.pi.view()
    }

    /// K, the number of classes, those without members among them.
    pub fn classes(&self) -> usize {
        self.pi.nrows()
    }

    /// N, the number of tokens.
    pub fn tokens(&self) -> usize {
        self.pi.ncols()
    }

    /// `tr(Pi_k)` of every class.
    pub(crate) fn masses(&self) -> Vec<f64> {
        self.pi.axis_iter(Axis(0)).map(|pi| pi.iter().map(|v| v.wide()).sum()).collect()
    }

    /// One value a class with members: `f(Pi_k^{1/2} / tr(Pi_k)^{1/2}, tr(Pi_k) / N)`.
    ///
    /// The trace is moved from alpha_k into the weights, so that a class of next to no mass does not overflow.
    fn per_class<T, F>(&self, f: F) -> Result<Vec<T>>
    where
        T: Send,
        F: Fn(Array1<A>, A) -> Result<T> + Sync,
    {
        let n = self.pi.ncols() as f64;
        self.pi
            .axis_iter(Axis(0))
            .into_par_iter()
            .filter_map(|pi| {
                let mass: f64 = pi.iter().map(|v| v.wide()).sum();
                (mass > 0.0).then(|| f(pi.mapv(|v| A::of((v.wide() / mass).sqrt())), A::of(mass / n)))
            })
            .collect()
    }
}

/// `Delta R(Z, Pi)` as its two terms, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mcr2<A> {
    /// The rate of all tokens together.
    pub expansion: A,
    /// The weighted rates of the classes.
    pub compression: A,
}

impl<A: Real> Mcr2<A> {
    /// `Delta R(Z, Pi)`; larger is better, and never negative but for rounding.
    pub fn value(&self) -> A {
        self.expansion - self.compression
    }
}

/// The rate reduction of tokens under memberships.
///
/// # Shapes
/// `z` is `d x N`; `memberships` holds N tokens.
///
/// # Errors
/// `z` must be finite, not empty, and have as many columns as there are memberships.
pub fn mcr2<A: Real>(z: ArrayView2<'_, A>, memberships: &Memberships<A>, precision: Precision) -> Result<Mcr2<A>> {
    admit(z, memberships)?;
    let form = Form::smaller(z.nrows(), z.ncols());
    let scale = precision.alpha(z.nrows(), 1)?;
    let terms: Vec<A> =
        memberships.per_class(|weights, share| Ok(half_log_det((&z * &weights).view(), scale, form)? * share))?;
    Ok(Mcr2 { expansion: coding_rate(z, precision)?, compression: terms.into_iter().sum() })
}

/// The gradient of [`mcr2`]'s value with respect to the tokens.
///
/// # Shapes
/// `z` and the result are `d x N`.
///
/// # Errors
/// As for [`mcr2`].
pub fn mcr2_gradient<A: Real>(
    z: ArrayView2<'_, A>,
    memberships: &Memberships<A>,
    precision: Precision,
) -> Result<Array2<A>> {
    admit(z, memberships)?;
    let scale = check::rounded("d / eps^2", precision.alpha(z.nrows(), 1)?)?;
    let terms = memberships.per_class(|weights, share| {
        let gradient = Resolvent::new((&z * &weights).view(), scale)?.into_gradient()?;
        Ok(gradient * &weights * share)
    })?;
    let expansion = coding_rate_gradient(z, precision)?;
    Ok(terms.iter().fold(expansion, |sum, term| sum - term))
}

fn admit<A: Real>(z: ArrayView2<'_, A>, memberships: &Memberships<A>) -> Result<()> {
    check::matrix("Z", z)?;
    check::shape("the memberships", memberships.pi.shape(), &[memberships.pi.nrows(), z.ncols()])
}
