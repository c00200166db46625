//! What both masked encoders have in common: padding, types, heads, classifiers, sentence embeddings, sizes, learning.

mod common;

use common::*;
use serde_json::{Value, json};
use tch::{Kind, Tensor, nn};
use whitebox_language::{
    ClassifierConfig, IGNORED, MaskedConfig, MaskedModel, TextPool, mean_of_real, sentence_embedding,
};
use whitebox_model::Site;
use whitebox_model::probe::{NoProbe, Recorder};

/// Two texts of 9 and 5 real tokens.
fn mask() -> Tensor {
    let mask = Tensor::ones([2, 9], (Kind::Int64, CPU));
    let _ = mask.get(1).narrow(0, 5, 4).fill_(0);
    mask
}

fn encode(model: &dyn MaskedModel, ids: &Tensor, mask: Option<&Tensor>) -> Tensor {
    model.encode(ids, None, mask, false, &mut NoProbe).unwrap()
}

#[test]
fn padding_changes_no_real_token() {
    for config in masked_kinds() {
        let (_store, model) = built_masked(&config, 1);
        let (ids, mask) = (ids(2, 9), mask());
        let before = encode(&*model, &ids, Some(&mask));
        let other = ids.copy();
        let _ = other.get(1).narrow(0, 5, 4).fill_(7);
        let after = encode(&*model, &other, Some(&mask));
        let real = |t: &Tensor| Tensor::cat(&[t.get(0), t.get(1).narrow(0, 0, 5)], 0);
        assert_eq!(real(&before), real(&after), "{config:?}");
        // The same as the text alone, without padding.
        let alone = encode(&*model, &ids.narrow(0, 1, 1).narrow(1, 0, 5), None);
        assert_close(&alone.get(0), &before.get(1).narrow(0, 0, 5), 1e-5, "alone");
        // Tokens see both sides.
        let changed = ids.copy();
        let _ = changed.narrow(1, 4, 1).fill_(9);
        let after = encode(&*model, &changed, Some(&mask));
        assert!((after.narrow(1, 0, 1) - before.narrow(1, 0, 1)).abs().max().double_value(&[]) > 1e-4);
        // A text of nothing but padding gives numbers.
        let nothing = mask.zeros_like();
        assert_eq!(encode(&*model, &ids, Some(&nothing)).isfinite().all().int64_value(&[]), 1);
    }
}

#[test]
fn fused_and_plain_attention_agree() {
    for config in masked_kinds() {
        let (store, mut model) = built_masked(&config, 2);
        let (ids, mask, labels) = (ids(2, 9), mask(), ids(2, 9));
        let mut all = Vec::new();
        for (sites, again) in [(&[][..], false), (&[Site::Attention][..], false), (&[][..], true)] {
            model.recompute_layers(again);
            let mut recorder = Recorder::new(sites);
            let loss = model.mlm_loss(&ids, None, Some(&mask), &labels, false, &mut recorder).unwrap();
            if let Some(map) = recorder.get(1, Site::Attention) {
                assert_eq!(map.get(1).narrow(2, 5, 4).abs().max().double_value(&[]), 0.0, "nothing looks at padding");
            }
            all.push((loss.detach(), gradients(&store, &loss)));
        }
        let (loss, plain) = &all[0];
        for (other, gradients) in &all[1..] {
            assert_close(other, loss, 1e-6, "loss");
            for (name, gradient) in gradients {
                let size = plain[name].abs().max().double_value(&[]);
                let error = (gradient - &plain[name]).abs().max().double_value(&[]);
                assert!(error <= 1e-5 * size + 1e-7, "{config:?} {name}: {error:.1e} of {size:.1e}");
            }
        }
    }
}

#[test]
fn the_loss_asks_only_where_labels_are() {
    for config in masked_kinds() {
        let (_store, model) = built_masked(&config, 3);
        let (ids, labels) = (ids(2, 9), Tensor::full([2, 9], IGNORED, (Kind::Int64, CPU)));
        let nothing = model.mlm_loss(&ids, None, None, &labels, false, &mut NoProbe).unwrap();
        assert_eq!(nothing.double_value(&[]), 0.0);
        for (row, place, word) in [(0, 3, 4), (1, 8, 60)] {
            let _ = labels.get(row).narrow(0, place, 1).fill_(word);
        }
        let loss = model.mlm_loss(&ids, None, None, &labels, false, &mut NoProbe).unwrap();
        let logits = model.mlm_logits(&encode(&*model, &ids, None)).unwrap().flatten(0, 1);
        let all = logits.cross_entropy_loss(&labels.view([-1]), None::<&Tensor>, tch::Reduction::Mean, IGNORED, 0.0);
        assert_close(&loss, &all, 1e-5, "loss");
    }
}

#[test]
fn positions_may_begin_later_and_types_matter() {
    let (_store, plain) = built_masked(&small_masked(json!({"kind": "crate_bert"})), 4);
    let [zero, one] = [0, 1].map(|t| Tensor::full([2, 9], t, (Kind::Int64, CPU)));
    let of = |types: Option<&Tensor>| plain.encode(&ids(2, 9), types, None, false, &mut NoProbe).unwrap();
    assert_close(&of(None), &of(Some(&zero)), 1e-6, "type 0 is the default");
    assert!(relative_error(&of(None), &of(Some(&one))) > 1e-3);

    // The table of an offset model, its first rows cut off, is that of one without.
    let (from, late) = built_masked(&small_masked(json!({"kind": "crate_bert", "position_offset": 2})), 5);
    let (to, early) = built_masked(&small_masked(json!({"kind": "crate_bert"})), 6);
    for (name, variable) in to.variables() {
        let value = &from.variables()[&name];
        let value = if name.contains("position") { value.narrow(0, 2, 20) } else { value.shallow_clone() };
        tch::no_grad(|| variable.shallow_clone().copy_(&value));
    }
    assert_close(&encode(&*late, &ids(2, 20), None), &encode(&*early, &ids(2, 20), None), 1e-6, "offset");
}

#[test]
fn parameters_are_counted_without_building() {
    for config in masked_kinds() {
        for config in [config.clone().with_mlm_head(false), config] {
            let (store, _model) = built_masked(&config, 0);
            assert_eq!(config.cost().parameters, numbers(&store), "{config:?}");
        }
    }
    let of = |name: &str| MaskedConfig::preset(name).unwrap().cost();
    let base = of("crate-bert-base");
    assert!(((base.parameters - base.head_parameters) as f64 / 1e6 - 60.3).abs() < 0.05, "{base:?}");
    assert_eq!(of("minilm-l6").parameters, 22_713_216); // as sentence-transformers' file
    let bert = of("bert-base").parameters as f64 / 1e6;
    assert!((bert - 110.0).abs() < 0.3, "{bert}");
    assert!(MaskedConfig::presets().all(|name| MaskedConfig::preset(name).unwrap().check().is_ok()));
    // By hand: a white-box layer of d 24 without head, 9 tokens.
    let one = small_masked(json!({"kind": "crate_bert", "depth": 1, "mlm_head": false})).cost();
    assert_eq!(one.forward(9), 9 * 3 * 24 * 24 + 81 * 2 * 24);
}

fn classifier(fields: Value, outputs: i64) -> ClassifierConfig {
    let pool = fields["pool"].clone();
    let mut all = fields;
    all.as_object_mut().unwrap().remove("pool");
    let mut config = ClassifierConfig::new(small_masked(all), outputs);
    config.pool = serde_json::from_value(pool).unwrap();
    config
}

#[test]
fn classifiers_and_regressions_learn() {
    let (ids, mask) = (ids(2, 9), mask());
    for kind in ["crate_bert", "bert"] {
        for (pool, outputs) in [("pooler", 3), ("mean", 3), ("pooler", 1), ("mean", 1)] {
            let config = classifier(json!({"kind": kind, "pool": pool, "dropout": 0.0}), outputs);
            let _drawing = seeded(7);
            let store = nn::VarStore::new(CPU);
            let model = config.build(&store.root()).unwrap();
            assert_eq!(config.parameters(), numbers(&store));
            let targets = match outputs {
                1 => Tensor::from_slice(&[0.7f32, -1.2]),
                _ => Tensor::from_slice(&[2i64, 0]),
            };
            let forward = |train| model.forward(&ids, None, Some(&mask), train, &mut NoProbe).unwrap();
            let mut optimizer = nn::OptimizerConfig::build(nn::Adam::default(), &store, 3e-3).unwrap();
            let mut last = f64::INFINITY;
            for _ in 0..60 {
                let loss = model.loss(&forward(true), &targets).unwrap();
                last = loss.double_value(&[]);
                optimizer.backward_step(&loss);
            }
            assert!(last < 0.1, "{config:?}: {last}");
            assert_eq!(forward(false).size(), [2, outputs]);
            let wrong = if outputs == 1 { Tensor::from_slice(&[1i64, 2]) } else { Tensor::from_slice(&[3i64, 0]) };
            assert!(model.loss(&forward(false), &wrong).is_err());
            assert!(model.loss(&forward(false), &targets.narrow(0, 0, 1)).is_err());
        }
    }
    let mut without = classifier(json!({"kind": "bert", "pooler": false, "pool": "pooler"}), 2);
    assert!(without.check().unwrap_err().to_string().contains("pool = \"mean\""));
    without.pool = TextPool::Mean;
    assert!(without.check().is_ok());
}

#[test]
fn every_encoder_learns_a_small_batch_by_heart() {
    for config in masked_kinds() {
        let _drawing = seeded(8);
        let store = nn::VarStore::new(CPU);
        let model = config.with_dropout(0.0).build(&store.root()).unwrap();
        let mut optimizer = nn::OptimizerConfig::build(nn::Adam::default(), &store, 5e-3).unwrap();
        let labels = (ids(2, 9) * 5 + 3).remainder(61);
        let losses: Vec<f64> = (0..80)
            .map(|_| {
                let loss = model.mlm_loss(&ids(2, 9), None, Some(&mask()), &labels, true, &mut NoProbe).unwrap();
                optimizer.backward_step(&loss);
                loss.double_value(&[])
            })
            .collect();
        assert!((losses[0] - 61f64.ln()).abs() < 0.6 && losses[79] < 0.3, "{} to {}", losses[0], losses[79]);
    }
}

#[test]
fn a_sentence_is_a_vector_of_length_one() {
    let hidden = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, f32::NAN]).view([1, 3, 2]);
    let mean = mean_of_real(&hidden, Some(&Tensor::from_slice(&[1i64, 1, 0]).view([1, 3]))).unwrap();
    assert_eq!(Vec::<f32>::try_from(mean.view([-1])).unwrap(), [2.0, 3.0]);
    assert!(mean_of_real(&hidden, Some(&Tensor::from_slice(&[1i64, 1]).view([1, 2]))).is_err());
    for config in masked_kinds() {
        let (_store, model) = built_masked(&config, 9);
        let both = sentence_embedding(&*model, &ids(2, 9), None, Some(&mask()), &mut NoProbe).unwrap();
        let lengths = Vec::<f32>::try_from(both.square().sum_dim_intlist(-1, false, None::<Kind>)).unwrap();
        assert!(lengths.iter().all(|x| (x - 1.0).abs() < 1e-5), "{lengths:?}");
        let short = ids(2, 9).narrow(0, 1, 1).narrow(1, 0, 5);
        let alone = sentence_embedding(&*model, &short, None, None, &mut NoProbe).unwrap();
        assert_close(&alone, &both.narrow(0, 1, 1), 1e-5, "without its padding");
    }
}

#[test]
fn wrong_input_is_refused_in_words() {
    let (_store, model) = built_masked(&small_masked(json!({"kind": "bert", "pooler": false, "mlm_head": false})), 10);
    let ids = ids(2, 9);
    let refused = |ids: &Tensor, types: Option<&Tensor>, mask: Option<&Tensor>, part: &str| {
        let error = model.encode(ids, types, mask, false, &mut NoProbe).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&common::ids(1, 21), None, None, "21 tokens");
    refused(&(&ids + 40), None, None, "from 0 to 60");
    refused(&ids, Some(&ids), None, "token types");
    refused(&ids, None, Some(&(mask() * 2)), "attention mask");
    refused(&ids, None, Some(&mask().to_kind(Kind::Bool)), "Bool");
    refused(&ids, None, Some(&mask().narrow(1, 0, 8)), "[2, 8]");
    let hidden = encode(&*model, &ids, None);
    assert!(model.pool(&hidden).unwrap_err().to_string().contains("pooler = false"));
    assert!(model.mlm_logits(&hidden).unwrap_err().to_string().contains("mlm_head = false"));
    let labelled = model.mlm_loss(&ids, None, None, &ids, false, &mut NoProbe);
    assert!(labelled.is_err());
    for fields in [
        json!({"kind": "bert", "d": 25}),
        json!({"kind": "bert", "hidden": -1}),
        json!({"kind": "bert", "norm_eps": 0.0}),
        json!({"kind": "bert", "token_types": 0}),
        json!({"kind": "crate_bert", "position_offset": -1}),
        json!({"kind": "crate_bert", "context": i64::MAX}),
        json!({"kind": "crate_bert", "lambda": 1e9}),
        json!({"kind": "crate_bert", "dropout": 1.0}),
    ] {
        let config = small_masked(fields);
        assert!(config.check().is_err(), "{config:?}");
        let _ = config.cost();
    }
}
