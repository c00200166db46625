//! The frame that both encoders here share, BERT's: words, positions and types, layers, a pooler, a head for masked words.
//!
//! ```text
//! z      = LN(word[ids] + position[o..o + n] + type[types])        z = layer_l(z), l = 1..L
//! pooled = tanh(W z_1 + b)
//! logits = word LN(GELU(W z + b)) + c
//! ```
//!
//! Positions are counted from 0; RoBERTa's files begin at 2, which `position_offset` says. Matrices and tables are drawn from `N(0, 0.02^2)`. Parameter
//! names are those of Hugging Face's BERT, under another prefix in CRATE-BERT.

use tch::nn::{Init, Path};
use tch::{Device, Tensor};
use whitebox_model::config::{check_between, check_layers};
use whitebox_model::layers::{LayerNorm, Linear};
use whitebox_model::probe::{Probe, Site, show};
use whitebox_model::recompute::{Layer, through};
use whitebox_model::{Error, Result};

use crate::attention::padding;
use crate::config::MaskedConfig;
use crate::decoder::{MATRIX, check_rate};
use crate::ids::{IGNORED, at_the_door, beside, check_range, check_targets};
use crate::loss::{MOST_LOGITS, head_loss};
use crate::masked::MaskedModel;

/// What both configs say.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub prefix: &'static str,
    pub d: i64,
    pub depth: i64,
    pub heads: i64,
    pub context: i64,
    pub vocabulary: i64,
    pub types: i64,
    pub position_offset: i64,
    pub dropout: f64,
    pub norm_eps: f64,
    pub pooler: bool,
    pub mlm_head: bool,
}

impl Body {
    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        check_layers(self.d, self.depth, self.heads)?;
        check_between("context", self.context, 1 << 24)?;
        check_between("vocabulary", self.vocabulary, 1 << 24)?;
        check_between("token_types", self.types, 1 << 16)?;
        if !(0..=1 << 16).contains(&self.position_offset) {
            let found = self.position_offset;
            return Err(Error::Config(format!("position_offset = {found} must be between 0 and 65536")));
        }
        if self.d % self.heads != 0 {
            return Err(Error::Config(format!("d = {} is not a multiple of heads = {}", self.d, self.heads)));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps <= 1.0) {
            return Err(Error::Config(format!("norm_eps = {} must be above 0 and at most 1", self.norm_eps)));
        }
        check_rate("dropout", self.dropout)
    }
}

/// A layer whose tokens see both sides.
pub trait EncoderLayer: Send + Sized + 'static {
    /// The same layer on the same parameters.
    fn share(&self) -> Self;

    /// All tensors that may want gradients.
    fn parameters(&self) -> Vec<&Tensor>;

    /// What the layer makes of tokens; `padding` is added to the scores of attention, `[B, 1, 1, n]`.
    ///
    /// # Shapes
    /// `z`: `[B, n, d]`, unchanged.
    fn forward(&self, z: &Tensor, padding: Option<&Tensor>, train: bool, layer: usize, probe: &mut dyn Probe)
    -> Tensor;
}

/// A layer as it runs in one pass, so that it can be computed again as it was.
struct Running<L> {
    layer: L,
    padding: Option<Tensor>,
    train: bool,
}

impl<L: EncoderLayer> Layer for Running<L> {
    fn share(&self) -> Self {
        let padding = self.padding.as_ref().map(Tensor::shallow_clone);
        Running { layer: self.layer.share(), padding, train: self.train }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        self.layer.parameters()
    }

    fn compute(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        self.layer.forward(z, self.padding.as_ref(), self.train, layer, probe)
    }
}

/// The head for masked words; parameters `transform.dense.*`, `transform.LayerNorm.*` and `bias`.
#[derive(Debug)]
struct MaskedHead {
    dense: Linear,
    norm: LayerNorm,
    bias: Tensor,
}

/// A masked encoder of layers `L`.
#[derive(Debug)]
pub struct Encoder<L> {
    words: Tensor,
    positions: Tensor,
    types: Tensor,
    norm: LayerNorm,
    /// First to last.
    pub layers: Vec<L>,
    pooler: Option<Linear>,
    head: Option<MaskedHead>,
    body: Body,
    config: MaskedConfig,
    recompute: bool,
}

impl<L: EncoderLayer> Encoder<L> {
    /// The frame under `root` around layers drawn by `layer` under the paths that it is given.
    pub(crate) fn framed(root: &Path<'_>, config: MaskedConfig, layer: impl Fn(&Path<'_>) -> L) -> Result<Self> {
        config.check()?;
        let body = config.body();
        let (d, eps) = (body.d, body.norm_eps);
        let (base, normal) = (root / body.prefix, Init::Randn { mean: 0.0, stdev: 0.02 });
        let embeddings = &base / "embeddings";
        let table = |name: &str, rows: i64| (&embeddings / name).var("weight", &[rows, d], normal);
        let predictions = root / "cls" / "predictions";
        Ok(Encoder {
            words: table("word_embeddings", body.vocabulary),
            positions: table("position_embeddings", body.context + body.position_offset),
            types: table("token_type_embeddings", body.types),
            norm: LayerNorm::new(&(&embeddings / "LayerNorm"), d, eps),
            layers: (0..body.depth).map(|l| layer(&(&base / "encoder" / "layer" / l))).collect(),
            pooler: body.pooler.then(|| Linear::new(&(&base / "pooler" / "dense"), d, d, true, MATRIX)),
            head: body.mlm_head.then(|| MaskedHead {
                dense: Linear::new(&(&predictions / "transform" / "dense"), d, d, true, MATRIX),
                norm: LayerNorm::new(&(&predictions / "transform" / "LayerNorm"), d, eps),
                bias: predictions.var("bias", &[body.vocabulary], Init::Const(0.0)),
            }),
            body,
            config,
            recompute: false,
        })
    }

    fn device(&self) -> Device {
        self.words.device()
    }

    fn embed(&self, ids: &Tensor, token_types: Option<&Tensor>, train: bool) -> Tensor {
        let table = |table: &Tensor, rows: &Tensor| Tensor::embedding(table, rows, -1, false, false);
        let types = match token_types {
            Some(types) => table(&self.types, &types.to_device(self.device())),
            None => self.types.narrow(0, 0, 1),
        };
        let positions = self.positions.narrow(0, self.body.position_offset, ids.size()[1]);
        self.norm.forward(&(table(&self.words, ids) + types + positions)).dropout(self.body.dropout, train)
    }

    fn masked_head(&self) -> Result<&MaskedHead> {
        self.head.as_ref().ok_or_else(|| lacking("head for masked words", "mlm_head"))
    }

    /// What the table of words is multiplied with.
    fn transformed(&self, head: &MaskedHead, hidden: &Tensor) -> Tensor {
        head.norm.forward(&head.dense.forward(hidden).gelu("none"))
    }
}

fn lacking(what: &str, field: &str) -> Error {
    Error::Config(format!("this model has no {what} ({field} = false)"))
}

impl<L: EncoderLayer> MaskedModel for Encoder<L> {
    fn config(&self) -> MaskedConfig {
        self.config.clone()
    }

    fn encode(
        &self,
        ids: &Tensor,
        token_types: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        train: bool,
        probe: &mut dyn Probe,
    ) -> Result<Tensor> {
        let ids = at_the_door(ids, self.body.vocabulary, self.body.context, self.device())?;
        if let Some(types) = token_types {
            beside(types, &ids, "token types")?;
            check_range(types, self.body.types, "token types", None)?;
        }
        if let Some(mask) = attention_mask {
            beside(mask, &ids, "an attention mask")?;
            check_range(mask, 2, "entries of an attention mask", None)?;
        }
        let z = self.embed(&ids, token_types, train);
        show(probe, 0, Site::Embed, &z);
        let padding = attention_mask.map(|mask| padding(&mask.to_device(z.device()), z.kind()));
        if self.recompute {
            let running = |layer: &L| Running {
                layer: layer.share(),
                padding: padding.as_ref().map(Tensor::shallow_clone),
                train,
            };
            return Ok(through(&self.layers.iter().map(running).collect::<Vec<_>>(), z, true, probe));
        }
        let layers = self.layers.iter().enumerate();
        Ok(layers.fold(z, |z, (l, layer)| layer.forward(&z, padding.as_ref(), train, l, probe)))
    }

    fn pool(&self, hidden: &Tensor) -> Result<Tensor> {
        let pooler = self.pooler.as_ref().ok_or_else(|| lacking("pooler", "pooler"))?;
        Ok(pooler.forward(&hidden.select(1, 0)).tanh())
    }

    fn mlm_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let head = self.masked_head()?;
        Ok(self.transformed(head, hidden).linear(&self.words, Some(&head.bias)))
    }

    fn mlm_loss(
        &self,
        ids: &Tensor,
        token_types: Option<&Tensor>,
        attention_mask: Option<&Tensor>,
        labels: &Tensor,
        train: bool,
        probe: &mut dyn Probe,
    ) -> Result<Tensor> {
        let head = self.masked_head()?;
        check_targets(labels, ids, self.body.vocabulary)?;
        let hidden = self.encode(ids, token_types, attention_mask, train, probe)?;
        // Counted where the labels lie: on the CPU that waits for nothing.
        let labels = labels.flatten(0, -1);
        let asked = labels.ne(IGNORED).nonzero().squeeze_dim(1);
        let (labels, asked) = (labels.index_select(0, &asked), asked.to_device(hidden.device()));
        let picked = self.transformed(head, &hidden.flatten(0, 1).index_select(0, &asked));
        Ok(head_loss(&picked, &self.words, Some(&head.bias), &labels, MOST_LOGITS))
    }

    fn recompute_layers(&mut self, on: bool) {
        self.recompute = on;
    }
}
