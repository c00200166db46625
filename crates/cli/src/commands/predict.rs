//! `predict`: what a model says of single images.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tch::{Device, Kind};
use whitebox_model::probe::NoProbe;

use crate::checkpoint::{ModelUse, read};
use crate::images::prepared;
use crate::tasks::classify::load_model;

/// Name the five most probable classes of images.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask predict shoe.png
  cargo xtask predict photos/*.jpg --checkpoint runs/mine --top 3
  cargo xtask predict shoe.png --json")]
pub struct PredictArgs {
    /// Image files: JPEG, PNG, WebP.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// A weight file, a run folder or a checkpoint folder [default: the demo's model].
    #[arg(long, value_name = "PATH")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    usage: ModelUse,
    /// How many classes to name.
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Print one JSON object an image.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &PredictArgs) -> Result<()> {
    let (opened, data, device) = args.usage.open(read(args.checkpoint.as_deref())?)?;
    let model = load_model(&opened, device)?;
    let classes = opened.classes();
    let top = args.top.clamp(1, classes.len());
    for path in &args.images {
        let (input, resized) = prepared(path, &data, &opened.config.grid())?;
        let logits = tch::no_grad(|| model.forward(&input.to_device(device), &mut NoProbe))?;
        let logits = logits.to_kind(Kind::Float).to_device(Device::Cpu).view([-1]);
        let (probabilities, indices) = logits.softmax(-1, Kind::Float).topk(top as i64, -1, true, true);
        let logits = Vec::<f32>::try_from(logits.index_select(0, &indices))?;
        let probabilities = Vec::<f32>::try_from(probabilities)?;
        let names = Vec::<i64>::try_from(indices)?.into_iter().map(|i| &classes[i as usize]);
        let named: Vec<_> = names.zip(probabilities).zip(logits).collect();
        if args.json {
            let list: Vec<_> = named
                .iter()
                .map(|((name, p), logit)| json!({"class": name, "probability": p, "logit": logit}))
                .collect();
            crate::say(&json!({"image": path.to_string_lossy(), "resized": resized, "predictions": list}).to_string())?;
        } else {
            let mut text = path.display().to_string();
            text += if resized { " (resized to the model's size)\n" } else { "\n" };
            for ((name, p), _) in named {
                text += &format!("  {:>6.2} %  {name}\n", 100.0 * p);
            }
            crate::say(text.trim_end())?;
        }
    }
    Ok(())
}
