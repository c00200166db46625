//! The configurations of tokens that the paper draws beside each other (NIPS figure 3), to be compared by Delta R and
//! sparsity.
//!
//! ```text
//! random         directions drawn uniformly: R is large, and no small subspaces make R^c small
//! compressed     z = U_k a, all U_k within 3p/2 dimensions: R is small, and U_k codes the others' tokens too
//! + linearised   z = U_k a, [U_1 .. U_K] orthonormal: R is large, R^c is small
//! + sparse       z = e_j, the axes dealt out to the classes: about the same rates with one entry a token
//! ```

use ndarray::{Array2, Axis, s};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::{Error, Result, orthonormalize, unit_norm};

/// A configuration of tokens, as the paper's figure compares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Configuration {
    /// Directions drawn uniformly.
    Random,
    /// Each class in a subspace of dimension p, all subspaces within the same 3p/2 dimensions and thus close to each
    /// other.
    Compressed,
    /// Each class in a subspace of dimension p, the subspaces orthogonal and in general position to the axes.
    Linearised,
    /// The same, along the axes, and each token along one of them.
    Sparse,
}

impl Configuration {
    /// All, from the least to the most structured.
    pub const ALL: [Self; 4] = [Self::Random, Self::Compressed, Self::Linearised, Self::Sparse];

    /// A name for a table's row.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Compressed => "compressed",
            Self::Linearised => "compressed, linearised",
            Self::Sparse => "compressed, linearised, sparse",
        }
    }

    /// Unit tokens in this configuration, of class `i % classes` for token i.
    ///
    /// # Errors
    /// `classes * p` must be positive and at most d, and `n` positive.
    pub fn tokens(
        self,
        d: usize,
        classes: usize,
        p: usize,
        n: usize,
        rng: &mut (impl Rng + ?Sized),
    ) -> Result<Array2<f64>> {
        if classes == 0 || p == 0 || classes.checked_mul(p).is_none_or(|columns| columns > d) {
            let expected = "positive and at most d";
            return Err(Error::Parameter { name: "classes times p", value: classes as f64 * p as f64, expected });
        }
        let mut gaussian =
            |rows, columns| Array2::from_shape_simple_fn((rows, columns), || -> f64 { StandardNormal.sample(rng) });
        let bases = match self {
            Self::Random => return unit_norm(gaussian(d, n).view()),
            Self::Sparse => Array2::eye(d),
            Self::Linearised => orthonormalize(gaussian(d, classes * p).view())?,
            Self::Compressed => {
                let room = (3 * p).div_ceil(2).min(d);
                let shared = orthonormalize(gaussian(d, room).view())?;
                let inside: Vec<_> = (0..classes)
                    .map(|_| Ok(shared.dot(&orthonormalize(gaussian(room, p).view())?)))
                    .collect::<Result<_>>()?;
                let views: Vec<_> = inside.iter().map(|u| u.view()).collect();
                ndarray::concatenate(Axis(1), &views).expect("every basis is d x p")
            }
        };
        let mut codes = gaussian(p, n);
        if self == Self::Sparse {
            // Each token along one axis, the axes of its class in turn.
            codes = Array2::from_shape_fn((p, n), |(j, i)| if j == (i / classes) % p { 1.0 } else { 0.0 });
        }
        let mut z = Array2::zeros((d, n));
        for (i, mut token) in z.axis_iter_mut(Axis(1)).enumerate() {
            let k = i % classes;
            token.assign(&bases.slice(s![.., k * p..(k + 1) * p]).dot(&codes.column(i)));
        }
        unit_norm(z.view())
    }
}
