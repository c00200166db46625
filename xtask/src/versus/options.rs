//! What the user may choose of `bench versus-pytorch`.

use std::env;
use std::thread::available_parallelism;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

/// Where the models run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl Device {
    /// The word on command lines and in the documents.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        }
    }
}

/// The command line.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where the models run
    #[arg(long, value_enum, default_value_t)]
    pub device: Device,
    /// How often each contestant is measured, in turn with the others
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Length of a measurement
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Images a step [default: 16 on the CPU, 128 on a GPU]
    #[arg(long)]
    pub batch: Option<usize>,
    /// Threads of every contestant [default: OMP_NUM_THREADS, or else the number of cores]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Only the cases whose name contains this; prints without writing
    #[arg(long, value_name = "FILTER")]
    pub only: Option<String>,
    /// A look: two short rounds, the smallest model, no torch.compile; prints without writing
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    pub quick: bool,
    /// Print the tables without writing them into docs/benchmarks.md
    #[arg(long)]
    pub no_write: bool,
}

impl Options {
    /// Images a step.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch.unwrap_or(match self.device {
            Device::Cpu => 16,
            Device::Cuda => 128,
        })
    }

    /// Images a step where memory is measured.
    #[must_use]
    pub fn memory_batch(&self) -> usize {
        self.batch.unwrap_or(64)
    }

    /// Rounds, a look's or those asked for.
    #[must_use]
    pub fn rounds(&self) -> usize {
        if self.quick { 2 } else { self.rounds }
    }

    /// Seconds, a look's or those asked for.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        if self.quick { 0.5 } else { self.seconds }
    }

    /// Threads of every contestant.
    ///
    /// # Errors
    /// OMP_NUM_THREADS is no number.
    pub fn threads(&self) -> Result<usize> {
        match (self.threads, env::var("OMP_NUM_THREADS")) {
            (Some(threads), _) => Ok(threads),
            (None, Ok(text)) => match text.parse() {
                Ok(threads) => Ok(threads),
                Err(_) => bail!("OMP_NUM_THREADS is {text:?}, expected a number; unset it or say --threads N"),
            },
            (None, Err(_)) => Ok(available_parallelism().map_or(1, usize::from)),
        }
    }

    /// Whether the result is that of a whole run, fit for the documents.
    #[must_use]
    pub fn writes(&self) -> bool {
        !self.no_write && !self.quick && self.only.is_none()
    }

    /// # Errors
    /// A number that measures nothing.
    pub fn check(&self) -> Result<()> {
        if self.rounds == 0 || self.batch == Some(0) || self.threads == Some(0) {
            bail!("--rounds, --batch and --threads are at least 1");
        }
        if !(self.seconds.is_finite() && self.seconds >= 0.0) {
            bail!("--seconds is {}, expected a number of seconds, 0 or more", self.seconds);
        }
        Ok(())
    }
}
