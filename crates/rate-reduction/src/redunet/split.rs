//! How the rows of a token matrix fall into blocks that no operator of a ReduNet mixes, and the operators on a block.
//!
//! Tokens without a symmetry are one block. Where every token stands for its n shifts, the token matrix is written in a
//! real Fourier basis ([`Shifts`](super::Shifts)), and the sum over the shifts of `z z^T` has a block a frequency:
//!
//! ```text
//! alone    n Z Z^T                               a frequency that is its own mirror image: C rows, all real
//! paired   n/2 [Z, JZ] [Z, JZ]^T                 one with a mirror image: 2C rows, real over imaginary parts
//!          J = [0 -I; I 0], multiplication by i
//! ```
//!
//! A real matrix that commutes with J is a complex one of half the size, `[A -B; B A]`, so the first C columns say all;
//! its log-determinant is that of the frequency and of its mirror image together.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, concatenate, s};

use crate::resolvent::inverse_over_features;
use crate::{Real, Result, check};

/// Rows that operators keep to themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    start: usize,
    channels: usize,
    paired: bool,
}

impl Block {
    /// The rows of the token matrix.
    pub(crate) fn rows(self) -> Range<usize> {
        self.start..self.start + self.channels * if self.paired { 2 } else { 1 }
    }

    /// How many directions of this block come together: a direction u of a paired block brings `J u`.
    pub(crate) fn together(self) -> usize {
        if self.paired { 2 } else { 1 }
    }

    /// A factor X of this block's part of `sum z z^T` over all shifts: it is `n/together X X^T`.
    pub(crate) fn spread<A: Real>(self, z: ArrayView2<'_, A>) -> Array2<A> {
        if !self.paired {
            return z.to_owned();
        }
        let (real, imaginary) = z.split_at(Axis(0), self.channels);
        let turned = concatenate(Axis(0), &[imaginary.mapv(|v| -v).view(), real]).expect("halves of one matrix");
        concatenate(Axis(1), &[z, turned.view()]).expect("both have the block's rows")
    }
}

/// The blocks of a token matrix.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Split {
    blocks: Vec<Block>,
    /// n, the number of shifts that a token stands for.
    copies: usize,
}

impl Split {
    /// One block: tokens that stand for themselves alone.
    pub(crate) fn whole(d: usize) -> Self {
        Self { blocks: vec![Block { start: 0, channels: d, paired: false }], copies: 1 }
    }

    /// A block a frequency, by whether it has a mirror image, for tokens of this many channels.
    pub(crate) fn frequencies(channels: usize, copies: usize, paired: impl IntoIterator<Item = bool>) -> Self {
        let mut start = 0;
        let blocks = paired.into_iter().map(|paired| {
            let block = Block { start, channels, paired };
            start = block.rows().end;
            block
        });
        Self { blocks: blocks.collect(), copies }
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn copies(&self) -> usize {
        self.copies
    }

    /// d, the rows of a token matrix.
    pub(crate) fn dim(&self) -> usize {
        self.blocks.last().map_or(0, |block| block.rows().end)
    }
}

/// `a (I + c/together X X^T)^{-1}` of a block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Operator<A> {
    /// All of a block that is alone, `C x C`; the first half of the columns of a paired one, `2C x C`.
    matrix: Array2<A>,
    block: Block,
}

impl<A: Real> Operator<A> {
    /// The operator of a block's tokens, each times its weight, and `1/2 logdet(I + c/together X X^T)`.
    pub(crate) fn new(block: Block, z: ArrayView2<'_, A>, weights: &Array1<A>, c: f64, a: f64) -> Result<(Self, A)> {
        let c = check::rounded("d / eps^2", c / block.together() as f64)?;
        let x = block.spread((&z * weights).view());
        let (inverse, rate) = inverse_over_features(x.view(), c)?;
        let matrix = inverse.slice(s![.., ..block.channels]).mapv(|v| A::of(v.wide() * a));
        Ok((Self { matrix: check::computed("an operator of a layer", matrix)?, block }, rate))
    }

    pub(crate) fn block(&self) -> Block {
        self.block
    }

    /// Writes the operator's product with the block's rows of some tokens.
    pub(crate) fn apply(&self, z: ArrayView2<'_, A>, mut out: ArrayViewMut2<'_, A>) {
        let half = self.block.channels;
        if !self.block.paired {
            out.assign(&self.matrix.dot(&z));
            return;
        }
        // [A -B; B A] [x; y] of [A; B]: the second product is that of y, turned by J.
        let (of_real, of_imaginary) =
            (self.matrix.dot(&z.slice(s![..half, ..])), self.matrix.dot(&z.slice(s![half.., ..])));
        out.assign(&of_real);
        let (mut real, mut imaginary) = out.split_at(Axis(0), half);
        real -= &of_imaginary.slice(s![half.., ..]);
        imaginary += &of_imaginary.slice(s![..half, ..]);
    }
}
