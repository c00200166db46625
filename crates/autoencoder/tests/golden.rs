//! CRATE-MAE and ViT-MAE against the golden vectors of the official implementations: mask, latent, prediction, both losses, every gradient; files.

mod common;

use std::path::Path;

use common::{assert_close, built, golden, gradients, tensors};
use serde_json::json;
use tch::{Device, Kind, Tensor, nn};
use whitebox_autoencoder::{
    Autoencoder, AutoencoderConfig, Masking, Over, ReconstructionLoss, encoder, import, to_patches,
};
use whitebox_model::probe::{NoProbe, Recorder};
use whitebox_model::weights::{LoadOptions, Weights};
use whitebox_model::{ModelConfig, Site};

const OUTPUT: f64 = 1e-5;
const GRADIENT: f64 = 1e-4;

fn crate_micro() -> AutoencoderConfig {
    let shape = json!({"kind": "crate_mae", "image": [32, 32], "patch": [8, 8], "d": 48, "depth": 2, "heads": 4});
    serde_json::from_value(shape).unwrap()
}

fn vit_micro() -> AutoencoderConfig {
    let shape = json!({"kind": "vit_mae", "image": [32, 32], "patch": [8, 8], "d": 48, "depth": 2, "heads": 4,
        "decoder_d": 32, "decoder_depth": 2, "decoder_heads": 4, "norm_eps": 1e-12});
    serde_json::from_value(shape).unwrap()
}

struct Case {
    file: &'static str,
    config: AutoencoderConfig,
    /// Whether hidden patches pass through the encoder.
    whole: bool,
}

fn cases() -> [Case; 2] {
    [
        Case { file: "mae_micro.safetensors", config: crate_micro(), whole: true },
        Case { file: "vitmae_micro.safetensors", config: vit_micro(), whole: false },
    ]
}

/// The golden parameters (or their gradients, under another prefix) by our names.
fn by_our_names(file: &str, prefix: &str, config: &AutoencoderConfig) -> Weights {
    let mut weights = Weights::open(&golden(file)).unwrap();
    let strip = |(name, tensor): (&String, &_)| Some((name.strip_prefix(prefix)?.to_owned(), Clone::clone(tensor)));
    weights.tensors = weights.tensors.iter().filter_map(strip).collect();
    let given = serde_json::to_value(config).unwrap();
    assert!(import::is_autoencoder(&weights), "the names are an autoencoder's");
    import::open(weights, given.as_object().unwrap()).unwrap().weights
}

fn loaded(case: &Case) -> (nn::VarStore, Box<dyn Autoencoder>) {
    let (store, model) = built(&case.config, 0);
    by_our_names(case.file, "param.", &case.config).load_into(&store.variables(), LoadOptions::default()).unwrap();
    (store, model)
}

#[test]
fn outputs_are_the_official_ones() {
    for case in cases() {
        let (golden, (_store, model)) = (tensors(case.file), loaded(&case));
        let images = &golden["input.images"];
        let mask = Masking::default().of_noise(&golden["input.noise"]).unwrap();
        assert_close(&mask.masked, &golden["output.mask"], 0.0, "mask");
        assert_eq!(mask.restore, golden["output.ids_restore"], "{}: places", case.file);
        let mut recorder = Recorder::new(&[Site::ZOut]);
        let latent = model.latent(images, &mask, &mut recorder).unwrap();
        assert_close(&latent, &golden["output.latent"], OUTPUT, "latent");
        let prediction = model.decode(&latent, &mask, &mut recorder).unwrap();
        assert_close(&prediction, &golden["output.pred"], OUTPUT, "prediction");
        for (part, layers) in [("encoder", 0..2), ("decoder", 2..4)] {
            for (number, layer) in layers.enumerate() {
                let expected = &golden[&format!("act.{part}{number}.out")];
                assert_close(recorder.get(layer, Site::ZOut).unwrap(), expected, OUTPUT, part);
            }
        }
        let grid = case.config.grid();
        assert_close(&to_patches(images, &grid).unwrap(), &golden["output.target_patches"], 0.0, "target");
        assert_eq!(latent.size()[1], if case.whole { 17 } else { 5 });
    }
}

#[test]
fn losses_and_gradients_are_the_official_ones() {
    for case in cases() {
        let (golden, (store, model)) = (tensors(case.file), loaded(&case));
        let images = &golden["input.images"];
        let mask = Masking::default().of_noise(&golden["input.noise"]).unwrap();
        for (name, norm_pix) in [("pix", false), ("norm_pix", true)] {
            // Of the ViT-MAE there are gradients of one loss.
            let prefix = match case.whole {
                true => format!("grad_{name}."),
                false => "grad.".to_owned(),
            };
            let prediction = model.forward(images, &mask, &mut NoProbe).unwrap();
            let rule = ReconstructionLoss { over: Over::Masked, norm_pix };
            let loss = rule.forward(images, &prediction, &mask, &case.config.grid()).unwrap();
            assert_close(&loss.view([1]), &golden[&format!("output.loss_{name}")], OUTPUT, name);
            if norm_pix && !case.whole {
                continue;
            }
            let expected = by_our_names(case.file, &prefix, &case.config);
            for (parameter, found) in gradients(&store, &loss) {
                let meant = whitebox_model::weights::to_tensor(&expected.tensors[&parameter]).unwrap();
                if parameter.ends_with("qkv.bias") {
                    // A shift of all keys moves no score: the middle third is zero, and the files hold rounding there.
                    let third = meant.size()[0] / 3;
                    for part in [0, 2] {
                        let of = |t: &Tensor| t.narrow(0, part * third, third);
                        assert_close(&of(&found), &of(&meant), GRADIENT, &parameter);
                    }
                    let key = found.narrow(0, third, third).abs().max().double_value(&[]);
                    assert!(key < 1e-6, "{parameter}: {key}");
                } else {
                    assert_close(&found, &meant, GRADIENT, &format!("{} {name} {parameter}", case.file));
                }
            }
        }
    }
}

#[test]
fn the_encoder_alone_is_a_classifier_without_a_head() {
    let golden = tensors("mae_micro.safetensors");
    let config = crate_micro();
    let (weights, model) = encoder(by_our_names("mae_micro.safetensors", "param.", &config), &config).unwrap();
    let store = nn::VarStore::new(Device::Cpu);
    let built = model.build(&store.root()).unwrap();
    weights.load_into(&store.variables(), LoadOptions { replace_head: true, ..Default::default() }).unwrap();
    let mut recorder = Recorder::new(&[Site::Attention, Site::Uz]);
    let images = &golden["input.images"];
    let features = built.features(images, &mut recorder).unwrap();
    assert_close(
        recorder.get(1, Site::Attention).unwrap(),
        &golden["output.enc_attention_layer1"],
        OUTPUT,
        "attention",
    );
    assert_close(recorder.get(1, Site::Uz).unwrap(), &golden["output.enc_key_layer1"], OUTPUT, "keys");
    // The same as the autoencoder's own encoder on whole images.
    let (_store, whole) = loaded(&cases()[0]);
    let mask = Masking::NONE.seeded(&[0, 1, 2], config.grid().shape(), Device::Cpu).unwrap();
    let latent = whole.latent(images, &mask, &mut NoProbe).unwrap();
    assert_close(&features, &latent.select(1, 0), OUTPUT, "features");
    assert!(built.fold(Kind::Float).is_some());
    let folded = built.fold(Kind::Float).unwrap().features(images, &mut NoProbe).unwrap();
    assert_close(&folded, &features, OUTPUT, "folded features");

    // ViT-MAE's as well; its epsilon is another there.
    let config = vit_micro();
    let (weights, model) = encoder(by_our_names("vitmae_micro.safetensors", "param.", &config), &config).unwrap();
    assert!(matches!(model, ModelConfig::Vit(_)));
    let store = nn::VarStore::new(Device::Cpu);
    let built = model.build(&store.root()).unwrap();
    weights.load_into(&store.variables(), LoadOptions { replace_head: true, ..Default::default() }).unwrap();
    let (_store, whole) = loaded(&cases()[1]);
    let latent = whole.latent(images, &mask, &mut NoProbe).unwrap();
    assert_close(&built.features(images, &mut NoProbe).unwrap(), &latent.select(1, 0), 1e-4, "features of the ViT");
}

#[test]
fn the_official_file_loads_strictly() {
    let read = || Weights::open(&golden("mae_micro.pth")).unwrap();
    let given = json!({"heads": 4}).as_object().unwrap().clone();
    let opened = import::open(read(), &given).unwrap();
    assert_eq!(opened.inferred.config, crate_micro());
    assert!(opened.inferred.notes.iter().any(|note| note.contains("lambda = 0.5")));
    let (store, model) = built(&opened.inferred.config, 1);
    opened.weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
    let golden = tensors("mae_micro.safetensors");
    let mask = Masking::default().of_noise(&golden["input.noise"]).unwrap();
    let prediction = model.forward(&golden["input.images"], &mask, &mut NoProbe).unwrap();
    assert_close(&prediction, &golden["output.pred"], OUTPUT, "prediction");

    let nameless = import::open(read(), &Default::default()).unwrap_err().to_string();
    assert!(nameless.contains("model.heads"), "{nameless}");
    let mut less = import::open(read(), &given).unwrap().weights;
    less.tensors.remove("mask_token");
    let error = less.load_into(&store.variables(), LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("missing: mask_token"), "{error}");
}

#[test]
fn a_classifier_is_no_autoencoder() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/crate_micro.pth.tar");
    let weights = Weights::open(&file).unwrap();
    assert!(!import::is_autoencoder(&weights));
    let error = import::open(weights, &Default::default()).unwrap_err().to_string();
    assert!(error.contains("neither a CRATE-MAE nor a ViT-MAE"), "{error}");
}

#[test]
fn parts_that_cannot_be_joined_are_named() {
    let config = vit_micro();
    let given = serde_json::to_value(&config).unwrap();
    let key = "vit.encoder.layer.0.attention.attention.key.bias";
    for broken in [None, Some(Vec::new())] {
        let mut weights = Weights::open(&golden("vitmae_micro.safetensors")).unwrap();
        let strip =
            |(name, tensor): (&String, &_)| Some((name.strip_prefix("param.")?.to_owned(), Clone::clone(tensor)));
        weights.tensors = weights.tensors.iter().filter_map(strip).collect();
        match broken {
            None => drop(weights.tensors.remove(key)),
            // Numbers without dimensions have no rows to be joined.
            Some(shape) => ["query", "key", "value"].iter().for_each(|part| {
                let tensor: &mut torch_extras::pth::RawTensor =
                    weights.tensors.get_mut(&key.replace("key", part)).unwrap();
                tensor.shape = Vec::clone(&shape);
            }),
        }
        let error = import::open(weights, given.as_object().unwrap()).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}
