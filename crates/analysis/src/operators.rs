//! The learned operators of a layer against what the theory takes them for: U_k with orthonormal columns, bases of different heads incoherent, a complete
//! orthogonal dictionary, an output map that is U itself, a step within ISTA's bound.
//!
//! ```text
//! |U_k^T U_k - I|_F / sqrt(p)          per head, of the columns as they are and scaled to unit norm
//! cos of columns of different heads    the mutual coherence of [U_1 ... U_K]
//! |D^T D - I|_F / sqrt(d)              and eta against 2 / |D|_2^2, beyond which a gradient step on the residual overshoots
//! min_c |W - c U|_F / |W|_F            how far the output map is from a multiple of [U_1 ... U_K]
//! ```
//!
//! The divisions by sqrt(p) and sqrt(d) make the figures those of one column, so that sizes compare. All in float64.

mod of_model;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::stats::{Running, Stat};
use crate::{Error, Result};

/// What a layer has learned, as far as it has it. Tensors of any kind and device.
#[derive(Debug, Default)]
pub struct Operators {
    /// `[U_1 ... U_K]^T`, `[K p, d]`, head by head.
    pub u: Option<Tensor>,
    /// What the model adds to the projection on the bases, `[K p]`; none where that is all.
    pub shift: Option<Tensor>,
    /// Heads K.
    pub heads: i64,
    /// The dictionary, `[d, atoms]`; its columns are the atoms.
    pub dictionary: Option<Tensor>,
    /// The output map of the attention, `[d, K p]`; none where it is U itself.
    pub output: Option<Tensor>,
    /// ISTA's step size and the weight of its l1 norm; without meaning where there is no dictionary.
    pub eta: f64,
    /// See [`eta`](Self::eta).
    pub lambda: f64,
}

/// What is known of a layer's operators; a part is missing where the layer has no such operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorStats {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Of the subspaces' bases.
    pub subspaces: Option<SubspaceStats>,
    /// Of the dictionary.
    pub dictionary: Option<DictionaryStats>,
    /// `min_c |W - c U|_F / |W|_F` of the output map W: 0 for a multiple of U, 1 for a map that has nothing of it.
    pub output_distance: Option<f64>,
}

/// How far bases are from what the theory takes them for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubspaceStats {
    /// `|U_k^T U_k - I|_F / sqrt(p)` over the heads.
    pub orthonormality: Stat,
    /// The same with columns scaled to unit norm: angles alone.
    pub orthogonality: Stat,
    /// Norms of the columns.
    pub norms: Stat,
    /// `|cos|` between columns of different heads: mean and spread.
    pub coherence: Stat,
    /// The greatest of them.
    pub greatest_coherence: f64,
    /// Root mean square of the cosines between the columns of heads i and j, `[K][K]`.
    pub between_heads: Vec<Vec<f64>>,
    /// The greatest spectral norm of a U_k.
    pub spectral_norm: f64,
}

/// How far a dictionary is from an orthogonal one, and whether the step is within its bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DictionaryStats {
    /// Atoms.
    pub atoms: u64,
    /// `|D^T D - I|_F / sqrt(atoms)`.
    pub orthonormality: f64,
    /// The same with atoms scaled to unit norm.
    pub orthogonality: f64,
    /// `|D|_2`.
    pub spectral_norm: f64,
    /// The step size.
    pub eta: f64,
    /// `2 / |D|_2^2`; a greater step can raise the residual.
    pub step_bound: f64,
}

/// Measures the operators of layer `layer`.
///
/// # Errors
/// Operators whose shapes do not fit each other.
pub fn measure(layer: usize, operators: &Operators) -> Result<OperatorStats> {
    let wide = |t: &Tensor| -> Result<Tensor> { Ok(t.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?) };
    tch::no_grad(|| {
        let u = operators.u.as_ref().map(wide).transpose()?;
        let subspaces = u.as_ref().map(|u| subspaces(u, operators.heads)).transpose()?;
        let dictionary = operators.dictionary.as_ref().map(|d| dictionary(&wide(d)?, operators.eta)).transpose()?;
        let output_distance = match (&u, &operators.output) {
            (Some(u), Some(output)) => Some(output_distance(u, &wide(output)?)?),
            _ => None,
        };
        Ok(OperatorStats { layer, subspaces, dictionary, output_distance })
    })
}

/// The cosines between the first `each` columns of every head's basis, `[K each][K each]`: the Gram matrix that the paper draws.
///
/// # Shapes
/// `u`: `[K p, d]`.
///
/// # Errors
/// A `u` of another form.
pub fn gram(u: &Tensor, heads: i64, each: i64) -> Result<Vec<Vec<f64>>> {
    let bases = bases(&u.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?, heads)?;
    let [heads, p, d] = bases.size()[..] else { unreachable!("bases are [K, p, d]") };
    let each = each.clamp(1, p);
    let some = unit(&bases.f_narrow(1, 0, each)?.f_reshape([heads * each, d])?)?;
    rows(&some.f_matmul(&some.tr())?)
}

/// `[K p, d]` to `[K, p, d]`.
fn bases(u: &Tensor, heads: i64) -> Result<Tensor> {
    match u.size()[..] {
        [width, d] if heads > 0 && width > 0 && d > 0 && width % heads == 0 => {
            Ok(u.f_reshape([heads, width / heads, d])?)
        }
        _ => Err(Error::Shape {
            what: "[U_1 ... U_K]^T".into(),
            found: u.size(),
            expected: format!("[heads x p, d] with a height that {heads} heads divide; is the number of heads right?"),
        }),
    }
}

fn subspaces(u: &Tensor, heads: i64) -> Result<SubspaceStats> {
    let bases = bases(u, heads)?;
    let p = bases.size()[1];
    let directions = unit(u)?;
    let cosines = directions.f_matmul(&directions.tr())?.f_reshape([heads, p, heads, p])?;
    let squares = cosines.f_square()?.f_mean_dim([1i64, 3].as_slice(), false, None)?.f_sqrt()?;
    // A head's cosines with itself say nothing of coherence.
    let others = Tensor::f_eye(heads, (Kind::Double, Device::Cpu))?.f_eq(0.0)?.f_reshape([heads, 1, heads, 1])?;
    let between: Vec<f64> =
        cosines.f_abs()?.f_masked_select(&others.f_expand([heads, p, heads, p], false)?)?.try_into()?;
    let each = |bases: &Tensor| -> Result<Stat> {
        let errors = from_identity(&bases.f_matmul(&bases.f_transpose(1, 2)?)?)?;
        Ok(Vec::<f64>::try_from(errors)?.into_iter().collect::<Running>().stat())
    };
    let norms: Vec<f64> = u.f_norm_scalaropt_dim(2, [1i64].as_slice(), false)?.try_into()?;
    Ok(SubspaceStats {
        orthonormality: each(&bases)?,
        orthogonality: each(&unit(&bases)?)?,
        norms: norms.into_iter().collect::<Running>().stat(),
        greatest_coherence: between.iter().copied().fold(0.0, f64::max),
        coherence: between.into_iter().collect::<Running>().stat(),
        between_heads: rows(&squares)?,
        spectral_norm: bases.f_linalg_norm(2.0, [1i64, 2].as_slice(), false, None)?.f_max()?.f_double_value(&[])?,
    })
}

fn dictionary(d: &Tensor, eta: f64) -> Result<DictionaryStats> {
    let [_, atoms] = d.size()[..] else {
        return Err(Error::Shape { what: "D".into(), found: d.size(), expected: "[d, atoms]".into() });
    };
    let error = |columns: &Tensor| -> Result<f64> {
        Ok(from_identity(&columns.f_matmul(&columns.tr())?)?.f_double_value(&[])?)
    };
    let columns = d.tr();
    let spectral_norm = d.f_linalg_norm(2.0, [0i64, 1].as_slice(), false, None)?.f_double_value(&[])?;
    Ok(DictionaryStats {
        atoms: atoms.unsigned_abs(),
        orthonormality: error(&columns)?,
        orthogonality: error(&unit(&columns)?)?,
        spectral_norm,
        eta,
        step_bound: 2.0 / spectral_norm.powi(2),
    })
}

/// With `c = <W, U> / |U|^2`, `|W - c U|^2 = |W|^2 - <W, U>^2 / |U|^2`.
fn output_distance(u: &Tensor, output: &Tensor) -> Result<f64> {
    if output.size() != u.tr().size() {
        let expected = format!("{:?}, as the transpose of [U_1 ... U_K]^T", u.tr().size());
        return Err(Error::Shape { what: "the output map".into(), found: output.size(), expected });
    }
    let inner = output.f_mul(&u.tr())?.f_sum(Kind::Double)?.f_double_value(&[])?;
    let [norm_w, norm_u] = [output, u].map(|t| t.f_norm());
    let cosine = inner / (norm_w?.f_double_value(&[])? * norm_u?.f_double_value(&[])?);
    Ok((1.0 - cosine * cosine).max(0.0).sqrt())
}

/// `|G - I|_F / sqrt(size)` of square matrices.
fn from_identity(gram: &Tensor) -> Result<Tensor> {
    let size = gram.size().last().copied().unwrap_or(1);
    let eye = Tensor::f_eye(size, (Kind::Double, Device::Cpu))?;
    Ok(gram.f_sub(&eye)?.f_norm_scalaropt_dim(2, [-2i64, -1].as_slice(), false)?.f_div_scalar((size as f64).sqrt())?)
}

/// Rows scaled to unit norm; a row of zeros stays one.
fn unit(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.f_div(&rows.f_norm_scalaropt_dim(2, [-1i64].as_slice(), true)?.f_clamp_min(1e-12)?)?)
}

fn rows(matrix: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(Vec::<Vec<f64>>::try_from(matrix)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orthogonal(d: i64) -> Tensor {
        tch::manual_seed(3);
        Tensor::linalg_qr(&Tensor::randn([d, d], (Kind::Double, Device::Cpu)), "reduced").0
    }

    #[test]
    fn what_the_theory_takes_for_granted_measures_as_perfect() {
        let q = orthogonal(12);
        let operators = Operators {
            u: Some(q.shallow_clone()),
            shift: None,
            heads: 3,
            dictionary: Some(q.shallow_clone()),
            output: Some(q.tr() * -0.7),
            eta: 0.1,
            lambda: 0.1,
        };
        let found = measure(4, &operators).unwrap();
        let (u, d) = (found.subspaces.unwrap(), found.dictionary.unwrap());
        assert!(u.orthonormality.mean < 1e-12 && u.greatest_coherence < 1e-12 && (u.norms.mean - 1.0).abs() < 1e-12);
        assert!((u.between_heads[0][0] - 0.5).abs() < 1e-12 && u.between_heads[0][1] < 1e-12, "{:?}", u.between_heads);
        assert!(
            d.orthonormality < 1e-12 && (d.spectral_norm - 1.0).abs() < 1e-12 && (d.step_bound - 2.0).abs() < 1e-12
        );
        assert!(found.output_distance.unwrap() < 1e-7);
        assert_eq!((found.layer, d.atoms), (4, 12));
    }

    #[test]
    fn departures_are_measured() {
        let q = orthogonal(8);
        // Columns twice as long: U^T U = 4 I. A head that repeats another: cosines of 1.
        let twice = Operators { u: Some(&q * 2.0), heads: 2, ..Operators::default() };
        let u = measure(0, &twice).unwrap().subspaces.unwrap();
        assert!((u.orthonormality.mean - 3.0).abs() < 1e-12 && u.orthogonality.mean < 1e-12);
        assert!((u.spectral_norm - 2.0).abs() < 1e-12);
        let half = q.narrow(0, 0, 4);
        let repeated = Operators { u: Some(Tensor::cat(&[&half, &half], 0)), heads: 2, ..Operators::default() };
        let u = measure(0, &repeated).unwrap().subspaces.unwrap();
        assert!((u.greatest_coherence - 1.0).abs() < 1e-12);
        // An output map without a part of U.
        let signs = Tensor::from_slice(&[1.0f64, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]);
        let other = q.tr() * signs;
        let apart = Operators { u: Some(q.shallow_clone()), heads: 2, output: Some(other), ..Operators::default() };
        assert!((measure(0, &apart).unwrap().output_distance.unwrap() - 1.0).abs() < 1e-12);
        let cosines = gram(&q, 2, 2).unwrap();
        assert!(cosines.len() == 4 && (cosines[1][1] - 1.0).abs() < 1e-12 && cosines[0][3].abs() < 1e-12);
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let q = orthogonal(6);
        let odd = Operators { u: Some(q.shallow_clone()), heads: 4, ..Operators::default() };
        assert!(measure(0, &odd).unwrap_err().to_string().contains("4 heads divide"));
        let output = Some(Tensor::zeros([6, 5], (Kind::Double, Device::Cpu)));
        let bad = Operators { u: Some(q), heads: 2, output, ..Operators::default() };
        assert!(measure(0, &bad).unwrap_err().to_string().contains("the output map"));
        assert_eq!(measure(0, &Operators::default()).unwrap(), OperatorStats::default());
    }
}
