//! The ReduNet that is invariant to cyclic shifts (book ch. 4): the one of all shifts of all samples, whose operators
//! are multi-channel circular convolutions, frequency by frequency.
//!
//! ```text
//! E(w)   = alpha (I + alpha sum_i zhat_i(w) zhat_i(w)^*)^{-1}        C x C,  alpha = C / (N eps^2)
//! C_k(w) = alpha_k (I + alpha_k sum_i pi_k(i) zhat_i(w) zhat_i(w)^*)^{-1}
//! zhat   = sum_x z(x) e^{-i <w, x>}, not normalised
//! ```
//!
//! A shifted signal has the shifted features, and a class's subspace holds all shifts of its members. Memberships, the
//! norms behind their estimate and the sphere are those of whole signals.
//!
//! All shifts of one signal with one channel span, in general, everything that its frequencies reach, so that one
//! channel leaves little to tell classes apart by: [`FilterBank`](super::FilterBank) makes more.

use ndarray::{Array2, Array4, ArrayView4};

use super::network::{Network, ReduNetConfig, Stage};
use super::shifts::Shifts;
use crate::{Mcr2, Memberships, Real, Result, unit_norm};

/// A ReduNet on signals or images that counts their cyclic shifts as the same.
///
/// It holds `(K + 1) C^2 n` numbers a layer, for signals of C channels and n points.
#[derive(Debug, Clone, PartialEq)]
pub struct ShiftReduNet<A> {
    shifts: Shifts<A>,
    network: Network<A>,
}

impl<A: Real> ShiftReduNet<A> {
    /// Builds the layers from training signals as if all their shifts were given too, and gives the features of the
    /// signals. `observe` is shown every layer's tokens before its step, in the basis of [`Shifts`], with Delta R (in
    /// nats) of all shifts.
    ///
    /// # Shapes
    /// `signals` and the features are `N x C x height x width`, samples first; `memberships` holds N tokens. Series of
    /// shape `N x C x length` become such signals by `insert_axis(Axis(2))`.
    ///
    /// # Errors
    /// The signals must be finite, not empty, none of them zero, and as many as there are memberships; for the rest as
    /// [`ReduNet::build`](super::ReduNet::build).
    pub fn build(
        signals: ArrayView4<'_, A>,
        memberships: &Memberships<A>,
        config: ReduNetConfig,
        observe: impl FnMut(Stage<'_, A>, Mcr2<A>),
    ) -> Result<(Self, Array4<A>)> {
        let (_, channels, height, width) = signals.dim();
        let shifts = Shifts::grid(channels, height, width)?;
        let unit = unit_norm(shifts.tokens(signals)?.view())?;
        let (network, features) = Network::build(shifts.split(), unit, memberships, config, observe)?;
        let features = shifts.signals(features.view())?;
        Ok((Self { shifts, network }, features))
    }

    /// The features of any signals, by the memberships that the layers estimate.
    ///
    /// # Shapes
    /// As for [`ShiftReduNet::build`], of any number of samples.
    ///
    /// # Errors
    /// The signals must be finite, of the network's channels and size, and none of them zero.
    pub fn forward(&self, signals: ArrayView4<'_, A>) -> Result<Array4<A>> {
        self.forward_observed(signals, None, |_| ())
    }

    /// As [`ShiftReduNet::forward`], by known memberships where some are given; `observe` is shown every layer's tokens
    /// before its step, in the basis of [`Shifts`].
    ///
    /// # Errors
    /// As for [`ShiftReduNet::forward`]; the memberships must be of the network's classes and of as many signals.
    pub fn forward_observed(
        &self,
        signals: ArrayView4<'_, A>,
        known: Option<&Memberships<A>>,
        observe: impl FnMut(Stage<'_, A>),
    ) -> Result<Array4<A>> {
        let unit = unit_norm(self.shifts.tokens(signals)?.view())?;
        self.shifts.signals(self.network.forward(unit, known, observe)?.view())
    }

    /// The signals convolved with E of a layer, counted from 0.
    ///
    /// # Shapes
    /// As for [`ShiftReduNet::forward`].
    ///
    /// # Errors
    /// The signals must be finite and of the network's channels and size; there must be such a layer.
    pub fn expand(&self, layer: usize, signals: ArrayView4<'_, A>) -> Result<Array4<A>> {
        let layer = self.network.layer(layer)?;
        self.convolved(signals, |tokens| layer.expanded(tokens.view()))
    }

    /// The signals convolved with `C_k` of a layer, both counted from 0.
    ///
    /// # Shapes
    /// As for [`ShiftReduNet::forward`].
    ///
    /// # Errors
    /// As for [`ShiftReduNet::expand`], and there must be such a class.
    pub fn compress(&self, layer: usize, class: usize, signals: ArrayView4<'_, A>) -> Result<Array4<A>> {
        let (layer, class) = (self.network.layer(layer)?, self.network.admit_class(class)?);
        self.convolved(signals, |tokens| layer.compressed(class, tokens.view()))
    }

    fn convolved(&self, signals: ArrayView4<'_, A>, operator: impl Fn(&Array2<A>) -> Array2<A>) -> Result<Array4<A>> {
        self.shifts.signals(operator(&self.shifts.tokens(signals)?).view())
    }

    /// Delta R of all shifts of the training signals before each layer and after the last: `L + 1` values, in nats.
    pub fn objectives(&self) -> &[Mcr2<A>] {
        &self.network.objectives
    }

    /// `gamma_k`, the share of the training signals that each class has.
    pub fn shares(&self) -> &[A] {
        self.network.shares()
    }

    /// L, the number of layers.
    pub fn layers(&self) -> usize {
        self.network.layers.len()
    }

    /// The basis in which the network works.
    pub fn shifts(&self) -> &Shifts<A> {
        &self.shifts
    }
}
