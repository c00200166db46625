//! What a trained network does, layer by layer: one pass over images with every measure of `whitebox-analysis`, and the page that tells what was found.

pub mod images;
pub mod page;
pub mod pictures;
mod sections;
pub mod segmentation;
pub mod subject;
pub mod text;

use anyhow::Result;
use serde::Serialize;
use tch::Tensor;
use whitebox_analysis::activity::{ActivityProbe, ActivityStats};
use whitebox_analysis::operators::{self, OperatorStats};
use whitebox_analysis::steps::{StepStats, StepsProbe};
use whitebox_analysis::tokens::{TokenStats, TokensProbe};
use whitebox_analysis::{LayerStats, LayerwiseProbe, Together};
use whitebox_datasets::Loader;

pub use sections::{HALF_STEPS, sections};
pub use subject::{Network, networks};

use crate::images::show_first;

/// What was measured of a network on some images, or sequences of a text.
#[derive(Debug, Serialize)]
pub struct Measures {
    /// Which network.
    pub network: String,
    /// The network, and on which images or part of a text.
    pub subject: String,
    /// Images seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Sequences read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequences: Option<u64>,
    /// Coding rate as the released script has it, and non-zeros.
    pub layers: Vec<LayerStats>,
    /// The objective, and what the half-steps do to it.
    pub steps: Vec<StepStats>,
    /// Use of the atoms.
    pub activity: Vec<ActivityStats>,
    /// Tokens in their subspaces.
    pub tokens: Vec<TokenStats>,
    /// The learned operators.
    pub operators: Vec<OperatorStats>,
}

impl Measures {
    /// What a sample is.
    fn unit(&self) -> &'static str {
        if self.sequences.is_some() { "sequence" } else { "image" }
    }
}

/// Of projected tokens `[.., n, K p]` those of the patches, which come last.
fn of_patches(tokens: &Tensor, [height, width]: [i64; 2]) -> Tensor {
    let (n, patches) = (tokens.size()[tokens.dim() - 2], height * width);
    tokens.narrow(-2, n - patches.min(n), patches.min(n))
}

/// Measures a network on the first `samples` images of a loader's set (whole batches are taken). `progress` takes (images done, images in all).
pub fn measure(
    network: &Network,
    images: &str,
    loader: &Loader,
    samples: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Measures> {
    let heads = network.config.heads() as usize;
    let mut layers = LayerwiseProbe::new(heads);
    let mut steps = StepsProbe::new(&network.operators);
    let mut activity = ActivityProbe::default();
    let mut tokens = TokensProbe::new(heads);
    let seen = show_first(loader, network.device, samples, progress, |images| {
        let mut probe = Together(vec![&mut layers, &mut steps, &mut activity, &mut tokens]);
        let _ = network.model.tokens(images, &mut probe)?;
        Ok(())
    })?;
    let operators = network.operators.iter().enumerate().map(|(l, o)| operators::measure(l, o));
    Ok(Measures {
        network: network.name.clone(),
        subject: format!("{}, {images}", network.name),
        images: Some(seen),
        sequences: None,
        layers: layers.finish()?,
        steps: steps.finish()?,
        activity: activity.finish()?,
        tokens: tokens.finish()?,
        operators: operators.collect::<whitebox_analysis::Result<_>>()?,
    })
}
