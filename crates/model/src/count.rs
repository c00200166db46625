//! What a model costs, from its config alone: parameters, arithmetic, memory. Nothing is allocated, so that a dry run of
//! the largest model is instant.
//!
//! The unit of arithmetic is one multiply-add, and only those of matrix products are counted.

use crate::config::Pool;
use crate::{CrateConfig, ModelConfig, VitConfig};

/// The cost of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Trainable numbers.
    pub parameters: u64,
    /// Multiply-adds of one image's forward pass, as it is performed: ISTA is one product (the d^3 of forming M is not counted here), and
    /// where the class token alone is read the last layer computes that one alone.
    pub forward_per_image: u64,
    /// Multiply-adds of the patches' embedding in it; their gradient by the image is never asked for.
    pub embedding_per_image: u64,
    /// Multiply-adds spent once a forward pass, whatever the batch: M of every CRATE layer.
    pub forward_once: u64,
    /// Numbers that autograd keeps of one image between forward and backward (fused attention).
    pub activations_per_image: u64,
}

impl Cost {
    /// Multiply-adds of a training step on `batch` images: forward, and a backward of twice that but for the embedding, which has no gradient
    /// by its input. The backward pass of CRATE's attention on the CPU makes four products for the forward's two, the scores formed again among
    /// them; what fused kernels elsewhere form again is left out.
    pub fn training_step(&self, batch: u64) -> u64 {
        let image = self.forward_per_image.saturating_mul(3).saturating_sub(self.embedding_per_image);
        image.saturating_mul(batch).saturating_add(self.forward_once.saturating_mul(2))
    }

    /// Bytes of a training step on `batch` images in float32: parameters, gradients, `moments` per parameter
    /// (2 for AdamW, 1 for Lion) and activations.
    pub fn training_bytes(&self, batch: u64, moments: u64) -> u64 {
        let state = self.parameters.saturating_mul(moments.saturating_add(2));
        state.saturating_add(self.activations_per_image.saturating_mul(batch)).saturating_mul(4)
    }
}

impl ModelConfig {
    /// Counts the model that this describes. Valid for configs that pass [`ModelConfig::check`].
    pub fn cost(&self) -> Cost {
        match self {
            ModelConfig::Crate(c) => crate_cost(c),
            ModelConfig::Vit(c) => vit_cost(c),
        }
    }
}

fn crate_cost(c: &CrateConfig) -> Cost {
    use crate::block::ResidualBase;
    use crate::mssa::OutputMap;
    let grid = c.grid();
    let u = |x: i64| x as u64;
    let (d, kp, patch, n) = (u(c.d), u(c.heads * c.p()), u(grid.patch_dim()), u(grid.patches() + 1));
    let free = c.output_map == OutputMap::Free && !(c.heads == 1 && kp == d);
    let output_parameters = if free { kp * d + d } else { 0 };
    let output_work = if free || c.output_map == OutputMap::Tied { kp * d } else { 0 };
    let norms = if c.residual_base == ResidualBase::Plain { 0 } else { 4 * d };
    let layer_parameters = kp * d + output_parameters + d * d + norms;
    let layer_work = n * (kp * d + output_work + d * d + 2 * n * kp);
    // The class token alone: its projection, there and back, and two meetings of all tokens with a vector for each head.
    let first_work = 3 * kp * d + 2 * n * u(c.heads) * d + output_work + d * d;
    let last_work = if c.pool == Pool::Token { first_work } else { layer_work };
    let embedding = (n - 1) * patch * d;
    let layer_activations = n * (6 * d + 2 * kp);
    Cost {
        parameters: 2 * patch
            + patch * d
            + d
            + 2 * d
            + n * d
            + d
            + u(c.depth) * layer_parameters
            + 2 * d
            + d * u(c.classes)
            + u(c.classes),
        forward_per_image: embedding + u(c.depth - 1) * layer_work + last_work + d * u(c.classes),
        embedding_per_image: embedding,
        forward_once: u(c.depth) * d * d * d,
        activations_per_image: n * (2 * patch + 3 * d) + u(c.depth) * layer_activations,
    }
}

fn vit_cost(c: &VitConfig) -> Cost {
    let grid = c.grid();
    let u = |x: i64| x as u64;
    let (d, hidden, patch, n) = (u(c.d), u(c.hidden()), u(grid.patch_dim()), u(grid.patches() + 1));
    let layer_parameters = 4 * d * d + 4 * d + 2 * d * hidden + hidden + d + 4 * d;
    let layer_work = n * (4 * d * d + 2 * d * hidden) + 2 * n * n * d;
    Cost {
        parameters: patch * d + d + n * d + d + u(c.depth) * layer_parameters + 2 * d + d * u(c.classes) + u(c.classes),
        forward_per_image: (n - 1) * patch * d + u(c.depth) * layer_work + d * u(c.classes),
        embedding_per_image: (n - 1) * patch * d,
        forward_once: 0,
        activations_per_image: n * (patch + 2 * d) + u(c.depth) * n * (9 * d + 2 * hidden),
    }
}
