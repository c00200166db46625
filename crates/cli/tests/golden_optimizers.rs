//! Five steps of AdamW and of Lion on a whole CRATE, held against those of PyTorch on the released code.

use std::collections::HashMap;
use std::path::Path;

use serde_json::json;
use tch::{Device, Kind, Tensor, nn};
use whitebox_model::ModelConfig;
use whitebox_model::probe::NoProbe;
use whitebox_model::weights::{Weights, to_tensor};
use whitebox_train::{Optimizer, OptimizerConfig, cross_entropy};

fn golden() -> HashMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/crate_micro.safetensors");
    let weights = Weights::open(&path).unwrap();
    weights.tensors.iter().map(|(name, raw)| (name.clone(), to_tensor(raw).unwrap())).collect()
}

/// `||a - b|| / ||b||` in f64.
fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.detach().to_kind(Kind::Double), b.detach().to_kind(Kind::Double));
    f64::try_from((a - &b).norm()).unwrap() / f64::try_from(b.norm()).unwrap()
}

/// Five steps on the golden batch; the loss before each, and the parameters after the last.
fn five_steps(golden: &HashMap<String, Tensor>, optimizer: serde_json::Value) -> (Tensor, HashMap<String, Tensor>) {
    let config: ModelConfig = serde_json::from_value(json!({
        "kind": "crate", "image": [32, 32], "patch": [8, 8], "d": 48, "depth": 3, "heads": 4, "classes": 10
    }))
    .unwrap();
    let store = nn::VarStore::new(Device::Cpu);
    let model = config.build(&store.root()).unwrap();
    let variables: Vec<_> = store.variables().into_iter().collect();
    tch::no_grad(|| {
        for (name, variable) in &variables {
            variable.shallow_clone().copy_(&golden[&format!("param.{name}")]);
        }
    });
    let config: OptimizerConfig = serde_json::from_value(optimizer).unwrap();
    let mut optimizer = Optimizer::new(&variables, &config).unwrap();
    let losses: Vec<f64> = (0..5)
        .map(|_| {
            optimizer.clear_grads().unwrap();
            let logits = model.forward(&golden["input.images"], &mut NoProbe).unwrap();
            let loss = cross_entropy(&logits, &golden["input.labels"], 0.1, None).unwrap();
            loss.backward();
            optimizer.step(config.lr).unwrap();
            f64::try_from(loss).unwrap()
        })
        .collect();
    (Tensor::from_slice(&losses), variables.into_iter().collect())
}

#[test]
fn adamw_walks_as_pytorch() {
    let golden = golden();
    let config = json!({"rule": "adamw", "lr": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.05, "decay": "all"});
    let (losses, parameters) = five_steps(&golden, config);
    let error = relative_error(&losses, &golden["train.adamw.losses"]);
    assert!(error < 1e-4, "losses: {error:e}");
    assert!(parameters.len() > 30);
    for (name, value) in parameters {
        let error = relative_error(&value, &golden[&format!("train.adamw.param.{name}")]);
        assert!(error < 1e-4, "{name}: {error:e}");
    }
}

/// Lion moves by signs, so single parameters with a gradient near zero may differ; the losses must not.
#[test]
fn lion_walks_as_pytorch() {
    let golden = golden();
    let config = json!({"rule": "lion", "lr": 2e-4, "betas": [0.9, 0.99], "weight_decay": 0.05, "decay": "all"});
    let error = relative_error(&five_steps(&golden, config).0, &golden["train.lion.losses"]);
    assert!(error < 1e-4, "losses: {error:e}");
}
