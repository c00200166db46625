//! Golden vectors as tensors, and comparisons by relative error.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, nn};
use whitebox_autoencoder::{Autoencoder, AutoencoderConfig};
use whitebox_model::weights::{Weights, to_tensor};

pub fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// The tensors of a golden file by name.
pub fn tensors(file: &str) -> HashMap<String, Tensor> {
    let weights = Weights::open(&golden(file)).unwrap();
    weights.tensors.iter().map(|(k, v)| (k.clone(), to_tensor(v).unwrap())).collect()
}

/// Seeds libtorch's generator, which all tests of a process share, and keeps the others from drawing meanwhile.
pub fn seeded(seed: i64) -> MutexGuard<'static, ()> {
    static DRAWING: Mutex<()> = Mutex::new(());
    let guard = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    guard
}

/// A model drawn from a seed.
pub fn built(config: &AutoencoderConfig, seed: i64) -> (nn::VarStore, Box<dyn Autoencoder>) {
    let _drawing = seeded(seed);
    let store = nn::VarStore::new(Device::Cpu);
    let model = config.build(&store.root()).unwrap();
    (store, model)
}

/// A small CRATE-MAE on images `[B, 2, 16, 24]`, 6 patches, with other fields than these defaults.
pub fn small(fields: Value) -> AutoencoderConfig {
    let mut all = json!({"kind": "crate_mae", "image": [16, 24], "patch": [8, 8], "channels": 2, "d": 24, "depth": 2, "heads": 3});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

pub fn images(batch: i64) -> Tensor {
    let numbers = Tensor::arange(batch * 2 * 16 * 24, (Kind::Float, Device::Cpu));
    (numbers * 0.37).sin().view([batch, 2, 16, 24])
}

#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(a.size(), b.size(), "{what}");
    let (a, b) = (a.detach().to_kind(Kind::Double), b.detach().to_kind(Kind::Double));
    let norm = f64::try_from(b.norm()).unwrap();
    let error = f64::try_from((a - b).norm()).unwrap() / norm.max(1e-30);
    assert!(error <= tolerance, "{what}: relative error {error:.3e}, at most {tolerance:.0e} allowed");
}

/// Gradients of all that has one by name, after a backward pass from `loss`.
pub fn gradients(store: &nn::VarStore, loss: &Tensor) -> HashMap<String, Tensor> {
    let trainable = || store.variables().into_iter().filter(|(_, v)| v.requires_grad());
    for (_, mut v) in trainable() {
        v.zero_grad();
    }
    loss.backward();
    trainable().map(|(name, v)| (name, v.grad().copy())).collect()
}
