//! The attention of every head over one sentence.

use anyhow::Result;
use serde::Serialize;
use tch::{Device, Kind};
use whitebox_analysis::Section;
use whitebox_analysis::attention::{Destinations, destinations};
use whitebox_analysis::plots::{Figure, token_map};
use whitebox_model::probe::{Recorder, Site};

use super::subject::Network;
use super::visible;
use crate::likelihood::ids_of;

/// Most tokens of a sentence that are shown.
const TOKENS: usize = 32;
/// Most heads that are drawn.
const HEADS: usize = 8;

/// One of the places where a head looks.
type Share = fn(&Destinations) -> f64;

/// What the heads of one layer look at in a sentence.
#[derive(Debug, Serialize)]
pub struct Looked {
    /// Which network.
    pub network: String,
    /// The layer, counted from 0.
    pub layer: usize,
    /// The tokens.
    pub tokens: Vec<String>,
    /// Where each head looks; nothing of a network that forms no attention map.
    pub heads: Vec<Destinations>,
    /// Whether the sentence was longer.
    pub cut: bool,
    #[serde(skip)]
    figures: Vec<Figure>,
}

/// Shows a network a sentence by its ids.
pub fn look(network: &Network, ids: &[u32]) -> Result<Looked> {
    let most = TOKENS.min(network.room());
    let row = network.framed(&ids[..ids.len().min(most)]);
    let mut seen = Recorder::new(&[Site::Attention]);
    network.read(&ids_of(&row, row.len()), &mut seen)?;
    let layer = network.config.depth() / 2;
    let tokens = row.iter().map(|id| Ok(network.tokenizer.token(*id)?)).collect::<Result<Vec<String>>>()?;
    let mut looked = Looked {
        network: network.name.clone(),
        layer,
        tokens,
        heads: Vec::new(),
        cut: ids.len() > most,
        figures: Vec::new(),
    };
    let Some(map) = seen.get(layer, Site::Attention) else { return Ok(looked) };
    looked.heads = destinations(map)?;
    let labels: Vec<String> = looked.tokens.iter().map(|token| visible(token).replace(' ', "␣")).collect();
    let map = map.get(0).to_kind(Kind::Double).to_device(Device::Cpu);
    for head in 0..network.config.heads().min(HEADS) {
        let mut entries = Vec::<Vec<f64>>::try_from(map.get(head as i64))?;
        if network.config.is_causal() {
            for (query, row) in entries.iter_mut().enumerate() {
                row.iter_mut().skip(query + 1).for_each(|unseen| *unseen = f64::NAN);
            }
        }
        let title = format!("Head {} of layer {}, {}", head + 1, layer + 1, network.name);
        looked.figures.push(token_map(&title, "", &labels, &entries)?);
    }
    Ok(looked)
}

/// The section on what all networks looked at.
pub fn section(all: &mut [Looked], causal: bool) -> Section {
    let method = format!(
        "One sentence through the network: a row for each token that looks, a column for each token that is looked at, a map for each head (of the first {HEADS} heads) of the layer in \
         the middle. The shade is the root of the weight; a row's weights sum to one.{} Means below are over the tokens from the third on. In CRATE query, key and value are one \
         projection, so that a token's product with itself is among its scores.",
        if causal { " A causal model leaves empty what a token does not see: all that comes after it." } else { "" }
    );
    let mut section = Section { title: "Attention over a sentence".into(), method, ..Section::default() };
    for looked in all {
        section.figures.append(&mut looked.figures);
        let name = format!("{}, layer {}", looked.network, looked.layer + 1);
        if looked.cut {
            section
                .findings
                .push(format!("{name}: the sentence is longer; its first {} tokens are shown.", looked.tokens.len()));
        }
        let most = |of: Share| {
            let heads = looked.heads.iter().map(of).enumerate();
            heads.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(head, share)| (head + 1, 100.0 * share))
        };
        let named: [(&str, Share); 3] = [
            ("the token itself", |d| d.itself),
            ("the token before it", |d| d.before),
            ("the first token", |d| d.first),
        ];
        let parts: Vec<String> = named
            .iter()
            .filter_map(|(what, of)| most(*of).map(|(head, share)| format!("on {what} has head {head} ({share:.1} %)")))
            .collect();
        section.findings.push(match parts.is_empty() {
            true if looked.heads.is_empty() && looked.tokens.len() < 3 => {
                format!("{name}: {} tokens are too few for means.", looked.tokens.len())
            }
            true => format!("{name}: it forms no map of attention, so there is none to show."),
            false => format!("{name}: most weight {}.", parts.join(", ")),
        });
    }
    section
}
