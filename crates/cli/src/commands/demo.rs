//! `demo`: everything once, on the data that lies in the repository.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::commands::train::train;
use crate::recipe;

/// Train a small CRATE on 6,000 images of Fashion-MNIST, evaluate it and write a report (about three minutes).
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --set train.epochs=5 --out runs/quick")]
pub struct DemoArgs {
    /// Override a value of the recipe, as --set train.epochs=3; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The run folder [default: runs/demo-DATE].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Runs the command.
pub fn run(args: &DemoArgs) -> Result<()> {
    let device = torch_extras::cuda::device_from_str(&args.device)?;
    let closing = train(&recipe::load("demo", &args.sets)?, args.out.as_deref(), None, device)?;
    crate::say(&format!(
        "{closing}\nOpen the report in a browser; `{} predict IMAGE` tries the model.",
        crate::invoked_as()
    ))
}
