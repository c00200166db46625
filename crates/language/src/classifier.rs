//! A text's class, or a number about it: a masked encoder, a vector of the whole text, a linear map.
//!
//! ```text
//! out = W dropout(pooled) + b        pooled: tanh(W_p h_1 + b_p), or the mean of the real tokens
//! ```
//!
//! With one output it is a regression and its loss the squared error, as GLUE's similarity task (STS-B) has it; otherwise cross-entropy. The map's parameters
//! are `head.*`, which [`LoadOptions::replace_head`](whitebox_model::weights::LoadOptions) leaves as drawn when a pre-trained encoder is loaded.

use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Kind, Reduction, Tensor};
use whitebox_model::config::check_between;
use whitebox_model::layers::Linear;
use whitebox_model::probe::Probe;
use whitebox_model::{Error, Result};

use crate::config::MaskedConfig;
use crate::decoder::{MATRIX, check_rate};
use crate::masked::{MaskedModel, mean_of_real};

/// The vector of a whole text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextPool {
    /// The pooler on the first token.
    #[default]
    Pooler,
    /// The mean of the real tokens.
    Mean,
}

/// A classifier of texts. `encoder.mlm_head` is passed over: nothing would read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The encoder.
    pub encoder: MaskedConfig,
    /// Classes; 1 is a regression.
    pub outputs: i64,
    /// Default: pooler.
    #[serde(default)]
    pub pool: TextPool,
    /// Dropout of the text's vector, in training. Default: 0.1.
    #[serde(default = "tenth")]
    pub dropout: f64,
}

fn tenth() -> f64 {
    0.1
}

impl ClassifierConfig {
    /// A classifier by the pooler.
    pub fn new(encoder: MaskedConfig, outputs: i64) -> Self {
        ClassifierConfig { encoder, outputs, pool: TextPool::Pooler, dropout: tenth() }
    }

    /// The encoder as it is built: without a head for masked words, and without a pooler that nothing reads.
    pub fn encoder(&self) -> MaskedConfig {
        let mut encoder = self.encoder.clone().with_mlm_head(false);
        if self.pool == TextPool::Mean {
            match &mut encoder {
                MaskedConfig::CrateBert(c) => c.pooler = false,
                MaskedConfig::Bert(c) => c.pooler = false,
            }
        }
        encoder
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        let encoder = self.encoder();
        encoder.check()?;
        check_between("outputs", self.outputs, 1 << 24)?;
        if self.pool == TextPool::Pooler && !encoder.body().pooler {
            return Err(Error::Config("the encoder has no pooler: choose pool = \"mean\"".into()));
        }
        check_rate("dropout", self.dropout)
    }

    /// Draws a classifier under `root`.
    pub fn build(&self, root: &Path<'_>) -> Result<SequenceClassifier> {
        SequenceClassifier::new(root, self)
    }

    /// Trainable numbers, counted from this alone.
    pub fn parameters(&self) -> u64 {
        let (d, outputs) = (self.encoder.d().unsigned_abs(), self.outputs.unsigned_abs());
        self.encoder().cost().parameters.saturating_add(d.saturating_mul(outputs)).saturating_add(outputs)
    }
}

/// A classifier of texts.
pub struct SequenceClassifier {
    /// The encoder.
    pub encoder: Box<dyn MaskedModel>,
    head: Linear,
    config: ClassifierConfig,
}

impl SequenceClassifier {
    /// A classifier under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &ClassifierConfig) -> Result<Self> {
        config.check()?;
        Ok(SequenceClassifier {
            encoder: config.encoder().build(root)?,
            head: Linear::new(&(root / "head"), config.encoder.d(), config.outputs, true, MATRIX),
            config: config.clone(),
        })
    }

    /// The description from which it can be built again.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// The vector of each text.
    ///
    /// # Shapes
    /// As [`MaskedModel::encode`], to `[B, d]`.
    ///
    /// # Errors
    /// Those of [`MaskedModel::encode`].
    pub fn features(
        &self,
        ids: &Tensor,
        token_types: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        train: bool,
        probe: &mut dyn Probe,
    ) -> Result<Tensor> {
        let hidden = self.encoder.encode(ids, token_types, attention_mask, train, probe)?;
        match self.config.pool {
            TextPool::Pooler => self.encoder.pool(&hidden),
            TextPool::Mean => mean_of_real(&hidden, attention_mask),
        }
    }

    /// Logits of the classes, or the one number.
    ///
    /// # Shapes
    /// As [`MaskedModel::encode`], to `[B, outputs]`.
    ///
    /// # Errors
    /// Those of [`MaskedModel::encode`].
    pub fn forward(
        &self,
        ids: &Tensor,
        token_types: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        train: bool,
        probe: &mut dyn Probe,
    ) -> Result<Tensor> {
        let features = self.features(ids, token_types, attention_mask, train, probe)?;
        Ok(self.head.forward(&features.dropout(self.config.dropout, train)))
    }

    /// The mean loss of what [`SequenceClassifier::forward`] gave.
    ///
    /// # Shapes
    /// `outputs`: `[B, outputs]`; `targets`: `[B]`, classes as `Int64`, or numbers for a regression; to a scalar.
    ///
    /// # Errors
    /// Targets of another length or kind; classes that there are not (looked at on the CPU).
    pub fn loss(&self, outputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let regression = self.config.outputs == 1;
        let kind_fits = if regression { targets.is_floating_point() } else { targets.kind() == Kind::Int64 };
        if targets.dim() != 1 || targets.size()[0] != outputs.size()[0] || !kind_fits {
            let expected = if regression { "numbers" } else { "classes of kind Int64" };
            return Err(Error::Input {
                found: format!("targets {:?} of kind {:?}", targets.size(), targets.kind()),
                expected: format!("{expected}, [{}]", outputs.size()[0]),
            });
        }
        let outputs = outputs.to_kind(Kind::Float);
        if regression {
            let targets = targets.to_device(outputs.device()).to_kind(Kind::Float);
            return Ok(outputs.squeeze_dim(1).mse_loss(&targets, Reduction::Mean));
        }
        crate::ids::check_range(targets, self.config.outputs, "classes", None)?;
        let targets = targets.to_device(outputs.device());
        Ok(outputs.cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Mean, crate::IGNORED, 0.0))
    }
}
