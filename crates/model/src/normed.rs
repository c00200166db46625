//! A layer norm and the linear map behind it as one operation with a backward pass of its own, for the CPU.

use tch::{Device, Kind, Tensor};
use torch_extras::function;
use torch_extras::rows::{Back, Map, Norm, weight_gradient};

use crate::layers::{LayerNorm, Linear, computing_kind};

/// `linear(norm(x))`. Rows are normalised where they are multiplied, and of what comes to be in between nothing is kept. Under autocast they are normalised in their
/// own kind first, as elsewhere: bf16 has too few digits for rows whose numbers differ little. The operation cannot be differentiated twice.
///
/// # Shapes
/// `x`: `[..., in]` to `[..., out]`.
pub(crate) fn normed_linear(norm: &LayerNorm, linear: &Linear, x: &Tensor) -> Tensor {
    let parameters = || norm.parameters().chain(linear.parameters());
    let inputs: Vec<&Tensor> = [x].into_iter().chain(parameters()).collect();
    let whole = norm.affine.is_some() && linear.bias.is_some();
    let fits = x.device() == Device::Cpu
        && matches!(x.kind(), Kind::Float | Kind::Double)
        && computing_kind(x) == x.kind()
        && parameters().all(|t| t.kind() == x.kind() && t.device() == Device::Cpu && t.is_contiguous())
        && x.numel() > 0
        && (whole || !function::recorded(&inputs).unwrap_or(true));
    if !fits {
        return linear.forward(&norm.forward(x).to_kind(linear.weight.kind()));
    }
    let plain = "the shapes are those of the layers";
    let (rows, weight) = (x.contiguous(), &linear.weight);
    let (out, statistics) = tch::no_grad(|| {
        let affine = norm.affine.as_ref().map(|(scale, shift)| (scale, shift));
        let norm = Some(Norm { affine, eps: norm.eps });
        Map { norm, bias: linear.bias.as_ref(), ..Map::new(weight) }.forward(&rows).expect(plain)
    });
    let (Some((scale, shift)), Some(statistics), true) = (&norm.affine, statistics, whole) else { return out };
    let kept = [&rows, weight, scale, shift, &statistics.mean, &statistics.rstd];
    function::attach("norm and linear map", &[&out], &inputs, &kept, |kept, grads| {
        let [x, weight, scale, shift, mean, rstd] = kept else { return Err("six tensors were kept".into()) };
        let Some(grad) = &grads[0] else { return Ok((0..5).map(|_| None).collect()) };
        let grad = grad.contiguous();
        let back = Back { out: None, weight, x, statistics: (mean, rstd), affine: (scale, shift), add: None };
        let found = back.backward(&grad)?;
        let by_weight = weight_gradient(&grad, &found.h)?;
        let by_bias = grad.reshape([-1, weight.size()[0]]).sum_dim_intlist([0i64].as_slice(), false, grad.kind());
        Ok([found.x, found.scale, found.shift, by_weight, by_bias].map(Some).into())
    })
    .expect("all tensors are defined");
    out
}

#[cfg(test)]
mod tests {
    use tch::nn::VarStore;

    use super::*;
    use crate::layers::LinearInit;

    /// Values and every gradient against the two layers one after the other, with and without what is left of them by folding.
    #[test]
    fn one_operation_is_the_two_layers() {
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5)] {
            let mut vs = VarStore::new(Device::Cpu);
            let norm = LayerNorm::new(&(vs.root() / "norm"), 40, 1e-5);
            let linear = Linear::new(&(vs.root() / "linear"), 40, 24, true, LinearInit::PyTorch);
            if kind == Kind::Double {
                vs.double();
            }
            tch::no_grad(|| norm.parameters().for_each(|t| drop(t.shallow_clone().uniform_(0.5, 1.5))));
            let count = Tensor::arange(3 * 70 * 40, (Kind::Double, Device::Cpu));
            let x = ((count * 1.3).sin() * 3.0 + 0.5).reshape([3, 70, 40]).to_kind(kind).set_requires_grad(true);
            let found = normed_linear(&norm, &linear, &x);
            let expected = linear.forward(&norm.forward(&x));
            let inputs: Vec<Tensor> = [&x]
                .into_iter()
                .chain(norm.parameters())
                .chain(linear.parameters())
                .map(Tensor::shallow_clone)
                .collect();
            let weight = (Tensor::arange(24, (kind, Device::Cpu)) * 0.7).cos() + 0.3;
            let [own, plain] = [&found, &expected]
                .map(|y| Tensor::run_backward(&[(y * y * &weight).sum(kind)], &inputs, false, false));
            let near = |a: &Tensor, b: &Tensor, what: &str| {
                let error = f64::try_from((a - b).norm() / b.norm()).unwrap();
                assert!(error < tolerance, "{what} in {kind:?}: {error}");
            };
            near(&found, &expected, "the result");
            let names = ["x", "scale", "shift", "weight", "bias"];
            own.iter().zip(&plain).zip(names).for_each(|((a, b), what)| near(a, b, what));
            let bare = norm.bare();
            tch::no_grad(|| {
                near(&normed_linear(&bare, &linear, &x), &linear.forward(&bare.forward(&x)), "without scale")
            });
        }
    }
}
