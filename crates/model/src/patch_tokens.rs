//! CRATE's embedding as one operation with a backward pass of its own, for the CPU.
//!
//! The linear map takes in the scale and shift before it, as for inference ([`fold`](crate::fold)): patches are normalised as they are cut out of the image, and
//! autograd finds the way from the gradients by the joint map to those by its parts, which are parameters all. No gradient by patches is ever formed.
//!
//! ```text
//! forward    h = (patch - mean) / deviation     x = h W'^T + b'      z = [class; LN(x)] + positions
//! kept       h                                  x                    (and the statistics of its rows)
//! backward   dW' = dx^T h                       db' = sum dx         dx = LN'(dz)     dpositions = sum dz over the images
//! ```

use tch::{Device, Kind, Tensor};
use torch_extras::autocast::Autocast;
use torch_extras::embedding::{TokenNorm, patches};
use torch_extras::function;
use torch_extras::rows::{Map, weight_gradient};

use crate::embed::Grid;
use crate::layers::{LayerNorm, Linear, factor, without_autocast};

/// What the operation is made of.
pub(crate) struct Parts<'a> {
    /// Of the norm of patches, whose scale and shift are in `map`.
    pub eps: f64,
    /// For patches in the order (channel, row, column).
    pub map: &'a Linear,
    pub norm: &'a LayerNorm,
    /// `[1, 1, d]`.
    pub class: &'a Tensor,
    /// `[1, 1 + N, d]`, of this grid.
    pub positions: &'a Tensor,
}

impl Parts<'_> {
    /// Whether this is the way to compute tokens of `images`: on the CPU, if no gradient by the images is wanted.
    pub fn fit(&self, images: &Tensor) -> bool {
        let known = |kind| matches!(kind, Kind::Float | Kind::Double | Kind::BFloat16);
        images.device() == Device::Cpu
            && self.inputs().iter().all(|t| t.device() == Device::Cpu && known(t.kind()))
            && self.inputs().len() == 6
            && known(self.kind())
            && images.numel() > 0
            && !function::recorded(&[images]).unwrap_or(true)
    }

    /// The kind in which tokens are computed.
    fn kind(&self) -> Kind {
        Autocast::kind(Device::Cpu).ok().flatten().unwrap_or_else(|| self.map.weight.kind())
    }

    /// The six tensors by which there is a gradient, if the norm has scale and shift and the map a bias.
    fn inputs(&self) -> Vec<&Tensor> {
        self.map.parameters().chain(self.norm.parameters()).chain([self.class, self.positions]).collect()
    }

    /// # Shapes
    /// `images`: `[B, C, H, W]` on `grid`, to tokens `[B, 1 + N, d]`, the class token first.
    pub fn tokens(&self, images: &Tensor, grid: &Grid) -> Tensor {
        let kind = self.kind();
        let _plain = without_autocast(Device::Cpu);
        let inputs = self.inputs();
        let (z, kept) = tch::no_grad(|| self.compute(images, grid, kind));
        let eps = self.norm.eps;
        function::attach("embedding", &[&z], &inputs, &kept.each_ref(), move |kept, grads| {
            let [h, x, mean, rstd, scale, shift] = kept else { return Err("six tensors were kept".into()) };
            let Some(grad) = &grads[0] else { return Ok((0..6).map(|_| None).collect()) };
            let norm = TokenNorm { scale, shift, eps };
            let found = norm.backward(&grad.to_kind(kind).contiguous(), x, mean, rstd)?;
            let by_weight = weight_gradient(&found.x, h)?;
            // A copy: gradients are added to where they lie.
            let by_class = found.positions.narrow(0, 0, 1).copy().unsqueeze(0);
            let by_positions = found.positions.unsqueeze(0);
            Ok([by_weight, found.sum, found.scale, found.shift, by_class, by_positions].map(Some).into())
        })
        .expect("all tensors are defined");
        z
    }

    /// The tokens, and what the backward pass wants.
    fn compute(&self, images: &Tensor, grid: &Grid, kind: Kind) -> (Tensor, [Tensor; 6]) {
        let fits = "the shapes are those of the embedding";
        let number = if kind == Kind::BFloat16 { Kind::Float } else { kind };
        let as_numbers = |t: &Tensor| t.to_kind(number).contiguous();
        let h = patches(&as_numbers(images), grid.patch, self.eps, kind).expect(fits);
        let weight = factor(&self.map.weight, kind, number).contiguous();
        let bias = self.map.bias.as_ref().map(as_numbers);
        let x = Map { bias: bias.as_ref(), ..Map::new(&weight) }.forward(&h).expect(fits).0;
        let (scale, shift) = self.norm.affine.as_ref().map(|(s, t)| (as_numbers(s), as_numbers(t))).expect(fits);
        let norm = TokenNorm { scale: &scale, shift: &shift, eps: self.norm.eps };
        let positions = as_numbers(&self.positions.squeeze_dim(0));
        let (z, found) = norm.forward(&x, &as_numbers(&self.class.flatten(0, 2)), &positions).expect(fits);
        (z, [h, x, found.mean, found.rstd, scale, shift])
    }
}
