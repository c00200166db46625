//! Optimiser steps and list operations in one call over all tensors, as PyTorch's fused and foreach kernels do them.
//!
//! AdamW (Loshchilov & Hutter, arXiv:1711.05101, decoupled decay), at step t from 1, in PyTorch's order:
//!
//! ```text
//! theta <- theta - lr wd theta
//! m <- beta1 m + (1 - beta1) g          v <- beta2 v + (1 - beta2) g^2
//! theta <- theta - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
//! ```
//!
//! Lion (Chen et al., arXiv:2302.06675, algorithm 2), the published CRATE runs' optimiser:
//!
//! ```text
//! c = beta1 m + (1 - beta1) g
//! theta <- theta - lr (sign(c) + wd theta)
//! m <- beta2 m + (1 - beta2) g
//! ```

use tch::Tensor;

use crate::error::{Error, Result, check};
use crate::ffi;

/// The numbers of an AdamW step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay; each step takes `lr * weight_decay` of a parameter away.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// The numbers of a Lion step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// Learning rate of this step.
    pub lr: f64,
    /// Weight of the moment in the direction.
    pub beta1: f64,
    /// Decay of the moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

fn same_length(params: &[Tensor], lists: &[(&str, &[Tensor])]) -> Result<()> {
    match lists.iter().find(|(_, list)| list.len() != params.len()) {
        None => Ok(()),
        Some((name, list)) => {
            Err(Error::Argument(format!("{} {name} for {} parameters: expected one each", list.len(), params.len())))
        }
    }
}

/// One AdamW step on all `params` in place; updates the moments `exp_avgs` and `exp_avg_sqs`. `step` counts from 1. CPU and CUDA.
///
/// # Shapes
/// Tensor i of every list has the shape, kind and device of parameter i.
///
/// # Errors
/// Lists of different lengths, `step` below 1, tensors that do not fit their parameter.
pub fn adamw(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    step: i64,
    rule: &AdamW,
) -> Result<()> {
    same_length(params, &[("gradients", grads), ("first moments", exp_avgs), ("second moments", exp_avg_sqs)])?;
    if step < 1 {
        return Err(Error::Argument(format!("step {step}: the bias correction of AdamW counts steps from 1")));
    }
    let (p, g, m, v) =
        (ffi::pointers(params), ffi::pointers(grads), ffi::pointers(exp_avgs), ffi::pointers(exp_avg_sqs));
    let AdamW { lr, beta1, beta2, weight_decay, eps } = *rule;
    let (p, g, m, v) = (p.as_ptr(), g.as_ptr(), m.as_ptr(), v.as_ptr());
    // SAFETY: four arrays of `params.len()` pointers to live tensors; the shim checks shapes, kinds and layout before the kernel runs.
    check(unsafe { ffi::te_adamw(params.len(), p, g, m, v, step, lr, beta1, beta2, weight_decay, eps) })
}

/// One Lion step on all `params` in place; updates the moments `exp_avgs`. CPU and CUDA.
///
/// # Shapes
/// Tensor i of every list has the shape, kind and device of parameter i.
///
/// # Errors
/// Lists of different lengths, tensors that do not fit their parameter.
pub fn lion(params: &[Tensor], grads: &[Tensor], exp_avgs: &[Tensor], rule: &Lion) -> Result<()> {
    same_length(params, &[("gradients", grads), ("moments", exp_avgs)])?;
    let (p, g, m) = (ffi::pointers(params), ffi::pointers(grads), ffi::pointers(exp_avgs));
    let Lion { lr, beta1, beta2, weight_decay } = *rule;
    // SAFETY: three arrays of `params.len()` pointers to live tensors, checked by the shim as for `adamw`.
    check(unsafe { ffi::te_lion(params.len(), p.as_ptr(), g.as_ptr(), m.as_ptr(), lr, beta1, beta2, weight_decay) })
}

/// The Euclidean norm of all tensors taken as one vector: a scalar that stays on their device, unread.
///
/// # Errors
/// An empty list, undefined tensors.
pub fn global_norm(tensors: &[Tensor]) -> Result<Tensor> {
    let list = ffi::pointers(tensors);
    let mut norm = std::ptr::null_mut();
    // SAFETY: an array of pointers to live tensors; on success `norm` is a new tensor that is ours.
    unsafe {
        check(ffi::te_global_norm(tensors.len(), list.as_ptr(), &mut norm))?;
        Ok(Tensor::from_ptr(norm))
    }
}

/// Scales `grads` in place by min(1, max / (norm + 1e-6)), PyTorch's `clip_grad_norm_`, without reading `norm` back: nothing waits for
/// the device. A norm that is not finite makes the gradients so too.
///
/// # Errors
/// Undefined tensors, a `norm` on another device.
pub fn clip_by_norm_(grads: &[Tensor], norm: &Tensor, max: f64) -> Result<()> {
    let list = ffi::pointers(grads);
    // SAFETY: an array of pointers to live tensors and one live tensor.
    check(unsafe { ffi::te_clip_by_norm(grads.len(), list.as_ptr(), norm.as_ptr(), max) })
}

/// Multiplies all tensors by `factor` in place.
///
/// # Errors
/// Undefined tensors.
pub fn scale_(tensors: &[Tensor], factor: f64) -> Result<()> {
    let list = ffi::pointers(tensors);
    // SAFETY: an array of pointers to live tensors.
    check(unsafe { ffi::te_scale(tensors.len(), list.as_ptr(), factor) })
}

/// Drops the gradients of `params` (they become undefined, as PyTorch's `set_to_none`): the next backward pass writes where this one
/// would have to add.
///
/// # Errors
/// Undefined tensors.
pub fn clear_grads(params: &[Tensor]) -> Result<()> {
    let list = ffi::pointers(params);
    // SAFETY: an array of pointers to live tensors.
    check(unsafe { ffi::te_clear_grads(params.len(), list.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const CPU: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// Smooth data that no generator state touches: entry k of tensor `salt` is sin(k + salt).
    fn wave(shape: &[i64], salt: f64) -> Tensor {
        (Tensor::arange(shape.iter().product::<i64>(), CPU) + salt).sin().reshape(shape)
    }

    const SHAPES: [&[i64]; 3] = [&[3, 5], &[7], &[2, 2, 4]];

    fn waves(salt: f64) -> Vec<Tensor> {
        SHAPES.iter().enumerate().map(|(i, shape)| wave(shape, salt + i as f64)).collect()
    }

    fn zeros() -> Vec<Tensor> {
        SHAPES.iter().map(|shape| Tensor::zeros(*shape, CPU)).collect()
    }

    fn floats(tensors: &[Tensor]) -> Vec<f64> {
        tensors.iter().flat_map(|t| Vec::<f64>::try_from(t.reshape([-1])).unwrap()).collect()
    }

    fn assert_close(found: &[Tensor], expected: &[f64], tolerance: f64) {
        let found = floats(found);
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} against {b}");
        }
    }

    #[test]
    fn adamw_follows_its_formula_in_f64() -> Result<()> {
        let (p, m, v) = (waves(0.3), zeros(), zeros());
        let rule = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, weight_decay: 0.1, eps: 1e-8 };
        let (mut x, mut a, mut b) = (floats(&p), floats(&m), floats(&v));
        for t in 1..=5 {
            let grads = waves(1.7 * t as f64);
            let g = floats(&grads);
            adamw(&p, &grads, &m, &v, t, &rule)?;
            for i in 0..x.len() {
                x[i] -= rule.lr * rule.weight_decay * x[i];
                a[i] = 0.9 * a[i] + 0.1 * g[i];
                b[i] = 0.999 * b[i] + 0.001 * g[i] * g[i];
                let (a_hat, b_hat) = (a[i] / (1.0 - 0.9f64.powi(t as i32)), b[i] / (1.0 - 0.999f64.powi(t as i32)));
                x[i] -= rule.lr * a_hat / (b_hat.sqrt() + rule.eps);
            }
        }
        assert_close(&p, &x, 1e-12);
        assert_close(&m, &a, 1e-12);
        assert_close(&v, &b, 1e-12);
        Ok(())
    }

    #[test]
    fn lion_follows_its_formula_in_f64() -> Result<()> {
        let (p, m) = (waves(0.3), zeros());
        let rule = Lion { lr: 3e-3, beta1: 0.9, beta2: 0.99, weight_decay: 0.5 };
        let (mut x, mut a) = (floats(&p), floats(&m));
        for t in 1..=5 {
            let grads = waves(1.7 * t as f64);
            let g = floats(&grads);
            lion(&p, &grads, &m, &rule)?;
            for i in 0..x.len() {
                let c = 0.9 * a[i] + 0.1 * g[i];
                x[i] -= rule.lr * (c.signum() + rule.weight_decay * x[i]);
                a[i] = 0.99 * a[i] + 0.01 * g[i];
            }
        }
        assert_close(&p, &x, 1e-12);
        assert_close(&m, &a, 1e-12);
        Ok(())
    }

    #[test]
    fn a_gradient_of_another_layout_is_read_by_its_indices() -> Result<()> {
        let rule = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, weight_decay: 0.0, eps: 1e-8 };
        let step = |grad: Tensor| -> Result<Vec<f64>> {
            let p = [wave(&[4, 6], 0.0)];
            let moments = || [Tensor::zeros([4, 6], CPU)];
            adamw(&p, &[grad], &moments(), &moments(), 1, &rule)?;
            Ok(floats(&p))
        };
        let transposed = wave(&[6, 4], 2.0).tr();
        assert_eq!(step(transposed.contiguous())?, step(transposed)?);
        Ok(())
    }

    #[test]
    fn norm_clip_and_scale() -> Result<()> {
        let grads = waves(0.0);
        let expected = floats(&grads).iter().map(|g| g * g).sum::<f64>().sqrt();
        let norm = global_norm(&grads)?;
        assert!((f64::try_from(&norm)? - expected).abs() < 1e-12);

        let before = floats(&grads);
        clip_by_norm_(&grads, &norm, 10.0 * expected)?;
        assert_eq!(floats(&grads), before, "a norm below the limit leaves the gradients alone");
        clip_by_norm_(&grads, &norm, 0.5)?;
        assert!((f64::try_from(global_norm(&grads)?)? - 0.5).abs() < 1e-6);

        scale_(&grads, 4.0)?;
        assert!((f64::try_from(global_norm(&grads)?)? - 2.0).abs() < 1e-5);

        let nan = Tensor::from_slice(&[f64::NAN]);
        clip_by_norm_(&grads, &global_norm(&[nan])?, 1.0)?;
        assert!(floats(&grads).iter().all(|g| g.is_nan()), "a broken norm shows in every gradient");
        Ok(())
    }

    #[test]
    fn cleared_gradients_are_undefined_and_come_back() -> Result<()> {
        let w = wave(&[3], 1.0).set_requires_grad(true);
        (&w * 2.0).sum(Kind::Double).backward();
        assert!(w.grad().defined());
        clear_grads(&[w.shallow_clone()])?;
        assert!(!w.grad().defined());
        (&w * 3.0).sum(Kind::Double).backward();
        assert_eq!(floats(&[w.grad()]), [3.0; 3]);
        Ok(())
    }

    #[test]
    fn misfits_are_sentences() {
        let rule = Lion { lr: 1.0, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 };
        let adam = AdamW { lr: 1.0, beta1: 0.9, beta2: 0.99, weight_decay: 0.0, eps: 1e-8 };
        let p = [wave(&[2, 3], 0.0)];
        let other = [wave(&[3, 2], 0.0)];
        let message = |r: Result<()>| r.unwrap_err().to_string();
        assert!(message(lion(&p, &[], &p, &rule)).contains("0 gradients for 1 parameters"));
        assert!(message(lion(&p, &other, &p, &rule)).contains("has shape [3, 2]"));
        assert!(message(adamw(&p, &p, &other, &p, 1, &adam)).contains("first moment"));
        assert!(message(adamw(&p, &p, &p, &p, 0, &adam)).contains("from 1"));
        assert!(message(lion(&p, &[Tensor::new()], &p, &rule)).contains("undefined"));
        assert!(message(global_norm(&[]).map(|_| ())).contains("empty"));
        assert!(
            message(lion(&[p[0].select(1, 0)], &[p[0].select(1, 0)], &[p[0].select(1, 0)], &rule)).contains("gaps")
        );
    }
}
