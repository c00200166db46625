//! What is done in training alone: steps and entries left out at random, and that evaluation knows nothing of it.

mod common;

use common::*;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use whitebox_model::VisionModel;
use whitebox_model::probe::{NoProbe, Recorder, Site};

const IMAGES: i64 = 64;

fn images() -> Tensor {
    let _drawing = seeded(40);
    Tensor::randn([IMAGES, 2, 16, 24], (Kind::Float, Device::Cpu))
}

/// Every kind of model, and whether its second step is added to the tokens.
fn kinds() -> Vec<(&'static str, Value, bool)> {
    vec![
        ("crate", json!({}), false),
        ("crate", json!({"sparsify": "mm_prox", "residual_base": "plain"}), false),
        ("crate", json!({"attention": "mhsa", "sparsify": "mlp"}), true),
        ("crate_alpha", json!({}), true),
        ("crate_alpha", json!({"residual": false}), false),
        ("tost", json!({}), true),
        ("vit", json!({}), true),
    ]
}

fn with(mut fields: Value, key: &str, value: f64) -> Value {
    fields[key] = json!(value);
    fields
}

/// By how much of `step` each image's tokens grew from `before` to `after`: one number an image, the same for all its entries.
#[track_caller]
fn shares(before: &Tensor, step: &Tensor, after: &Tensor) -> Vec<f64> {
    let grown = after - before;
    (0..IMAGES)
        .map(|i| {
            let (grown, step) = (grown.get(i), step.get(i));
            let share = f64::try_from((&grown * &step).sum(Kind::Double) / step.square().sum(Kind::Double)).unwrap();
            let rest = f64::try_from((&grown - &step * share).norm() / step.norm()).unwrap();
            assert!(rest < 1e-3, "a part of the step is left out: {rest}");
            share
        })
        .collect()
}

/// At `drop_path` 0.5 of two layers the first keeps all, the second drops half of the images' steps and doubles the others.
#[test]
fn stochastic_depth_drops_whole_steps_of_single_images() {
    let images = images();
    for (kind, fields, second) in kinds() {
        let (store, mut model) = drawn(&small(kind, with(fields, "drop_path", 0.5)), 41);
        model.set_training(true);
        let _drawing = seeded(42);
        let mut recorder = Recorder::new(&Site::ALL);
        let _ = model.forward(&images, &mut recorder).unwrap();
        let at = |layer, site| recorder.get(layer, site).unwrap();
        let gamma = |layer: usize, which: &str| {
            let name = format!("blocks.{layer}.{which}");
            store.variables().get(&name).map(Tensor::shallow_clone).filter(|_| kind == "tost")
        };
        let scaled = |step: &Tensor, gamma: Option<Tensor>| gamma.map_or_else(|| step.shallow_clone(), |g| step * g);
        let check = |found: Vec<f64>, dropped: bool, what: &str| {
            let near = |x: f64, value: f64| (x - value).abs() < 1e-3;
            let (none, twice) =
                (found.iter().filter(|x| near(**x, 0.0)).count(), found.iter().filter(|x| near(**x, 2.0)).count());
            match dropped {
                true => assert!(
                    none + twice == 64 && (15..50).contains(&none),
                    "{kind}, {what}: {none} none, {twice} twice"
                ),
                false => assert!(found.iter().all(|x| near(*x, 1.0)), "{kind}, {what}: {found:?}"),
            }
        };
        for layer in 0..2 {
            let before = if layer == 0 { at(0, Site::Embed) } else { at(0, Site::ZOut) };
            let step = scaled(at(layer, Site::MssaOut), gamma(layer, "gamma1"));
            check(shares(before, &step, at(layer, Site::ZHalf)), layer == 1, "attention");
            if second {
                let step = scaled(at(layer, Site::IstaOut), gamma(layer, "gamma2"));
                check(shares(at(layer, Site::ZHalf), &step, at(layer, Site::ZOut)), layer == 1, "second step");
            }
        }
    }
}

fn logits(model: &dyn VisionModel, images: &Tensor, seed: i64) -> Tensor {
    let _drawing = seeded(seed);
    tch::no_grad(|| model.forward(images, &mut NoProbe)).unwrap()
}

#[test]
fn evaluation_leaves_nothing_out() {
    let images = images();
    for (kind, fields, _) in kinds() {
        let (_plain_store, plain) = drawn(&small(kind, fields.clone()), 43);
        let (_store, mut model) = drawn(&small(kind, with(with(fields, "drop_path", 0.5), "dropout", 0.3)), 43);
        let expected = logits(plain.as_ref(), &images, 1);
        assert_close(&logits(model.as_ref(), &images, 2), &expected, 0.0, "as built");
        model.set_training(true);
        let [once, again, other] = [3, 3, 4].map(|seed| logits(model.as_ref(), &images, seed));
        assert_close(&once, &again, 1e-6, "the same draws");
        assert!(relative_error(&once, &other) > 1e-3, "{kind}: other draws give the same logits");
        model.set_training(false);
        if kind != "tost" {
            // (ToST's running statistics have moved.)
            assert_close(&logits(model.as_ref(), &images, 5), &expected, 0.0, "after training");
        }
        if let Some(folded) = model.fold(Kind::Float) {
            assert_close(&logits(folded.as_ref(), &images, 6), &expected, 1e-5, "folded");
        }
    }
}

#[test]
fn dropout_leaves_out_entries_of_the_embedding() {
    let images = images();
    for (kind, fields, _) in kinds() {
        let (_store, mut model) = drawn(&small(kind, with(fields, "dropout", 0.25)), 44);
        model.set_training(true);
        let _drawing = seeded(45);
        let mut recorder = Recorder::new(&[Site::Embed]);
        let _ = model.forward(&images, &mut recorder).unwrap();
        let zero = recorder.get(0, Site::Embed).unwrap().eq(0.0).to_kind(Kind::Float).mean(Kind::Float);
        let zero = f64::try_from(zero).unwrap();
        assert!((0.2..0.3).contains(&zero), "{kind}: {zero} of the entries are zero");
    }
}

/// A layer computed again drops the same steps again.
#[test]
fn recomputed_layers_drop_the_same_steps() {
    let images = images();
    for (kind, fields, _) in kinds() {
        let run = |recompute: bool| {
            let (store, mut model) = drawn(&small(kind, with(fields.clone(), "drop_path", 0.5)), 46);
            model.set_training(true);
            model.recompute_layers(recompute);
            let _drawing = seeded(47);
            let logits = model.forward(&images, &mut NoProbe).unwrap();
            gradients(&store, &logits.square().sum(Kind::Float))
        };
        let kept = run(false);
        for (name, gradient) in run(true) {
            assert_close(&gradient, &kept[&name], 1e-4, &format!("{kind}: {name}"));
        }
    }
}

/// BatchNorm has no variance of a single number.
#[test]
fn a_batch_of_one_patch_is_refused_in_training() {
    let config = small("tost", json!({"image": [8, 8]}));
    let (_store, mut model) = drawn(&config, 48);
    let one = Tensor::ones([1, 2, 8, 8], (Kind::Float, Device::Cpu));
    assert!(model.forward(&one, &mut NoProbe).is_ok());
    model.set_training(true);
    let error = model.forward(&one, &mut NoProbe).unwrap_err().to_string();
    assert!(error.contains("single") && error.contains("at least two"), "{error}");
}
