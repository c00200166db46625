//! Coding rates of tokens on the CPU, head by head; see `cpp/rates.cpp` for how they are computed.

use tch::Tensor;

use crate::error::{Result, check};
use crate::ffi;

/// `1/2 sum_k logdet(I + gamma W_k W_k^T)` of every sample, where the columns of `W_k` are the tokens of head k, with `unit_norm` each scaled to norm 1 (a norm
/// below 1e-12 counts as zero); computed in float64. NaN for a sample with an entry that is not finite.
///
/// # Shapes
/// `w`: `[B, n, K p]`, heads as consecutive blocks of p, contiguous, on the CPU, in `Float`, `Double` or `BFloat16`, to `[B]` in `Double`.
///
/// # Errors
/// A `w` of another form; `heads` that do not divide its width.
pub fn coding_rates(w: &Tensor, heads: i64, gamma: f64, unit_norm: bool) -> Result<Tensor> {
    let mut rates = std::ptr::null_mut();
    // SAFETY: a live tensor, checked by the shim; on success the pointer is a new tensor that is ours.
    unsafe {
        check(ffi::te_coding_rates(w.as_ptr(), heads, gamma, unit_norm, &mut rates))?;
        Ok(Tensor::from_ptr(rates))
    }
}
