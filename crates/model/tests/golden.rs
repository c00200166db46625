//! The models against the official implementations' numbers: logits, losses, every activation, every gradient.

mod common;

use common::*;
use serde_json::json;
use tch::{Device, Tensor, nn};
use whitebox_model::ModelConfig;
use whitebox_model::import::infer;
use whitebox_model::probe::{NoProbe, Recorder, Site};
use whitebox_model::weights::LoadOptions;

const OUTPUT: f64 = 1e-5;
const GRADIENT: f64 = 1e-4;

fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.cross_entropy_for_logits(labels)
}

/// Output, loss and every gradient, with and without a probe (fused and plain attention).
fn check(file: &str, config: ModelConfig) {
    let golden = Golden::open(file);
    let loaded = load(&config, &golden);
    for sites in [&[][..], &[Site::Attention][..]] {
        let logits = loaded.model.forward(golden.get("input.images"), &mut Recorder::new(sites)).unwrap();
        assert_close(&logits, golden.get("output.logits"), OUTPUT, "logits");
        let loss = cross_entropy(&logits, golden.get("input.labels"));
        assert_close(&loss.view([1]), golden.get("output.loss_ce"), OUTPUT, "loss");
        let expected = golden.under("grad.");
        let found = gradients(&loaded.store, &loss);
        assert_eq!(found.len(), expected.len());
        for (name, gradient) in found {
            assert_close(&gradient, &expected[&name], GRADIENT, &format!("gradient of {name}"));
        }
    }
}

#[test]
fn crate_with_class_token() {
    check("crate_micro.safetensors", crate_micro());
}

#[test]
fn crate_with_mean_pooling_and_rectangles() {
    check("crate_mean_rect.safetensors", crate_mean_rect());
}

#[test]
fn vit_with_class_token() {
    check("vit_micro_token.safetensors", vit_micro("token"));
}

#[test]
fn vit_with_mean_pooling() {
    check("vit_micro_avg.safetensors", vit_micro("mean"));
}

#[test]
fn every_named_activation() {
    for (file, config) in
        [("crate_micro.safetensors", crate_micro()), ("crate_mean_rect.safetensors", crate_mean_rect())]
    {
        let golden = Golden::open(file);
        let loaded = load(&config, &golden);
        let mut seen = 0;
        for sites in [
            &[Site::Uz, Site::Attention, Site::MssaOut, Site::ZHalf, Site::ZOut][..],
            &[Site::Uz, Site::MssaOut, Site::ZHalf, Site::ZOut][..],
        ] {
            let mut recorder = Recorder::new(sites);
            let _ = loaded.model.forward(golden.get("input.images"), &mut recorder).unwrap();
            for (layer, site, value) in &recorder.seen {
                let name = format!("act.layer{layer}.{}", site.name());
                assert_close(value, golden.get(&name), OUTPUT, &name);
                seen += 1;
            }
        }
        assert_eq!(seen, 9 * config.depth());
    }
}

#[test]
fn official_checkpoints_load_and_give_the_same_logits() {
    for (file, vectors, config) in [
        ("crate_micro.pth.tar", "crate_micro.safetensors", crate_micro()),
        ("crate_mean_rect.pth.tar", "crate_mean_rect.safetensors", crate_mean_rect()),
    ] {
        let golden = Golden::open(vectors);
        let weights = weights_of(file);
        let store = nn::VarStore::new(Device::Cpu);
        let model = config.build(&store.root()).unwrap();
        weights.load_into(&store.variables(), &config, LoadOptions::default()).unwrap();
        let logits = model.forward(golden.get("input.images"), &mut NoProbe).unwrap();
        assert_close(&logits, golden.get("output.logits"), OUTPUT, file);
    }
}

#[test]
fn shapes_tell_the_config_and_heads_must_be_named() {
    let weights = weights_of("crate_micro.pth.tar");
    let error = infer(&weights, &given(json!({}))).unwrap_err().to_string();
    assert!(error.contains("--set model.heads="), "{error}");
    let inferred = infer(&weights, &given(json!({"heads": 4}))).unwrap();
    assert_eq!(inferred.config, crate_micro());
    assert!(inferred.notes.iter().any(|n| n.contains("lambda")), "{:?}", inferred.notes);

    let weights = weights_of("crate_mean_rect.pth.tar");
    let error = infer(&weights, &given(json!({"heads": 3}))).unwrap_err().to_string();
    assert!(error.contains("--set model.patch="), "{error}");
    let error = infer(&weights, &given(json!({"heads": 3, "channels": 1, "patch": [7, 14]}))).unwrap_err().to_string();
    assert!(error.contains("--set model.image="), "{error}");
    let fields = json!({"heads": 3, "channels": 1, "patch": [7, 14], "image": [28, 42], "pool": "mean"});
    assert_eq!(infer(&weights, &given(fields)).unwrap().config, crate_mean_rect());
}

#[test]
fn timm_names_are_known() {
    for pool in ["token", "mean"] {
        let file = if pool == "token" { "vit_micro_token.safetensors" } else { "vit_micro_avg.safetensors" };
        let mut weights = weights_of(file);
        let strip = |(k, v): (String, _)| Some((k.strip_prefix("param.")?.to_owned(), v));
        weights.tensors = std::mem::take(&mut weights.tensors).into_iter().filter_map(strip).collect();
        let mut expected = vit_micro(pool);
        if let ModelConfig::Vit(c) = &mut expected {
            c.hidden = Some(192);
        }
        assert_eq!(infer(&weights, &given(json!({"heads": 3}))).unwrap().config, expected);
    }
}
