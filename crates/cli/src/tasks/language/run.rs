//! A run of language modelling: opened from a recipe, and what it says at its end, with a sample of what the model writes.

use anyhow::{Context, Result, bail};
use serde_json::to_value;
use tch::{Device, nn};
use whitebox_analysis::{Report, Section, count};
use whitebox_datasets::text::{Masking, Utf8Stream};
use whitebox_language::{GenerationConfig, LanguageCost, LanguageModel, Overflow, Sampler, generate};
use whitebox_model::weights::{Card, LoadOptions};

use super::{EVALUATION_SEED, Model, OnText, TextSource};
use crate::checkpoint::read;
use crate::checkpoint::text::{open_language, open_masked};
use crate::likelihood::{Frame, beginning};
use crate::machine::multiply_adds_per_second;
use crate::memory;
use crate::progress::meter;
use crate::recipe::{InitConfig, LanguageTask, Named, TaskConfig};
use crate::tasks::{Conclusion, Outline, RecipeTask, Run, moments};
use crate::text::TextCard;

/// Tokens of the validation text that a sample begins with, where the recipe names no prompt.
const PROMPT: usize = 16;

impl RecipeTask for OnText {
    type Config = TaskConfig;
    type Source = TextSource;
    const UNIT: &'static str = "tokens";

    fn outline(named: &Named, config: &TaskConfig) -> Result<Outline> {
        let recipe = &named.recipe;
        let text = recipe.of_text()?;
        let sets = text.open()?;
        let (cost, context) = shape(named, config, sets.tokenizer.vocabulary())?;
        let batch = text.batch_size as u64;
        let content = match config {
            TaskConfig::MaskedLanguage(_) => Frame::of(sets.tokenizer.as_ref()).content(context as usize) as u64,
            _ => context,
        };
        let sequences = sets.train.len() / content;
        let batches = text.epoch_batches.unwrap_or(sequences.div_ceil(batch).max(1));
        Ok(Outline {
            unit: "sequence",
            parameters: cost.parameters,
            training: sequences,
            validation: (sets.validation.len() / context).max(1),
            batches: [batches, batch],
            forward: cost.forward(context),
            step: cost.training_step(batch.saturating_mul(recipe.train.accumulate), context),
            bytes: cost.parameters.saturating_mul(4 * (2 + moments(named))),
        })
    }

    fn open(named: &Named, config: &TaskConfig, device: Device, command: &str) -> Result<(Self, TextSource)> {
        let recipe = &named.recipe;
        let text = recipe.of_text()?.clone();
        let sets = text.open()?;
        let tokenizer = sets.tokenizer.as_ref();
        let Some(definition) = tokenizer.definition() else {
            bail!("the tokenizer cannot be written into checkpoints")
        };
        let (cost, context) = shape(named, config, tokenizer.vocabulary())?;
        memory::check(cost.parameters.saturating_mul(4 * (2 + moments(named))), device)?;
        let rows = (text.batch_size as u64).max(text.eval_batch_size as u64);
        memory::check(rows.saturating_mul(context).saturating_mul(16), Device::Cpu).context("text.batch_size")?;
        tch::manual_seed(recipe.train.seed as i64);
        let store = nn::VarStore::new(device);
        let seed = recipe.train.seed;
        let (model, masking, description) = match config {
            TaskConfig::MaskedLanguage(masking) => {
                let config = recipe.masked_config(tokenizer.vocabulary())?;
                let mut model = config.build(&store.root())?;
                model.recompute_layers(recipe.train.recompute);
                let [training, measured] =
                    [seed, EVALUATION_SEED].map(|seed| Masking::new(tokenizer, masking.clone(), seed));
                let frame = Frame::of(tokenizer);
                (Model::Masked(model, measured?), Some((training?, frame)), to_value(config)?)
            }
            _ => {
                let config = recipe.language_config(tokenizer.vocabulary())?;
                let mut model = config.build(&store.root())?;
                model.recompute_layers(recipe.train.recompute);
                (Model::Causal(model), None, to_value(config)?)
            }
        };
        let mut card = Card::new(description);
        card.data = Some(to_value(TextCard {
            text: text.clone(),
            tokenizer: definition,
            packed: Some(sets.fingerprint.clone()),
        })?);
        card.task = Some(to_value(config)?);
        card.command = Some(command.to_owned());
        let source = TextSource::new(&text, &sets.train, context as usize, seed, masking)?;
        let measured = beginning(&sets.validation, text.eval_tokens, tokenizer)?;
        if measured.len() < 2 {
            bail!("the validation part holds {} tokens, expected at least 2: raise text.validation", measured.len());
        }
        // What a sample begins with is refused now and not behind the last step.
        if let TaskConfig::Language(LanguageTask { prompt: Some(prompt), sample_tokens: 1.. }) = config
            && tokenizer.encode(prompt).context("task.prompt")?.is_empty()
        {
            bail!("task.prompt is empty: expected a text to go on from, or leave it out");
        }
        Ok((OnText { store, model, cost, context, card, text, sets, measured }, source))
    }

    fn parameters(&self) -> u64 {
        self.store.trainable_variables().iter().map(|variable| variable.numel() as u64).sum()
    }

    fn data(&self) -> String {
        format!(
            "{} training and {} validation tokens of {}, {} at a time",
            count(self.sets.train.len()),
            count(self.measured.len()),
            self.sets.train.identity().name,
            count(self.context)
        )
    }

    fn begin_from(&mut self, init: &InitConfig) -> Result<String> {
        if init.new_head {
            bail!("init.new_head is for classifiers: a language model's head is its own");
        }
        let weights = read(Some(&init.checkpoint))?;
        let (weights, tokenizer) = match &self.model {
            Model::Causal(_) => {
                open_language(weights, None, &[], None).map(|opened| (opened.weights, opened.tokenizer))
            }
            Model::Masked(..) => open_masked(weights, None, &[], None).map(|opened| (opened.weights, opened.tokenizer)),
        }?;
        if tokenizer.identity().sha256 != self.sets.train.identity().sha256 {
            bail!(
                "init.checkpoint reads ids of {}, and this text is tokenized by {}: a token would mean another word",
                tokenizer.identity(),
                self.sets.train.identity()
            );
        }
        weights.load_into(&self.store.variables(), LoadOptions::default())?;
        Ok(format!("beginning with the weights of {}", weights.path.display()))
    }

    fn conclude(&self, run: &Run<'_>) -> Result<Conclusion> {
        let (metrics, tokens) = self.measure(&mut meter("evaluating", "windows"))?;
        let mut sections = Vec::new();
        let mut files = Vec::new();
        if let (Model::Causal(model), TaskConfig::Language(config)) = (&self.model, &run.named.recipe.task)
            && config.sample_tokens > 0
        {
            let (prompt, written) = self.sample(model.as_ref(), config)?;
            run.folder.write("sample.txt", format!("{prompt}{written}\n").as_bytes())?;
            files.push(("sample", run.folder.path.join("sample.txt")));
            let mut section = Section {
                title: "A sample".into(),
                method: format!(
                    "{} tokens at temperature 0.8 out of the 200 most probable; what stands before the bar was given.",
                    config.sample_tokens
                ),
                ..Section::default()
            };
            section.excerpts.push(format!("{prompt}▌{written}"));
            sections.push(section);
        }
        let mut rows = Vec::new();
        if let Some(rate) = run.metrics.last("step", "samples_per_second") {
            let counted = if matches!(self.model, Model::Causal(_)) { "tokens/s" } else { "hidden tokens/s" };
            rows.push((counted.into(), format!("{rate:.0}")));
            // Of a masked encoder only hidden tokens are counted, and the arithmetic is of all.
            if matches!(self.model, Model::Causal(_)) {
                let step = self.cost.training_step(self.text.batch_size as u64, self.context);
                let a_token = step as f64 / (self.text.batch_size as u64 * self.context) as f64;
                let share = a_token * rate / multiply_adds_per_second(self.store.device());
                rows.push(("MFU, of float32 products".into(), format!("{:.0} %", 100.0 * share)));
            }
        }
        let summary = metrics.iter().map(|(name, value)| format!("{} {value:.4}", name.replace('_', " ")));
        Ok(Conclusion {
            images: tokens,
            rows,
            skipped: Vec::new(),
            files,
            report: Report {
                summary: vec![format!("On the validation text: {}.", summary.collect::<Vec<_>>().join(", "))],
                sections,
                ..Report::default()
            },
            metrics,
        })
    }
}

/// What the recipe's model costs, and how many tokens it reads at once.
fn shape(named: &Named, config: &TaskConfig, vocabulary: usize) -> Result<(LanguageCost, u64)> {
    Ok(match config {
        TaskConfig::MaskedLanguage(_) => {
            let model = named.recipe.masked_config(vocabulary)?;
            (model.cost(), model.context() as u64)
        }
        _ => {
            let model = named.recipe.language_config(vocabulary)?;
            (model.cost(), model.context() as u64)
        }
    })
}

impl OnText {
    /// What a sample was begun with, and what the model made of it.
    fn sample(&self, model: &dyn LanguageModel, config: &LanguageTask) -> Result<(String, String)> {
        let tokenizer = self.sets.tokenizer.as_ref();
        let ids = match &config.prompt {
            Some(prompt) => tokenizer.encode(prompt)?,
            None => {
                let mut ids = vec![0; PROMPT.min(self.measured.len() as usize)];
                self.measured.read(0, &mut ids)?;
                ids
            }
        };
        let prompt: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let settings = GenerationConfig {
            new_tokens: config.sample_tokens,
            sampler: Sampler { temperature: 0.8, top_k: Some(200), ..Sampler::default() },
            overflow: Overflow::Window,
            ..GenerationConfig::default()
        };
        let written = generate(model, &[prompt], &settings, |_, _, _| std::ops::ControlFlow::Continue(()))?;
        let mut stream = Utf8Stream::new(tokenizer);
        let mut text = String::new();
        for id in written.into_iter().flatten() {
            text += &stream.push(u32::try_from(id)?)?;
        }
        Ok((tokenizer.decode(&ids)?, text + &stream.finish()?))
    }
}
