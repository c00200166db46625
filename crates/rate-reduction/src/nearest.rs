//! The nearest-subspace classifier, and the angles between the subspaces of classes (book ch. 4; released MCR^2 and
//! ReduNet code):
//!
//! ```text
//! Z_k = U_k S_k V_k^T, the strongest directions kept
//! class(z) = argmin_k ||z - U_k U_k^T z|| = argmax_k ||U_k^T z||
//! ```
//!
//! Of tokens that stand for all their cyclic shifts, the subspace is the one that all shifts of a class span. In the
//! basis of [`Shifts`] it is a sum of one subspace a frequency, found frequency by frequency; the strongest directions
//! are taken over all of them.

use ndarray::{Array2, ArrayView2, Axis, s};
use ndarray_linalg::{JobSvd, SVDDC};
use rayon::prelude::*;

use crate::redunet::{Block, Shifts, Split};
use crate::resolvent::{dense, lapack};
use crate::subspace::cosines;
use crate::{Error, Real, Result, check};

/// How many directions the subspace of a class has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Width {
    /// The strongest ones, this many, or all that the class spans where they are fewer. Over shifts a frequency with a
    /// mirror image gives two directions at once; one of these is taken even if the number is 1.
    Rank(usize),
    /// As many of the strongest as hold this share of the class's energy; above 0, at most 1.
    Energy(f64),
}

/// A subspace for each class, and the classifier that goes by them.
#[derive(Debug, Clone, PartialEq)]
pub struct NearestSubspace<A> {
    split: Split,
    /// Orthonormal, by class and block; without columns where a class has no direction in a block.
    bases: Vec<Vec<Array2<A>>>,
}

impl<A: Real> NearestSubspace<A> {
    /// The subspaces that the tokens of each class span.
    ///
    /// # Shapes
    /// `z` is `d x N`, with a label below `classes` for each token.
    ///
    /// # Errors
    /// `z` must be finite and not empty, the labels fit, each class have a token that is not zero, and the width be
    /// positive.
    pub fn fit(z: ArrayView2<'_, A>, labels: &[usize], classes: usize, width: Width) -> Result<Self> {
        Self::fit_blocks(Split::whole(z.nrows()), z, labels, classes, width)
    }

    /// The subspaces that the tokens of each class span together with all their shifts.
    ///
    /// # Shapes
    /// `tokens` are those of [`Shifts::tokens`], and so are all that this classifier is given later.
    ///
    /// # Errors
    /// As for [`NearestSubspace::fit`], and the tokens must be in the basis.
    pub fn fit_shifts(
        shifts: &Shifts<A>,
        tokens: ArrayView2<'_, A>,
        labels: &[usize],
        classes: usize,
        width: Width,
    ) -> Result<Self> {
        shifts.admit(tokens)?;
        Self::fit_blocks(shifts.split(), tokens, labels, classes, width)
    }

    fn fit_blocks(split: Split, z: ArrayView2<'_, A>, labels: &[usize], classes: usize, width: Width) -> Result<Self> {
        admit_labels(z, labels, classes)?;
        match width {
            Width::Rank(0) => {
                return Err(Error::Parameter { name: "the rank", value: 0.0, expected: "at least 1" });
            }
            Width::Energy(share) if !(share > 0.0 && share <= 1.0) => {
                let expected = "above 0 and at most 1";
                return Err(Error::Parameter { name: "the share of energy", value: share, expected });
            }
            _ => {}
        }
        let bases = (0..classes).map(|k| class_bases(&split, z, labels, k, width)).collect::<Result<_>>()?;
        Ok(Self { split, bases })
    }

    /// The dimension of each class's subspace.
    pub fn dimensions(&self) -> Vec<usize> {
        self.bases.iter().map(|blocks| blocks.iter().map(|u| u.ncols()).sum()).collect()
    }

    /// `||U_k^T z||^2` of every token and class: the energy that each subspace holds.
    ///
    /// # Shapes
    /// `z` is `d x N`, the result `K x N`.
    ///
    /// # Errors
    /// `z` must be finite, not empty, and of the subspaces' d.
    pub fn energies(&self, z: ArrayView2<'_, A>) -> Result<Array2<f64>> {
        check::matrix("Z", z)?;
        check::shape("Z", z.shape(), &[self.split.dim(), z.ncols()])?;
        let mut energies = Array2::zeros((self.bases.len(), z.ncols()));
        for (blocks, mut held) in self.bases.iter().zip(energies.rows_mut()) {
            for (block, u) in self.split.blocks().iter().zip(blocks) {
                for row in u.t().dot(&z.slice(s![block.rows(), ..])).rows() {
                    held.zip_mut_with(&row, |sum, v| *sum += v.wide() * v.wide());
                }
            }
        }
        check::computed("the energy in a subspace", energies)
    }

    /// For every token the class whose subspace is nearest, the first of equals.
    ///
    /// # Errors
    /// As for [`NearestSubspace::energies`].
    pub fn classify(&self, z: ArrayView2<'_, A>) -> Result<Vec<usize>> {
        let energies = self.energies(z)?;
        let nearest = |held: ndarray::ArrayView1<'_, f64>| {
            held.iter()
                .enumerate()
                .fold((0, f64::NEG_INFINITY), |best, (k, &e)| if e > best.1 { (k, e) } else { best })
                .0
        };
        Ok(energies.columns().into_iter().map(nearest).collect())
    }

    /// The share of tokens that are given their label.
    ///
    /// # Errors
    /// As for [`NearestSubspace::energies`], and there must be a label for each token.
    pub fn accuracy(&self, z: ArrayView2<'_, A>, labels: &[usize]) -> Result<f64> {
        check::shape("the labels", &[labels.len()], &[z.ncols()])?;
        let found = self.classify(z)?;
        Ok(found.iter().zip(labels).filter(|(a, b)| a == b).count() as f64 / labels.len() as f64)
    }

    /// The principal angles between two classes' subspaces in radians, rising: as many as the smaller has dimensions.
    ///
    /// # Errors
    /// There must be such classes.
    pub fn principal_angles(&self, k: usize, l: usize) -> Result<Vec<f64>> {
        let (a, b) = (self.class(k)?, self.class(l)?);
        let mut found = Vec::new();
        for (a, b) in a.iter().zip(b).filter(|(a, b)| a.ncols() > 0 && b.ncols() > 0) {
            found.extend(cosines(a, b)?.into_iter().map(|c| c.wide().min(1.0).acos()));
        }
        // Directions that meet none of the other's are orthogonal to all of them.
        let dimensions = self.dimensions();
        found.resize(dimensions[k].min(dimensions[l]), std::f64::consts::FRAC_PI_2);
        found.sort_by(f64::total_cmp);
        Ok(found)
    }

    /// `max |cos|` between directions of each two classes' subspaces, `K x K`: 1 on the diagonal, 0 off it when all are
    /// orthogonal.
    ///
    /// # Errors
    /// Where LAPACK does not find the singular values.
    pub fn cosines(&self) -> Result<Array2<f64>> {
        let classes = self.bases.len();
        let mut table = Array2::eye(classes);
        for (k, l) in (0..classes).flat_map(|k| (0..k).map(move |l| (k, l))) {
            let largest = self.principal_angles(k, l)?.first().map_or(0.0, |angle| angle.cos());
            table[(k, l)] = largest;
            table[(l, k)] = largest;
        }
        Ok(table)
    }

    /// The largest `|cos|` between directions of two classes' subspaces: 0 when all are orthogonal, and for a single
    /// class.
    ///
    /// # Errors
    /// As for [`NearestSubspace::cosines`].
    pub fn coherence(&self) -> Result<f64> {
        let table = self.cosines()?;
        Ok(table.indexed_iter().filter(|((k, l), _)| k != l).fold(0.0, |top, (_, &c)| f64::max(top, c)))
    }

    fn class(&self, k: usize) -> Result<&[Array2<A>]> {
        let expected = "below the number of classes";
        Ok(self.bases.get(k).ok_or(Error::Parameter { name: "the class", value: k as f64, expected })?)
    }
}

/// A direction, or two that come together, of one block.
struct Candidate {
    /// The energy along each.
    energy: f64,
    block: usize,
}

/// A class's orthonormal basis in every block.
fn class_bases<A: Real>(
    split: &Split,
    z: ArrayView2<'_, A>,
    labels: &[usize],
    class: usize,
    width: Width,
) -> Result<Vec<Array2<A>>> {
    let mine: Vec<usize> = labels.iter().enumerate().filter(|(_, l)| **l == class).map(|(i, _)| i).collect();
    if mine.is_empty() {
        return Err(Error::Empty { what: "a class", rows: z.nrows(), columns: 0 });
    }
    let members = z.select(Axis(1), &mine);
    let decomposed: Vec<_> = split
        .blocks()
        .par_iter()
        .map(|block| decompose(*block, members.slice(s![block.rows(), ..])))
        .collect::<Result<_>>()?;
    let mut found: Vec<Candidate> = Vec::new();
    for (block, (shape, (_, sigma))) in split.blocks().iter().zip(&decomposed).enumerate() {
        let together = shape.together();
        let energy = |s: &A| s.wide() * s.wide() / together as f64;
        found.extend(sigma.iter().step_by(together).map(|s| Candidate { energy: energy(s), block }));
    }
    // A stable sort: within a block the order of the singular values stays.
    found.sort_by(|a, b| b.energy.total_cmp(&a.energy));
    let count = |candidate: &Candidate| split.blocks()[candidate.block].together();
    let all: f64 = found.iter().map(|c| c.energy * count(c) as f64).sum();
    let rounding = (A::ULP * (z.nrows() * mine.len()) as f64).powi(2) * found.first().map_or(0.0, |c| c.energy);
    let (mut taken, mut held, mut dimension) = (vec![0; split.blocks().len()], 0.0, 0);
    for candidate in found.iter().filter(|c| c.energy > rounding) {
        let enough = match width {
            Width::Rank(rank) => dimension + count(candidate) > rank && dimension > 0,
            Width::Energy(share) => held >= share * all,
        };
        if enough {
            break;
        }
        taken[candidate.block] += count(candidate);
        dimension += count(candidate);
        held += candidate.energy * count(candidate) as f64;
    }
    if dimension == 0 {
        return Err(Error::RankDeficient { what: "a class of tokens", column: 0 });
    }
    Ok(decomposed.iter().zip(taken).map(|((u, _), width)| u.slice(s![.., ..width]).to_owned()).collect())
}

/// Left singular vectors and singular values of a block's tokens with all their shifts, up to a common factor.
fn decompose<A: Real>(block: Block, z: ArrayView2<'_, A>) -> Result<(Array2<A>, Vec<A>)> {
    let missing = Error::Overflow { what: "the singular vectors of a class" };
    let spread = dense(block.spread(z).view());
    let (u, sigma, _) = spread.svddc(JobSvd::Some).map_err(|e| lapack("a class of tokens", e))?;
    Ok((u.ok_or(missing)?, sigma.to_vec()))
}

/// Whether there is a label below `classes` for every token of a finite matrix.
pub(crate) fn admit_labels<A: Real>(z: ArrayView2<'_, A>, labels: &[usize], classes: usize) -> Result<()> {
    check::matrix("Z", z)?;
    check::shape("the labels", &[labels.len()], &[z.ncols()])?;
    match labels.iter().position(|l| *l >= classes) {
        Some(token) => Err(Error::Label { token, label: labels[token], classes }),
        None => Ok(()),
    }
}
