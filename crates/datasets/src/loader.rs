//! From a data set to batches: what is loaded, in which order, under which rule for corrupt samples. The threads that
//! do it are in [`Epoch`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::decode_any;
use crate::jpeg::Decoder;
use crate::raster::Studio;
use crate::{Dataset, Epoch, Error, Pipeline, Result, SampleRng, permutation};

/// A batch beyond this (16 GiB) is taken for a slip.
const MOST_BYTES: usize = 1 << 34;

/// What to do with a sample whose image is corrupt ([`Error::is_corrupt`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCorrupt {
    /// End the epoch with the error, which names the sample.
    #[default]
    Fail,
    /// Leave the sample out of its batch and name it in [`Batch::skipped`].
    Skip,
}

/// How to load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Worker threads; 0 decodes in the thread that asks. It changes the speed alone.
    pub workers: usize,
    /// Batches that each worker may be ahead of the consumer: at most `workers * prefetch` are held or in the making.
    pub prefetch: usize,
    /// Seed of the order and of each sample's random numbers.
    pub seed: u64,
    /// Whether each epoch has its own random order; otherwise the order is that of the data set.
    pub shuffle: bool,
    /// How often a sample comes in an epoch, each time with other random numbers (repeated augmentation, Hoffer et al.
    /// 2020; DeiT's is 3). The epoch stays as long as it is: the first `len / repeats` samples of its order come, rounded
    /// up, one's repetitions side by side, and the last one's only until the epoch is full.
    pub repeats: usize,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// What to do with corrupt images.
    pub on_corrupt: OnCorrupt,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            workers: 2,
            prefetch: 2,
            seed: 0,
            shuffle: true,
            repeats: 1,
            drop_last: false,
            on_corrupt: OnCorrupt::Fail,
        }
    }
}

/// Samples of one step.
///
/// With [`OnCorrupt::Skip`] a batch is shorter by the samples left out, and one whose samples were all left out has
/// `shape[0] == 0` and no label: it is still handed over, so that step numbers do not shift, and the consumer must
/// pass over it.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Normalised values, `shape` in row-major order.
    pub images: Vec<f32>,
    /// `[batch, channels, height, width]`.
    pub shape: [usize; 4],
    /// The label of each image.
    pub labels: Vec<i64>,
    /// The index of each image in the data set.
    pub indices: Vec<usize>,
    /// `source: reason` of each sample left out.
    pub skipped: Vec<String>,
}

/// Batches of a data set, epoch after epoch.
#[derive(Clone)]
pub struct Loader {
    dataset: Arc<dyn Dataset>,
    pipeline: Arc<Pipeline>,
    config: LoaderConfig,
    shape: [usize; 3],
}

impl Loader {
    /// Puts the parts together and checks them; nothing is decoded.
    ///
    /// # Errors
    /// [`Error::Empty`] for a set without samples; [`Error::Config`] for a batch size, worker count, prefetch or number
    /// of repeats out of range, for repeats without `shuffle`, for `drop_last` with a batch larger than the set, and for
    /// transforms that do not give all images one size.
    pub fn new(dataset: Arc<dyn Dataset>, pipeline: Arc<Pipeline>, config: LoaderConfig) -> Result<Self> {
        let len = dataset.len();
        if len == 0 {
            return Err(Error::Empty { origin: "data set".into(), what: "holds 0 samples".into() });
        }
        let bounds = [
            ("batch_size", config.batch_size, 1, usize::MAX),
            ("workers", config.workers, 0, 1024),
            ("prefetch", config.prefetch, 1, 1024),
            ("repeats", config.repeats, 1, 1024),
        ];
        for (name, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(Error::config(name, value, format!("a number from {least} to {most} is expected")));
            }
        }
        if config.repeats > 1 && !config.shuffle {
            let expected = "samples in the set's order are expected to come once each, since an epoch of repeats leaves \
                            some out: set shuffle = true or repeats = 1";
            return Err(Error::config("repeats", config.repeats, expected));
        }
        if config.drop_last && config.batch_size > len {
            let expected = format!(
                "the set holds {len} samples and drop_last leaves out what is less than a batch: no batch would be left"
            );
            return Err(Error::config("batch_size", config.batch_size, expected));
        }
        let shape = pipeline.fixed_shape().or_else(|| dataset.image_size().map(|size| pipeline.output_shape(size)));
        let Some(shape) = shape else {
            let expected = "images of this set may differ in size, so the transforms must end in a fixed one: add a resize to [height, width] or a crop";
            return Err(Error::config("transforms", format!("{:?}", names(&pipeline)), expected));
        };
        let bytes = shape.iter().try_fold(4 * config.batch_size.min(len), |product, &size| product.checked_mul(size));
        if bytes.is_none_or(|bytes| bytes > MOST_BYTES) {
            let expected = format!("a batch of images {shape:?} may take {MOST_BYTES} bytes; choose a smaller one");
            return Err(Error::config("batch_size", config.batch_size, expected));
        }
        Ok(Self { dataset, pipeline, config, shape })
    }

    /// How many batches an epoch has.
    pub fn batches_per_epoch(&self) -> usize {
        let Self { config: LoaderConfig { batch_size, drop_last, .. }, .. } = self;
        if *drop_last { self.dataset.len() / batch_size } else { self.dataset.len().div_ceil(*batch_size) }
    }

    /// `[channels, height, width]` of each image.
    pub fn image_shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
    }

    /// The settings.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }

    /// The batches `start_batch..batches_per_epoch()` of an epoch, in order. Resuming in the middle gives what an
    /// uninterrupted epoch would have given from there. The threads begin at once and end when the iterator is dropped.
    pub fn epoch(&self, epoch: u64, start_batch: usize) -> Epoch {
        Epoch::new(self.clone(), epoch, start_batch)
    }

    /// The samples of an epoch in their order, repetitions side by side.
    pub(crate) fn order(&self, epoch: u64) -> Vec<usize> {
        let LoaderConfig { seed, shuffle, repeats, .. } = self.config;
        let len = self.dataset.len();
        let order = if shuffle { permutation(seed, epoch, len) } else { (0..len).collect() };
        order.into_iter().flat_map(|index| std::iter::repeat_n(index, repeats)).take(len).collect()
    }

    /// Loads the samples `indices`, which stand in the epoch's order from place `first` on, into one batch.
    pub(crate) fn assemble(
        &self,
        epoch: u64,
        first: usize,
        indices: &[usize],
        memory: &mut Memory,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Batch> {
        let [channels, height, width] = self.shape;
        let size = channels * height * width;
        let mut images = vec![0.0; indices.len() * size];
        let (mut labels, mut loaded, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for (&index, place) in indices.iter().zip(first..).take_while(|_| go_on()) {
            let slot = &mut images[loaded.len() * size..][..size];
            // The number of repeats is checked to fit.
            let repetition = (place % self.config.repeats) as u16;
            match self.sample(epoch, index, repetition, memory, slot) {
                Ok(label) => {
                    labels.push(label);
                    loaded.push(index);
                }
                Err(error) if self.config.on_corrupt == OnCorrupt::Skip && error.is_corrupt() => {
                    skipped.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        images.truncate(loaded.len() * size);
        Ok(Batch { images, shape: [loaded.len(), channels, height, width], labels, indices: loaded, skipped })
    }

    /// Loads one sample into `slot` and returns its label. Decoders meet whatever bytes lie on a disk: should one
    /// panic, the sample is named and the thread lives on.
    fn sample(&self, epoch: u64, index: usize, repetition: u16, memory: &mut Memory, slot: &mut [f32]) -> Result<i64> {
        let origin = || self.dataset.source(index);
        let load = || {
            let Memory { file, decoder, studio } = memory;
            let rng = || SampleRng::repeated(self.config.seed, epoch, index as u64, repetition);
            let encoded = self.dataset.encoded(index, file)?;
            if !encoded || !self.pipeline.apply_encoded(file, &mut rng(), slot, decoder, studio)? {
                let image = if encoded { decode_any(file, &origin())? } else { self.dataset.image(index)? };
                self.pipeline.apply_with(image, &mut rng(), slot, studio)?;
            }
            Ok(self.dataset.label(index) as i64)
        };
        match catch_unwind(AssertUnwindSafe(load)) {
            Ok(Ok(label)) => Ok(label),
            // These name the file already.
            Ok(Err(error @ (Error::Io { .. } | Error::Decode { .. }))) => Err(error),
            Ok(Err(error)) => Err(Error::Sample { origin: origin(), source: Box::new(error) }),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
                let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
                Err(Error::Panicked { origin: origin(), message: message.unwrap_or_else(|| "no message".into()) })
            }
        }
    }
}

/// What one thread uses again from sample to sample.
#[derive(Default)]
pub(crate) struct Memory {
    file: Vec<u8>,
    decoder: Decoder,
    studio: Studio,
}

fn names(pipeline: &Pipeline) -> Vec<&'static str> {
    pipeline.transforms().iter().map(|transform| transform.name()).collect()
}
