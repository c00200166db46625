//! The paper's ablations of a CRATE layer: what stands in the place of either step is what it says, and every way of computing it agrees.

mod common;

use common::*;
use serde_json::json;
use tch::{Device, Kind, Tensor, nn};
use whitebox_model::ModelConfig;
use whitebox_model::probe::{NoProbe, Recorder, Site};

fn images() -> Tensor {
    let _drawing = seeded(30);
    Tensor::randn([3, 2, 16, 24], (Kind::Float, Device::Cpu))
}

/// The first layer's intermediates, and its parameters by name.
fn layer(fields: serde_json::Value) -> (Recorder, std::collections::HashMap<String, Tensor>) {
    let (store, model) = drawn(&small("crate", fields), 31);
    let mut recorder = Recorder::new(&Site::ALL);
    let _ = model.forward(&images(), &mut recorder).unwrap();
    let strip = |(name, value): (String, Tensor)| Some((name.strip_prefix("transformer.layers.0.")?.to_owned(), value));
    (recorder, store.variables().into_iter().filter_map(strip).collect())
}

#[test]
fn mm_prox_is_equation_92() {
    let (r, parameters) = layer(json!({"sparsify": "mm_prox", "mm_alpha": 0.5, "lambda": 0.2}));
    let (h, d) = (r.get(0, Site::IstaInput).unwrap(), &parameters["1.fn.weight"]);
    let expected = (h.matmul(d) * (1.0 + 4.0 / (9.0 * 1.5)) - 4.0 * 0.2 / (9.0 * 0.5)).relu();
    assert_close(r.get(0, Site::ZOut).unwrap(), &expected, 1e-5, "MM-prox");
    assert!(r.get(0, Site::IstaResidual).is_none(), "there is no residual of a code");
}

/// `M` and `dD` on the CPU's whole layer against autograd's, which a probe gets.
#[test]
fn mm_prox_in_a_whole_layer_agrees_with_op_by_op() {
    let config = small("crate", json!({"sparsify": "mm_prox", "mm_alpha": 2.0, "pool": "mean"}));
    let run = |sites: &[Site]| {
        let (mut store, model) = drawn(&config, 32);
        store.double();
        let images = Tensor::ones([3, 2, 16, 24], (Kind::Double, Device::Cpu)).cumsum(3, None::<Kind>).sin();
        let logits = model.forward(&images, &mut Recorder::new(sites)).unwrap();
        gradients(&store, &logits.square().sum(Kind::Double))
    };
    let plain = run(&[Site::ZHalf]);
    for (name, gradient) in run(&[]) {
        assert_close(&gradient, &plain[&name], 1e-11, &name);
    }
}

#[test]
fn an_mlp_has_four_times_the_width_and_is_added() {
    let (r, parameters) = layer(json!({"sparsify": "mlp"}));
    assert!(!parameters.contains_key("1.fn.weight"));
    let at = |site| r.get(0, site).unwrap();
    let linear = |x: &Tensor, name: &str| {
        x.matmul(&parameters[&format!("1.fn.{name}.weight")].tr()) + &parameters[&format!("1.fn.{name}.bias")]
    };
    let hidden = linear(at(Site::IstaInput), "fc1");
    let hidden = &hidden * ((&hidden / 2f64.sqrt()).erf() + 1.0) * 0.5;
    assert_eq!(hidden.size(), [3, 7, 96]);
    assert_close(at(Site::MlpHidden), &hidden, 1e-5, "GELU");
    assert_close(at(Site::ZOut), &(at(Site::ZHalf) + linear(&hidden, "fc2")), 1e-5, "Z' + MLP");
}

#[test]
fn mhsa_has_three_projections_and_is_added() {
    let (r, parameters) = layer(json!({"attention": "mhsa", "head_dim": 5}));
    let at = |site| r.get(0, site).unwrap();
    let projected = at(Site::AttentionInput).matmul(&parameters["0.fn.qkv.weight"].tr()) + &parameters["0.fn.qkv.bias"];
    let part = |i: i64| projected.narrow(2, 15 * i, 15).reshape([3, 7, 3, 5]).transpose(1, 2); // b k n p
    let map = (part(0).matmul(&part(1).transpose(-2, -1)) / 5f64.sqrt()).softmax(-1, Kind::Float);
    assert_close(at(Site::Attention), &map, 1e-5, "map");
    let o = map.matmul(&part(2)).transpose(1, 2).reshape([3, 7, 15]);
    let out = o.matmul(&parameters["0.fn.to_out.0.weight"].tr()) + &parameters["0.fn.to_out.0.bias"];
    assert_close(at(Site::MssaOut), &out, 1e-5, "MHSA");
    assert_close(at(Site::ZHalf), &(at(Site::Embed) + out), 1e-5, "Z + MHSA");
    assert_close(at(Site::Uz), &projected.narrow(2, 15, 15), 1e-5, "keys");

    let tied = small("crate", json!({"attention": "mhsa", "output_map": "tied"}));
    let error = tied.check().unwrap_err().to_string();
    assert!(error.contains("tied") && error.contains("free"), "{error}");
}

/// Fused and plain attention, values and gradients, for every pair of steps.
#[test]
fn probes_change_nothing() {
    for attention in ["mssa", "mhsa"] {
        for sparsify in ["ista", "mm_prox", "mlp"] {
            let config = small("crate", json!({"attention": attention, "sparsify": sparsify}));
            let run = |sites: &[Site]| {
                let (mut store, model) = drawn(&config, 33);
                store.double();
                let images = Tensor::ones([3, 2, 16, 24], (Kind::Double, Device::Cpu)).cumsum(2, None::<Kind>).cos();
                let logits = model.forward(&images, &mut Recorder::new(sites)).unwrap();
                gradients(&store, &logits.square().sum(Kind::Double))
            };
            let plain = run(&[Site::Attention]);
            for (name, gradient) in run(&[]) {
                // gradients by biases of keys are zero but for rounding, and lie in one tensor with the others
                assert_close(&gradient, &plain[&name], 1e-9, &format!("{attention}, {sparsify}: {name}"));
            }
        }
    }
}

/// Configs of before, and what is refused.
#[test]
fn the_defaults_are_the_papers_steps() {
    let plain: ModelConfig = serde_json::from_value(json!({"kind": "crate"})).unwrap();
    let said: ModelConfig =
        serde_json::from_value(json!({"kind": "crate", "attention": "mssa", "sparsify": "ista", "mm_alpha": 1.0}))
            .unwrap();
    assert_eq!(plain, said);
    for fields in
        [json!({"mm_alpha": 0.0}), json!({"mm_alpha": -1.0}), json!({"drop_path": 1.0}), json!({"dropout": 2.0})]
    {
        let config = small("crate", fields.clone());
        assert!(config.build(&nn::VarStore::new(Device::Cpu).root()).is_err(), "{fields}");
    }
    for fields in [json!({"sparsify": "ISTA"}), json!({"attention": "flash"})] {
        let mut all = json!({"kind": "crate"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        assert!(serde_json::from_value::<ModelConfig>(all).is_err(), "{fields}");
    }
    let (store, model) = drawn(&small("crate", json!({})), 34);
    let _ = model.forward(&images(), &mut NoProbe).unwrap();
    assert!(store.variables().contains_key("transformer.layers.1.1.fn.weight"));
}
