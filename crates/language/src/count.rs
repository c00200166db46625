//! What a language model costs, from its config alone: parameters, arithmetic, memory of a cache. Nothing is allocated.
//!
//! The unit of arithmetic is one multiply-add, and only those of matrix products are counted, as in [`whitebox_model::count`]. Attention is counted as
//! causal attention needs it, `n (n + 1) / 2` pairs in place of `n^2`; kernels that compute masked pairs as well do more. The head counts with its
//! padded words; looking up a table costs nothing.

use crate::config::{LanguageConfig, MaskedConfig};
use crate::crate_gpt::{CrateGptConfig, Sparsify};
use crate::decoder::Frame;
use crate::encoder::Body;

/// The cost of a language model or a masked encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LanguageCost {
    /// Trainable numbers.
    pub parameters: u64,
    /// Those of them in the table of positions, which nanoGPT leaves out of its count.
    pub position_parameters: u64,
    /// Those in the pooler and the head for masked words.
    pub head_parameters: u64,
    /// Multiply-adds of a forward pass a token, the head (for masked words) included, without attention's pairs.
    pub forward_per_token: u64,
    /// Multiply-adds for each pair of tokens that attention forms, all layers together.
    pub forward_per_pair: u64,
    /// Multiply-adds spent once a forward pass, whatever the batch: M of every layer with ISTA.
    pub forward_once: u64,
    /// Whether tokens meet earlier ones alone.
    pub causal: bool,
    /// Numbers that a cache holds a token.
    pub cached_per_token: u64,
    /// Numbers that a cache holds a row, whatever its length.
    pub cached_per_row: u64,
}

impl LanguageCost {
    /// Multiply-adds of a forward pass of one sequence of `tokens`.
    pub fn forward(&self, tokens: u64) -> u64 {
        let n = u128::from(tokens);
        let pairs = if self.causal { n * (n + 1) / 2 } else { n.saturating_mul(n) };
        let work = n.saturating_mul(self.forward_per_token.into());
        narrow(work.saturating_add(pairs.saturating_mul(self.forward_per_pair.into())))
    }

    /// Multiply-adds of a training step on `batch` sequences of `tokens`: forward, and a backward of twice that. Divided by time and by the machine's peak this is the
    /// utilisation (MFU); what is formed again in the backward pass is left out.
    pub fn training_step(&self, batch: u64, tokens: u64) -> u64 {
        let work = self.forward(tokens).saturating_mul(3).saturating_mul(batch);
        work.saturating_add(self.forward_once.saturating_mul(2))
    }

    /// Bytes of a cache for `rows` sequences of `tokens`, with `bytes` a number (4 in float32).
    pub fn cache_bytes(&self, rows: u64, tokens: u64, bytes: u64) -> u64 {
        let row = self.cached_per_token.saturating_mul(tokens).saturating_add(self.cached_per_row);
        row.saturating_mul(rows).saturating_mul(bytes)
    }
}

/// Counted in 128 bits, which the largest sizes that pass a check don't fill.
fn u(x: i64) -> u128 {
    x.unsigned_abs().into()
}

fn narrow(x: u128) -> u64 {
    u64::try_from(x).unwrap_or(u64::MAX)
}

/// One layer.
struct LayerCount {
    parameters: u128,
    /// Multiply-adds a token, without pairs.
    work: u128,
    pair: u128,
    once: u128,
    cached: u128,
    cached_once: u128,
}

fn mlp(d: u128, hidden: u128) -> u128 {
    2 * d * hidden + hidden + d
}

/// A transformer's layer: four maps with biases, an MLP, two LayerNorms.
fn transformer(d: u128, hidden: u128) -> LayerCount {
    LayerCount {
        parameters: 4 * d * d + 4 * d + mlp(d, hidden) + 4 * d,
        work: 4 * d * d + 2 * d * hidden,
        pair: 2 * d,
        once: 0,
        cached: 2 * d,
        cached_once: 0,
    }
}

/// CRATE's layer: one projection, an output map, a dictionary, two LayerNorms; `bias` is the output map's.
fn white_box(d: u128, bias: u128) -> LayerCount {
    LayerCount {
        parameters: 3 * d * d + bias + 4 * d,
        work: 3 * d * d,
        pair: 2 * d,
        once: d * d * d,
        cached: d,
        cached_once: 0,
    }
}

fn crate_gpt(c: &CrateGptConfig) -> LayerCount {
    let (d, layer) = (u(c.d), white_box(u(c.d), u(c.d)));
    let dictionary = u(c.overcomplete) * d * d;
    let dictionaries = match c.sparsify {
        Sparsify::Ista => return layer,
        Sparsify::Odl => dictionary,
        Sparsify::OdlDecoupled => 2 * dictionary,
    };
    // The first step is one product, each further one two, the way back one.
    let work = 2 * u(c.steps) * dictionary;
    LayerCount {
        parameters: layer.parameters - d * d + dictionaries,
        work: layer.work - d * d + work,
        once: 0,
        ..layer
    }
}

fn tost(frame: &Frame, hidden: i64) -> LayerCount {
    let (d, heads, hidden) = (u(frame.d), u(frame.heads), u(hidden));
    LayerCount {
        // Two maps with biases, temperatures, a bias for each head and place; LayerNorms and LayerScales.
        parameters: 2 * (d * d + d) + heads + heads * u(frame.context) + mlp(d, hidden) + 6 * d,
        work: 2 * d * d + 2 * d * hidden,
        pair: 0,
        once: 0,
        cached: 0,
        cached_once: 2 * d + heads,
    }
}

impl LanguageConfig {
    /// Counts the model that this describes. Valid for configs that pass [`LanguageConfig::check`].
    pub fn cost(&self) -> LanguageCost {
        let frame = self.frame();
        let layer = match self {
            LanguageConfig::CrateGpt(c) => crate_gpt(c),
            LanguageConfig::Gpt2(c) => transformer(u(c.d), u(c.hidden())),
            LanguageConfig::TostGpt(c) => tost(&frame, c.hidden()),
        };
        let (d, depth, words) = (u(frame.d), u(frame.depth), u(frame.padded()));
        let tables = if frame.tied_head { words * d } else { 2 * words * d };
        let norm = if frame.final_norm.is_some() { 2 * d } else { 0 };
        let positions = u(frame.context) * d;
        LanguageCost {
            parameters: narrow(tables + positions + norm + depth * layer.parameters),
            position_parameters: narrow(positions),
            head_parameters: 0,
            forward_per_token: narrow(depth * layer.work + words * d),
            forward_per_pair: narrow(depth * layer.pair),
            forward_once: narrow(depth * layer.once),
            causal: true,
            cached_per_token: narrow(depth * layer.cached),
            cached_per_row: narrow(depth * layer.cached_once),
        }
    }
}

impl MaskedConfig {
    /// Counts the encoder that this describes; the head for masked words counts at every token. Valid for configs that pass [`MaskedConfig::check`].
    pub fn cost(&self) -> LanguageCost {
        let body = self.body();
        let layer = match self {
            MaskedConfig::CrateBert(c) => white_box(u(c.d), 0),
            MaskedConfig::Bert(c) => transformer(u(c.d), u(c.hidden())),
        };
        let Body { d, depth, context, position_offset, vocabulary, types, .. } = body;
        let (d, depth, words) = (u(d), u(depth), u(vocabulary));
        let pooler = if body.pooler { d * d + d } else { 0 };
        let (head, head_work) = if body.mlm_head { (d * d + d + 2 * d + words, d * d + words * d) } else { (0, 0) };
        let positions = (u(context) + u(position_offset)) * d;
        LanguageCost {
            parameters: narrow((words + u(types)) * d + positions + 2 * d + depth * layer.parameters + pooler + head),
            position_parameters: narrow(positions),
            head_parameters: narrow(pooler + head),
            forward_per_token: narrow(depth * layer.work + head_work),
            forward_per_pair: narrow(depth * layer.pair),
            forward_once: narrow(depth * layer.once),
            causal: false,
            cached_per_token: 0,
            cached_per_row: 0,
        }
    }
}
