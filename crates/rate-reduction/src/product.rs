//! Matrix products as the rates need them: large ones spread over threads by rows, Gram matrices by their lower triangle only.
//!
//! Every row of a result is summed in the same order however the rows are dealt out, so results don't depend on the number of
//! threads: pieces begin at multiples of [`GRAIN`], which the tiles of the product's kernel divide.

use ndarray::linalg::general_mat_mul;
use ndarray::parallel::prelude::*;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

use crate::{Real, Result};

/// Rows of a piece are a multiple of this.
const GRAIN: usize = 64;

/// Multiply-adds of a piece that is worth handing to another thread: some 100 us of work.
const WORTH_A_THREAD: usize = 1 << 21;

/// Width of a Gram matrix's block rows, at most. Wider ones compute more above the diagonal, narrower ones copy more.
const BLOCK_ROWS: usize = 48;

/// `c a b`.
pub(crate) fn product<A: Real>(c: A, a: ArrayView2<'_, A>, b: ArrayView2<'_, A>) -> Array2<A> {
    let mut out = Array2::zeros((a.nrows(), b.ncols()));
    let pieces = (a.len() * b.ncols() / WORTH_A_THREAD).min(2 * rayon::current_num_threads());
    if pieces < 2 || rayon::current_num_threads() == 1 {
        general_mat_mul(c, &a, &b, A::of(0.0), &mut out);
        return out;
    }
    let rows = a.nrows().div_ceil(pieces).next_multiple_of(GRAIN);
    out.axis_chunks_iter_mut(Axis(0), rows)
        .into_par_iter()
        .zip(a.axis_chunks_iter(Axis(0), rows).into_par_iter())
        .for_each(|(mut out, a)| general_mat_mul(c, &a, &b, A::of(0.0), &mut out));
    out
}

/// `f` of each block of rows, in order; on several threads where there are several.
pub(crate) fn per_block<A: Real, T: Send>(
    x: &mut Array2<A>,
    rows: usize,
    f: impl Fn(ArrayViewMut2<'_, A>) -> Result<T> + Sync + Send,
) -> Result<Vec<T>> {
    let blocks = x.axis_chunks_iter_mut(Axis(0), rows);
    if rayon::current_num_threads() > 1 {
        blocks.into_par_iter().map(f).collect()
    } else {
        // With one thread there is nobody to hand the blocks to, and a change of threads costs more than a small block.
        blocks.map(f).collect()
    }
}

/// The lower triangle of `c a a^T`; above the diagonal it holds part of the upper one and zeros.
pub(crate) fn gram<A: Real>(c: A, a: ArrayView2<'_, A>) -> Array2<A> {
    let n = a.nrows();
    let mut out = Array2::zeros((n, n));
    let rows = n.div_ceil(n.div_ceil(BLOCK_ROWS)).next_multiple_of(8);
    let block = |k: usize, mut out: ArrayViewMut2<'_, A>| {
        let (start, end) = (k * rows, k * rows + out.nrows());
        let mut lower = out.slice_mut(s![.., ..end]);
        general_mat_mul(c, &a.slice(s![start..end, ..]), &a.slice(s![..end, ..]).t(), A::of(0.0), &mut lower);
    };
    if rayon::current_num_threads() > 1 && n * a.len() / 2 > WORTH_A_THREAD {
        // The longest rows first, so that no thread is left with one of them at the end.
        let blocks: Vec<_> = out.axis_chunks_iter_mut(Axis(0), rows).enumerate().collect();
        blocks.into_par_iter().rev().with_max_len(1).for_each(|(k, out)| block(k, out));
    } else {
        out.axis_chunks_iter_mut(Axis(0), rows).enumerate().for_each(|(k, out)| block(k, out));
    }
    out
}
