//! What a trained model makes of images when nothing of it changes any more: its features, and how well classes can be read off them.

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};
use whitebox_datasets::Loader;
use whitebox_model::{NoProbe, VisionModel};

use crate::images::images_of;

/// Features of a set, in the loader's order.
#[derive(Debug)]
pub struct Features {
    /// `[N, d]`, float32, on the CPU.
    pub values: Tensor,
    /// `[N]`, int64.
    pub labels: Tensor,
    /// Images left out because they could not be decoded.
    pub skipped: Vec<String>,
}

/// Runs the model over a loader's whole set; `progress` takes (batches done, batches in all).
pub fn features(
    model: &dyn VisionModel,
    loader: &Loader,
    device: Device,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Features> {
    let folded = model.fold(Kind::Float);
    let model = folded.as_deref().unwrap_or(model);
    let total = loader.batches_per_epoch() as u64;
    let (mut values, mut labels, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for (done, batch) in loader.epoch(0, 0).enumerate() {
        let batch = batch?;
        skipped.extend(batch.skipped.iter().cloned());
        if !batch.labels.is_empty() {
            let found = tch::no_grad(|| model.features(&images_of(&batch, device), &mut NoProbe))?;
            values.push(found.to_kind(Kind::Float).to_device(Device::Cpu));
            labels.extend_from_slice(&batch.labels);
        }
        progress(done as u64 + 1, total);
    }
    if values.is_empty() {
        bail!("not one of the {} images could be read", loader.dataset().len());
    }
    Ok(Features { values: Tensor::cat(&values, 0), labels: Tensor::from_slice(&labels), skipped })
}

impl Features {
    /// Every `every`-th of the features, and the others.
    pub fn hold_out(&self, every: i64) -> (Features, Features) {
        let index = Tensor::arange(self.labels.size()[0], (Kind::Int64, Device::Cpu));
        let held = index.remainder(every).eq(every - 1);
        let part = |mask: &Tensor| {
            let rows = index.masked_select(mask);
            Features {
                values: self.values.index_select(0, &rows),
                labels: self.labels.index_select(0, &rows),
                skipped: Vec::new(),
            }
        };
        (part(&held), part(&held.logical_not()))
    }
}

/// How the nearest neighbours vote: cosine similarity s weighs `exp(s / temperature)` (Wu et al., arXiv:1805.01978; the measure of DINO).
pub const TEMPERATURE: f64 = 0.07;

/// The share of `asked` whose class is that for which its `k` nearest neighbours among `known` vote, for each k.
pub fn knn(
    known: &Features,
    asked: &Features,
    classes: i64,
    ks: &[i64],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<f64>> {
    let most = ks.iter().copied().max().unwrap_or(1);
    let count = known.labels.size()[0];
    if ks.iter().any(|k| !(1..=count).contains(k)) {
        bail!("--k takes numbers from 1 to {count}, the number of training images; found {ks:?}");
    }
    let unit = |x: &Tensor| x / x.norm_scalaropt_dim(2.0, [1i64].as_slice(), true).clamp_min(1e-12);
    let (known_unit, asked_unit) = (unit(&known.values), unit(&asked.values));
    let total = asked.labels.size()[0];
    let mut right = vec![0i64; ks.len()];
    // Some hundred at a time, so that not all similarities are there at once.
    const STEP: i64 = 512;
    for from in (0..total).step_by(STEP as usize) {
        let rows = STEP.min(total - from);
        let similarity = asked_unit.narrow(0, from, rows).matmul(&known_unit.tr());
        let (near, who) = similarity.topk(most, 1, true, true);
        let votes = (near / TEMPERATURE).exp();
        let labels = known.labels.take(&who);
        for (i, &k) in ks.iter().enumerate() {
            let tally = Tensor::zeros([rows, classes], (Kind::Float, Device::Cpu)).scatter_add(
                1,
                &labels.narrow(1, 0, k),
                &votes.narrow(1, 0, k),
            );
            let truth = asked.labels.narrow(0, from, rows);
            right[i] += tally.argmax(1, false).eq_tensor(&truth).sum(Kind::Int64).int64_value(&[]);
        }
        progress((from + rows) as u64, total as u64);
    }
    Ok(right.into_iter().map(|n| n as f64 / total as f64).collect())
}

/// A linear classifier on standardised features.
#[derive(Debug)]
pub struct Linear {
    mean: Tensor,
    deviation: Tensor,
    weight: Tensor,
    bias: Tensor,
}

/// Passes of the solver; the loss is smooth and convex, and these are plenty.
const STEPS: u64 = 200;

impl Linear {
    /// Multinomial logistic regression with a penalty `decay / 2 |W|^2` on the mean loss, by AdamW on the whole set with a cosine from 0.05 to 0.
    pub fn fit(known: &Features, classes: i64, decay: f64, progress: &mut dyn FnMut(u64, u64)) -> Result<Linear> {
        let mean = known.values.mean_dim([0i64].as_slice(), true, Kind::Float);
        let deviation = known.values.std_dim([0i64].as_slice(), false, true).clamp_min(1e-6);
        let x = (&known.values - &mean) / &deviation;
        let d = x.size()[1];
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let model = Linear { mean, deviation, weight: zeros(&[classes, d]), bias: zeros(&[classes]) };
        let variables =
            [("weight", &model.weight), ("bias", &model.bias)].map(|(n, v)| (n.to_owned(), v.shallow_clone()));
        let config = whitebox_train::OptimizerConfig { weight_decay: 0.0, ..Default::default() };
        let mut optimizer = whitebox_train::Optimizer::new(&variables, &config)?;
        for step in 0..STEPS {
            optimizer.clear_grads()?;
            let logits = x.linear(&model.weight, Some(&model.bias));
            let penalty = model.weight.square().sum(Kind::Float) * (decay / 2.0);
            (whitebox_train::cross_entropy(&logits, &known.labels, 0.0, None)? + penalty).f_backward()?;
            let done = step as f64 / STEPS as f64;
            optimizer.step(0.05 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))?;
            progress(step + 1, STEPS);
        }
        Ok(Linear { weight: model.weight.detach(), bias: model.bias.detach(), ..model })
    }

    /// The share of `asked` that is classified rightly.
    pub fn accuracy(&self, asked: &Features) -> f64 {
        let x = (&asked.values - &self.mean) / &self.deviation;
        let predicted = x.linear(&self.weight, Some(&self.bias)).argmax(1, false);
        predicted.eq_tensor(&asked.labels).to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clusters on a circle, with some noise.
    fn clusters(each: i64, salt: i64) -> Features {
        let labels = Tensor::arange(3 * each, (Kind::Int64, Device::Cpu)).remainder(3);
        let angle = labels.to_kind(Kind::Float) * 2.0;
        let noise = (Tensor::arange(6 * each, (Kind::Float, Device::Cpu)) * 1.7 + salt).sin().reshape([-1, 2]) * 0.3;
        Features { values: Tensor::stack(&[angle.cos(), angle.sin()], 1) + noise, labels, skipped: Vec::new() }
    }

    #[test]
    fn neighbours_and_a_linear_map_tell_clusters_apart() -> Result<()> {
        let (known, asked) = (clusters(40, 0), clusters(15, 7));
        assert_eq!(knn(&known, &asked, 3, &[1, 5, 20], &mut |_, _| ())?, [1.0; 3]);
        assert!(Linear::fit(&known, 3, 1e-3, &mut |_, _| ())?.accuracy(&asked) > 0.99);
        // Labels that have nothing to do with the features cannot be read off them.
        let random = Features { labels: clusters(40, 0).labels.flip([0]).roll([1], [0]), ..clusters(40, 0) };
        let shuffled = Features { values: random.values.roll([17], [0]), ..random };
        assert!(Linear::fit(&shuffled, 3, 1e-3, &mut |_, _| ())?.accuracy(&asked) < 0.9);
        assert!(knn(&known, &asked, 3, &[121], &mut |_, _| ()).is_err());
        Ok(())
    }

    #[test]
    fn a_part_is_held_out() {
        let all = clusters(10, 0);
        let (held, rest) = all.hold_out(10);
        assert_eq!((held.labels.size(), rest.values.size()), (vec![3], vec![27, 2]));
    }
}
