//! Attention of a few queries to all normalised tokens of a sample, on the CPU; see `cpp/pooling.cpp` for how it is computed.
//!
//! ```text
//! h = norm(x)      o_k = sum_j a_kj h_j      a_k = softmax(s h q_k)          for every query q_k
//! ```
//!
//! Bare passes, without autograd. Tokens are `Float`, `Double` or `BFloat16`; everything else is `Float` where those are `BFloat16`, otherwise of the same
//! kind.

use tch::Tensor;

use crate::error::{Error, Result, check};
use crate::ffi;
use crate::rows::{Norm, pointer};

/// The queries and what they meet.
#[derive(Clone, Copy, Debug)]
pub struct Pooling<'a> {
    /// `[B, n, d]`.
    pub x: &'a Tensor,
    /// Applied to the tokens first.
    pub norm: Norm<'a>,
    /// `[B, K, d]`.
    pub queries: &'a Tensor,
    /// What the scores are multiplied by.
    pub scale: f64,
}

/// What [`Pooling::backward`] finds.
#[derive(Debug)]
pub struct Gradients {
    /// By the tokens.
    pub x: Tensor,
    /// By the queries.
    pub queries: Tensor,
    /// By the norm's scale.
    pub scale: Tensor,
    /// By the norm's shift.
    pub shift: Tensor,
}

impl Pooling<'_> {
    /// What every query gathers, `[B, K, d]`, and the logarithms of the softmax's denominators, `[B, K]`, which the backward pass wants.
    ///
    /// # Errors
    /// Tensors that do not belong together, or are not contiguous on the CPU.
    pub fn forward(&self) -> Result<(Tensor, Tensor)> {
        let (scale, shift) = self.norm.affine.unzip();
        let (mut out, mut logarithms) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: null or live tensors, checked by the shim; on success both pointers are new tensors that are ours.
        unsafe {
            check(ffi::te_pooled_attention(
                self.x.as_ptr(),
                self.queries.as_ptr(),
                pointer(scale),
                pointer(shift),
                self.norm.eps,
                self.scale,
                &mut out,
                &mut logarithms,
            ))?;
            Ok((Tensor::from_ptr(out), Tensor::from_ptr(logarithms)))
        }
    }

    /// The gradients, given that by the output, `grad`, and what the forward pass returned. The norm must have scale and shift.
    ///
    /// # Errors
    /// Tensors that do not belong together, or a norm without scale and shift.
    pub fn backward(&self, grad: &Tensor, out: &Tensor, logarithms: &Tensor) -> Result<Gradients> {
        let missing = || Error::Argument("the norm has no scale and shift to find gradients by".into());
        let (scale, shift) = self.norm.affine.ok_or_else(missing)?;
        let mut found = [std::ptr::null_mut(); 4];
        // SAFETY: live tensors, checked by the shim, and room for four pointers; on success those are new tensors that are ours.
        unsafe {
            check(ffi::te_pooled_attention_backward(
                grad.as_ptr(),
                self.x.as_ptr(),
                self.queries.as_ptr(),
                scale.as_ptr(),
                shift.as_ptr(),
                self.norm.eps,
                self.scale,
                out.as_ptr(),
                logarithms.as_ptr(),
                found.as_mut_ptr(),
            ))?;
            let [x, queries, scale, shift] = found.map(|t| Tensor::from_ptr(t));
            Ok(Gradients { x, queries, scale, shift })
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::testing::{assert_near, wave};

    /// One token, one query, more tokens than a strip, sizes off every vector.
    #[test]
    fn values_and_gradients_are_those_of_the_formula() -> Result<()> {
        for (b, n, d, k) in [(1, 1, 8, 1), (3, 17, 40, 6), (2, 75, 33, 5), (5, 40, 96, 17)] {
            let leaf = |t: Tensor| t.set_requires_grad(true);
            let (x, queries) = (leaf(wave(&[b, n, d], 0.1) * 2.0), leaf(wave(&[b, k, d], 0.2)));
            let (scale, shift) = (leaf(wave(&[d], 0.5) + 1.5), leaf(wave(&[d], 0.6)));
            let (s, grad) = (0.3, wave(&[b, k, d], 0.7) + 0.5);
            let pooled = |norm: Option<(&Tensor, &Tensor)>| {
                let (scale, shift) = norm.unzip();
                let h = x.layer_norm([d], scale, shift, 1e-5, true);
                (queries.matmul(&h.transpose(1, 2)) * s).softmax(-1, None::<Kind>).matmul(&h)
            };
            let expected = pooled(Some((&scale, &shift)));
            let loss = (&expected * &grad).sum(Kind::Double);
            let by = Tensor::run_backward(&[loss], &[&x, &queries, &scale, &shift], false, false);
            for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5), (Kind::BFloat16, 6e-2)] {
                let number = if kind == Kind::BFloat16 { Kind::Float } else { kind };
                let to = |t: &Tensor| t.detach().to_kind(number);
                let (xk, qk, sk, tk) = (x.detach().to_kind(kind), to(&queries), to(&scale), to(&shift));
                let norm = Norm { affine: Some((&sk, &tk)), eps: 1e-5 };
                let pooling = Pooling { x: &xk, norm, queries: &qk, scale: s };
                let (out, logarithms) = pooling.forward()?;
                let what = |name: &str| format!("{name}, {kind:?} {:?}", [b, n, d, k]);
                assert_near(&out, &expected, tolerance, &what("output"));
                let found = pooling.backward(&to(&grad), &out, &logarithms)?;
                assert_eq!((found.x.kind(), found.queries.kind()), (kind, number));
                // With one token there is nothing to choose: what remains of gradients by queries is rounding.
                if n > 1 {
                    assert_near(&found.queries, &by[1], tolerance, &what("queries"));
                }
                assert_near(&found.x, &by[0], tolerance, &what("tokens"));
                assert_near(&found.scale, &by[2], tolerance, &what("scale"));
                assert_near(&found.shift, &by[3], tolerance, &what("shift"));
                let bare = Pooling { norm: Norm { affine: None, eps: 1e-5 }, ..pooling };
                assert_near(&bare.forward()?.0, &pooled(None), tolerance, &what("without scale and shift"));
            }
        }
        Ok(())
    }

    #[test]
    fn misfits_are_sentences() {
        let (x, queries) = (wave(&[2, 3, 8], 0.0), wave(&[2, 4, 8], 0.0));
        let norm = Norm { affine: None, eps: 1e-5 };
        let pooling = Pooling { x: &x, norm, queries: &queries, scale: 1.0 };
        let message = |r: Result<(Tensor, Tensor)>| r.unwrap_err().to_string();
        let narrow = queries.narrow(2, 0, 7).contiguous();
        assert!(message(Pooling { queries: &narrow, ..pooling }.forward()).contains("the queries must be"));
        let turned = x.transpose(1, 2);
        assert!(message(Pooling { x: &turned, ..pooling }.forward()).contains("contiguous"));
        let scale = Tensor::ones([7], (Kind::Double, Device::Cpu));
        let norm = Norm { affine: Some((&scale, &scale)), eps: 1e-5 };
        assert!(message(Pooling { norm, ..pooling }.forward()).contains("the scale must be"));
        let (out, logarithms) = pooling.forward().unwrap();
        assert!(pooling.backward(&out, &out, &logarithms).unwrap_err().to_string().contains("no scale and shift"));
    }
}
