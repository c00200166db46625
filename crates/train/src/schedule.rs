//! The learning rate as a pure function of the step: nothing to save, nothing to lose in a resume.
//!
//! ```text
//! warm-up, step s < W:   lr (s + 1) / W
//! cosine,  s >= W:       lr (floor + (1 - floor) (1 + cos(pi (s - W) / (S - W))) / 2)
//! step,    s >= W:       lr step_factor^floor((s - W) / steps of step_epochs)
//! official:              lr min((e + 1) / 20, (1 + cos(pi e / E)) / 2)        e = epoch of the step, E = epochs
//! ```
//!
//! The paper warms up over 5 epochs and decays by a cosine to 0; the released `main.py` sets the rate once an epoch by the third formula.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The course of the learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// The course after the warm-up. Default: cosine.
    pub shape: Shape,
    /// Length of the linear warm-up in epochs; parts of an epoch count. Default: none.
    pub warmup_epochs: Option<f64>,
    /// The same in optimiser steps; give one of the two. Default: none.
    pub warmup_steps: Option<u64>,
    /// Epochs after which a rate in steps falls, again and again. Default: 30.
    pub step_epochs: f64,
    /// What it is then multiplied by. Default: 0.1.
    pub step_factor: f64,
    /// Where the cosine ends, as a fraction of the peak rate. Default: 0.
    pub floor: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            shape: Shape::Cosine,
            warmup_epochs: None,
            warmup_steps: None,
            step_epochs: 30.0,
            step_factor: 0.1,
            floor: 0.0,
        }
    }
}

/// The course after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Half a cosine wave from the peak to the floor.
    #[default]
    Cosine,
    /// The peak throughout.
    Constant,
    /// Falls by a factor every some epochs.
    Step,
    /// The rule of the released code, once an epoch; it holds its own warm-up over 20 epochs and knows no floor.
    Official,
}

impl ScheduleConfig {
    /// Refuses values that cannot be meant.
    ///
    /// # Errors
    /// The first one found.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(text));
        if !(0.0..=1.0).contains(&self.floor) {
            return refuse(format!("schedule.floor = {}: expected a fraction of the peak rate, 0 to 1", self.floor));
        }
        if let Some(epochs) = self.warmup_epochs
            && !(epochs >= 0.0 && epochs.is_finite())
        {
            return refuse(format!("schedule.warmup_epochs = {epochs}: expected a number from 0 up"));
        }
        if !(self.step_epochs > 0.0 && self.step_epochs.is_finite()) {
            return refuse(format!("schedule.step_epochs = {}: expected a number above 0", self.step_epochs));
        }
        if !(0.0..=1.0).contains(&self.step_factor) {
            return refuse(format!("schedule.step_factor = {}: expected a number from 0 to 1", self.step_factor));
        }
        if self.warmup_epochs.is_some() && self.warmup_steps.is_some() {
            return refuse(
                "schedule.warmup_epochs and schedule.warmup_steps are both set: expected one of them".into(),
            );
        }
        let own = self.warmup_epochs.is_some() || self.warmup_steps.is_some() || self.floor != 0.0;
        if self.shape == Shape::Official && own {
            return refuse("schedule.shape = \"official\" has its own warm-up and no floor: leave both out".into());
        }
        Ok(())
    }
}

/// A schedule with all lengths in steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    shape: Shape,
    peak: f64,
    floor: f64,
    fall: (f64, f64),
    warmup: u64,
    total: u64,
    steps_per_epoch: u64,
    epochs: u64,
}

impl Schedule {
    /// A schedule that peaks at `peak` and ends after `total` steps.
    ///
    /// # Errors
    /// What `ScheduleConfig::check` refuses; a warm-up that does not end before the run; an epoch of 0 steps.
    pub fn new(config: &ScheduleConfig, peak: f64, total: u64, steps_per_epoch: u64, epochs: u64) -> Result<Self> {
        config.check()?;
        if steps_per_epoch == 0 || epochs == 0 {
            return Err(Error::Config(format!(
                "{epochs} epochs of {steps_per_epoch} steps: expected at least one each"
            )));
        }
        let by_epochs = config.warmup_epochs.map(|epochs| (epochs * steps_per_epoch as f64).round() as u64);
        let warmup = config.warmup_steps.or(by_epochs).unwrap_or(0);
        if warmup > 0 && warmup >= total {
            return Err(Error::Config(format!(
                "the warm-up of {warmup} steps does not end before the run of {total}: shorten it \
                 (schedule.warmup_epochs or schedule.warmup_steps), or train longer"
            )));
        }
        let fall = (config.step_epochs * steps_per_epoch as f64, config.step_factor);
        Ok(Self { shape: config.shape, peak, floor: config.floor, fall, warmup, total, steps_per_epoch, epochs })
    }

    /// The learning rate of step `step`, counted from 0. Past the end it stays where it ended.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        match self.shape {
            Shape::Constant => self.peak,
            Shape::Step => {
                let (every, factor) = self.fall;
                self.peak * factor.powf(((step - self.warmup) as f64 / every).floor())
            }
            Shape::Cosine => {
                let done = (step - self.warmup) as f64 / (self.total.saturating_sub(self.warmup)).max(1) as f64;
                self.peak * (self.floor + (1.0 - self.floor) * half_cosine(done))
            }
            Shape::Official => {
                let epoch = (step / self.steps_per_epoch) as f64;
                self.peak * ((epoch + 1.0) / 20.0).min(half_cosine(epoch / self.epochs as f64))
            }
        }
    }
}

/// 1 at 0, 0 at 1 and after.
fn half_cosine(done: f64) -> f64 {
    (1.0 + (PI * done.min(1.0)).cos()) / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(json: &str, total: u64, steps_per_epoch: u64) -> Result<Schedule> {
        let config: ScheduleConfig = serde_json::from_str(json).unwrap();
        Schedule::new(&config, 2.0, total, steps_per_epoch, total.div_ceil(steps_per_epoch))
    }

    #[test]
    fn warm_up_peak_middle_and_end() -> Result<()> {
        let s = schedule(r#"{"warmup_steps": 4, "floor": 0.1}"#, 24, 6)?;
        assert_eq!([s.lr(0), s.lr(1), s.lr(3), s.lr(4)], [0.5, 1.0, 2.0, 2.0]);
        assert!((s.lr(14) - 2.0 * (0.1 + 0.9 * 0.5)).abs() < 1e-12);
        assert!((s.lr(24) - 0.2).abs() < 1e-12);
        assert_eq!(s.lr(24), s.lr(1000));
        assert_eq!(s, schedule(r#"{"warmup_epochs": 0.6667, "floor": 0.1}"#, 24, 6)?);
        Ok(())
    }

    #[test]
    fn the_released_rule_epoch_by_epoch() -> Result<()> {
        let s = schedule(r#"{"shape": "official"}"#, 90 * 5, 5)?;
        for epoch in 0..90u64 {
            let e = epoch as f64;
            let expected = 2.0 * f64::min((e + 1.0) / 20.0, ((PI * e / 90.0).cos() + 1.0) / 2.0);
            for step in 5 * epoch..5 * (epoch + 1) {
                assert!((s.lr(step) - expected).abs() < 1e-12);
            }
        }
        Ok(())
    }

    #[test]
    fn a_rate_in_steps_falls_every_some_epochs() -> Result<()> {
        let s = schedule(r#"{"shape": "step", "step_epochs": 2, "step_factor": 0.5, "warmup_steps": 1}"#, 40, 5)?;
        assert_eq!([s.lr(0), s.lr(1), s.lr(10), s.lr(11), s.lr(21)], [2.0, 2.0, 2.0, 1.0, 0.5]);
        Ok(())
    }

    #[test]
    fn contradictions_are_refused() {
        let message = |json| schedule(json, 10, 5).unwrap_err().to_string();
        assert!(message(r#"{"warmup_steps": 10}"#).contains("does not end before"));
        assert!(message(r#"{"warmup_steps": 1, "warmup_epochs": 1.0}"#).contains("both set"));
        assert!(message(r#"{"shape": "official", "warmup_steps": 3}"#).contains("own warm-up"));
        assert!(message(r#"{"shape": "step", "step_epochs": 0.0}"#).contains("above 0"));
        assert!(message(r#"{"shape": "step", "step_factor": 1.5}"#).contains("from 0 to 1"));
        assert!(message(r#"{"warmup_epochs": -1.0}"#).contains("from 0 up"));
        assert!(Schedule::new(&ScheduleConfig::default(), 1.0, 0, 0, 3).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn rises_then_falls_within_its_bounds(warmup in 0u64..50, rest in 1u64..200, floor in 0.0..=1.0f64, per_epoch in 1u64..40) {
            let config = ScheduleConfig { warmup_steps: Some(warmup), floor, ..ScheduleConfig::default() };
            let total = warmup + rest;
            let s = Schedule::new(&config, 3.0, total, per_epoch, total.div_ceil(per_epoch)).unwrap();
            for step in 0..total + 5 {
                let (now, next) = (s.lr(step), s.lr(step + 1));
                prop_assert!(now > 0.0 || floor == 0.0);
                let least = if step < warmup { 0.0 } else { 3.0 * floor - 1e-12 };
                prop_assert!(now <= 3.0 && now >= least);
                if step + 1 < warmup { prop_assert!(next > now) } else if step >= warmup { prop_assert!(next <= now) }
            }
            prop_assert_eq!(s.lr(warmup), 3.0);
            prop_assert!((s.lr(total) - 3.0 * floor).abs() < 1e-12);
        }

        #[test]
        fn constant_is_constant(step in 0u64..1000) {
            prop_assert_eq!(schedule(r#"{"shape": "constant"}"#, 100, 10).unwrap().lr(step), 2.0);
        }
    }
}
