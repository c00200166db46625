//! What the papers claim of these formulas, as functions that can be run: denoising, scores, signal-to-noise, optima.
//!
//! | module | claim | where it is made |
//! |---|---|---|
//! | [`mixture`], [`sampling`] | the score of a noisy mixture of low-dimensional Gaussians, and its small-noise form | NIPS section 2.2, Proposition 1, eq 6 |
//! | [`denoising`] | a step down the compression rate denoises, and so does each approximation on the way to attention | NIPS section 2.2, Appendix A |
//! | [`flow`] | many small denoising steps lead from pure noise to the mixture, and back | NIPS figure 2; JMLR on encoder and decoder |
//! | [`score_relation`] | the gradient of R^c takes away noise faster than signal | JMLR Theorem 6 |
//! | [`attention_only`] | attention alone multiplies the signal-to-noise ratio by a known factor in every layer | book, attention-only transformer |
//! | [`redunet`] | layers built forward from data bring three clusters on the sphere to right angles, and new samples with them | book ch. 4; JMLR figure 1 |
//! | [`invariance`] | built from signals with all their shifts, the layers are convolutions, and moved signals have moved features | book ch. 4 |
//! | [`ascent`], [`optima`], [`configurations`] | what maximises the objective is compressed, linearised and sparse | NIPS section 2.1, JMLR figures 3 and 5, book on MCR^2 |
//!
//! They call the formulas of this crate and hold none of them twice. Random numbers come from a generator that the
//! caller gives, so that a result can be had again.

pub mod ascent;
pub mod attention_only;
pub mod configurations;
pub mod denoising;
pub mod flow;
pub mod invariance;
pub mod mixture;
pub mod optima;
pub mod redunet;
pub mod sampling;
pub mod score_relation;

use ndarray::ArrayView2;

use crate::Real;

/// `||A||_F^2`, summed in f64.
pub(crate) fn energy<A: Real>(a: ArrayView2<'_, A>) -> f64 {
    a.iter().map(|v| v.wide() * v.wide()).sum()
}

/// `<A, B>`, summed in f64.
pub(crate) fn inner<A: Real>(a: ArrayView2<'_, A>, b: ArrayView2<'_, A>) -> f64 {
    a.iter().zip(&b).map(|(a, b)| a.wide() * b.wide()).sum()
}
