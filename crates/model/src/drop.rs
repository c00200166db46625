//! What is left out at random in training alone: whole steps of a layer (stochastic depth, arXiv 1603.09382) and single entries of the embedding
//! (dropout).
//!
//! ```text
//! Z + m step / (1 - r)          m = 0 with probability r, drawn for every image; otherwise 1
//! ```
//!
//! The rate r rises linearly from 0 at the first layer to the model's `drop_path` at the last one. Dividing by what is kept leaves the mean as it
//! is, so evaluation adds the whole step.

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Stochastic depth of one layer: off until a model is told that it trains.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DropPath {
    rate: f64,
    pub training: bool,
}

impl DropPath {
    /// Of layer `layer` out of `depth`, where the last one drops `most` of its steps. A single layer drops none.
    pub fn new(most: f64, layer: i64, depth: i64) -> Self {
        DropPath { rate: most * layer as f64 / (depth - 1).max(1) as f64, training: false }
    }

    /// Whether steps are dropped now.
    pub fn active(&self) -> bool {
        self.training && self.rate > 0.0
    }

    /// The step, or zero, for each image; on average the step.
    ///
    /// # Shapes
    /// `step`: `[B, n, d]`, unchanged.
    pub fn apply(&self, step: Tensor) -> Tensor {
        if !self.active() {
            return step;
        }
        let keep = 1.0 - self.rate;
        let drawn = Tensor::zeros([step.size()[0], 1, 1], (Kind::Float, step.device())).bernoulli_p(keep);
        let scaled = (drawn / keep).to_kind(step.kind());
        step * scaled
    }
}

/// Dropout of single entries at `rate`, where a model trains.
pub(crate) fn dropout(z: Tensor, rate: f64, training: bool) -> Tensor {
    if training && rate > 0.0 { z.dropout(rate, true) } else { z }
}

/// Refuses rates that leave nothing, or are none.
pub(crate) fn check_rates(drop_path: f64, dropout: f64) -> Result<()> {
    for (name, rate) in [("drop_path", drop_path), ("dropout", dropout)] {
        if !(0.0..1.0).contains(&rate) {
            return Err(Error::Config(format!("{name} = {rate} must be at least 0 and below 1")));
        }
    }
    Ok(())
}
