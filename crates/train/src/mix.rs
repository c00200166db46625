//! Mixup (Zhang et al., arXiv:1710.09412) and CutMix (Yun et al., arXiv:1905.04899): a batch blended with itself in reverse order.
//!
//! ```text
//! l ~ Beta(a, a)
//! mixup    x <- l x + (1 - l) x'                      t <- l t + (1 - l) t'
//! cutmix   a rectangle of (1 - l) of the area from x'   l <- the part that is left of x
//! ```
//!
//! As timm has them: one choice and one l for the whole batch, x' the batch from back to front, and where both are on a coin decides. All numbers
//! are drawn from libtorch's generator, whose state a checkpoint holds, so that a resumed run draws the same.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// What is mixed, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MixConfig {
    /// Parameter of mixup's Beta distribution, 0 for no mixup. Usual: 0.8. Default: 0.
    pub mixup: f64,
    /// Parameter of CutMix's, 0 for no CutMix. Usual: 1. Default: 0.
    pub cutmix: f64,
    /// How often a batch is mixed at all. Default: 1.
    pub probability: f64,
    /// Where both are on: how often it is CutMix. Default: 0.5.
    pub switch: f64,
}

impl Default for MixConfig {
    fn default() -> Self {
        Self { mixup: 0.0, cutmix: 0.0, probability: 1.0, switch: 0.5 }
    }
}

impl MixConfig {
    /// Whether anything is ever mixed.
    pub fn is_on(&self) -> bool {
        (self.mixup > 0.0 || self.cutmix > 0.0) && self.probability > 0.0
    }

    /// Refuses values that cannot be meant.
    ///
    /// # Errors
    /// The first one found.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, value: f64, expected: &str| {
            Err(Error::Config(format!("mix.{key} = {value}: expected {expected}")))
        };
        for (key, value) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if !(0.0..=1000.0).contains(&value) {
                return refuse(key, value, "a number from 0 to 1000");
            }
        }
        for (key, value) in [("probability", self.probability), ("switch", self.switch)] {
            if !(0.0..=1.0).contains(&value) {
                return refuse(key, value, "a number from 0 to 1");
            }
        }
        Ok(())
    }

    /// What happens to the next batch of images of `[height, width]`.
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn draw(&self, [height, width]: [i64; 2]) -> Result<Mix> {
        if !self.is_on() || uniform()? >= self.probability {
            return Ok(Mix::None);
        }
        let cut = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (true, true) => uniform()? < self.switch,
            (_, cut) => cut,
        };
        if !cut {
            return Ok(Mix::Blend { share: beta(self.mixup)? });
        }
        let side = (1.0 - beta(self.cutmix)?).sqrt();
        // A rectangle of that share around a point anywhere, as far as it lies in the image.
        let span = |length: i64| -> Result<(i64, i64)> {
            let (part, centre) = ((length as f64 * side) as i64, (uniform()? * length as f64) as i64);
            let (from, to) = ((centre - part / 2).clamp(0, length), (centre + part / 2).clamp(0, length));
            Ok((from, to - from))
        };
        let (rows, columns) = (span(height)?, span(width)?);
        let share = 1.0 - (rows.1 * columns.1) as f64 / (height * width) as f64;
        Ok(Mix::Cut { rows, columns, share })
    }
}

fn uniform() -> Result<f64> {
    Ok(f64::try_from(Tensor::f_rand([1], (Kind::Double, Device::Cpu))?)?)
}

/// A number of Beta(a, a): the first of a pair from the Dirichlet distribution.
fn beta(a: f64) -> Result<f64> {
    let pair = Tensor::from_slice(&[a, a]).f_internal_sample_dirichlet()?;
    let drawn = f64::try_from(pair.f_get(0)?)?;
    // Both gammas underflow for a tiny a.
    Ok(if drawn.is_finite() { drawn.clamp(0.0, 1.0) } else { 1.0 })
}

/// What happens to a batch. `share` is what each image keeps of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    /// Nothing.
    None,
    /// Mixup.
    Blend {
        /// Of the image in the blend.
        share: f64,
    },
    /// CutMix.
    Cut {
        /// First row of the rectangle, and how many.
        rows: (i64, i64),
        /// First column of the rectangle, and how many.
        columns: (i64, i64),
        /// Of the image's area.
        share: f64,
    },
}

impl Mix {
    /// The mixed batch.
    ///
    /// # Shapes
    /// `images` `[B, C, H, W]`, `targets` `[B, classes]`, both as they come.
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn apply(&self, images: &Tensor, targets: &Tensor) -> Result<(Tensor, Tensor)> {
        let blend = |x: &Tensor, share: f64| -> Result<Tensor> { Ok(x.f_flip([0])?.f_lerp(x, share)?) };
        match *self {
            Mix::None => Ok((images.shallow_clone(), targets.shallow_clone())),
            Mix::Blend { share } => Ok((blend(images, share)?, blend(targets, share)?)),
            Mix::Cut { rows, columns, share } => {
                let mixed = images.copy();
                let part = |x: &Tensor| -> Result<Tensor> {
                    Ok(x.f_narrow(2, rows.0, rows.1)?.f_narrow(3, columns.0, columns.1)?)
                };
                part(&mixed)?.f_copy_(&part(images)?.f_flip([0])?)?;
                Ok((mixed, blend(targets, share)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> (Tensor, Tensor) {
        let images = Tensor::arange(3 * 2 * 4 * 6, (Kind::Float, Device::Cpu)).reshape([3, 2, 4, 6]);
        (images, Tensor::eye(3, (Kind::Float, Device::Cpu)))
    }

    #[test]
    fn a_blend_is_the_formula() -> Result<()> {
        let (images, targets) = batch();
        let (x, t) = Mix::Blend { share: 0.75 }.apply(&images, &targets)?;
        assert!(f64::try_from((x - (&images * 0.75 + images.flip([0]) * 0.25)).abs().max())? < 1e-5);
        assert_eq!(Vec::<f32>::try_from(t.get(0))?, [0.75, 0.0, 0.25]);
        assert_eq!(Vec::<f32>::try_from(t.get(1))?, [0.0, 1.0, 0.0]);
        Ok(())
    }

    #[test]
    fn a_cut_replaces_its_rectangle_alone() -> Result<()> {
        let (images, targets) = batch();
        let mix = Mix::Cut { rows: (1, 2), columns: (3, 3), share: 0.75 };
        let (x, t) = mix.apply(&images, &targets)?;
        let changed = x.ne_tensor(&images).get(0).to_kind(Kind::Int64);
        assert_eq!(changed.sum(Kind::Int64).int64_value(&[]), 2 * 2 * 3);
        assert_eq!(x.double_value(&[0, 1, 1, 3]), images.double_value(&[2, 1, 1, 3]));
        assert_eq!(images, batch().0, "the given images stay as they were");
        assert_eq!(Vec::<f32>::try_from(t.get(2))?, [0.25, 0.0, 0.75]);
        Ok(())
    }

    #[test]
    fn draws_are_as_often_and_as_large_as_asked() -> Result<()> {
        tch::manual_seed(5);
        let config = MixConfig { mixup: 0.8, cutmix: 1.0, probability: 0.5, switch: 0.25 };
        let (mut none, mut cut, mut left) = (0, 0, 0.0);
        let count = 2000;
        for _ in 0..count {
            match config.draw([32, 48])? {
                Mix::None => none += 1,
                Mix::Blend { share } => assert!((0.0..=1.0).contains(&share)),
                Mix::Cut { rows, columns, share } => {
                    assert!(rows.0 >= 0 && rows.0 + rows.1 <= 32 && columns.0 >= 0 && columns.0 + columns.1 <= 48);
                    assert!((share - (1.0 - (rows.1 * columns.1) as f64 / (32.0 * 48.0))).abs() < 1e-12);
                    cut += 1;
                    left += share;
                }
            }
        }
        let near = |found: usize, expected: f64| (found as f64 / f64::from(count) - expected).abs() < 0.04;
        assert!(near(none, 0.5) && near(cut, 0.125), "{none} {cut}");
        // Half the area is asked for on average; what lies outside of the image is lost.
        assert!((0.5..0.75).contains(&(left / cut as f64)), "{left} of {cut}");
        assert_eq!(MixConfig::default().draw([8, 8])?, Mix::None);
        Ok(())
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let message = |json: &str| serde_json::from_str::<MixConfig>(json).unwrap().check().unwrap_err().to_string();
        assert!(message(r#"{"mixup": -1.0}"#).contains("mix.mixup"));
        assert!(message(r#"{"switch": 1.5}"#).contains("mix.switch"));
    }
}
