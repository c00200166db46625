//! How far a decoder layer undoes its partner in the encoder: `g^{L-1-l}(f^l(Z^l))` against `Z^l`, and whole stacks of them.
//!
//! Both layers begin with a LayerNorm, so that neither the size of a token nor its mean passes through them. What is compared is therefore the direction of
//! tokens about their mean: `1 - cos` and the relative error of `LN(.)` without scale and shift, which for tokens of equal size is `sqrt(2 (1 - cos))`.
//! A value of 0 is an exact inverse; unrelated tokens have a cosine of 0 and an error of sqrt 2.

use tch::{Kind, Tensor};
use whitebox_model::probe::{NoProbe, Site};
use whitebox_model::recompute::Layer;
use whitebox_model::{Error, Result};

use crate::config::Autoencoder;
use crate::crate_mae::CrateMae;
use crate::masking::Mask;

/// How near tokens came back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearness {
    /// Mean cosine between a token and what came back, about their means.
    pub cosine: f64,
    /// `||LN(found) - LN(meant)|| / ||LN(meant)||` over all tokens.
    pub error: f64,
}

/// What came back through the partner of encoder layer `layer`, and through all partners of the layers up to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inversion {
    /// The encoder's layer, from 0.
    pub layer: usize,
    /// One layer and its partner.
    pub pair: Nearness,
    /// Layers `0..=layer`, then their partners: against what the first layer read.
    pub stack: Nearness,
}

/// Measures every layer of `model` on images.
///
/// # Errors
/// Those of the model's forward pass.
pub fn inversions(model: &CrateMae, images: &Tensor, mask: &Mask) -> Result<Vec<Inversion>> {
    let _no_grad = tch::no_grad_guard();
    let mut probe = Outputs(Vec::new());
    model.latent(images, mask, &mut probe).map(drop)?;
    let tokens = probe.0; // Z^0 ... Z^L
    let layers = model.encoder.len();
    if tokens.len() != layers + 1 {
        return Err(Error::Config(format!(
            "the encoder showed {} tensors of tokens, not {}",
            tokens.len(),
            layers + 1
        )));
    }
    let through = |z: &Tensor, from: usize| {
        let first = layers - 1 - from;
        let partners = &model.decoder[first..];
        partners.iter().fold(z.shallow_clone(), |y, block| block.compute(&y, 0, &mut NoProbe))
    };
    Ok((0..layers)
        .map(|layer| {
            let back = model.decoder[layers - 1 - layer].compute(&tokens[layer + 1], 0, &mut NoProbe);
            Inversion {
                layer,
                pair: nearness(&back, &tokens[layer]),
                stack: nearness(&through(&tokens[layer + 1], layer), &tokens[0]),
            }
        })
        .collect())
}

/// How near `found` is to `meant`, both `[B, n, d]`.
pub fn nearness(found: &Tensor, meant: &Tensor) -> Nearness {
    let d = meant.size().last().copied().unwrap_or(1);
    let normalised =
        |z: &Tensor| z.to_kind(Kind::Double).layer_norm([d], None::<&Tensor>, None::<&Tensor>, 1e-12, false);
    let (found, meant) = (normalised(found), normalised(meant));
    let cosine = Tensor::cosine_similarity(&found, &meant, -1, 1e-12).mean(Kind::Double);
    let error = (&found - &meant).norm() / meant.norm();
    Nearness { cosine: cosine.double_value(&[]), error: error.double_value(&[]) }
}

/// Tokens before the first layer and after each.
struct Outputs(Vec<Tensor>);

impl whitebox_model::Probe for Outputs {
    fn wants(&self, _layer: usize, site: Site) -> bool {
        matches!(site, Site::Embed | Site::ZOut)
    }

    fn see(&mut self, _layer: usize, _site: Site, value: &Tensor) {
        self.0.push(value.shallow_clone());
    }
}
