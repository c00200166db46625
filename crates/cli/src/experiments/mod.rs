//! The experiments, one a file. Each calls the functions of a library crate, and holds none of their formulas.
//!
//! Those on the theory need `rate-reduction` and with it a LAPACK: the cargo feature `experiments`. A program built
//! without it names them still, and says what it lacks.

#[cfg(feature = "experiments")]
mod denoising;
mod inversion;
#[cfg(feature = "experiments")]
mod mcr2;
#[cfg(feature = "experiments")]
mod optima;
mod output;
#[cfg(feature = "experiments")]
mod redunet;
#[cfg(feature = "experiments")]
mod snr;

use anyhow::Result;

use crate::commands::experiment::ExperimentArgs;

/// An experiment: its name, what it asks, and how it is run.
type Experiment = (&'static str, &'static str, fn(&ExperimentArgs) -> Result<()>);

/// All of them. A new one is a file here, a line here, and a page in docs/experiments.
pub const EXPERIMENTS: &[Experiment] = &[
    ("denoising", "is a step down the compression rate a step of denoising?", DENOISING),
    ("inversion", "does a decoder's layer undo its partner in the encoder?", inversion::run),
    ("snr", "does attention alone raise the signal-to-noise ratio, and how long?", SNR),
    ("optima", "what does maximising the objective make of random tokens?", OPTIMA),
    ("redunet", "what does a network do whose every layer is built from data?", REDUNET),
    ("mcr2", "what becomes of the classes' subspaces under MCR^2, and under cross-entropy?", MCR2),
];

type Run = fn(&ExperimentArgs) -> Result<()>;

#[cfg(feature = "experiments")]
const DENOISING: Run = denoising::run;
#[cfg(feature = "experiments")]
const SNR: Run = snr::run;
#[cfg(feature = "experiments")]
const OPTIMA: Run = optima::run;
#[cfg(feature = "experiments")]
const REDUNET: Run = redunet::run;
#[cfg(feature = "experiments")]
const MCR2: Run = mcr2::run;

#[cfg(not(feature = "experiments"))]
const DENOISING: Run = without_lapack;
#[cfg(not(feature = "experiments"))]
const SNR: Run = without_lapack;
#[cfg(not(feature = "experiments"))]
const OPTIMA: Run = without_lapack;
#[cfg(not(feature = "experiments"))]
const REDUNET: Run = without_lapack;
#[cfg(not(feature = "experiments"))]
const MCR2: Run = without_lapack;

#[cfg(not(feature = "experiments"))]
fn without_lapack(args: &ExperimentArgs) -> Result<()> {
    anyhow::bail!(
        "the experiment `{}` needs OpenBLAS, and this program was built without it (cargo feature `experiments`): \
         build it with its default features",
        args.name
    )
}
