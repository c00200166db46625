//! Along a sequence: the coding rate of its tokens, part by part and as it grows, and how active the code is at each position.
//!
//! With the unit-norm tokens W_k of [`layerwise`](crate::layerwise), eps^2 = 0.01, and a sequence cut into blocks of m tokens:
//!
//! ```text
//! block b     R^c of tokens b m .. (b + 1) m        gamma = p / (m eps^2)
//! prefix b    R^c of tokens 0 .. (b + 1) m          gamma = p / ((b + 1) m eps^2)
//! active t    share of the code's entries above zero at token t, mean over sequences
//! ```
//!
//! Blocks are of one size and compare with each other: what changes from one to the next is the context that tokens have behind them. A prefix grows, and its rate with it
//! as long as tokens bring directions that were not there; in a causal model it is exactly the rate that the text would have if it ended there, since no token depends on
//! later ones. In an encoder that sees both sides it is a part of the whole, and no more. Tokens behind the last whole block enter no rate.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use whitebox_model::probe::{Probe, Site};

use crate::activity::{is_code, place};
use crate::layerwise::coding_rate;
use crate::stats::{Running, Stat};
use crate::{Error, Result};

/// One layer along its sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PositionStats {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Tokens of a block.
    pub block: u64,
    /// R^c of each block, in nats.
    pub block_rate: Vec<Stat>,
    /// R^c of the tokens up to the end of each block, in nats.
    pub prefix_rate: Vec<Stat>,
    /// Which code it is whose entries are counted, e.g. `Z^{l+1}`.
    pub place: String,
    /// Share of active entries at each position.
    pub active: Vec<f64>,
}

#[derive(Default)]
struct Layer {
    site: Option<Site>,
    tokens: Option<i64>,
    block: i64,
    block_rate: Vec<Running>,
    prefix_rate: Vec<Running>,
    /// Sequences of which a code was seen, and atoms.
    sequences: i64,
    atoms: i64,
    /// Active entries at each position, `[n]`.
    counts: Option<Tensor>,
}

/// Measures along the sequences of the forward passes it is shown; what it holds grows with their length alone. All must be of one length.
pub struct PositionsProbe {
    heads: usize,
    blocks: i64,
    layers: BTreeMap<usize, Layer>,
    failed: Option<Error>,
}

impl PositionsProbe {
    /// A probe for a model with `heads` heads that cuts sequences into `blocks` blocks (into single tokens where they are shorter).
    pub fn new(heads: usize, blocks: usize) -> Self {
        let blocks = i64::try_from(blocks).unwrap_or(i64::MAX).max(1);
        PositionsProbe { heads, blocks, layers: BTreeMap::new(), failed: None }
    }

    /// The layers in order.
    ///
    /// # Errors
    /// The first thing that went wrong while it was shown something.
    pub fn finish(self) -> Result<Vec<PositionStats>> {
        match self.failed {
            Some(error) => Err(error),
            None => self.layers.into_iter().map(|(number, layer)| layer.stats(number)).collect(),
        }
    }

    fn take(&mut self, number: usize, site: Site, value: &Tensor) -> Result<()> {
        let layer = self.layers.entry(number).or_default();
        let (batch, tokens, width) = value.size3()?;
        let known = *layer.tokens.get_or_insert(tokens);
        if known != tokens || tokens == 0 {
            let expected =
                format!("sequences of {known} tokens as before, and one at least: positions of others are others");
            return Err(Error::Shape { what: format!("what layer {number} shows"), found: value.size(), expected });
        }
        if site == Site::Uz {
            let blocks = self.blocks.min(tokens);
            layer.block = tokens / blocks;
            layer.block_rate.resize_with(blocks as usize, Running::default);
            layer.prefix_rate.resize_with(blocks as usize, Running::default);
            for b in 0..blocks {
                let (from, to) = (b * layer.block, (b + 1) * layer.block);
                let rate = |from: i64| -> Result<Vec<f64>> {
                    Ok(coding_rate(&value.f_narrow(1, from, to - from)?, self.heads)?.try_into()?)
                };
                layer.block_rate[b as usize].extend(rate(from)?);
                layer.prefix_rate[b as usize].extend(rate(0)?);
            }
            return Ok(());
        }
        if layer.site.is_some_and(|seen| seen != site) {
            return Ok(());
        }
        layer.site = Some(site);
        layer.sequences += batch;
        layer.atoms = width;
        let counts = value.detach().f_gt(0.0)?.f_sum_dim_intlist([0i64, 2].as_slice(), false, Kind::Int64)?;
        layer.counts = Some(match layer.counts.take() {
            Some(before) => before.f_add(&counts)?,
            None => counts,
        });
        Ok(())
    }
}

impl Layer {
    fn stats(self, layer: usize) -> Result<PositionStats> {
        let counts: Vec<i64> = self.counts.map(Vec::<i64>::try_from).transpose()?.unwrap_or_default();
        let entries = (self.sequences * self.atoms).max(1) as f64;
        Ok(PositionStats {
            layer,
            block: self.block.unsigned_abs(),
            block_rate: self.block_rate.iter().map(Running::stat).collect(),
            prefix_rate: self.prefix_rate.iter().map(Running::stat).collect(),
            place: place(self.site).into(),
            active: counts.into_iter().map(|count| count as f64 / entries).collect(),
        })
    }
}

impl Probe for PositionsProbe {
    fn wants(&self, _layer: usize, site: Site) -> bool {
        self.failed.is_none() && (site == Site::Uz || is_code(site))
    }

    fn see(&mut self, layer: usize, site: Site, value: &Tensor) {
        if self.failed.is_none() {
            self.failed = tch::no_grad(|| self.take(layer, site, value)).err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn blocks_and_prefixes_of_tokens_that_are_known() {
        // One head of two dimensions; tokens along the first axis, then along the second; the fifth is left over.
        let tokens = Tensor::from_slice(&[3.0f64, 0., 1., 0., 0., 2., 0., 5., 1., 1.]).view([1, 5, 2]);
        let mut probe = PositionsProbe::new(1, 2);
        probe.see(0, Site::Uz, &tokens);
        let found = probe.finish().unwrap().remove(0);
        // W W^T is diag(2, 0) in a block of two, gamma = 2/(2 eps^2) = 100; diag(2, 2) in the prefix of four, gamma = 50.
        let (one, both) = (0.5 * 201f64.ln(), 101f64.ln());
        let near = |stat: &Stat, value: f64| (stat.mean - value).abs() < 1e-9;
        assert_eq!((found.block, found.block_rate.len()), (2, 2));
        assert!(found.block_rate.iter().all(|stat| near(stat, one)), "{found:?}");
        assert!(near(&found.prefix_rate[0], one) && near(&found.prefix_rate[1], both), "{found:?}");
    }

    #[test]
    fn activity_is_counted_position_by_position() {
        let mut probe = PositionsProbe::new(1, 4);
        let code = Tensor::from_slice(&[1.0f32, 1., 0., -1., 0., 2., 1., 0., 0., 0., 0., 3.]).view([2, 3, 2]);
        probe.see(0, Site::Code, &code);
        probe.see(0, Site::ZOut, &Tensor::ones([2, 3, 5], (Kind::Float, Device::Cpu)));
        let found = probe.finish().unwrap().remove(0);
        assert_eq!(found.active, [0.75, 0.0, 0.5]);
        assert!(found.place.contains("overcomplete") && found.block_rate.is_empty());
    }

    #[test]
    fn batches_do_not_matter_and_lengths_do() {
        tch::manual_seed(2);
        let (uz, code) = (
            Tensor::randn([6, 19, 12], (Kind::Float, Device::Cpu)),
            Tensor::randn([6, 19, 30], (Kind::Float, Device::Cpu)),
        );
        let measured = |batch: i64| {
            let mut probe = PositionsProbe::new(3, 4);
            for (uz, code) in uz.split(batch, 0).iter().zip(code.split(batch, 0)) {
                probe.see(1, Site::Uz, uz);
                probe.see(1, Site::MlpHidden, &code);
            }
            probe.finish().unwrap().remove(0)
        };
        let whole = measured(6);
        assert_eq!((whole.block, whole.active.len()), (4, 19));
        for batch in [1, 4] {
            let parts = measured(batch);
            assert_eq!(whole.active, parts.active);
            for (a, b) in
                whole.prefix_rate.iter().chain(&whole.block_rate).zip(parts.prefix_rate.iter().chain(&parts.block_rate))
            {
                assert!((a.mean - b.mean).abs() < 1e-9 && (a.std - b.std).abs() < 1e-9 && a.n == b.n);
            }
        }
        let mut probe = PositionsProbe::new(3, 4);
        probe.see(0, Site::Uz, &uz);
        probe.see(0, Site::Uz, &uz.narrow(1, 0, 10));
        assert!(probe.finish().unwrap_err().to_string().contains("19 tokens"));
    }
}
