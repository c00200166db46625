//! Golden vectors as tensors, small models of every kind, and comparisons by relative error.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor, nn};
use whitebox_language::{LanguageConfig, LanguageModel, MaskedConfig, MaskedModel};
use whitebox_model::weights::{Weights, to_tensor};

pub const CPU: Device = Device::Cpu;

pub fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// The tensors of a golden file by name.
pub fn tensors(file: &str) -> HashMap<String, Tensor> {
    let weights = Weights::open(&golden(file)).unwrap();
    weights.tensors.iter().map(|(k, v)| (k.clone(), to_tensor(v).unwrap())).collect()
}

/// The parameters of a golden file (or their gradients, under another prefix), as the reference would save them.
pub fn saved(file: &str, prefix: &str) -> Weights {
    let mut weights = Weights::open(&golden(file)).unwrap();
    let strip = |(name, tensor): (&String, &_)| Some((name.strip_prefix(prefix)?.to_owned(), Clone::clone(tensor)));
    weights.tensors = weights.tensors.iter().filter_map(strip).collect();
    weights
}

pub fn given(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Seeds libtorch's generator, which all tests of a process share, and keeps the others from drawing meanwhile.
pub fn seeded(seed: i64) -> MutexGuard<'static, ()> {
    static DRAWING: Mutex<()> = Mutex::new(());
    let guard = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    guard
}

/// Moves parameters away from where they begin, so that nothing is zero, one or tiny by design.
fn moved(store: &nn::VarStore) {
    let mut named: Vec<_> = store.variables().into_iter().collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    tch::no_grad(|| named.iter_mut().for_each(|(_, v)| drop(v.g_add_(&(v.randn_like() * 0.2)))));
}

pub fn built(config: &LanguageConfig, seed: i64) -> (nn::VarStore, Box<dyn LanguageModel>) {
    let _drawing = seeded(seed);
    let store = nn::VarStore::new(CPU);
    let model = config.build(&store.root()).unwrap();
    moved(&store);
    (store, model)
}

pub fn built_masked(config: &MaskedConfig, seed: i64) -> (nn::VarStore, Box<dyn MaskedModel>) {
    let _drawing = seeded(seed);
    let store = nn::VarStore::new(CPU);
    let model = config.build(&store.root()).unwrap();
    moved(&store);
    (store, model)
}

fn with(base: Value, fields: Value) -> Value {
    let mut all = base;
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    all
}

/// A small language model: 61 words, 20 places.
pub fn small(fields: Value) -> LanguageConfig {
    let base = json!({"d": 24, "depth": 2, "heads": 3, "context": 20, "vocabulary": 61, "pad_vocabulary_to": 16});
    serde_json::from_value(with(base, fields)).unwrap()
}

/// One of every kind.
pub fn kinds() -> Vec<LanguageConfig> {
    [
        json!({"kind": "crate_gpt"}),
        json!({"kind": "crate_gpt", "sparsify": "odl", "final_norm": false, "tied_head": false}),
        json!({"kind": "crate_gpt", "sparsify": "odl_decoupled", "overcomplete": 3, "steps": 3}),
        json!({"kind": "gpt2"}),
        json!({"kind": "gpt2", "tied_head": false, "pad_vocabulary_to": 1, "hidden": 40}),
        json!({"kind": "tost_gpt"}),
    ]
    .map(small)
    .into()
}

/// A small encoder: 61 words, 20 places.
pub fn small_masked(fields: Value) -> MaskedConfig {
    let base = json!({"d": 24, "depth": 2, "heads": 3, "context": 20, "vocabulary": 61});
    serde_json::from_value(with(base, fields)).unwrap()
}

/// Both kinds.
pub fn masked_kinds() -> Vec<MaskedConfig> {
    [
        json!({"kind": "crate_bert"}),
        json!({"kind": "bert", "hidden": 40}),
        json!({"kind": "crate_bert", "position_offset": 2, "pooler": false}),
    ]
    .map(small_masked)
    .into()
}

/// Ids below 61 that look like nothing in particular.
pub fn ids(rows: i64, n: i64) -> Tensor {
    (Tensor::arange(rows * n, (Kind::Int64, CPU)) * 37 + 11).remainder(61).view([rows, n])
}

/// `||a - b|| / ||b||`, in f64.
pub fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.detach().to_kind(Kind::Double), b.detach().to_kind(Kind::Double));
    let norm = f64::try_from(b.norm()).unwrap();
    f64::try_from((a - b).norm()).unwrap() / norm.max(1e-30)
}

#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(a.size(), b.size(), "{what}");
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
    trainable().filter(|(_, v)| v.grad().defined()).map(|(name, v)| (name, v.grad().copy())).collect()
}

pub fn numbers(store: &nn::VarStore) -> u64 {
    store.variables().values().map(|v| v.numel() as u64).sum()
}
