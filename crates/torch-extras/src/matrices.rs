//! Square matrices on the CPU, of which the operator of a dictionary and the gradient by it are made; `cpp/matrices.cpp` has them.
//!
//! Bare functions, without autograd, of `Float` and `Double`.

use tch::Tensor;

use crate::error::{Result, check};
use crate::ffi;

/// `alpha a + beta b^T + diagonal I`, in one pass.
///
/// # Shapes
/// `a`, `b`: `[d, d]`, contiguous, on the CPU, of one kind, `Float` or `Double`.
///
/// # Errors
/// Tensors that do not belong together.
pub fn with_transpose(alpha: f64, a: &Tensor, beta: f64, b: &Tensor, diagonal: f64) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: live tensors, checked by the shim; on success the pointer is a new tensor that is ours.
    unsafe {
        check(ffi::te_with_transpose(a.as_ptr(), alpha, b.as_ptr(), beta, diagonal, &mut result))?;
        Ok(Tensor::from_ptr(result))
    }
}

/// `alpha d^T d + beta d^T + diagonal I`. With `coarse` products take 16 of a float's 24 bits where that is faster (CPUs with AMX): for what meets bf16 next.
///
/// # Shapes
/// `d`: `[d, d]`, contiguous, on the CPU, `Float` or `Double`.
///
/// # Errors
/// A tensor of another shape or kind.
pub fn gram_step(d: &Tensor, alpha: f64, beta: f64, diagonal: f64, coarse: bool) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: a live tensor, checked by the shim; on success the pointer is a new tensor that is ours.
    unsafe {
        check(ffi::te_gram_step(d.as_ptr(), alpha, beta, diagonal, coarse, &mut result))?;
        Ok(Tensor::from_ptr(result))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::testing::{assert_near, wave};

    const KINDS: [(Kind, f64); 2] = [(Kind::Double, 1e-12), (Kind::Float, 1e-5)];

    /// Off every square, and of one number.
    #[test]
    fn a_matrix_and_a_transposed_one_are_added() -> Result<()> {
        for d in [1, 16, 77, 130] {
            for (kind, tolerance) in KINDS {
                let (a, b) = (wave(&[d, d], 0.3).to_kind(kind), wave(&[d, d], 0.7).to_kind(kind));
                let expected = &a * -0.3 + b.tr() * 0.2 + Tensor::eye(d, (kind, Device::Cpu));
                assert_near(&with_transpose(-0.3, &a, 0.2, &b, 1.0)?, &expected, tolerance, &format!("{d} {kind:?}"));
            }
        }
        let (a, b) = (wave(&[3, 3], 0.3), wave(&[3, 4], 0.7));
        assert!(with_transpose(1.0, &a, 1.0, &b, 0.0).unwrap_err().to_string().contains("transposed"));
        assert!(with_transpose(1.0, &b, 1.0, &b, 0.0).unwrap_err().to_string().contains("square"));
        Ok(())
    }

    /// One square and several, none or all of them whole.
    #[test]
    fn a_gram_matrix_and_a_transposed_one_are_added() -> Result<()> {
        for d in [1, 40, 64, 128, 201] {
            for (kind, tolerance) in KINDS {
                let m = wave(&[d, d], 0.3).to_kind(kind);
                let expected = m.tr().matmul(&m) * -0.3 + m.tr() * 0.2 + Tensor::eye(d, (kind, Device::Cpu)) * 1.5;
                assert_near(&gram_step(&m, -0.3, 0.2, 1.5, false)?, &expected, tolerance, &format!("{d} {kind:?}"));
                assert_near(&gram_step(&m, -0.3, 0.2, 1.5, true)?, &expected, 2e-4, &format!("{d} {kind:?}, coarse"));
            }
        }
        let message = |t: Tensor| gram_step(&t, 1.0, 1.0, 1.0, false).unwrap_err().to_string();
        assert!(message(wave(&[3, 4], 0.7)).contains("square"));
        assert!(message(wave(&[3, 3], 0.7).to_kind(Kind::BFloat16)).contains("Float or Double"));
        Ok(())
    }
}
