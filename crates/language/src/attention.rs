//! Attention of given queries, keys and values, for all models here: with a mask, behind what a cache holds, or with the map shown.
//!
//! ```text
//! o_i = sum_j softmax_j(s q_i . k_j) v_j        j at or before i where attention is causal, j a real token where there is padding
//! ```
//!
//! A mask is added to the scores: 0 where a key is seen, a large negative number where not. It is finite, so that a row of nothing but padding gives
//! numbers that nobody reads and no NaN.
//!
//! The map is formed for a probe that asks for it; otherwise libtorch's fused attention computes it in tiles. Values and gradients of both agree
//! (tests/causal.rs).

use tch::{Kind, Tensor};
use whitebox_model::probe::{Probe, Site, show};

/// Which keys a query meets.
pub(crate) enum Keys<'a> {
    /// Those at and before it; the queries are the last of the keys.
    Causal,
    /// All, with this added to the scores, `[B, 1, 1, n]`, where there is padding.
    All(Option<&'a Tensor>),
}

/// What a score of an unseen key is lowered by; in half precision as much as it holds.
fn unseen(kind: Kind) -> f64 {
    if kind == Kind::Half { -6e4 } else { -1e30 }
}

/// What padding adds to the scores.
///
/// # Shapes
/// `mask`: `[B, n]`, 1 for a real token and 0 for padding, to `[B, 1, 1, n]`.
pub(crate) fn padding(mask: &Tensor, kind: Kind) -> Tensor {
    let hidden = mask.eq(0).unsqueeze(1).unsqueeze(1);
    hidden.zeros_like().to_kind(kind).masked_fill(&hidden, unseen(kind))
}

/// Attention; `scale` is what scores are multiplied by, `dropout` the rate at which entries of the map are left out.
///
/// # Shapes
/// `q`: `[B, K, m, p]`, `k` and `v`: `[B, K, n, p]`, to `[B, m, K p]`.
pub(crate) fn attend(
    [q, k, v]: [&Tensor; 3],
    keys: &Keys<'_>,
    scale: f64,
    dropout: f64,
    layer: usize,
    probe: &mut dyn Probe,
) -> Tensor {
    let (m, n) = (q.size()[2], k.size()[2]);
    let o = if probe.wants(layer, Site::Attention) {
        let scores = q.matmul(&k.transpose(-2, -1)) * scale;
        let scores = match keys {
            Keys::Causal if m == 1 => scores,
            Keys::Causal => scores.masked_fill(&seen(m, n, q).logical_not(), f64::NEG_INFINITY),
            Keys::All(Some(padding)) => scores + padding.to_kind(q.kind()),
            Keys::All(None) => scores,
        };
        let map = scores.softmax(-1, None::<Kind>);
        show(probe, layer, Site::Attention, &map);
        map.dropout(dropout, dropout > 0.0).matmul(v)
    } else {
        let (mask, causal) = match keys {
            Keys::Causal if m == n => (None, m > 1),
            Keys::Causal if m == 1 => (None, false),
            Keys::Causal => (Some(seen(m, n, q)), false),
            Keys::All(padding) => (padding.map(|padding| padding.to_kind(q.kind())), false),
        };
        Tensor::scaled_dot_product_attention(q, k, v, mask.as_ref(), dropout, causal, scale, false)
    };
    o.transpose(1, 2).flatten(2, 3)
}

/// Which of `n` keys each of the last `m` meets, `[m, n]`.
fn seen(m: i64, n: i64, like: &Tensor) -> Tensor {
    Tensor::ones([m, n], (Kind::Bool, like.device())).tril(n - m)
}

/// `[B, n, K p]` to `[B, K, n, p]`.
pub(crate) fn split_heads(projected: &Tensor, heads: i64) -> Tensor {
    let size = projected.size();
    projected.view([size[0], size[1], heads, size[2] / heads]).transpose(1, 2)
}
