//! What stands before and behind the linear map of an embedding of images, on the CPU; see `cpp/embedding.cpp`.
//!
//! ```text
//! patches   h = (patch - mean) / deviation
//! tokens    z = [class; norm(x)] + positions
//! ```
//!
//! Bare passes, without autograd. What is called a kind's numbers is `Float` for `BFloat16` and otherwise the kind itself.

use tch::{Kind, Tensor};

use crate::error::{Error, Result, check};
use crate::ffi;
use crate::rows::Statistics;

/// The patches of images, each less its mean and divided by its deviation (`eps` is added to the variance), row by row, the numbers of each in the order
/// (channel, row, column).
///
/// # Shapes
/// `images`: `[B, C, H, W]` in numbers of `kind`, contiguous, on the CPU, to `[B, N, C P1 P2]` in `kind`.
///
/// # Errors
/// Images that are of another kind or not divided by patches of `[P1, P2]`.
pub fn patches(images: &Tensor, [high, broad]: [i64; 2], eps: f64, kind: Kind) -> Result<Tensor> {
    if kind != Kind::BFloat16 && kind != images.kind() {
        return Err(Error::Argument(format!(
            "patches in {kind:?} of images in {:?}: expected the same",
            images.kind()
        )));
    }
    let mut result = std::ptr::null_mut();
    // SAFETY: a live tensor, checked by the shim; on success the pointer is a new tensor that is ours.
    unsafe {
        check(ffi::te_patches(images.as_ptr(), high, broad, eps, kind == Kind::BFloat16, &mut result))?;
        Ok(Tensor::from_ptr(result))
    }
}

/// A layer norm of embedded patches.
#[derive(Clone, Copy, Debug)]
pub struct TokenNorm<'a> {
    /// `[d]`, as numbers.
    pub scale: &'a Tensor,
    /// `[d]`, as numbers.
    pub shift: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
}

/// What [`TokenNorm::backward`] finds.
#[derive(Debug)]
pub struct Gradients {
    /// By the embedded patches, `[B, N, d]`.
    pub x: Tensor,
    /// By the norm's scale.
    pub scale: Tensor,
    /// By the norm's shift.
    pub shift: Tensor,
    /// By a bias that was added to the embedded patches: their gradient's sum over the rows.
    pub sum: Tensor,
    /// By the positions, `[1 + N, d]`; the first row is that by the class token.
    pub positions: Tensor,
}

impl TokenNorm<'_> {
    /// The class token and the normalised patches, positions added; and what the norm has found.
    ///
    /// # Shapes
    /// `x`: `[B, N, d]`, `class`: `[d]`, `positions`: `[1 + N, d]`, contiguous, on the CPU, to `[B, 1 + N, d]` in the kind of `x`; others are its numbers.
    ///
    /// # Errors
    /// Tensors that do not belong together, by name.
    pub fn forward(&self, x: &Tensor, class: &Tensor, positions: &Tensor) -> Result<(Tensor, Statistics)> {
        let mut found = [std::ptr::null_mut(); 3];
        // SAFETY: live tensors, checked by the shim, and room for three pointers; on success those are new tensors that are ours.
        unsafe {
            check(ffi::te_tokens(
                x.as_ptr(),
                self.scale.as_ptr(),
                self.shift.as_ptr(),
                self.eps,
                class.as_ptr(),
                positions.as_ptr(),
                found.as_mut_ptr(),
            ))?;
            let [z, mean, rstd] = found.map(|t| Tensor::from_ptr(t));
            Ok((z, Statistics { mean, rstd }))
        }
    }

    /// The gradients, given that by the tokens, `[B, 1 + N, d]`.
    ///
    /// # Errors
    /// Tensors that do not belong together, by name.
    pub fn backward(&self, grad: &Tensor, x: &Tensor, mean: &Tensor, rstd: &Tensor) -> Result<Gradients> {
        let mut found = [std::ptr::null_mut(); 5];
        // SAFETY: live tensors, checked by the shim, and room for five pointers; on success those are new tensors that are ours.
        unsafe {
            check(ffi::te_tokens_backward(
                grad.as_ptr(),
                x.as_ptr(),
                mean.as_ptr(),
                rstd.as_ptr(),
                self.scale.as_ptr(),
                self.shift.as_ptr(),
                found.as_mut_ptr(),
            ))?;
            let [x, scale, shift, sum, positions] = found.map(|t| Tensor::from_ptr(t));
            Ok(Gradients { x, scale, shift, sum, positions })
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::testing::{assert_near, wave};

    const KINDS: [(Kind, Kind, f64); 3] =
        [(Kind::Double, Kind::Double, 1e-12), (Kind::Float, Kind::Float, 1e-5), (Kind::BFloat16, Kind::Float, 1e-2)];

    #[test]
    fn patches_are_cut_and_normalised() -> Result<()> {
        for (size, [p1, p2]) in [([2, 3, 8, 12], [4, 4]), ([1, 1, 5, 21], [5, 7]), ([3, 2, 6, 2], [1, 2])] {
            let [b, c, h, w] = size;
            let images = wave(&size, 0.3) * 3.0 + 1.0;
            let cut = images.reshape([b, c, h / p1, p1, w / p2, p2]).permute([0, 2, 4, 1, 3, 5]);
            let cut = cut.reshape([b, -1, c * p1 * p2]);
            let expected = cut.layer_norm([c * p1 * p2], None::<&Tensor>, None::<&Tensor>, 1e-5, true);
            for (kind, number, tolerance) in KINDS {
                let found = patches(&images.to_kind(number), [p1, p2], 1e-5, kind)?;
                assert_eq!(found.kind(), kind);
                assert_near(&found, &expected, tolerance, &format!("{kind:?} {size:?}"));
            }
            let refused = patches(&images, [11 * p1, p2], 1e-5, Kind::Double).unwrap_err().to_string();
            assert!(refused.contains("divide"), "{refused}");
            assert!(patches(&images, [p1, p2], 1e-5, Kind::Float).is_err());
        }
        Ok(())
    }

    /// One token, and more than are worked on together; sizes off every vector.
    #[test]
    fn tokens_and_their_gradients_are_those_of_the_formula() -> Result<()> {
        for [b, n, d] in [[1, 1, 8], [3, 37, 24], [4, 16, 33]] {
            let leaf = |t: Tensor| t.set_requires_grad(true);
            let (x, class, positions) =
                (leaf(wave(&[b, n, d], 0.1)), leaf(wave(&[d], 0.2)), leaf(wave(&[n + 1, d], 0.4)));
            let (scale, shift) = (leaf(wave(&[d], 0.5) + 1.5), leaf(wave(&[d], 0.6)));
            let grad = wave(&[b, n + 1, d], 0.7) + 0.5;
            let h = x.layer_norm([d], Some(&scale), Some(&shift), 1e-5, true);
            let expected = Tensor::cat(&[class.view([1, 1, d]).expand([b, 1, d], false), h], 1) + &positions;
            let leaves = [&x, &scale, &shift, &positions, &class];
            let by = Tensor::run_backward(&[(&expected * &grad).sum(Kind::Double)], &leaves, false, false);
            for (kind, number, tolerance) in KINDS {
                let to = |t: &Tensor| t.detach().to_kind(number);
                let (xk, s, t) = (x.detach().to_kind(kind), to(&scale), to(&shift));
                let norm = TokenNorm { scale: &s, shift: &t, eps: 1e-5 };
                let (z, found) = norm.forward(&xk, &to(&class), &to(&positions))?;
                assert_eq!(z.kind(), kind);
                let what = |name: &str| format!("{name}, {kind:?} {:?}", [b, n, d]);
                assert_near(&z, &expected, tolerance, &what("tokens"));
                let back = norm.backward(&grad.to_kind(kind), &xk, &found.mean, &found.rstd)?;
                assert_near(&back.x, &by[0], 3.0 * tolerance, &what("x"));
                assert_near(&back.scale, &by[1], tolerance, &what("scale"));
                assert_near(&back.shift, &by[2], tolerance, &what("shift"));
                assert_near(&back.positions, &by[3], tolerance, &what("positions"));
                assert_near(&back.positions.select(0, 0), &by[4], tolerance, &what("class token"));
                let sum = back.x.reshape([-1, d]).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
                let error = f64::try_from((back.sum.to_kind(Kind::Double) - sum).norm()).unwrap();
                assert!(error < 10.0 * tolerance, "{}: {error}", what("sum"));
            }
        }
        let (x, d) = (wave(&[2, 3, 8], 0.1), wave(&[8], 0.2));
        let norm = TokenNorm { scale: &d, shift: &d, eps: 1e-5 };
        let message = norm.forward(&x, &d, &wave(&[3, 8], 0.1)).unwrap_err().to_string();
        assert!(message.contains("the positions must be"), "{message}");
        Ok(())
    }
}
