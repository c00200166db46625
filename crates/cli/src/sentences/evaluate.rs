//! A classifier of sentences, measured on a part: every prediction, and what they come to.

use anyhow::Result;
use tch::{Device, Kind, Tensor};
use whitebox_datasets::text::Labels;
use whitebox_language::{MaskedConfig, SequenceClassifier};
use whitebox_model::probe::NoProbe;

use super::measures::{self, Confusion, OF_CLASSES, OF_SCORES};
use super::{Encoded, SentenceBatch};

/// What was found.
pub struct Found {
    /// The mean loss of a sentence.
    pub loss: f64,
    /// The predictions, by row.
    pub predictions: Predictions,
}

/// What a model says of each row, beside what is true.
pub enum Predictions {
    /// Classes.
    Classes {
        /// How many there are.
        classes: usize,
        /// The class of each row.
        truth: Vec<usize>,
        /// The most probable class, and its probability.
        predicted: Vec<(usize, f64)>,
    },
    /// Numbers.
    Scores {
        /// The number of each row.
        truth: Vec<f64>,
        /// What the model says.
        predicted: Vec<f64>,
    },
}

/// What a model gives for a batch, `[rows, outputs]` in float32.
pub fn outputs(
    model: &SequenceClassifier,
    batch: &SentenceBatch,
    train: bool,
) -> Result<Tensor, whitebox_model::Error> {
    let [ids, segments, mask] = batch.inputs();
    // RoBERTa's files know one kind of token; a pair is told by its separators alone then.
    let types = match &model.config().encoder {
        MaskedConfig::CrateBert(config) => config.token_types,
        MaskedConfig::Bert(config) => config.token_types,
    };
    let segments = (types > 1).then_some(&segments);
    Ok(model.forward(&ids, segments, Some(&mask), train, &mut NoProbe)?.to_kind(Kind::Float))
}

/// Measures a model on a part. `progress` takes (sentences done, sentences in all).
pub fn evaluate(
    model: &SequenceClassifier,
    part: &Encoded,
    rows: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Found> {
    let total = part.len();
    let (mut loss, mut done) = (0.0, 0u64);
    let (mut classes, mut scores) = (vec![(0, 0.0); total], vec![0.0; total]);
    for chunk in part.by_length().chunks(rows.max(1)) {
        let batch = part.batch(chunk)?;
        let outputs = tch::no_grad(|| outputs(model, &batch, false))?;
        let mean = tch::no_grad(|| model.loss(&outputs, &batch.targets()))?;
        loss += f64::try_from(mean.to_kind(Kind::Double))? * chunk.len() as f64;
        if outputs.size()[1] == 1 {
            let found = Vec::<f64>::try_from(outputs.to_device(Device::Cpu).to_kind(Kind::Double).view([-1]))?;
            chunk.iter().zip(found).for_each(|(&row, score)| scores[row] = score);
        } else {
            let (sure, best) = outputs.softmax(-1, Kind::Float).max_dim(-1, false);
            let sure = Vec::<f32>::try_from(sure.to_device(Device::Cpu))?;
            let best = Vec::<i64>::try_from(best.to_device(Device::Cpu))?;
            for ((&row, sure), best) in chunk.iter().zip(sure).zip(best) {
                classes[row] = (usize::try_from(best)?, f64::from(sure));
            }
        }
        done += chunk.len() as u64;
        progress(done, total as u64);
    }
    let predictions = match &part.table.labels {
        Labels::Scores(truth) => Predictions::Scores { truth: truth.clone(), predicted: scores },
        Labels::Classes { names, ids } => {
            Predictions::Classes { classes: names.len(), truth: ids.clone(), predicted: classes }
        }
        Labels::Absent => anyhow::bail!("these sentences have no labels"),
    };
    Ok(Found { loss: loss / total.max(1) as f64, predictions })
}

impl Found {
    /// The measures by name.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let named = |names: &[&str], values: &[f64]| -> Vec<(String, f64)> {
            let loss = ("loss".to_owned(), self.loss);
            let others = names.iter().map(|name| (*name).to_owned()).zip(values.iter().copied());
            std::iter::once(loss).chain(others).collect()
        };
        match &self.predictions {
            Predictions::Classes { .. } => {
                let counts = self.confusion();
                named(&OF_CLASSES, &[measures::accuracy(&counts), measures::f1(&counts), measures::matthews(&counts)])
            }
            Predictions::Scores { truth, predicted } => {
                named(&OF_SCORES, &[measures::pearson(truth, predicted), measures::spearman(truth, predicted)])
            }
        }
    }

    /// Counts, `[truth][predicted]`; empty of scores.
    pub fn confusion(&self) -> Confusion {
        match &self.predictions {
            Predictions::Classes { classes, truth, predicted } => {
                let predicted: Vec<usize> = predicted.iter().map(|(class, _)| *class).collect();
                measures::confusion(*classes, truth, &predicted)
            }
            Predictions::Scores { .. } => Confusion::new(),
        }
    }

    /// The rows that went wrong, the worst first: of classes the mistakes that the model was surest of, of scores the widest errors.
    pub fn worst(&self, most: usize) -> Vec<usize> {
        let mut rows: Vec<(usize, f64)> = match &self.predictions {
            Predictions::Classes { truth, predicted, .. } => {
                let rows = truth.iter().zip(predicted).enumerate();
                rows.filter(|(_, (truth, (class, _)))| *truth != class)
                    .map(|(row, (_, (_, sure)))| (row, *sure))
                    .collect()
            }
            Predictions::Scores { truth, predicted } => {
                truth.iter().zip(predicted).map(|(truth, score)| (truth - score).abs()).enumerate().collect()
            }
        };
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        rows.into_iter().take(most).map(|(row, _)| row).collect()
    }
}
