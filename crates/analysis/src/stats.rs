//! Mean and spread of a stream of numbers, and what is known of one layer.
//!
//! Welford's update: m_n = m_{n-1} + (x - m_{n-1})/n, S_n = S_{n-1} + (x - m_{n-1})(x - m_n), std = sqrt(S_n/(n-1)).
//! It holds three numbers, however long the stream, and does not cancel as sum of squares minus square of sum does.

use serde::{Deserialize, Deserializer, Serialize};

/// Mean and unbiased standard deviation of `n` values, one a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// The mean; NaN where there were no values, or a value was not finite. Written as `null` in JSON.
    #[serde(deserialize_with = "null_is_nan")]
    pub mean: f64,
    /// The unbiased standard deviation; 0 where n < 2, since one value has no spread.
    #[serde(deserialize_with = "null_is_nan")]
    pub std: f64,
    /// How many values.
    pub n: u64,
}

fn null_is_nan<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(input)?.unwrap_or(f64::NAN))
}

/// A running mean and variance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Running {
    n: u64,
    mean: f64,
    squares: f64,
}

impl Running {
    /// Takes one more value.
    pub fn push(&mut self, x: f64) {
        self.n += 1;
        let delta = x - self.mean;
        self.mean += delta / self.n as f64;
        self.squares += delta * (x - self.mean);
    }

    /// What the values so far amount to.
    pub fn stat(&self) -> Stat {
        match self.n {
            0 => Stat { mean: f64::NAN, std: 0.0, n: 0 },
            1 => Stat { mean: self.mean, std: 0.0, n: 1 },
            n => Stat { mean: self.mean, std: (self.squares / (n - 1) as f64).sqrt(), n },
        }
    }
}

impl Extend<f64> for Running {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        values.into_iter().for_each(|x| self.push(x));
    }
}

impl FromIterator<f64> for Running {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut running = Running::default();
        running.extend(values);
        running
    }
}

/// What was measured in one layer, over all samples seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerStats {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Where the coding rate was measured, e.g. `U^T LN(Z^l)`.
    pub place: String,
    /// Tokens a sample, n, the class token included.
    pub tokens: u64,
    /// Heads K, i.e. subspaces.
    pub heads: u64,
    /// Dimension p of each subspace.
    pub head_dim: u64,
    /// R^c of a sample, in nats.
    pub coding_rate: Stat,
    /// Fraction of non-zero entries of Z^{l+1}; `None` where the layer has no sparsifying step.
    pub nonzero_fraction: Option<Stat>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_as_two_passes_do() {
        let values: Vec<f64> = (0..1000).map(|i| 1e6 + f64::from(i % 17)).collect();
        let stat = values.iter().copied().collect::<Running>().stat();
        let mean = values.iter().sum::<f64>() / 1000.0;
        let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 999.0).sqrt();
        assert!((stat.mean - mean).abs() < 1e-6);
        assert!((stat.std - std).abs() < 1e-9);
        assert_eq!(stat.n, 1000);
    }

    #[test]
    fn few_values_and_bad_values_are_what_they_are() {
        assert!(Running::default().stat().mean.is_nan());
        assert_eq!(std::iter::once(2.5).collect::<Running>().stat(), Stat { mean: 2.5, std: 0.0, n: 1 });
        let bad = [1.0, f64::NAN, 2.0].into_iter().collect::<Running>().stat();
        assert!(bad.mean.is_nan() && bad.n == 3);
    }

    #[test]
    fn nan_survives_json() {
        let stat = Stat { mean: f64::NAN, std: 0.5, n: 3 };
        let text = serde_json::to_string(&stat).unwrap();
        let back: Stat = serde_json::from_str(&text).unwrap();
        assert!(back.mean.is_nan());
        assert_eq!((back.std, back.n), (0.5, 3));
    }
}
