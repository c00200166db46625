//! A sample's way from 8-bit image to normalised floats: grey or RGB as asked, the transforms in order, then
//! `(value / 255 - mean) / std` for each channel, channels first.

use serde::{Deserialize, Serialize};

use crate::jpeg::Decoder;
use crate::raster::{Part, Raster, Studio};
use crate::step::Step;
use crate::transform::Erased;
use crate::{Error, Image, Result, SampleRng, Transform};

/// Transforms, channels and normalisation. It is checked when it is made, also when it is read from a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Pipeline {
    transforms: Vec<Transform>,
    channels: usize,
    mean: Vec<f32>,
    std: Vec<f32>,
    #[serde(skip)]
    tables: Tables,
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
        let erasing = transforms.iter().position(|transform| matches!(transform, Transform::RandomErasing { .. }));
        if let Some(at) = erasing.filter(|at| at + 1 < transforms.len()) {
            let found = format!("step {} of {}", at + 1, transforms.len());
            let expected = "it replaces normalised values and is expected to be the last step: move it to the end";
            return Err(Error::config("random_erasing", found, expected));
        }
        let tables = Tables::new(&mean, &std);
        Ok(Self { transforms, channels, mean, std, tables })
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
        self.apply_with(image, rng, out, &mut Studio::default())
    }

    /// [`Pipeline::apply`] with memory that is used again.
    pub(crate) fn apply_with(
        &self,
        image: Image,
        rng: &mut SampleRng,
        out: &mut [f32],
        studio: &mut Studio,
    ) -> Result<()> {
        image.check()?;
        let steps = self.plan([image.height, image.width], rng)?;
        let raster = studio.planes(image);
        self.run(raster, &steps, out, studio)
    }

    /// Decodes a file and transforms it, decoding only the part that the first transform leaves. `Ok(false)`, with
    /// `out` and `rng` in any state, where the file has to be decoded by other means ([`Decoder`]).
    ///
    /// # Errors
    /// As [`Pipeline::apply`].
    pub(crate) fn apply_encoded(
        &self,
        file: &[u8],
        rng: &mut SampleRng,
        out: &mut [f32],
        decoder: &mut Decoder,
        studio: &mut Studio,
    ) -> Result<bool> {
        let mut plan = Ok(Vec::new());
        let raster = decoder.part(file, studio.memory(), |size| {
            plan = self.plan(size, rng);
            let steps = plan.as_mut().ok()?;
            let Some(first) = steps.first_mut() else { return Some(Part::whole(size)) };
            let (part, rest) = first.split(size);
            *first = rest;
            Some(part)
        });
        let steps = plan?;
        let Some(raster) = raster else { return Ok(false) };
        self.run(raster, &steps, out, studio)?;
        Ok(true)
    }

    /// What is to be done to an image of `[height, width]`.
    fn plan(&self, mut size: [usize; 2], rng: &mut SampleRng) -> Result<Vec<Step>> {
        let mut steps = Vec::with_capacity(self.transforms.len());
        for transform in &self.transforms {
            let before = steps.len();
            transform.draw(size, rng, &mut steps)?;
            size = steps[before..].iter().fold(size, |size, step| step.size_after(size));
        }
        Ok(steps)
    }

    fn run(&self, mut raster: Raster, steps: &[Step], out: &mut [f32], studio: &mut Studio) -> Result<()> {
        if self.channels == 1 {
            raster.grey();
        }
        // Values are erased where they are normalised.
        let (steps, hole) = match steps {
            [steps @ .., Step::Erase { part, value }] => (steps, Some((part, value))),
            _ => (steps, None),
        };
        // A flip at the end costs nothing: the rows are read from their ends.
        let (steps, flipped) = match steps {
            [steps @ .., Step::Flip] => (steps, true),
            _ => (steps, false),
        };
        for step in steps {
            match *step {
                Step::Cut { top, left, size } => raster = studio.cut(raster, top, left, size),
                Step::Resize { part, size, filter } => raster = studio.resize(raster, &part, size, filter),
                Step::Flip => raster.flip(),
                Step::Adjust(adjust) => raster = studio.adjust(raster, adjust),
                Step::Warp(warp) => raster = warp.apply(raster, studio),
                Step::Blur(blur) => blur.apply(&mut raster),
                Step::Fill { part, colour } => raster.fill(&part, colour),
                // It comes last alone.
                Step::Erase { .. } => {}
            }
        }
        let size = raster.width * raster.height;
        if out.len() != size * self.channels {
            return Err(Error::OutputSize { found: size * self.channels, expected: out.len() });
        }
        // Of a grey image every channel is the same.
        let sources = raster.pixels.chunks_exact(size).cycle();
        for ((plane, source), table) in out.chunks_exact_mut(size).zip(sources).zip(&self.tables.0) {
            let rows = plane.chunks_exact_mut(raster.width).zip(source.chunks_exact(raster.width));
            if flipped {
                rows.for_each(|(to, from)| table.look_up(to, from.iter().rev()));
            } else {
                rows.for_each(|(to, from)| table.look_up(to, from.iter()));
            }
        }
        if let Some((part, value)) = hole {
            for (plane, table) in out.chunks_exact_mut(size).zip(&self.tables.0) {
                let value = match value {
                    Erased::Mean => 0.0,
                    Erased::Black => table.0[0],
                };
                for row in plane.chunks_exact_mut(raster.width).skip(part.top).take(part.height) {
                    row[part.left..][..part.width].fill(value);
                }
            }
        }
        studio.recycle(raster.pixels);
        Ok(())
    }
}

/// What each value of a channel becomes.
#[derive(Clone, PartialEq)]
struct Table([f32; 256]);

impl Table {
    fn look_up<'a>(&self, to: &mut [f32], from: impl Iterator<Item = &'a u8>) {
        to.iter_mut().zip(from).for_each(|(slot, &value)| *slot = self.0[usize::from(value)]);
    }
}

/// The table of each channel, which follow from mean and deviation.
#[derive(Clone, PartialEq)]
struct Tables(Vec<Table>);

impl Tables {
    fn new(mean: &[f32], std: &[f32]) -> Self {
        let table = |(mean, std): (&f32, &f32)| Table(std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std));
        Self(mean.iter().zip(std).map(table).collect())
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}
