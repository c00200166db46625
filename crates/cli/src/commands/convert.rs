//! `convert`: between our safetensors and PyTorch's `.pth`, names unchanged, the model checked on the way.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use tch::Device;
use torch_extras::pth::{self, RawTensor};
use whitebox_model::weights::{Card, save_raw};

use crate::checkpoint::{self, Found, Opened};
use crate::tasks::classify::load_model;
use crate::tasks::reconstruct::load_autoencoder;

/// Convert a checkpoint: official CRATE and CRATE-MAE `.pth`/`.pth.tar`, ViT-MAE and timm ViT to safetensors, and back.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask convert crate_tiny.pth.tar crate-tiny.safetensors --set model.heads=6
  cargo xtask convert vit_small.pth vit-small.safetensors --model vit-small
  cargo xtask convert b8.pth b8.safetensors --set model.heads=6 --set model.image=[224,224]
  cargo xtask convert runs/mine mine.pth --nested state_dict   # torch.load(...)[\"state_dict\"]")]
pub struct ConvertArgs {
    /// What to read: a weight file (its content decides, not its name) or a run folder.
    input: PathBuf,
    /// What to write: .safetensors, or .pth / .pt / .pth.tar.
    output: PathBuf,
    /// The model of a file that does not say it: a preset or a recipe file.
    #[arg(long, value_name = "PRESET|FILE")]
    model: Option<String>,
    /// A field of the model, as --set model.heads=6; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Put the weights of a .pth under this key.
    #[arg(long, value_name = "KEY")]
    nested: Option<String>,
    /// Overwrite the output.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(args: &ConvertArgs) -> Result<()> {
    if args.output.exists() && !args.force {
        bail!("{} exists and is not overwritten; --force does", args.output.display());
    }
    // Strict: names and shapes must be exactly the model's, whatever the direction.
    let to_pth = is_pth(&args.output)?;
    match checkpoint::open_any(checkpoint::read(Some(&args.input))?, args.model.as_deref(), &args.sets)? {
        Found::Classifier(opened) => {
            tell(&opened);
            load_model(&opened, Device::Cpu)?;
            write(args, to_pth, &opened)
        }
        Found::Autoencoder(opened) => {
            tell(&opened);
            load_autoencoder(&opened, Device::Cpu)?;
            write(args, to_pth, &opened)
        }
    }
}

fn tell<M>(opened: &Opened<M>) {
    for note in &opened.notes {
        eprintln!("{note}");
    }
}

fn write<M: Serialize + Clone>(args: &ConvertArgs, to_pth: bool, opened: &Opened<M>) -> Result<()> {
    let count = opened.weights.tensors.len();
    if to_pth {
        let tensors: Vec<(String, RawTensor)> = opened.weights.tensors.clone().into_iter().collect();
        pth::write(&args.output, &tensors, args.nested.as_deref())?;
        eprintln!("a .pth holds no config; the model is: {}", serde_json::to_string(&opened.config)?);
    } else {
        if args.nested.is_some() {
            bail!("--nested is for .pth files");
        }
        let card = match opened.weights.card.clone() {
            Some(card) => card.of(opened.config.clone()),
            None => Card::new(opened.config.clone()),
        };
        save_raw(&args.output, &opened.weights.tensors, Some(&card))?;
    }
    crate::say(&format!("{}: {count} tensors", args.output.display()))
}

fn is_pth(path: &Path) -> Result<bool> {
    let name = path.file_name().context("the output has no file name")?.to_string_lossy().to_lowercase();
    if name.ends_with(".safetensors") {
        return Ok(false);
    }
    if [".pth", ".pt", ".pth.tar"].iter().any(|end| name.ends_with(end)) {
        return Ok(true);
    }
    bail!("{}: the output must end in .safetensors, .pth, .pt or .pth.tar", path.display())
}
