//! How many numbers of a code are active, on the CPU, in one pass over it; see `cpp/counts.cpp`.
//!
//! Tensors are contiguous, in `Float`, `Double` or `BFloat16`; counts are in `Int64`. Sizes are looked at as `Float`.

use tch::Tensor;

use crate::error::{Result, check};
use crate::ffi;

/// The entries above zero of every sample: by atom, `[B, m]`, and by size, `[B, bounds + 1]`. The first class reaches from zero to the first bound, others begin at their bound,
/// which is rounded to `Float`.
///
/// # Shapes
/// `code`: `[B, n, m]`.
///
/// # Errors
/// A `code` of another form; bounds that do not ascend, each by a factor of 1.13 at least, or more than 255 of them.
pub fn activity(code: &Tensor, bounds: &[f64]) -> Result<(Tensor, Tensor)> {
    let (mut by_atom, mut by_size) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: a live tensor, checked by the shim, and a slice with its length; on success the pointers are new tensors that are ours.
    unsafe {
        check(ffi::te_activity(code.as_ptr(), bounds.as_ptr(), bounds.len() as i64, &mut by_atom, &mut by_size))?;
        Ok((Tensor::from_ptr(by_atom), Tensor::from_ptr(by_size)))
    }
}

/// The entries that are not zero of every sample, `[B]`. NaN is not.
///
/// # Shapes
/// `z`: `[B, ...]`.
///
/// # Errors
/// A `z` of another form.
pub fn nonzero(z: &Tensor) -> Result<Tensor> {
    let mut found = std::ptr::null_mut();
    // SAFETY: a live tensor, checked by the shim; on success the pointer is a new tensor that is ours.
    unsafe {
        check(ffi::te_nonzero(z.as_ptr(), &mut found))?;
        Ok(Tensor::from_ptr(found))
    }
}
