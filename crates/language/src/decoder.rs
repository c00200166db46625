//! The frame that all language models here share, nanoGPT's: words and positions, layers, a LayerNorm, a head.
//!
//! ```text
//! z = wte[ids] + wpe[0..n]        z = layer_l(z), l = 1..L        logits = W LN_f(z),  W = wte where the head is tied
//! ```
//!
//! A layer reads tokens at or before its own alone, so that all positions are trained at once and a cache serves generation. Matrices are drawn from
//! `N(0, 0.02^2)`, output maps from `N(0, 0.02^2 / (2 L))`, as in nanoGPT. Parameter names are nanoGPT's.

use tch::nn::{Init, Path};
use tch::{Device, Tensor};
use whitebox_model::config::{check_between, check_layers};
use whitebox_model::layers::{LayerNorm, Linear, LinearInit};
use whitebox_model::probe::{NoProbe, Probe, Site, show};
use whitebox_model::recompute::{Layer, through};
use whitebox_model::{Error, Result};

use crate::cache::{Cache, LayerCache};
use crate::config::LanguageConfig;
use crate::ids::{at_the_door, check_targets};
use crate::language_model::LanguageModel;
use crate::loss::{MOST_LOGITS, head_loss, padding_bias};

/// What all configs of language models say.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub d: i64,
    pub depth: i64,
    pub heads: i64,
    pub context: i64,
    pub vocabulary: i64,
    pub pad_vocabulary_to: i64,
    pub tied_head: bool,
    pub dropout: f64,
    /// Epsilon of the LayerNorm before the head, where there is one.
    pub final_norm: Option<f64>,
}

impl Frame {
    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        check_layers(self.d, self.depth, self.heads)?;
        check_between("context", self.context, 1 << 24)?;
        check_between("vocabulary", self.vocabulary, 1 << 24)?;
        check_between("pad_vocabulary_to", self.pad_vocabulary_to, 1 << 16)?;
        if self.d % self.heads != 0 {
            return Err(Error::Config(format!("d = {} is not a multiple of heads = {}", self.d, self.heads)));
        }
        check_rate("dropout", self.dropout)
    }

    /// Words with those that only pad.
    pub fn padded(&self) -> i64 {
        let to = self.pad_vocabulary_to.max(1);
        (self.vocabulary.saturating_add(to - 1) / to).saturating_mul(to)
    }

    /// How output maps are drawn.
    pub fn output_init(&self) -> LinearInit {
        LinearInit::Normal(0.02 / (2.0 * self.depth as f64).sqrt())
    }
}

/// Refuses rates that leave nothing, or are none.
pub(crate) fn check_rate(name: &str, rate: f64) -> Result<()> {
    match (0.0..1.0).contains(&rate) {
        true => Ok(()),
        false => Err(Error::Config(format!("{name} = {rate} must be at least 0 and below 1"))),
    }
}

/// Refuses steps of sparse coding that are no numbers.
pub(crate) fn check_steps(eta: f64, lambda: f64) -> Result<()> {
    match [eta, lambda].iter().all(|x| x.abs() <= 1e6) {
        true => Ok(()),
        false => Err(Error::Config(format!("eta = {eta} and lambda = {lambda} must be numbers between -1e6 and 1e6"))),
    }
}

/// A matrix from `N(0, 0.02^2)`.
pub(crate) const MATRIX: LinearInit = LinearInit::Normal(0.02);

/// A layer that reads no later token.
pub trait CausalLayer: Send + Sized + 'static {
    /// The same layer on the same parameters.
    fn share(&self) -> Self;

    /// All tensors that may want gradients.
    fn parameters(&self) -> Vec<&Tensor>;

    /// What the layer makes of tokens. With `past` they follow those that it holds, and are added to it; with `train` entries are dropped.
    ///
    /// # Shapes
    /// `z`: `[B, n, d]`, unchanged.
    fn forward(
        &self,
        z: &Tensor,
        past: Option<&mut LayerCache>,
        train: bool,
        layer: usize,
        probe: &mut dyn Probe,
    ) -> Tensor;
}

/// A layer as it runs in one pass, so that it can be computed again as it was.
struct Running<L> {
    layer: L,
    train: bool,
}

impl<L: CausalLayer> Layer for Running<L> {
    fn share(&self) -> Self {
        Running { layer: self.layer.share(), train: self.train }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        self.layer.parameters()
    }

    fn compute(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        self.layer.forward(z, None, self.train, layer, probe)
    }
}

/// A language model of layers `L`.
#[derive(Debug)]
pub struct Decoder<L> {
    /// A row for each word, those that pad the vocabulary last, `[V', d]`.
    words: Tensor,
    /// A row for each place, `[context, d]`.
    positions: Tensor,
    /// First to last.
    pub layers: Vec<L>,
    norm: Option<LayerNorm>,
    /// The head where it is not `words`.
    head: Option<Linear>,
    frame: Frame,
    config: LanguageConfig,
    recompute: bool,
}

impl<L: CausalLayer> Decoder<L> {
    /// The frame under `root` around layers drawn by `layer` under the paths that it is given.
    pub(crate) fn framed(
        root: &Path<'_>,
        config: LanguageConfig,
        norm_path: &str,
        layer: impl Fn(&Path<'_>) -> L,
    ) -> Result<Self> {
        config.check()?;
        let frame = config.frame();
        let (d, body) = (frame.d, root / "transformer");
        let normal = Init::Randn { mean: 0.0, stdev: 0.02 };
        Ok(Decoder {
            words: (&body / "wte").var("weight", &[frame.padded(), d], normal),
            positions: (&body / "wpe").var("weight", &[frame.context, d], normal),
            layers: (0..frame.depth).map(|l| layer(&(&body / "h" / l))).collect(),
            norm: frame.final_norm.map(|eps| LayerNorm::new(&(&body / norm_path), d, eps)),
            head: (!frame.tied_head).then(|| Linear::new(&(root / "lm_head"), d, frame.padded(), false, MATRIX)),
            frame,
            config,
            recompute: false,
        })
    }

    fn device(&self) -> Device {
        self.words.device()
    }

    /// The matrix of the head, `[V', d]`.
    fn head(&self) -> &Tensor {
        self.head.as_ref().map_or(&self.words, |head| &head.weight)
    }

    /// Tokens at the places from `from` on.
    fn embed(&self, ids: &Tensor, from: i64, train: bool) -> Tensor {
        let words = Tensor::embedding(&self.words, ids, -1, false, false);
        let z = words + self.positions.narrow(0, from, ids.size()[1]);
        z.dropout(self.frame.dropout, train)
    }

    fn normalised(&self, z: Tensor) -> Tensor {
        match &self.norm {
            Some(norm) => norm.forward(&z),
            None => z,
        }
    }
}

impl<L: CausalLayer> LanguageModel for Decoder<L> {
    fn config(&self) -> LanguageConfig {
        self.config.clone()
    }

    fn context(&self) -> i64 {
        self.frame.context
    }

    fn vocabulary(&self) -> i64 {
        self.frame.vocabulary
    }

    fn hidden(&self, ids: &Tensor, train: bool, probe: &mut dyn Probe) -> Result<Tensor> {
        let ids = at_the_door(ids, self.frame.vocabulary, self.frame.context, self.device())?;
        let z = self.embed(&ids, 0, train);
        show(probe, 0, Site::Embed, &z);
        let z = if self.recompute {
            let layers: Vec<_> = self.layers.iter().map(|l| Running { layer: l.share(), train }).collect();
            through(&layers, z, true, probe)
        } else {
            self.layers.iter().enumerate().fold(z, |z, (l, layer)| layer.forward(&z, None, train, l, probe))
        };
        Ok(self.normalised(z))
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(self.head(), None::<&Tensor>).narrow(-1, 0, self.frame.vocabulary)
    }

    fn loss(&self, ids: &Tensor, targets: &Tensor, train: bool, probe: &mut dyn Probe) -> Result<Tensor> {
        check_targets(targets, ids, self.frame.vocabulary)?;
        let hidden = self.hidden(ids, train, probe)?;
        let bias = padding_bias(self.head(), self.frame.vocabulary);
        Ok(head_loss(&hidden, self.head(), bias.as_ref(), targets, MOST_LOGITS))
    }

    fn cache(&self, rows: i64, capacity: i64) -> Result<Cache> {
        Cache::new(self.config.clone(), rows, capacity)
    }

    fn advance(&self, ids: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        let ids = at_the_door(ids, self.frame.vocabulary, self.frame.context, self.device())?;
        let (rows, tokens) = (ids.size()[0], ids.size()[1]);
        cache.check(&self.config, rows, tokens)?;
        let hidden = tch::no_grad(|| {
            let mut z = self.embed(&ids, cache.len(), false);
            for (l, (layer, past)) in self.layers.iter().zip(&mut cache.layers).enumerate() {
                z = layer.forward(&z, Some(past), false, l, &mut NoProbe);
            }
            self.normalised(z)
        });
        cache.advance(tokens);
        Ok(hidden)
    }

    fn recompute_layers(&mut self, on: bool) {
        self.recompute = on;
    }
}
