//! An exponential moving average of the weights (Polyak and Juditsky, 1992): smoother than the weights of any one step, and often better.
//!
//! ```text
//! a <- d a + (1 - d) w        d = min(decay, (1 + s) / (10 + s)) after step s
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use crate::error::Result;
use crate::tensors;

/// The averages beside the weights. [`Ema::exchange`] puts one in the place of the other.
#[derive(Debug)]
pub(crate) struct Ema {
    decay: f64,
    weights: Vec<(String, Tensor)>,
    averages: Vec<Tensor>,
}

/// The names that the weights have in a checkpoint beside the averages, which are its model.
const PREFIX: &str = "weight.";

impl Ema {
    /// Averages that begin as the weights are now.
    pub fn new(weights: Vec<(String, Tensor)>, decay: f64) -> Result<Self> {
        let averages = weights.iter().map(|(_, w)| Ok(w.f_detach()?.copy())).collect::<Result<_>>()?;
        Ok(Self { decay, weights, averages })
    }

    /// Takes in the weights after step `step`, counted from 1.
    pub fn update(&mut self, step: u64) -> Result<()> {
        let step = step as f64;
        let decay = self.decay.min((1.0 + step) / (10.0 + step));
        tch::no_grad(|| {
            for ((_, weight), average) in self.weights.iter().zip(&mut self.averages) {
                let _ = average.f_lerp_(weight, 1.0 - decay)?;
            }
            Ok(())
        })
    }

    /// Weights to averages, averages to weights.
    pub fn exchange(&mut self) -> Result<()> {
        tch::no_grad(|| {
            for ((_, weight), average) in self.weights.iter_mut().zip(&mut self.averages) {
                let kept = weight.copy();
                weight.f_copy_(average)?;
                average.f_copy_(&kept)?;
            }
            Ok(())
        })
    }

    /// While the averages stand in the weights' place: the weights, as a checkpoint keeps them beside.
    pub fn kept(&self) -> Vec<(String, Tensor)> {
        let named = self.weights.iter().zip(&self.averages);
        named.map(|((name, _), kept)| (format!("{PREFIX}{name}"), kept.shallow_clone())).collect()
    }

    /// After the model of a checkpoint, which is the averages, was read into the weights: puts both in their places.
    pub fn restore(&mut self, saved: &BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
        let kept: Vec<_> =
            self.weights.iter().zip(&self.averages).map(|((n, _), a)| (n.clone(), a.shallow_clone())).collect();
        tensors::copy_into(&kept, saved, PREFIX, path)?;
        self.exchange()
    }
}
