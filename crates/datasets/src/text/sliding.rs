//! Windows for evaluation: every token but the first is predicted and scored exactly once, with as much context before
//! it as the stride leaves.

use std::sync::Arc;

use super::TokenSet;
use crate::{Error, Result};

/// Windows that move on by a stride, of which the targets that the windows before did not reach are scored.
///
/// With `stride == context` they lie side by side and tokens at the beginning of a window have little before them; with
/// a smaller stride each (after the first window) has at least `context - stride` tokens before it, at the cost of
/// `context / stride` times the work.
#[derive(Clone, Debug)]
pub struct SlidingWindows {
    set: Arc<TokenSet>,
    context: u64,
    stride: u64,
}

/// One window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationWindow {
    /// Where it begins in the set.
    pub start: u64,
    /// Its tokens, `context` at most: the last window may be shorter, and so may a set.
    pub inputs: Vec<u32>,
    /// For each input the token after it.
    pub targets: Vec<u32>,
    /// How many of the last targets are scored; at least one.
    pub scored: usize,
}

impl SlidingWindows {
    /// Windows of at most `context` tokens, `stride` apart.
    ///
    /// # Errors
    /// [`Error::TooFewTokens`] for a set of less than two tokens; [`Error::Config`] for a context of 0 or a stride that
    /// is not from 1 to the context.
    pub fn new(set: Arc<TokenSet>, context: usize, stride: usize) -> Result<Self> {
        if context == 0 || context > 1 << 32 {
            return Err(Error::config("context", context, "a number from 1 to 2^32 is expected"));
        }
        if stride == 0 || stride > context {
            let expected = format!("a number from 1 to the context, {context}, is expected: no token may be left out");
            return Err(Error::config("stride", stride, expected));
        }
        if set.len() < 2 {
            return Err(Error::TooFewTokens {
                what: "evaluation".into(),
                needed: 2,
                tokens: set.len(),
                advice: "there is nothing to predict; choose more text",
            });
        }
        Ok(Self { set, context: context as u64, stride: stride as u64 })
    }

    /// The number of windows, at least 1.
    pub fn windows(&self) -> u64 {
        1 + self.scored().saturating_sub(self.context).div_ceil(self.stride)
    }

    /// The number of tokens scored in all: all but the first.
    pub fn scored(&self) -> u64 {
        self.set.len() - 1
    }

    /// A window.
    ///
    /// # Errors
    /// [`Error::Index`] past the last one; what [`TokenSet::read`] says.
    pub fn window(&self, index: u64) -> Result<EvaluationWindow> {
        if index >= self.windows() {
            return Err(Error::Index { index: index as usize, len: self.windows() as usize });
        }
        let start = index * self.stride;
        let length = self.context.min(self.scored() - start);
        let reached = if index == 0 { 0 } else { start - self.stride + self.context };
        let mut tokens = vec![0; length as usize + 1];
        self.set.read(start, &mut tokens)?;
        let targets = tokens[1..].to_vec();
        tokens.pop();
        Ok(EvaluationWindow { start, inputs: tokens, targets, scored: (start + length - reached) as usize })
    }

    /// All windows, in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<EvaluationWindow>> + '_ {
        (0..self.windows()).map(|index| self.window(index))
    }
}
