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
fn crate_alpha() {
    check("crate_alpha_micro.safetensors", alpha_micro());
}

#[test]
fn tost_in_evaluation() {
    check("tost_micro.safetensors", tost_micro());
}

/// BatchNorm by the batch's statistics: logits, loss, the running statistics afterwards, and the gradient of the first convolution.
#[test]
fn tost_in_training() {
    let golden = Golden::open("tost_micro.safetensors");
    let mut loaded = load(&tost_micro(), &golden);
    loaded.model.set_training(true);
    let logits = loaded.model.forward(golden.get("input.images"), &mut NoProbe).unwrap();
    assert_close(&logits, golden.get("train.logits"), OUTPUT, "logits");
    let loss = cross_entropy(&logits, golden.get("input.labels"));
    assert_close(&loss.view([1]), golden.get("train.loss_ce"), OUTPUT, "loss");
    let first = "patch_embed.proj.0.0.weight";
    assert_close(
        &gradients(&loaded.store, &loss)[first],
        golden.get(&format!("train.grad.{first}")),
        GRADIENT,
        "gradient of the first convolution",
    );
    let variables = loaded.store.variables();
    let statistics = golden.under("train.buffer.").into_iter().filter(|(name, _)| name.contains("running_"));
    let mut seen = 0;
    for (name, expected) in statistics {
        assert_close(&variables[&name], &expected, OUTPUT, &name);
        seen += 1;
    }
    assert_eq!(seen, 6);
    loaded.model.set_training(false);
    let _ = loaded.model.forward(golden.get("input.images"), &mut NoProbe).unwrap();
    let after = &variables["patch_embed.proj.0.1.running_mean"];
    assert_close(
        after,
        golden.get("train.buffer.patch_embed.proj.0.1.running_mean"),
        OUTPUT,
        "evaluation moves nothing",
    );
}

/// Activations under the names that other sites have in these files.
#[test]
fn every_activation_of_the_relatives() {
    let alpha = [
        (Site::Uz, "uz"),
        (Site::Attention, "attn"),
        (Site::MssaOut, "mssa_out"),
        (Site::ZHalf, "z_half"),
        (Site::IstaOut, "ista_out"),
        (Site::ZOut, "out"),
    ];
    let tost = [
        (Site::Uz, "w"),
        (Site::Memberships, "pi"),
        (Site::MssaOut, "tssa_out"),
        (Site::IstaOut, "mlp_out"),
        (Site::ZOut, "out"),
    ];
    for (file, config, names) in [
        ("crate_alpha_micro.safetensors", alpha_micro(), &alpha[..]),
        ("tost_micro.safetensors", tost_micro(), &tost[..]),
    ] {
        let golden = Golden::open(file);
        let loaded = load(&config, &golden);
        let mut recorder = Recorder::new(&Site::ALL);
        let tokens = loaded.model.tokens(golden.get("input.images"), &mut recorder).unwrap();
        assert_close(recorder.get(0, Site::Embed).unwrap(), golden.get("act.embed.out"), OUTPUT, "embedding");
        for layer in 0..2 {
            for (site, name) in names {
                let name = format!("act.layer{layer}.{name}");
                assert_close(recorder.get(layer, *site).unwrap(), golden.get(&name), OUTPUT, &name);
            }
        }
        if let ModelConfig::Tost(_) = config {
            assert_close(&tokens, golden.get("act.cls_layer1.out"), OUTPUT, "class attention");
            let features = loaded.model.features(golden.get("input.images"), &mut NoProbe).unwrap();
            assert_close(&features, &golden.get("act.norm.out").select(1, 0), OUTPUT, "features");
        }
    }
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
        weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
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

/// Heads are told by ToST's temperatures, and must be named for CRATE-alpha; PyTorch's counts of batches are no obstacle.
#[test]
fn the_relatives_files_load_by_name() {
    for (file, expected, fields) in [
        ("crate_alpha_micro.safetensors", alpha_micro(), json!({"heads": 4})),
        ("tost_micro.safetensors", tost_micro(), json!({"image": [32, 32]})),
    ] {
        let mut weights = weights_of(file);
        let strip = |(name, value): (String, _)| {
            let name = name.strip_prefix("param.").or(name.strip_prefix("buffer."))?;
            Some((name.to_owned(), value))
        };
        weights.tensors = std::mem::take(&mut weights.tensors).into_iter().filter_map(strip).collect();
        let mut expected = expected;
        if let ModelConfig::Tost(c) = &mut expected {
            c.hidden = Some(192);
        }
        let inferred = infer(&weights, &given(fields)).unwrap();
        assert_eq!(inferred.config, expected, "{file}");
        if file.starts_with("crate_alpha") {
            let error = infer(&weights, &given(json!({}))).unwrap_err().to_string();
            assert!(error.contains("--set model.heads="), "{error}");
            assert!(inferred.notes.iter().any(|note| note.contains("steps = 2")), "{:?}", inferred.notes);
        }
        let golden = Golden::open(file);
        let store = nn::VarStore::new(Device::Cpu);
        let model = expected.build(&store.root()).unwrap();
        weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
        let logits = model.forward(golden.get("input.images"), &mut NoProbe).unwrap();
        assert_close(&logits, golden.get("output.logits"), OUTPUT, file);
    }
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
