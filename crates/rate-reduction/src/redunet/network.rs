//! Building a ReduNet layer by layer and running it, over blocks: what the plain and the shift-invariant network share.
//!
//! ```text
//! build:  for l = 1..L   E, C_k from the training Z and the known Pi;  Z <- layer(Z)
//! run:    for l = 1..L   z <- layer(z)
//! ```
//!
//! The book's algorithm moves the training tokens by the memberships that a layer estimates, though their own are
//! known; its text shows that with the known ones the step is the gradient's. [`TrainingMemberships`] offers both.

use ndarray::{Array2, ArrayView1, ArrayView2};

use super::layer::{Layer, Step};
use super::split::Split;
use crate::{Error, Mcr2, Memberships, Precision, Real, Result, check};

/// By which memberships the training tokens move while a network is built. E and C_k always come from the known ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TrainingMemberships {
    /// By those that the layer estimates, as any other token will: the book's training algorithm and the released code.
    #[default]
    Estimated,
    /// By the known ones: exactly a step of projected gradient ascent on Delta R.
    Known,
}

/// How a ReduNet is built.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReduNetConfig {
    /// L, the number of layers: steps of gradient ascent.
    pub layers: usize,
    /// eta, the size of a step.
    pub eta: f64,
    /// The coding precision. What the released code calls `eps` is eps^2.
    pub precision: Precision,
    /// lambda of the estimated memberships: 0 makes them equal, a large one decides for a class.
    pub lambda: f64,
    /// By which memberships the training tokens move.
    pub training: TrainingMemberships,
}

impl ReduNetConfig {
    /// With the released code's lambda, 500, and the book's estimated memberships.
    pub fn new(layers: usize, eta: f64, precision: Precision) -> Self {
        Self { layers, eta, precision, lambda: 500.0, training: TrainingMemberships::default() }
    }

    fn checked(self) -> Result<Self> {
        if self.layers == 0 {
            return Err(Error::Parameter { name: "the number of layers", value: 0.0, expected: "at least 1" });
        }
        check::non_negative("eta", self.eta)?;
        check::non_negative("lambda", self.lambda)?;
        Ok(self)
    }
}

/// What a layer is about to do with some tokens.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a, A> {
    /// The layer, from 0.
    pub layer: usize,
    /// The tokens before its step, `d x N`, of unit length. In a shift-invariant network they are written in the basis
    /// of [`Shifts`](super::Shifts), which leaves lengths and angles as they are.
    pub tokens: ArrayView2<'a, A>,
    /// The memberships that its step uses, `K x N`.
    pub memberships: ArrayView2<'a, A>,
}

impl<A: Real> Stage<'_, A> {
    /// The share of the tokens whose largest membership is that of their label.
    ///
    /// # Errors
    /// There must be a label for every token.
    pub fn agreement(&self, labels: &[usize]) -> Result<f64> {
        check::shape("the labels", &[labels.len()], &[self.memberships.ncols()])?;
        let agrees =
            |(pi, label): &(ArrayView1<'_, A>, &usize)| pi.get(**label).is_some_and(|own| pi.iter().all(|v| v <= own));
        let right = self.memberships.columns().into_iter().zip(labels).filter(agrees).count();
        Ok(right as f64 / labels.len().max(1) as f64)
    }
}

/// The layers, and how the objective rose while they were built.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Network<A> {
    pub(crate) split: Split,
    pub(crate) layers: Vec<Layer<A>>,
    step: Step<A>,
    pub(crate) objectives: Vec<Mcr2<A>>,
}

impl<A: Real> Network<A> {
    /// From unit tokens; also gives the tokens after the last layer.
    pub(crate) fn build(
        split: Split,
        mut z: Array2<A>,
        memberships: &Memberships<A>,
        config: ReduNetConfig,
        mut observe: impl FnMut(Stage<'_, A>, Mcr2<A>),
    ) -> Result<(Self, Array2<A>)> {
        let config = config.checked()?;
        check::shape("the memberships", memberships.view().shape(), &[memberships.classes(), z.ncols()])?;
        let known = (config.training == TrainingMemberships::Known).then(|| memberships.view());
        let shares = memberships.masses().into_iter().map(|mass| A::of(mass / z.ncols() as f64)).collect();
        let step = Step { eta: config.eta, lambda: config.lambda, shares };
        let (mut layers, mut objectives) = (Vec::new(), Vec::new());
        for number in 0..config.layers {
            let (layer, objective) = Layer::new(&split, z.view(), memberships, config.precision)?;
            let (next, used) = layer.step(z.view(), &step, known)?;
            observe(Stage { layer: number, tokens: z.view(), memberships: used.view() }, objective);
            layers.push(layer);
            objectives.push(objective);
            z = next;
        }
        objectives.push(Layer::new(&split, z.view(), memberships, config.precision)?.1);
        Ok((Self { split, layers, step, objectives }, z))
    }

    /// Unit tokens through all layers.
    pub(crate) fn forward(
        &self,
        mut z: Array2<A>,
        known: Option<&Memberships<A>>,
        mut observe: impl FnMut(Stage<'_, A>),
    ) -> Result<Array2<A>> {
        if let Some(known) = known {
            check::shape("the memberships", known.view().shape(), &[self.step.shares.len(), z.ncols()])?;
        }
        for (number, layer) in self.layers.iter().enumerate() {
            let (next, used) = layer.step(z.view(), &self.step, known.map(|known| known.view()))?;
            observe(Stage { layer: number, tokens: z.view(), memberships: used.view() });
            z = next;
        }
        Ok(z)
    }

    /// A layer, by a number that may be too large.
    pub(crate) fn layer(&self, layer: usize) -> Result<&Layer<A>> {
        let expected = "below the number of layers";
        self.layers.get(layer).ok_or(Error::Parameter { name: "the layer", value: layer as f64, expected })
    }

    /// Whether there is such a class.
    pub(crate) fn admit_class(&self, class: usize) -> Result<usize> {
        if class < self.step.shares.len() {
            return Ok(class);
        }
        let expected = "below the number of classes";
        Err(Error::Parameter { name: "the class", value: class as f64, expected })
    }

    /// `gamma_k`.
    pub(crate) fn shares(&self) -> &[A] {
        &self.step.shares
    }
}
