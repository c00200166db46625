//! A part of a data set, seen as a data set: hold-outs, every n-th sample, the first few of each class.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Dataset, Error, Image, Result};

/// A data set restricted to some of its samples, in a given order. Labels and class names stay those of the whole.
///
/// Indices count within the subset, so that random numbers and batches depend on the subset alone.
#[derive(Clone)]
pub struct Subset {
    whole: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Subset {
    /// The samples `indices` of `whole`, in this order.
    ///
    /// # Errors
    /// [`Error::Empty`] without an index, [`Error::Index`] with one past the end.
    pub fn new(whole: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Self> {
        let len = whole.len();
        if indices.is_empty() {
            return Err(Error::Empty { origin: "subset".into(), what: format!("selects 0 of {len} samples") });
        }
        match indices.iter().find(|&&index| index >= len) {
            Some(&index) => Err(Error::Index { index, len }),
            None => Ok(Self { whole, indices }),
        }
    }

    /// Splits off every `every`-th sample of each class: `(the rest, the held out)`. The first sample held out of a
    /// class is its `every`-th.
    ///
    /// # Errors
    /// [`Error::Config`] for `every` below 2; [`Error::Empty`] where no class has that many samples.
    pub fn hold_out(whole: Arc<dyn Dataset>, every: usize) -> Result<(Self, Self)> {
        if every < 2 {
            return Err(Error::config("hold_out", every, "must be 2 or more, so that both parts hold samples"));
        }
        let (held, rest) =
            (0..whole.len()).zip(ranks(&*whole)).partition::<Vec<_>, _>(|(_, rank)| rank % every == every - 1);
        let indices = |part: Vec<(usize, usize)>| part.into_iter().map(|(index, _)| index).collect();
        Ok((Self::new(whole.clone(), indices(rest))?, Self::new(whole, indices(held))?))
    }

    /// Samples `offset`, `offset + step`, `offset + 2 step`, ... of the whole.
    ///
    /// # Errors
    /// [`Error::Config`] for a step of 0; [`Error::Empty`] where the offset lies past the end.
    pub fn every_nth(whole: Arc<dyn Dataset>, step: usize, offset: usize) -> Result<Self> {
        if step == 0 {
            return Err(Error::config("step", step, "must be 1 or more"));
        }
        let indices = (offset..whole.len()).step_by(step).collect();
        Self::new(whole, indices)
    }

    /// The first `count` samples of each class (fewer where a class has fewer), in the order of the whole.
    ///
    /// # Errors
    /// [`Error::Empty`] for a count of 0.
    pub fn first_per_class(whole: Arc<dyn Dataset>, count: usize) -> Result<Self> {
        let indices = (0..whole.len()).zip(ranks(&*whole)).filter(|&(_, rank)| rank < count).map(|(index, _)| index);
        let indices = indices.collect();
        Self::new(whole, indices)
    }

    /// Where a sample of the subset lies in the whole; `None` past the end.
    pub fn index_in_whole(&self, index: usize) -> Option<usize> {
        self.indices.get(index).copied()
    }
}

/// For each sample, how many of its class come before it.
fn ranks(dataset: &dyn Dataset) -> Vec<usize> {
    let mut seen = HashMap::<usize, usize>::new();
    let rank = |index| {
        let count = seen.entry(dataset.label(index)).or_default();
        *count += 1;
        *count - 1
    };
    (0..dataset.len()).map(rank).collect()
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.whole.classes()
    }

    fn label(&self, index: usize) -> usize {
        self.whole.label(self.indices[index])
    }

    fn image(&self, index: usize) -> Result<Image> {
        let len = self.len();
        self.whole.image(*self.indices.get(index).ok_or(Error::Index { index, len })?)
    }

    fn encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
        let len = self.len();
        self.whole.encoded(*self.indices.get(index).ok_or(Error::Index { index, len })?, bytes)
    }

    fn source(&self, index: usize) -> String {
        self.indices.get(index).map_or_else(|| format!("sample {index}"), |&index| self.whole.source(index))
    }

    fn image_size(&self) -> Option<[usize; 2]> {
        self.whole.image_size()
    }
}
