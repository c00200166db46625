//! What a masked encoder does, whatever its layers are; and a text as one vector.

use tch::{Kind, Tensor};
use whitebox_model::probe::Probe;
use whitebox_model::{Error, Result};

use crate::config::MaskedConfig;

/// An encoder of texts that can be looked into: tokens that see both sides.
pub trait MaskedModel {
    /// The description from which this model can be built again.
    fn config(&self) -> MaskedConfig;

    /// Tokens after the last layer. `probe` is shown the layers; `train` switches dropout on.
    ///
    /// Tokens whose mask is 0 are padding: nothing that others become depends on them, and what they become means nothing. Without types all tokens
    /// are of type 0, without mask all are real.
    ///
    /// # Shapes
    /// `ids`, `token_types`, `attention_mask`: `[B, n]`, `Int64`; to `[B, n, d]`.
    ///
    /// # Errors
    /// Ids of another rank, kind or range; more tokens than the context; types or a mask of another shape, kind or range.
    fn encode(
        &self,
        ids: &Tensor,
        token_types: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        train: bool,
        probe: &mut dyn Probe,
    ) -> Result<Tensor>;

    /// `tanh(W h_1 + b)` of the first token.
    ///
    /// # Shapes
    /// `hidden`: `[B, n, d]` to `[B, d]`.
    ///
    /// # Errors
    /// A model without a pooler.
    fn pool(&self, hidden: &Tensor) -> Result<Tensor>;

    /// Logits of the word at every place.
    ///
    /// # Shapes
    /// `hidden`: `[.., d]` to `[.., V]`; single places may be picked before.
    ///
    /// # Errors
    /// A model without a head for this.
    fn mlm_logits(&self, hidden: &Tensor) -> Result<Tensor>;

    /// The mean cross-entropy of the words that `labels` name; [`IGNORED`](crate::IGNORED) (-100) is passed over. Only places that are asked for
    /// go through the head.
    ///
    /// # Shapes
    /// `labels`: `[B, n]`, `Int64`; to a scalar.
    ///
    /// # Errors
    /// Those of [`MaskedModel::encode`] and [`MaskedModel::mlm_logits`]; labels of another shape or range.
    fn mlm_loss(
        &self,
        ids: &Tensor,
        token_types: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        labels: &Tensor,
        train: bool,
        probe: &mut dyn Probe,
    ) -> Result<Tensor>;

    /// Whether a backward pass computes each layer again instead of keeping what it needs of it (activation checkpointing).
    fn recompute_layers(&mut self, on: bool);
}

/// The mean of the real tokens.
///
/// # Shapes
/// `hidden`: `[B, n, d]`; `attention_mask`: `[B, n]`; to `[B, d]`.
///
/// # Errors
/// A mask that does not stand beside the tokens.
pub fn mean_of_real(hidden: &Tensor, attention_mask: Option<&Tensor>) -> Result<Tensor> {
    let Some(mask) = attention_mask else { return Ok(hidden.mean_dim(1, false, None::<Kind>)) };
    if hidden.dim() != 3 || mask.size() != hidden.size()[..2] {
        return Err(Error::Input {
            found: format!("a mask {:?} for tokens {:?}", mask.size(), hidden.size()),
            expected: "tokens [B, n, d] and a mask [B, n]".to_owned(),
        });
    }
    // Chosen and not multiplied: whatever padding has become, a NaN too, takes no part.
    let real = mask.to_device(hidden.device()).ne(0).unsqueeze(-1);
    let sum = hidden.where_self(&real, &hidden.zeros_like()).sum_dim_intlist(1, false, None::<Kind>);
    let count = real.sum_dim_intlist(1, false, Kind::Float).clamp_min(1.0);
    Ok(sum / count.to_kind(hidden.kind()))
}

/// A text as a vector of length one: the mean of its real tokens, normalised, as sentence-transformers makes it of MiniLM. The product of two is the
/// cosine of their texts.
///
/// # Shapes
/// As [`MaskedModel::encode`], to `[B, d]`.
///
/// # Errors
/// Those of [`MaskedModel::encode`].
pub fn sentence_embedding(
    model: &dyn MaskedModel,
    ids: &Tensor,
    token_types: Option<&Tensor>,
    attention_mask: Option<&Tensor>,
    probe: &mut dyn Probe,
) -> Result<Tensor> {
    let hidden = model.encode(ids, token_types, attention_mask, false, probe)?;
    let mean = mean_of_real(&hidden, attention_mask)?;
    let norm = mean.square().sum_dim_intlist(-1, true, None::<Kind>).sqrt().clamp_min(1e-12);
    Ok(mean / norm)
}
