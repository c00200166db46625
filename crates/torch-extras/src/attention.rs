//! Subspace attention on the CPU with one projection in the place of query, key and value; see `cpp/attention.cpp` for how it is computed.
//!
//! ```text
//! o_k = softmax(s w_k w_k^T) w_k          for every head k
//! ```
//!
//! These are the bare passes, without autograd; `function::attach` makes an operation of them.

use tch::Tensor;

use crate::error::{Result, check};
use crate::ffi;

/// The longest sequence for which this is the way to compute attention: the scores of a head are formed as a whole, n^2 numbers a thread.
pub const MOST_TOKENS: i64 = 1024;

/// Attention of all heads; returns the output and the logarithms of the softmax's denominators, which the backward pass wants.
///
/// # Shapes
/// `w`: `[B, n, K p]`, heads as consecutive blocks of p, contiguous, on the CPU, in `Float`, `Double` or `BFloat16`, to `[B, n, K p]` and `[B, K, n]`
/// (`Float`, for `Double` `Double`).
///
/// # Errors
/// A `w` of another form; `heads` that do not divide its width.
pub fn subspace_attention(w: &Tensor, heads: i64, scale: f64) -> Result<(Tensor, Tensor)> {
    let (mut out, mut logarithms) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: a live tensor, checked by the shim; on success both pointers are new tensors that are ours.
    unsafe {
        check(ffi::te_subspace_attention(w.as_ptr(), heads, scale, &mut out, &mut logarithms))?;
        Ok((Tensor::from_ptr(out), Tensor::from_ptr(logarithms)))
    }
}

/// The gradient by `w` of [`subspace_attention`], given that by its output, `grad`.
///
/// # Shapes
/// `grad`, `w`, `out`: `[B, n, K p]`, all as in the forward pass, to `[B, n, K p]`.
///
/// # Errors
/// Tensors that do not belong together.
pub fn subspace_attention_backward(
    grad: &Tensor,
    w: &Tensor,
    out: &Tensor,
    logarithms: &Tensor,
    heads: i64,
    scale: f64,
) -> Result<Tensor> {
    let mut gradient = std::ptr::null_mut();
    let (g, w, o, l) = (grad.as_ptr(), w.as_ptr(), out.as_ptr(), logarithms.as_ptr());
    // SAFETY: live tensors, checked by the shim; on success the pointer is a new tensor that is ours.
    unsafe {
        check(ffi::te_subspace_attention_backward(g, w, o, l, heads, scale, &mut gradient))?;
        Ok(Tensor::from_ptr(gradient))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// The heads' tokens and their scores.
    fn scores(w: &Tensor, heads: i64, scale: f64) -> (Tensor, Tensor) {
        let (b, n, kp) = w.size3().unwrap();
        let z = w.view([b, n, heads, kp / heads]).transpose(1, 2);
        let scores = z.matmul(&z.transpose(-2, -1)) * scale;
        (z, scores)
    }

    /// The formula, through autograd.
    fn plain(w: &Tensor, heads: i64, scale: f64) -> Tensor {
        let (z, scores) = scores(w, heads, scale);
        scores.softmax(-1, None::<Kind>).matmul(&z).transpose(1, 2).reshape(w.size())
    }

    fn wave(shape: [i64; 3], salt: f64) -> Tensor {
        (Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu)) * 1.7 + salt).sin().reshape(shape)
            * 1.5
    }

    fn error(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
        f64::try_from((&a - &b).norm() / b.norm()).unwrap()
    }

    /// One token, sizes off every vector width, more heads than a block takes, a head as wide as the tokens.
    #[test]
    fn values_and_gradients_are_those_of_the_formula() -> Result<()> {
        for (shape, heads) in [([2, 1, 6], 2), ([3, 17, 40], 5), ([2, 37, 96], 2), ([1, 65, 16], 1), ([9, 5, 64], 16)] {
            let (exact, grad) = (wave(shape, 0.3).set_requires_grad(true), wave(shape, 1.1));
            let scale = (heads as f64 / shape[2] as f64).sqrt(); // 1 / sqrt(p)
            let expected = plain(&exact, heads, scale);
            (&expected * &grad).sum(Kind::Double).backward();
            for (kind, tolerance) in [(Kind::Double, 1e-13), (Kind::Float, 1e-5), (Kind::BFloat16, 2e-2)] {
                let (w, g) = (exact.detach().to_kind(kind), grad.to_kind(kind));
                let (out, logarithms) = subspace_attention(&w, heads, scale)?;
                let gradient = subspace_attention_backward(&g, &w, &out, &logarithms, heads, scale)?;
                assert_eq!((out.kind(), gradient.kind()), (kind, kind));
                assert!(error(&out, &expected.detach()) < tolerance, "{kind:?} {shape:?}: {}", error(&out, &expected));
                let found = error(&gradient, &exact.grad());
                assert!(found < tolerance, "gradient, {kind:?} {shape:?}: {found}");
                let sums = scores(&exact.detach(), heads, scale).1.logsumexp([-1i64].as_slice(), false);
                assert!(error(&logarithms, &sums) < tolerance, "logarithms, {kind:?} {shape:?}");
            }
        }
        Ok(())
    }

    /// One token that is broken breaks all that meet it.
    #[test]
    fn values_that_are_no_numbers_stay_none() -> Result<()> {
        for kind in [Kind::Double, Kind::Float, Kind::BFloat16] {
            let w = wave([1, 40, 8], 0.3).to_kind(kind);
            let _ = w.select(1, 3).fill_(f64::NAN);
            let (out, logarithms) = subspace_attention(&w, 2, 1.0)?;
            for found in [out, logarithms] {
                assert!(!bool::try_from(found.isfinite().any()).unwrap(), "{kind:?}");
            }
        }
        Ok(())
    }

    /// Scores far beyond what an exponential holds.
    #[test]
    fn large_scores_do_not_overflow() -> Result<()> {
        let w = (wave([1, 9, 8], 0.2) * 100.0).to_kind(Kind::Float);
        let (out, logarithms) = subspace_attention(&w, 2, 1.0)?;
        assert!(error(&out, &plain(&w, 2, 1.0)) < 1e-5);
        let gradient = subspace_attention_backward(&w, &w, &out, &logarithms, 2, 1.0)?;
        assert!(f64::try_from(gradient.abs().max()).unwrap().is_finite());
        Ok(())
    }

    #[test]
    fn misfits_are_sentences() {
        let w = wave([2, 3, 8], 0.0);
        let message = |r: Result<(Tensor, Tensor)>| r.unwrap_err().to_string();
        assert!(message(subspace_attention(&w, 3, 1.0)).contains("cannot be divided among 3 heads"));
        assert!(message(subspace_attention(&w.transpose(0, 1), 2, 1.0)).contains("contiguous"));
        assert!(message(subspace_attention(&w.to_kind(Kind::Half), 2, 1.0)).contains("expected Float"));
        let (out, l) = subspace_attention(&w, 2, 1.0).unwrap();
        let other = wave([2, 3, 4], 0.0);
        assert!(subspace_attention_backward(&other, &w, &out, &l, 2, 1.0).is_err());
        assert!(subspace_attention_backward(&w, &w, &out, &out, 2, 1.0).is_err());
    }
}
