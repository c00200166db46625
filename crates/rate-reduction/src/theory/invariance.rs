//! The shift-invariant ReduNet on labelled signals (book ch. 4, figures on rotation and translation): what it makes of
//! samples that it has not seen, as they are and moved around.
//!
//! ```text
//! accuracy   nearest subspace over all shifts, on f(x) and on f(shift x)
//! error      max_x || f(shift x) - shift f(x) || / || f(x) ||                0 but for rounding
//! ```
//!
//! Each sample is moved by its own shift: sample i by i points in reading order. For the rotation of images the signals
//! are their rings ([`polar_rings`](crate::redunet::polar_rings)), for translation the images themselves.

use ndarray::{Array4, ArrayView4, Axis};

use crate::redunet::{FilterBank, Stage, cyclic_shift};
use crate::{Error, Mcr2, Memberships, NearestSubspace, Real, ReduNetConfig, Result, ShiftReduNet, Width, check};

/// Signals with a label each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Labelled<'a, A> {
    /// `N x C x height x width`, samples first.
    pub signals: ArrayView4<'a, A>,
    /// The class of each.
    pub labels: &'a [usize],
}

/// Shares of the unseen samples that the nearest subspace gives their class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Right {
    /// Of the samples as they are.
    pub as_they_are: f64,
    /// Of the same, each moved by its own shift.
    pub moved: f64,
}

/// A network on signals, and what it does with unseen ones.
#[derive(Debug, Clone, PartialEq)]
pub struct InvarianceRun<A> {
    /// The network, with Delta R by layer.
    pub network: ShiftReduNet<A>,
    /// By the subspaces of the lifted signals, before the first layer.
    pub before: Right,
    /// By the subspaces of the features.
    pub after: Right,
    /// The largest `||f(shift x) - shift f(x)|| / ||f(x)||` of the unseen samples.
    pub equivariance_error: f64,
    /// The subspaces before the first layer.
    pub subspaces_before: NearestSubspace<A>,
    /// The subspaces of the features.
    pub subspaces_after: NearestSubspace<A>,
}

/// Lifts signals by a bank of filters where one is given, builds a network from the training signals and sends the
/// unseen ones through it. `observe` is shown every layer as in [`ShiftReduNet::build`].
///
/// # Errors
/// Signals and labels must fit each other, the filters and the classes; no lifted signal may be zero; for the rest as
/// [`ShiftReduNet::build`] and [`NearestSubspace::fit_shifts`].
pub fn run_on_signals<A: Real>(
    training: Labelled<'_, A>,
    unseen: Labelled<'_, A>,
    classes: usize,
    bank: Option<&FilterBank<A>>,
    config: ReduNetConfig,
    width: Width,
    observe: impl FnMut(Stage<'_, A>, Mcr2<A>),
) -> Result<InvarianceRun<A>> {
    check::shape("the labels", &[unseen.labels.len()], &[unseen.signals.dim().0])?;
    if let Some(token) = unseen.labels.iter().position(|label| *label >= classes) {
        return Err(Error::Label { token, label: unseen.labels[token], classes });
    }
    let lifted = |signals: ArrayView4<'_, A>| match bank {
        Some(bank) => bank.lift(signals),
        None => Ok(signals.to_owned()),
    };
    let memberships = Memberships::from_labels(training.labels, classes)?;
    let (train, new) = (lifted(training.signals)?, lifted(unseen.signals)?);
    let (network, features) = ShiftReduNet::build(train.view(), &memberships, config, observe)?;
    let shifts = network.shifts();
    let fit = |signals: &Array4<A>| {
        NearestSubspace::fit_shifts(shifts, shifts.tokens(signals.view())?.view(), training.labels, classes, width)
    };
    let (subspaces_before, subspaces_after) = (fit(&train)?, fit(&features)?);
    let moved = moved_each(new.view());
    let (passed, passed_moved) = (network.forward(new.view())?, network.forward(moved.view())?);
    let right = |subspaces: &NearestSubspace<A>, signals: &Array4<A>| {
        subspaces.accuracy(shifts.tokens(signals.view())?.view(), unseen.labels)
    };
    let rights = |subspaces: &NearestSubspace<A>, signals: &Array4<A>, moved: &Array4<A>| -> Result<Right> {
        Ok(Right { as_they_are: right(subspaces, signals)?, moved: right(subspaces, moved)? })
    };
    Ok(InvarianceRun {
        before: rights(&subspaces_before, &new, &moved)?,
        after: rights(&subspaces_after, &passed, &passed_moved)?,
        equivariance_error: largest_difference(&passed_moved, &moved_each(passed.view())),
        subspaces_before,
        subspaces_after,
        network,
    })
}

/// Sample i moved by i points in reading order, as [`run_on_signals`] moves the unseen ones.
///
/// # Shapes
/// `N x C x height x width`, as the result.
pub fn moved_each<A: Real>(signals: ArrayView4<'_, A>) -> Array4<A> {
    let width = signals.dim().3.max(1);
    let mut moved = Array4::zeros(signals.raw_dim());
    for (i, (mut to, signal)) in moved.axis_iter_mut(Axis(0)).zip(signals.axis_iter(Axis(0))).enumerate() {
        to.assign(&cyclic_shift(signal.insert_axis(Axis(0)), i / width, i % width).index_axis(Axis(0), 0));
    }
    moved
}

/// The largest `||a - b||` of features, which have length 1.
fn largest_difference<A: Real>(a: &Array4<A>, b: &Array4<A>) -> f64 {
    let samples = a.axis_iter(Axis(0)).zip(b.axis_iter(Axis(0)));
    samples
        .map(|(a, b)| a.iter().zip(&b).map(|(a, b)| (a.wide() - b.wide()).powi(2)).sum::<f64>().sqrt())
        .fold(0.0, f64::max)
}
