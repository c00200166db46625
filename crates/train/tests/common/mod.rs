//! A task small enough to train in milliseconds, with dropout, so that the random state matters to every bit.
#![allow(dead_code)] // each test binary uses its part

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Tensor};
use whitebox_train::{BoxError, Event, Loss, Sink, Source, Task, TrainConfig, tensors};

type OnSave = dyn Fn(&Path) -> Result<(), BoxError>;

/// Learns the sine of a sum by a two-layer net with dropout, 4 -> 16 -> 1.
pub struct Regression {
    pub variables: Vec<(String, Tensor)>,
    /// Makes the loss of this call (from 1) NaN.
    pub nan_at: Option<u64>,
    pub calls: u64,
    pub dropout: f64,
    /// Called in `save_model` after the file is written.
    pub on_save: Box<OnSave>,
    /// What the next evaluations give, in place of the true loss.
    pub measures: RefCell<Vec<f64>>,
    pub kinds: Rc<Cell<Option<Kind>>>,
}

fn wave(shape: &[i64], salt: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) + salt) * 1.7).sin().reshape(shape)
}

impl Default for Regression {
    fn default() -> Self {
        let variables = [
            ("fc1.bias", wave(&[16], 0.1) * 0.1),
            ("fc1.weight", wave(&[16, 4], 0.2) * 0.5),
            ("fc2.bias", wave(&[1], 0.3) * 0.1),
            ("fc2.weight", wave(&[1, 16], 0.4) * 0.25),
        ];
        Self {
            variables: variables.map(|(name, v)| (name.to_owned(), v.set_requires_grad(true))).into(),
            nan_at: None,
            calls: 0,
            dropout: 0.3,
            on_save: Box::new(|_| Ok(())),
            measures: RefCell::default(),
            kinds: Rc::default(),
        }
    }
}

impl Regression {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let v = |i: usize| &self.variables[i].1;
        let hidden = x.linear(v(1), Some(v(0))).relu().dropout(self.dropout, train);
        self.kinds.set(Some(hidden.kind()));
        hidden.linear(v(3), Some(v(2))).squeeze_dim(-1)
    }

    /// All parameters, bit for bit.
    pub fn bits(&self) -> Vec<u32> {
        let bits = |v: &Tensor| Vec::<f32>::try_from(v.detach().reshape([-1])).unwrap().into_iter().map(f32::to_bits);
        self.variables.iter().flat_map(|(_, v)| bits(v)).collect()
    }
}

impl Task for Regression {
    type Batch = Vec<f32>;

    fn variables(&self) -> Vec<(String, Tensor)> {
        self.variables.iter().map(|(name, v)| (name.clone(), v.shallow_clone())).collect()
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn loss(&mut self, batch: &Vec<f32>) -> Result<Option<Loss>, BoxError> {
        self.calls += 1;
        let samples = batch.len() as u64 / 4;
        if samples == 0 {
            return Ok(None);
        }
        let x = Tensor::f_from_slice(batch)?.reshape([-1, 4]);
        let target = x.sum_dim_intlist(-1, false, Kind::Float).sin();
        let mut loss = (self.forward(&x, true).to_kind(Kind::Float) - target).square().mean(Kind::Float);
        if self.nan_at == Some(self.calls) {
            loss *= f64::NAN;
        }
        let error = loss.detach().sqrt();
        Ok(Some(Loss { loss, samples, scalars: vec![("rmse", error)] }))
    }

    fn evaluate(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<(String, f64)>, BoxError> {
        progress(1, 1);
        let x = wave(&[32, 4], 5.0);
        let target = x.sum_dim_intlist(-1, false, Kind::Float).sin();
        let loss = f64::try_from((self.forward(&x, false).to_kind(Kind::Float) - target).square().mean(Kind::Float))?;
        let mut planned = self.measures.borrow_mut();
        let measure = if planned.is_empty() { loss } else { planned.remove(0) };
        Ok(vec![("loss".into(), measure), ("true_loss".into(), loss)])
    }

    fn save_model(&self, path: &Path) -> Result<(), BoxError> {
        tensors::write(path, &self.variables())?;
        (self.on_save)(path)
    }

    fn load_model(&mut self, path: &Path) -> Result<(), BoxError> {
        Ok(tensors::copy_into(&self.variables, &tensors::read(path)?, "", path)?)
    }
}

/// `batches` batches of `size` samples; the last has `last` samples. All numbers follow from epoch and position.
pub struct Data {
    pub batches: u64,
    pub size: usize,
    pub last: usize,
}

impl Default for Data {
    fn default() -> Self {
        Self { batches: 5, size: 8, last: 3 }
    }
}

impl Source for Data {
    type Batch = Vec<f32>;

    fn batch_size(&self) -> u64 {
        self.size as u64
    }

    fn batches_per_epoch(&self) -> u64 {
        self.batches
    }

    fn epoch(&self, epoch: u64, start: u64) -> Box<dyn Iterator<Item = Result<Vec<f32>, BoxError>> + Send + '_> {
        Box::new((start..self.batches).map(move |batch| {
            let count = if batch + 1 == self.batches { self.last } else { self.size };
            let number = |i: usize| ((epoch * 1000 + batch * 100 + i as u64) as f32 * 0.77).sin();
            Ok((0..4 * count).map(number).collect())
        }))
    }
}

/// Settings that exercise everything: accumulation over groups that do not divide the epoch, clipping, warm-up, best.
pub fn config() -> TrainConfig {
    serde_json::from_str(
        r#"{"epochs": 4, "accumulate": 2, "clip": 0.5, "seed": 11, "log_every": 2,
            "optimizer": {"lr": 0.01}, "schedule": {"warmup_epochs": 1},
            "checkpoint": {"keep_last": 2, "best": {"metric": "loss", "direction": "min"}}}"#,
    )
    .unwrap()
}

/// Keeps what it is told, in words, and raises the stop flag after a step.
#[derive(Default)]
pub struct Recorder {
    pub told: Rc<RefCell<Vec<String>>>,
    pub losses: Rc<RefCell<Vec<(u64, f64)>>>,
    pub stop: Option<(u64, Arc<AtomicBool>)>,
}

impl Sink for Recorder {
    fn emit(&mut self, event: &Event<'_>) -> Result<(), BoxError> {
        let line = match event {
            Event::Tick { step, .. } => {
                if let Some((at, stop)) = &self.stop
                    && step == at
                {
                    stop.store(true, Ordering::Relaxed);
                }
                return Ok(());
            }
            Event::Step { step, loss, .. } => {
                self.losses.borrow_mut().push((*step, *loss));
                format!("step {step}")
            }
            Event::Eval { step, best, .. } => format!("eval {step}{}", if *best { " best" } else { "" }),
            Event::Checkpoint { step, .. } => format!("checkpoint {step}"),
            Event::Warning { message, .. } => format!("warning: {message}"),
            Event::Start { step, .. } => format!("start {step}"),
            Event::End { step, .. } => format!("end {step}"),
            _ => return Ok(()),
        };
        self.told.borrow_mut().push(line);
        Ok(())
    }
}
