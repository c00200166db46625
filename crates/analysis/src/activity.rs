//! Which atoms are used: how often each entry of a layer's code is active, atoms that never are or always are, and how large active entries get.
//!
//! The code of a token is Z^{l+1} in CRATE, whose axes are the atoms of D; CRATE-alpha's over its overcomplete dictionary; the hidden activations of an MLP where a
//! layer has one, as in a ViT. An entry is active where it is above zero, which for ISTA's ReLU is the same as not being zero.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use torch_extras::counts::activity;
use whitebox_model::probe::{Probe, Site};

use crate::rate::on_host;
use crate::stats::{Running, Stat};
use crate::{Error, Result};

/// Active entries are counted by size in this many classes, evenly in the logarithm between the [`LEAST`] and the [`MOST`]; smaller and larger ones go to the ends.
pub const CLASSES: i64 = 48;
/// The lower end.
pub const LEAST: f64 = 1e-4;
/// The upper end.
pub const MOST: f64 = 1e2;

/// One layer's use of its atoms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActivityStats {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Which code it is, e.g. `Z^{l+1}`.
    pub place: String,
    /// Share of active entries of a sample.
    pub active: Stat,
    /// Tokens seen.
    pub tokens: u64,
    /// How often each atom was active, as a share of the tokens.
    pub frequency: Vec<f64>,
    /// Atoms that were active for no token.
    pub dead: u64,
    /// Atoms that were active for every token.
    pub always_on: u64,
    /// Active entries by size, [`CLASSES`] shares of all active ones.
    pub sizes: Vec<f64>,
}

#[derive(Default)]
struct Layer {
    site: Option<Site>,
    active: Running,
    tokens: u64,
    counts: Option<Tensor>,
    sizes: Option<Tensor>,
}

/// Counts the active entries of the forward passes it is shown, batch after batch; what it holds does not grow with them.
#[derive(Default)]
pub struct ActivityProbe {
    layers: BTreeMap<usize, Layer>,
    failed: Option<Error>,
}

impl ActivityProbe {
    /// The layers in order.
    ///
    /// # Errors
    /// The first thing that went wrong while it was shown something.
    pub fn finish(self) -> Result<Vec<ActivityStats>> {
        match self.failed {
            Some(error) => Err(error),
            None => self.layers.into_iter().map(|(number, layer)| layer.stats(number)).collect(),
        }
    }

    fn take(&mut self, number: usize, site: Site, value: &Tensor) -> Result<()> {
        let layer = self.layers.entry(number).or_default();
        if layer.site.is_some_and(|seen| seen != site) {
            return Ok(());
        }
        layer.site = Some(site);
        let (batch, tokens, atoms) = value.size3()?;
        let (by_atom, by_size) = counts(&value.detach())?;
        let of_sample = Vec::<i64>::try_from(by_atom.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)?)?;
        layer.active.extend(of_sample.iter().map(|count| *count as f64 / (tokens * atoms) as f64));
        layer.tokens += (batch * tokens).unsigned_abs();
        let by_atom = by_atom.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Int64)?;
        layer.counts = Some(added(layer.counts.take(), by_atom)?);
        layer.sizes = Some(added(layer.sizes.take(), by_size)?);
        Ok(())
    }
}

/// Where a layer's code may be shown. Of several it is the first: what comes out of a layer that has shown its code already is the tokens again.
pub(crate) fn is_code(site: Site) -> bool {
    matches!(site, Site::Code | Site::MlpHidden | Site::ZOut)
}

/// What a layer's code is called.
pub(crate) fn place(site: Option<Site>) -> &'static str {
    match site {
        Some(Site::Code) => "the code over the overcomplete dictionary",
        Some(Site::MlpHidden) => "the hidden activations of the MLP",
        _ => "Z^{l+1}",
    }
}

fn added(sum: Option<Tensor>, more: Tensor) -> Result<Tensor> {
    match sum {
        Some(sum) if sum.size() != more.size() => Err(Error::Shape {
            what: "a layer's code".into(),
            found: more.size(),
            expected: format!("{:?} atoms as in the batches before it", sum.size()),
        }),
        Some(sum) => Ok(sum.f_add(&more)?),
        None => Ok(more),
    }
}

/// Active entries, of every sample by atom, `[B, m]`, and of all by size, `[CLASSES]`: on the CPU by `torch_extras::counts`, in tensor operations elsewhere.
fn counts(code: &Tensor) -> Result<(Tensor, Tensor)> {
    if !on_host(code) {
        return by_tensors(code);
    }
    let (by_atom, by_size) = activity(&code.f_contiguous()?, &bounds())?;
    Ok((by_atom, by_size.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Int64)?))
}

/// Where the classes but the first begin.
fn bounds() -> Vec<f64> {
    let width = (MOST / LEAST).log10() / CLASSES as f64;
    (1..CLASSES).map(|class| LEAST * 10f64.powf(class as f64 * width)).collect()
}

fn by_tensors(code: &Tensor) -> Result<(Tensor, Tensor)> {
    let code = code.f_to_kind(Kind::Float)?;
    let active = code.f_gt(0.0)?;
    let by_atom = active.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)?;
    let bounds = Tensor::f_from_slice(&bounds())?.f_to_kind(Kind::Float)?.f_to_device(code.device())?;
    let classes = code.f_masked_select(&active)?.f_bucketize(&bounds, true, true)?;
    Ok((by_atom, classes.f_bincount::<Tensor>(None, CLASSES)?))
}

impl Layer {
    fn stats(self, layer: usize) -> Result<ActivityStats> {
        let counts: Vec<i64> = self.counts.map(Vec::<i64>::try_from).transpose()?.unwrap_or_default();
        let sizes: Vec<i64> = self.sizes.map(Vec::<i64>::try_from).transpose()?.unwrap_or_default();
        let (tokens, all) = (self.tokens as f64, sizes.iter().sum::<i64>().max(1) as f64);
        let count = |wanted: i64| counts.iter().filter(|count| **count == wanted).count() as u64;
        Ok(ActivityStats {
            layer,
            place: place(self.site).into(),
            active: self.active.stat(),
            tokens: self.tokens,
            frequency: counts.iter().map(|count| *count as f64 / tokens).collect(),
            dead: count(0),
            always_on: count(self.tokens as i64),
            sizes: sizes.iter().map(|count| *count as f64 / all).collect(),
        })
    }
}

impl Probe for ActivityProbe {
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

    #[test]
    fn atoms_and_sizes_are_counted() {
        let mut probe = ActivityProbe::default();
        // Two samples of two tokens with four atoms: the first always, the second never, the third once, the fourth below zero.
        let code = Tensor::from_slice(&[1.0f32, 0., 0., -1., 10., 0., 0., -1., 1., 0., 2., -1., 1., 0., 0., -1.]);
        probe.see(0, Site::ZOut, &code.view([2, 2, 4]));
        probe.see(0, Site::ZOut, &code.view([2, 2, 4]));
        let layers = probe.finish().unwrap();
        let found = &layers[0];
        assert_eq!(found.frequency, [1.0, 0.0, 0.25, 0.0]);
        assert_eq!((found.dead, found.always_on, found.tokens, found.active.n), (2, 1, 8, 4));
        assert!((found.active.mean - 5.0 / 16.0).abs() < 1e-12);
        assert!((found.sizes.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let class = |size: f64| ((size / LEAST).log10() / (MOST / LEAST).log10() * CLASSES as f64 + 1e-6) as usize;
        assert!((found.sizes[class(1.0)] - 0.6).abs() < 1e-12 && (found.sizes[class(10.0)] - 0.2).abs() < 1e-12);
    }

    #[test]
    fn host_and_tensors_agree() {
        tch::manual_seed(8);
        let code = Tensor::randn([3, 50, 37], (Kind::Double, Device::Cpu)).exp() * 1e-2 - 5e-3;
        // Ends and bounds, and what is no size at all.
        let mut special = bounds();
        special.extend([0.0, -0.0, 1e-45, 1e-30, LEAST, MOST, 1e30, f64::INFINITY, -1.0, f64::NEG_INFINITY, f64::NAN]);
        code.get(1).get(0).narrow(0, 0, 37).copy_(&Tensor::from_slice(&special[..37]));
        code.get(1).get(1).narrow(0, 0, special.len() as i64 - 37).copy_(&Tensor::from_slice(&special[37..]));
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16] {
            let code = code.to_kind(kind);
            let (host, tensors) = (counts(&code).unwrap(), by_tensors(&code).unwrap());
            assert!(host.0.equal(&tensors.0) && host.1.equal(&tensors.1), "{kind:?}: {:?} {:?}", host.1, tensors.1);
            assert_eq!(host.1.sum(None).int64_value(&[]), host.0.sum(None).int64_value(&[]));
        }
    }

    #[test]
    fn a_layer_is_measured_at_its_code() {
        let mut probe = ActivityProbe::default();
        probe.see(1, Site::MlpHidden, &Tensor::ones([1, 3, 6], (Kind::Float, Device::Cpu)));
        probe.see(1, Site::ZOut, &Tensor::zeros([1, 3, 2], (Kind::Float, Device::Cpu)));
        let layers = probe.finish().unwrap();
        assert_eq!((layers[0].frequency.len(), layers[0].always_on), (6, 6));
        assert!(layers[0].place.contains("MLP"));
    }
}
