//! The models against the numbers of the reference implementations, whose parameters come through the import of their layouts: outputs, losses,
//! activations, every gradient.

mod common;

use common::*;
use serde_json::json;
use tch::{Tensor, nn};
use whitebox_language::import::{open_language, open_masked};
use whitebox_language::{LanguageModel, MaskedModel};
use whitebox_model::Site;
use whitebox_model::probe::{NoProbe, Recorder};
use whitebox_model::weights::{LoadOptions, Weights, to_tensor};

const OUTPUT: f64 = 1e-5;
const GRADIENT: f64 = 1e-4;

/// The largest relative errors that were met, told when a test ends (`--nocapture` shows them).
#[derive(Default)]
struct Worst([f64; 3]);

impl Worst {
    #[track_caller]
    fn check(&mut self, kind: usize, found: &Tensor, expected: &Tensor, what: &str) {
        assert_close(found, expected, [OUTPUT, OUTPUT, GRADIENT][kind], what);
        self.0[kind] = self.0[kind].max(relative_error(found, expected));
    }

    fn tell(&self, file: &str) {
        println!("{file}: outputs {:.1e}, activations {:.1e}, gradients {:.1e}", self.0[0], self.0[1], self.0[2]);
    }
}

/// A file's parameters in a model, and the file's gradients by the same names.
fn language(file: &str, fields: serde_json::Value) -> (nn::VarStore, Box<dyn LanguageModel>, Weights) {
    let opened = open_language(saved(file, "param."), &given(fields.clone())).unwrap();
    let store = nn::VarStore::new(CPU);
    let model = opened.inferred.config.build(&store.root()).unwrap();
    opened.weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
    let gradients = open_language(saved(file, "grad."), &given(fields)).unwrap();
    (store, model, gradients.weights)
}

fn compare_gradients(worst: &mut Worst, store: &nn::VarStore, loss: &Tensor, expected: &Weights) {
    let found = gradients(store, loss);
    assert_eq!(found.len(), expected.tensors.len());
    for (name, gradient) in found {
        let meant = to_tensor(&expected.tensors[&name]).unwrap();
        // A shift of all keys moves no score: their biases have no gradient, and the files hold rounding there.
        if name.ends_with("key.bias") {
            assert!(gradient.abs().max().double_value(&[]) < 1e-6, "{name}");
        } else if name.ends_with("c_attn.bias") && meant.size()[0] == 96 {
            let part = |t: &Tensor, i: i64| t.narrow(0, 32 * i, 32);
            for i in [0, 2] {
                worst.check(2, &part(&gradient, i), &part(&meant, i), &name);
            }
            assert!(part(&gradient, 1).abs().max().double_value(&[]) < 1e-6, "{name}");
        } else {
            worst.check(2, &gradient, &meant, &name);
        }
    }
}

/// A causal model: `names` are those of the file for our sites. Fused attention and the map, with and without layers computed again.
fn check(file: &str, fields: serde_json::Value, names: &[(Site, &str)], shifted: bool) {
    let golden = tensors(file);
    let (store, mut model, expected) = language(file, fields);
    let ids = &golden["input.ids"];
    let (read, targets) = match shifted {
        true => (ids.shallow_clone(), golden["input.targets"].shallow_clone()),
        false => (ids.narrow(1, 0, 15), ids.narrow(1, 1, 15)),
    };
    let mut worst = Worst::default();
    for (sites, again) in [(&[][..], false), (&Site::ALL[..], false), (&[][..], true)] {
        model.recompute_layers(again);
        let mut recorder = Recorder::new(sites);
        let logits = model.forward(ids, false, &mut recorder).unwrap();
        worst.check(0, &logits, &golden["output.logits"], "logits");
        if !sites.is_empty() {
            worst.check(1, recorder.get(0, Site::Embed).unwrap(), &golden["act.embed.out"], "embedding");
            for (layer, (site, name)) in (0..2).flat_map(|l| names.iter().map(move |n| (l, n))) {
                let name = format!("act.layer{layer}.{name}");
                worst.check(1, recorder.get(layer, *site).unwrap(), &golden[&name], &name);
            }
        }
        if let Some(last) = golden.get("act.ln_f.out") {
            worst.check(1, &model.hidden(ids, false, &mut NoProbe).unwrap(), last, "what the head reads");
        }
        let loss = model.loss(&read, &targets, false, &mut Recorder::new(sites)).unwrap();
        worst.check(0, &loss.view([1]), &golden["output.loss_ce"], "loss");
        compare_gradients(&mut worst, &store, &loss, &expected);
    }
    worst.tell(file);
}

#[test]
fn crate_gpt() {
    let names = [
        (Site::Uz, "uz"),
        (Site::Attention, "attn"),
        (Site::MssaOut, "mssa_out"),
        (Site::ZHalf, "z_half"),
        (Site::ZOut, "out"),
    ];
    check("crate_gpt_micro.safetensors", json!({"heads": 4}), &names, true);
}

#[test]
fn gpt2() {
    let names = [(Site::MssaOut, "attn_out"), (Site::IstaOut, "mlp_out"), (Site::ZOut, "out")];
    check("gpt2_micro.safetensors", json!({"heads": 4}), &names, false);
}

#[test]
fn causal_tost() {
    let names = [(Site::Uz, "w"), (Site::MssaOut, "tssa_out"), (Site::IstaOut, "mlp_out"), (Site::ZOut, "out")];
    check("tost_causal_micro.safetensors", json!({}), &names, true);
}

#[test]
fn bert() {
    let file = "bert_micro.safetensors";
    let golden = tensors(file);
    let heads = given(json!({"heads": 4}));
    let opened = open_masked(saved(file, "param."), &heads).unwrap();
    let store = nn::VarStore::new(CPU);
    let mut model: Box<dyn MaskedModel> = opened.inferred.config.build(&store.root()).unwrap();
    opened.weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
    // No gradient reaches the pooler, so that the file tells nothing of it.
    let expected = saved(file, "grad.");
    let of = |name: &str| Some(&golden[name]);
    let (ids, types, mask) = (&golden["input.ids"], of("input.token_types"), of("input.attention_mask"));
    let mut worst = Worst::default();
    for (sites, again) in [(&[][..], false), (&Site::ALL[..], false), (&[][..], true)] {
        model.recompute_layers(again);
        let mut recorder = Recorder::new(sites);
        let hidden = model.encode(ids, types, mask, false, &mut recorder).unwrap();
        // Padding is of no meaning, but both give it values in the same way.
        worst.check(0, &hidden, &golden["act.layer1.out"], "tokens");
        worst.check(0, &model.pool(&hidden).unwrap(), &golden["output.pooler"], "pooler");
        worst.check(0, &model.mlm_logits(&hidden).unwrap(), &golden["output.logits"], "logits");
        if !sites.is_empty() {
            worst.check(1, recorder.get(0, Site::Embed).unwrap(), &golden["act.embed.out"], "embedding");
            for (layer, (site, name)) in
                (0..2).flat_map(|l| [(Site::ZHalf, "attn_out"), (Site::ZOut, "out")].map(|n| (l, n)))
            {
                let name = format!("act.layer{layer}.{name}");
                worst.check(1, recorder.get(layer, site).unwrap(), &golden[&name], &name);
            }
        }
        let loss = model.mlm_loss(ids, types, mask, &golden["input.labels"], false, &mut Recorder::new(sites)).unwrap();
        worst.check(0, &loss.view([1]), &golden["output.loss_ce"], "loss");
        compare_gradients(&mut worst, &store, &loss, &expected);
    }
    worst.tell(file);
}
