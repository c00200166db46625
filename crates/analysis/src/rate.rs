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
use tch::kind::Element;
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

/// The rate of every sample of a tensor `[B, n, K p]` on the CPU, converted to T, which must hold its entries without rounding; NaN
/// where an entry is not finite.
///
/// # Errors
/// libtorch refuses the conversion.
pub(crate) fn on_host<T>(uz: &Tensor, extents: Extents, gamma: f64) -> Result<Vec<f64>>
where
    T: Element + Copy + Sync + Into<f64>,
{
    let Extents { batch, tokens, heads, p } = extents;
    let (size, threads) = (tokens * heads * p, rayon::current_num_threads());
    // A few samples are copied and measured at a time, while they lie in the cache; with eight heads for each thread none waits long.
    let group = if threads > 1 { (8 * threads).div_ceil(heads).min(batch) } else { 1 };
    let mut entries = vec![T::ZERO; group * size];
    let mut scratch = Scratch::new(tokens.min(p));
    let mut rates = Vec::with_capacity(batch * heads);
    for start in (0..batch).step_by(group) {
        let samples = group.min(batch - start);
        let part = uz.f_narrow(0, start as i64, samples as i64)?.f_to_kind(T::KIND)?.f_contiguous()?;
        part.f_copy_data(&mut entries, samples * size)?;
        let of_head = |scratch: &mut Scratch, index: usize| {
            let rows = entries[index / heads * size..][..size].chunks_exact(heads * p);
            scratch.rate(rows.map(|row| &row[index % heads * p..][..p]), [tokens, p], gamma)
        };
        if threads > 1 {
            let part: Vec<f64> =
                (0..samples * heads).into_par_iter().map_init(|| Scratch::new(tokens.min(p)), of_head).collect();
            rates.extend(part);
        } else {
            // With one thread there is nobody to hand the heads to.
            rates.extend((0..samples * heads).map(|index| of_head(&mut scratch, index)));
        }
    }
    Ok(rates.chunks_exact(heads).map(|heads| heads.iter().sum()).collect())
}

/// What the measure of one head is worked out in.
struct Scratch {
    /// The tokens, scaled to unit norm, one after the other.
    unit: Vec<f64>,
    /// The smaller form of `I + gamma W W^T`.
    m: Array2<f64>,
    /// What is eliminated at a time.
    columns: [Vec<f64>; 4],
}

impl Scratch {
    fn new(side: usize) -> Self {
        Self { unit: vec![], m: Array2::zeros((side, side)), columns: std::array::from_fn(|_| vec![0.0; side]) }
    }

    /// The rate of one head's tokens, given one after the other.
    fn rate<'a, T: Copy + Into<f64> + 'a>(
        &mut self,
        rows: impl Iterator<Item = &'a [T]>,
        [tokens, p]: [usize; 2],
        gamma: f64,
    ) -> f64 {
        self.unit.clear();
        self.unit.reserve(tokens * p);
        let mut finite = true;
        for token in rows {
            let norm = norm(token);
            finite &= norm.is_finite();
            let scale = norm.max(NORM_FLOOR).recip();
            self.unit.extend(token.iter().map(|&x| x.into() * scale));
        }
        match ArrayView2::from_shape((tokens, p), &self.unit) {
            Ok(unit) if finite => {
                shifted_gram(if p <= tokens { unit.t() } else { unit }, gamma, &mut self.m);
                0.5 * log_det(&mut self.m, &mut self.columns)
            }
            _ => f64::NAN,
        }
    }
}

/// The Euclidean norm, by eight sums that the compiler keeps side by side.
fn norm<T: Copy + Into<f64>>(token: &[T]) -> f64 {
    let mut sums = [0.0; 8];
    let (whole, rest) = token.as_chunks::<8>();
    for eight in whole {
        sums.iter_mut().zip(eight).for_each(|(sum, &x)| *sum += x.into() * x.into());
    }
    sums.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += x.into() * x.into());
    sums.iter().sum::<f64>().sqrt()
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
        [on_host::<f32>(uz, extents, gamma).unwrap(), by_tensors(uz, extents, gamma).unwrap().try_into().unwrap()]
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
