//! ReduNet: a network whose layers are steps of gradient ascent on the rate reduction, built forward from data (book
//! ch. 4; figure 1 of the paper).
//!
//! ```text
//! E = alpha (I + alpha Z Z^T)^{-1}        C_k = alpha_k (I + alpha_k Z Pi_k Z^T)^{-1}        gamma_k = tr(Pi_k) / N
//! grad Delta R = E Z - sum_k gamma_k C_k Z Pi_k
//! pi_hat(z)    = softmax_k(-lambda ||C_k z||)
//! layer:  z <- P_sphere( z + eta ( E z - sum_k gamma_k pi_hat_k(z) C_k z ) )
//! ```
//!
//! E expands all tokens, C_k contracts those of class k, and nothing is learned by back-propagation: layer after layer,
//! E and C_k come from the training tokens with their known memberships, and then these tokens move on. With the stored
//! operators any other token takes the same way, by memberships that the layers estimate.
//!
//! | item | what it is |
//! |---|---|
//! | [`ReduNet`], [`ReduNetConfig`] | the network on vectors |
//! | [`ShiftReduNet`], [`Shifts`] | the network invariant to cyclic shifts of signals and images: convolutions |
//! | [`FilterBank`], [`polar_rings`] | what goes before it: more channels; rings on which a rotation is a shift |
//! | [`cyclic_shift`] | signals moved around |
//! | [`NearestSubspace`](crate::NearestSubspace) | the classifier that goes behind it |
//!
//! The book's training algorithm prints `alpha_k` with the data's dimension and gamma_k with `tr(Pi_k)` over it; the
//! text and the objective have d and N, as here. Tokens are put on the sphere at the door, as the released code does.
//!
//! ```
//! use rate_reduction::theory::redunet::SphereMixture;
//! use rate_reduction::{Memberships, NearestSubspace, Precision, ReduNet, ReduNetConfig, Width};
//!
//! # fn main() -> rate_reduction::Result<()> {
//! let mixture = SphereMixture::<f64>::with_cosine(3, 3, 0.5, 0.1)?; // three classes in R^3, 60 degrees apart
//! let (z, labels) = mixture.sample(50, &mut rand::rng())?;
//! let memberships = Memberships::from_labels(&labels, 3)?;
//! let config = ReduNetConfig::new(200, 0.5, Precision::from_eps(0.1)?);
//! let (network, features) = ReduNet::build(z.view(), &memberships, config, |_, _| ())?;
//! let (new, classes) = mixture.sample(50, &mut rand::rng())?;
//! let nearest = NearestSubspace::fit(features.view(), &labels, 3, Width::Rank(1))?;
//! println!("{:.3} of new tokens right", nearest.accuracy(network.forward(new.view())?.view(), &classes)?);
//! # assert!(nearest.coherence()? < 0.2);
//! # Ok(())
//! # }
//! ```

mod invariant;
mod layer;
mod lift;
mod network;
mod polar;
mod shifts;
mod split;

use ndarray::{Array2, ArrayView2};

pub use invariant::ShiftReduNet;
pub use lift::FilterBank;
pub use network::{ReduNetConfig, Stage, TrainingMemberships};
pub use polar::polar_rings;
pub use shifts::{Shifts, cyclic_shift};

use crate::{Mcr2, Memberships, Real, Result, check, unit_norm};
use network::Network;
pub(crate) use split::{Block, Split};

/// A ReduNet on vectors.
///
/// It holds `(K + 1) d^2` numbers a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct ReduNet<A> {
    network: Network<A>,
}

impl<A: Real> ReduNet<A> {
    /// Builds the layers from training tokens, and gives the training features, the tokens after the last layer, too.
    /// `observe` is shown every layer's tokens before its step, with Delta R (in nats) at them under the known
    /// memberships.
    ///
    /// # Shapes
    /// `z` and the features are `d x N`; `memberships` holds N tokens.
    ///
    /// # Errors
    /// `z` must be finite, not empty, without a zero token, and have as many columns as there are memberships; every
    /// class must have members; there must be a layer, and eta and lambda be finite and not negative.
    pub fn build(
        z: ArrayView2<'_, A>,
        memberships: &Memberships<A>,
        config: ReduNetConfig,
        observe: impl FnMut(Stage<'_, A>, Mcr2<A>),
    ) -> Result<(Self, Array2<A>)> {
        let unit = unit_norm(z)?;
        let (network, features) = Network::build(Split::whole(z.nrows()), unit, memberships, config, observe)?;
        Ok((Self { network }, features))
    }

    /// The features of any tokens, by the memberships that the layers estimate.
    ///
    /// # Shapes
    /// `z` and the result are `d x N`, N being any.
    ///
    /// # Errors
    /// `z` must be finite, not empty, of the network's d, and without a zero token.
    pub fn forward(&self, z: ArrayView2<'_, A>) -> Result<Array2<A>> {
        self.forward_observed(z, None, |_| ())
    }

    /// As [`ReduNet::forward`], by known memberships where some are given; `observe` is shown every layer's tokens
    /// before its step.
    ///
    /// # Errors
    /// As for [`ReduNet::forward`]; the memberships must be of the network's classes and of as many tokens.
    pub fn forward_observed(
        &self,
        z: ArrayView2<'_, A>,
        known: Option<&Memberships<A>>,
        observe: impl FnMut(Stage<'_, A>),
    ) -> Result<Array2<A>> {
        self.admit(z)?;
        self.network.forward(unit_norm(z)?, known, observe)
    }

    /// `E Z` of a layer, counted from 0.
    ///
    /// # Shapes
    /// `z` and the result are `d x N`; the identity gives E itself.
    ///
    /// # Errors
    /// `z` must be finite, not empty and of the network's d; there must be such a layer.
    pub fn expand(&self, layer: usize, z: ArrayView2<'_, A>) -> Result<Array2<A>> {
        self.admit(z)?;
        check::computed("E Z", self.network.layer(layer)?.expanded(z))
    }

    /// `C_k Z` of a layer, both counted from 0.
    ///
    /// # Shapes
    /// `z` and the result are `d x N`; the identity gives `C_k` itself.
    ///
    /// # Errors
    /// As for [`ReduNet::expand`], and there must be such a class.
    pub fn compress(&self, layer: usize, class: usize, z: ArrayView2<'_, A>) -> Result<Array2<A>> {
        self.admit(z)?;
        let class = self.network.admit_class(class)?;
        check::computed("C_k Z", self.network.layer(layer)?.compressed(class, z))
    }

    /// Delta R of the training tokens before each layer and after the last: `L + 1` values, in nats.
    pub fn objectives(&self) -> &[Mcr2<A>] {
        &self.network.objectives
    }

    /// `gamma_k`, the share of the training tokens that each class has.
    pub fn shares(&self) -> &[A] {
        self.network.shares()
    }

    /// L, the number of layers.
    pub fn layers(&self) -> usize {
        self.network.layers.len()
    }

    fn admit(&self, z: ArrayView2<'_, A>) -> Result<()> {
        check::matrix("Z", z)?;
        check::shape("Z", z.shape(), &[self.network.split.dim(), z.ncols()])
    }
}
