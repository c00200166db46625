//! Tokens in their subspaces: how many dimensions a head uses of its p, and which head claims which token.
//!
//! With W_k = U_k^T LN(Z^l) (a ViT's keys) and its singular values s_i:
//!
//! ```text
//! effective rank   exp(- sum_i q_i log q_i),  q_i = s_i^2 / sum_j s_j^2        (Roy and Vetterli 2007, of the energies)
//! head of token j  argmax_k |U_k^T z_j|^2,    its share  max_k |U_k^T z_j|^2 / sum_k |U_k^T z_j|^2
//! ```
//!
//! The share is 1/K where all heads see as much of a token, 1 where it lies in one subspace.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use whitebox_model::probe::{Probe, Site};

use crate::stats::{Running, Stat};
use crate::{Error, Result};

/// One layer's tokens in its subspaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenStats {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Dimension p of a subspace.
    pub head_dim: u64,
    /// Effective rank of a sample's tokens in each head.
    pub effective_rank: Vec<Stat>,
    /// Share of all tokens that each head claims.
    pub claimed: Vec<f64>,
    /// The claiming head's share of a token's energy, a sample's mean.
    pub share: Stat,
}

#[derive(Default)]
struct Layer {
    head_dim: i64,
    ranks: Vec<Running>,
    claimed: Vec<u64>,
    share: Running,
}

/// Measures the tokens of the forward passes it is shown, batch after batch; what it holds does not grow with them.
pub struct TokensProbe {
    heads: i64,
    layers: BTreeMap<usize, Layer>,
    failed: Option<Error>,
}

impl TokensProbe {
    /// A probe for a model with `heads` heads.
    pub fn new(heads: usize) -> Self {
        TokensProbe { heads: heads as i64, layers: BTreeMap::new(), failed: None }
    }

    /// The layers in order.
    ///
    /// # Errors
    /// The first thing that went wrong while it was shown something.
    pub fn finish(self) -> Result<Vec<TokenStats>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let layers = self.layers.into_iter().map(|(number, layer)| {
            let all = layer.claimed.iter().sum::<u64>().max(1) as f64;
            TokenStats {
                layer: number,
                head_dim: layer.head_dim.unsigned_abs(),
                effective_rank: layer.ranks.iter().map(Running::stat).collect(),
                claimed: layer.claimed.iter().map(|count| *count as f64 / all).collect(),
                share: layer.share.stat(),
            }
        });
        Ok(layers.collect())
    }

    fn take(&mut self, number: usize, value: &Tensor) -> Result<()> {
        let w = by_head(value, self.heads)?; // b k n p
        let heads = self.heads as usize;
        let layer = self.layers.entry(number).or_default();
        layer.head_dim = w.size()[3];
        layer.ranks.resize_with(heads, Running::default);
        layer.claimed.resize(heads, 0);
        for (at, rank) in Vec::<f64>::try_from(effective_rank(&w)?.f_flatten(0, -1)?)?.into_iter().enumerate() {
            layer.ranks[at % heads].push(rank);
        }
        let (heads_of, shares) = claims(value, self.heads)?;
        for (count, more) in layer
            .claimed
            .iter_mut()
            .zip(Vec::<i64>::try_from(heads_of.f_flatten(0, -1)?.f_bincount::<Tensor>(None, self.heads)?)?)
        {
            *count += more.unsigned_abs();
        }
        layer.share.extend(Vec::<f64>::try_from(shares.f_mean_dim([1i64].as_slice(), false, Kind::Double)?)?);
        Ok(())
    }
}

impl Probe for TokensProbe {
    fn wants(&self, _layer: usize, site: Site) -> bool {
        self.failed.is_none() && site == Site::Uz
    }

    fn see(&mut self, layer: usize, _site: Site, value: &Tensor) {
        if self.failed.is_none() {
            self.failed = tch::no_grad(|| self.take(layer, value)).err();
        }
    }
}

/// The head that claims each token, `[B, n]` int64, and its share of the token's energy, `[B, n]`.
///
/// # Shapes
/// `uz`: `[B, n, K p]`.
///
/// # Errors
/// A tensor of another form.
pub fn claims(uz: &Tensor, heads: i64) -> Result<(Tensor, Tensor)> {
    let energies = by_head(uz, heads)?.f_square()?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?; // b k n
    let (most, who) = energies.f_max_dim(1, false)?;
    let all = energies.f_sum_dim_intlist([1i64].as_slice(), false, None)?.f_clamp_min(f64::MIN_POSITIVE)?;
    Ok((who, most.f_div(&all)?))
}

/// `[..., n, p]` to `[...]`: the effective rank of each matrix; 0 for a matrix of zeros.
fn effective_rank(w: &Tensor) -> Result<Tensor> {
    let turned = w.f_transpose(-2, -1)?;
    let size = w.size();
    let gram = if size[size.len() - 2] < size[size.len() - 1] { w.f_matmul(&turned)? } else { turned.f_matmul(w)? };
    let energies = gram.f_linalg_eigvalsh("L")?.f_clamp_min(0.0)?;
    let all = energies.f_sum_dim_intlist([-1i64].as_slice(), true, None)?;
    let shares = energies.f_div(&all.f_clamp_min(f64::MIN_POSITIVE)?)?;
    let entropy = shares.f_xlogy(&shares)?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?.f_neg()?;
    Ok(entropy.f_exp()?.f_mul(&all.f_squeeze_dim(-1)?.f_gt(0.0)?)?)
}

/// `[B, n, K p]` to `[B, K, n, p]`, float64.
fn by_head(uz: &Tensor, heads: i64) -> Result<Tensor> {
    match uz.size()[..] {
        [b, n, width] if heads > 0 && n > 0 && width > 0 && width % heads == 0 => {
            let wide = uz.detach().f_to_kind(Kind::Double)?;
            Ok(wide.f_reshape([b, n, heads, width / heads])?.f_transpose(1, 2)?)
        }
        _ => Err(Error::Shape {
            what: "U^T LN(Z^l)".into(),
            found: uz.size(),
            expected: format!("[batch, tokens, heads x p] with a width that {heads} heads divide"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn ranks_and_claims_of_tokens_that_are_known() {
        // Head 0: both dimensions used alike; head 1: one dimension; the last token belongs to head 1.
        let tokens = Tensor::from_slice(&[3.0f64, 0., 1., 0., 0., 3., 1., 0., 0., 0., 2., 0.]).view([1, 3, 4]);
        let mut probe = TokensProbe::new(2);
        probe.see(0, Site::Uz, &tokens);
        let found = probe.finish().unwrap().remove(0);
        assert!((found.effective_rank[0].mean - 2.0).abs() < 1e-9, "{found:?}");
        assert!((found.effective_rank[1].mean - 1.0).abs() < 1e-9, "{found:?}");
        assert_eq!(found.claimed, [2.0 / 3.0, 1.0 / 3.0]);
        assert!((found.share.mean - (0.9 + 0.9 + 1.0) / 3.0).abs() < 1e-9);
    }

    #[test]
    fn tokens_of_zeros_have_no_rank_and_shapes_are_checked() {
        let mut probe = TokensProbe::new(2);
        probe.see(0, Site::Uz, &Tensor::zeros([2, 5, 6], (Kind::Float, Device::Cpu)));
        assert_eq!(probe.finish().unwrap()[0].effective_rank[0].mean, 0.0);
        let mut probe = TokensProbe::new(4);
        probe.see(0, Site::Uz, &Tensor::zeros([2, 5, 6], (Kind::Float, Device::Cpu)));
        assert!(probe.finish().unwrap_err().to_string().contains("4 heads divide"));
    }
}
