//! A linear model on pixels: what any network on the same images has to beat.

use anyhow::Result;
use tch::nn::{self, Module, OptimizerConfig};
use tch::{Device, Kind, Tensor};
use whitebox_datasets::Loader;

use crate::images::images_of;

const EPOCHS: u64 = 20;
const PEAK_RATE: f64 = 3e-3;

/// Trains multinomial logistic regression (AdamW, cosine to zero) on `train` and gives its accuracy on `validation`.
pub fn linear_accuracy(
    train: &Loader,
    validation: &Loader,
    device: Device,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<f64> {
    let inputs = train.image_shape().iter().product::<usize>() as i64;
    let classes = train.dataset().classes().len() as i64;
    let store = nn::VarStore::new(device);
    tch::manual_seed(0);
    let model = nn::linear(store.root(), inputs, classes, Default::default());
    let mut optimizer = nn::AdamW { wd: 1e-4, ..Default::default() }.build(&store, PEAK_RATE)?;
    let total = EPOCHS * train.batches_per_epoch() as u64;
    let mut step = 0;
    for epoch in 0..EPOCHS {
        for batch in train.epoch(epoch, 0) {
            let batch = batch?;
            if !batch.labels.is_empty() {
                optimizer.set_lr(PEAK_RATE * 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / total as f64).cos()));
                let logits = model.forward(&images_of(&batch, device).flatten(1, -1));
                let labels = Tensor::from_slice(&batch.labels).to_device(device);
                optimizer.backward_step(&logits.cross_entropy_for_logits(&labels));
            }
            step += 1;
            progress(step, total);
        }
    }
    let (mut right, mut seen) = (0, 0);
    for batch in validation.epoch(0, 0) {
        let batch = batch?;
        if !batch.labels.is_empty() {
            let labels = Tensor::from_slice(&batch.labels).to_device(device);
            let predicted = tch::no_grad(|| model.forward(&images_of(&batch, device).flatten(1, -1))).argmax(-1, false);
            right += predicted.eq_tensor(&labels).sum(Kind::Int64).int64_value(&[]);
            seen += batch.labels.len();
        }
    }
    Ok(right as f64 / seen.max(1) as f64)
}
