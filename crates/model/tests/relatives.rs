//! The layers of CRATE-alpha and ToST against formulas written otherwise and against finite differences; their flags; configs that are refused.

mod common;

use common::*;
use serde_json::json;
use tch::{Device, Kind, Tensor, nn};
use whitebox_model::embed::interpolate_positions;
use whitebox_model::odl::{Odl, OdlConfig};
use whitebox_model::probe::{NoProbe, Recorder, Site};
use whitebox_model::tssa::Tssa;
use whitebox_model::weights::{Card, LoadOptions, Regrid, Weights, save};
use whitebox_model::{ModelConfig, TostConfig};

fn draw(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Double, Device::Cpu))
}

/// Every gradient of `<forward(h), upstream>`, that by `h` too, against differences.
fn check_gradients(store: &nn::VarStore, h: &Tensor, forward: impl Fn(&Tensor) -> Tensor) {
    let upstream = draw(&h.size());
    let objective = || (forward(h) * &upstream).sum(Kind::Double);
    objective().backward();
    let mut leaves: Vec<_> = store.variables().into_iter().collect();
    leaves.push(("h".to_owned(), h.shallow_clone()));
    for (name, leaf) in leaves {
        let expected = differences(&leaf, || tch::no_grad(|| objective().double_value(&[])));
        assert_close(&leaf.grad(), &expected, 1e-6, &name);
    }
}

/// The layer with tokens as columns, step by step as the paper writes it, and its gradients by differences.
#[test]
fn odl_is_its_formula_for_every_flag() {
    for (overcomplete, decoupled, steps) in [(4, true, 2), (4, false, 2), (1, true, 2), (3, true, 1), (2, false, 4)] {
        let _drawing = seeded(21);
        let mut store = nn::VarStore::new(Device::Cpu);
        let (d, eta, lambda) = (6, 0.2, 0.1);
        let odl = Odl::new(&store.root(), &OdlConfig { d, overcomplete, decoupled, steps, eta, lambda });
        store.double();
        let variables = store.variables();
        assert_eq!(variables.len(), if decoupled { 2 } else { 1 });
        let h = draw(&[2, 3, d]).set_requires_grad(true);

        let dictionary = &variables["D"];
        let back = variables.get("D1").unwrap_or(dictionary);
        assert_eq!(dictionary.size(), [d, overcomplete * d]);
        let columns = h.transpose(1, 2); // b d n
        let mut code = Tensor::zeros([2, overcomplete * d, 3], (Kind::Double, Device::Cpu));
        for _ in 0..steps {
            let gradient = dictionary.tr().matmul(&(dictionary.matmul(&code) - &columns));
            code = (code - gradient * eta - eta * lambda).relu();
        }
        let mut recorder = Recorder::new(&[Site::Code, Site::IstaOut]);
        let out = odl.forward(&h, 0, &mut recorder);
        assert_close(recorder.get(0, Site::Code).unwrap(), &code.transpose(1, 2), 1e-13, "code");
        assert_close(&out, &back.matmul(&code).transpose(1, 2), 1e-13, "what leads back");
        check_gradients(&store, &h, |h| odl.forward(h, 0, &mut NoProbe));
    }
}

#[test]
fn residual_says_whether_the_second_step_is_added() {
    for residual in [true, false] {
        let (_store, model) = drawn(&small("crate_alpha", json!({"residual": residual})), 22);
        let mut recorder = Recorder::new(&[Site::ZHalf, Site::IstaOut, Site::ZOut]);
        let _ = model.forward(&Tensor::randn([2, 2, 16, 24], (Kind::Float, Device::Cpu)), &mut recorder).unwrap();
        let at = |site| recorder.get(1, site).unwrap();
        let expected = if residual { at(Site::ZHalf) + at(Site::IstaOut) } else { at(Site::IstaOut).shallow_clone() };
        assert_close(at(Site::ZOut), &expected, 1e-6, "Z+");
    }
}

/// Head by head and channel by channel, and gradients by differences.
#[test]
fn tssa_is_its_formula() {
    let _drawing = seeded(23);
    let mut store = nn::VarStore::new(Device::Cpu);
    let (b, n, d, heads) = (2, 5, 6, 2);
    let p = d / heads;
    let tssa = Tssa::new(&store.root(), d, heads, true);
    store.double();
    tch::no_grad(|| store.trainable_variables().iter_mut().for_each(|v| drop(v.g_add_(&(v.randn_like() * 0.5)))));
    let h = draw(&[b, n, d]).set_requires_grad(true);

    let w = tssa.projection.forward(&h);
    let head = |k: i64| w.narrow(2, k * p, p);
    let scores: Vec<_> = (0..heads)
        .map(|k| {
            let norm = head(k).square().sum_dim_intlist(1, true, None::<Kind>).sqrt();
            (head(k) / norm).square().sum_dim_intlist(-1, false, None::<Kind>) * tssa.temperature.get(k)
        })
        .collect();
    let pi = Tensor::stack(&scores, 1).softmax(1, None::<Kind>); // b k n
    let heads_out: Vec<_> = (0..heads)
        .map(|k| {
            let pi = pi.select(1, k).unsqueeze(-1); // b n 1
            let weights = &pi / (pi.sum_dim_intlist(1, true, None::<Kind>) + 1e-8);
            let moments = weights.transpose(1, 2).matmul(&head(k).square()); // b 1 p
            head(k) * pi * (moments + 1.0).reciprocal() * -1.0
        })
        .collect();
    let expected = tssa.output.forward(&Tensor::cat(&heads_out, 2));

    let mut recorder = Recorder::new(&[Site::Memberships]);
    assert_close(&tssa.forward(&h, 0, &mut recorder), &expected, 1e-13, "TSSA");
    let memberships = recorder.get(0, Site::Memberships).unwrap();
    assert_close(memberships, &pi, 1e-13, "memberships");
    assert_close(
        &memberships.sum_dim_intlist(1, false, None::<Kind>),
        &Tensor::ones([b, n], (Kind::Double, Device::Cpu)),
        1e-14,
        "sums over the subspaces",
    );
    check_gradients(&store, &h, |h| tssa.forward(h, 0, &mut NoProbe));
}

/// A channel that is zero for all tokens gives zero, and no gradient that is not a number.
#[test]
fn tssa_knows_tokens_that_are_zero() {
    let _drawing = seeded(24);
    let store = nn::VarStore::new(Device::Cpu);
    let tssa = Tssa::new(&store.root(), 6, 2, false);
    let h = Tensor::zeros([1, 3, 6], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let out = tssa.forward(&h, 0, &mut NoProbe);
    out.square().sum(Kind::Float).backward();
    assert_eq!(f64::try_from(out.abs().max()).unwrap(), 0.0);
    assert!(bool::try_from(h.grad().isfinite().all()).unwrap());
}

/// A stem of patches takes sizes that convolutions cannot: 28 pixels in patches of 7.
#[test]
fn stems_take_what_they_can() {
    let shape = json!({"image": [28, 28], "patch": [7, 7], "channels": 1, "d": 16, "heads": 4});
    let check = |more: serde_json::Value| {
        let mut fields = shape.clone();
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        small("tost", fields)
    };
    let (_store, model) = drawn(&check(json!({"stem": "patch"})), 25);
    let images = Tensor::randn([2, 1, 28, 28], (Kind::Float, Device::Cpu));
    assert_eq!(model.tokens(&images, &mut NoProbe).unwrap().size(), [2, 17, 16]);

    let error = check(json!({})).check().unwrap_err().to_string();
    assert!(
        error.contains("[7, 7]") && error.contains("power of two") && error.contains("stem = \"patch\""),
        "{error}"
    );
    for fields in [json!({"patch": [4, 2]}), json!({"patch": [1, 1]}), json!({"patch": [4, 4], "d": 15, "heads": 5})] {
        let config = check(fields);
        assert!(config.build(&nn::VarStore::new(Device::Cpu).root()).is_err(), "{config:?}");
    }
    assert_eq!(check(json!({"patch": [2, 2], "d": 4})).check().err().map(|e| e.to_string()), None);
}

/// Positions are made for the grid at hand, and one image is given what it is given beside others.
#[test]
fn tost_takes_other_resolutions_and_any_batch() {
    let (_store, model) = drawn(&tost_micro(), 26);
    let images = Tensor::randn([3, 3, 48, 40], (Kind::Float, Device::Cpu));
    let logits = model.forward(&images, &mut NoProbe).unwrap();
    assert_eq!(logits.size(), [3, 10]);
    let alone = model.forward(&images.narrow(0, 1, 1), &mut NoProbe).unwrap();
    assert_close(&alone, &logits.narrow(0, 1, 1), 1e-5, "alone");
}

#[test]
fn a_head_is_replaced_and_running_statistics_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["crate_alpha", "tost"] {
        let path = folder.path().join(format!("{kind}.safetensors"));
        let (store, mut model) = drawn(&small(kind, json!({})), 27);
        let images = Tensor::randn([3, 2, 16, 24], (Kind::Float, Device::Cpu));
        model.set_training(true);
        let _ = model.forward(&images, &mut NoProbe).unwrap();
        model.set_training(false);
        save(&path, &store.variables(), &Card::new(model.config())).unwrap();

        let weights = Weights::open(&path).unwrap();
        let config = weights.card_of::<ModelConfig>().unwrap().unwrap().model;
        assert_eq!(config, model.config());
        let (again, loaded) = drawn(&config, 28);
        weights.load_into(&again.variables(), LoadOptions::default()).unwrap();
        let [a, b] = [&model, &loaded].map(|m| m.forward(&images, &mut NoProbe).unwrap());
        assert_close(&a, &b, 0.0, "the same logits");

        let more = config.with_classes(7);
        let (other, replaced) = drawn(&more, 29);
        assert!(weights.load_into(&other.variables(), LoadOptions::default()).is_err());
        let options = LoadOptions { replace_head: true, ..Default::default() };
        weights.load_into(&other.variables(), options).unwrap();
        let [a, b] = [&model, &replaced].map(|m| m.features(&images, &mut NoProbe).unwrap());
        assert_close(&a, &b, 0.0, "the same features");
    }
}

/// CRATE-alpha's table of positions is brought to another grid where that is asked for; ToST has none and loads as it is.
#[test]
fn positions_load_into_another_resolution_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for kind in ["crate_alpha", "tost"] {
        let (store, model) = drawn(&small(kind, json!({})), 30);
        save(&path, &store.variables(), &Card::new(model.config())).unwrap();
        let larger = small(kind, json!({"image": [32, 16]}));
        let (other, _model) = drawn(&larger, 31);
        let options = LoadOptions { positions: Some(Regrid { from: [2, 3], to: [4, 2] }), ..Default::default() };
        Weights::open(&path).unwrap().load_into(&other.variables(), options).unwrap();
        if kind == "crate_alpha" {
            let expected = interpolate_positions(&store.variables()["pos_embedding"], [2, 3], [4, 2]);
            assert_close(&other.variables()["pos_embedding"], &expected, 1e-7, "interpolated");
        }
    }
}

#[test]
fn configs_that_describe_no_relative_are_refused() {
    for (kind, fields) in [
        ("crate_alpha", json!({"overcomplete": 0})),
        ("crate_alpha", json!({"overcomplete": 1i64 << 40})),
        ("crate_alpha", json!({"steps": 0})),
        ("crate_alpha", json!({"steps": 65})),
        ("crate_alpha", json!({"heads": 5})),
        ("crate_alpha", json!({"head_dim": 0})),
        ("crate_alpha", json!({"eta": 1e300})),
        ("crate_alpha", json!({"patch": [5, 8]})),
        ("crate_alpha", json!({"drop_path": 1.0})),
        ("tost", json!({"heads": 5})),
        ("tost", json!({"hidden": 0})),
        ("tost", json!({"class_layers": 0})),
        ("tost", json!({"class_layers": i64::MAX})),
        ("tost", json!({"layer_scale": 1e300})),
        ("tost", json!({"dropout": -0.1})),
        ("tost", json!({"image": [1i64 << 40, 24]})),
    ] {
        let config = small(kind, fields.clone());
        assert!(config.build(&nn::VarStore::new(Device::Cpu).root()).is_err(), "{kind}: {fields}");
    }
    for kind in ["crate_alpha", "tost"] {
        assert!(serde_json::from_value::<ModelConfig>(json!({"kind": kind, "dpeth": 3})).is_err());
    }
    assert_eq!(ModelConfig::preset("tost-tiny").unwrap(), ModelConfig::Tost(TostConfig::default()));
}
