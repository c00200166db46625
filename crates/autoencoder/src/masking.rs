//! Which patches an encoder does not see.
//!
//! As in MAE (arXiv 2111.06377), of N patches `floor(N (1 - ratio))` are kept: those whose noise, one uniform number a patch, is least. A mask is
//! told by two permutations: `keep`, the kept patches in the order of their noise, and `restore`, the place of every patch in that order, with which
//! what was put behind the kept tokens returns to its place.
//!
//! [`MaskShape::Block`] hides rectangles in the place of single patches (BEiT, arXiv 2106.08254): rectangles of 0.3 to 1 / 0.3 in aspect are drawn until
//! enough is hidden, and the last one is cut to the number.
//!
//! A training mask comes from libtorch's generator, whose state a checkpoint holds: a resumed run hides the same patches. For an evaluation
//! [`Masking::seeded`] draws a mask from a number of each image, so that it is the same in every evaluation and every batch.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use whitebox_model::{Error, Result};

/// What is hidden together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskShape {
    /// Single patches, each as likely as another.
    #[default]
    Random,
    /// Rectangles of patches.
    Block,
}

/// How many patches are hidden, and in what shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Masking {
    /// The share of patches that is hidden; 0 hides none (plain autoencoding). Default: 0.75.
    pub ratio: f64,
    /// Default: random.
    pub shape: MaskShape,
}

impl Default for Masking {
    fn default() -> Self {
        Masking { ratio: 0.75, shape: MaskShape::Random }
    }
}

/// A mask of a batch of images.
#[derive(Debug)]
pub struct Mask {
    /// The patches that are seen, in the order of their noise: `[B, kept]`, int64.
    pub keep: Tensor,
    /// The place of each patch in the order of noise: `[B, N]`, int64. Places from `kept` on are hidden.
    pub restore: Tensor,
    /// 1 for a hidden patch, 0 for one that is seen: `[B, N]`, float32.
    pub masked: Tensor,
}

impl Masking {
    /// No patch hidden.
    pub const NONE: Masking = Masking { ratio: 0.0, shape: MaskShape::Random };

    /// Refuses ratios that hide everything, or are none.
    pub fn check(&self) -> Result<()> {
        if (0.0..1.0).contains(&self.ratio) {
            return Ok(());
        }
        Err(Error::Config(format!("a mask ratio of {} must be at least 0 and below 1", self.ratio)))
    }

    /// How many of `patches` are seen: `floor(N (1 - ratio))`, and one at least.
    pub fn kept(&self, patches: i64) -> i64 {
        ((patches as f64 * (1.0 - self.ratio)) as i64).clamp(1, patches.max(1))
    }

    /// A mask for each of `batch` images on a grid of `[rows, columns]` patches, from libtorch's generator.
    pub fn draw(&self, batch: i64, grid: [i64; 2], device: Device) -> Result<Mask> {
        self.check()?;
        match self.shape {
            MaskShape::Random => {
                let noise = Tensor::rand([batch, grid[0] * grid[1]], (Kind::Float, device));
                self.of_noise(&noise)
            }
            MaskShape::Block => {
                // One number of libtorch's generator for each image.
                let seeds = Tensor::randint(i64::MAX, [batch], (Kind::Int64, Device::Cpu));
                let seeds = Vec::<i64>::try_from(seeds)?.into_iter().map(|seed| seed as u64);
                self.seeded(&seeds.collect::<Vec<_>>(), grid, device)
            }
        }
    }

    /// A mask for each seed, the same whatever the others are.
    pub fn seeded(&self, seeds: &[u64], grid: [i64; 2], device: Device) -> Result<Mask> {
        self.check()?;
        let patches = grid[0] * grid[1];
        let noise: Vec<f32> = seeds
            .iter()
            .flat_map(|&seed| {
                let rng = &mut ChaCha8Rng::seed_from_u64(seed);
                match self.shape {
                    MaskShape::Random => (0..patches).map(|_| rng.random()).collect(),
                    MaskShape::Block => block_noise(rng, grid, (patches - self.kept(patches)) as usize),
                }
            })
            .collect();
        self.of_noise(&Tensor::from_slice(&noise).view([seeds.len() as i64, patches]).to_device(device))
    }

    /// The mask that hides what has the most noise; equal noise in the order of the patches.
    ///
    /// # Shapes
    /// `noise`: `[B, N]`.
    ///
    /// # Errors
    /// Noise of another rank.
    pub fn of_noise(&self, noise: &Tensor) -> Result<Mask> {
        self.check()?;
        let [_, patches] = noise.size()[..] else {
            let found = format!("noise of shape {:?}", noise.size());
            return Err(Error::Input { found, expected: "[batch, patches]".into() });
        };
        let kept = self.kept(patches);
        let order = noise.argsort_stable(true, 1, false);
        let restore = order.argsort_stable(true, 1, false);
        Ok(Mask { keep: order.narrow(1, 0, kept), masked: restore.ge(kept).to_kind(Kind::Float), restore })
    }
}

impl Mask {
    /// The tokens of the patches that are seen.
    ///
    /// # Shapes
    /// `tokens`: `[B, N, d]` to `[B, kept, d]`.
    pub fn seen(&self, tokens: &Tensor) -> Tensor {
        let d = tokens.size()[2];
        tokens.gather(1, &self.keep.unsqueeze(-1).expand([-1, -1, d], false), false)
    }

    /// All tokens in their places again, with `hidden`, `[1, 1, d]`, for those that were not seen.
    ///
    /// # Shapes
    /// `seen`: `[B, kept, d]` to `[B, N, d]`.
    pub fn filled(&self, seen: &Tensor, hidden: &Tensor) -> Tensor {
        let [b, patches] = [self.restore.size()[0], self.restore.size()[1]];
        let (kept, d) = (seen.size()[1], seen.size()[2]);
        let hidden = hidden.to_kind(seen.kind()).expand([b, patches - kept, d], false);
        let all = Tensor::cat(&[seen.shallow_clone(), hidden], 1);
        all.gather(1, &self.restore.unsqueeze(-1).expand([-1, -1, d], false), false)
    }
}

/// Noise of a grid whose `hidden` largest values lie in rectangles.
fn block_noise(rng: &mut ChaCha8Rng, [rows, columns]: [i64; 2], hidden: usize) -> Vec<f32> {
    let [rows, columns] = [rows, columns].map(|x| x as usize);
    let mut noise: Vec<f32> = (0..rows * columns).map(|_| rng.random::<f32>() * 0.5).collect();
    let mut count = 0;
    while count < hidden {
        // At least a few patches, at most what is left; the aspect as likely wide as tall.
        let left = hidden - count;
        let area = rng.random_range(1..=left.max(1)).max(left.min(4)) as f64;
        let aspect = rng.random_range((0.3f64).ln()..=(1.0 / 0.3f64).ln()).exp();
        let height = ((area * aspect).sqrt().round() as usize).clamp(1, rows);
        let width = ((area / aspect).sqrt().round() as usize).clamp(1, columns);
        let (top, start) = (rng.random_range(0..=rows - height), rng.random_range(0..=columns - width));
        for at in (top..top + height).flat_map(|row| (start..start + width).map(move |c| row * columns + c)) {
            if noise[at] < 0.5 && count < hidden {
                noise[at] = 0.5 + rng.random::<f32>() * 0.5;
                count += 1;
            }
        }
    }
    noise
}
