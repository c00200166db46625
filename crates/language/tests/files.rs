//! Files: foreign layouts and their variations, our own with its card, and what is wrong with others in words.

mod common;

use common::*;
use serde_json::{Value, json};
use tch::{Kind, Tensor, nn};
use torch_extras::pth::RawTensor;
use whitebox_language::import::{
    is_classifier, is_language_model, is_masked_model, open_classifier, open_language, open_masked,
};
use whitebox_language::{
    ClassifierConfig, LanguageConfig, LanguageModel, MaskedConfig, MaskedModel, SequenceClassifier, TextPool,
};
use whitebox_model::NoProbe;
use whitebox_model::weights::{self, Card, LoadOptions, Weights, from_tensor, to_tensor};

const GPT2: &str = "gpt2_micro.safetensors";
const BERT: &str = "bert_micro.safetensors";

/// The file with every tensor's name changed.
fn renamed(mut weights: Weights, name: impl Fn(&str) -> String) -> Weights {
    weights.tensors = std::mem::take(&mut weights.tensors).into_iter().map(|(k, v)| (name(&k), v)).collect();
    weights
}

fn raw(size: &[i64]) -> RawTensor {
    from_tensor(&Tensor::ones(size, (Kind::Float, CPU))).unwrap()
}

/// Logits of an opened file on the golden ids.
fn logits(weights: Weights, fields: Value, file: &str) -> (LanguageConfig, Tensor) {
    let opened = open_language(weights, &given(fields)).unwrap();
    let store = nn::VarStore::new(CPU);
    let model: Box<dyn LanguageModel> = opened.inferred.config.build(&store.root()).unwrap();
    opened.weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
    (opened.inferred.config, model.forward(&tensors(file)["input.ids"], false, &mut NoProbe).unwrap())
}

#[test]
fn gpt2_files_come_in_several_forms() {
    let expected = &tensors(GPT2)["output.logits"];
    let heads = || json!({"heads": 4});
    let bare = renamed(saved(GPT2, "param."), |name| name.replace("transformer.", ""));
    let (config, found) = logits(bare, heads(), GPT2);
    assert_close(&found, expected, 1e-5, "without prefix");
    let fields =
        json!({"kind": "gpt2", "d": 32, "depth": 2, "heads": 4, "hidden": 128, "context": 24, "vocabulary": 97});
    assert_eq!(config, serde_json::from_value(fields).unwrap());

    // Masks among the tensors, and the tied head a second time.
    let mut more = saved(GPT2, "param.");
    more.tensors.insert("transformer.h.0.attn.bias".into(), raw(&[1, 1, 24, 24]));
    more.tensors.insert("transformer.h.1.attn.masked_bias".into(), raw(&[]));
    more.tensors.insert("lm_head.weight".into(), more.tensors["transformer.wte.weight"].clone());
    assert_close(&logits(more, heads(), GPT2).1, expected, 1e-5, "with buffers");

    // nanoGPT's: matrices as PyTorch has them, compiled.
    let mut turned = saved(GPT2, "param.");
    for (name, tensor) in turned.tensors.iter_mut().filter(|(name, _)| name.contains(".c_") && name.ends_with("weight"))
    {
        *tensor = from_tensor(&to_tensor(tensor).unwrap().tr()).unwrap();
        assert!(name.contains(".h."));
    }
    let turned = renamed(turned, |name| format!("_orig_mod.{name}"));
    assert_close(&logits(turned, heads(), GPT2).1, expected, 1e-5, "nanoGPT's");

    // A head of its own.
    let mut untied = saved(GPT2, "param.");
    untied.tensors.insert("lm_head.weight".into(), raw(&[97, 32]));
    let opened = open_language(untied, &given(heads())).unwrap();
    assert!(serde_json::to_value(opened.inferred.config).unwrap()["tied_head"] == json!(false));
}

#[test]
fn heads_are_named_or_assumed_and_said() {
    let nameless = open_language(saved(GPT2, "param."), &given(json!({}))).unwrap_err().to_string();
    assert!(nameless.contains("model.heads"), "{nameless}");
    // A released width: that of CRATE-LM's one to three layers, with four heads.
    let store = nn::VarStore::new(CPU);
    let config = LanguageConfig::CrateGpt(
        serde_json::from_value(json!({"d": 128, "heads": 4, "depth": 1, "context": 8,
        "vocabulary": 50257, "final_norm": false, "sparsify": "odl"}))
        .unwrap(),
    );
    let _model = config.build(&store.root()).unwrap();
    let mut file = saved(GPT2, "param.");
    file.tensors = store.variables().iter().map(|(k, v)| (k.clone(), from_tensor(v).unwrap())).collect();
    let opened = open_language(file, &given(json!({}))).unwrap();
    assert_eq!(opened.inferred.config, config);
    let notes = opened.inferred.notes.join("\n");
    for said in ["heads = 4", "50257", "eta = 0.1", "steps = 2"] {
        assert!(notes.contains(said), "{said} in {notes}");
    }
}

/// CRATE-LM's files hold the dictionary turned, under ISTA's name.
#[test]
fn crate_lm_files_load() {
    let config = small(json!({"kind": "crate_gpt", "sparsify": "odl"}));
    let (store, model) = built(&config, 1);
    let mut file = saved(GPT2, "param.");
    file.tensors = store
        .variables()
        .iter()
        .map(|(name, value)| match name.strip_suffix(".ista.D") {
            Some(layer) => (format!("{layer}.ista.weight"), from_tensor(&value.tr()).unwrap()),
            None => (name.clone(), from_tensor(value).unwrap()),
        })
        .collect();
    let opened = open_language(file, &given(json!({"heads": 3, "vocabulary": 61, "pad_vocabulary_to": 16}))).unwrap();
    assert_eq!(opened.inferred.config, config);
    let other = nn::VarStore::new(CPU);
    let loaded = opened.inferred.config.build(&other.root()).unwrap();
    opened.weights.load_into(&other.variables(), LoadOptions::default()).unwrap();
    let of = |model: &dyn LanguageModel| model.forward(&ids(2, 9), false, &mut NoProbe).unwrap();
    assert_close(&of(&*loaded), &of(&*model), 1e-6, "logits");
}

#[test]
fn bert_files_come_in_several_forms() {
    let golden = tensors(BERT);
    let expected = &golden["output.logits"];
    let mut old = renamed(saved(BERT, "param."), |name| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    });
    let words = old.tensors["bert.embeddings.word_embeddings.weight"].clone();
    let bias = old.tensors.remove("cls.predictions.bias").unwrap();
    old.tensors.insert("cls.predictions.decoder.weight".into(), words);
    old.tensors.insert("cls.predictions.decoder.bias".into(), bias);
    old.tensors.insert("cls.seq_relationship.weight".into(), raw(&[2, 32]));
    old.tensors.insert("cls.seq_relationship.bias".into(), raw(&[2]));
    old.tensors.insert("bert.embeddings.position_ids".into(), raw(&[1, 24]));
    let opened = open_masked(old, &given(json!({"heads": 4}))).unwrap();
    assert!(opened.inferred.notes.iter().any(|note| note.contains("follow one another")));
    let store = nn::VarStore::new(CPU);
    let model: Box<dyn MaskedModel> = opened.inferred.config.build(&store.root()).unwrap();
    opened.weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
    let (types, mask) = (Some(&golden["input.token_types"]), Some(&golden["input.attention_mask"]));
    let hidden = model.encode(&golden["input.ids"], types, mask, false, &mut NoProbe).unwrap();
    assert_close(&model.mlm_logits(&hidden).unwrap(), expected, 1e-5, "old names");

    // The encoder alone, as sentence-transformers saves it.
    let mut bare = renamed(saved(BERT, "param."), |name| name.replace("bert.", ""));
    bare.tensors.retain(|name, _| !name.starts_with("cls."));
    let opened = open_masked(bare, &given(json!({"heads": 4}))).unwrap();
    assert_eq!(opened.inferred.config, model.config().with_mlm_head(false));
    let other = nn::VarStore::new(CPU);
    let encoder = opened.inferred.config.build(&other.root()).unwrap();
    opened.weights.load_into(&other.variables(), LoadOptions::default()).unwrap();
    let again = encoder.encode(&golden["input.ids"], types, mask, false, &mut NoProbe).unwrap();
    assert_close(&again, &hidden, 1e-6, "encoder alone");

    let mut untied = saved(BERT, "param.");
    untied.tensors.insert("cls.predictions.decoder.weight".into(), raw(&[97, 32]));
    let error = open_masked(untied, &given(json!({"heads": 4}))).unwrap_err().to_string();
    assert!(error.contains("cls.predictions.decoder.weight"), "{error}");
}

#[test]
fn a_pretrained_encoder_becomes_a_classifier() {
    for pool in [TextPool::Pooler, TextPool::Mean] {
        let opened = open_masked(saved(BERT, "param."), &given(json!({"heads": 4}))).unwrap().under_classifier(pool);
        let config = ClassifierConfig { pool, ..ClassifierConfig::new(opened.inferred.config, 3) };
        let store = nn::VarStore::new(CPU);
        let model: SequenceClassifier = config.build(&store.root()).unwrap();
        opened.weights.load_into(&store.variables(), LoadOptions { replace_head: true, ..Default::default() }).unwrap();
        assert_eq!(model.forward(&ids(2, 5), None, None, false, &mut NoProbe).unwrap().size(), [2, 3]);

        // Saved and read again; and without its card, by names alone, under the head's foreign name.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("classifier.safetensors");
        weights::save(&path, &store.variables(), &Card::new(config.clone())).unwrap();
        let read = || Weights::open(&path).unwrap();
        assert!(is_classifier(&read()) && !is_language_model(&read()) && !is_masked_model(&read()));
        let own = open_classifier(read(), &given(json!({}))).unwrap();
        assert_eq!(own.inferred.config, config);
        own.weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
        let mut foreign = renamed(read(), |name| name.replace("head.", "classifier."));
        foreign.card = None;
        let foreign = open_classifier(foreign, &given(json!({"heads": 4}))).unwrap();
        assert_eq!(foreign.inferred.config, config);
        foreign.weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
    }
    assert!(open_classifier(saved(BERT, "param."), &given(json!({"heads": 4}))).is_err());
}

#[test]
fn our_own_files_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for config in kinds() {
        let (store, model) = built(&config, 2);
        weights::save(&path, &store.variables(), &Card::new(config.clone())).unwrap();
        let file = Weights::open(&path).unwrap();
        assert!(is_language_model(&file) && !is_masked_model(&file) && !is_classifier(&file));
        let opened = open_language(file, &given(json!({}))).unwrap();
        assert_eq!(opened.inferred.config, config);
        let other = nn::VarStore::new(CPU);
        let loaded = opened.inferred.config.build(&other.root()).unwrap();
        opened.weights.load_into(&other.variables(), LoadOptions::default()).unwrap();
        let of = |model: &dyn LanguageModel| model.forward(&ids(1, 7), false, &mut NoProbe).unwrap();
        assert_eq!(of(&*loaded), of(&*model));
    }
    for config in masked_kinds() {
        let (store, _model) = built_masked(&config, 3);
        weights::save(&path, &store.variables(), &Card::new(config.clone())).unwrap();
        let file = Weights::open(&path).unwrap();
        assert!(is_masked_model(&file) && !is_language_model(&file));
        assert_eq!(open_masked(file, &given(json!({}))).unwrap().inferred.config, config);
        // Without its card by names; what no shape tells is named.
        let mut bare = Weights::open(&path).unwrap();
        bare.card = None;
        let offset = config.clone();
        let offset = if matches!(&offset, MaskedConfig::CrateBert(c) if c.position_offset == 2) { 2 } else { 0 };
        let opened = open_masked(bare, &given(json!({"heads": 3, "position_offset": offset}))).unwrap();
        assert_eq!(opened.inferred.config.cost(), config.cost());
    }
}

#[test]
fn files_that_do_not_fit_are_named_and_nothing_panics() {
    let file = |name: &str| saved(name, "param.");
    let heads = given(json!({"heads": 4}));
    // Missing and unused tensors, at loading.
    let mut broken = file(GPT2);
    broken.tensors.remove("transformer.h.1.ln_2.bias");
    broken.tensors.insert("transformer.h.1.extra".into(), raw(&[3]));
    let opened = open_language(broken, &heads).unwrap();
    let store = nn::VarStore::new(CPU);
    let _model = opened.inferred.config.build(&store.root()).unwrap();
    let error = opened.weights.load_into(&store.variables(), LoadOptions::default()).unwrap_err().to_string();
    assert!(
        error.contains("missing: transformer.h.1.ln_2.bias") && error.contains("unused: transformer.h.1.extra"),
        "{error}"
    );
    // Another family.
    assert!(open_language(file(BERT), &heads).unwrap_err().to_string().contains("CRATE-GPT"));
    assert!(open_masked(file(GPT2), &heads).unwrap_err().to_string().contains("BERT"));
    let kind = given(json!({"heads": 4, "kind": "tost_gpt"}));
    assert!(open_language(file(GPT2), &kind).unwrap_err().to_string().contains("gpt2"));
    // Two tensors of one name.
    let mut double = file(GPT2);
    double.tensors.insert("wte.weight".into(), raw(&[97, 32]));
    assert!(open_language(double, &heads).unwrap_err().to_string().contains("transformer.wte.weight"));
    // Every tensor in turn missing, without dimensions, or of another shape: an error at opening or at loading, or none where nothing reads it.
    for name in [GPT2, BERT, "crate_gpt_micro.safetensors", "tost_causal_micro.safetensors"] {
        for tensor in file(name).tensors.keys() {
            for shape in [None, Some(&[][..]), Some(&[0]), Some(&[1, 0]), Some(&[5, 3, 2])] {
                let mut weights = file(name);
                match shape {
                    None => drop(weights.tensors.remove(tensor)),
                    Some(shape) => drop(weights.tensors.insert(tensor.clone(), raw(shape))),
                }
                let variables = |build: &dyn Fn(&nn::VarStore) -> bool| {
                    let store = nn::VarStore::new(CPU);
                    build(&store).then(|| store.variables())
                };
                let loaded = if name == BERT {
                    open_masked(weights, &heads).and_then(|opened| {
                        let config = &opened.inferred.config;
                        let variables = variables(&|store| config.build(&store.root()).is_ok()).unwrap();
                        opened.weights.load_into(&variables, LoadOptions::default())
                    })
                } else {
                    open_language(weights, &heads).and_then(|opened| {
                        let config = &opened.inferred.config;
                        let variables = variables(&|store| config.build(&store.root()).is_ok()).unwrap();
                        opened.weights.load_into(&variables, LoadOptions::default())
                    })
                };
                assert!(loaded.is_err(), "{name}: {tensor} as {shape:?}");
            }
        }
    }
}
