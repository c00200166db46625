//! More channels for signals, by a bank of filters (book ch. 4; the lifting of the released code):
//!
//! ```text
//! out_o(x) = tau( sum_i sum_u k_{o,i}(u) in_i(x + u) ),   indices around the ends,   tau(v) = v or max(v, 0)
//! ```
//!
//! The shifts of a signal with few channels span nearly all that there is, and subspaces of classes cannot be apart;
//! the responses to C filters lie in `R^{C n}`, of which the shifts of one signal span at most n dimensions. Where the
//! filters are linear, so does everything else: the responses of all signals span the same n dimensions. `tau` takes
//! them out of there, and the released code has it on. Shifted signals have shifted responses in both cases.

use ndarray::parallel::prelude::*;
use ndarray::{Array2, Array4, ArrayView3, ArrayView4, Axis, s};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::shifts::by_sample;
use crate::{Error, Real, Result, check, product::product};

/// Filters that give signals more channels.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterBank<A> {
    /// `C_out x (C_in rows columns)`.
    kernels: Array2<A>,
    /// `(C_in, rows, columns)`.
    reach: (usize, usize, usize),
    rectified: bool,
}

impl<A: Real> FilterBank<A> {
    /// From chosen filters; `rectified` sets negative responses to 0.
    ///
    /// # Shapes
    /// `kernels` is `C_out x C_in x rows x columns`; for series it has 1 row.
    ///
    /// # Errors
    /// The filters must be finite and not empty.
    pub fn new(kernels: ArrayView4<'_, A>, rectified: bool) -> Result<Self> {
        let (out, channels, rows, columns) = kernels.dim();
        let flat = Array2::from_shape_vec((out, channels * rows * columns), kernels.iter().copied().collect())
            .expect("as many numbers as before");
        check::matrix("the filters", flat.view())?;
        Ok(Self { kernels: flat, reach: (channels, rows, columns), rectified })
    }

    /// Standard normal filters, as in the released code's demos: `outputs` of `rows x columns` over `channels`.
    ///
    /// # Errors
    /// None of the numbers may be 0.
    pub fn random(
        outputs: usize,
        channels: usize,
        rows: usize,
        columns: usize,
        rectified: bool,
        rng: &mut (impl Rng + ?Sized),
    ) -> Result<Self> {
        let shape = (outputs, channels, rows, columns);
        let draw = Array4::from_shape_simple_fn(shape, || -> A { A::of(StandardNormal.sample(rng)) });
        Self::new(draw.view(), rectified)
    }

    /// The responses of signals.
    ///
    /// # Shapes
    /// `signals` is `N x C_in x height x width`, the result `N x C_out x height x width`. A filter larger than the
    /// signal goes around more than once.
    ///
    /// # Errors
    /// The signals must be finite, not empty, and of the filters' channels.
    pub fn lift(&self, signals: ArrayView4<'_, A>) -> Result<Array4<A>> {
        let (samples, channels, height, width) = signals.dim();
        if channels != self.reach.0 || signals.is_empty() {
            let expected = format!("[1 or more, {}, 1 or more, 1 or more]", self.reach.0);
            return Err(Error::Signals { found: signals.shape().to_vec(), expected });
        }
        by_sample(signals)?;
        let mut lifted = Array4::zeros((samples, self.kernels.nrows(), height, width));
        lifted.axis_iter_mut(Axis(0)).into_par_iter().zip(signals.axis_iter(Axis(0))).for_each(|(mut out, signal)| {
            let responses = product(A::of(1.0), self.kernels.view(), self.windows(signal).view());
            out.iter_mut().zip(&responses).for_each(|(to, &v)| {
                // Written so that a NaN, the mark of what was not finite, stays one.
                *to = if self.rectified && v < A::of(0.0) { A::of(0.0) } else { v };
            });
        });
        check::computed("the filters' responses", lifted)
    }

    /// For every number of a filter the signal shifted to where it meets it: `(C_in rows columns) x (height width)`.
    fn windows(&self, signal: ArrayView3<'_, A>) -> Array2<A> {
        let (channels, rows, columns) = self.reach;
        let (_, height, width) = signal.dim();
        let mut windows = Array2::zeros((channels * rows * columns, height * width));
        let offsets = (0..channels).flat_map(|c| (0..rows).flat_map(move |u| (0..columns).map(move |v| (c, u, v))));
        for ((c, u, v), mut window) in offsets.zip(windows.rows_mut()) {
            let plane = signal.slice(s![c, .., ..]);
            for (point, to) in window.iter_mut().enumerate() {
                *to = plane[((point / width + u) % height, (point % width + v) % width)];
            }
        }
        windows
    }
}
