//! Linear maps of rows on the CPU together with what stands before and behind them; `cpp/rows.cpp` says why they are computed in blocks.
//!
//! ```text
//! forward     y = act(norm(x) W^T + bias + residual)
//! backward    g = dy o [out > 0]     h = norm(x)     dx = norm'(g W) + add
//! ```
//!
//! Bare passes, without autograd. Rows are `Float`, `Double` or `BFloat16`; scale, shift, bias and statistics are `Float` where those are
//! `BFloat16`, otherwise of the same kind. Weights are of either kind: `Float` ones are rounded to the `BFloat16` of their rows on their way.

use tch::Tensor;

use crate::error::{Result, check};
use crate::ffi;

/// A layer norm over the last dimension.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Scale and shift, `[k]` each, where there are any.
    pub affine: Option<(&'a Tensor, &'a Tensor)>,
    /// Added to the variance.
    pub eps: f64,
}

/// What a layer norm has found of every row.
#[derive(Debug)]
pub struct Statistics {
    /// `[rows]`.
    pub mean: Tensor,
    /// One over the deviation, `[rows]`.
    pub rstd: Tensor,
}

/// A linear map and its surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// Applied to the rows first.
    pub norm: Option<Norm<'a>>,
    /// `[n, k]`.
    pub weight: &'a Tensor,
    /// Whether the weight is `[k, n]` instead.
    pub transposed: bool,
    /// `[n]`.
    pub bias: Option<&'a Tensor>,
    /// As the result.
    pub residual: Option<&'a Tensor>,
    /// Whether negative numbers become zero in the end.
    pub relu: bool,
}

impl<'a> Map<'a> {
    /// The product with `weight` `[n, k]` alone, to be completed by fields.
    pub fn new(weight: &'a Tensor) -> Self {
        Map { norm: None, weight, transposed: false, bias: None, residual: None, relu: false }
    }

    /// The mapped rows, and what the norm has found, where there is one.
    ///
    /// # Shapes
    /// `x`: `[..., k]` contiguous, on the CPU, to `[..., n]`.
    ///
    /// # Errors
    /// Tensors that do not belong together, by name.
    pub fn forward(&self, x: &Tensor) -> Result<(Tensor, Option<Statistics>)> {
        let (out, statistics, _) = self.forward_beside(x, [])?;
        Ok((out, statistics))
    }

    /// The same beside gradients by weights, `g^T h` as [`weight_gradient`] computes them, of pairs of rows of the same kind as `x`. Threads take those first, of which
    /// one is always done before the others; here it goes on with the map. With as many gradients as threads none is cut into parts that are added in the end.
    ///
    /// # Errors
    /// Tensors that do not belong together.
    pub fn forward_beside<const N: usize>(
        &self,
        x: &Tensor,
        gradients: [(&Tensor, &Tensor); N],
    ) -> Result<(Tensor, Option<Statistics>, [Tensor; N])> {
        let (scale, shift) = self.norm.and_then(|norm| norm.affine).unzip();
        let [scale, shift, bias, residual] = [scale, shift, self.bias, self.residual].map(pointer);
        let eps = self.norm.map_or(0.0, |norm| norm.eps);
        let (g, h) = (gradients.map(|(g, _)| g.as_ptr()), gradients.map(|(_, h)| h.as_ptr()));
        let (mut out, mut mean, mut rstd) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        let mut found = [std::ptr::null_mut(); N];
        // SAFETY: null or live tensors, checked by the shim, and room for as many pointers as there are pairs; what comes back is null or a new tensor that is ours.
        unsafe {
            check(ffi::te_rows_forward(
                x.as_ptr(),
                self.norm.is_some(),
                scale,
                shift,
                eps,
                self.weight.as_ptr(),
                self.transposed,
                bias,
                residual,
                self.relu,
                N,
                g.as_ptr().cast(),
                h.as_ptr().cast(),
                &mut out,
                &mut mean,
                &mut rstd,
                found.as_mut_ptr(),
            ))?;
            let statistics =
                (!mean.is_null()).then(|| Statistics { mean: Tensor::from_ptr(mean), rstd: Tensor::from_ptr(rstd) });
            Ok((Tensor::from_ptr(out), statistics, found.map(|t| Tensor::from_ptr(t))))
        }
    }
}

/// The way back through a product and the layer norm before it.
#[derive(Clone, Copy, Debug)]
pub struct Back<'a> {
    /// The result of the map, where a ReLU was its end.
    pub out: Option<&'a Tensor>,
    /// `[n, k]`.
    pub weight: &'a Tensor,
    /// The input of the norm, `[..., k]`.
    pub x: &'a Tensor,
    /// What the norm has found.
    pub statistics: (&'a Tensor, &'a Tensor),
    /// The norm's scale and shift, `[k]` each.
    pub affine: (&'a Tensor, &'a Tensor),
    /// To be added to the gradient by the input.
    pub add: Option<&'a Tensor>,
}

/// What [`Back::backward`] finds.
#[derive(Debug)]
pub struct Gradients {
    /// The gradient where the ReLU let through; none without `out`.
    pub g: Option<Tensor>,
    /// The normalised rows, formed again, for [`weight_gradient`].
    pub h: Tensor,
    /// By the input, with `add`.
    pub x: Tensor,
    /// By the norm's scale.
    pub scale: Tensor,
    /// By the norm's shift.
    pub shift: Tensor,
    /// `x` summed over the rows: the gradient by a bias that was added to the input.
    pub sum: Tensor,
}

impl Back<'_> {
    /// The gradients, given that by the map's result.
    ///
    /// # Shapes
    /// `grad`: `[..., n]` contiguous, on the CPU.
    ///
    /// # Errors
    /// Tensors that do not belong together, by name.
    pub fn backward(&self, grad: &Tensor) -> Result<Gradients> {
        let mut found = [std::ptr::null_mut(); 6];
        let [out, add] = [self.out, self.add].map(pointer);
        // SAFETY: null or live tensors, checked by the shim, and room for six pointers; what comes back is null or a new tensor that is ours.
        unsafe {
            check(ffi::te_rows_backward(
                grad.as_ptr(),
                out,
                self.weight.as_ptr(),
                self.x.as_ptr(),
                self.statistics.0.as_ptr(),
                self.statistics.1.as_ptr(),
                self.affine.0.as_ptr(),
                self.affine.1.as_ptr(),
                add,
                found.as_mut_ptr(),
            ))?;
            let [g, h, x, scale, shift, sum] = found;
            let g = (!g.is_null()).then(|| Tensor::from_ptr(g));
            let [h, x, scale, shift, sum] = [h, x, scale, shift, sum].map(|t| Tensor::from_ptr(t));
            Ok(Gradients { g, h, x, scale, shift, sum })
        }
    }
}

/// The gradient by a weight, `g^T h`.
///
/// # Shapes
/// `g`: `[..., n]`, `h`: `[..., k]`, contiguous, on the CPU, with the same number of rows, to `[n, k]`, `Float` where they are `BFloat16`.
///
/// # Errors
/// Tensors that do not belong together.
pub fn weight_gradient(g: &Tensor, h: &Tensor) -> Result<Tensor> {
    Product::default().compute(g, h)
}

/// Other products like [`weight_gradient`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Product {
    /// `g^T h^T`, for `h` `[k, rows]`.
    pub turned: bool,
    /// Of floats by 16 of their 24 bits where that is faster (CPUs with AMX): for what meets bf16 next.
    pub coarse: bool,
}

impl Product {
    /// # Shapes
    /// `g`: `[..., n]`, `h`: `[..., k]`, or `[k, rows]`, to `[n, k]`; otherwise as [`weight_gradient`].
    ///
    /// # Errors
    /// Tensors that do not belong together.
    pub fn compute(self, g: &Tensor, h: &Tensor) -> Result<Tensor> {
        let mut result = std::ptr::null_mut();
        // SAFETY: live tensors, checked by the shim; on success the pointer is a new tensor that is ours.
        unsafe {
            check(ffi::te_weight_gradient(g.as_ptr(), h.as_ptr(), self.turned, self.coarse, &mut result))?;
            Ok(Tensor::from_ptr(result))
        }
    }
}

pub(crate) fn pointer(tensor: Option<&Tensor>) -> *const torch_sys::C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::testing::{assert_near, wave};

    const KINDS: [(Kind, f64); 3] = [(Kind::Double, 1e-12), (Kind::Float, 1e-5), (Kind::BFloat16, 5e-2)];

    fn numbers(kind: Kind) -> Kind {
        if kind == Kind::BFloat16 { Kind::Float } else { kind }
    }

    /// Everything on and everything off; one row, and more rows than a block.
    #[test]
    fn values_are_those_of_the_formula() -> Result<()> {
        let (k, n) = (24, 40);
        for rows in [[1, 1], [3, 7], [5, 900]] {
            let x = wave(&[rows[0], rows[1], k], 0.1);
            let (w, b, r) = (wave(&[n, k], 0.2), wave(&[n], 0.3), wave(&[rows[0], rows[1], n], 0.4));
            let (scale, shift) = (wave(&[k], 0.5), wave(&[k], 0.6));
            for (kind, tolerance) in KINDS {
                let to = |t: &Tensor| t.to_kind(kind);
                let number = |t: &Tensor| t.to_kind(numbers(kind));
                let (xk, wk, bk, rk, s, t) = (to(&x), to(&w), number(&b), to(&r), number(&scale), number(&shift));
                let norm = Some(Norm { affine: Some((&s, &t)), eps: 1e-5 });
                let whole = Map { norm, bias: Some(&bk), residual: Some(&rk), relu: true, ..Map::new(&wk) };
                let (found, statistics) = whole.forward(&xk)?;
                let h = x.layer_norm([k], Some(&scale), Some(&shift), 1e-5, true);
                assert_near(&found, &(h.matmul(&w.tr()) + &b + &r).relu(), tolerance, "all of it");
                let mean = x.mean_dim([-1i64].as_slice(), false, Kind::Double).reshape([-1]);
                assert_near(&statistics.unwrap().mean, &mean, tolerance, "mean");

                let bare = Map { norm: Some(Norm { affine: None, eps: 1e-5 }), ..Map::new(&wk) };
                let h = x.layer_norm([k], None::<&Tensor>, None::<&Tensor>, 1e-5, true);
                assert_near(&bare.forward(&xk)?.0, &h.matmul(&w.tr()), tolerance, "without scale and shift");

                let turned = wk.tr().contiguous();
                let bare = Map { transposed: true, ..Map::new(&turned) };
                let (found, statistics) = bare.forward(&xk)?;
                assert_near(&found, &x.matmul(&w.tr()), tolerance, "a bare product");
                assert!(statistics.is_none());
                let (beside, _, [by_w, by_r]) = bare.forward_beside(&xk, [(&rk, &xk), (&xk, &rk)])?;
                assert_eq!(beside, found);
                assert_near(
                    &by_w,
                    &weight_gradient(&rk, &xk)?.to_kind(Kind::Double),
                    tolerance,
                    "a gradient beside it",
                );
                assert_near(&by_r, &weight_gradient(&xk, &rk)?.to_kind(Kind::Double), tolerance, "and another one");

                let floats = w.to_kind(Kind::Float);
                let (rounded, floats_turned) = (floats.to_kind(kind), floats.tr().contiguous());
                if kind == Kind::BFloat16 {
                    let expected = Map::new(&rounded).forward(&xk)?.0;
                    assert_eq!(Map::new(&floats).forward(&xk)?.0, expected, "a weight is rounded on its way");
                    let turned = Map { transposed: true, ..Map::new(&floats_turned) };
                    assert_eq!(turned.forward(&xk)?.0, expected, "and one that lies the other way");
                }
            }
        }
        Ok(())
    }

    /// The last of them with a factor that is larger than a part of a core's cache, for which strips are higher.
    #[test]
    fn gradients_are_those_of_autograd() -> Result<()> {
        for (k, n, rows) in [(24, 40, [1, 1]), (24, 40, [5, 900]), (37, 41, [2, 30]), (460, 470, [3, 101])] {
            let leaf = |t: Tensor| t.set_requires_grad(true);
            let (x, w) = (leaf(wave(&[rows[0], rows[1], k], 0.1)), leaf(wave(&[n, k], 0.2)));
            let (scale, shift) = (leaf(wave(&[k], 0.5)), leaf(wave(&[k], 0.6)));
            // Off zero, so that no sum over rows cancels.
            let (dy, add) = (wave(&[rows[0], rows[1], n], 0.7) + 0.5, wave(&[rows[0], rows[1], k], 0.8));
            for relu in [true, false] {
                let y = x.layer_norm([k], Some(&scale), Some(&shift), 1e-5, true).matmul(&w.tr());
                let y = if relu { y.relu() } else { y };
                let expected =
                    Tensor::run_backward(&[(&y * &dy).sum(Kind::Double)], &[&x, &w, &scale, &shift], false, false);
                for (kind, tolerance) in KINDS {
                    // Its sums cancel: fewer digits are left, in bf16 too few.
                    let tolerance = if k > 100 { 10.0 * tolerance } else { tolerance };
                    if k > 100 && kind == Kind::BFloat16 {
                        continue;
                    }
                    let to = |t: &Tensor| t.detach().to_kind(kind);
                    let number = |t: &Tensor| t.detach().to_kind(numbers(kind));
                    let (xk, wk, yk, addk, dyk) = (to(&x), to(&w), to(&y), to(&add), to(&dy));
                    let (s, t) = (number(&scale), number(&shift));
                    let norm = Norm { affine: Some((&s, &t)), eps: 1e-5 };
                    let statistics = Map { norm: Some(norm), ..Map::new(&wk) }.forward(&xk)?.1.unwrap();
                    let back = Back {
                        out: relu.then_some(&yk),
                        weight: &wk,
                        x: &xk,
                        statistics: (&statistics.mean, &statistics.rstd),
                        affine: (&s, &t),
                        add: Some(&addk),
                    };
                    let found = back.backward(&dyk)?;
                    let rounded_later = Back { weight: &number(&wk), ..back }.backward(&dyk)?;
                    assert_eq!(rounded_later.x, found.x, "a weight in the kind of sums");
                    let g = found.g.as_ref().unwrap_or(&dyk).reshape([-1, n]).to_kind(Kind::Double);
                    let by_weight = g.tr().matmul(&found.h.reshape([-1, k]).to_kind(Kind::Double));
                    let own = weight_gradient(found.g.as_ref().unwrap_or(&dyk), &found.h)?;
                    assert_eq!(own.kind(), numbers(kind));
                    assert_near(&own, &by_weight, tolerance, "weight, by its own product");
                    let by_x = &expected[0] + &add;
                    assert_near(&found.x, &by_x, tolerance, "x");
                    assert_near(&by_weight, &expected[1], tolerance, "weight");
                    assert_near(&found.scale, &expected[2], tolerance, "scale");
                    assert_near(&found.shift, &expected[3], tolerance, "shift");
                    let sum = by_x.reshape([-1, k]).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
                    assert_near(&found.sum, &sum, 2.0 * tolerance, "sum");
                    assert_eq!(found.g.is_some(), relu);
                }
            }
        }
        Ok(())
    }

    /// More rows than one thread takes, a result of more than one piece, none of it a multiple of a panel; and a result that is written where it belongs.
    #[test]
    fn gradients_of_large_weights_are_cut() -> Result<()> {
        for (rows, m, n) in [(2101, 70, 200), (300, 611, 530), (1100, 64, 96), (1, 450, 450)] {
            // bf16 products are exact in float; the waves cancel each other in part.
            for (kind, tolerance) in [(Kind::Double, 1e-11), (Kind::Float, 1e-4), (Kind::BFloat16, 1e-4)] {
                let (g, h) = (wave(&[rows, m], 0.3).to_kind(kind), wave(&[rows, n], 0.7).to_kind(kind));
                let expected = g.to_kind(Kind::Double).tr().matmul(&h.to_kind(Kind::Double));
                let found = weight_gradient(&g, &h)?;
                assert_eq!(found.kind(), numbers(kind));
                for product in [(true, false), (false, true), (true, true)] {
                    let (turned, coarse) = product;
                    let h = if turned { h.tr().contiguous() } else { h.shallow_clone() };
                    let tolerance = if coarse && kind == Kind::Float { 20.0 * tolerance } else { tolerance };
                    let found = Product { turned, coarse }.compute(&g, &h)?;
                    assert_near(&found, &expected, tolerance, &format!("{product:?}, {rows} {m} {n} {kind:?}"));
                }
                assert_near(&found, &expected, tolerance, &format!("{rows} {m} {n} {kind:?}"));
            }
        }
        Ok(())
    }

    /// However float products are taken, their digits are float's; numbers of all sizes, a factor larger than a core's cache, sizes off every tile.
    #[test]
    fn float_products_keep_their_digits() -> Result<()> {
        let (rows, k, n) = (150, 453, 461);
        let wide = |t: Tensor, salt: f64| (wave(&[1, k], salt) * 3.0).exp() * t;
        let (x, w) = (wide(wave(&[rows, k], 0.1), 0.4), wave(&[n, k], 0.2));
        let (x, w) = (x.to_kind(Kind::Float), w.to_kind(Kind::Float));
        let exact = x.to_kind(Kind::Double).matmul(&w.to_kind(Kind::Double).tr());
        // A sum of float products one by one is off by 4e-7 of this; one of the numbers' first 16 bits by 1e-5.
        assert_near(&Map::new(&w).forward(&x)?.0, &exact, 6e-7, "by rows");
        let turned = Map { transposed: true, ..Map::new(&w.tr().contiguous()) }.forward(&x)?.0;
        assert_near(&turned, &exact, 6e-7, "by a transposed weight");
        assert_near(&weight_gradient(&x.tr().contiguous(), &w.tr().contiguous())?, &exact, 6e-7, "by columns");
        Ok(())
    }

    /// The same on what older CPUs are given, in processes of their own: the choice is made when the program starts.
    #[test]
    fn lesser_cpus_compute_the_same() {
        let rows = ["rows::tests::values", "rows::tests::gradients", "rows::tests::float", "matrices::tests"];
        let others = ["attention::tests::values", "pooling::tests::values", "embedding::tests"];
        for cpu in ["any", "avx2", "avx512", "avx512_bf16"] {
            let program = std::env::current_exe().unwrap();
            let run =
                std::process::Command::new(program).args(rows).args(others).env("WHITEBOX_CPU", cpu).output().unwrap();
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(run.status.success() && said.contains("11 passed"), "{cpu}: {said}");
        }
    }

    /// A broken number must not be hidden by the ReLU.
    #[test]
    fn what_is_no_number_stays_none() -> Result<()> {
        for (kind, _) in KINDS {
            for broken in [f64::NAN, f64::INFINITY] {
                let x = Tensor::full([1, 4], broken, (kind, Device::Cpu));
                let w = Tensor::ones([2, 4], (kind, Device::Cpu));
                let (y, _) = Map { relu: true, ..Map::new(&w) }.forward(&x)?;
                assert!(!bool::try_from(y.isfinite().any()).unwrap(), "{kind:?} {broken}");
            }
        }
        Ok(())
    }

    #[test]
    fn no_rows_have_no_gradients() -> Result<()> {
        let (none, w, s) = (wave(&[0, 4], 0.0), wave(&[4, 4], 0.0), wave(&[4], 0.0));
        let statistics = wave(&[0], 0.0);
        let back = Back {
            out: None,
            weight: &w,
            x: &none,
            statistics: (&statistics, &statistics),
            affine: (&s, &s),
            add: None,
        };
        let found = back.backward(&none)?;
        for sum in [found.scale, found.shift, found.sum] {
            assert_eq!(sum, s.zeros_like());
        }
        Ok(())
    }

    #[test]
    fn misfits_are_sentences() {
        let (x, w) = (wave(&[3, 4], 0.0), wave(&[5, 4], 0.0));
        let message = |map: Map<'_>, x: &Tensor| map.forward(x).unwrap_err().to_string();
        assert!(message(Map::new(&w), &wave(&[3, 6], 0.0)).contains("rows of 6 numbers do not fit"));
        assert!(message(Map { bias: Some(&x), ..Map::new(&w) }, &x).contains("the bias"));
        assert!(message(Map { residual: Some(&x), ..Map::new(&w) }, &x).contains("the residual"));
        assert!(message(Map::new(&w.to_kind(Kind::Float)), &x).contains("the rows' kind"));
        assert!(message(Map::new(&w.to_kind(Kind::Half)), &x.to_kind(Kind::Half)).contains("expected Float"));
        assert!(message(Map::new(&w), &x.tr()).contains("contiguous"));
        let misfit = |g: &Tensor, h: &Tensor| weight_gradient(g, h).unwrap_err().to_string();
        assert!(misfit(&x, &w).contains("as many rows"));
        assert!(misfit(&x, &x.to_kind(Kind::Float)).contains("the gradient"));
    }
}
