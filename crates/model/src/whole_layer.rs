//! A CRATE layer as released, as one operation with a backward pass of its own, for the CPU.
//!
//! [`Block::forward`](crate::block::Block::forward) written op by op is right and readable, and autograd would keep nine tensors of the
//! tokens' size a layer. Here five are kept, in the kind that is computed in, and what is cheap is formed again:
//!
//! ```text
//! forward    h = LN1(z)     w = h U^T           o = attention(w)     z' = z + o W^T + b
//!            h' = LN2(z')   out = ReLU(M h' - eta lambda)
//! kept       z              w                   o                    z'                      out     (and the statistics of rows)
//! backward   g = G o [out > 0]       h' = LN2(z')    dM = g^T h'      dh' = g M
//!            dz' = LN2'(dh')         dW = dz'^T o    db = sum dz'     dw = attention'(dz' W)
//!            h = LN1(z)              dU = dw^T h     dz = LN1'(dw U) + dz'
//! ```
//!
//! `out` is the next layer's `z`, so that it takes no memory of its own, and the signs that the ReLU's gradient asks for stand in it. `M` and the way
//! from `dM` to `dD` are in [`ista`](crate::ista). Under autocast to bf16 tokens are bf16 from layer to layer; weights are cast once.
//! Values and gradients are held against the layer op by op in tests/forms.rs.

use tch::{Kind, Tensor};
use torch_extras::layer_norm::layer_norm_backward;
use torch_extras::{attention, function};

use crate::ista::{Ista, dictionary_gradient};
use crate::layers::{LayerNorm, Linear, computing_kind, without_autocast};
use crate::mssa::{Mssa, attention_fits};

/// The parts of the layer.
pub(crate) struct Parts<'a> {
    pub norm1: &'a LayerNorm,
    pub mssa: &'a Mssa,
    pub output: &'a Linear,
    pub norm2: &'a LayerNorm,
    pub ista: &'a Ista,
}

impl Parts<'_> {
    /// Whether this is the way to compute the layer for tokens `z`.
    pub fn fit(&self, z: &Tensor) -> bool {
        let kind = computing_kind(z);
        let kinds = matches!(kind, Kind::Float | Kind::Double | Kind::BFloat16);
        let whole = self.norm1.affine.is_some() && self.norm2.affine.is_some() && self.output.bias.is_some();
        kinds && whole && self.ista.kept.is_none() && attention_fits(z) && self.ista.one_product(z)
    }

    /// `Z^l` to `Z^{l+1}`.
    ///
    /// # Shapes
    /// `z`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, z: &Tensor) -> Tensor {
        let kind = computing_kind(z);
        let _plain = without_autocast(z.device());
        let Parts { norm1, mssa, output, norm2, ista } = *self;
        let asked = "`fit` asks for it";
        let bias = output.bias.as_ref().expect(asked);
        let (scale1, shift1) = norm1.affine.as_ref().expect(asked);
        let (scale2, shift2) = norm2.affine.as_ref().expect(asked);
        let (heads, scale, eta) = (mssa.head_count(), mssa.scale(), ista.eta());
        let (out, saved) = tch::no_grad(|| {
            let z = z.to_kind(kind).contiguous();
            let (u, weight, m) = (mssa.u.to_kind(kind), output.weight.to_kind(kind), ista.operator().to_kind(kind));
            let (h, mean1, rstd1) = normalise(scale1, shift1, norm1.eps, &z);
            let w = h.linear(&u, None::<&Tensor>);
            let (o, logarithms) = attention::subspace_attention(&w, heads, scale).expect("the projection fits");
            let half = o.linear(&weight, Some(&bias.to_kind(kind))).g_add_(&z);
            let (h, mean2, rstd2) = normalise(scale2, shift2, norm2.eps, &half);
            let out = h.linear(&m, Some(&ista.threshold().to_kind(kind))).relu_();
            (out, [z, u, w, o, logarithms, weight, half, m, mean1, rstd1, mean2, rstd2])
        });
        let inputs = [z, scale1, shift1, &mssa.u, &output.weight, bias, scale2, shift2, &ista.dictionary];
        let mut keep: Vec<&Tensor> = saved.iter().collect();
        keep.extend([&out, scale1, shift1, scale2, shift2, &ista.dictionary]);
        let (eps1, eps2) = (norm1.eps, norm2.eps);
        let backward = move |saved: &[Tensor], grads: &[Option<Tensor>]| {
            let [
                z,
                u,
                w,
                o,
                logarithms,
                weight,
                half,
                m,
                mean1,
                rstd1,
                mean2,
                rstd2,
                out,
                scale1,
                shift1,
                scale2,
                shift2,
                d,
            ] = saved
            else {
                return Err("eighteen tensors were saved".into());
            };
            let Some(grad) = &grads[0] else { return Ok((0..9).map(|_| None).collect()) };
            let rows = |t: &Tensor| t.view([-1, *t.size().last().unwrap_or(&1)]);
            let by_weight = |grad: &Tensor, input: &Tensor| rows(grad).tr().matmul(&rows(input));

            let g = out.threshold_backward(&grad.to_kind(kind), 0.0);
            let h = normalise(scale2, shift2, eps2, half).0;
            let by_m = by_weight(&g, &h).to_kind(d.kind());
            let n2 = layer_norm_backward(&g.matmul(m), half, mean2, rstd2, scale2, shift2)?;
            drop((g, h));
            let by_half = n2.input;

            let by_output = by_weight(&by_half, o);
            let by_bias = rows(&by_half).sum_dim_intlist([0i64].as_slice(), false, None::<Kind>);
            let by_o = by_half.matmul(weight);
            let by_w = attention::subspace_attention_backward(&by_o, w, o, logarithms, heads, scale)?;
            drop(by_o);

            let h = normalise(scale1, shift1, eps1, z).0;
            let by_u = by_weight(&by_w, &h);
            drop(h);
            let mut n1 = layer_norm_backward(&by_w.matmul(u), z, mean1, rstd1, scale1, shift1)?;
            let by_z = n1.input.g_add_(&by_half);
            let by_d = dictionary_gradient(d, &by_m, eta);
            Ok([by_z, n1.weight, n1.bias, by_u, by_output, by_bias, n2.weight, n2.bias, by_d].map(Some).into())
        };
        function::attach("CRATE layer", &[&out], &inputs, &keep, backward).expect("all tensors are defined");
        out
    }
}

/// The normalised rows, and the mean and the inverse deviation of each.
fn normalise(scale: &Tensor, shift: &Tensor, eps: f64, z: &Tensor) -> (Tensor, Tensor, Tensor) {
    z.native_layer_norm(scale.size(), Some(scale), Some(shift), eps)
}
