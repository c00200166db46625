//! A CRATE layer as released, as one operation with a backward pass of its own, for the CPU.
//!
//! [`Block::forward`](crate::block::Block::forward) written op by op is right and readable, and autograd would keep nine tensors of the
//! tokens' size a layer. Here five are kept, in the kind that is computed in, and what is cheap is formed again:
//!
//! ```text
//! forward    h = LN1(z)     w = h U^T           o = attention(w)     z' = z + o W^T + b
//!            h' = LN2(z')   out = ReLU(M h' - eta lambda)
//! kept       z              w                   o                    z'                      out     (and the statistics of rows)
//! backward   g = G o [out > 0]       h' = LN2(z')    dM^T = h'^T g    dh' = g M
//!            dz' = LN2'(dh')         dW = dz'^T o    db = sum dz'     dw = attention'(dz' W)
//!            h = LN1(z)              dU = dw^T h     dz = LN1'(dw U) + dz'
//! ```
//!
//! `out` is the next layer's `z`, so that it takes no memory of its own, and the signs that the ReLU's gradient asks for stand in it. `M` and the way
//! from `dM^T` to `dD` are in [`ista`](crate::ista). Under autocast to bf16 tokens are bf16 from layer to layer; weights are kept as they are.
//! Values and gradients are held against the layer op by op in tests/forms.rs.

use tch::{Kind, Tensor};
use torch_extras::rows::{Back, Map, Norm, weight_gradient};
use torch_extras::{attention, function};

use crate::ista::Ista;
use crate::layers::{LayerNorm, Linear, computing_kind, factor, without_autocast};
use crate::mssa::{Mssa, attention_fits};
use crate::probe::{Probe, Site, show};

/// The parts of the layer.
pub(crate) struct Parts<'a> {
    pub norm1: &'a LayerNorm,
    pub mssa: &'a Mssa,
    pub output: &'a Linear,
    pub norm2: &'a LayerNorm,
    pub ista: &'a Ista,
}

/// The tensors that the backward pass is given, in the order in which they are kept.
const KEPT: usize = 18;

impl Parts<'_> {
    /// Whether this is the way to compute the layer for tokens `z`.
    pub fn fit(&self, z: &Tensor) -> bool {
        let kinds = matches!(computing_kind(z), Kind::Float | Kind::Double | Kind::BFloat16);
        kinds
            && self.output.bias.is_some()
            && attention_fits(z)
            && (self.ista.kept.is_some() || self.ista.one_product(z))
    }

    /// Whether the layer can show `probe` what it wants of the inside: nothing that does not come to be here, and outside of autograd's graph.
    pub fn can_show(&self, z: &Tensor, layer: usize, probe: &dyn Probe) -> bool {
        let never = [Site::Attention, Site::IstaResidual].iter().any(|&site| probe.wants(layer, site));
        !never && computing_kind(z) == z.kind() && !function::recorded(&self.inputs(z)).unwrap_or(true)
    }

    /// The tokens and the parameters by which there is a gradient.
    fn inputs<'t>(&'t self, z: &'t Tensor) -> Vec<&'t Tensor> {
        let Parts { norm1, mssa, output, norm2, ista } = *self;
        let projected = norm1.parameters().chain([&mssa.u]).chain(output.parameters());
        [z].into_iter().chain(projected).chain(norm2.parameters()).chain([&ista.dictionary]).collect()
    }

    /// `Z^l` to `Z^{l+1}`.
    ///
    /// # Shapes
    /// `z`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let kind = computing_kind(z);
        let _plain = without_autocast(z.device());
        // Sums over bf16 rows, and what is added to them, are float32.
        let number = if kind == Kind::BFloat16 { Kind::Float } else { kind };
        let Parts { mssa, ista, .. } = *self;
        let (heads, scale) = (mssa.head_count(), mssa.scale());
        let (out, kept) = tch::no_grad(|| self.compute(z, kind, number, layer, probe));
        let Some(kept) = kept else { return out };
        let back = backward(kind, heads, scale, ista.dictionary_gradient(kind));
        let kept = kept.each_ref();
        function::attach("CRATE layer", &[&out], &self.inputs(z), &kept, back).expect("all tensors are defined");
        out
    }

    /// The result, and what the backward pass wants of it; nothing for a folded layer, which has none.
    fn compute(
        &self,
        z: &Tensor,
        kind: Kind,
        number: Kind,
        layer: usize,
        probe: &mut dyn Probe,
    ) -> (Tensor, Option<[Tensor; KEPT]>) {
        let Parts { norm1, mssa, output, norm2, ista } = *self;
        let fits = "`fit` has looked at the shapes";
        let to_number = |t: &Tensor| t.to_kind(number);
        let factor = |t: &Tensor| factor(t, kind, number);
        let (step, threshold) = match &ista.kept {
            Some(kept) => (factor(&kept.weight), kept.bias.as_ref().map(to_number)),
            None => (factor(&ista.operator(kind)), Some(to_number(&ista.threshold()))),
        };
        let (x, u, weight) = (z.to_kind(kind).contiguous(), factor(&mssa.u), factor(&output.weight));
        let [shift, bias] = [&mssa.shift, &output.bias].map(|t| t.as_ref().map(to_number));
        let affine = [norm1, norm2].map(|norm| norm.map(to_number).affine);
        let norm = |i: usize, eps| Some(Norm { affine: affine[i].as_ref().map(|(s, t)| (s, t)), eps });

        let project = Map { norm: norm(0, norm1.eps), bias: shift.as_ref(), ..Map::new(&u) };
        show_normalised(probe, layer, Site::AttentionInput, &x, norm1);
        let (w, statistics1) = project.forward(&x).expect(fits);
        show(probe, layer, Site::Uz, &w);
        let (o, logarithms) =
            attention::subspace_attention(&w, mssa.head_count(), mssa.scale()).expect("the projection fits");
        let add = Map { bias: bias.as_ref(), residual: Some(&x), ..Map::new(&weight) };
        let half = if probe.wants(layer, Site::MssaOut) {
            let step = Map { residual: None, ..add }.forward(&o).expect(fits).0;
            show(probe, layer, Site::MssaOut, &step);
            &x + step
        } else {
            add.forward(&o).expect(fits).0
        };
        show(probe, layer, Site::ZHalf, &half);
        show_normalised(probe, layer, Site::IstaInput, &half, norm2);
        let sparsify = Map { norm: norm(1, norm2.eps), bias: threshold.as_ref(), relu: true, ..Map::new(&step) };
        let (out, statistics2) = sparsify.forward(&half).expect(fits);

        let [Some((scale1, shift1)), Some((scale2, shift2))] = affine else { return (out, None) };
        let (Some(s1), Some(s2), None) = (statistics1, statistics2, &ista.kept) else { return (out, None) };
        let (last, d) = (out.shallow_clone(), ista.dictionary.shallow_clone());
        let kept = [
            x, u, w, o, logarithms, weight, half, step, last, s1.mean, s1.rstd, s2.mean, s2.rstd, scale1, shift1,
            scale2, shift2, d,
        ];
        (out, Some(kept))
    }
}

/// Shows what goes through `norm`, unless its scale and shift come later: that is not what the site names.
fn show_normalised(probe: &mut dyn Probe, layer: usize, site: Site, z: &Tensor, norm: &LayerNorm) {
    if norm.affine.is_some() && probe.wants(layer, site) {
        probe.see(layer, site, &norm.forward(z));
    }
}

/// The way back, as the module's head writes it.
fn backward(
    kind: Kind,
    heads: i64,
    scale: f64,
    dictionary_gradient: impl Fn(&Tensor, &Tensor) -> Tensor + Send + 'static,
) -> impl Fn(&[Tensor], &[Option<Tensor>]) -> function::Gradients + Send + 'static {
    move |kept, grads| {
        let kept: &[Tensor; KEPT] = kept.try_into()?;
        let [x, u, w, o, logarithms, weight, half, step, out, mean1, rstd1, mean2, rstd2, ..] = kept;
        let [.., scale1, shift1, scale2, shift2, dictionary] = kept;
        let Some(grad) = &grads[0] else { return Ok((0..9).map(|_| None).collect()) };

        let through_ista = Back {
            out: Some(out),
            weight: step,
            x: half,
            statistics: (mean2, rstd2),
            affine: (scale2, shift2),
            add: None,
        };
        let lower = through_ista.backward(&grad.to_kind(kind).contiguous())?;
        let g = lower.g.ok_or("the layer ends in a ReLU")?;
        let by_half = lower.x;
        let (by_o, _, [by_operator_transposed, by_output]) =
            Map { transposed: true, ..Map::new(weight) }.forward_beside(&by_half, [(&lower.h, &g), (&by_half, o)])?;
        drop((g, lower.h));
        let by_dictionary = dictionary_gradient(dictionary, &by_operator_transposed.to_kind(dictionary.kind()));

        let by_w = attention::subspace_attention_backward(&by_o, w, o, logarithms, heads, scale)?;
        drop(by_o);

        let through_projection =
            Back { out: None, weight: u, x, statistics: (mean1, rstd1), affine: (scale1, shift1), add: Some(&by_half) };
        let upper = through_projection.backward(&by_w)?;
        let by_u = weight_gradient(&by_w, &upper.h)?;
        let found =
            [upper.x, upper.scale, upper.shift, by_u, by_output, lower.sum, lower.scale, lower.shift, by_dictionary];
        Ok(found.map(Some).into())
    }
}
