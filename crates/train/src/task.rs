//! What the engine is given: a task (the model with its loss and its measures) and a source (the data).

use std::path::Path;

use tch::{Device, Tensor};

use crate::error::BoxError;

/// What a forward pass over one batch gives. Nothing here has been read back from the device.
#[derive(Debug)]
pub struct Loss {
    /// Mean loss over the batch's samples: a scalar with a graph behind it.
    pub loss: Tensor,
    /// How many samples the mean is over; accumulation weighs micro-batches by it.
    pub samples: u64,
    /// More means over the same samples, to be reported (an accuracy, say): scalars. The same names in every batch.
    pub scalars: Vec<(&'static str, Tensor)>,
}

/// Something that can be trained.
pub trait Task {
    /// One batch of the source's data.
    type Batch: Send;

    /// The trainable variables by name. The tensors share storage with the model, and the names are unique.
    fn variables(&self) -> Vec<(String, Tensor)>;

    /// Where the variables live.
    fn device(&self) -> Device;

    /// Runs the model in training mode; `None` for a batch with no samples. The engine has set autocast.
    ///
    /// # Errors
    /// Whatever makes training impossible; it ends the run.
    fn loss(&mut self, batch: &Self::Batch) -> Result<Option<Loss>, BoxError>;

    /// Measures the model on validation data, by name (`loss`, `accuracy`, ...), in evaluation mode. `progress` takes (done, total).
    /// The engine has switched gradients off and set autocast.
    ///
    /// # Errors
    /// Whatever makes the measure impossible; it ends the run.
    fn evaluate(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<(String, f64)>, BoxError>;

    /// Writes the model to `path` (`.../model.safetensors`) with all that a reader needs beside the parameters (config, class names).
    ///
    /// # Errors
    /// Those of the file system.
    fn save_model(&self, path: &Path) -> Result<(), BoxError>;

    /// Puts back, bit for bit, what `save_model` wrote, into the same tensors that `variables` gave.
    ///
    /// # Errors
    /// A file that does not fit this model.
    fn load_model(&mut self, path: &Path) -> Result<(), BoxError>;
}

/// Batches by position. What a batch holds must depend on (epoch, number) alone, not on what was read before it.
pub trait Source {
    /// One batch.
    type Batch;

    /// Samples in a full batch; a learning rate that is meant for a number of samples scales by it.
    fn batch_size(&self) -> u64;

    /// Batches in an epoch, at most.
    fn batches_per_epoch(&self) -> u64;

    /// The batches of an epoch, from number `start_batch` on (both count from 0).
    fn epoch(
        &self,
        epoch: u64,
        start_batch: u64,
    ) -> Box<dyn Iterator<Item = Result<Self::Batch, BoxError>> + Send + '_>;
}
