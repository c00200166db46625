//! ReduNet on Gaussians (book ch. 4; JMLR figure 1): clusters on the sphere, a layer a step of ascent on Delta R, and
//! what becomes of tokens that were not there when the network was built.
//!
//! ```text
//! x = y / ||y||,   y ~ N(mu_k, sigma^2 I),   ||mu_k|| = 1
//! book: K = 3 in R^3, 500 a class, sigma = 0.1, L = 2000, eta = 0.5, eps = 0.1
//! ```
//!
//! The released code has the means along the axes and takes its 0.1 for eps^2. Means along the axes are at right angles
//! before the first layer already; [`SphereMixture::with_cosine`] puts them nearer, so that there is something to see.

use ndarray::{Array2, ArrayView2, Axis};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::redunet::Stage;
use crate::{Error, Mcr2, Memberships, NearestSubspace, Real, ReduNet, ReduNetConfig, Result, Width, check, unit_norm};

/// Gaussians around means on the sphere, scaled back to it.
#[derive(Debug, Clone, PartialEq)]
pub struct SphereMixture<A> {
    means: Array2<A>,
    sigma: f64,
}

impl<A: Real> SphereMixture<A> {
    /// From means, `d x K`, scaled to unit length, and the noise's standard deviation.
    ///
    /// # Errors
    /// The means must be finite, not empty, and none zero; sigma finite and not negative.
    pub fn new(means: ArrayView2<'_, A>, sigma: f64) -> Result<Self> {
        Ok(Self { means: unit_norm(means)?, sigma: check::non_negative("sigma", sigma)? })
    }

    /// Means that have this cosine to each other: `mu_k ~ e_k + t sum_j e_j`. 0 puts them along the axes.
    ///
    /// # Errors
    /// There must be a class and at most d; the cosine must be at least 0 and below 1; sigma finite and not negative.
    pub fn with_cosine(d: usize, classes: usize, cosine: f64, sigma: f64) -> Result<Self> {
        if !(1..=d).contains(&classes) {
            let expected = "at least 1 and at most d";
            return Err(Error::Parameter { name: "the number of classes", value: classes as f64, expected });
        }
        if !(0.0..1.0).contains(&cosine) {
            return Err(Error::Parameter { name: "the cosine", value: cosine, expected: "at least 0 and below 1" });
        }
        // Of e_k + t sum_j e_j the products are 2t + K t^2 = q, and 1 + q with itself; q / (1 + q) is the cosine.
        let q = cosine / (1.0 - cosine);
        let t = ((1.0 + classes as f64 * q).sqrt() - 1.0) / classes as f64;
        let mean = |(i, k)| if i == k { 1.0 + t } else { t };
        let means = Array2::from_shape_fn((d, classes), |(i, k)| A::of(if i < classes { mean((i, k)) } else { 0.0 }));
        Self::new(means.view(), sigma)
    }

    /// Means drawn uniformly from the sphere.
    ///
    /// # Errors
    /// d and the number of classes must be positive; sigma finite and not negative.
    pub fn random(d: usize, classes: usize, sigma: f64, rng: &mut (impl Rng + ?Sized)) -> Result<Self> {
        let draw = Array2::from_shape_simple_fn((d, classes), || A::of(StandardNormal.sample(rng)));
        Self::new(draw.view(), sigma)
    }

    /// `d x K`.
    pub fn means(&self) -> ArrayView2<'_, A> {
        self.means.view()
    }

    /// Unit tokens (`d x K per_class`) with their labels, of class `i % K` for token i.
    ///
    /// # Errors
    /// `per_class` must be positive.
    pub fn sample(&self, per_class: usize, rng: &mut (impl Rng + ?Sized)) -> Result<(Array2<A>, Vec<usize>)> {
        let (d, classes) = self.means.dim();
        let mut z = Array2::zeros((d, classes * per_class));
        for (i, mut token) in z.axis_iter_mut(Axis(1)).enumerate() {
            token.zip_mut_with(&self.means.column(i % classes), |z, mean| {
                let noise: f64 = StandardNormal.sample(rng);
                *z = A::of(mean.wide() + self.sigma * noise);
            });
        }
        Ok((unit_norm(z.view())?, (0..classes * per_class).map(|i| i % classes).collect()))
    }
}

/// Tokens with their labels before and after the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Through<A> {
    /// Before, `d x N`.
    pub before: Array2<A>,
    /// After, `d x N`.
    pub after: Array2<A>,
    /// The class of each.
    pub labels: Vec<usize>,
    /// The share that the nearest subspace of the training tokens gives its label, before.
    pub accuracy_before: f64,
    /// The same after.
    pub accuracy_after: f64,
}

/// A network on a mixture, and what it does with tokens old and new.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianRun<A> {
    /// The network, with Delta R by layer.
    pub network: ReduNet<A>,
    /// The tokens that it was built from.
    pub training: Through<A>,
    /// Tokens of the same mixture that it has not seen.
    pub held_out: Through<A>,
    /// The largest `|cos|` between the subspaces of two classes of training tokens, before.
    pub coherence_before: f64,
    /// The same after.
    pub coherence_after: f64,
}

/// Builds a network from `training` tokens a class and sends `held_out` others a class through it. The subspaces have
/// `max(1, d / K)` dimensions. `observe` is shown every layer as in [`ReduNet::build`].
///
/// # Errors
/// Both counts must be positive; for the rest as [`ReduNet::build`].
pub fn run_on_gaussians<A: Real>(
    mixture: &SphereMixture<A>,
    training: usize,
    held_out: usize,
    config: ReduNetConfig,
    rng: &mut (impl Rng + ?Sized),
    observe: impl FnMut(Stage<'_, A>, Mcr2<A>),
) -> Result<GaussianRun<A>> {
    let (d, classes) = mixture.means.dim();
    let width = Width::Rank((d / classes).max(1));
    let (train, labels) = mixture.sample(training, rng)?;
    let (new, new_labels) = mixture.sample(held_out, rng)?;
    let memberships = Memberships::from_labels(&labels, classes)?;
    let (network, features) = ReduNet::build(train.view(), &memberships, config, observe)?;
    let new_features = network.forward(new.view())?;
    let before = NearestSubspace::fit(train.view(), &labels, classes, width)?;
    let after = NearestSubspace::fit(features.view(), &labels, classes, width)?;
    let through = |z: Array2<A>, features: Array2<A>, labels: Vec<usize>| -> Result<Through<A>> {
        Ok(Through {
            accuracy_before: before.accuracy(z.view(), &labels)?,
            accuracy_after: after.accuracy(features.view(), &labels)?,
            before: z,
            after: features,
            labels,
        })
    };
    Ok(GaussianRun {
        training: through(train, features, labels)?,
        held_out: through(new, new_features, new_labels)?,
        coherence_before: before.coherence()?,
        coherence_after: after.coherence()?,
        network,
    })
}
