//! Measuring a classifier on a set: loss, top-1, top-5, the confusion matrix, every single prediction.

use anyhow::{Result, bail};
use tch::{Device, Kind, Reduction, Tensor};
use torch_extras::autocast::Autocast;
use whitebox_datasets::Loader;
use whitebox_model::VisionModel;
use whitebox_model::probe::NoProbe;

use crate::images::{first_of, images_of};

/// The names that [`Evaluation::metrics`] may give.
pub const MEASURES: [&str; 3] = ["loss", "accuracy", "top5"];

/// What the model said of one image.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Position in the set.
    pub index: usize,
    /// The label.
    pub truth: usize,
    /// The most probable class.
    pub predicted: usize,
    /// Its probability.
    pub probability: f64,
}

/// A whole set's measures.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Mean cross-entropy, natural logarithm.
    pub loss: f64,
    /// Share of images whose class is the most probable one.
    pub accuracy: f64,
    /// Share of images whose class is among the five most probable ones; none where there are no more than five classes.
    pub top5: Option<f64>,
    /// Counts by `[truth][predicted]`.
    pub confusion: Vec<Vec<u64>>,
    /// One entry an image, in the set's order.
    pub predictions: Vec<Prediction>,
    /// Images left out because they could not be decoded.
    pub skipped: Vec<String>,
}

impl Evaluation {
    /// The measures by name.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let mut metrics = vec![("loss".to_owned(), self.loss), ("accuracy".to_owned(), self.accuracy)];
        metrics.extend(self.top5.map(|top5| ("top5".to_owned(), top5)));
        metrics
    }
}

/// Runs the model over a loader's whole set; `progress` takes (batches done, batches in all).
pub fn evaluate(
    model: &dyn VisionModel,
    loader: &Loader,
    device: Device,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Evaluation> {
    let classes = loader.dataset().classes().len();
    let kind = Autocast::kind(device)?.unwrap_or(Kind::Float);
    let folded = model.fold(kind);
    let model = folded.as_deref().unwrap_or(model);
    let mut found = Evaluation {
        loss: 0.0,
        accuracy: 0.0,
        top5: None,
        confusion: vec![vec![0; classes]; classes],
        predictions: Vec::new(),
        skipped: Vec::new(),
    };
    let (mut loss, mut within_five) = (0.0, 0i64);
    let total = loader.batches_per_epoch() as u64;
    for (done, batch) in loader.epoch(0, 0).enumerate() {
        let batch = batch?;
        found.skipped.extend(batch.skipped.iter().cloned());
        if !batch.labels.is_empty() {
            let labels = Tensor::from_slice(&batch.labels).to_device(device);
            let logits = tch::no_grad(|| model.forward(&images_of(&batch, device), &mut NoProbe))?.to_kind(Kind::Float);
            loss += f64::try_from(logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Sum, -100, 0.0))?;
            if classes > 5 {
                let five = logits.topk(5, -1, true, true).1;
                within_five += five.eq_tensor(&labels.unsqueeze(1)).sum(Kind::Int64).int64_value(&[]);
            }
            let (probability, predicted) = logits.softmax(-1, Kind::Float).max_dim(-1, false);
            let probability = Vec::<f32>::try_from(probability.to_device(Device::Cpu))?;
            let predicted = Vec::<i64>::try_from(predicted.to_device(Device::Cpu))?;
            for (i, (&truth, &index)) in batch.labels.iter().zip(&batch.indices).enumerate() {
                let (truth, predicted) = (truth as usize, predicted[i] as usize);
                found.confusion[truth][predicted] += 1;
                found.predictions.push(Prediction { index, truth, predicted, probability: probability[i].into() });
            }
        }
        progress(done as u64 + 1, total);
    }
    let n = found.predictions.len();
    if n == 0 {
        bail!("not one of the {} images could be evaluated{}", loader.dataset().len(), first_of(&found.skipped));
    }
    let right = found.predictions.iter().filter(|p| p.truth == p.predicted).count();
    found.loss = loss / n as f64;
    found.accuracy = right as f64 / n as f64;
    found.top5 = (classes > 5).then_some(within_five as f64 / n as f64);
    Ok(found)
}
