//! Which models of text are looked at: a checkpoint's, and of a run the same one before its first step and half-way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tch::nn::VarStore;
use tch::{Device, Tensor, nn};
use whitebox_analysis::operators::Operators;
use whitebox_datasets::text::{Tokenizer, TokenizerSpec};
use whitebox_language::import::is_language_model;
use whitebox_language::{LanguageConfig, LanguageModel, MaskedConfig, MaskedModel, Sparsify};
use whitebox_model::probe::Probe;
use whitebox_model::weights::{LoadOptions, Weights};

use crate::analysis::subject::half_way;
use crate::checkpoint::load;
use crate::checkpoint::text::{OpenedText, open_language, open_masked};
use crate::likelihood::Frame;
use crate::run_folder::RunFolder;
use crate::text::TextConfig;

/// Either kind of model.
#[derive(Clone)]
pub enum Config {
    /// Foretells the next token.
    Causal(LanguageConfig),
    /// Sees both sides.
    Masked(MaskedConfig),
}

/// An opened file of either kind.
pub struct Opened {
    /// The tensors.
    pub weights: Weights,
    /// The model.
    pub config: Config,
    /// Whose ids it reads.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The text it was trained on, where the file tells.
    pub text: Option<TextConfig>,
}

/// How a file is opened where it leaves something open.
#[derive(Clone, Copy, Default)]
pub struct How<'a> {
    /// A preset or a recipe file.
    pub model: Option<&'a str>,
    /// Fields of the model.
    pub sets: &'a [String],
    /// Whose ids it reads.
    pub tokenizer: Option<&'a TokenizerSpec>,
}

/// A model of text in a file. What was found out or assumed is told on stderr.
pub fn open(weights: Weights, how: How<'_>) -> Result<Opened> {
    let How { model, sets, tokenizer } = how;
    Ok(match is_language_model(&weights) {
        true => told(open_language(weights, model, sets, tokenizer)?, Config::Causal),
        false => told(open_masked(weights, model, sets, tokenizer)?, Config::Masked),
    })
}

fn told<C>(opened: OpenedText<C>, config: fn(C) -> Config) -> Opened {
    for note in &opened.notes {
        eprintln!("{note}");
    }
    let OpenedText { weights, tokenizer, text, .. } = opened;
    Opened { weights, config: config(opened.config), tokenizer, text }
}

enum Model {
    Causal(Box<dyn LanguageModel>),
    Masked(Box<dyn MaskedModel>),
}

/// A model of text with its operators at hand.
pub struct Network {
    /// How it is called in figures.
    pub name: String,
    /// What it is.
    pub config: Config,
    /// Whose ids it reads.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// What its layers have learned.
    pub operators: Vec<Operators>,
    /// Whether it is one that was asked for, and not an earlier state of it.
    pub shown: bool,
    model: Model,
}

impl Config {
    /// Attention heads K.
    pub fn heads(&self) -> usize {
        match self {
            Config::Causal(c) => c.heads() as usize,
            Config::Masked(c) => c.heads() as usize,
        }
    }

    /// Layers L.
    pub fn depth(&self) -> usize {
        match self {
            Config::Causal(c) => c.depth() as usize,
            Config::Masked(c) => c.depth() as usize,
        }
    }

    /// The most tokens read at once.
    fn context(&self) -> usize {
        match self {
            Config::Causal(c) => c.context() as usize,
            Config::Masked(c) => c.context() as usize,
        }
    }

    /// Numbers that were trained.
    pub fn parameters(&self) -> u64 {
        match self {
            Config::Causal(c) => c.cost().parameters,
            Config::Masked(c) => c.cost().parameters,
        }
    }

    /// Whether tokens see those before them alone.
    pub fn is_causal(&self) -> bool {
        matches!(self, Config::Causal(_))
    }

    fn build(&self, root: &nn::Path<'_>) -> whitebox_model::Result<Model> {
        Ok(match self {
            Config::Causal(c) => Model::Causal(c.build(root)?),
            Config::Masked(c) => Model::Masked(c.build(root)?),
        })
    }

    /// What every layer has learned, read from the parameters by name; a layer of GPT-2 or BERT has nothing to hold against the theory.
    fn operators(&self, store: &VarStore) -> Vec<Operators> {
        let variables = store.variables();
        let named = |name: String| variables.get(&name).map(Tensor::shallow_clone);
        let layer = |l: usize| match self {
            Config::Causal(LanguageConfig::CrateGpt(c)) => {
                let at = format!("transformer.h.{l}");
                let dictionary = if c.sparsify == Sparsify::Ista { "weight" } else { "D" };
                Operators {
                    u: named(format!("{at}.attn.c_attn.weight")),
                    shift: None,
                    heads: c.heads,
                    dictionary: named(format!("{at}.ista.{dictionary}")),
                    output: named(format!("{at}.attn.c_proj.weight")),
                    eta: c.eta,
                    lambda: c.lambda,
                }
            }
            Config::Causal(LanguageConfig::TostGpt(c)) => {
                let at = format!("transformer.h.{l}.attn");
                let [u, shift, output] =
                    ["c_attn.weight", "c_attn.bias", "c_proj.weight"].map(|name| named(format!("{at}.{name}")));
                Operators { u, shift, heads: c.heads, output, ..Operators::default() }
            }
            Config::Masked(MaskedConfig::CrateBert(c)) => {
                let at = format!("crate.encoder.layer.{l}");
                Operators {
                    u: named(format!("{at}.attention.qkv.weight")),
                    shift: None,
                    heads: c.heads,
                    dictionary: named(format!("{at}.ista.weight")),
                    output: named(format!("{at}.attention.dense.weight")),
                    eta: c.eta,
                    lambda: c.lambda,
                }
            }
            Config::Causal(LanguageConfig::Gpt2(_)) | Config::Masked(MaskedConfig::Bert(_)) => {
                Operators { heads: self.heads() as i64, ..Operators::default() }
            }
        };
        (0..self.depth()).map(layer).collect()
    }
}

impl Network {
    /// The model of an opened file.
    pub fn of_file(name: &str, opened: &Opened, device: Device) -> Result<Self> {
        Ok(Network { shown: true, ..Self::loaded(name, opened, &opened.weights, device)? })
    }

    fn loaded(name: &str, opened: &Opened, weights: &Weights, device: Device) -> Result<Self> {
        let config = &opened.config;
        let (store, model) =
            load(weights, config.parameters(), LoadOptions::default(), device, |root| config.build(root))?;
        Ok(Self::new(name, opened, &store, model))
    }

    /// The model as a run drew it, before its first step.
    fn drawn(opened: &Opened, seed: u64, device: Device) -> Result<Self> {
        tch::manual_seed(seed as i64);
        let store = nn::VarStore::new(device);
        let model = opened.config.build(&store.root())?;
        Ok(Self::new("at initialisation", opened, &store, model))
    }

    fn new(name: &str, opened: &Opened, store: &VarStore, model: Model) -> Self {
        let (config, tokenizer) = (opened.config.clone(), opened.tokenizer.clone());
        let operators = config.operators(store);
        Network { name: name.into(), config, tokenizer, operators, shown: false, model }
    }

    /// Reads tokens, `[B, n]`.
    pub fn read(&self, ids: &Tensor, probe: &mut dyn Probe) -> Result<()> {
        let _ = tch::no_grad(|| match &self.model {
            Model::Causal(model) => model.hidden(ids, false, probe),
            Model::Masked(model) => model.encode(ids, None, None, false, probe),
        })?;
        Ok(())
    }

    /// Tokens as it takes them: those of an encoder between the one that opens a sentence and the one that closes it.
    pub fn framed(&self, ids: &[u32]) -> Vec<u32> {
        match self.config.is_causal() {
            true => ids.to_vec(),
            false => Frame::of(self.tokenizer.as_ref()).around(ids),
        }
    }

    /// The most tokens of a text that it reads at once.
    pub fn room(&self) -> usize {
        match self.config.is_causal() {
            true => self.config.context(),
            false => Frame::of(self.tokenizer.as_ref()).content(self.config.context()),
        }
    }
}

/// The model of a checkpoint; of a run folder also the one before the first step, where it was drawn and not loaded, and the checkpoint nearest half-way, where the run
/// has kept one. The trained one comes first.
pub fn networks(path: Option<&Path>, opened: &Opened, device: Device) -> Result<Vec<Network>> {
    let mut found = vec![Network::of_file("trained", opened, device)?];
    let Some(folder) = path.map(|path| RunFolder { path: path.to_owned() }) else { return Ok(found) };
    let Ok(named) = folder.recipe() else { return Ok(found) };
    if named.recipe.init.is_none() {
        found.push(Network::drawn(opened, named.recipe.train.seed, device)?);
    }
    let half: Option<(u64, PathBuf)> = half_way(&folder.path.join("checkpoints"))?;
    if let Some((step, file)) = half {
        let name = format!("after {} steps", whitebox_analysis::count(step));
        found.push(Network::loaded(&name, opened, &Weights::open(&file)?, device)?);
    }
    Ok(found)
}
