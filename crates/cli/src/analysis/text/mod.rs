//! What a model of text does, layer by layer: one pass over sequences with every measure, and the sections that texts have beside those of images.

mod atoms;
mod attention;
mod positions;
pub mod sequences;
pub mod subject;

use anyhow::Result;
use serde::Serialize;
use whitebox_analysis::activity::ActivityProbe;
use whitebox_analysis::atoms::AtomsProbe;
use whitebox_analysis::operators;
use whitebox_analysis::positions::{PositionStats, PositionsProbe};
use whitebox_analysis::steps::StepsProbe;
use whitebox_analysis::tokens::TokensProbe;
use whitebox_analysis::{LayerwiseProbe, Section, Together};

pub use atoms::{WatchedLayer, section as atoms};
pub use attention::{look, section as attention};
pub use positions::section as positions;

use super::{HALF_STEPS, Measures};
use crate::likelihood::ids_of;
use sequences::Sequences;
use subject::Network;

/// Blocks that sequences are cut into for the rate by position.
const BLOCKS: usize = 8;
/// Activations kept of each atom.
const KEPT: usize = 5;
/// Tokens read at once, about.
const TOKENS: usize = 4096;

/// What was measured of a model of text.
#[derive(Debug, Serialize)]
pub struct TextMeasures {
    /// What is measured of images, too.
    #[serde(flatten)]
    pub common: Measures,
    /// Along the sequences.
    pub positions: Vec<PositionStats>,
    /// Some atoms, and what switches them on.
    pub atoms: Vec<WatchedLayer>,
}

/// The layers that are shown one by one: first, middle and last.
fn some_layers(depth: usize) -> Vec<usize> {
    let mut layers = vec![0, depth / 2, depth.saturating_sub(1)];
    layers.dedup();
    layers
}

/// A text on one line, its breaks visible.
fn visible(text: &str) -> String {
    text.replace('\n', "⏎").replace('\t', "⇥")
}

/// Measures a model on sequences. `progress` takes (sequences done, sequences in all).
pub fn measure(network: &Network, sequences: &Sequences, progress: &mut dyn FnMut(u64, u64)) -> Result<TextMeasures> {
    let heads = network.config.heads();
    let mut layers = LayerwiseProbe::new(heads);
    let mut steps = StepsProbe::new(&network.operators);
    let mut activity = ActivityProbe::default();
    let mut tokens = TokensProbe::new(heads);
    let mut positions = PositionsProbe::new(heads, BLOCKS);
    let mut watched = AtomsProbe::new(KEPT);
    let rows: Vec<Vec<u32>> = sequences.rows.iter().map(|row| network.framed(row)).collect();
    let length = rows.first().map_or(1, Vec::len);
    let mut done = 0;
    for batch in rows.chunks((TOKENS / length.max(1)).clamp(1, 64)) {
        let mut probe =
            Together(vec![&mut layers, &mut steps, &mut activity, &mut tokens, &mut positions, &mut watched]);
        network.read(&ids_of(&batch.concat(), length), &mut probe)?;
        done += batch.len() as u64;
        progress(done, rows.len() as u64);
    }
    let operators = network.operators.iter().enumerate().map(|(l, o)| operators::measure(l, o));
    let watched = watched.finish()?;
    let some = some_layers(watched.len());
    let watched = watched.iter().enumerate().filter(|(i, _)| some.contains(i));
    let starts = &sequences.starts;
    Ok(TextMeasures {
        common: Measures {
            network: network.name.clone(),
            subject: format!("{}, {}", network.name, sequences.part),
            images: None,
            sequences: Some(done),
            layers: layers.finish()?,
            steps: steps.finish()?,
            activity: activity.finish()?,
            tokens: tokens.finish()?,
            operators: operators.collect::<whitebox_analysis::Result<_>>()?,
        },
        positions: positions.finish()?,
        atoms: watched
            .map(|(_, layer)| WatchedLayer::of(layer, starts, &rows, network.tokenizer.as_ref()))
            .collect::<Result<_>>()?,
    })
}

/// The sections that images have as well. Of a causal model it is said what a comparison with the gradient can mean.
pub fn common(measures: &[TextMeasures], networks: &[Network]) -> Result<Vec<Section>> {
    let common: Vec<&Measures> = measures.iter().map(|m| &m.common).collect();
    let mut sections = super::sections(&common)?;
    if networks.iter().any(|network| network.config.is_causal()) {
        for section in sections.iter_mut().filter(|section| section.title == HALF_STEPS) {
            section.method += " In a causal model a token sees those before it alone, while R^{c} and its gradient are of the whole sequence: each token's direction of the theory \
                               depends on later ones, too, which the layer cannot know. So a cosine of 1 is in general out of its reach, \
                               whatever it has learned; the changes are what they are.";
        }
    }
    Ok(sections)
}
