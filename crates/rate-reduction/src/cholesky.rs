//! Cholesky's factor of a symmetric positive definite matrix, its log-determinant and its inverse, by blocks.
//!
//! Nearly all arithmetic is in matrix products, which run at the same speed for small blocks as for large matrices; a LAPACK
//! spends its time in narrow panels at these sizes (N = 197, p = 64), and its threads get in the way of rayon's.
//!
//! Factor, block column j, where `W_j = L_jj^{-1}`:
//!
//! ```text
//! L_jj L_jj^T = M_jj - sum_{k<j} L_jk L_jk^T        L_ij = (M_ij - sum_{k<j} L_ik L_jk^T) W_j^T,  i > j
//! ```
//!
//! Inverse X, from `X L = L^{-T}`, which is 0 below its diagonal; the last block column first, with `P = L_{>j,j} W_j`:
//!
//! ```text
//! X_{>j,j} = -X_{>j,>j} P        X_jj = W_j^T W_j - P^T X_{>j,j}
//! ```

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayViewMut2, Axis, s};

use crate::{Real, product};

/// Columns of a block.
const BLOCK: usize = 16;

/// The factor L, and the inverses of the blocks on its diagonal.
pub(crate) struct Cholesky<A> {
    /// L in the lower triangle; what is above the blocks on the diagonal is not read.
    lower: Array2<A>,
    /// `W_j`, lower triangular.
    inverses: Vec<Array2<A>>,
}

impl<A: Real> Cholesky<A> {
    /// Of a square matrix, of which the lower triangle is read; none where a pivot is not positive.
    pub(crate) fn new(mut m: Array2<A>) -> Option<Self> {
        let n = m.nrows();
        let mut inverses = Vec::with_capacity(n.div_ceil(BLOCK));
        for j in (0..n).step_by(BLOCK) {
            let end = (j + BLOCK).min(n);
            let (done, mut open) = m.slice_mut(s![j.., ..end]).split_at(Axis(1), j);
            if j > 0 {
                general_mat_mul(A::of(-1.0), &done, &done.slice(s![..end - j, ..]).t(), A::of(1.0), &mut open);
            }
            let (diagonal, mut below) = open.split_at(Axis(0), end - j);
            let inverse = factorise(diagonal)?;
            let column = below.dot(&inverse.t());
            below.assign(&column);
            inverses.push(inverse);
        }
        Some(Self { lower: m, inverses })
    }

    /// `logdet M`.
    pub(crate) fn log_det(&self) -> A {
        A::of(self.lower.diag().iter().map(|l| 2.0 * l.wide().ln()).sum())
    }

    /// `M^{-1}`, both triangles.
    pub(crate) fn inverse(&self) -> Array2<A> {
        let n = self.lower.nrows();
        let mut x = Array2::zeros((n, n));
        for (k, inverse) in self.inverses.iter().enumerate().rev() {
            let (j, end) = (k * BLOCK, (k * BLOCK + BLOCK).min(n));
            let mut corner = inverse.t().dot(inverse);
            if end < n {
                let p = self.lower.slice(s![end.., j..end]).dot(inverse);
                let below = product::product(A::of(-1.0), x.slice(s![end.., end..]), p.view());
                general_mat_mul(A::of(-1.0), &p.t(), &below, A::of(1.0), &mut corner);
                x.slice_mut(s![j..end, end..]).assign(&below.t());
                x.slice_mut(s![end.., j..end]).assign(&below);
            }
            x.slice_mut(s![j..end, j..end]).assign(&corner);
        }
        x
    }
}

/// Replaces the lower triangle of a small matrix by its factor L and gives `L^{-1}`; none where a pivot is not positive.
fn factorise<A: Real>(mut m: ArrayViewMut2<'_, A>) -> Option<Array2<A>> {
    let n = m.nrows();
    // Rows of one array of known width: the inner loops run over contiguous numbers without a check of bounds at each.
    let mut l = vec![[A::of(0.0); BLOCK]; n];
    for (row, source) in l.iter_mut().zip(m.rows()) {
        for (x, &v) in row.iter_mut().zip(source) {
            *x = v;
        }
    }
    for k in 0..n {
        let pivot = l[k][k];
        if pivot.partial_cmp(&A::of(0.0)) != Some(std::cmp::Ordering::Greater) {
            return None;
        }
        let root = ndarray_linalg::Scalar::sqrt(pivot);
        l[k][k] = root;
        let mut column = [A::of(0.0); BLOCK];
        for i in k + 1..n {
            l[i][k] /= root;
            column[i] = l[i][k];
        }
        for i in k + 1..n {
            let factor = column[i];
            for (x, &c) in l[i][k + 1..=i].iter_mut().zip(&column[k + 1..=i]) {
                *x -= factor * c;
            }
        }
    }
    // Row i of L^{-1} is (e_i - sum_{k<i} L_ik row_k) / L_ii.
    let mut inverse = Array2::zeros((n, n));
    let mut rows = vec![[A::of(0.0); BLOCK]; n];
    for i in 0..n {
        let (before, from) = rows.split_at_mut(i);
        let row = &mut from[0];
        for (k, earlier) in before.iter().enumerate() {
            let factor = l[i][k];
            for (x, &v) in row[..=k].iter_mut().zip(&earlier[..=k]) {
                *x -= factor * v;
            }
        }
        row[i] = A::of(1.0);
        for x in &mut row[..=i] {
            *x /= l[i][i];
        }
    }
    for (i, (mut to, row)) in inverse.rows_mut().into_iter().zip(&rows).enumerate() {
        to.iter_mut().zip(&row[..=i]).for_each(|(to, &x)| *to = x);
    }
    for (i, (mut to, row)) in m.rows_mut().into_iter().zip(&l).enumerate() {
        to.iter_mut().zip(&row[..=i]).for_each(|(to, &x)| *to = x);
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `I + c X X^T` with entries that follow no pattern.
    fn sample(n: usize, rank: usize) -> Array2<f64> {
        let x = Array2::from_shape_fn((n, rank), |(i, j)| f64::sin(((1 + i * rank + j) * (1 + i * rank + j)) as f64));
        Array2::eye(n) + x.dot(&x.t()) * 3.0
    }

    #[test]
    fn factor_and_inverse_are_what_they_say_at_every_block_size() {
        for n in [1, 2, 31, 32, 33, 64, 65, 97, 197] {
            for rank in [1, n / 2 + 1, n + 3] {
                let m = sample(n, rank);
                let factor = Cholesky::new(m.clone()).unwrap();
                let lower = Array2::from_shape_fn((n, n), |(i, j)| if j <= i { factor.lower[(i, j)] } else { 0.0 });
                let scale = m.iter().fold(0.0, |top: f64, v| top.max(v.abs()));
                let off = (lower.dot(&lower.t()) - &m).iter().fold(0.0, |top: f64, v| top.max(v.abs()));
                assert!(off < 1e-14 * scale * n as f64, "n {n}, rank {rank}: L L^T is off by {off:e}");
                let off =
                    (factor.inverse().dot(&m) - Array2::<f64>::eye(n)).iter().fold(0.0, |t: f64, v| t.max(v.abs()));
                assert!(off < 1e-14 * scale * n as f64, "n {n}, rank {rank}: M^-1 M is off by {off:e}");
            }
        }
    }

    #[test]
    fn what_stands_above_the_diagonal_is_not_read() {
        let m = sample(70, 9);
        let mut half = m.clone();
        half.indexed_iter_mut().filter(|((i, j), _)| j > i).for_each(|(_, v)| *v = f64::NAN);
        let (whole, half) = (Cholesky::new(m).unwrap(), Cholesky::new(half).unwrap());
        assert_eq!(whole.log_det(), half.log_det());
        assert_eq!(whole.inverse(), half.inverse());
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        for (at, value) in [(0, -1.0), (40, 0.0), (69, f64::NAN)] {
            let mut m = Array2::<f64>::eye(70);
            m[(at, at)] = value;
            assert!(Cholesky::new(m).is_none(), "{value} at {at}");
        }
    }
}
