//! `experiment`: a claim of the papers, run: a figure, a table, and the numbers behind both.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::experiments::EXPERIMENTS;
use crate::recipe::did_you_mean;

/// Run a claim of the papers and write its figures and tables.
///
/// Each run writes figures (SVG), table.md and numbers.json; what they show is told in docs/experiments.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask experiment list
  cargo xtask experiment denoising
  cargo xtask experiment snr --seed 3
  cargo xtask experiment optima --quick --out runs/optima")]
#[cfg_attr(not(feature = "experiments"), allow(dead_code, reason = "read by the experiments alone"))]
pub struct ExperimentArgs {
    /// The experiment's name, or `list`.
    pub name: String,
    /// The folder to write to [default: runs/experiments/NAME].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The random numbers' seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Smaller settings: seconds of work, to see that it runs.
    #[arg(long)]
    pub quick: bool,
}

/// Runs the command.
pub fn run(args: &ExperimentArgs) -> Result<()> {
    if args.name == "list" {
        let rows: Vec<String> = EXPERIMENTS.iter().map(|(name, what, _)| format!("{name:<16}{what}")).collect();
        return crate::say(&rows.join("\n"));
    }
    if let Some((_, _, run)) = EXPERIMENTS.iter().find(|(name, ..)| *name == args.name) {
        return run(args);
    }
    let near = did_you_mean(&args.name, EXPERIMENTS.iter().map(|(name, ..)| *name));
    bail!("there is no experiment `{}`{near}; `{} experiment list` names them", args.name, crate::invoked_as())
}
