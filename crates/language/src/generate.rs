//! Texts written by a language model, token by token.
//!
//! Each row of a batch has its own cache, length and stream of draws, and runs alone: prompts may have any lengths, and a row gives exactly what it gives by
//! itself (with the seed that it has there). Batched rows would differ in the last bits, and so now and then in a token.
//!
//! Up to the context a token costs one token's work by the [cache](crate::cache); without cache the whole text is read anew. Beyond it, where that is allowed, the
//! model reads a window of the last tokens anew for every token, in both cases, for all positions in it change.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use whitebox_model::probe::NoProbe;
use whitebox_model::{Error, Result};

use crate::cache::Cache;
use crate::language_model::LanguageModel;
use crate::sampler::{Sampler, Stream};

/// What happens at the end of the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// A longer prompt is refused, and a text ends there.
    #[default]
    Refuse,
    /// The model reads the last tokens alone, as many as the context holds.
    Window,
}

/// How texts are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerationConfig {
    /// Tokens written at most. Default: 100.
    pub new_tokens: usize,
    /// The token that ends a text. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_of_text: Option<i64>,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// Default: refuse.
    pub overflow: Overflow,
    /// Whether what was read is kept. The same tokens in either case. Default: true.
    pub cached: bool,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        GenerationConfig {
            new_tokens: 100,
            end_of_text: None,
            sampler: Sampler::default(),
            overflow: Overflow::Refuse,
            cached: true,
        }
    }
}

/// Why a row has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It wrote the token that ends a text, its last one.
    EndOfText,
    /// It wrote as many tokens as it may.
    Length,
    /// The context is full.
    Context,
    /// The caller stopped it.
    Stopped,
}

/// One text.
#[derive(Debug)]
struct Row {
    tokens: Vec<i64>,
    prompt: usize,
    cache: Option<Cache>,
    stream: Stream,
    ended: Option<Ended>,
}

/// Texts being written; an iterator that gives each row's next token, `None` for rows that have ended, until all have.
///
/// After an error it gives nothing more.
pub struct Generator<'a> {
    model: &'a dyn LanguageModel,
    config: GenerationConfig,
    rows: Vec<Row>,
}

impl<'a> Generator<'a> {
    /// Texts that begin with `prompts`.
    ///
    /// # Errors
    /// No prompts, an empty one, ids that the model does not know, a prompt longer than the context where that is refused, a config that chooses nothing.
    pub fn new(model: &'a dyn LanguageModel, prompts: &[Vec<i64>], config: &GenerationConfig) -> Result<Self> {
        config.sampler.check()?;
        let (context, vocabulary) = (model.context(), model.vocabulary());
        if prompts.is_empty() {
            return Err(Error::Input { found: "no prompts".into(), expected: "at least one".into() });
        }
        for (row, prompt) in prompts.iter().enumerate() {
            let refuse = |found: String, expected: String| Err(Error::Input { found, expected });
            if prompt.is_empty() {
                let expected = "at least one token, such as the one that ends a text".to_owned();
                return refuse(format!("an empty prompt (number {})", row + 1), expected);
            }
            if let Some(id) = prompt.iter().find(|id| !(0..vocabulary).contains(*id)) {
                return refuse(format!("the id {id} in a prompt"), format!("ids from 0 to {}", vocabulary - 1));
            }
            if prompt.len() as i64 > context && config.overflow == Overflow::Refuse {
                let expected = format!("at most the context of {context}; shorten it, or choose overflow = \"window\"");
                return refuse(format!("a prompt of {} tokens", prompt.len()), expected);
            }
        }
        let rows = prompts.iter().zip(0..).map(|(prompt, row)| {
            let capacity = (prompt.len().saturating_add(config.new_tokens) as u64).clamp(1, context as u64) as i64;
            Ok(Row {
                tokens: prompt.clone(),
                prompt: prompt.len(),
                cache: config.cached.then(|| model.cache(1, capacity)).transpose()?,
                stream: config.sampler.stream(row),
                ended: (config.new_tokens == 0).then_some(Ended::Length),
            })
        });
        Ok(Generator { model, config: config.clone(), rows: rows.collect::<Result<_>>()? })
    }

    /// A row's prompt and what it has written so far.
    pub fn tokens(&self, row: usize) -> &[i64] {
        &self.rows[row].tokens
    }

    /// What a row has written so far.
    pub fn written(&self, row: usize) -> &[i64] {
        &self.rows[row].tokens[self.rows[row].prompt..]
    }

    /// Why a row has ended, where it has.
    pub fn ended(&self, row: usize) -> Option<Ended> {
        self.rows[row].ended
    }

    /// Ends a row, for instance because its text holds a word that stops it.
    pub fn stop(&mut self, row: usize) {
        let ended = &mut self.rows[row].ended;
        // Also where the token that made it stop was the last one allowed.
        if *ended != Some(Ended::EndOfText) {
            *ended = Some(Ended::Stopped);
        }
    }

    /// Bytes that all caches take.
    pub fn cache_bytes(&self) -> u64 {
        self.rows.iter().filter_map(|row| row.cache.as_ref()).map(Cache::bytes).sum()
    }

    /// Writes one more token of each row that goes on; `None` where none does.
    fn write(&mut self) -> Result<Option<Vec<Option<i64>>>> {
        if self.rows.iter().all(|row| row.ended.is_some()) {
            return Ok(None);
        }
        let Generator { model, config, rows } = self;
        let each = rows.iter_mut().map(|row| if row.ended.is_none() { row.write(*model, config) } else { Ok(None) });
        each.collect::<Result<Vec<_>>>().map(Some)
    }
}

impl Iterator for Generator<'_> {
    type Item = Result<Vec<Option<i64>>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.write();
        if next.is_err() {
            self.rows.iter_mut().for_each(|row| row.ended = Some(Ended::Stopped));
        }
        next.transpose()
    }
}

impl Row {
    fn write(&mut self, model: &dyn LanguageModel, config: &GenerationConfig) -> Result<Option<i64>> {
        let logits = self.logits(model)?;
        let token = config.sampler.choose(&logits, &self.tokens, &mut self.stream)?;
        self.tokens.push(token);
        let written = self.tokens.len() - self.prompt;
        self.ended = if config.end_of_text == Some(token) {
            Some(Ended::EndOfText)
        } else if written >= config.new_tokens {
            Some(Ended::Length)
        } else if self.tokens.len() as i64 > model.context() && config.overflow == Overflow::Refuse {
            Some(Ended::Context)
        } else {
            None
        };
        Ok(Some(token))
    }

    /// Logits of the next token.
    fn logits(&mut self, model: &dyn LanguageModel) -> Result<Vec<f32>> {
        let window = &self.tokens[self.tokens.len().saturating_sub(model.context() as usize)..];
        let hidden = match &mut self.cache {
            // Within the context what is new goes through the model; beyond it the window, whose places all change.
            Some(cache) if window.len() == self.tokens.len() => {
                model.advance(&row_of(&window[cache.len() as usize..]), cache)?
            }
            _ => tch::no_grad(|| model.hidden(&row_of(window), false, &mut NoProbe))?,
        };
        let last = hidden.narrow(1, hidden.size()[1] - 1, 1);
        let logits = tch::no_grad(|| model.logits(&last)).to_kind(Kind::Float).flatten(0, -1);
        Ok(Vec::<f32>::try_from(logits)?)
    }
}

fn row_of(ids: &[i64]) -> Tensor {
    Tensor::from_slice(ids).unsqueeze(0)
}

/// Writes texts to their ends and gives what each has written. `see` is shown every token as it comes, with the row's number and all that the row has written
/// with it, and may end the row: a caller that decodes tokens stops at strings so.
///
/// # Errors
/// Those of [`Generator::new`]; logits that are no numbers.
pub fn generate(
    model: &dyn LanguageModel,
    prompts: &[Vec<i64>],
    config: &GenerationConfig,
    mut see: impl FnMut(usize, i64, &[i64]) -> ControlFlow<()>,
) -> Result<Vec<Vec<i64>>> {
    let mut generator = Generator::new(model, prompts, config)?;
    while let Some(tokens) = generator.next() {
        for (row, token) in tokens?.into_iter().enumerate() {
            let Some(token) = token else { continue };
            if see(row, token, generator.written(row)).is_break() {
                generator.stop(row);
            }
        }
    }
    Ok((0..prompts.len()).map(|row| generator.written(row).to_vec()).collect())
}
