//! One description for every language model, one for every masked encoder, and their presets.

use serde::{Deserialize, Serialize};
use tch::nn::Path;
use whitebox_model::Result;
use whitebox_model::config::{Preset, preset};

use crate::bert::{Bert, BertConfig};
use crate::crate_bert::{CrateBert, CrateBertConfig};
use crate::crate_gpt::{CrateGpt, CrateGptConfig};
use crate::decoder::Frame;
use crate::encoder::Body;
use crate::gpt2::{Gpt2, Gpt2Config};
use crate::language_model::LanguageModel;
use crate::masked::MaskedModel;
use crate::tost_gpt::{TostGpt, TostGptConfig};

/// Any language model, as it stands in recipes and checkpoints: `kind = "crate_gpt"`, `"gpt2"` or `"tost_gpt"`, and its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LanguageConfig {
    /// CRATE.
    CrateGpt(CrateGptConfig),
    /// GPT-2.
    Gpt2(Gpt2Config),
    /// ToST.
    TostGpt(TostGptConfig),
}

/// Short texts and few layers, for a machine without a GPU.
const MINI_CONTEXT: i64 = 256;

/// Language models by name.
const LANGUAGE: [Preset<LanguageConfig>; 21] = [
    ("crate-gpt-mini", || {
        LanguageConfig::CrateGpt(CrateGptConfig { context: MINI_CONTEXT, ..CrateGptConfig::of_size(6, 6, 384) })
    }),
    ("crate-gpt-base", || LanguageConfig::CrateGpt(CrateGptConfig::of_size(12, 12, 768))),
    ("crate-gpt-medium", || LanguageConfig::CrateGpt(CrateGptConfig::of_size(24, 16, 1024))),
    ("crate-gpt-large", || LanguageConfig::CrateGpt(CrateGptConfig::of_size(36, 20, 1280))),
    ("crate-gpt-xl", || LanguageConfig::CrateGpt(CrateGptConfig::of_size(48, 25, 1600))),
    ("crate-lm-1l", || LanguageConfig::CrateGpt(CrateGptConfig::lm(1, 4, 128))),
    ("crate-lm-2l", || LanguageConfig::CrateGpt(CrateGptConfig::lm(2, 4, 128))),
    ("crate-lm-3l", || LanguageConfig::CrateGpt(CrateGptConfig::lm(3, 4, 128))),
    ("crate-lm-small", || LanguageConfig::CrateGpt(CrateGptConfig::lm(6, 12, 768))),
    ("crate-lm-base", || LanguageConfig::CrateGpt(CrateGptConfig::lm(12, 12, 768))),
    ("gpt2-mini", || LanguageConfig::Gpt2(Gpt2Config { context: MINI_CONTEXT, ..Gpt2Config::of_size(6, 6, 384) })),
    ("gpt2-small", || LanguageConfig::Gpt2(Gpt2Config::of_size(6, 12, 768))),
    ("gpt2", || LanguageConfig::Gpt2(Gpt2Config::of_size(12, 12, 768))),
    ("gpt2-medium", || LanguageConfig::Gpt2(Gpt2Config::of_size(24, 16, 1024))),
    ("gpt2-large", || LanguageConfig::Gpt2(Gpt2Config::of_size(36, 20, 1280))),
    ("gpt2-xl", || LanguageConfig::Gpt2(Gpt2Config::of_size(48, 25, 1600))),
    ("gpt2-1l", || LanguageConfig::Gpt2(Gpt2Config::of_size(1, 4, 128))),
    ("tost-gpt-mini", || {
        LanguageConfig::TostGpt(TostGptConfig { context: MINI_CONTEXT, ..TostGptConfig::of_size(6, 6, 384) })
    }),
    ("tost-gpt-base", || LanguageConfig::TostGpt(TostGptConfig::of_size(12, 12, 768))),
    ("tost-gpt-medium", || LanguageConfig::TostGpt(TostGptConfig::of_size(24, 16, 1024))),
    ("tost-gpt-large", || LanguageConfig::TostGpt(TostGptConfig::of_size(36, 20, 1280))),
];

impl LanguageConfig {
    /// The names that [`LanguageConfig::preset`] knows.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        LANGUAGE.iter().map(|(name, _)| *name)
    }

    /// A size by name: `crate-gpt-base`, `gpt2`, `tost-gpt-base`, ...
    pub fn preset(name: &str) -> Result<Self> {
        preset(&LANGUAGE, name)
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        match self {
            LanguageConfig::CrateGpt(c) => c.check(),
            LanguageConfig::Gpt2(c) => c.check(),
            LanguageConfig::TostGpt(c) => c.check(),
        }
    }

    /// Draws a model under `root`; the same as naming its type.
    pub fn build(&self, root: &Path<'_>) -> Result<Box<dyn LanguageModel>> {
        Ok(match self {
            LanguageConfig::CrateGpt(c) => Box::new(CrateGpt::new(root, c)?),
            LanguageConfig::Gpt2(c) => Box::new(Gpt2::new(root, c)?),
            LanguageConfig::TostGpt(c) => Box::new(TostGpt::new(root, c)?),
        })
    }

    pub(crate) fn frame(&self) -> Frame {
        match self {
            LanguageConfig::CrateGpt(c) => c.frame(),
            LanguageConfig::Gpt2(c) => c.frame(),
            LanguageConfig::TostGpt(c) => c.frame(),
        }
    }

    /// Attention heads K.
    pub fn heads(&self) -> i64 {
        self.frame().heads
    }

    /// Layers L.
    pub fn depth(&self) -> i64 {
        self.frame().depth
    }

    /// Token dimension d.
    pub fn d(&self) -> i64 {
        self.frame().d
    }

    /// The most tokens read at once.
    pub fn context(&self) -> i64 {
        self.frame().context
    }

    /// Words known.
    pub fn vocabulary(&self) -> i64 {
        self.frame().vocabulary
    }

    /// The same model for another tokenizer or other lengths.
    pub fn with(mut self, vocabulary: i64, context: i64) -> Self {
        let (v, c) = match &mut self {
            LanguageConfig::CrateGpt(c) => (&mut c.vocabulary, &mut c.context),
            LanguageConfig::Gpt2(c) => (&mut c.vocabulary, &mut c.context),
            LanguageConfig::TostGpt(c) => (&mut c.vocabulary, &mut c.context),
        };
        (*v, *c) = (vocabulary, context);
        self
    }
}

/// Any masked encoder, as it stands in recipes and checkpoints: `kind = "crate_bert"` or `"bert"`, and its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MaskedConfig {
    /// CRATE.
    CrateBert(CrateBertConfig),
    /// BERT.
    Bert(BertConfig),
}

/// Masked encoders by name.
const MASKED: [Preset<MaskedConfig>; 5] = [
    ("crate-bert-mini", || {
        let size = CrateBertConfig { d: 384, depth: 6, context: MINI_CONTEXT, ..CrateBertConfig::default() };
        MaskedConfig::CrateBert(size)
    }),
    ("crate-bert-base", || MaskedConfig::CrateBert(CrateBertConfig::default())),
    ("bert-mini", || MaskedConfig::Bert(BertConfig { context: MINI_CONTEXT, ..BertConfig::minilm() })),
    ("bert-base", || MaskedConfig::Bert(BertConfig::default())),
    ("minilm-l6", || MaskedConfig::Bert(BertConfig { mlm_head: false, ..BertConfig::minilm() })),
];

impl MaskedConfig {
    /// The names that [`MaskedConfig::preset`] knows.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        MASKED.iter().map(|(name, _)| *name)
    }

    /// A size by name: `crate-bert-base`, `bert-base`, `minilm-l6`, ...
    pub fn preset(name: &str) -> Result<Self> {
        preset(&MASKED, name)
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        match self {
            MaskedConfig::CrateBert(c) => c.check(),
            MaskedConfig::Bert(c) => c.check(),
        }
    }

    /// Draws a model under `root`; the same as naming its type.
    pub fn build(&self, root: &Path<'_>) -> Result<Box<dyn MaskedModel>> {
        Ok(match self {
            MaskedConfig::CrateBert(c) => Box::new(CrateBert::new(root, c)?),
            MaskedConfig::Bert(c) => Box::new(Bert::new(root, c)?),
        })
    }

    pub(crate) fn body(&self) -> Body {
        match self {
            MaskedConfig::CrateBert(c) => c.body(),
            MaskedConfig::Bert(c) => c.body(),
        }
    }

    /// Attention heads K.
    pub fn heads(&self) -> i64 {
        self.body().heads
    }

    /// Layers L.
    pub fn depth(&self) -> i64 {
        self.body().depth
    }

    /// Token dimension d.
    pub fn d(&self) -> i64 {
        self.body().d
    }

    /// The most tokens read at once.
    pub fn context(&self) -> i64 {
        self.body().context
    }

    /// Words known.
    pub fn vocabulary(&self) -> i64 {
        self.body().vocabulary
    }

    /// The same model for another tokenizer or other lengths.
    pub fn with(mut self, vocabulary: i64, context: i64) -> Self {
        let (v, c) = match &mut self {
            MaskedConfig::CrateBert(c) => (&mut c.vocabulary, &mut c.context),
            MaskedConfig::Bert(c) => (&mut c.vocabulary, &mut c.context),
        };
        (*v, *c) = (vocabulary, context);
        self
    }

    /// The same model with a head that predicts words, or without.
    pub fn with_mlm_head(mut self, on: bool) -> Self {
        match &mut self {
            MaskedConfig::CrateBert(c) => c.mlm_head = on,
            MaskedConfig::Bert(c) => c.mlm_head = on,
        }
        self
    }

    /// The same model with another dropout.
    pub fn with_dropout(mut self, rate: f64) -> Self {
        match &mut self {
            MaskedConfig::CrateBert(c) => c.dropout = rate,
            MaskedConfig::Bert(c) => c.dropout = rate,
        }
        self
    }
}
