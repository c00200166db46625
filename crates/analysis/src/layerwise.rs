//! Layer by layer: how compressed and how sparse the tokens are.
//!
//! The coding rate of one sample's projected tokens W_k = U_k^T LN(Z^l) in R^{p x n}, every column scaled to unit norm:
//!
//! R^c = sum_k 1/2 logdet(I + p/(n eps^2) W_k W_k^T), eps^2 = 0.01, n counting the class token.
//!
//! This is what the released analysis script measures, on the *input* of the attention of layer l. The paper states
//! R^c(Z^{l+1/2} | U^l), on its output; published figures come from the script, hence the choice. The
//! smaller of the p x p and n x n forms is taken (equal by Sylvester's identity), in float64 whatever the model's kind.
//! Departures: a token that projects to zero adds nothing (the script divides 0 by 0), and the spread of the non-zero
//! fraction is unbiased like that of the rate (the script's is not).

use crate::rate;
use crate::stats::{LayerStats, Running};
use crate::{Error, Result};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use whitebox_model::probe::{Probe, Site};

/// eps^2, the squared coding precision of the released analysis script.
pub const EPS_SQUARED: f64 = 0.01;

/// R^c of every sample, in nats: unit-norm tokens per head, eps^2 = [`EPS_SQUARED`], summed over the heads.
///
/// # Shapes
/// `uz` is `[B, n, K p]`, heads in consecutive blocks of p; the result is `[B]`, float64, on the device of `uz`.
/// A sample with a value that is not finite has the rate NaN.
///
/// # Errors
/// A shape that is not `[B, n, K p]` with n, p > 0.
pub fn coding_rate(uz: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, heads, p) = head_shape(uz, heads)?;
    if batch == 0 {
        return Ok(Tensor::f_zeros([0], (Kind::Double, uz.device()))?);
    }
    rate::rates(&uz.detach(), heads, p as f64 / (tokens as f64 * EPS_SQUARED), true)
}

/// The fraction of entries that are not exactly zero, of every sample.
///
/// # Shapes
/// `z` is `[B, ...]`; the result is `[B]`, float64. NaN counts as non-zero.
///
/// # Errors
/// A scalar, or samples without entries.
pub fn nonzero_fraction(z: &Tensor) -> Result<Tensor> {
    let size = z.size();
    let entries: i64 = size.iter().skip(1).product();
    if size.len() < 2 || entries == 0 {
        return Err(shape("Z^{l+1}", z, "[batch, tokens, d] with at least one entry a sample".into()));
    }
    let z = z.detach();
    let nonzero = if rate::on_host(&z) {
        torch_extras::counts::nonzero(&z.f_contiguous()?)?
    } else {
        z.f_ne(0.0)?.f_flatten(1, -1)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)?
    };
    Ok(nonzero.f_to_kind(Kind::Double)?.f_div_scalar(entries as f64)?)
}

fn shape(what: &str, tensor: &Tensor, expected: String) -> Error {
    Error::Shape { what: what.into(), found: tensor.size(), expected }
}

fn head_shape(uz: &Tensor, heads: usize) -> Result<(i64, i64, i64, i64)> {
    let k = i64::try_from(heads).unwrap_or(0);
    match uz.size()[..] {
        [batch, tokens, width] if k > 0 && tokens > 0 && width > 0 && width % k == 0 => {
            Ok((batch, tokens, k, width / k))
        }
        _ => Err(shape(
            "U^T LN(Z^l)",
            uz,
            format!(
                "[batch, tokens, heads x p] with at least one token and a width that {heads} heads divide; is the number of heads right?"
            ),
        )),
    }
}

#[derive(Default)]
struct Layer {
    /// n, K, p of the first batch; a later batch must agree, since gamma depends on them.
    shape: Option<(i64, i64, i64)>,
    rate: Running,
    nonzero: Running,
    has_mlp: bool,
    has_code: bool,
    has_memberships: bool,
}

/// Measures every layer of the forward passes it is shown, batch after batch; what it holds does not grow with them.
///
/// It reads [`Site::Uz`] (R^c) and [`Site::ZOut`] (non-zero fraction). A layer that shows [`Site::MlpHidden`] has an
/// MLP in the place of ISTA: its output is a residual stream without exact zeros, so no fraction is given for it. A layer
/// that shows its [`Site::Code`] (CRATE-alpha, whose output is dense) is measured there.
pub struct LayerwiseProbe {
    heads: usize,
    layers: BTreeMap<usize, Layer>,
    failed: Option<Error>,
}

impl LayerwiseProbe {
    /// A probe for a model with `heads` heads.
    pub fn new(heads: usize) -> Self {
        LayerwiseProbe { heads, layers: BTreeMap::new(), failed: None }
    }

    /// Images seen so far, by the layer that saw most.
    pub fn images(&self) -> u64 {
        self.layers.values().map(|layer| layer.rate.stat().n).max().unwrap_or(0)
    }

    /// The layers in order.
    ///
    /// # Errors
    /// The first thing that went wrong in [`Probe::see`], which has no way to say so itself.
    pub fn finish(self) -> Result<Vec<LayerStats>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let stats = self.layers.into_iter().filter_map(|(number, layer)| {
            let (tokens, heads, p) = layer.shape?;
            let nonzero = layer.nonzero.stat();
            Some(LayerStats {
                layer: number,
                place: if layer.has_mlp && !layer.has_memberships { "keys of LN(Z^l)" } else { "U^T LN(Z^l)" }.into(),
                tokens: tokens.unsigned_abs(),
                heads: heads.unsigned_abs(),
                head_dim: p.unsigned_abs(),
                coding_rate: layer.rate.stat(),
                nonzero_fraction: (!layer.has_mlp && nonzero.n > 0).then_some(nonzero),
            })
        });
        Ok(stats.collect())
    }

    fn measure(&mut self, number: usize, site: Site, value: &Tensor) -> Result<()> {
        let layer = self.layers.entry(number).or_default();
        match site {
            Site::Uz => {
                let (_, tokens, heads, p) = head_shape(value, self.heads)?;
                let (n, k, q) = *layer.shape.get_or_insert((tokens, heads, p));
                if (n, k, q) != (tokens, heads, p) {
                    let expected = format!(
                        "[batch, {n}, {}] as in the batches before it: rates of other sizes cannot be averaged; measure them with a probe of their own",
                        k * q
                    );
                    return Err(shape(&format!("U^T LN(Z^l) of layer {number}"), value, expected));
                }
                layer.rate.extend(values(&coding_rate(value, self.heads)?)?);
            }
            Site::Code => {
                layer.has_code = true;
                layer.nonzero.extend(values(&nonzero_fraction(value)?)?);
            }
            Site::ZOut if !layer.has_mlp && !layer.has_code => {
                layer.nonzero.extend(values(&nonzero_fraction(value)?)?);
            }
            Site::Memberships => layer.has_memberships = true,
            Site::MlpHidden => layer.has_mlp = true,
            _ => {}
        }
        Ok(())
    }
}

fn values(samples: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::<f64>::try_from(samples)?)
}

impl Probe for LayerwiseProbe {
    fn wants(&self, _layer: usize, site: Site) -> bool {
        self.failed.is_none()
            && matches!(site, Site::Uz | Site::Code | Site::ZOut | Site::MlpHidden | Site::Memberships)
    }

    fn see(&mut self, layer: usize, site: Site, value: &Tensor) {
        if self.failed.is_none() {
            self.failed = tch::no_grad(|| self.measure(layer, site, value)).err();
        }
    }
}
