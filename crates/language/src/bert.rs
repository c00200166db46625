//! BERT, the encoder that CRATE-BERT is compared with, in its post-LayerNorm form.
//!
//! ```text
//! z' = LN(z + W_o MHSA(z) + b)        z+ = LN(z' + W_2 GELU(W_1 z' + b_1) + b_2)
//! ```
//!
//! with GELU by the error function. MiniLM is the same with 6 layers of dimension 384. Parameter names are Hugging Face's, queries, keys and values apart.
//! A probe is shown `z` at `AttentionInput`, `z'` at `ZHalf` and `IstaInput`.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;
use whitebox_model::Result;
use whitebox_model::config::check_between;
use whitebox_model::layers::{LayerNorm, Linear};
use whitebox_model::mlp::{Gelu, Mlp};
use whitebox_model::probe::{Probe, Site, show};

use crate::attention::{Keys, attend, split_heads};
use crate::config::MaskedConfig;
use crate::decoder::MATRIX;
use crate::encoder::{Body, Encoder, EncoderLayer};

/// Shape of a BERT. The defaults are BERT-Base, uncased, 110 million parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BertConfig {
    /// Token dimension d. Default: 768.
    pub d: i64,
    /// Layers L. Default: 12.
    pub depth: i64,
    /// Attention heads K, which divide d. Default: 12.
    pub heads: i64,
    /// Hidden activations of the MLP. Default: 4 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<i64>,
    /// The most tokens read at once. Default: 512.
    pub context: i64,
    /// Words known. Default: 30522.
    pub vocabulary: i64,
    /// Kinds of tokens. Default: 2.
    pub token_types: i64,
    /// The row of the table of positions that the first token has; RoBERTa's files have 2. Default: 0.
    pub position_offset: i64,
    /// LayerNorms' epsilon. Default: 1e-12.
    pub norm_eps: f64,
    /// Whether there is a pooler. Default: true.
    pub pooler: bool,
    /// Whether there is a head for masked words. Default: true.
    pub mlm_head: bool,
    /// Dropout of the embedding, the attention maps and both steps, in training. Default: 0.1.
    pub dropout: f64,
}

impl Default for BertConfig {
    fn default() -> Self {
        BertConfig {
            d: 768,
            depth: 12,
            heads: 12,
            hidden: None,
            context: 512,
            vocabulary: 30522,
            token_types: 2,
            position_offset: 0,
            norm_eps: 1e-12,
            pooler: true,
            mlm_head: true,
            dropout: 0.1,
        }
    }
}

impl BertConfig {
    /// MiniLM's shape: 6 layers, 12 heads, d 384, 1536 hidden activations.
    pub fn minilm() -> Self {
        BertConfig { d: 384, depth: 6, ..Self::default() }
    }

    /// Hidden activations of the MLP.
    pub fn hidden(&self) -> i64 {
        self.hidden.unwrap_or(self.d.saturating_mul(4))
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        self.body().check()?;
        check_between("hidden", self.hidden(), 1 << 20)
    }

    pub(crate) fn body(&self) -> Body {
        Body {
            prefix: "bert",
            d: self.d,
            depth: self.depth,
            heads: self.heads,
            context: self.context,
            vocabulary: self.vocabulary,
            types: self.token_types,
            position_offset: self.position_offset,
            dropout: self.dropout,
            norm_eps: self.norm_eps,
            pooler: self.pooler,
            mlm_head: self.mlm_head,
        }
    }
}

/// One layer; parameters `attention.self.{query,key,value}.*`, `attention.output.{dense,LayerNorm}.*`, `intermediate.dense.*`,
/// `output.{dense,LayerNorm}.*`.
#[derive(Debug)]
pub struct BertLayer {
    /// Queries, keys, values.
    maps: [Linear; 3],
    output: Linear,
    norm1: LayerNorm,
    mlp: Mlp,
    norm2: LayerNorm,
    heads: i64,
    dropout: f64,
}

/// BERT.
pub type Bert = Encoder<BertLayer>;

impl Bert {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &BertConfig) -> Result<Self> {
        Encoder::framed(root, MaskedConfig::Bert(config.clone()), |path| BertLayer::new(path, config))
    }
}

impl BertLayer {
    fn new(path: &Path<'_>, config: &BertConfig) -> Self {
        let BertConfig { d, heads, dropout, norm_eps, .. } = *config;
        let (attention, after) = (path / "attention" / "self", path / "attention" / "output");
        let linear = |path: &Path<'_>, from: i64, to: i64| Linear::new(path, from, to, true, MATRIX);
        let hidden = config.hidden();
        BertLayer {
            maps: ["query", "key", "value"].map(|name| linear(&(&attention / name), d, d)),
            output: linear(&(&after / "dense"), d, d),
            norm1: LayerNorm::new(&(&after / "LayerNorm"), d, norm_eps),
            mlp: Mlp::of(
                linear(&(path / "intermediate" / "dense"), d, hidden),
                linear(&(path / "output" / "dense"), hidden, d),
                Gelu::Exact,
            ),
            norm2: LayerNorm::new(&(path / "output" / "LayerNorm"), d, norm_eps),
            heads,
            dropout,
        }
    }
}

impl EncoderLayer for BertLayer {
    fn share(&self) -> Self {
        BertLayer {
            maps: [0, 1, 2].map(|i| self.maps[i].share()),
            output: self.output.share(),
            norm1: self.norm1.map(Tensor::shallow_clone),
            mlp: self.mlp.share(),
            norm2: self.norm2.map(Tensor::shallow_clone),
            ..*self
        }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let maps = self.maps.iter().chain([&self.output]).flat_map(Linear::parameters);
        let norms = self.norm1.parameters().chain(self.norm2.parameters());
        maps.chain(norms).chain(self.mlp.parameters()).collect()
    }

    fn forward(
        &self,
        z: &Tensor,
        padding: Option<&Tensor>,
        train: bool,
        layer: usize,
        probe: &mut dyn Probe,
    ) -> Tensor {
        show(probe, layer, Site::AttentionInput, z);
        let [q, k, v] = [0, 1, 2].map(|i| self.maps[i].forward(z));
        show(probe, layer, Site::Uz, &k);
        let [q, k, v] = [q, k, v].map(|t| split_heads(&t, self.heads));
        let scale = 1.0 / (q.size()[3] as f64).sqrt();
        let rate = if train { self.dropout } else { 0.0 };
        let step = self.output.forward(&attend([&q, &k, &v], &Keys::All(padding), scale, rate, layer, probe));
        show(probe, layer, Site::MssaOut, &step);
        let half = self.norm1.forward(&(z + step.dropout(self.dropout, train)));
        show(probe, layer, Site::ZHalf, &half);
        show(probe, layer, Site::IstaInput, &half);
        let step = self.mlp.forward(&half, layer, probe).dropout(self.dropout, train);
        let out = self.norm2.forward(&(half + step));
        show(probe, layer, Site::ZOut, &out);
        out
    }
}
