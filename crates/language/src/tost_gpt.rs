//! ToST as a language model: attention by token statistics, all sums over the past (arXiv 2412.17810).
//!
//! ```text
//! w_t    = U LN(z_t)                                          heads are consecutive blocks of p
//! s_t    = sum_c (w_tc^2 / sum_{j <= t} w_jc^2 + b_kt)        b: learned, a number for each head and place
//! Pi_t   = softmax over k of temp_k s_tk
//! m_t    = sum_{j <= t} Pi_j w_j^2 / (sum_{j <= t} Pi_j + 1e-8)
//! CTSSA  = W [-Pi_tk w_tk / (1 + m_tk)]_k + b
//! z'     = z + gamma_1 CTSSA(LN(z))        z+ = z' + gamma_2 MLP(LN(z'))
//! ```
//!
//! As for images ([`tssa`](whitebox_model::tssa)) no tokens meet one another; here what a token asks of the past is three sums. So time is linear in the
//! number of tokens, and a cache has one size however long the text is.
//!
//! As released: `b` stands inside the sum over channels, so p times in it; the floor of the first denominator is 1e-12; LayerScales begin at 1e-5; GELU by the
//! error function. Sums are float32 also where tokens are bf16.

use serde::{Deserialize, Serialize};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};
use whitebox_model::Result;
use whitebox_model::config::check_between;
use whitebox_model::layers::{LayerNorm, Linear};
use whitebox_model::mlp::{Gelu, Mlp};
use whitebox_model::probe::{Probe, Site, show};

use crate::attention::split_heads;
use crate::cache::LayerCache;
use crate::config::LanguageConfig;
use crate::decoder::{CausalLayer, Decoder, Frame, MATRIX};
use crate::gpt2::gpt_mlp;

/// Epsilon of all LayerNorms.
const EPS: f64 = 1e-5;

/// Shape of a causal ToST. The defaults are ToST-Base, 110 million parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TostGptConfig {
    /// Token dimension d. Default: 768.
    pub d: i64,
    /// Layers L. Default: 12.
    pub depth: i64,
    /// Subspaces K, which divide d. Default: 12.
    pub heads: i64,
    /// Hidden activations of the MLP. Default: 4 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<i64>,
    /// The most tokens read at once. Default: 1024.
    pub context: i64,
    /// Words known. Default: 50257.
    pub vocabulary: i64,
    /// The table of words is padded to a multiple of this; what pads it is never predicted. Default: 64.
    pub pad_vocabulary_to: i64,
    /// Whether the head is the table of words. Default: true.
    pub tied_head: bool,
    /// What the LayerScales begin at. Default: 1e-5.
    pub layer_scale: f64,
    /// Dropout of the embedding and both steps, in training. Default: 0.
    pub dropout: f64,
}

impl Default for TostGptConfig {
    fn default() -> Self {
        TostGptConfig {
            d: 768,
            depth: 12,
            heads: 12,
            hidden: None,
            context: 1024,
            vocabulary: 50257,
            pad_vocabulary_to: 64,
            tied_head: true,
            layer_scale: 1e-5,
            dropout: 0.0,
        }
    }
}

impl TostGptConfig {
    /// A size.
    pub fn of_size(depth: i64, heads: i64, d: i64) -> Self {
        TostGptConfig { d, depth, heads, ..Self::default() }
    }

    /// Hidden activations of the MLP.
    pub fn hidden(&self) -> i64 {
        self.hidden.unwrap_or(self.d.saturating_mul(4))
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        self.frame().check()?;
        if self.layer_scale.is_nan() || self.layer_scale.abs() > 1e6 {
            let found = self.layer_scale;
            return Err(whitebox_model::Error::Config(format!("layer_scale = {found} must be between -1e6 and 1e6")));
        }
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

/// Causal token statistics attention; parameters `c_attn.*`, `temp` (`[K, 1]`), `denom_bias` (`[K, context, 1]`), `c_proj.*`.
#[derive(Debug)]
pub struct CausalTssa {
    projection: Linear,
    temperature: Tensor,
    bias: Tensor,
    output: Linear,
    heads: i64,
}

impl CausalTssa {
    fn new(path: &Path<'_>, frame: &Frame) -> Self {
        let Frame { d, heads, context, .. } = *frame;
        CausalTssa {
            projection: Linear::new(&(path / "c_attn"), d, d, true, MATRIX),
            temperature: path.var("temp", &[heads, 1], Init::Const(1.0)),
            bias: path.var("denom_bias", &[heads, context, 1], Init::Const(0.0)),
            output: Linear::new(&(path / "c_proj"), d, d, true, frame.output_init()),
            heads,
        }
    }

    /// What attention adds to the tokens.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, d]`.
    fn forward(&self, h: &Tensor, past: Option<&mut LayerCache>, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let projected = self.projection.forward(h);
        show(probe, layer, Site::Uz, &projected);
        let w = split_heads(&projected, self.heads); // b k n p
        let w = if matches!(w.kind(), Kind::BFloat16 | Kind::Half) { w.to_kind(Kind::Float) } else { w };
        let squares = w.square();
        let from = past.as_ref().map_or(0, |past| past.len());
        let mut past = past;
        let mut sums = |which: usize, t: &Tensor| match &mut past {
            Some(past) => past.sums(which, t),
            None => t.cumsum(2, None::<Kind>),
        };
        let share = &squares / sums(0, &squares).clamp_min(1e-12);
        let bias = self.bias.narrow(1, from, w.size()[2]);
        let scores = (share + bias).sum_dim_intlist(-1, false, None::<Kind>) * &self.temperature; // b k n
        let pi = scores.softmax(1, None::<Kind>);
        show(probe, layer, Site::Memberships, &pi);
        let pi = pi.unsqueeze(-1);
        let moments = sums(1, &(&squares * &pi)) / (sums(2, &pi) + 1e-8);
        let o = -(w * pi) / (moments + 1.0);
        let out = self.output.forward(&o.transpose(1, 2).flatten(2, 3).to_kind(projected.kind()));
        show(probe, layer, Site::MssaOut, &out);
        out
    }

    fn share(&self) -> Self {
        CausalTssa {
            projection: self.projection.share(),
            temperature: self.temperature.shallow_clone(),
            bias: self.bias.shallow_clone(),
            output: self.output.share(),
            heads: self.heads,
        }
    }

    fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        let own = [&self.temperature, &self.bias];
        self.projection.parameters().chain(own).chain(self.output.parameters())
    }
}

/// One layer; parameters `ln_1.*`, `attn.*`, `gamma1`, `ln_2.*`, `mlp.c_fc.*`, `mlp.c_proj.*`, `gamma2`.
#[derive(Debug)]
pub struct TostGptLayer {
    norm1: LayerNorm,
    attention: CausalTssa,
    norm2: LayerNorm,
    mlp: Mlp,
    /// LayerScales of both steps, `[d]`.
    scales: [Tensor; 2],
    dropout: f64,
}

/// ToST as a language model.
pub type TostGpt = Decoder<TostGptLayer>;

impl TostGpt {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &TostGptConfig) -> Result<Self> {
        let frame = config.frame();
        Decoder::framed(root, LanguageConfig::TostGpt(config.clone()), "ln_f", |path| TostGptLayer {
            norm1: LayerNorm::new(&(path / "ln_1"), config.d, EPS),
            attention: CausalTssa::new(&(path / "attn"), &frame),
            norm2: LayerNorm::new(&(path / "ln_2"), config.d, EPS),
            mlp: gpt_mlp(&(path / "mlp"), &frame, config.hidden(), Gelu::Exact),
            scales: ["gamma1", "gamma2"].map(|name| path.var(name, &[config.d], Init::Const(config.layer_scale))),
            dropout: config.dropout,
        })
    }
}

impl CausalLayer for TostGptLayer {
    fn share(&self) -> Self {
        TostGptLayer {
            norm1: self.norm1.map(Tensor::shallow_clone),
            attention: self.attention.share(),
            norm2: self.norm2.map(Tensor::shallow_clone),
            mlp: self.mlp.share(),
            scales: [self.scales[0].shallow_clone(), self.scales[1].shallow_clone()],
            dropout: self.dropout,
        }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let norms = self.norm1.parameters().chain(self.norm2.parameters());
        norms.chain(self.attention.parameters()).chain(self.mlp.parameters()).chain(&self.scales).collect()
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
        let step = self.attention.forward(&h, past, layer, probe).dropout(self.dropout, train);
        let half = z + step * &self.scales[0];
        show(probe, layer, Site::ZHalf, &half);
        let h = self.norm2.forward(&half);
        show(probe, layer, Site::IstaInput, &h);
        let out = half + self.mlp.forward(&h, layer, probe).dropout(self.dropout, train) * &self.scales[1];
        show(probe, layer, Site::ZOut, &out);
        out
    }
}
