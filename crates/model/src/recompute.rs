//! Activation checkpointing: of a layer only what comes in is kept, and the backward pass computes the layer again. A step takes a forward
//! pass more and less memory.

use tch::{Kind, Tensor};
use torch_extras::autocast::Autocast;
use torch_extras::function;
use torch_extras::rng::RngState;

use crate::probe::{NoProbe, Probe, wants_any};

/// A layer that can be computed again later.
pub trait Layer: Send + Sized + 'static {
    /// The same layer on the same parameters.
    fn share(&self) -> Self;

    /// All tensors that may want gradients.
    fn parameters(&self) -> Vec<&Tensor>;

    /// What the layer makes of tokens, shown to `probe` as layer number `layer`.
    fn compute(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor;
}

/// Tokens `z` through all layers, each computed again in the backward pass with `recompute`, unless `probe` wants to see it.
pub fn through<L: Layer>(layers: &[L], z: Tensor, recompute: bool, probe: &mut dyn Probe) -> Tensor {
    layers.iter().enumerate().fold(z, |z, (l, layer)| match recompute && z.requires_grad() && !wants_any(probe, l) {
        true => recomputed(layer, &z),
        false => layer.compute(&z, l, probe),
    })
}

/// What `layer` makes of `z`, of which only `z` is kept.
///
/// The second time is as the first: under the same autocast, with the same random numbers.
fn recomputed<L: Layer>(layer: &L, z: &Tensor) -> Tensor {
    let autocast = Autocast::kind(z.device()).ok().flatten();
    let random = RngState::capture().ok();
    let out = tch::no_grad(|| layer.compute(z, 0, &mut NoProbe));
    let shared = layer.share();
    let inputs: Vec<&Tensor> = std::iter::once(z).chain(layer.parameters()).collect();
    let wanted: Vec<bool> = inputs.iter().map(|t| t.requires_grad()).collect();
    function::attach("a layer computed again", &[&out], &inputs, &[z], move |kept, grads| {
        let Some(grad) = &grads[0] else { return Ok(wanted.iter().map(|_| None).collect()) };
        let z = kept[0].detach().set_requires_grad(wanted[0]);
        let now = RngState::capture()?;
        if let Some(random) = &random {
            random.restore()?;
        }
        let objective = tch::with_grad(|| -> Result<Tensor, torch_extras::Error> {
            let _guard = autocast.map(|kind| Autocast::new(z.device(), kind, true)).transpose()?;
            let out = shared.compute(&z, 0, &mut NoProbe);
            drop(_guard);
            Ok((out * grad).sum(None::<Kind>))
        });
        now.restore()?;
        let leaves: Vec<&Tensor> = std::iter::once(&z).chain(shared.parameters()).collect();
        let asked: Vec<&Tensor> = leaves.into_iter().zip(&wanted).filter(|(_, w)| **w).map(|(t, _)| t).collect();
        let mut found = Tensor::f_run_backward(&[&objective?], &asked, false, false)?.into_iter();
        Ok(wanted.iter().map(|&w| w.then(|| found.next()).flatten()).collect())
    })
    .expect("the layer's tensors are defined");
    out
}
