//! Windows for training a language model: inputs and, shifted by one, targets. Which windows make up a step is a pure
//! function of seed and step, so that a resumed run goes on exactly.

use std::sync::{Arc, Mutex, PoisonError};

use super::TokenSet;
use crate::{Error, Result, SampleRng, permutation};

/// A batch: row `r` lies at `r * context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowBatch {
    /// `[batch, context]` tokens.
    pub inputs: Vec<u32>,
    /// `[batch, context]`: for each input the token after it.
    pub targets: Vec<u32>,
    /// Rows.
    pub batch: usize,
    /// Tokens in a row.
    pub context: usize,
}

fn check(set: &TokenSet, context: usize, batch: usize) -> Result<()> {
    for (name, value) in [("context", context), ("batch", batch)] {
        if value == 0 || value > 1 << 32 {
            return Err(Error::config(name, value, "a number from 1 to 2^32 is expected"));
        }
    }
    let needed = context as u64 + 1;
    if set.len() < needed {
        return Err(Error::TooFewTokens {
            what: format!("training on windows of {context}"),
            needed,
            tokens: set.len(),
            advice: "choose a shorter context or more text",
        });
    }
    Ok(())
}

/// Windows that begin at these positions.
fn cut(set: &TokenSet, context: usize, starts: impl ExactSizeIterator<Item = u64>) -> Result<WindowBatch> {
    let batch = starts.len();
    let mut inputs = Vec::with_capacity(batch * context);
    let mut targets = Vec::with_capacity(batch * context);
    let mut window = vec![0; context + 1];
    for start in starts {
        set.read(start, &mut window)?;
        inputs.extend(&window[..context]);
        targets.extend(&window[1..]);
    }
    Ok(WindowBatch { inputs, targets, batch, context })
}

/// Windows that begin anywhere, each with the same probability.
#[derive(Clone, Debug)]
pub struct RandomWindows {
    set: Arc<TokenSet>,
    context: usize,
    batch: usize,
    seed: u64,
}

impl RandomWindows {
    /// Batches of `batch` windows of `context` tokens.
    ///
    /// # Errors
    /// [`Error::TooFewTokens`] for a set of `context` tokens or less; [`Error::Config`] for a context or batch of 0.
    pub fn new(set: Arc<TokenSet>, context: usize, batch: usize, seed: u64) -> Result<Self> {
        check(&set, context, batch)?;
        Ok(Self { set, context, batch, seed })
    }

    /// The batch of a step.
    ///
    /// # Errors
    /// What [`TokenSet::read`] says.
    pub fn batch(&self, step: u64) -> Result<WindowBatch> {
        let places = self.set.len() - self.context as u64;
        let start = |row| {
            let mut rng = SampleRng::keyed(self.seed, step, row as u64, *b"windows\0");
            rng.below(places as usize) as u64
        };
        cut(&self.set, self.context, (0..self.batch).map(start))
    }
}

/// Windows side by side, each once an epoch, in an order that is new in each epoch. Epochs follow each other without a
/// gap: a batch at the border holds windows of both. Windows begin at the multiples of the context; up to `context`
/// tokens at the end, which do not fill one, are not among them.
#[derive(Debug)]
pub struct ShuffledWindows {
    set: Arc<TokenSet>,
    context: usize,
    batch: usize,
    seed: u64,
    /// The orders of the two epochs asked for last: a batch may need both.
    orders: Mutex<Vec<(u64, Arc<Vec<usize>>)>>,
}

impl ShuffledWindows {
    /// Batches of `batch` windows of `context` tokens.
    ///
    /// # Errors
    /// As [`RandomWindows::new`].
    pub fn new(set: Arc<TokenSet>, context: usize, batch: usize, seed: u64) -> Result<Self> {
        check(&set, context, batch)?;
        Ok(Self { set, context, batch, seed, orders: Mutex::default() })
    }

    /// The number of windows in an epoch.
    pub fn windows(&self) -> u64 {
        (self.set.len() - 1) / self.context as u64
    }

    /// The batch of a step.
    ///
    /// # Errors
    /// [`Error::Config`] for a step past 2^64 windows; what [`TokenSet::read`] says.
    pub fn batch(&self, step: u64) -> Result<WindowBatch> {
        let first = step.checked_mul(self.batch as u64).filter(|first| first.checked_add(self.batch as u64).is_some());
        let Some(first) = first else {
            return Err(Error::config("step", step, "a step of less than 2^64 windows in all is expected"));
        };
        let start = |row| {
            let window = first + row as u64;
            let order = self.order(window / self.windows());
            order[(window % self.windows()) as usize] as u64 * self.context as u64
        };
        cut(&self.set, self.context, (0..self.batch).map(start))
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        // An order is put in whole, so that a panic elsewhere leaves nothing half done.
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = orders.iter().find(|(of, _)| *of == epoch) {
            return Arc::clone(order);
        }
        let order = Arc::new(permutation(self.seed, epoch, self.windows() as usize));
        orders.truncate(1);
        orders.insert(0, (epoch, Arc::clone(&order)));
        order
    }
}
