//! GPT-2, the transformer that CRATE's language models are compared with.
//!
//! ```text
//! z' = z + W_o [softmax(q_k k_k^T / sqrt(p)) v_k]_k + b        q, k, v = W LN(z) + b
//! z+ = z' + W_2 gelu_new(W_1 LN(z') + b_1) + b_2
//! ```
//!
//! with GELU in GPT-2's tanh form and biases everywhere. Parameter names are those of the released files; matrices stand as PyTorch's linear layers have
//! them, `[out, in]`, where the released ones are `[in, out]` ([`import`](crate::import) turns them).

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;
use whitebox_model::Result;
use whitebox_model::config::check_between;
use whitebox_model::layers::{LayerNorm, Linear};
use whitebox_model::mlp::{Gelu, Mlp};
use whitebox_model::probe::{Probe, Site, show};

use crate::attention::{Keys, attend, split_heads};
use crate::cache::LayerCache;
use crate::config::LanguageConfig;
use crate::decoder::{CausalLayer, Decoder, Frame, MATRIX};

/// Epsilon of all LayerNorms.
const EPS: f64 = 1e-5;

/// Shape of a GPT-2. The defaults are the smallest released size, 124 million parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gpt2Config {
    /// Token dimension d. Default: 768.
    pub d: i64,
    /// Layers L. Default: 12.
    pub depth: i64,
    /// Attention heads K, which divide d. Default: 12.
    pub heads: i64,
    /// Hidden activations of the MLP. Default: 4 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<i64>,
    /// The most tokens read at once. Default: 1024.
    pub context: i64,
    /// Words known. Default: 50257.
    pub vocabulary: i64,
    /// The table of words is padded to a multiple of this; what pads it is never predicted. Default: 1, no padding.
    pub pad_vocabulary_to: i64,
    /// Whether the head is the table of words. Default: true.
    pub tied_head: bool,
    /// Dropout of the embedding, the attention maps and both steps, in training. Default: 0 (the released ones were trained with 0.1).
    pub dropout: f64,
}

impl Default for Gpt2Config {
    fn default() -> Self {
        Gpt2Config {
            d: 768,
            depth: 12,
            heads: 12,
            hidden: None,
            context: 1024,
            vocabulary: 50257,
            pad_vocabulary_to: 1,
            tied_head: true,
            dropout: 0.0,
        }
    }
}

impl Gpt2Config {
    /// A size.
    pub fn of_size(depth: i64, heads: i64, d: i64) -> Self {
        Gpt2Config { d, depth, heads, ..Self::default() }
    }

    /// Hidden activations of the MLP.
    pub fn hidden(&self) -> i64 {
        self.hidden.unwrap_or(self.d.saturating_mul(4))
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        self.frame().check()?;
        check_between("hidden", self.hidden(), 1 << 20)
    }

    pub(crate) fn frame(&self) -> Frame {
        Frame {
            d: self.d,
            depth: self.depth,
            heads: self.heads,
            context: self.context,
            vocabulary: self.vocabulary,
            pad_vocabulary_to: self.pad_vocabulary_to,
            tied_head: self.tied_head,
            dropout: self.dropout,
            final_norm: Some(EPS),
        }
    }
}

/// One layer; parameters `ln_1.*`, `attn.c_attn.*`, `attn.c_proj.*`, `ln_2.*`, `mlp.c_fc.*`, `mlp.c_proj.*`.
#[derive(Debug)]
pub struct Gpt2Layer {
    norm1: LayerNorm,
    /// Queries, keys and values one after the other, `[3 d, d]`.
    qkv: Linear,
    output: Linear,
    norm2: LayerNorm,
    mlp: Mlp,
    heads: i64,
    dropout: f64,
}

/// GPT-2.
pub type Gpt2 = Decoder<Gpt2Layer>;

impl Gpt2 {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &Gpt2Config) -> Result<Self> {
        Decoder::framed(root, LanguageConfig::Gpt2(config.clone()), "ln_f", |path| Gpt2Layer::new(path, config))
    }
}

/// The MLP of a GPT under `path`.
pub(crate) fn gpt_mlp(path: &Path<'_>, frame: &Frame, hidden: i64, gelu: Gelu) -> Mlp {
    Mlp::of(
        Linear::new(&(path / "c_fc"), frame.d, hidden, true, MATRIX),
        Linear::new(&(path / "c_proj"), hidden, frame.d, true, frame.output_init()),
        gelu,
    )
}

impl Gpt2Layer {
    fn new(path: &Path<'_>, config: &Gpt2Config) -> Self {
        let Gpt2Config { d, heads, dropout, .. } = *config;
        let (attention, frame) = (path / "attn", config.frame());
        Gpt2Layer {
            norm1: LayerNorm::new(&(path / "ln_1"), d, EPS),
            qkv: Linear::new(&(&attention / "c_attn"), d, 3 * d, true, MATRIX),
            output: Linear::new(&(&attention / "c_proj"), d, d, true, frame.output_init()),
            norm2: LayerNorm::new(&(path / "ln_2"), d, EPS),
            mlp: gpt_mlp(&(path / "mlp"), &frame, config.hidden(), Gelu::Tanh),
            heads,
            dropout,
        }
    }

    /// What attention adds to the tokens.
    fn attention(
        &self,
        h: &Tensor,
        past: Option<&mut LayerCache>,
        train: bool,
        layer: usize,
        probe: &mut dyn Probe,
    ) -> Tensor {
        let parts = self.qkv.forward(h).chunk(3, -1);
        show(probe, layer, Site::Uz, &parts[1]);
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(&parts[i], self.heads));
        let (k, v) = match past {
            Some(past) => (past.extend(0, &k), past.extend(1, &v)),
            None => (k, v),
        };
        let scale = 1.0 / (q.size()[3] as f64).sqrt();
        let dropout = if train { self.dropout } else { 0.0 };
        let out = self.output.forward(&attend([&q, &k, &v], &Keys::Causal, scale, dropout, layer, probe));
        show(probe, layer, Site::MssaOut, &out);
        out
    }
}

impl CausalLayer for Gpt2Layer {
    fn share(&self) -> Self {
        Gpt2Layer {
            norm1: self.norm1.map(Tensor::shallow_clone),
            qkv: self.qkv.share(),
            output: self.output.share(),
            norm2: self.norm2.map(Tensor::shallow_clone),
            mlp: self.mlp.share(),
            ..*self
        }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let norms = self.norm1.parameters().chain(self.norm2.parameters());
        norms.chain(self.qkv.parameters()).chain(self.output.parameters()).chain(self.mlp.parameters()).collect()
    }

    fn forward(
        &self,
        z: &Tensor,
        past: Option<&mut LayerCache>,
        train: bool,
        layer: usize,
        probe: &mut dyn Probe,
    ) -> Tensor {
        let h = self.norm1.forward(z);
        show(probe, layer, Site::AttentionInput, &h);
        let half = z + self.attention(&h, past, train, layer, probe).dropout(self.dropout, train);
        show(probe, layer, Site::ZHalf, &half);
        let h = self.norm2.forward(&half);
        show(probe, layer, Site::IstaInput, &h);
        let out = half + self.mlp.forward(&h, layer, probe).dropout(self.dropout, train);
        show(probe, layer, Site::ZOut, &out);
        out
    }
}
