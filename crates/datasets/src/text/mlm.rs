//! Masking for masked language models (Devlin et al. 2019): of each row 15 % of the tokens are to be predicted; of these
//! 80 % are hidden behind the mask, 10 % replaced by a random token, 10 % left. It is done anew at each step (dynamic
//! masking, Liu et al. 2019), as a pure function of (seed, step, row).

use serde::{Deserialize, Serialize};

use super::Tokenizer;
use crate::{Error, Result, SampleRng};

/// The label of a token that is not predicted: the index that cross-entropies ignore.
const IGNORED: i64 = -100;

/// How to mask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskingConfig {
    /// The share of the tokens that are predicted, special ones not counted.
    pub share: f64,
    /// The share of these that the mask stands for.
    pub masked: f64,
    /// The share of these that a random token stands for; the others stay as they are.
    pub random: f64,
    /// Whether the tokens of a word are predicted together.
    pub whole_word: bool,
}

impl Default for MaskingConfig {
    fn default() -> Self {
        Self { share: 0.15, masked: 0.8, random: 0.1, whole_word: false }
    }
}

/// Masked rows: row `r` lies at `r * length`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedBatch {
    /// `[rows, length]` tokens, some hidden.
    pub inputs: Vec<u32>,
    /// `[rows, length]`: the token that was there where it is to be predicted, else -100.
    pub labels: Vec<i64>,
    /// Tokens in a row.
    pub length: usize,
}

/// Masks rows of one tokenizer's tokens.
#[derive(Clone, Debug)]
pub struct Masking {
    config: MaskingConfig,
    seed: u64,
    mask: u32,
    special: Vec<bool>,
    continues: Vec<bool>,
    /// What a random token is drawn from: all that are not special.
    ordinary: Vec<u32>,
}

impl Masking {
    /// Masking for rows of this tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for one that has no mask, [`Error::Config`] for shares that are none.
    pub fn new(tokenizer: &dyn Tokenizer, config: MaskingConfig, seed: u64) -> Result<Self> {
        let Some(mask) = tokenizer.specials().mask else {
            return Err(Error::Tokenizer {
                tokenizer: tokenizer.identity().name.clone(),
                reason: "it has no token that stands for a hidden one".into(),
                advice: "choose one with [MASK] or <mask>, such as bert-base-uncased's vocab.txt".into(),
            });
        };
        let shares = [("share", config.share), ("masked", config.masked), ("random", config.random)];
        for (name, value) in shares {
            if !(0.0..=1.0).contains(&value) || (name == "share" && value == 0.0) {
                return Err(Error::config(
                    name,
                    value,
                    "a share above 0 and up to 1 is expected (masked, random: from 0)",
                ));
            }
        }
        if config.masked + config.random > 1.0 + 1e-9 {
            let expected =
                format!("masked and random, {} and {}, may come to 1 together", config.masked, config.random);
            return Err(Error::config("masked + random", config.masked + config.random, expected));
        }
        let all = 0..tokenizer.vocabulary() as u32;
        let special: Vec<bool> = all.clone().map(|id| tokenizer.is_special(id)).collect();
        let continues = all.clone().map(|id| tokenizer.continues_word(id)).collect();
        let ordinary: Vec<u32> = all.filter(|id| !special[*id as usize]).collect();
        if ordinary.is_empty() {
            return Err(Error::Empty {
                origin: tokenizer.identity().name.clone(),
                what: "has 0 ordinary tokens".into(),
            });
        }
        Ok(Self { config, seed, mask, special, continues, ordinary })
    }

    /// Masks rows of `length` tokens. The rows of a step must be numbered as they are in the whole batch, whatever part
    /// of it this is: `first` is the number of the first.
    ///
    /// The tokens predicted are `share` of a row's, rounded, but at least one; with whole words as many as fit in that
    /// number, and at least one word.
    ///
    /// # Errors
    /// [`Error::Config`] where the ids are no whole rows, [`Error::UnknownToken`] for an id past the vocabulary.
    pub fn batch(&self, step: u64, first: u64, ids: &[u32], length: usize) -> Result<MaskedBatch> {
        if length == 0 || !ids.len().is_multiple_of(length) {
            let expected = format!("a length of which {} ids are whole rows is expected", ids.len());
            return Err(Error::config("length", length, expected));
        }
        if let Some(position) = ids.iter().position(|id| *id as usize >= self.special.len()) {
            let (id, vocabulary) = (ids[position], self.special.len());
            return Err(Error::UnknownToken { id, position, tokenizer: "the masking".into(), vocabulary });
        }
        let mut inputs = ids.to_vec();
        let mut labels = vec![IGNORED; ids.len()];
        let rows = inputs.chunks_exact_mut(length).zip(labels.chunks_exact_mut(length));
        for (number, (inputs, labels)) in (first..).zip(rows) {
            self.row(step, number, inputs, labels);
        }
        Ok(MaskedBatch { inputs, labels, length })
    }

    fn row(&self, step: u64, row: u64, inputs: &mut [u32], labels: &mut [i64]) {
        let mut rng = SampleRng::keyed(self.seed, step, row, *b"masking\0");
        let mut words = self.words(inputs);
        let candidates: usize = words.iter().map(|(from, to)| to - from).sum();
        let wanted = ((candidates as f64 * self.config.share).round() as usize).max(1);
        let mut chosen = 0;
        // A Fisher-Yates shuffle from the front that ends when enough are chosen.
        for next in 0..words.len() {
            let other = next + rng.below(words.len() - next);
            words.swap(next, other);
            let (from, to) = words[next];
            if chosen > 0 && chosen + to - from > wanted {
                continue;
            }
            for at in from..to {
                labels[at] = i64::from(inputs[at]);
                let draw = rng.uniform(0.0, 1.0);
                if draw < self.config.masked {
                    inputs[at] = self.mask;
                } else if draw < self.config.masked + self.config.random {
                    inputs[at] = self.ordinary[rng.below(self.ordinary.len())];
                }
            }
            chosen += to - from;
            if chosen >= wanted {
                break;
            }
        }
    }

    /// What is chosen together: `from..to` of each word, or of each token; special ones are in none.
    fn words(&self, row: &[u32]) -> Vec<(usize, usize)> {
        let mut words: Vec<(usize, usize)> = Vec::with_capacity(row.len());
        for (at, &id) in row.iter().enumerate() {
            let goes_on = self.config.whole_word && self.continues[id as usize];
            match words.last_mut() {
                _ if self.special[id as usize] => {}
                Some((_, to)) if goes_on && *to == at => *to += 1,
                _ => words.push((at, at + 1)),
            }
        }
        words
    }
}
