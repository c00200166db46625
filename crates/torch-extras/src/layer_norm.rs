//! LayerNorm's backward pass by itself, which tch does not wrap; the forward pass is `Tensor::native_layer_norm`.

use tch::Tensor;

use crate::error::{Result, check};
use crate::ffi;

/// The gradients of a layer norm over the last dimensions.
#[derive(Debug)]
pub struct Gradients {
    /// By the input.
    pub input: Tensor,
    /// By the scale.
    pub weight: Tensor,
    /// By the shift.
    pub bias: Tensor,
}

/// The gradients of `native_layer_norm(input, weight, bias)`, given that by its output; `mean` and `rstd` are the second and third result of it.
///
/// # Shapes
/// `grad`, `input`: `[..., d]`; `weight`, `bias`: `[d]`; `mean`, `rstd`: `[..., 1]`.
///
/// # Errors
/// Shapes or kinds that do not belong together.
pub fn layer_norm_backward(
    grad: &Tensor,
    input: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Gradients> {
    let (mut x, mut w, mut b) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    let [grad, input, mean, rstd, weight, bias] = [grad, input, mean, rstd, weight, bias].map(Tensor::as_ptr);
    // SAFETY: live tensors; on success the three pointers are new tensors that are ours.
    unsafe {
        check(ffi::te_layer_norm_backward(grad, input, mean, rstd, weight, bias, &mut x, &mut w, &mut b))?;
        Ok(Gradients { input: Tensor::from_ptr(x), weight: Tensor::from_ptr(w), bias: Tensor::from_ptr(b) })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn gradients_are_those_of_autograd() -> Result<()> {
        let wave = |shape: &[i64], salt: f64| {
            let count = shape.iter().product::<i64>();
            (Tensor::arange(count, (Kind::Double, Device::Cpu)) + salt).sin().reshape(shape).set_requires_grad(true)
        };
        let (x, w, b, g) = (wave(&[3, 5, 8], 0.1), wave(&[8], 0.2), wave(&[8], 0.3), wave(&[3, 5, 8], 0.4).detach());
        let (y, mean, rstd) = x.native_layer_norm([8], Some(&w), Some(&b), 1e-5);
        (&y * &g).sum(Kind::Double).backward();
        let found = layer_norm_backward(&g, &x.detach(), &mean, &rstd, &w.detach(), &b.detach())?;
        for (a, b) in [(found.input, x.grad()), (found.weight, w.grad()), (found.bias, b.grad())] {
            assert!(a.allclose(&b, 1e-12, 1e-12, false));
        }
        assert!(layer_norm_backward(&g, &x.narrow(0, 0, 2), &mean, &rstd, &w, &b).is_err());
        Ok(())
    }
}
