//! What a language model does, whatever its layers are.

use tch::Tensor;
use whitebox_model::Result;
use whitebox_model::probe::Probe;

use crate::cache::Cache;
use crate::config::LanguageConfig;

/// A language model that can be looked into: tokens to the probabilities of the next.
///
/// Ids are `Int64`. Those on the CPU are checked and sent to the model's device; those that lie on a GPU are taken on trust in their range.
/// `train` switches dropout on.
pub trait LanguageModel {
    /// The description from which this model can be built again.
    fn config(&self) -> LanguageConfig;

    /// The most tokens that it reads at once.
    fn context(&self) -> i64;

    /// How many words it knows: ids are below this, and so many logits there are.
    fn vocabulary(&self) -> i64;

    /// What the head reads, after the last LayerNorm. `probe` is shown the layers.
    ///
    /// # Shapes
    /// `ids`: `[B, n]` to `[B, n, d]`.
    ///
    /// # Errors
    /// Ids of another rank, kind or range; more tokens than the context.
    fn hidden(&self, ids: &Tensor, train: bool, probe: &mut dyn Probe) -> Result<Tensor>;

    /// The head.
    ///
    /// # Shapes
    /// `hidden`: `[.., d]` to `[.., V]`.
    fn logits(&self, hidden: &Tensor) -> Tensor;

    /// Logits of the next word at every place.
    ///
    /// # Shapes
    /// `ids`: `[B, n]` to `[B, n, V]`.
    ///
    /// # Errors
    /// Those of [`LanguageModel::hidden`].
    fn forward(&self, ids: &Tensor, train: bool, probe: &mut dyn Probe) -> Result<Tensor> {
        Ok(self.logits(&self.hidden(ids, train, probe)?))
    }

    /// The mean cross-entropy of `targets`, which stand already where they are to be predicted; [`IGNORED`](crate::IGNORED) (-100) is passed
    /// over, and where there is nothing else the loss is 0. A large batch's logits are formed a part at a time ([`loss`](crate::loss)).
    ///
    /// # Shapes
    /// `ids`, `targets`: `[B, n]`; to a scalar.
    ///
    /// # Errors
    /// Those of [`LanguageModel::hidden`]; targets of another shape or range.
    fn loss(&self, ids: &Tensor, targets: &Tensor, train: bool, probe: &mut dyn Probe) -> Result<Tensor>;

    /// An empty cache for `rows` sequences of at most `capacity` tokens.
    ///
    /// # Errors
    /// No row; a capacity of nothing, or beyond the context.
    fn cache(&self, rows: i64, capacity: i64) -> Result<Cache>;

    /// What the head reads of tokens that follow those in `cache`, which then holds them too. No gradients.
    ///
    /// # Shapes
    /// `ids`: `[B, m]` to `[B, m, d]`.
    ///
    /// # Errors
    /// Those of [`LanguageModel::hidden`]; another model's cache, or one without room for `m` more. The cache is then as before.
    fn advance(&self, ids: &Tensor, cache: &mut Cache) -> Result<Tensor>;

    /// Logits at the places of tokens that follow those in `cache`: what [`LanguageModel::forward`] gives there for all together.
    ///
    /// # Shapes
    /// `ids`: `[B, m]` to `[B, m, V]`.
    ///
    /// # Errors
    /// Those of [`LanguageModel::advance`].
    fn step(&self, ids: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        let hidden = self.advance(ids, cache)?;
        Ok(tch::no_grad(|| self.logits(&hidden)))
    }

    /// Whether a backward pass computes each layer again instead of keeping what it needs of it (activation checkpointing).
    fn recompute_layers(&mut self, on: bool);
}
