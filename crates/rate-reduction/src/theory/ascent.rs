//! Gradient ascent on the objectives of this crate, to see where their maxima are.
//!
//! ```text
//! J(Z) = Delta R(Z) - lambda ||Z||_1        tokens of unit length:  Z <- unit(soft(Z + t grad Delta R, t lambda))
//! J(Z) = Delta R(Z) - lambda/2 ||Z||_F^2    free tokens:            Z <- Z + t (grad Delta R - lambda Z)
//! ```
//!
//! `soft` is the proximal step of the l1 norm, which reaches exact zeros, and `unit` scales every token back to length
//! 1; what both leave alone is a stationary point of J on the spheres. A step is taken only where it raises J: it is
//! halved until it does and then grows again, so that the values never fall and no step size has to be chosen.
//!
//! Delta R comes in two forms. With a codebook it is NIPS eq 8, whose subspaces are given from outside: by training, in
//! a network. With memberships it is that of MCR^2, whose subspaces are the tokens' own. The difference matters for
//! what can be a maximum. R^c of eq 7 charges a token in *every* subspace, its own like any other: with fixed bases
//! that span less than the space tokens move to the directions outside, which cost nothing, and with bases that span
//! it, Delta R is largest where all directions are equally full, whether or not a token lies in one subspace. If the
//! bases were free too, the best ones would be those that no token meets. The papers' picture, subspaces that are far
//! apart and each of low dimension, is the maximum where it is known which tokens belong together, and that is what
//! memberships say.

use ndarray::{Array2, ArrayView2, Axis};

use super::energy;
use crate::objective::l1_norm;
use crate::{
    Codebook, Memberships, Precision, Real, Result, check, mcr2, mcr2_gradient, rate_reduction,
    rate_reduction_gradient, unit_norm,
};

/// How often a step is halved before the point counts as a maximum.
const HALVINGS: usize = 40;

/// A gain below this share of the value, over a hundred steps, ends the ascent.
const GAIN: f64 = 1e-9;

/// What Delta R is counted against.
#[derive(Debug, Clone, Copy)]
pub enum Coding<'a, A> {
    /// Fixed subspaces: `R - R^c` of NIPS eqs 7 and 8.
    Codebook(&'a Codebook<A>),
    /// Known memberships: MCR^2.
    Memberships(&'a Memberships<A>),
}

impl<A: Real> Coding<'_, A> {
    /// Delta R, in nats.
    ///
    /// # Errors
    /// As for [`rate_reduction`] and [`mcr2`].
    pub fn value(&self, z: ArrayView2<'_, A>, precision: Precision) -> Result<f64> {
        Ok(match self {
            Self::Codebook(u) => rate_reduction(z, u, precision)?.wide(),
            Self::Memberships(pi) => mcr2(z, pi, precision)?.value().wide(),
        })
    }

    fn gradient(&self, z: ArrayView2<'_, A>, precision: Precision) -> Result<Array2<A>> {
        match self {
            Self::Codebook(u) => rate_reduction_gradient(z, u, precision),
            Self::Memberships(pi) => mcr2_gradient(z, pi, precision),
        }
    }
}

/// What keeps the tokens from growing without end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Penalty {
    /// Unit length, and `lambda ||Z||_1`; lambda may be 0.
    UnitL1(f64),
    /// `lambda/2 ||Z||_F^2` on free tokens.
    Frobenius(f64),
}

/// Where an ascent ended, and how it got there.
#[derive(Debug, Clone, PartialEq)]
pub struct Ascent<A> {
    /// `d x N`.
    pub z: Array2<A>,
    /// J before the first step and after each: never falling.
    pub values: Vec<f64>,
}

/// Ascends J from some tokens for at most `steps` steps. `seen` is told how many are done.
///
/// # Shapes
/// `start` and the result are `d x N`.
///
/// # Errors
/// `start` must be finite, not empty, without a zero token where tokens have unit length, and fit the codebook or the
/// memberships; lambda must be finite and not negative.
pub fn ascend<A: Real>(
    start: ArrayView2<'_, A>,
    coding: Coding<'_, A>,
    precision: Precision,
    penalty: Penalty,
    steps: usize,
    mut seen: impl FnMut(usize),
) -> Result<Ascent<A>> {
    let (Penalty::UnitL1(lambda) | Penalty::Frobenius(lambda)) = penalty;
    check::non_negative("lambda", lambda)?;
    let value = |z: ArrayView2<'_, A>| -> Result<f64> {
        let held = match penalty {
            Penalty::UnitL1(lambda) => lambda * l1_norm(z),
            Penalty::Frobenius(lambda) => 0.5 * lambda * energy(z),
        };
        check::computed_scalar("the objective", coding.value(z, precision)? - held)
    };
    let mut z = match penalty {
        Penalty::UnitL1(_) => unit_norm(start)?,
        Penalty::Frobenius(_) => start.to_owned(),
    };
    let mut values = vec![value(z.view())?];
    // The curvature of R is below 9 alpha / 4 (NIPS Lemma 6): a step that is safe at the start.
    let mut size = 4.0 / (9.0 * precision.alpha(z.nrows(), z.ncols())?);
    for step in 0..steps {
        let gradient = coding.gradient(z.view(), precision)?;
        let now = values[step];
        let mut next = None;
        for _ in 0..HALVINGS {
            let tried = moved(&z, &gradient, penalty, size);
            if let Some(tried) = tried {
                let reached = value(tried.view())?;
                if reached > now {
                    next = Some((tried, reached));
                    break;
                }
            }
            size *= 0.5;
        }
        let Some((tried, reached)) = next else { break };
        z = tried;
        values.push(reached);
        size *= 1.3;
        seen(step + 1);
        if step >= 100 && reached - values[step - 99] < GAIN * reached.abs() {
            break;
        }
    }
    Ok(Ascent { z, values })
}

/// The tokens after a step of a size; none where a token would vanish or leave the number range.
fn moved<A: Real>(z: &Array2<A>, gradient: &Array2<A>, penalty: Penalty, size: f64) -> Option<Array2<A>> {
    let mut tried = z + gradient * A::of(size);
    match penalty {
        Penalty::Frobenius(lambda) => tried.zip_mut_with(z, |t, z| *t = A::of(t.wide() - size * lambda * z.wide())),
        Penalty::UnitL1(lambda) => {
            let soft = |v: f64| v.signum() * (v.abs() - size * lambda).max(0.0);
            for mut token in tried.axis_iter_mut(Axis(1)) {
                token.mapv_inplace(|v| A::of(soft(v.wide())));
                let length = token.iter().map(|v| v.wide().powi(2)).sum::<f64>().sqrt();
                token.mapv_inplace(|v| A::of(v.wide() / length));
            }
        }
    }
    check::computed("the step", tried).ok()
}
