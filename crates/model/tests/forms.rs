//! Every fast path against the plain one, values and gradients: ISTA's forms, fused and plain attention; and the tensor
//! layers against the f64 oracle of the rate-reduction crate.

mod common;

use common::*;
use serde_json::json;
use tch::{Device, Kind, Tensor, nn};
use torch_extras::autocast::Autocast;
use whitebox_model::ista::IstaForm;
use whitebox_model::mssa::{Mssa, MssaConfig};
use whitebox_model::probe::{NoProbe, Recorder, Site};
use whitebox_model::{CrateConfig, ModelConfig};

fn config(form: IstaForm) -> ModelConfig {
    ModelConfig::Crate(CrateConfig {
        image: [16, 24],
        patch: [8, 8],
        channels: 2,
        classes: 5,
        d: 24,
        depth: 2,
        heads: 3,
        ista_form: form,
        ..Default::default()
    })
}

/// Logits and all gradients in f64, sorted by name.
fn run(config: &ModelConfig, sites: &[Site]) -> Vec<Tensor> {
    let _drawing = seeded(7);
    let mut store = nn::VarStore::new(Device::Cpu);
    let model = config.build(&store.root()).unwrap();
    store.double();
    let images = Tensor::randn([3, 2, 16, 24], (Kind::Double, Device::Cpu));
    let logits = model.forward(&images, &mut Recorder::new(sites)).unwrap();
    let mut found: Vec<_> = gradients(&store, &logits.square().sum(Kind::Double)).into_iter().collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    std::iter::once(logits).chain(found.into_iter().map(|(_, g)| g)).collect()
}

#[test]
fn ista_forms_agree() {
    let plain = run(&config(IstaForm::Plain), &[]);
    for form in [IstaForm::OneProduct, IstaForm::Auto] {
        for (a, b) in run(&config(form), &[]).iter().zip(&plain) {
            assert_close(a, b, 1e-12, "one product against plain");
        }
    }
}

#[test]
fn fused_and_plain_attention_agree() {
    let config = config(IstaForm::Auto);
    for (a, b) in run(&config, &[Site::Attention]).iter().zip(&run(&config, &[])) {
        assert_close(a, b, 1e-12, "plain attention against fused");
    }
}

/// Short sequences in bf16 on the CPU form the map: value and gradients against fused attention in float32.
#[test]
fn attention_in_bf16_agrees_with_float32() {
    let _drawing = seeded(3);
    let store = nn::VarStore::new(Device::Cpu);
    let shape = MssaConfig { d: 64, heads: 4, head_dim: 16, ..MssaConfig::default() };
    let mssa = Mssa::new(&store.root(), &shape);
    let h = Tensor::randn([3, 17, 64], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let mut inputs = vec![h.shallow_clone()];
    inputs.extend(store.trainable_variables());
    let run = |bf16| {
        let out = {
            let _cast = Autocast::new(Device::Cpu, Kind::BFloat16, bf16).unwrap();
            mssa.forward(&h, 0, &mut NoProbe).to_kind(Kind::Float)
        };
        let mut all = Tensor::run_backward(&[out.square().sum(Kind::Float)], &inputs, false, false);
        all.push(out.detach());
        all
    };
    for (a, b) in run(true).iter().zip(&run(false)) {
        let error = f64::try_from((a - b).norm() / b.norm()).unwrap();
        assert!(error < 2e-2, "relative error {error}, shape {:?}", b.size());
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    for kind in ["crate-tiny", "crate-alpha-tiny", "tost-tiny", "vit-tiny"] {
        let mut config = ModelConfig::preset(kind).unwrap();
        match &mut config {
            ModelConfig::Crate(c) => (c.image, c.depth) = ([32, 32], 2),
            ModelConfig::CrateAlpha(c) => (c.image, c.depth) = ([32, 32], 2),
            ModelConfig::Tost(c) => (c.image, c.depth) = ([32, 32], 2),
            ModelConfig::Vit(c) => (c.image, c.depth) = ([32, 32], 2),
        }
        let _drawing = seeded(1);
        let store = nn::VarStore::new(Device::Cpu);
        let model = config.build(&store.root()).unwrap();
        let images = Tensor::randn([2, 3, 32, 32], (Kind::Float, Device::Cpu));
        let logits = model.forward(&images, &mut NoProbe).unwrap();
        for (name, gradient) in gradients(&store, &logits.square().sum(Kind::Float)) {
            assert!(f64::try_from(gradient.abs().max()).unwrap() > 0.0, "{kind}: {name} gets no gradient");
        }
    }
}

/// bfloat16 keeps 8 bits of a number: half a per cent a rounding, a few roundings a layer.
#[test]
fn bfloat16_stays_near_float32() {
    for config in [config(IstaForm::Auto), alpha_micro(), tost_micro(), vit_micro("token")] {
        let (logits, expected) = {
            let _drawing = seeded(8);
            let store = nn::VarStore::new(Device::Cpu);
            let model = config.build(&store.root()).unwrap();
            let grid = config.grid();
            let images = Tensor::randn([3, grid.channels, grid.image[0], grid.image[1]], (Kind::Float, Device::Cpu));
            let pass = || {
                let logits = model.forward(&images, &mut NoProbe).unwrap();
                let gradients = gradients(&store, &logits.to_kind(Kind::Float).square().sum(Kind::Float));
                (logits, gradients)
            };
            let expected = pass();
            let autocast = Autocast::new(Device::Cpu, Kind::BFloat16, true).unwrap();
            let found = pass();
            drop(autocast);
            assert_eq!(found.0.kind(), Kind::BFloat16);
            for (name, gradient) in &found.1 {
                assert_eq!(gradient.kind(), Kind::Float, "{name}");
                assert_close(gradient, &expected.1[name], 0.1, &format!("gradient of {name}"));
            }
            (found.0, expected.0)
        };
        assert_close(&logits, &expected, 0.02, "logits");
    }
}

/// Every choice of a layer, either pooling, either kind; also at another resolution.
#[test]
fn a_folded_model_gives_the_same_logits() {
    let choices = [
        json!({}),
        json!({"pool": "mean"}),
        json!({"residual_base": "normalised"}),
        json!({"residual_base": "plain"}),
        json!({"output_map": "tied", "gamma": 0.7, "scaling": "none"}),
        json!({"heads": 1, "pool": "mean"}),
        json!({"attention": "mhsa"}),
        json!({"attention": "mhsa", "sparsify": "mm_prox", "pool": "mean"}),
        json!({"attention": "mhsa", "residual_base": "normalised", "sparsify": "mlp"}),
        json!({"sparsify": "mm_prox"}),
        json!({"sparsify": "mlp", "pool": "mean"}),
    ];
    for choice in choices {
        let mut fields = serde_json::to_value(config(IstaForm::Auto)).unwrap();
        fields.as_object_mut().unwrap().extend(choice.as_object().unwrap().clone());
        let config: ModelConfig = serde_json::from_value(fields).unwrap();
        let _drawing = seeded(5);
        let store = nn::VarStore::new(Device::Cpu);
        let model = config.build(&store.root()).unwrap();
        // LayerNorm's scales and shifts are drawn as ones and zeros, which would hide a forgotten one.
        tch::no_grad(|| store.trainable_variables().iter_mut().for_each(|v| drop(v.g_add_(&(v.randn_like() * 0.2)))));
        for size in [[16, 24], [24, 40]] {
            let images = Tensor::randn([3, 2, size[0], size[1]], (Kind::Float, Device::Cpu));
            let expected = tch::no_grad(|| model.forward(&images, &mut NoProbe)).unwrap();
            for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 5e-2)] {
                let found = model.fold(kind).unwrap().forward(&images, &mut NoProbe).unwrap();
                assert!(!found.requires_grad() && found.kind() == kind);
                assert_close(&found, &expected, tolerance, &format!("{choice}, {kind:?}"));
            }
        }
    }
}

/// The last layer for the class token alone against all tokens of it, which a probe has computed.
#[test]
fn the_class_token_alone_is_that_of_the_whole_layer() {
    let variants = [
        small("crate", json!({})),
        small("crate", json!({"residual_base": "normalised"})),
        small("crate", json!({"residual_base": "plain"})),
        small("crate", json!({"attention": "mhsa", "head_dim": 5})),
        small("crate", json!({"attention": "mhsa", "sparsify": "mlp", "residual_base": "normalised"})),
        small("crate", json!({"sparsify": "mm_prox"})),
        small("crate_alpha", json!({})),
        small("crate_alpha", json!({"residual": false, "decoupled": false})),
    ];
    for config in variants {
        for (a, b) in run(&config, &[]).iter().zip(&run(&config, &[Site::ZHalf])) {
            assert_close(a, b, 1e-12, &format!("{config:?}"));
        }
    }
}

/// A probe that wants the tokens alone leaves the layer whole, and sees the same ones.
#[test]
fn the_whole_layer_shows_its_tokens() {
    let config = config(IstaForm::Auto);
    let _drawing = seeded(2);
    let store = nn::VarStore::new(Device::Cpu);
    let model = config.build(&store.root()).unwrap();
    let images = Tensor::randn([3, 2, 16, 24], (Kind::Float, Device::Cpu));
    let record = |sites: &[Site]| {
        let mut recorder = Recorder::new(sites);
        let _ = model.forward(&images, &mut recorder).unwrap();
        recorder
    };
    let (whole, parts) = (record(&[Site::ZOut]), record(&[Site::ZOut, Site::ZHalf]));
    for layer in 0..2 {
        assert_close(whole.get(layer, Site::ZOut).unwrap(), parts.get(layer, Site::ZOut).unwrap(), 1e-6, "tokens");
    }
}

/// Without gradients the layer stays whole for a probe of its inside, too: what it shows is what a layer op by op shows.
#[test]
fn the_whole_layer_shows_its_inside() {
    let sites = [Site::AttentionInput, Site::Uz, Site::MssaOut, Site::ZHalf, Site::IstaInput, Site::ZOut];
    for form in [IstaForm::Auto, IstaForm::OneProduct] {
        let config = config(form);
        let _drawing = seeded(3);
        let store = nn::VarStore::new(Device::Cpu);
        let model = config.build(&store.root()).unwrap();
        let images = Tensor::randn([3, 2, 16, 24], (Kind::Float, Device::Cpu));
        let mut by_ops = Recorder::new(&sites);
        let _ = model.forward(&images, &mut by_ops).unwrap();
        let mut whole = Recorder::new(&sites);
        let _ = tch::no_grad(|| model.forward(&images, &mut whole)).unwrap();
        assert_eq!(whole.seen.len(), by_ops.seen.len());
        for ((a, site, shown), (b, same, expected)) in whole.seen.iter().zip(&by_ops.seen) {
            assert_eq!((a, site), (b, same), "in the same order");
            assert_close(shown, expected, 1e-6, site.name());
            assert!(!shown.requires_grad() && expected.requires_grad());
        }
    }
}

/// Layers computed again in the backward pass give what layers kept give: in every model, and in what autocast computes too.
#[test]
fn recomputed_layers_give_the_same_gradients() {
    let variants = [
        json!({"kind": "crate", "d": 24, "heads": 3, "pool": "mean"}),
        json!({"kind": "crate", "d": 24, "heads": 3, "residual_base": "normalised", "output_map": "tied"}),
        json!({"kind": "crate", "d": 24, "heads": 3, "sparsify": "mm_prox"}),
        json!({"kind": "crate", "d": 24, "heads": 3, "attention": "mhsa", "sparsify": "mlp"}),
        json!({"kind": "crate_alpha", "d": 24, "heads": 3}),
        json!({"kind": "tost", "d": 24, "heads": 3}),
        json!({"kind": "vit", "d": 24, "heads": 3, "hidden": 48}),
    ];
    for mut fields in variants {
        let shape = json!({"image": [16, 24], "patch": [8, 8], "channels": 2, "classes": 5, "depth": 3});
        fields.as_object_mut().unwrap().extend(shape.as_object().unwrap().clone());
        let config: ModelConfig = serde_json::from_value(fields).unwrap();
        for bf16 in [false, true] {
            let run = |recompute| {
                let _drawing = seeded(7);
                let store = nn::VarStore::new(Device::Cpu);
                let mut model = config.build(&store.root()).unwrap();
                model.recompute_layers(recompute);
                let images = Tensor::randn([3, 2, 16, 24], (Kind::Float, Device::Cpu));
                let logits = {
                    let _cast = Autocast::new(Device::Cpu, Kind::BFloat16, bf16).unwrap();
                    model.forward(&images, &mut NoProbe).unwrap()
                };
                gradients(&store, &logits.to_kind(Kind::Float).square().sum(Kind::Float))
            };
            let (kept, again) = (run(false), run(true));
            assert_eq!(kept.len(), again.len());
            for (name, gradient) in &kept {
                assert_close(&again[name], gradient, 1e-6, name);
            }
        }
    }
}
