//! What the halves of a layer are measured by, on the CPU; see `cpp/steps.cpp` for the formulas and for how they are computed.
//!
//! All of tokens scaled to norm 1 (a norm below 1e-12 counts as zero), n a sample, with `alpha = d/(n eps^2)` and `gamma = p/(n eps^2)`. Tokens are contiguous, on
//! the CPU, in `Float`, `Double` or `BFloat16`; bases in `Double` where those are, otherwise in `Float`. A sample with an entry that is not finite has NaN.

use tch::Tensor;

use crate::error::{Result, check};
use crate::ffi;

/// The bases of K subspaces.
#[derive(Clone, Copy, Debug)]
pub struct Bases<'a> {
    /// `[U_1 ... U_K]^T`, `[K p, d]`, head by head.
    pub u: &'a Tensor,
    /// K.
    pub heads: i64,
}

/// R, `|Z|_1`, and R^c against each of the bases, of every sample, `[B, 2 + bases]` in `Double`.
///
/// # Shapes
/// `z`: `[B, n, d]`.
///
/// # Errors
/// Tensors that do not belong together, by name.
pub fn place(z: &Tensor, bases: &[Bases<'_>], eps_squared: f64) -> Result<Tensor> {
    let (u, heads): (Vec<_>, Vec<_>) = bases.iter().map(|bases| (bases.u.as_ptr(), bases.heads)).unzip();
    let mut found = std::ptr::null_mut();
    // SAFETY: live tensors, checked by the shim, and arrays of `bases.len()`; on success the pointer is a new tensor that is ours.
    unsafe {
        check(ffi::te_place(z.as_ptr(), u.len(), u.as_ptr(), heads.as_ptr(), eps_squared, &mut found))?;
        Ok(Tensor::from_ptr(found))
    }
}

/// The cosine of `added` with `-grad R^c` at the tokens `input`, of every sample, `[B]` in `Double`.
///
/// # Shapes
/// `input`, what the attention reads, and `added`, what it adds: `[B, n, d]`; `uz`, the bases applied to `input`: `[B, n, K p]`.
///
/// # Errors
/// Tensors that do not belong together, by name.
pub fn attention_alignment(
    input: &Tensor,
    uz: &Tensor,
    added: &Tensor,
    bases: Bases<'_>,
    eps_squared: f64,
) -> Result<Tensor> {
    let (u, mut found) = (bases.u.as_ptr(), std::ptr::null_mut());
    // SAFETY: live tensors, checked by the shim; on success the pointer is a new tensor that is ours.
    unsafe {
        check(ffi::te_attention_alignment(
            input.as_ptr(),
            uz.as_ptr(),
            added.as_ptr(),
            u,
            bases.heads,
            eps_squared,
            &mut found,
        ))?;
        Ok(Tensor::from_ptr(found))
    }
}

/// R and `|Z|_1` of the tokens `h`, and the cosine of the step from there to `end` with the proximal step on `lambda |Z|_1 - R(Z)` over non-negative Z
/// (step size 1/L, `L = 9 alpha/4`), of every sample, `[B, 3]` in `Double`.
///
/// # Shapes
/// `h` and `end`: `[B, n, d]`.
///
/// # Errors
/// Tensors that do not belong together, by name.
pub fn sparsity_alignment(h: &Tensor, end: &Tensor, lambda: f64, eps_squared: f64) -> Result<Tensor> {
    let mut found = std::ptr::null_mut();
    // SAFETY: live tensors, checked by the shim; on success the pointer is a new tensor that is ours.
    unsafe {
        check(ffi::te_sparsity_alignment(h.as_ptr(), end.as_ptr(), lambda, eps_squared, &mut found))?;
        Ok(Tensor::from_ptr(found))
    }
}
