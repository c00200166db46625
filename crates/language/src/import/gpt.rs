//! Language models in the layouts of nanoGPT and its relatives.

use serde_json::{Map, Value, json};
use whitebox_model::Result;
use whitebox_model::import::{count_layers, dim, note_assumed};
use whitebox_model::weights::Weights;

use super::{Fields, file_error, heads, object, rename, same, turn};

/// What a file of this family holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Layout {
    Gpt2,
    CrateGpt,
    TostGpt,
}

const WORDS: &str = "transformer.wte.weight";
const HEAD: &str = "lm_head.weight";

/// Our name of a tensor: compiled models have another prefix, bare ones none.
fn our_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("_orig_mod.").unwrap_or(name);
    // The causal mask, kept in the file by some.
    if name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") {
        return None;
    }
    let whole = name.starts_with("transformer.") || name.starts_with("lm_head.");
    Some(if whole { name.to_owned() } else { format!("transformer.{name}") })
}

pub(super) fn layout(weights: &Weights) -> Option<Layout> {
    let has = |end: &str| {
        weights.tensors.keys().any(|name| our_name(name).is_some_and(|n| n == format!("transformer.h.0.{end}")))
    };
    if has("attn.temp") {
        Some(Layout::TostGpt)
    } else if has("ista.weight") || has("ista.D") {
        Some(Layout::CrateGpt)
    } else {
        has("mlp.c_fc.weight").then_some(Layout::Gpt2)
    }
}

/// The file by our names, and the fields of its config.
pub(super) fn read(mut weights: Weights, given: &Map<String, Value>) -> Result<(Weights, Fields)> {
    let layout = layout(&weights).ok_or_else(|| file_error(&weights, "it holds no language model"))?;
    let mut notes = Vec::new();
    rename(&mut weights, our_name)?;
    if same(&weights, HEAD, WORDS) {
        weights.tensors.remove(HEAD);
    }
    let tied = !weights.tensors.contains_key(HEAD);
    let (rows, d) = (dim(&weights, WORDS, 0)?, dim(&weights, WORDS, 1)?);
    let context = dim(&weights, "transformer.wpe.weight", 0)?;
    let depth = count_layers(&weights, "transformer.h.");
    notes.push(format!(
        "from shapes: {layout:?}, d = {d}, depth = {depth}, context = {context}, {rows} rows of words, head {}",
        if tied { "tied to them" } else { "of its own" }
    ));
    let (vocabulary, pad) = words(rows, given, &mut notes);
    let mut fields = object(json!({
        "d": d, "depth": depth, "context": context, "vocabulary": vocabulary, "pad_vocabulary_to": pad, "tied_head": tied,
    }));
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    match layout {
        Layout::Gpt2 => {
            set("kind", json!("gpt2"));
            let joined = "transformer.h.0.attn.c_attn.weight";
            if dim(&weights, joined, 1)? == d.saturating_mul(3) && dim(&weights, joined, 0)? == d {
                turn_all(&mut weights)?;
                notes.push("matrices stood [in, out] and were turned".into());
            }
            set("hidden", json!(dim(&weights, "transformer.h.0.mlp.c_fc.weight", 0)?));
            set("heads", json!(heads(&weights, given, d, None, &mut notes)?));
        }
        Layout::TostGpt => {
            set("kind", json!("tost_gpt"));
            set("hidden", json!(dim(&weights, "transformer.h.0.mlp.c_fc.weight", 0)?));
            set("heads", json!(dim(&weights, "transformer.h.0.attn.temp", 0)?));
        }
        Layout::CrateGpt => {
            set("kind", json!("crate_gpt"));
            set("final_norm", json!(weights.tensors.contains_key("transformer.ln_f.weight")));
            let atoms = dictionaries(&mut weights, d)?;
            let decoupled = weights.tensors.contains_key("transformer.h.0.ista.D1");
            if weights.tensors.contains_key("transformer.h.0.ista.D") {
                set("sparsify", json!(if decoupled { "odl_decoupled" } else { "odl" }));
                set("overcomplete", json!(atoms / d.max(1)));
                note_assumed(&[("steps", "2"), ("residual", "as released")], given, &mut notes);
            }
            note_assumed(&[("eta", "0.1"), ("lambda", "0.1")], given, &mut notes);
            set("heads", json!(heads(&weights, given, d, None, &mut notes)?));
        }
    }
    Ok((weights, (fields, notes)))
}

/// How many rows are words, and to what multiple they were padded.
fn words(rows: i64, given: &Map<String, Value>, notes: &mut Vec<String>) -> (i64, i64) {
    let named = given.get("vocabulary").and_then(Value::as_i64);
    let vocabulary = named.unwrap_or_else(|| match rows {
        50304 => {
            let words = 50257;
            notes.push(format!(
                "assumed: {words} of the rows are words, GPT-2's (`--set model.vocabulary=N` says otherwise)"
            ));
            words
        }
        _ => rows,
    });
    // The rows themselves are a multiple to which any lesser number is padded.
    (
        vocabulary,
        if vocabulary == rows {
            1
        } else if rows % 64 == 0 && rows - 64 < vocabulary {
            64
        } else {
            rows
        },
    )
}

/// GPT-2's matrices from `[in, out]` to `[out, in]`.
fn turn_all(weights: &mut Weights) -> Result<()> {
    const MATRICES: [&str; 4] = ["attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"];
    let is_matrix = |name: &&String| MATRICES.iter().any(|end| name.ends_with(end));
    for name in weights.tensors.keys().filter(is_matrix).cloned().collect::<Vec<_>>() {
        turn(weights, &name)?;
    }
    Ok(())
}

/// Overcomplete dictionaries of CRATE-LM, `[C d, d]` there, by our name and `[d, C d]`. Returns the atoms of the first layer.
fn dictionaries(weights: &mut Weights, d: i64) -> Result<i64> {
    let overcomplete = |shape: &[usize]| matches!(*shape, [atoms, rows] if rows as i64 == d && atoms > rows);
    let names = weights.tensors.iter().filter(|(name, t)| name.ends_with(".ista.weight") && overcomplete(&t.shape));
    for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
        turn(weights, &name)?;
        if let Some(tensor) = weights.tensors.remove(&name) {
            weights.tensors.insert(name.replace(".ista.weight", ".ista.D"), tensor);
        }
    }
    let first = ["transformer.h.0.ista.D", "transformer.h.0.ista.weight"];
    let first = first.into_iter().find(|name| weights.tensors.contains_key(*name)).unwrap_or(first[1]);
    dim(weights, first, 1)
}
