//! One layer of a ReduNet: its operators from the training tokens, and the step that it takes with any tokens.
//!
//! ```text
//! E = alpha (I + alpha Z Z^T)^{-1}        C_k = alpha_k (I + alpha_k Z Pi_k Z^T)^{-1}
//! pi_hat(z) = softmax_k(-lambda ||C_k z||)
//! z <- P_sphere( z + eta ( E z - sum_k gamma_k pi_hat_k(z) C_k z ) )
//! ```

use ndarray::parallel::prelude::*;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, s};

use super::split::{Operator, Split};
use crate::{Error, Mcr2, Memberships, Precision, Real, Result, check, unit_norm};

/// Numbers that the products `C_k z` of one piece of the tokens may fill: some 32 MB in f64.
const PIECE: usize = 1 << 22;

/// E and C_k, block by block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layer<A> {
    pub(crate) expand: Vec<Operator<A>>,
    pub(crate) compress: Vec<Vec<Operator<A>>>,
}

/// What is the same in every layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step<A> {
    pub(crate) eta: f64,
    pub(crate) lambda: f64,
    /// `gamma_k = tr(Pi_k) / N`.
    pub(crate) shares: Vec<A>,
}

/// The operators of one group of tokens, all of weight `weights^2`, and its rate: `c = d / eps^2`.
fn group<A: Real>(
    split: &Split,
    z: ArrayView2<'_, A>,
    weights: &Array1<A>,
    mass: f64,
    c: f64,
) -> Result<(Vec<Operator<A>>, A)> {
    // The shifts multiply sum z z^T and the number of tokens alike: they remain in the factor before the inverse alone.
    let a = c / (mass * split.copies() as f64);
    let parts: Vec<_> = split
        .blocks()
        .into_par_iter()
        .map(|block| Operator::new(*block, z.slice(s![block.rows(), ..]), weights, c, a))
        .collect::<Result<_>>()?;
    let rate = check::computed_scalar("the coding rate", parts.iter().map(|(_, rate)| *rate).sum())?;
    Ok((parts.into_iter().map(|(operator, _)| operator).collect(), rate))
}

impl<A: Real> Layer<A> {
    /// The operators of unit tokens, and the objective at them.
    pub(crate) fn new(
        split: &Split,
        z: ArrayView2<'_, A>,
        memberships: &Memberships<A>,
        precision: Precision,
    ) -> Result<(Self, Mcr2<A>)> {
        let n = z.ncols() as f64;
        let c = precision.alpha(split.dim(), 1)?;
        let all = Array1::from_elem(z.ncols(), A::of(n.recip().sqrt()));
        let (expand, expansion) = group(split, z, &all, n, c)?;
        let (mut compress, mut compression) = (Vec::new(), 0.0);
        for (mass, pi) in memberships.masses().into_iter().zip(memberships.view().axis_iter(Axis(0))) {
            if mass <= 0.0 {
                return Err(Error::Empty { what: "a class", rows: z.nrows(), columns: 0 });
            }
            let weights = pi.mapv(|v| A::of((v.wide() / mass).sqrt()));
            let (operators, rate) = group(split, z, &weights, mass, c)?;
            compress.push(operators);
            compression += rate.wide() * mass / n;
        }
        let compression = check::rounded("R^c", compression)?;
        Ok((Self { expand, compress }, Mcr2 { expansion, compression }))
    }

    /// `E z` of tokens.
    pub(crate) fn expanded(&self, z: ArrayView2<'_, A>) -> Array2<A> {
        applied(&self.expand, z)
    }

    /// `C_k z` of tokens, for a class that there is.
    pub(crate) fn compressed(&self, class: usize, z: ArrayView2<'_, A>) -> Array2<A> {
        applied(&self.compress[class], z)
    }

    /// The tokens after the layer, and the memberships (`K x N`) that it used: the known ones, or its own estimate.
    pub(crate) fn step(
        &self,
        z: ArrayView2<'_, A>,
        step: &Step<A>,
        known: Option<ArrayView2<'_, A>>,
    ) -> Result<(Array2<A>, Array2<A>)> {
        let classes = self.compress.len();
        let mut next = Array2::zeros(z.raw_dim());
        let mut used = known.map_or_else(|| Array2::zeros((classes, z.ncols())), |pi| pi.to_owned());
        let width = (PIECE / (z.nrows() * classes).max(1)).max(1);
        z.axis_chunks_iter(Axis(1), width)
            .into_par_iter()
            .zip(next.axis_chunks_iter_mut(Axis(1), width))
            .zip(used.axis_chunks_iter_mut(Axis(1), width))
            .for_each(|((z, next), pi)| self.step_of_piece(z, step, known.is_none(), next, pi));
        Ok((unit_norm(check::computed("a layer's step", next)?.view())?, used))
    }

    fn step_of_piece(
        &self,
        z: ArrayView2<'_, A>,
        step: &Step<A>,
        estimate: bool,
        mut next: ArrayViewMut2<'_, A>,
        mut pi: ArrayViewMut2<'_, A>,
    ) {
        let compressed: Vec<Array2<A>> = self.compress.iter().map(|operators| applied(operators, z)).collect();
        if estimate {
            memberships_of(&compressed, step.lambda, pi.view_mut());
        }
        next.assign(&self.expanded(z));
        for ((c, pi), &share) in compressed.iter().zip(pi.axis_iter(Axis(0))).zip(&step.shares) {
            next.scaled_add(A::of(-1.0), &(c * &pi.mapv(|pi| pi * share)));
        }
        let eta = A::of(step.eta);
        next.zip_mut_with(&z, |moved, &z| *moved = z + eta * *moved);
    }
}

fn applied<A: Real>(operators: &[Operator<A>], z: ArrayView2<'_, A>) -> Array2<A> {
    let mut out = Array2::zeros(z.raw_dim());
    for operator in operators {
        let rows = operator.block().rows();
        operator.apply(z.slice(s![rows.clone(), ..]), out.slice_mut(s![rows, ..]));
    }
    out
}

/// `softmax_k(-lambda ||C_k z||)` of every token, from its products `C_k z`.
fn memberships_of<A: Real>(compressed: &[Array2<A>], lambda: f64, mut pi: ArrayViewMut2<'_, A>) {
    for (c, mut pi) in compressed.iter().zip(pi.axis_iter_mut(Axis(0))) {
        // Row by row, as the rows are contiguous.
        let mut squares = vec![0.0; pi.len()];
        for row in c.rows() {
            squares.iter_mut().zip(row).for_each(|(sum, v)| *sum += v.wide() * v.wide());
        }
        pi.iter_mut().zip(squares).for_each(|(pi, square)| *pi = A::of(-lambda * square.sqrt()));
    }
    for mut token in pi.axis_iter_mut(Axis(1)) {
        let largest = token.iter().fold(f64::NEG_INFINITY, |top, v| top.max(v.wide()));
        let sum: f64 = token.iter().map(|v| (v.wide() - largest).exp()).sum();
        token.mapv_inplace(|v| A::of((v.wide() - largest).exp() / sum));
    }
}
