//! What a model keeps of the tokens it has read, so that the next one costs one token's work.
//!
//! ```text
//! CRATE   w_j = U^T LN(z_j)                                    d numbers a token and layer: query, key and value are one
//! GPT-2   k_j, v_j                                             2 d
//! ToST    sum_j w_j^2, sum_j Pi_j w_j^2, sum_j Pi_j            2 d + K a layer, however many tokens
//! ```
//!
//! So CRATE's cache is half of GPT-2's, and ToST's does not grow: its attention asks of the past nothing but sums. Memory is taken at the first
//! step, for the whole capacity.

use tch::{Kind, Tensor};
use whitebox_model::{Error, Result};

use crate::config::LanguageConfig;

/// The memory of one batch of sequences that grow together.
#[derive(Debug)]
pub struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    rows: i64,
    length: i64,
    capacity: i64,
    /// The model that it belongs to.
    config: LanguageConfig,
}

impl Cache {
    pub(crate) fn new(config: LanguageConfig, rows: i64, capacity: i64) -> Result<Self> {
        if rows < 1 || !(1..=config.context()).contains(&capacity) {
            return Err(Error::Input {
                found: format!("a cache for {rows} rows of {capacity} tokens"),
                expected: format!("at least one row, and between one token and the context of {}", config.context()),
            });
        }
        let layers = (0..config.depth()).map(|_| LayerCache { kept: Vec::new(), length: 0, capacity }).collect();
        Ok(Cache { layers, rows, length: 0, capacity, config })
    }

    /// Tokens held of each row.
    pub fn len(&self) -> i64 {
        self.length
    }

    /// Whether no token has been read.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens of a row that there is room for.
    pub fn capacity(&self) -> i64 {
        self.capacity
    }

    /// Sequences that grow together.
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// Bytes of memory taken: none before the first step, all from then on.
    pub fn bytes(&self) -> u64 {
        let tensors = self.layers.iter().flat_map(|layer| &layer.kept);
        tensors.map(|t| (t.numel() * t.kind().elt_size_in_bytes()) as u64).sum()
    }

    /// Forgets all tokens and keeps the memory.
    pub fn clear(&mut self) {
        self.length = 0;
        self.layers.iter_mut().for_each(|layer| layer.length = 0);
    }

    /// Refuses a step that does not fit: of another model, another number of rows, or more tokens than there is room for.
    pub(crate) fn check(&self, config: &LanguageConfig, rows: i64, tokens: i64) -> Result<()> {
        if self.config != *config {
            return Err(Error::Input {
                found: "the cache of another model".to_owned(),
                expected: "one that its own `cache` made".to_owned(),
            });
        }
        if rows != self.rows || tokens > self.capacity - self.length {
            return Err(Error::Input {
                found: format!(
                    "{rows} rows of {tokens} tokens for a cache that holds {} of {}",
                    self.length, self.capacity
                ),
                expected: format!(
                    "{} rows of at most {} tokens: clear the cache and read a window of the last tokens again, or make a \
                     larger one (the context is {})",
                    self.rows,
                    self.capacity - self.length,
                    self.config.context()
                ),
            });
        }
        Ok(())
    }

    pub(crate) fn advance(&mut self, tokens: i64) {
        self.length += tokens;
        self.layers.iter_mut().for_each(|layer| layer.length = self.length);
    }
}

/// What one layer keeps.
#[derive(Debug)]
pub struct LayerCache {
    kept: Vec<Tensor>,
    length: i64,
    capacity: i64,
}

impl LayerCache {
    /// Tokens held.
    pub(crate) fn len(&self) -> i64 {
        self.length
    }

    /// Writes what new tokens add to the tensor number `which` behind what it holds, and gives both together.
    ///
    /// # Shapes
    /// `new`: `[B, K, m, p]` to `[B, K, length + m, p]`.
    pub(crate) fn extend(&mut self, which: usize, new: &Tensor) -> Tensor {
        let size = new.size();
        if self.kept.len() <= which {
            let room = [size[0], size[1], self.capacity, size[3]];
            self.kept.push(Tensor::zeros(room, (new.kind(), new.device())));
        }
        self.kept[which].narrow(2, self.length, size[2]).copy_(new);
        self.kept[which].narrow(2, 0, self.length + size[2])
    }

    /// Sums along tokens (axis 2) that go on from the tensor number `which`, which then holds the last of them.
    ///
    /// # Shapes
    /// `new`: `[B, K, m, ..]`, unchanged.
    pub(crate) fn sums(&mut self, which: usize, new: &Tensor) -> Tensor {
        let sums = new.cumsum(2, None::<Kind>);
        let sums = if self.length > 0 { sums + &self.kept[which] } else { sums };
        let last = sums.narrow(2, sums.size()[2] - 1, 1).copy();
        match self.kept.get_mut(which) {
            Some(kept) => *kept = last,
            None => self.kept.push(last),
        }
        sums
    }
}
