//! The choice of the next token from its logits.
//!
//! In this order: the repetition penalty divides positive logits of tokens that occurred already, and multiplies negative ones (CTRL, arXiv 1909.05858); the
//! temperature divides all; the `top_k` most probable are kept; of these the fewest whose probabilities reach `top_p` (nucleus sampling,
//! arXiv 1904.09751); one is drawn. At temperature 0 the most probable is taken, the first of equals. A draw depends on the seed and on how many were
//! made before, not on the machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use whitebox_model::{Error, Result};

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampler {
    /// 0 takes the most probable token, 1 draws from the model's own distribution. Default: 1.
    pub temperature: f64,
    /// As many of the most probable tokens are kept. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Of these the fewest whose probabilities reach this. Default: 1, all.
    pub top_p: f64,
    /// Tokens that occurred become less probable where this is above 1. Default: 1.
    pub repetition_penalty: f64,
    /// Seed of the draws; row r of a batch draws from the stream of `seed + r`. Default: 0.
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Sampler { temperature: 1.0, top_k: None, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampler {
    /// The most probable token each time.
    pub fn greedy() -> Self {
        Sampler { temperature: 0.0, ..Self::default() }
    }

    /// Refuses values that choose nothing.
    ///
    /// # Errors
    /// The field, what it is and what it may be.
    pub fn check(&self) -> Result<()> {
        let refuse = |name: &str, value: &dyn std::fmt::Display, range: &str| {
            Err(Error::Config(format!("sampling: {name} = {value} must be {range}")))
        };
        if !(0.0..=1e6).contains(&self.temperature) {
            return refuse("temperature", &self.temperature, "between 0 (the most probable token) and 1e6");
        }
        if self.top_k == Some(0) {
            return refuse("top_k", &0, "at least 1, or left out");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", &self.top_p, "above 0 and at most 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty <= 1e6) {
            return refuse("repetition_penalty", &self.repetition_penalty, "above 0 and at most 1e6");
        }
        Ok(())
    }

    /// The stream of draws of row `row`.
    pub fn stream(&self, row: u64) -> Stream {
        Stream(ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(row)))
    }

    /// The next token after `before`, of which `logits` are the model's.
    ///
    /// # Errors
    /// Logits that are no numbers, as a diverged model gives them.
    pub fn choose(&self, logits: &[f32], before: &[i64], stream: &mut Stream) -> Result<i64> {
        let mut scores: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
        self.penalise(&mut scores, before);
        let best = scores.iter().enumerate().filter(|(_, x)| !x.is_nan());
        let best = best.reduce(|best, next| if next.1 > best.1 { next } else { best });
        let (best, &most) = best.filter(|(_, x)| x.is_finite()).ok_or_else(|| Error::Input {
            found: "logits that are no finite numbers".to_owned(),
            expected: "a model that has not diverged; load an earlier checkpoint".to_owned(),
        })?;
        if self.temperature == 0.0 {
            return Ok(best as i64);
        }
        // Weights of the tokens that may be drawn, the most probable first; the best has 1.
        let weight = |x: f64| if x.is_nan() { 0.0 } else { ((x - most) / self.temperature).exp() };
        let mut tokens: Vec<(usize, f64)> = scores.iter().map(|&x| weight(x)).enumerate().collect();
        let descending = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let kept = self.top_k.unwrap_or(tokens.len()).min(tokens.len());
        if kept < tokens.len() {
            tokens.select_nth_unstable_by(kept - 1, descending);
            tokens.truncate(kept);
        }
        if self.top_p < 1.0 {
            tokens.sort_unstable_by(descending);
            let limit = self.top_p * tokens.iter().map(|t| t.1).sum::<f64>();
            let mut sum = 0.0;
            let reached = tokens.iter().position(|t| {
                sum += t.1;
                sum >= limit
            });
            tokens.truncate(reached.map_or(tokens.len(), |last| last + 1));
        }
        // In the order of the vocabulary, so that the draw depends on no sorting.
        tokens.sort_unstable_by_key(|t| t.0);
        let mut left = stream.0.random::<f64>() * tokens.iter().map(|t| t.1).sum::<f64>();
        for &(token, weight) in &tokens {
            left -= weight;
            if left < 0.0 {
                return Ok(token as i64);
            }
        }
        Ok(best as i64)
    }

    fn penalise(&self, scores: &mut [f64], before: &[i64]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let mut seen = before.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            if let Some(x) = usize::try_from(token).ok().and_then(|token| scores.get_mut(token)) {
                *x = if *x > 0.0 { *x / self.repetition_penalty } else { *x * self.repetition_penalty };
            }
        }
    }
}

/// The draws of one sequence.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);
