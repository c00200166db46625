//! What switches an atom on: for every atom of a layer's code the tokens that activate it most, and how selective it is.
//!
//! The code is that of [`activity`](crate::activity): Z^{l+1}, the code over an overcomplete dictionary, or the hidden activations of an MLP. With x the activation of an
//! atom at a token (what is not above zero counts as zero), over all tokens seen:
//!
//! ```text
//! kurtosis = E (x - E x)^4 / (E (x - E x)^2)^2        3 for a Gaussian; of an atom that is 1 for a share q of tokens, else 0, about 1/q where q is small
//! ```
//!
//! A large one says that the atom is silent for most tokens and loud for few, which is what one asks of an interpretable neuron. By it [`AtomStats::selective`] chooses
//! atoms to be looked at, among those that are neither almost dead nor mostly on: an atom that fired twice has nothing to tell, and where one is hardly ever off a large
//! kurtosis is that of its silences.
//!
//! What is held are `keep` activations an atom and five sums, however many tokens come. The outcome does not depend on how sequences are divided into batches: of equal
//! activations the earlier is kept.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use whitebox_model::probe::{Probe, Site};

use crate::activity::{is_code, place};
use crate::{Error, Result};

/// An atom is almost dead if it is active for a smaller share of the tokens.
pub const ALMOST_DEAD: f64 = 1e-3;
/// An atom is mostly on if it is active for a larger share of the tokens.
pub const MOSTLY_ON: f64 = 0.5;

/// A token at which an atom was active.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activation {
    /// How much.
    pub value: f64,
    /// The sequence, counted from 0 in the order in which they were shown.
    pub sequence: u64,
    /// The token in it, counted from 0.
    pub position: u64,
}

/// One layer's atoms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtomStats {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Which code it is, e.g. `Z^{l+1}`.
    pub place: String,
    /// Tokens seen.
    pub tokens: u64,
    /// How often each atom was active, as a share of the tokens.
    pub frequency: Vec<f64>,
    /// The kurtosis of each atom's activation; 0 for one that is always the same.
    pub kurtosis: Vec<f64>,
    /// Of each atom the largest activations, largest first; fewer where it was active less often.
    pub top: Vec<Vec<Activation>>,
}

impl AtomStats {
    /// At most `wanted` atoms of the largest kurtosis, largest first, among those active for a share of the tokens from [`ALMOST_DEAD`] to [`MOSTLY_ON`], and for no fewer
    /// tokens than activations are kept.
    pub fn selective(&self, wanted: usize) -> Vec<usize> {
        let kept = self.top.iter().map(Vec::len).max().unwrap_or(0);
        let alive = |atom: &usize| {
            (ALMOST_DEAD..=MOSTLY_ON).contains(&self.frequency[*atom]) && self.top[*atom].len() == kept && kept > 0
        };
        let mut atoms: Vec<usize> = (0..self.frequency.len()).filter(alive).collect();
        atoms.sort_by(|a, b| self.kurtosis[*b].total_cmp(&self.kurtosis[*a]).then(a.cmp(b)));
        atoms.truncate(wanted);
        atoms
    }
}

#[derive(Default)]
struct Layer {
    site: Option<Site>,
    sequences: i64,
    tokens: i64,
    /// Active tokens of each atom, and the sums of x to x^4, `[5, atoms]`.
    sums: Option<Tensor>,
    /// The largest so far, `[atoms, keep]` at most: values, sequences and positions.
    top: Option<[Tensor; 3]>,
}

/// Watches the atoms of the forward passes it is shown, batch after batch; what it holds does not grow with them.
pub struct AtomsProbe {
    keep: i64,
    layers: BTreeMap<usize, Layer>,
    failed: Option<Error>,
}

impl AtomsProbe {
    /// A probe that keeps this many activations of each atom.
    pub fn new(keep: usize) -> Self {
        AtomsProbe { keep: i64::try_from(keep).unwrap_or(i64::MAX), layers: BTreeMap::new(), failed: None }
    }

    /// The layers in order.
    ///
    /// # Errors
    /// The first thing that went wrong while it was shown something.
    pub fn finish(self) -> Result<Vec<AtomStats>> {
        match self.failed {
            Some(error) => Err(error),
            None => self.layers.into_iter().map(|(number, layer)| layer.stats(number)).collect(),
        }
    }

    fn take(&mut self, number: usize, site: Site, value: &Tensor) -> Result<()> {
        let keep = self.keep;
        let layer = self.layers.entry(number).or_default();
        if layer.site.is_some_and(|seen| seen != site) {
            return Ok(());
        }
        layer.site = Some(site);
        let (batch, tokens, atoms) = value.size3()?;
        if let Some(sums) = layer.sums.as_ref().filter(|sums| sums.size()[1] != atoms) {
            let expected = format!("{} atoms as in the batches before it", sums.size()[1]);
            return Err(Error::Shape { what: "a layer's code".into(), found: value.size(), expected });
        }
        let value = value.detach().f_to_kind(Kind::Float)?;
        let above = value.f_gt(0.0)?;
        // What is no number is not above zero either.
        let value = value.f_where_self(&above, &value.f_zeros_like()?)?.f_flatten(0, 1)?;
        let wide = value.f_to_kind(Kind::Double)?;
        let square = wide.f_square()?;
        let powers = [
            above.f_flatten(0, 1)?,
            wide.shallow_clone(),
            square.shallow_clone(),
            square.f_mul(&wide)?,
            square.f_square()?,
        ];
        let sums = powers.iter().map(|power| power.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double));
        let sums = Tensor::f_stack(&sums.collect::<std::result::Result<Vec<_>, _>>()?, 0)?;
        layer.sums = Some(match layer.sums.take() {
            Some(before) => before.f_add(&sums)?,
            None => sums,
        });
        if keep > 0 && batch * tokens > 0 {
            let [values, at] = largest(&value.f_tr()?.f_contiguous()?, keep)?;
            let sequences = at.f_div_scalar_mode(tokens, "floor")?.f_add_scalar(layer.sequences)?;
            let found = [values, sequences, at.f_remainder(tokens)?];
            layer.top = Some(match layer.top.take() {
                Some(before) => merged(&before, &found, keep)?,
                None => found,
            });
        }
        layer.sequences += batch;
        layer.tokens += batch * tokens;
        Ok(())
    }
}

/// The largest of each row of numbers that are not below zero, `[atoms, keep]`, and where they are; of equal ones the first.
///
/// Such a float's bits grow with it. With what is left of the place below them, no two entries are equal, and the choice is the same whatever libtorch does with ties.
fn largest(rows: &Tensor, keep: i64) -> Result<[Tensor; 2]> {
    let count = rows.size2()?.1;
    let left = Tensor::f_arange_start_step(count - 1, -1, -1, (Kind::Int64, rows.device()))?;
    let keys = rows.f_view_dtype(Kind::Int)?.f_to_kind(Kind::Int64)?.f_mul_scalar(1i64 << 31)?.f_add(&left)?;
    let (_, at) = keys.f_topk(keep.min(count), -1, true, true)?;
    Ok([rows.f_gather(1, &at, false)?, at])
}

/// The largest of both, of equal ones those that came before.
fn merged(before: &[Tensor; 3], found: &[Tensor; 3], keep: i64) -> Result<[Tensor; 3]> {
    let [values, sequences, positions] = [0, 1, 2].map(|i| Tensor::f_cat(&[&before[i], &found[i]], 1));
    let values = values?;
    let (_, order) = values.f_sort_stable(true, -1, true)?;
    let order = order.f_narrow(1, 0, keep.min(values.size2()?.1))?;
    let chosen = |of: &Tensor| of.f_gather(1, &order, false);
    Ok([chosen(&values)?, chosen(&sequences?)?, chosen(&positions?)?])
}

impl Layer {
    fn stats(self, layer: usize) -> Result<AtomStats> {
        let sums = self.sums.map(Vec::<Vec<f64>>::try_from).transpose()?.unwrap_or(vec![Vec::new(); 5]);
        let n = self.tokens as f64;
        let atoms = sums[0].len();
        let kurtosis = (0..atoms).map(|atom| {
            let [m1, m2, m3, m4] = [1, 2, 3, 4].map(|power: usize| sums[power][atom] / n);
            let variance = m2 - m1 * m1;
            let fourth = m4 - 4.0 * m1 * m3 + 6.0 * m1 * m1 * m2 - 3.0 * m1.powi(4);
            // Below that it is what rounding has left.
            if variance > 1e-12 * m2 { fourth / (variance * variance) } else { 0.0 }
        });
        let mut top = vec![Vec::new(); atoms];
        if let Some([values, sequences, positions]) = self.top {
            let values = Vec::<Vec<f64>>::try_from(values.f_to_kind(Kind::Double)?)?;
            let [sequences, positions] = [sequences, positions].map(Vec::<Vec<i64>>::try_from);
            let (sequences, positions) = (sequences?, positions?);
            for (atom, kept) in top.iter_mut().enumerate() {
                let places = sequences[atom].iter().zip(&positions[atom]);
                let all = values[atom].iter().zip(places).filter(|(value, _)| **value > 0.0);
                kept.extend(all.map(|(value, (sequence, position))| Activation {
                    value: *value,
                    sequence: sequence.unsigned_abs(),
                    position: position.unsigned_abs(),
                }));
            }
        }
        Ok(AtomStats {
            layer,
            place: place(self.site).into(),
            tokens: self.tokens.unsigned_abs(),
            frequency: sums[0].iter().map(|count| count / n).collect(),
            kurtosis: kurtosis.collect(),
            top,
        })
    }
}

impl Probe for AtomsProbe {
    fn wants(&self, _layer: usize, site: Site) -> bool {
        self.failed.is_none() && is_code(site)
    }

    fn see(&mut self, layer: usize, site: Site, value: &Tensor) {
        if self.failed.is_none() {
            self.failed = tch::no_grad(|| self.take(layer, site, value)).err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn watched(code: &Tensor, batch: i64, keep: usize) -> AtomStats {
        let mut probe = AtomsProbe::new(keep);
        for part in code.split(batch, 0) {
            probe.see(0, Site::ZOut, &part);
        }
        probe.finish().unwrap().remove(0)
    }

    #[test]
    fn the_largest_are_where_they_were_put() {
        // Two sequences of three tokens with two atoms: the second fires once, the first three times, twice alike.
        let code = [0.0f32, 0., 5., 0., 1., 0., 5., 0., 0., 9., -7., 0.];
        let found = watched(&Tensor::from_slice(&code).view([2, 3, 2]), 1, 4);
        let at = |value, sequence, position| Activation { value, sequence, position };
        assert_eq!(found.top[0], [at(5.0, 0, 1), at(5.0, 1, 0), at(1.0, 0, 2)]);
        assert_eq!(found.top[1], [at(9.0, 1, 1)]);
        assert_eq!((found.frequency[0], found.tokens), (0.5, 6));
        // An atom that is 9 for one token of six: variance and fourth moment of a biased coin.
        let q: f64 = 1.0 / 6.0;
        let coin = (1.0 - 3.0 * q * (1.0 - q)) / (q * (1.0 - q));
        assert!((found.kurtosis[1] - coin).abs() < 1e-9, "{} and {coin}", found.kurtosis[1]);
    }

    #[test]
    fn batches_do_not_matter() {
        tch::manual_seed(11);
        // Coarse values, so that many are equal; a NaN, which is no activation.
        let code = (Tensor::randn([12, 7, 5], (Kind::Float, Device::Cpu)) * 3.0).round();
        let _ = code.get(3).get(2).get(1).fill_(f64::NAN);
        let whole = watched(&code, 12, 6);
        for batch in [1, 2, 5] {
            let parts = watched(&code, batch, 6);
            assert_eq!(whole.top, parts.top, "batches of {batch}");
            assert_eq!(whole.frequency, parts.frequency);
            assert!(whole.kurtosis.iter().zip(&parts.kurtosis).all(|(a, b)| (a - b).abs() < 1e-9));
        }
        for (atom, top) in whole.top.iter().enumerate() {
            let mut all: Vec<(f64, i64)> =
                (0..84).map(|i| (code.double_value(&[i / 7, i % 7, atom as i64]), i)).collect();
            all.retain(|(value, _)| *value > 0.0);
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let found: Vec<(f64, i64)> = top.iter().map(|a| (a.value, (a.sequence * 7 + a.position) as i64)).collect();
            assert_eq!(found, all[..6], "atom {atom}");
        }
    }

    #[test]
    fn loud_and_rare_is_selective_and_almost_dead_is_not() {
        // Atoms: always on, one token in ten, one of 2,000.
        let code = Tensor::zeros([20, 100, 3], (Kind::Float, Device::Cpu));
        let _ = code.select(2, 0).fill_(1.0);
        let _ = code.narrow(1, 0, 10).select(2, 1).fill_(2.0);
        let _ = code.get(7).get(50).get(2).fill_(100.0);
        let found = watched(&code, 6, 2);
        assert!(found.kurtosis[2] > found.kurtosis[1] && found.kurtosis[0] == 0.0, "{:?}", found.kurtosis);
        assert_eq!(found.selective(5), [1]);
        // One that is off once in 2,000 has a large kurtosis and is mostly on; one that is on for a third is not.
        let _ = code.get(0).get(99).get(0).fill_(0.0);
        let third = Tensor::zeros([20, 100, 1], (Kind::Float, Device::Cpu));
        let _ = third.narrow(1, 0, 33).fill_(1.0);
        let found = watched(&Tensor::cat(&[third, code], 2), 6, 2);
        assert!(found.kurtosis[1] > found.kurtosis[2] && found.kurtosis[2] > found.kurtosis[0]);
        assert_eq!((found.selective(5), found.selective(1)), (vec![2, 0], vec![2]));
    }

    #[test]
    fn another_width_is_refused() {
        let mut probe = AtomsProbe::new(2);
        probe.see(0, Site::Code, &Tensor::ones([1, 2, 8], (Kind::Float, Device::Cpu)));
        probe.see(0, Site::ZOut, &Tensor::ones([1, 2, 4], (Kind::Float, Device::Cpu)));
        probe.see(0, Site::Code, &Tensor::ones([1, 2, 6], (Kind::Float, Device::Cpu)));
        assert!(probe.finish().unwrap_err().to_string().contains("8 atoms"));
    }
}
