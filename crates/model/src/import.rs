//! What a foreign checkpoint's shapes tell of its model, and what they leave open.
//!
//! Four layouts are known: those of the official CRATE, CRATE-alpha and ToST codes, and timm's `VisionTransformer`. Width, depth, classes and the number
//! of patches follow from shapes (ToST's, which has no table of positions, from no shape). The number of heads does in ToST alone (nor do CRATE's eta,
//! lambda and pooling anywhere): heads must be named, the others are assumed as released, and every inference is reported in words.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::weights::Weights;
use crate::{Error, ModelConfig, Result};

/// A config read from shapes, and how it came about; `C` describes the model, here a [`ModelConfig`], in other crates one of theirs.
#[derive(Debug)]
pub struct Inferred<C = ModelConfig> {
    /// The config; it passes its check.
    pub config: C,
    /// One line for each value: what it is and why.
    pub notes: Vec<String>,
}

/// Reads the config of a model from a file's shapes. `given` are fields that the user named
/// (`--set model.heads=6`): they win over every inference.
///
/// # Errors
/// Names of no known layout; fields that nothing determines, with the flag that says them.
pub fn infer(weights: &Weights, given: &Map<String, Value>) -> Result<Inferred> {
    let has = |name: &str| weights.tensors.contains_key(name);
    let found = if has("transformer.layers.0.1.fn.D") {
        alpha_from_shapes(weights, given)?
    } else if has("transformer.layers.0.0.fn.qkv.weight") {
        crate_from_shapes(weights, given)?
    } else if has("blocks.0.attn.temp") {
        tost_from_shapes(weights, given)?
    } else if has("blocks.0.attn.qkv.weight") {
        vit_from_shapes(weights, given)?
    } else {
        let names: Vec<_> = weights.tensors.keys().take(4).cloned().collect();
        return Err(Error::File {
            path: weights.path.display().to_string(),
            problem: format!(
                "its tensors have neither the names of the official CRATE, CRATE-alpha or ToST code nor \
                 timm's ViT names (it has {} tensors: {}, ...)",
                weights.tensors.len(),
                names.join(", ")
            ),
        });
    };
    let (fields, notes) = found;
    let config: ModelConfig = with_given(fields, given)?;
    config.check()?;
    Ok(Inferred { config, notes })
}

/// The fields found, with those that the user named in their places.
///
/// # Errors
/// Another kind of model asked for than the file holds; fields that are none of its.
pub fn with_given<C: DeserializeOwned>(mut fields: Map<String, Value>, given: &Map<String, Value>) -> Result<C> {
    let kind = fields.get("kind").cloned().unwrap_or_default();
    if let Some(other) = given.get("kind").filter(|k| **k != kind) {
        return Err(Error::Config(format!("model.kind = {other} was asked for, but the file holds a {kind} model")));
    }
    for (name, value) in given {
        fields.insert(name.clone(), value.clone());
    }
    serde_json::from_value(Value::Object(fields)).map_err(|e| Error::Config(e.to_string()))
}

type Fields = (Map<String, Value>, Vec<String>);

fn crate_from_shapes(weights: &Weights, given: &Map<String, Value>) -> Result<Fields> {
    let d = dim(weights, "cls_token", 2)?;
    let conv = "patch_embed.proj.weight";
    let by_convolution = weights.tensors.contains_key(conv);
    let inner = dim(weights, "transformer.layers.0.0.fn.qkv.weight", 0)?;
    let depth = count_layers(weights, "transformer.layers.");
    let classes = dim(weights, "mlp_head.1.weight", 0)?;
    let free_map = weights.tensors.contains_key("transformer.layers.0.0.fn.to_out.0.weight");
    let heads = heads(weights, given)?;
    let mut notes =
        vec![format!("from shapes: CRATE, d = {d}, depth = {depth}, {classes} classes, heads x head_dim = {inner}")];
    let (channels, patch) = match (by_convolution, pair(given, "patch")) {
        (true, _) => (dim(weights, conv, 1)?, [dim(weights, conv, 2)?, dim(weights, conv, 3)?]),
        (false, Some(patch)) => (number(given, "channels").unwrap_or(3), patch),
        (false, None) => square_patch(weights, given, &mut notes)?,
    };
    let image = image(weights, given, "pos_embedding", patch, &mut notes)?;
    let assumed = [
        ("eta", "0.1"),
        ("lambda", "0.1"),
        ("pool", "token"),
        ("residual_base", "raw"),
        ("scaling", "inverse_sqrt_p"),
        ("gamma", "1, without effect on a free output map"),
    ];
    note_assumed(&assumed, given, &mut notes);
    let mut fields = object(json!({
        "kind": "crate", "d": d, "depth": depth, "heads": heads, "classes": classes,
        "channels": channels, "patch": patch, "image": image,
        "embedding": if by_convolution { "convolution" } else { "norms" },
    }));
    if heads > 0 && heads.checked_mul(d / heads) != Some(inner) {
        fields.insert("head_dim".into(), json!(inner / heads));
        notes.push(format!("from shapes: head_dim = {}, which is not d / heads", inner / heads));
    }
    if !free_map && heads != 1 {
        fields.insert("output_map".into(), json!("tied"));
        notes.push("from names: no output map, so it is tied to U".into());
    }
    Ok((fields, notes))
}

/// Channels and patch of a linear map of flattened patches: a square, where its length is that of one.
fn square_patch(weights: &Weights, given: &Map<String, Value>, notes: &mut Vec<String>) -> Result<(i64, [i64; 2])> {
    let patch_dim = dim(weights, "to_patch_embedding.1.weight", 0)?;
    let channels = number(given, "channels").unwrap_or(3);
    let side = square_root(patch_dim / channels.max(1)).filter(|s| (s * s).checked_mul(channels) == Some(patch_dim));
    let side = side.ok_or_else(|| {
        open(
            weights,
            format!(
                "a patch holds {patch_dim} numbers, which is no square patch of {channels} channels: name it, for instance \
                 `--set model.patch=[7,14] --set model.channels=1`"
            ),
        )
    })?;
    notes.push(format!("assumed: square patches of {side}x{side} with {channels} channels ({patch_dim} numbers)"));
    Ok((channels, [side, side]))
}

/// Notes what no shape tells, name and value, unless the user named it.
pub fn note_assumed(assumed: &[(&str, &str)], given: &Map<String, Value>, notes: &mut Vec<String>) {
    for (name, value) in assumed.iter().filter(|(name, _)| !given.contains_key(*name)) {
        notes.push(format!("assumed, as released: {name} = {value} (`--set model.{name}=...` says otherwise)"));
    }
}

fn alpha_from_shapes(weights: &Weights, given: &Map<String, Value>) -> Result<Fields> {
    let conv = "conv1.weight";
    let (d, channels) = (dim(weights, conv, 0)?, dim(weights, conv, 1)?);
    let patch = [dim(weights, conv, 2)?, dim(weights, conv, 3)?];
    let inner = dim(weights, "transformer.layers.0.0.fn.qkv.weight", 0)?;
    let atoms = dim(weights, "transformer.layers.0.1.fn.D", 1)?;
    let depth = count_layers(weights, "transformer.layers.");
    let classes = dim(weights, "mlp_head.1.weight", 0)?;
    let decoupled = weights.tensors.contains_key("transformer.layers.0.1.fn.D1");
    let heads = heads(weights, given)?;
    let overcomplete = atoms / d.max(1);
    let mut notes = vec![format!(
        "from shapes: CRATE-alpha, d = {d}, depth = {depth}, {classes} classes, heads x head_dim = {inner}, \
         overcomplete = {overcomplete}, decoupled = {decoupled}, patches of {}x{} with {channels} channels",
        patch[0], patch[1]
    )];
    let image = image(weights, given, "pos_embedding", patch, &mut notes)?;
    let assumed = [("eta", "0.1"), ("lambda", "0.1"), ("steps", "2"), ("residual", "true"), ("pool", "token")];
    note_assumed(&assumed, given, &mut notes);
    let mut fields = object(json!({
        "kind": "crate_alpha", "d": d, "depth": depth, "heads": heads, "classes": classes, "channels": channels,
        "patch": patch, "image": image, "overcomplete": overcomplete, "decoupled": decoupled,
    }));
    if heads > 0 && heads.checked_mul(d / heads) != Some(inner) {
        fields.insert("head_dim".into(), json!(inner / heads));
        notes.push(format!("from shapes: head_dim = {}, which is not d / heads", inner / heads));
    }
    Ok((fields, notes))
}

fn tost_from_shapes(weights: &Weights, given: &Map<String, Value>) -> Result<Fields> {
    let d = dim(weights, "cls_token", 2)?;
    let heads = dim(weights, "blocks.0.attn.temp", 0)?;
    let (depth, class_layers) = (count_layers(weights, "blocks."), count_layers(weights, "cls_attn_blocks."));
    let classes = dim(weights, "head.weight", 0)?;
    let hidden = dim(weights, "blocks.0.mlp.fc1.weight", 0)?;
    let qkv_bias = weights.tensors.contains_key("blocks.0.attn.qkv.bias");
    let patches = "patch_embed.proj.weight";
    let (stem, channels, patch) = if weights.tensors.contains_key(patches) {
        ("patch", dim(weights, patches, 1)?, [dim(weights, patches, 2)?, dim(weights, patches, 3)?])
    } else {
        // Convolutions and the GELUs between them are numbered in turn.
        let convolutions = count_layers(weights, "patch_embed.proj.").saturating_add(1) / 2;
        if !(1..=6).contains(&convolutions) {
            return Err(open(weights, format!("its stem has {convolutions} convolutions; expected are 1 to 6")));
        }
        let side = 1 << convolutions;
        ("conv", dim(weights, "patch_embed.proj.0.0.weight", 1)?, [side, side])
    };
    let mut notes = vec![format!(
        "from shapes: ToST, d = {d}, depth = {depth}, heads = {heads}, {class_layers} layers of class attention, \
         {classes} classes, hidden = {hidden}, stem = {stem}, patches of {}x{} with {channels} channels",
        patch[0], patch[1]
    )];
    let image = pair(given, "image").unwrap_or_else(|| {
        let image = patch.map(|side| (224 / side.max(1)).max(1) * side);
        notes.push(format!(
            "assumed: images of {}x{} pixels, for positions have no table (`--set model.image=[H,W]` says otherwise)",
            image[0], image[1]
        ));
        image
    });
    let fields = object(json!({
        "kind": "tost", "d": d, "depth": depth, "heads": heads, "classes": classes, "hidden": hidden,
        "channels": channels, "patch": patch, "image": image, "stem": stem, "qkv_bias": qkv_bias,
        "class_layers": class_layers,
    }));
    Ok((fields, notes))
}

fn vit_from_shapes(weights: &Weights, given: &Map<String, Value>) -> Result<Fields> {
    let conv = "patch_embed.proj.weight";
    let d = dim(weights, conv, 0)?;
    let channels = dim(weights, conv, 1)?;
    let patch = [dim(weights, conv, 2)?, dim(weights, conv, 3)?];
    let depth = count_layers(weights, "blocks.");
    let classes = dim(weights, "head.weight", 0)?;
    let hidden = dim(weights, "blocks.0.mlp.fc1.weight", 0)?;
    let pool = if weights.tensors.contains_key("fc_norm.weight") { "mean" } else { "token" };
    let heads = heads(weights, given)?;
    let mut notes = vec![format!(
        "from shapes: ViT, d = {d}, depth = {depth}, {classes} classes, hidden = {hidden}, patches of {}x{} with \
         {channels} channels, pool = {pool}",
        patch[0], patch[1]
    )];
    let image = image(weights, given, "pos_embed", patch, &mut notes)?;
    let fields = object(json!({
        "kind": "vit", "d": d, "depth": depth, "heads": heads, "classes": classes, "hidden": hidden,
        "channels": channels, "patch": patch, "image": image, "pool": pool,
    }));
    Ok((fields, notes))
}

/// The image size: named, or a square grid of patches by the table of positions `table`.
pub fn image(
    weights: &Weights,
    given: &Map<String, Value>,
    table: &str,
    patch: [i64; 2],
    notes: &mut Vec<String>,
) -> Result<[i64; 2]> {
    if let Some(image) = pair(given, "image") {
        return Ok(image);
    }
    let patches = dim(weights, table, 1)? - 1;
    let side = square_root(patches).ok_or_else(|| {
        open(
            weights,
            format!(
                "{patches} patches make no square grid: name the image size, for instance `--set model.image=[28,42]`"
            ),
        )
    })?;
    let [Some(height), Some(width)] = patch.map(|p| side.checked_mul(p)) else {
        return Err(Error::Config(format!("patch {patch:?} makes an image too large to count")));
    };
    let image = [height, width];
    notes.push(format!(
        "assumed: a square grid of {side}x{side} patches, so images of {}x{} pixels",
        image[0], image[1]
    ));
    Ok(image)
}

/// The number of heads, which the user must name.
pub fn heads(weights: &Weights, given: &Map<String, Value>) -> Result<i64> {
    number(given, "heads").ok_or_else(|| {
        open(
            weights,
            "no shape tells the number of attention heads: name it with `--set model.heads=K`, or the whole \
                       model with `--model PRESET|FILE`"
                .to_owned(),
        )
    })
}

fn open(weights: &Weights, problem: String) -> Error {
    Error::Undetermined(format!("{}: {problem}", weights.path.display()))
}

/// The size of the tensor `name` along `axis`.
pub fn dim(weights: &Weights, name: &str, axis: usize) -> Result<i64> {
    let shape = weights.tensors.get(name).map(|t| &t.shape);
    shape.and_then(|s| s.get(axis)).map(|&x| x as i64).ok_or_else(|| Error::File {
        path: weights.path.display().to_string(),
        problem: match shape {
            None => format!("the tensor `{name}` is missing, without which the model cannot be told from shapes"),
            Some(s) => format!("the tensor `{name}` has shape {s:?}, too few dimensions"),
        },
    })
}

/// How many layers there are whose names begin with `prefix` and a number.
pub fn count_layers(weights: &Weights, prefix: &str) -> i64 {
    let index = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse::<i64>().ok();
    weights.tensors.keys().filter_map(index).max().map_or(0, |last| last.saturating_add(1))
}

fn number(given: &Map<String, Value>, name: &str) -> Option<i64> {
    given.get(name)?.as_i64()
}

fn pair(given: &Map<String, Value>, name: &str) -> Option<[i64; 2]> {
    let list = given.get(name)?.as_array()?;
    match list[..] {
        [ref a, ref b] => Some([a.as_i64()?, b.as_i64()?]),
        _ => None,
    }
}

fn square_root(x: i64) -> Option<i64> {
    let root = (x.max(0) as f64).sqrt().round() as i64;
    (root > 0 && root * root == x).then_some(root)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
