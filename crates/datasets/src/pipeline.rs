//! A sample's way from 8-bit image to normalised floats: grey or RGB as asked, the transforms in order, then
//! `(value / 255 - mean) / std` for each channel, channels first.

use serde::{Deserialize, Serialize};

use crate::{Error, Image, Result, SampleRng, Transform, resample};

/// Transforms, channels and normalisation. It is checked when it is made, also when it is read from a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Pipeline {
    transforms: Vec<Transform>,
    channels: usize,
    mean: Vec<f32>,
    std: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Pipeline")]
struct Unchecked {
    #[serde(default)]
    transforms: Vec<Transform>,
    channels: usize,
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl TryFrom<Unchecked> for Pipeline {
    type Error = Error;

    fn try_from(raw: Unchecked) -> Result<Self> {
        Pipeline::new(raw.transforms, raw.channels, raw.mean, raw.std)
    }
}

impl Pipeline {
    /// The mean of ImageNet's training images, red, green, blue, of values 0 to 1.
    pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    /// The standard deviation that goes with it.
    pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

    /// `channels` is 1 (RGB becomes grey by ITU-R 601) or 3 (grey is repeated); `mean` and `std` have one value for
    /// each, in units of the full range 0 to 1.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of its range, with its name.
    pub fn new(transforms: Vec<Transform>, channels: usize, mean: Vec<f32>, std: Vec<f32>) -> Result<Self> {
        if !matches!(channels, 1 | 3) {
            return Err(Error::config("channels", channels, "1 (grey) or 3 (RGB) is expected"));
        }
        for (name, values) in [("mean", &mean), ("std", &std)] {
            if values.len() != channels {
                let expected = format!("one value for each of the {channels} channels is expected");
                return Err(Error::config(name, format!("{values:?}"), expected));
            }
        }
        if let Some(value) = mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::config("mean", value, "a finite number is expected"));
        }
        if let Some(value) = std.iter().find(|value| !value.is_normal() || **value < 0.0) {
            return Err(Error::config("std", value, "a positive number is expected"));
        }
        transforms.iter().try_for_each(Transform::validate)?;
        Ok(Self { transforms, channels, mean, std })
    }

    /// The transforms, in the order in which they are applied.
    pub fn transforms(&self) -> &[Transform] {
        &self.transforms
    }

    /// Channels of the output, 1 or 3.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// What is subtracted from each channel.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// What each channel is divided by afterwards.
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// `[channels, height, width]` of the output for an image of `[height, width]`.
    pub fn output_shape(&self, size: [usize; 2]) -> [usize; 3] {
        let [height, width] = self.transforms.iter().fold(size, |size, transform| transform.size_after(size));
        [self.channels, height, width]
    }

    /// `[channels, height, width]` of the output where the transforms make it the same for every image.
    pub fn fixed_shape(&self) -> Option<[usize; 3]> {
        let last = self.transforms.iter().rposition(|transform| transform.fixed_size().is_some())?;
        let start = self.transforms[last].fixed_size()?;
        let [height, width] = self.transforms[last + 1..].iter().fold(start, |size, next| next.size_after(size));
        Some([self.channels, height, width])
    }

    /// Transforms one image; random steps draw from `rng`.
    ///
    /// # Shapes
    /// `out` is `[channels, height, width]`, rows first: [`Pipeline::output_shape`].
    ///
    /// # Errors
    /// [`Error::Layout`] for an image that contradicts itself, [`Error::Unfit`] where a step cannot be applied to it,
    /// [`Error::OutputSize`] where `out` has another length than the result.
    pub fn apply(&self, image: Image, rng: &mut SampleRng, out: &mut [f32]) -> Result<()> {
        image.check()?;
        let image = if self.channels == 1 { resample::grey(image) } else { image };
        let image = self.transforms.iter().try_fold(image, |image, transform| transform.apply(image, rng))?;
        let plane = image.width * image.height;
        if out.len() != plane * self.channels {
            return Err(Error::OutputSize { found: plane * self.channels, expected: out.len() });
        }
        for (c, plane) in out.chunks_exact_mut(plane).enumerate() {
            let (mean, std) = (self.mean[c], self.std[c]);
            let table: [f32; 256] = std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
            if image.channels == 1 {
                let values = plane.iter_mut().zip(&image.pixels);
                values.for_each(|(slot, &value)| *slot = table[usize::from(value)]);
            } else {
                let pixels = plane.iter_mut().zip(image.pixels.as_chunks::<3>().0);
                pixels.for_each(|(slot, pixel)| *slot = table[usize::from(pixel[c])]);
            }
        }
        Ok(())
    }
}
