//! 1/2 logdet(I + gamma W_k W_k^T), summed over the heads, by two ways that agree to rounding.
//!
//! [`on_host`]: on the CPU, head by head in plain float64 code. A head's tokens are scaled to unit norm, multiplied (lower triangle
//! only) and eliminated while they lie in the cache, and heads are spread over threads. libtorch's operations, one after the other over
//! the whole batch, move every token several times and factorise the matrices on one thread.
//!
//! [`by_tensors`]: the same formula in tensor operations, for tensors that live on another device.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use crate::Result;

/// Below this a token's norm counts as zero.
const NORM_FLOOR: f64 = 1e-12;

/// Width of the block rows of a product's lower triangle.
const BLOCK_ROWS: usize = 16;

/// The extents of one batch.
#[derive(Clone, Copy)]
pub(crate) struct Extents {
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub p: usize,
}

/// The rate of every sample, from entries in the order `[B, n, K, p]`; NaN where an entry is not finite.
pub(crate) fn on_host<T: Copy + Sync + Into<f64>>(uz: &[T], extents: Extents, gamma: f64) -> Vec<f64> {
    let Extents { batch, tokens, heads, p } = extents;
    let side = tokens.min(p);
    let columns = || std::array::from_fn(|_| vec![0.0; side]);
    let buffers = || (Array2::zeros((tokens, p)), Array2::zeros((side, side)), columns());
    let of_head = |(unit, m, columns): &mut (Array2<f64>, Array2<f64>, [Vec<f64>; 4]), index: usize| {
        let (sample, head) = (index / heads, index % heads);
        let rows = uz[sample * tokens * heads * p..].chunks_exact(heads * p).map(|row| &row[head * p..][..p]);
        if !unit_norm(rows, unit) {
            return f64::NAN;
        }
        shifted_gram(if p <= tokens { unit.t() } else { unit.view() }, gamma, m);
        0.5 * log_det(m, columns)
    };
    let all = 0..batch * heads;
    let rates: Vec<f64> = if rayon::current_num_threads() > 1 {
        all.into_par_iter().map_init(buffers, of_head).collect()
    } else {
        // With one thread there is nobody to hand the heads to.
        let mut buffers = buffers();
        all.map(|index| of_head(&mut buffers, index)).collect()
    };
    rates.chunks_exact(heads).map(|heads| heads.iter().sum()).collect()
}

/// Writes the tokens, scaled to unit norm, into the rows of `unit`; false where one of them is not finite.
fn unit_norm<'a, T: Copy + Into<f64> + 'a>(tokens: impl Iterator<Item = &'a [T]>, unit: &mut Array2<f64>) -> bool {
    let p = unit.ncols();
    let rows = unit.as_slice_mut().into_iter().flat_map(|entries| entries.chunks_exact_mut(p));
    let mut finite = true;
    for (row, token) in rows.zip(tokens) {
        // Eight sums, which the compiler keeps side by side.
        let mut sums = [0.0; 8];
        let (whole, rest) = token.as_chunks::<8>();
        for eight in whole {
            sums.iter_mut().zip(eight).for_each(|(sum, &x)| *sum += x.into() * x.into());
        }
        sums.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += x.into() * x.into());
        let norm = sums.iter().sum::<f64>().sqrt();
        finite &= norm.is_finite();
        let scale = norm.max(NORM_FLOOR).recip();
        row.iter_mut().zip(token).for_each(|(to, &x)| *to = x.into() * scale);
    }
    finite
}

/// The lower triangle of `I + gamma W W^T`.
fn shifted_gram(w: ArrayView2<'_, f64>, gamma: f64, m: &mut Array2<f64>) {
    for (k, mut rows) in m.axis_chunks_iter_mut(Axis(0), BLOCK_ROWS).enumerate() {
        let (start, end) = (k * BLOCK_ROWS, k * BLOCK_ROWS + rows.nrows());
        let mut lower = rows.slice_mut(s![.., ..end]);
        general_mat_mul(gamma, &w.slice(s![start..end, ..]), &w.slice(s![..end, ..]).t(), 0.0, &mut lower);
    }
    m.diag_mut().mapv_inplace(|x| x + 1.0);
}

/// The log-determinant of a positive definite matrix by elimination of its lower triangle, which is overwritten.
///
/// Four columns are eliminated at a time, so that an entry is read and written once for four of its updates.
fn log_det(m: &mut Array2<f64>, columns: &mut [Vec<f64>; 4]) -> f64 {
    let n = m.nrows();
    let mut sum = 0.0;
    let mut rest = m.as_slice_mut().unwrap_or_default();
    for start in (0..n).step_by(4) {
        let end = (start + 4).min(n);
        for (i, row) in (start..n).zip(rest.chunks_exact(n)) {
            columns.iter_mut().zip(&row[start..end]).for_each(|(column, &x)| column[i] = x);
        }
        // Among themselves; past the last column of the matrix they count for nothing.
        let mut shares = [0.0; 4];
        for k in start..end {
            let (done, later) = columns.split_at_mut(k - start + 1);
            let column = &done[k - start][..n];
            sum += column[k].ln();
            shares[k - start] = column[k].recip();
            for (j, later) in (k + 1..end).zip(later) {
                let factor = column[j] / column[k];
                later[j..n].iter_mut().zip(&column[j..]).for_each(|(x, c)| *x -= factor * c);
            }
        }
        let (_, below) = rest.split_at_mut((end - start) * n);
        let [a, b, c, d] = &*columns;
        for (i, row) in (end..n).zip(below.chunks_exact_mut(n)) {
            let [fa, fb, fc, fd] = [a[i] * shares[0], b[i] * shares[1], c[i] * shares[2], d[i] * shares[3]];
            let four = a[end..=i].iter().zip(&b[end..=i]).zip(c[end..=i].iter().zip(&d[end..=i]));
            for (x, ((a, b), (c, d))) in row[end..=i].iter_mut().zip(four) {
                *x -= (fa * a + fb * b) + (fc * c + fd * d);
            }
        }
        rest = below;
    }
    sum
}

/// The rate of every sample, `[B]`, from a tensor `[B, n, K p]` on any device; NaN where an entry is not finite.
pub(crate) fn by_tensors(uz: &Tensor, extents: Extents, gamma: f64) -> Result<Tensor> {
    let [batch, tokens, heads, p] = [extents.batch, extents.tokens, extents.heads, extents.p].map(|x| x as i64);
    let w = uz.f_to_kind(Kind::Double)?.f_reshape([batch, tokens, heads, p])?.f_transpose(1, 2)?;
    let w = w.f_div(&w.f_norm_scalaropt_dim(2, [-1i64].as_slice(), true)?.f_clamp_min(NORM_FLOOR)?)?;
    let wt = w.f_transpose(-2, -1)?;
    let gram = if p <= tokens { wt.f_matmul(&w)? } else { w.f_matmul(&wt)? };
    let eye = Tensor::f_eye(p.min(tokens), (Kind::Double, uz.device()))?;
    // The matrix is at least I, so a factorisation fails only on values that are not finite: those are told apart by
    // 0 * sum, which is NaN for them and 0 otherwise.
    let (factor, _info) = eye.f_add(&(&gram * gamma))?.f_linalg_cholesky_ex(false, false)?;
    let half_logdet = factor.f_diagonal(0, -2, -1)?.f_log()?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?;
    let finite = gram.f_sum_dim_intlist([-2i64, -1].as_slice(), false, None)?.f_mul_scalar(0.0)?;
    Ok(half_logdet.f_add(&finite)?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn both(uz: &Tensor, heads: i64) -> [Vec<f64>; 2] {
        let [batch, tokens, width] = uz.size()[..] else { panic!("[B, n, K p]") };
        let [batch, tokens, heads, p] = [batch, tokens, heads, width / heads].map(|x| x as usize);
        let extents = Extents { batch, tokens, heads, p };
        let gamma = p as f64 / (tokens as f64 * 0.01);
        let entries = Vec::<f32>::try_from(uz.flatten(0, -1)).unwrap();
        [on_host(&entries, extents, gamma), by_tensors(uz, extents, gamma).unwrap().try_into().unwrap()]
    }

    #[test]
    fn host_and_tensors_agree() {
        tch::manual_seed(5);
        // Around the widths of a block, both forms, one head and several.
        for (tokens, heads, p) in
            [(197, 6, 64), (197, 1, 250), (17, 4, 12), (40, 2, 33), (1, 3, 5), (9, 2, 1), (7, 2, 9), (18, 2, 30)]
        {
            let spread = Tensor::randn([3, tokens, heads * p], (Kind::Float, Device::Cpu));
            let collapsed = &spread * 1e-3 + Tensor::randn([3, 1, heads * p], (Kind::Float, Device::Cpu));
            for uz in [spread, collapsed] {
                let [host, tensors] = both(&uz, heads);
                for (a, b) in host.iter().zip(&tensors) {
                    assert!((a - b).abs() < 1e-11 * (1.0 + b.abs()), "n {tokens}, K {heads}, p {p}: {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn both_say_nan_of_the_same_samples() {
        tch::manual_seed(6);
        let uz = Tensor::randn([4, 20, 24], (Kind::Float, Device::Cpu));
        let _ = uz.get(1).get(19).get(23).fill_(f64::NAN);
        let _ = uz.get(3).get(0).get(0).fill_(f64::NEG_INFINITY);
        let _ = uz.get(2).fill_(0.0);
        let [host, tensors] = both(&uz, 3);
        for rates in [host, tensors] {
            assert!(rates[0].is_finite() && rates[1].is_nan() && rates[2] == 0.0 && rates[3].is_nan(), "{rates:?}");
        }
    }
}
