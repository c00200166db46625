//! A real Fourier basis of signals and images, in which what commutes with all cyclic shifts is block-diagonal (book
//! ch. 4, shift-invariant ReduNet).
//!
//! ```text
//! zhat(w) = sum_x z(x) e^{-i <w, x>}
//! rows:  zhat(w)/sqrt(n) where w = -w,  sqrt(2/n) (Re zhat(w); Im zhat(w)) for each other pair w, -w
//! ```
//!
//! The mirror image -w of a frequency holds the conjugate numbers and is left out. The basis is orthonormal: lengths,
//! angles and rates of tokens are those of the signals. Shifting a signal turns `zhat(w)` by a phase, so the sum over
//! all n shifts of `z z^T` keeps each frequency to itself: `n zhat zhat^*` over C channels instead of a matrix of `C n`
//! rows.
//!
//! A ReduNet on N signals with all their shifts is one on `n N` tokens of dimension `C n`, so that
//! `alpha = C n / (n N eps^2) = C / (N eps^2)`. The released code takes this alpha and a DFT divided by sqrt(n). In the
//! terms used here its network has n times the eps^2, the eta and the lambda that it is given.
//!
//! The transform is a product with an `n x n` matrix: it happens at the ends of a network only, which works among the
//! frequencies.

use std::f64::consts::TAU;

use ndarray::{Array2, Array4, ArrayView2, ArrayView4, Axis, s};

use super::split::Split;
use crate::{Error, Real, Result, check, product::product};

/// Points of a signal, at most: the basis of 16384 fills 2 GB in f64.
const MOST_POINTS: usize = 1 << 14;

/// Channels, at most: beyond it a single operator is as large as that.
const MOST_CHANNELS: usize = 1 << 14;

/// Signals of C channels on a grid whose cyclic shifts are counted as the same: `height x width` points, 1 row for
/// series.
#[derive(Debug, Clone, PartialEq)]
pub struct Shifts<A> {
    channels: usize,
    height: usize,
    width: usize,
    /// For every frequency that is kept whether it has a mirror image.
    paired: Vec<bool>,
    /// A row for each real number that is kept, `n x n`, orthonormal.
    basis: Array2<A>,
}

impl<A: Real> Shifts<A> {
    /// Series of this many channels and points.
    ///
    /// # Errors
    /// Neither may be 0 or above 16384.
    pub fn line(channels: usize, length: usize) -> Result<Self> {
        Self::grid(channels, 1, length)
    }

    /// Images of this many channels, rows and columns.
    ///
    /// # Errors
    /// None may be 0; height times width and channels may be 16384 at most.
    pub fn grid(channels: usize, height: usize, width: usize) -> Result<Self> {
        let points = height.saturating_mul(width);
        if channels.saturating_mul(points) == 0 {
            let expected = "at least 1 of each";
            return Err(Error::Parameter { name: "channels, height or width", value: 0.0, expected });
        }
        if points > MOST_POINTS || channels > MOST_CHANNELS {
            let (name, value) =
                if points > MOST_POINTS { ("height times width", points) } else { ("channels", channels) };
            let expected = "at most 16384: work on smaller images, or on patches of them";
            return Err(Error::Parameter { name, value: value as f64, expected });
        }
        let mut basis = Array2::zeros((points, points));
        let (mut paired, mut row) = (Vec::new(), 0);
        for (a, b) in (0..height).flat_map(|a| (0..width).map(move |b| (a, b))) {
            let mirror = ((height - a) % height, (width - b) % width);
            if mirror < (a, b) {
                continue;
            }
            let has_mirror = mirror != (a, b);
            let scale = (if has_mirror { 2.0 } else { 1.0 } / points as f64).sqrt();
            for (x, point) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).enumerate() {
                // In whole steps of a turn, so that no rounding adds up.
                let steps = (a * point.0 % height * width + b * point.1 % width * height) % points;
                let (sine, cosine) = (TAU * steps as f64 / points as f64).sin_cos();
                basis[(row, x)] = A::of(scale * cosine);
                if has_mirror {
                    basis[(row + 1, x)] = A::of(-scale * sine);
                }
            }
            row += if has_mirror { 2 } else { 1 };
            paired.push(has_mirror);
        }
        Ok(Self { channels, height, width, paired, basis })
    }

    /// Samples in columns, written in the basis: frequency by frequency the real parts of all channels, then the
    /// imaginary ones.
    ///
    /// # Shapes
    /// `signals` is `N x C x height x width`, samples first; the result is `C height width x N`. Series of shape
    /// `N x C x length` become such signals by `insert_axis(Axis(2))`.
    ///
    /// # Errors
    /// The signals must be finite and of this shape, and there must be a sample.
    pub fn tokens(&self, signals: ArrayView4<'_, A>) -> Result<Array2<A>> {
        let samples = signals.dim().0;
        if samples == 0 || signals.shape()[1..] != [self.channels, self.height, self.width] {
            let expected = format!("[1 or more, {}, {}, {}]", self.channels, self.height, self.width);
            return Err(Error::Signals { found: signals.shape().to_vec(), expected });
        }
        let n = self.basis.nrows();
        let flat = by_sample(signals)?.into_shape_with_order((samples * self.channels, n)).expect("as many numbers");
        let numbers = product(A::of(1.0), self.basis.view(), flat.t());
        let mut tokens = Array2::zeros((self.channels * n, samples));
        for (row, number) in numbers.rows().into_iter().enumerate() {
            let by_sample = number.into_shape_with_order((samples, self.channels)).expect("a row is contiguous");
            let rows = row * self.channels..(row + 1) * self.channels;
            tokens.slice_mut(s![rows, ..]).assign(&by_sample.t());
        }
        check::computed("the Fourier transform", tokens)
    }

    /// The signals of tokens in the basis: undoes [`Shifts::tokens`].
    ///
    /// # Shapes
    /// `tokens` is `C height width x N`, the result `N x C x height x width`.
    ///
    /// # Errors
    /// The tokens must be finite, not empty, and of this dimension.
    pub fn signals(&self, tokens: ArrayView2<'_, A>) -> Result<Array4<A>> {
        self.admit(tokens)?;
        let (n, samples) = (self.basis.nrows(), tokens.ncols());
        let mut numbers = Array2::zeros((n, samples * self.channels));
        for (row, mut number) in numbers.axis_iter_mut(Axis(0)).enumerate() {
            let of_row = tokens.slice(s![row * self.channels..(row + 1) * self.channels, ..]);
            number.iter_mut().zip(of_row.t()).for_each(|(to, &v)| *to = v);
        }
        let flat = product(A::of(1.0), numbers.t(), self.basis.view());
        let shape = (samples, self.channels, self.height, self.width);
        check::computed("the signals", flat.into_shape_with_order(shape).expect("the same numbers in the same order"))
    }

    /// The blocks of a token matrix in the basis.
    pub(crate) fn split(&self) -> Split {
        Split::frequencies(self.channels, self.basis.nrows(), self.paired.iter().copied())
    }

    /// Whether a token matrix can be one in the basis.
    pub(crate) fn admit(&self, tokens: ArrayView2<'_, A>) -> Result<()> {
        check::matrix("the tokens", tokens)?;
        check::shape("the tokens", tokens.shape(), &[self.channels * self.basis.nrows(), tokens.ncols()])
    }
}

/// Signals moved by some rows and columns, around the ends: what was at (0, 0) comes to (down, along).
///
/// # Shapes
/// `signals` and the result are `N x C x height x width`.
pub fn cyclic_shift<A: Real>(signals: ArrayView4<'_, A>, down: usize, along: usize) -> Array4<A> {
    let (_, _, height, width) = signals.dim();
    let from = |at: usize, by: usize, size: usize| (at + size - by % size) % size;
    Array4::from_shape_fn(signals.dim(), |(i, c, y, x)| signals[(i, c, from(y, down, height), from(x, along, width))])
}

/// A row of numbers for each sample, all finite.
pub(super) fn by_sample<A: Real>(signals: ArrayView4<'_, A>) -> Result<Array2<A>> {
    let (samples, channels, height, width) = signals.dim();
    let flat = Array2::from_shape_vec((samples, channels * height * width), signals.iter().copied().collect())
        .expect("as many numbers as before");
    check::matrix("the signals, a sample a row,", flat.view())?;
    Ok(flat)
}
