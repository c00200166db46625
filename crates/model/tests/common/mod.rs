//! Golden vectors as tensors, and comparisons by relative error.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tch::{Device, Tensor, nn};
use whitebox_model::weights::{Weights, to_tensor};
use whitebox_model::{ModelConfig, VisionModel};

pub fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// The tensors of a golden file by name.
pub struct Golden(pub HashMap<String, Tensor>);

impl Golden {
    pub fn open(file: &str) -> Self {
        let weights = Weights::open(&golden(file)).unwrap();
        Golden(weights.tensors.iter().map(|(k, v)| (k.clone(), to_tensor(v).unwrap())).collect())
    }

    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    /// The tensors under a prefix, by their names without it.
    pub fn under(&self, prefix: &str) -> HashMap<String, Tensor> {
        let strip = |(k, v): (&String, &Tensor)| Some((k.strip_prefix(prefix)?.to_owned(), v.shallow_clone()));
        self.0.iter().filter_map(strip).collect()
    }
}

/// Seeds libtorch's generator, which all tests of a process share, and keeps the others from drawing meanwhile.
pub fn seeded(seed: i64) -> MutexGuard<'static, ()> {
    static DRAWING: Mutex<()> = Mutex::new(());
    let guard = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    guard
}

/// A model with the golden parameters.
pub struct Loaded {
    pub store: nn::VarStore,
    pub model: Box<dyn VisionModel>,
}

pub fn load(config: &ModelConfig, golden: &Golden) -> Loaded {
    let store = nn::VarStore::new(Device::Cpu);
    let model = config.build(&store.root()).unwrap();
    let mut parameters = golden.under("param.");
    // PyTorch's BatchNorm counts batches, which nothing reads.
    parameters.extend(golden.under("buffer.").into_iter().filter(|(name, _)| !name.ends_with("num_batches_tracked")));
    tch::no_grad(|| {
        for (name, variable) in store.variables() {
            let value = parameters.remove(&name).unwrap_or_else(|| panic!("no golden parameter {name}"));
            assert_eq!(value.size(), variable.size(), "{name}");
            variable.shallow_clone().copy_(&value);
        }
    });
    assert!(parameters.is_empty(), "the model lacks {:?}", parameters.keys());
    Loaded { store, model }
}

pub fn weights_of(file: &str) -> Weights {
    Weights::open(&golden(file)).unwrap()
}

pub fn given(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub fn crate_micro() -> ModelConfig {
    serde_json::from_value(json!({"kind": "crate", "image": [32, 32], "patch": [8, 8], "d": 48, "depth": 3, "heads": 4,
        "classes": 10}))
    .unwrap()
}

pub fn crate_mean_rect() -> ModelConfig {
    serde_json::from_value(
        json!({"kind": "crate", "image": [28, 42], "patch": [7, 14], "channels": 1, "d": 36, "depth": 2,
        "heads": 3, "classes": 7, "pool": "mean"}),
    )
    .unwrap()
}

pub fn vit_micro(pool: &str) -> ModelConfig {
    serde_json::from_value(json!({"kind": "vit", "image": [32, 32], "patch": [8, 8], "d": 48, "depth": 2, "heads": 3,
        "classes": 10, "pool": pool}))
    .unwrap()
}

pub fn alpha_micro() -> ModelConfig {
    serde_json::from_value(json!({"kind": "crate_alpha", "image": [32, 32], "patch": [8, 8], "d": 48, "depth": 2,
        "heads": 4, "classes": 10}))
    .unwrap()
}

pub fn tost_micro() -> ModelConfig {
    serde_json::from_value(json!({"kind": "tost", "image": [32, 32], "patch": [8, 8], "d": 48, "depth": 2, "heads": 4,
        "classes": 10}))
    .unwrap()
}

/// A small model of `kind` on images `[B, 2, 16, 24]`, with other fields than these defaults.
pub fn small(kind: &str, fields: Value) -> ModelConfig {
    let mut all = json!({"kind": kind, "image": [16, 24], "patch": [8, 8], "channels": 2, "classes": 5, "d": 24,
        "depth": 2, "heads": 3});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

/// Draws a model from a seed, with parameters that were drawn as ones and zeros moved away from these.
pub fn drawn(config: &ModelConfig, seed: i64) -> (nn::VarStore, Box<dyn VisionModel>) {
    let _drawing = seeded(seed);
    let store = nn::VarStore::new(Device::Cpu);
    let model = config.build(&store.root()).unwrap();
    let mut named: Vec<_> = store.variables().into_iter().filter(|(_, v)| v.requires_grad()).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    tch::no_grad(|| named.iter_mut().for_each(|(_, v)| drop(v.g_add_(&(v.randn_like() * 0.2)))));
    (store, model)
}

/// The gradient of `f` by the entries of `x`, from differences; in f64.
pub fn differences(x: &Tensor, f: impl Fn() -> f64) -> Tensor {
    let h = 1e-6;
    let (flat, found) = (x.detach().view([-1]), x.zeros_like().detach().view([-1]));
    for i in 0..flat.size()[0] {
        let (mut entry, value) = (flat.get(i), flat.double_value(&[i]));
        let mut at = |value: f64| {
            let _ = entry.fill_(value);
            f()
        };
        let slope = (at(value + h) - at(value - h)) / (2.0 * h);
        at(value);
        let _ = found.get(i).fill_(slope);
    }
    found.view(&x.size()[..])
}

/// `||a - b|| / ||b||`, in f64.
pub fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.detach().to_kind(tch::Kind::Double), b.detach().to_kind(tch::Kind::Double));
    let norm = f64::try_from(b.norm()).unwrap();
    f64::try_from((a - b).norm()).unwrap() / norm.max(1e-30)
}

#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    let error = relative_error(a, b);
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
