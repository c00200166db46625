//! Language modelling: the next token of a text, or, of a masked encoder, tokens that are hidden.
//!
//! What a batch holds is a function of seed and number alone, so that a run that was stopped within an epoch goes on with the tokens that come next. A sample is a
//! token: speed is told in tokens a second, and accumulated gradients weigh every token alike.

mod run;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde_json::Value;
use tch::{Device, Tensor, nn};
use whitebox_datasets::text::{Masking, RandomWindows, ShuffledWindows, TokenSet, WindowBatch};
use whitebox_language::{IGNORED, LanguageConfig, LanguageCost, LanguageModel, MaskedConfig, MaskedModel};
use whitebox_model::probe::NoProbe;
use whitebox_model::weights::{self, Card, LoadOptions, Weights};
use whitebox_train::{BoxError, Loss, Source, Task};

use crate::checkpoint::load;
use crate::checkpoint::text::OpenedText;
use crate::likelihood::{self, Frame, ids_of};
use crate::tasks::trainable;
use crate::text::{TextConfig, TextSets, Windows};

/// How evaluations hide tokens: the same in every run.
pub const EVALUATION_SEED: u64 = 1;

/// What is foretold, and by what.
enum Model {
    /// The next token.
    Causal(Box<dyn LanguageModel>),
    /// Hidden tokens; how those of an evaluation are hidden.
    Masked(Box<dyn MaskedModel>, Masking),
}

/// A model of text on a device, and what it takes to train and measure it.
pub struct OnText {
    store: nn::VarStore,
    model: Model,
    cost: LanguageCost,
    context: u64,
    /// What its checkpoints say of themselves.
    card: Card<Value>,
    text: TextConfig,
    sets: TextSets,
    /// What evaluations read.
    measured: Arc<TokenSet>,
}

/// One batch of sequences.
pub struct TextBatch {
    /// `[rows, length]` tokens.
    inputs: Vec<u32>,
    /// What is to be foretold at each place, or [`IGNORED`].
    labels: Vec<i64>,
    length: usize,
}

/// Training batches by position.
pub struct TextSource {
    windows: Cut,
    masking: Option<(Masking, Frame)>,
    batch: u64,
    batches: u64,
}

enum Cut {
    Random(RandomWindows),
    Shuffled(ShuffledWindows),
}

impl TextSource {
    /// Windows that fill a context, frame and all.
    fn new(
        text: &TextConfig,
        set: &Arc<TokenSet>,
        context: usize,
        seed: u64,
        masking: Option<(Masking, Frame)>,
    ) -> Result<Self> {
        let content = masking.as_ref().map_or(context, |(_, frame)| frame.content(context));
        let windows = match text.windows {
            Windows::Random => Cut::Random(RandomWindows::new(set.clone(), content, text.batch_size, seed)?),
            Windows::Shuffled => Cut::Shuffled(ShuffledWindows::new(set.clone(), content, text.batch_size, seed)?),
        };
        let whole = (set.len() / content as u64).div_ceil(text.batch_size as u64).max(1);
        Ok(TextSource { windows, masking, batch: text.batch_size as u64, batches: text.epoch_batches.unwrap_or(whole) })
    }

    fn batch(&self, number: u64) -> Result<TextBatch> {
        let WindowBatch { inputs, targets, context, .. } = match &self.windows {
            Cut::Random(windows) => windows.batch(number)?,
            Cut::Shuffled(windows) => windows.batch(number)?,
        };
        let Some((masking, frame)) = &self.masking else {
            let labels = targets.into_iter().map(i64::from).collect();
            return Ok(TextBatch { inputs, labels, length: context });
        };
        let rows: Vec<u32> = inputs.chunks(context).flat_map(|row| frame.around(row)).collect();
        let length = rows.len() / self.batch as usize;
        let masked = masking.batch(number, 0, &rows, length)?;
        Ok(TextBatch { inputs: masked.inputs, labels: masked.labels, length })
    }
}

impl Source for TextSource {
    type Batch = TextBatch;

    fn batch_size(&self) -> u64 {
        self.batch
    }

    fn batches_per_epoch(&self) -> u64 {
        self.batches
    }

    fn epoch(&self, epoch: u64, start_batch: u64) -> Box<dyn Iterator<Item = Result<TextBatch, BoxError>> + Send + '_> {
        let first = epoch * self.batches;
        Box::new((start_batch..self.batches).map(move |number| self.batch(first + number).map_err(BoxError::from)))
    }
}

impl Task for OnText {
    type Batch = TextBatch;

    fn variables(&self) -> Vec<(String, Tensor)> {
        trainable(&self.store)
    }

    fn device(&self) -> Device {
        self.store.device()
    }

    fn loss(&mut self, batch: &TextBatch) -> Result<Option<Loss>, BoxError> {
        let ids = ids_of(&batch.inputs, batch.length);
        let labels = Tensor::from_slice(&batch.labels).view([-1, batch.length as i64]);
        let loss = match &self.model {
            Model::Causal(model) => model.loss(&ids, &labels, true, &mut NoProbe)?,
            Model::Masked(model, _) => model.mlm_loss(&ids, None, None, &labels, true, &mut NoProbe)?,
        };
        let samples = batch.labels.iter().filter(|label| **label != IGNORED).count() as u64;
        Ok(Some(Loss { loss, samples, scalars: Vec::new() }))
    }

    fn evaluate(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<(String, f64)>, BoxError> {
        Ok(self.measure(progress)?.0)
    }

    fn save_model(&self, path: &Path) -> Result<(), BoxError> {
        Ok(weights::save(path, &self.store.variables(), &self.card)?)
    }

    fn load_model(&mut self, path: &Path) -> Result<(), BoxError> {
        let weights = Weights::open(path)?;
        // A run goes on with the text that it began with, or not at all.
        let packed = |card: Option<&Value>| card.and_then(|data| data.get("packed").cloned());
        let before = packed(weights.card.as_ref().and_then(|card| card.data.as_ref()));
        if before.is_some() && before != packed(self.card.data.as_ref()) {
            return Err(format!(
                "the text is no longer the one that this run was trained on ({}): bring it back, or begin a new run",
                self.sets.train.identity()
            )
            .into());
        }
        Ok(weights.load_into(&self.store.variables(), LoadOptions::default())?)
    }
}

impl OnText {
    /// The measures of the validation text, and how many tokens are behind them.
    fn measure(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(Vec<(String, f64)>, u64)> {
        let (set, rows) = (&self.measured, self.text.eval_batch_size);
        Ok(match &self.model {
            Model::Causal(model) => {
                let found = likelihood::of_set(model.as_ref(), set, self.text.stride, rows, progress)?;
                (found.metrics(), found.tokens)
            }
            Model::Masked(model, masking) => {
                let frame = Frame::of(self.sets.tokenizer.as_ref());
                let device = self.store.device();
                let found = likelihood::of_hidden(model.as_ref(), set, masking, &frame, rows, device, progress)?;
                (found.metrics(), found.tokens)
            }
        })
    }
}

/// A language model read from a file, ready to be used.
pub fn load_language(opened: &OpenedText<LanguageConfig>, device: Device) -> Result<Box<dyn LanguageModel>> {
    let (weights, config) = (&opened.weights, &opened.config);
    Ok(load(weights, config.cost().parameters, LoadOptions::default(), device, |root| config.build(root))?.1)
}

/// A masked encoder read from a file, ready to be used.
pub fn load_masked(opened: &OpenedText<MaskedConfig>, device: Device) -> Result<Box<dyn MaskedModel>> {
    let (weights, config) = (&opened.weights, &opened.config);
    Ok(load(weights, config.cost().parameters, LoadOptions::default(), device, |root| config.build(root))?.1)
}
