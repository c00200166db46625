//! Checkpoints of others become ours and go back, tensor by tensor in the same bits.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{refused, said};
use torch_extras::pth::RawTensor;
use whitebox_model::weights::{Card, Weights, save_raw};

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(file)
}

fn tensors(path: &Path) -> BTreeMap<String, RawTensor> {
    Weights::open(path).unwrap().tensors
}

fn convert(folder: &Path, from: &str, to: &str, more: &[&str]) -> BTreeMap<String, RawTensor> {
    said(folder, &[&["convert", from, to], more].concat());
    tensors(&folder.join(to))
}

#[test]
fn an_official_crate_checkpoint_goes_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let official = golden("crate_micro.pth.tar");
    let official = official.to_str().unwrap();
    refused(path, &["convert", official, "a.safetensors"], &["heads", "--set model.heads=K"]);
    let ours = convert(path, official, "a.safetensors", &["--set", "model.heads=4"]);
    let expected = tensors(&golden("crate_micro.safetensors"));
    assert!(ours.len() > 30);
    for (name, tensor) in &ours {
        assert!(expected.get(&format!("param.{name}")) == Some(tensor), "{name}");
    }
    assert!(convert(path, "a.safetensors", "b.pth", &[]) == ours);
    assert!(convert(path, "b.pth", "c.safetensors", &["--set", "model.heads=4"]) == ours);
    assert!(convert(path, "c.safetensors", "d.pth.tar", &["--nested", "state_dict"]) == ours);
    assert_eq!(fs::read(path.join("a.safetensors")).unwrap(), fs::read(path.join("c.safetensors")).unwrap());

    // Ours knows its own heads; a .pth must be told, and neither tells how images are prepared.
    refused(path, &["eval", "b.pth"], &["--set model.heads=K"]);
    refused(path, &["eval", "a.safetensors"], &["--recipe"]);
    fs::copy(golden("../../../../data/README.md"), path.join("not-an-image.png")).unwrap();
    refused(path, &["predict", "not-an-image.png", "--checkpoint", "a.safetensors"], &["--recipe"]);
    refused(path, &["eval", "a.safetensors", "--recipe", "digits"], &["1 channels and 8x8", "takes 3 and 32x32"]);
}

#[test]
fn an_official_crate_mae_checkpoint_goes_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let golden = |file: &str| golden(file).parent().unwrap().join("../../../autoencoder/tests/golden").join(file);
    let official = golden("mae_micro.pth");
    let official = official.to_str().unwrap();
    let heads = ["--set", "model.heads=4"];
    refused(path, &["convert", official, "a.safetensors"], &["heads", "--set model.heads=K"]);
    let ours = convert(path, official, "a.safetensors", &heads);
    let expected = tensors(&golden("mae_micro.safetensors"));
    assert!(ours.len() > 30);
    for (name, tensor) in &ours {
        assert!(expected.get(&format!("param.{name}")) == Some(tensor), "{name}");
    }
    assert!(convert(path, "a.safetensors", "b.pth", &[]) == ours);
    assert!(convert(path, "b.pth", "c.safetensors", &heads) == ours);
    refused(path, &["convert", official, "x.safetensors", "--model", "crate-mae-base"], &["mis-shaped: "]);
}

#[test]
fn a_timm_vit_goes_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let whole = tensors(&golden("vit_micro_token.safetensors"));
    let named = whole.into_iter().filter_map(|(k, v)| Some((k.strip_prefix("param.")?.to_owned(), v)));
    let timm: BTreeMap<_, _> = named.collect();
    save_raw(&path.join("timm.safetensors"), &timm, None::<&Card>).unwrap();
    refused(path, &["convert", "timm.safetensors", "a.safetensors"], &["--set model.heads=K"]);
    assert!(convert(path, "timm.safetensors", "a.safetensors", &["--set", "model.heads=3"]) == timm);
    assert!(convert(path, "a.safetensors", "b.pth", &[]) == timm);
    assert!(convert(path, "b.pth", "c.safetensors", &["--set", "model.heads=3"]) == timm);

    let recipe = said(path, &["recipes", "image-folder"]).replace("96", "32").replace("110", "40");
    fs::write(path.join("mine.toml"), recipe.replace("d = 192", "d = 48")).unwrap();
    common::picture([9, 200, 90], 60, 40, 3).save(path.join("x.png")).unwrap();
    let args = ["predict", "x.png", "--checkpoint", "a.safetensors", "--recipe", "mine.toml"];
    assert_eq!(said(path, &args).lines().count(), 6);
}

#[test]
fn nothing_is_overwritten_unasked_and_misfits_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let official = golden("crate_micro.pth.tar");
    let official = official.to_str().unwrap();
    convert(path, official, "a.safetensors", &["--set", "model.heads=4"]);
    let again = ["convert", official, "a.safetensors", "--set", "model.heads=4"];
    refused(path, &again, &["a.safetensors exists", "--force"]);
    said(path, &[&again[..], &["--force"]].concat());
    refused(path, &["convert", official, "a.bin", "--set", "model.heads=4"], &["must end in .safetensors"]);
    refused(path, &["convert", official, "no/where.pth", "--set", "model.heads=4"], &["no/where.pth"]);
    refused(path, &["convert", official, "x.safetensors", "--set", "model.heads=5"], &["heads"]);
    refused(path, &["convert", official, "x.safetensors", "--set", "train.epochs=5"], &["only model.*"]);
    refused(path, &["convert", official, "x.safetensors", "--model", "crate-tinny"], &["crate-tiny"]);
    refused(path, &["convert", official, "x.safetensors", "--model", "crate-tiny"], &["mis-shaped: pos_embedding"]);
    refused(path, &["convert", "a.safetensors", "x.pth", "--set", "model.depth=4"], &["missing: transformer.layers.3"]);
    refused(path, &["convert", "a.safetensors", "x.pth", "--set", "model.depth=2"], &["unused: transformer.layers.2"]);
}
