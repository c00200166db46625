//! What a model costs, from its config alone: parameters, arithmetic, memory. Nothing is allocated, so that a dry run of
//! the largest model is instant.
//!
//! The unit of arithmetic is one multiply-add, and only those of matrix products (and of convolutions, which are some) are counted. A config may describe
//! more than 64 bits can count, which then is as much as they can.

use crate::config::Pool;
use crate::crate_vision::{Attend, Embedding, MLP_RATIO, Sparsify};
use crate::mssa::{MssaConfig, OutputMap};
use crate::stem;
use crate::tost::StemKind;
use crate::{CrateAlphaConfig, CrateConfig, ModelConfig, TostConfig, VitConfig};

/// The cost of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Trainable numbers.
    pub parameters: u64,
    /// Multiply-adds of one image's forward pass, as it is performed: ISTA is one product (the d^3 of forming M is not counted here), and
    /// where the class token alone is read the last layer computes that one alone.
    pub forward_per_image: u64,
    /// Multiply-adds in it of what reads the image, the patches' embedding or a stem's first convolution; their gradient by the image is never asked for.
    pub embedding_per_image: u64,
    /// Multiply-adds spent once a forward pass, whatever the batch: M of every CRATE layer with ISTA, ToST's map of positions.
    pub forward_once: u64,
    /// Numbers that autograd keeps of one image between forward and backward (fused attention), about.
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
        let count = match self {
            ModelConfig::Crate(c) => crate_cost(c),
            ModelConfig::CrateAlpha(c) => alpha_cost(c),
            ModelConfig::Tost(c) => tost_cost(c),
            ModelConfig::Vit(c) => vit_cost(c),
        };
        count.into()
    }
}

/// Counted in 128 bits, which the largest sizes that pass a check don't fill.
fn u(x: i64) -> u128 {
    x.unsigned_abs().into()
}

/// A [`Cost`] while it is counted.
struct Count {
    parameters: u128,
    forward_per_image: u128,
    embedding_per_image: u128,
    forward_once: u128,
    activations_per_image: u128,
}

impl From<Count> for Cost {
    fn from(count: Count) -> Cost {
        let narrow = |x: u128| u64::try_from(x).unwrap_or(u64::MAX);
        Cost {
            parameters: narrow(count.parameters),
            forward_per_image: narrow(count.forward_per_image),
            embedding_per_image: narrow(count.embedding_per_image),
            forward_once: narrow(count.forward_once),
            activations_per_image: narrow(count.activations_per_image),
        }
    }
}

/// One step of a layer.
struct Step {
    parameters: u128,
    /// Multiply-adds for n tokens.
    work: u128,
    /// Multiply-adds for the class token alone, which others are read for.
    first: u128,
}

/// Subspace attention of `n` tokens, its output map with a bias or without.
fn mssa_cost(c: &MssaConfig, n: u128, bias: bool) -> Step {
    let (d, heads, kp) = (u(c.d), u(c.heads), u(c.heads * c.head_dim));
    let (output_parameters, output_work) = match (c.has_output_map(), c.output_map) {
        (true, _) => (kp * d + if bias { d } else { 0 }, kp * d),
        (false, OutputMap::Tied) => (0, kp * d),
        (false, OutputMap::Free) => (0, 0),
    };
    Step {
        parameters: kp * d + output_parameters,
        work: n * (kp * d + output_work + 2 * n * kp),
        // Its projection, there and back, and two meetings of all tokens with a vector for each head.
        first: 3 * kp * d + 2 * n * heads * d + output_work,
    }
}

fn mlp_parameters(d: u128, hidden: u128) -> u128 {
    2 * d * hidden + hidden + d
}

fn crate_cost(c: &CrateConfig) -> Count {
    use crate::block::ResidualBase;
    let grid = c.grid();
    let (d, kp, patch, n) = (u(c.d), u(c.heads * c.p()), u(grid.patch_dim()), u(grid.patches() + 1));
    let hidden = u(MLP_RATIO) * d;
    let attention = match c.attention {
        Attend::Mssa => mssa_cost(&c.mssa(), n, true),
        Attend::Mhsa => Step {
            parameters: 3 * (kp * d + kp) + kp * d + d,
            work: n * (4 * kp * d + 2 * n * kp),
            // One query, all keys and values.
            first: 2 * kp * d + n * (2 * kp * d + 2 * kp),
        },
    };
    let (second_parameters, second_work, once) = match c.sparsify {
        Sparsify::Ista => (d * d, d * d, d * d * d),
        Sparsify::MmProx => (d * d, d * d, 0),
        Sparsify::Mlp => (mlp_parameters(d, hidden), 2 * d * hidden, 0),
    };
    let more_activations = match c.attention {
        Attend::Mssa => 0,
        Attend::Mhsa => 2 * kp,
    } + if c.sparsify == Sparsify::Mlp { 2 * hidden } else { 0 };
    let norms = if c.residual_base == ResidualBase::Plain { 0 } else { 4 * d };
    let layer_parameters = attention.parameters + second_parameters + norms;
    let layer_work = attention.work + n * second_work;
    let last_work = if c.pool == Pool::Token { attention.first + second_work } else { layer_work };
    let embedding = (n - 1) * patch * d;
    let (embedding_norms, read) = match c.embedding {
        Embedding::Norms => (2 * patch + 2 * d, 2 * patch + 3 * d),
        Embedding::Convolution => (0, patch + 2 * d),
    };
    Count {
        parameters: embedding_norms
            + patch * d
            + d
            + n * d
            + d
            + u(c.depth) * layer_parameters
            + 2 * d
            + d * u(c.classes)
            + u(c.classes),
        forward_per_image: embedding + u(c.depth - 1) * layer_work + last_work + d * u(c.classes),
        embedding_per_image: embedding,
        forward_once: u(c.depth) * once,
        activations_per_image: n * read + u(c.depth) * n * (6 * d + 2 * kp + more_activations),
    }
}

fn alpha_cost(c: &CrateAlphaConfig) -> Count {
    let (grid, steps) = (c.grid(), u(c.steps));
    let (d, kp, patch, n) = (u(c.d), u(c.heads * c.p()), u(grid.patch_dim()), u(grid.patches() + 1));
    let attention = mssa_cost(&c.mssa(), n, false);
    let dictionary = u(c.overcomplete) * d * d;
    let layer_parameters = attention.parameters + if c.decoupled { 2 * dictionary } else { dictionary } + 4 * d;
    // The first step is one product, each further one two, the way back one.
    let second_work = 2 * steps * dictionary;
    let layer_work = attention.work + n * second_work;
    let last_work = if c.pool == Pool::Token { attention.first + second_work } else { layer_work };
    let embedding = (n - 1) * patch * d;
    let kept = 6 * d + 2 * kp + steps * u(c.overcomplete) * d + (steps - 1) * d;
    Count {
        parameters: patch * d + d + n * d + d + u(c.depth) * layer_parameters + 2 * d + d * u(c.classes) + u(c.classes),
        forward_per_image: embedding + u(c.depth - 1) * layer_work + last_work + d * u(c.classes),
        embedding_per_image: embedding,
        forward_once: 0,
        activations_per_image: n * (patch + 2 * d) + u(c.depth) * n * kept,
    }
}

/// What a stem is: parameters, multiply-adds, those of what reads the image, numbers kept.
fn stem_cost(c: &TostConfig) -> [u128; 4] {
    let grid = c.grid();
    let (d, patch, n) = (u(c.d), u(grid.patch_dim()), u(grid.patches()));
    if c.stem == StemKind::Patch {
        return [patch * d + d, n * patch * d, n * patch * d, n * (patch + d)];
    }
    let count = stem::halvings(grid.patch).unwrap_or(1);
    let mut total = [0; 4];
    for (i, [from, to]) in stem::channels(&grid, c.d, count).into_iter().enumerate() {
        let (kernel, pixels) = (9 * u(from) * u(to), u(grid.image[0] >> (i + 1)) * u(grid.image[1] >> (i + 1)));
        let first = if i == 0 { pixels * kernel } else { 0 };
        // What the convolution read (a quarter of whose pixels it leaves), what BatchNorm read, what it gave.
        let kept = 4 * pixels * u(from) + 2 * pixels * u(to);
        for (sum, x) in total.iter_mut().zip([kernel + 2 * u(to), pixels * kernel, first, kept]) {
            *sum += x;
        }
    }
    total
}

fn tost_cost(c: &TostConfig) -> Count {
    let (d, hidden, heads, n) = (u(c.d), u(c.hidden()), u(c.heads), u(c.grid().patches()));
    let bias = if c.qkv_bias { d } else { 0 };
    let features = 2 * u(stem::FEATURES);
    let frame = 4 * d + 2 * d + mlp_parameters(d, hidden);
    let layer_parameters = frame + d * d + bias + heads + d * d + d;
    let class_parameters = frame + 3 * (d * d + bias) + d * d + d;
    // Two maps and the MLP; the second moments are a product of the memberships with squares.
    let layer_work = n * (2 * d * d + 2 * d * hidden + d);
    // One query, all keys and values; the MLP of the class token alone.
    let class_work = (n + 1) * (2 * d * d + 2 * d) + 2 * d * d + 2 * d * hidden;
    let [stem_parameters, stem_work, first_work, stem_activations] = stem_cost(c);
    Count {
        parameters: stem_parameters
            + features * d
            + d
            + d
            + u(c.depth) * layer_parameters
            + u(c.class_layers) * class_parameters
            + 2 * d
            + d * u(c.classes)
            + u(c.classes),
        forward_per_image: stem_work + u(c.depth) * layer_work + u(c.class_layers) * class_work + d * u(c.classes),
        embedding_per_image: first_work,
        forward_once: n * features * d,
        activations_per_image: stem_activations
            + u(c.depth) * n * (10 * d + 2 * hidden)
            + u(c.class_layers) * (n + 1) * 7 * d,
    }
}

fn vit_cost(c: &VitConfig) -> Count {
    let grid = c.grid();
    let (d, hidden, patch, n) = (u(c.d), u(c.hidden()), u(grid.patch_dim()), u(grid.patches() + 1));
    let layer_parameters = 4 * d * d + 4 * d + 2 * d * hidden + hidden + d + 4 * d;
    let layer_work = n * (4 * d * d + 2 * d * hidden) + 2 * n * n * d;
    Count {
        parameters: patch * d + d + n * d + d + u(c.depth) * layer_parameters + 2 * d + d * u(c.classes) + u(c.classes),
        forward_per_image: (n - 1) * patch * d + u(c.depth) * layer_work + d * u(c.classes),
        embedding_per_image: (n - 1) * patch * d,
        forward_once: 0,
        activations_per_image: n * (patch + 2 * d) + u(c.depth) * n * (9 * d + 2 * hidden),
    }
}
