//! What the models are, beyond the golden vectors: sizes, options, the decoder as the encoder reversed, costs, resistance to wrong input.

mod common;

use common::{assert_close, built, gradients, images, small};
use serde_json::{Value, json};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, nn};
use whitebox_autoencoder::inversion::{inversions, nearness};
use whitebox_autoencoder::{Autoencoder, AutoencoderConfig, CrateMae, Masking, ReconstructionLoss};
use whitebox_model::probe::{NoProbe, Recorder};
use whitebox_model::{Site, weights};

const CPU: Device = Device::Cpu;

fn numbers(store: &VarStore, learning: bool) -> i64 {
    let all = store.variables().into_values().filter(|v| !learning || v.requires_grad());
    all.map(|v| v.numel() as i64).sum()
}

fn named(fields: &[(&str, Value)]) -> AutoencoderConfig {
    small(Value::Object(fields.iter().map(|(k, v)| (k.to_string(), v.clone())).collect()))
}

#[test]
fn totals_are_those_of_the_released_models() {
    for (preset, millions) in [("crate-mae-small", 25.406), ("crate-mae-base", 44.638), ("crate-mae-tiny", 11.56)] {
        let config = AutoencoderConfig::preset(preset).unwrap();
        let (store, _model) = built(&config, 0);
        let total = numbers(&store, false) as f64 / 1e6;
        assert!((total - millions).abs() < 0.006, "{preset}: {total} million");
        assert_eq!(config.cost(&Masking::default()).parameters, numbers(&store, true) as u64, "{preset}");
    }
    assert!(AutoencoderConfig::preset("crate-mae-giant").unwrap_err().to_string().contains("crate-mae-small"));
}

#[test]
fn parameters_are_counted_without_building() {
    let vit = json!({"kind": "vit_mae", "decoder_d": 16, "decoder_heads": 2, "decoder_depth": 3, "hidden": 40});
    for fields in [json!({}), json!({"decoder_init": "tied"}), json!({"decoder_init": "inverted", "depth": 3}), vit] {
        let config = small(fields);
        let (store, _model) = built(&config, 0);
        assert_eq!(config.cost(&Masking::default()).parameters, numbers(&store, true) as u64, "{config:?}");
    }
    // An encoder that does not see hidden patches has less to do.
    let [whole, dropped] = [false, true].map(|drop| named(&[("drop_masked", json!(drop))]).cost(&Masking::default()));
    assert!(dropped.forward_per_image < whole.forward_per_image);
}

#[test]
fn every_parameter_that_learns_has_a_gradient() {
    let vit = json!({"kind": "vit_mae", "decoder_d": 16, "decoder_heads": 2, "decoder_depth": 2});
    let all = [json!({}), json!({"drop_masked": true}), json!({"decoder_init": "tied"}), vit];
    for (fields, recompute) in all.into_iter().flat_map(|fields| [(fields.clone(), false), (fields, true)]) {
        let config = small(fields);
        let (store, mut model) = built(&config, 2);
        model.recompute_layers(recompute);
        let (images, grid) = (images(3), config.grid());
        let mask = Masking { ratio: 0.5, ..Default::default() }.seeded(&[1, 2, 3], grid.shape(), CPU).unwrap();
        let prediction = model.forward(&images, &mask, &mut NoProbe).unwrap();
        assert_eq!(prediction.size(), [3, 6, 128]);
        let loss = ReconstructionLoss::default().forward(&images, &prediction, &mask, &grid).unwrap();
        for (name, gradient) in gradients(&store, &loss) {
            let size = gradient.abs().max().double_value(&[]);
            let keys = name.ends_with("qkv.bias"); // queries and values have one, keys none
            assert!(gradient.defined() && (size > 0.0 || keys), "{name} in {config:?}: {size}");
        }
    }
}

#[test]
fn an_encoder_that_drops_masked_patches_sees_the_others_alone() {
    let (images, grid) = (images(2), small(json!({})).grid());
    let mask = Masking { ratio: 0.5, ..Default::default() }.seeded(&[1, 2], grid.shape(), CPU).unwrap();
    // Hidden patches changed: an encoder that drops them, and one that puts mask tokens in their places, give the same.
    let other = whitebox_autoencoder::to_patches(&images, &grid).unwrap() + mask.masked.unsqueeze(-1) * 3.0;
    let other = whitebox_autoencoder::from_patches(&other, &grid).unwrap();
    for (drop, tokens) in [(true, 4), (false, 7)] {
        let (_store, model) = built(&named(&[("drop_masked", json!(drop))]), 4);
        let latent = model.latent(&images, &mask, &mut NoProbe).unwrap();
        assert_eq!(latent.size(), [2, tokens, 24]);
        assert_close(&model.latent(&other, &mask, &mut NoProbe).unwrap(), &latent, 1e-6, "hidden patches are unseen");
    }
}

#[test]
fn a_decoder_layer_is_the_formula() {
    let config = small(json!({"depth": 1}));
    let (store, model) = built(&config, 5);
    let mask = Masking::NONE.seeded(&[1, 2], config.grid().shape(), CPU).unwrap();
    let mut recorder = Recorder::new(&[Site::ZHalf, Site::ZOut, Site::MssaOut, Site::IstaInput]);
    let latent = model.latent(&images(2), &mask, &mut NoProbe).unwrap();
    model.decode(&latent, &mask, &mut recorder).map(drop).unwrap();
    let seen = |site| recorder.get(1, site).unwrap();
    let e = &store.variables()["decoder_blocks.0.layers.0.0.fn.weight"];
    assert_close(&seen(Site::IstaInput).matmul(&e.tr()), seen(Site::ZHalf), 1e-6, "Y' = E LN(Y)");
    assert_close(&(seen(Site::ZHalf) - seen(Site::MssaOut)), seen(Site::ZOut), 1e-6, "Y+ = Y' - MSSA");
}

fn crate_mae(fields: Value, seed: i64) -> (VarStore, CrateMae) {
    let AutoencoderConfig::CrateMae(config) = small(fields) else { panic!("a CRATE-MAE was asked for") };
    let _drawing = common::seeded(seed);
    let store = nn::VarStore::new(CPU);
    let model = CrateMae::new(&store.root(), &config).unwrap();
    (store, model)
}

#[test]
fn a_decoder_can_begin_as_its_partners_or_be_them() {
    let pairs = [
        ("blocks.0.layers.0.1.fn.weight", "decoder_blocks.1.layers.0.0.fn.weight"),
        ("blocks.1.layers.0.0.fn.qkv.weight", "decoder_blocks.0.layers.0.1.fn.qkv.weight"),
        ("blocks.1.layers.0.0.fn.to_out.0.bias", "decoder_blocks.0.layers.0.1.fn.to_out.0.bias"),
    ];
    for (init, equal, own) in [("independent", false, true), ("inverted", true, true), ("tied", true, false)] {
        let (store, model) = crate_mae(json!({"decoder_init": init}), 6);
        let variables = store.variables();
        for (ours, theirs) in pairs {
            assert_eq!(variables.contains_key(theirs), own, "{init} {theirs}");
            if own && !theirs.ends_with("bias") {
                assert_eq!(variables[ours] == variables[theirs], equal, "{init} {theirs}");
                assert_ne!(variables[ours].data_ptr(), variables[theirs].data_ptr(), "{init} {theirs}");
            }
        }
        let shared = model.decoder[1].dictionary.data_ptr() == variables[pairs[0].0].data_ptr();
        assert_eq!(shared, init == "tied");
    }
}

#[test]
fn an_orthogonal_dictionary_is_undone_by_its_partner() {
    // Without attention, sparsity and threshold a layer is LN and D^T, and its partner LN and D: for an orthogonal D an exact inverse.
    let (store, model) = crate_mae(json!({"depth": 1, "lambda": 0.0, "eta": 1.0, "decoder_init": "tied"}), 7);
    let variables = store.variables();
    tch::no_grad(|| {
        let zero = |name: &str| drop(variables[name].shallow_clone().zero_());
        zero("blocks.0.layers.0.0.fn.to_out.0.weight");
        let mut d = variables["blocks.0.layers.0.1.fn.weight"].shallow_clone();
        d.copy_(&Tensor::linalg_qr(&d, "reduced").0);
    });
    let mask = Masking::NONE.seeded(&[1, 2, 3], [2, 3], CPU).unwrap();
    let found = inversions(&model, &images(3), &mask).unwrap();
    assert_eq!(found.len(), 1);
    // The ReLU takes half of the code; the direction comes back nevertheless, in part.
    assert!(found[0].pair.cosine > 0.6, "{found:?}");
    assert_eq!(found[0].pair, found[0].stack);

    let z = Tensor::randn([2, 5, 24], (Kind::Double, CPU));
    let same = nearness(&(&z * 3.0 + 1.0), &z);
    assert!((same.cosine - 1.0).abs() < 1e-9 && same.error < 1e-6, "{same:?}");
    let apart =
        nearness(&Tensor::randn([200, 5, 24], (Kind::Double, CPU)), &Tensor::randn([200, 5, 24], (Kind::Double, CPU)));
    assert!(apart.cosine.abs() < 0.1 && (apart.error - 2f64.sqrt()).abs() < 0.1, "{apart:?}");
}

#[test]
fn a_file_gives_the_model_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let config = small(json!({"decoder_init": "inverted", "drop_masked": true}));
    let (store, model) = built(&config, 8);
    weights::save(&path, &store.variables(), &weights::Card::new(config.clone())).unwrap();
    let read = weights::Weights::open(&path).unwrap();
    assert!(read.card_of::<whitebox_model::ModelConfig>().is_err());
    let opened = whitebox_autoencoder::import::open(read, &Default::default()).unwrap();
    assert_eq!(opened.inferred.config, config);
    let (other, again) = built(&config, 9);
    opened.weights.load_into(&other.variables(), Default::default()).unwrap();
    let mask = Masking::default().seeded(&[1, 2], config.grid().shape(), CPU).unwrap();
    let of = |model: &dyn Autoencoder| model.forward(&images(2), &mask, &mut NoProbe).unwrap();
    assert_close(&of(again.as_ref()), &of(model.as_ref()), 0.0, "the same prediction");
}

#[test]
fn wrong_input_is_refused_in_words() {
    let config = small(json!({}));
    let (_store, model) = built(&config, 0);
    let mask = Masking::default().seeded(&[1, 2], config.grid().shape(), CPU).unwrap();
    let error = |images: &Tensor| model.latent(images, &mask, &mut NoProbe).unwrap_err().to_string();
    assert!(error(&images(3)).contains("a mask of"), "{}", error(&images(3)));
    assert!(error(&images(2).narrow(1, 0, 1)).contains("[batch, 2,"));
    assert!(error(&images(2).repeat([1, 1, 2, 1])).contains("16x24"));
    for (fields, word) in [
        (json!({"d": 26, "heads": 2}), "multiple of 4"),
        (json!({"heads": 5}), "multiple of heads"),
        (json!({"depth": 0}), "depth = 0"),
        (json!({"eta": 1e9}), "eta"),
        (json!({"kind": "vit_mae", "decoder_d": 30}), "of the decoder"),
        (json!({"kind": "vit_mae", "norm_eps": 2.0}), "norm_eps"),
        (json!({"patch": [7, 8]}), "cannot be cut"),
    ] {
        let error = small(fields).check().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(serde_json::from_value::<AutoencoderConfig>(json!({"kind": "crate_mae", "dept": 2})).is_err());
}
