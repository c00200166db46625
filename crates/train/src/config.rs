//! The engine's settings, as they stand in a recipe. Unknown keys are refused; `check` refuses values that cannot be meant.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schedule::{Schedule, ScheduleConfig};

/// How long, how, and how it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the data. Default: 10.
    pub epochs: u64,
    /// Stop after so many optimiser steps, if that comes before the last epoch; the schedule ends there too. Default: none.
    pub max_steps: Option<u64>,
    /// Batches whose gradients make one step. Default: 1.
    pub accumulate: u64,
    /// Largest Euclidean norm of the whole gradient; longer ones are scaled down to it. Default: none.
    pub clip: Option<f64>,
    /// Number format of the forward pass. Default: float32.
    pub precision: Precision,
    /// Keep of each layer only what comes into it and compute it again in the backward pass (activation checkpointing): the same gradients in less
    /// memory, for a forward pass more. Applied by the task. Default: false.
    pub recompute: bool,
    /// Seeds libtorch's generators when the run starts. Default: 0.
    pub seed: u64,
    /// The update rule.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    pub schedule: ScheduleConfig,
    /// When to save, and what to keep.
    pub checkpoint: CheckpointConfig,
    /// Average the weights over the steps; the averages are what is evaluated and saved as the model. Default: none.
    pub ema: Option<EmaConfig>,
    /// Stop once the measure of `checkpoint.best` no longer improves. Default: none.
    pub early_stop: Option<EarlyStop>,
    /// Epochs between evaluations; the last epoch always ends with one. Default: 1; 0: only at the end.
    pub eval_every: u64,
    /// Steps between log lines. Losses are read from the device only then. Default: 20.
    pub log_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            max_steps: None,
            accumulate: 1,
            clip: None,
            precision: Precision::default(),
            recompute: false,
            seed: 0,
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
            checkpoint: CheckpointConfig::default(),
            ema: None,
            early_stop: None,
            eval_every: 1,
            log_every: 20,
        }
    }
}

/// The number format of matrix products in the forward pass. Parameters, gradients and moments are float32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 throughout.
    #[default]
    Float32,
    /// bfloat16 by autocast, on the CPU and on CUDA. It has float32's range, so no loss scaling is needed.
    BFloat16,
}

/// The update rule and its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// AdamW or Lion. Default: adamw.
    pub rule: Rule,
    /// Peak learning rate. Default: 1e-3.
    pub lr: f64,
    /// The number of samples in a step that `lr` is meant for: with another number the rate changes in proportion. Default: none, `lr` as it stands.
    pub lr_for_batch: Option<u64>,
    /// Layer-wise decay of the learning rate, for fine-tuning: layer l of L learns at `layer_decay^(L + 1 - l)` times the rate; the embedding
    /// counts as layer 0, what follows the layers learns at the full rate (BEiT, arXiv:2106.08254). Default: none.
    pub layer_decay: Option<f64>,
    /// Decay of the moments. Default: 0.9 and 0.999 for AdamW, 0.9 and 0.99 for Lion.
    pub betas: Option<[f64; 2]>,
    /// AdamW's term beside the root of the second moment. Default: 1e-8.
    pub eps: Option<f64>,
    /// Decoupled weight decay: a step takes `lr * weight_decay` of a parameter away. Default: 0.05.
    pub weight_decay: f64,
    /// Which parameters decay. Default: matrices.
    pub decay: Decay,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            rule: Rule::AdamW,
            lr: 1e-3,
            lr_for_batch: None,
            layer_decay: None,
            betas: None,
            eps: None,
            weight_decay: 0.05,
            decay: Decay::Matrices,
        }
    }
}

impl OptimizerConfig {
    /// The peak learning rate for steps of `samples` samples.
    pub fn peak(&self, samples: u64) -> f64 {
        self.lr_for_batch.map_or(self.lr, |meant| self.lr * samples as f64 / meant as f64)
    }

    /// The moments' decay: what is set, or the rule's own default.
    pub fn betas(&self) -> [f64; 2] {
        self.betas.unwrap_or(match self.rule {
            Rule::AdamW => [0.9, 0.999],
            Rule::Lion => [0.9, 0.99],
        })
    }
}

/// The update rules (formulas in `torch_extras::fused`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Adam with decoupled weight decay, arXiv:1711.05101.
    #[default]
    AdamW,
    /// Signs of an interpolated momentum, arXiv:2302.06675; the published CRATE runs used it.
    Lion,
}

/// Which parameters weight decay shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Matrices and convolution kernels; not norms, biases, class and mask tokens, and position tables.
    #[default]
    Matrices,
    /// Every parameter, as the released CRATE code does.
    All,
}

/// An exponential moving average of the weights.
///
/// Its decay at step s is `min(decay, (1 + s) / (10 + s))`, so that the first weights, which are random, are soon forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// What a step leaves of the average, near 1: 0.9999 for long runs.
    pub decay: f64,
}

/// When a run ends before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Evaluations in a row without improvement.
    pub patience: u64,
}

/// When checkpoints are written, and which stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints. Default: none.
    pub every_steps: Option<u64>,
    /// Epochs between checkpoints. Default: 1. The end of the run always writes one.
    pub every_epochs: Option<u64>,
    /// How many of the last ones to keep. Default: 2.
    pub keep_last: u64,
    /// Keep the best one too, by this measure of the evaluation. Default: none.
    pub best: Option<BestConfig>,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every_steps: None, every_epochs: Some(1), keep_last: 2, best: None }
    }
}

/// What makes a checkpoint the best one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestConfig {
    /// A name among those that the task's evaluation gives.
    pub metric: String,
    /// Whether more of it is better.
    pub direction: Direction,
}

/// Which way a measure improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Less is better, as for a loss.
    Min,
    /// More is better, as for an accuracy.
    Max,
}

impl Direction {
    /// Whether `new` is strictly better than `old`. NaN never is.
    pub fn improves(self, new: f64, old: f64) -> bool {
        match self {
            Self::Min => new < old,
            Self::Max => new > old,
        }
    }
}

/// Numbers beyond this have no float32, in which the kernels compute.
const LARGEST: f64 = 1e30;

impl TrainConfig {
    /// Optimiser steps of an epoch of `batches` batches (the last, incomplete group makes one too), and of the whole run.
    pub fn steps(&self, batches: u64) -> (u64, u64) {
        let epoch = batches.div_ceil(self.accumulate.max(1));
        let all = self.epochs.saturating_mul(epoch);
        (epoch, self.max_steps.map_or(all, |max| max.min(all)))
    }

    /// The learning rate's course over epochs of `batches` batches of `batch_size` samples.
    ///
    /// # Errors
    /// A warm-up that does not end before the run.
    pub fn course(&self, batches: u64, batch_size: u64) -> Result<Schedule> {
        let (epoch, total) = self.steps(batches);
        let peak = self.optimizer.peak(batch_size.saturating_mul(self.accumulate));
        Schedule::new(&self.schedule, peak, total, epoch, self.epochs)
    }

    /// Refuses values that cannot be meant, by the key and the value.
    ///
    /// # Errors
    /// The first one found.
    pub fn check(&self) -> Result<()> {
        let positive = |key: &str, value: u64| match value {
            0 => Err(Error::Config(format!("{key} = 0: expected at least 1"))),
            _ => Ok(()),
        };
        positive("epochs", self.epochs)?;
        positive("accumulate", self.accumulate)?;
        positive("log_every", self.log_every)?;
        positive("max_steps", self.max_steps.unwrap_or(1))?;
        positive("checkpoint.keep_last", self.checkpoint.keep_last)?;
        positive("checkpoint.every_steps", self.checkpoint.every_steps.unwrap_or(1))?;
        positive("checkpoint.every_epochs", self.checkpoint.every_epochs.unwrap_or(1))?;
        if let Some(clip) = self.clip
            && !(clip > 0.0 && clip <= LARGEST)
        {
            return Err(Error::Config(format!("clip = {clip}: expected a positive number up to {LARGEST:e}")));
        }
        if let Some(EmaConfig { decay }) = self.ema
            && !(0.0..1.0).contains(&decay)
        {
            return Err(Error::Config(format!(
                "ema.decay = {decay}: expected a number from 0 up to, not including, 1"
            )));
        }
        if let Some(EarlyStop { patience }) = self.early_stop {
            positive("early_stop.patience", patience)?;
            if self.checkpoint.best.is_none() {
                let text = "early_stop needs a measure to go by: expected checkpoint.best with metric and direction";
                return Err(Error::Config(text.into()));
            }
        }
        self.optimizer.check()?;
        self.schedule.check()
    }
}

impl OptimizerConfig {
    /// Refuses values that cannot be meant.
    ///
    /// # Errors
    /// The first one found.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, value: f64, expected: &str| {
            Err(Error::Config(format!("optimizer.{key} = {value}: expected {expected}")))
        };
        if !(0.0..=LARGEST).contains(&self.lr) {
            return refuse("lr", self.lr, "a number from 0 to 1e30");
        }
        if !(0.0..=LARGEST).contains(&self.weight_decay) {
            return refuse("weight_decay", self.weight_decay, "a number from 0 to 1e30");
        }
        if self.lr_for_batch == Some(0) {
            return refuse("lr_for_batch", 0.0, "at least 1");
        }
        if let Some(decay) = self.layer_decay
            && !(decay > 0.0 && decay <= 1.0)
        {
            return refuse("layer_decay", decay, "a number above 0, up to 1");
        }
        if let Some(beta) = self.betas().into_iter().find(|beta| !(0.0..1.0).contains(beta)) {
            return refuse("betas", beta, "numbers from 0 up to, not including, 1");
        }
        match (self.rule, self.eps) {
            (Rule::Lion, Some(eps)) => refuse("eps", eps, "no such key, because Lion has no eps"),
            (_, Some(eps)) if !(eps > 0.0 && eps <= LARGEST) => refuse("eps", eps, "a positive number up to 1e30"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_survives_json_and_refuses_unknown_keys() {
        let mut config = TrainConfig { max_steps: Some(7), clip: Some(0.1 + 0.2), ..TrainConfig::default() };
        config.optimizer.betas = Some([0.9, 0.95]);
        config.checkpoint.best = Some(BestConfig { metric: "accuracy".into(), direction: Direction::Max });
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), config);
        assert_eq!(serde_json::from_str::<TrainConfig>("{}").unwrap(), TrainConfig::default());
        let error = serde_json::from_str::<TrainConfig>(r#"{"optimizer": {"rate": 1}}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `rate`"), "{error}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let refused = |json: &str, key: &str| {
            let config: TrainConfig = serde_json::from_str(json).unwrap();
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(key) && message.contains("expected"), "{message}");
        };
        assert!(TrainConfig::default().check().is_ok());
        refused(r#"{"epochs": 0}"#, "epochs");
        refused(r#"{"accumulate": 0}"#, "accumulate");
        refused(r#"{"log_every": 0}"#, "log_every");
        refused(r#"{"clip": -1.0}"#, "clip");
        refused(r#"{"checkpoint": {"keep_last": 0}}"#, "keep_last");
        refused(r#"{"clip": 1e300}"#, "clip");
        refused(r#"{"optimizer": {"lr": 1e300}}"#, "lr");
        refused(r#"{"optimizer": {"lr": -0.1}}"#, "lr");
        refused(r#"{"optimizer": {"betas": [0.9, 1.0]}}"#, "betas");
        refused(r#"{"optimizer": {"rule": "lion", "eps": 1e-8}}"#, "eps");
        refused(r#"{"optimizer": {"eps": 0.0}}"#, "eps");
        refused(r#"{"schedule": {"floor": 2.0}}"#, "floor");
        refused(r#"{"optimizer": {"lr_for_batch": 0}}"#, "lr_for_batch");
        refused(r#"{"optimizer": {"layer_decay": 0.0}}"#, "layer_decay");
        refused(r#"{"ema": {"decay": 1.0}}"#, "ema.decay");
        refused(r#"{"early_stop": {"patience": 3}}"#, "early_stop");
    }
}
