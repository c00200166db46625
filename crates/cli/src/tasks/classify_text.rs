//! Classes or scores of sentences and pairs of them: a masked encoder, pre-trained or drawn, under a linear map.
//!
//! What a batch holds is a function of seed, epoch and number alone, so that a run that was stopped within an epoch goes on with the sentences that come next.

mod run;

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tch::{Device, Kind, Tensor, nn};
use whitebox_language::SequenceClassifier;
use whitebox_model::weights::{self, Card, LoadOptions, Weights};
use whitebox_train::{BoxError, Loss, Task};

use crate::checkpoint::load;
use crate::checkpoint::sentences::OpenedClassifier;
use crate::sentences::{SentenceBatch, SentenceSets, evaluate, outputs};
use crate::tasks::trainable;

/// A classifier of sentences on a device, and what it takes to train and measure it.
pub struct OnSentences {
    store: nn::VarStore,
    model: SequenceClassifier,
    /// What its checkpoints say of themselves.
    card: Card<Value>,
    sets: SentenceSets,
    /// What tells its tokenizer from all others.
    tokenizer: whitebox_datasets::text::Identity,
    eval_batch: usize,
}

impl Task for OnSentences {
    type Batch = SentenceBatch;

    fn variables(&self) -> Vec<(String, Tensor)> {
        trainable(&self.store)
    }

    fn device(&self) -> Device {
        self.store.device()
    }

    fn loss(&mut self, batch: &SentenceBatch) -> Result<Option<Loss>, BoxError> {
        let outputs = outputs(&self.model, batch, true)?;
        let targets = batch.targets();
        let loss = self.model.loss(&outputs, &targets)?;
        let scalars = match targets.kind() {
            Kind::Int64 => {
                let right = outputs.detach().argmax(-1, false).eq_tensor(&targets.to_device(outputs.device()));
                vec![("accuracy", right.to_kind(Kind::Float).mean(Kind::Float))]
            }
            _ => Vec::new(),
        };
        Ok(Some(Loss { loss, samples: batch.rows(), scalars }))
    }

    fn evaluate(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<(String, f64)>, BoxError> {
        Ok(evaluate(&self.model, &self.sets.validation, self.eval_batch, progress)?.metrics())
    }

    fn save_model(&self, path: &Path) -> Result<(), BoxError> {
        Ok(weights::save(path, &self.store.variables(), &self.card)?)
    }

    fn load_model(&mut self, path: &Path) -> Result<(), BoxError> {
        Ok(Weights::open(path)?.load_into(&self.store.variables(), LoadOptions::default())?)
    }
}

/// A classifier of sentences read from a file, ready to be used.
pub fn load_classifier(opened: &OpenedClassifier, device: Device) -> Result<SequenceClassifier> {
    let (weights, config) = (&opened.weights, &opened.config);
    Ok(load(weights, config.parameters(), LoadOptions::default(), device, |root| config.build(root))?.1)
}
