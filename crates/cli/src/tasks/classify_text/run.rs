//! A run on sentences: opened from a recipe, and what it says at its end, with the sentences that the model is wrong about.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::to_value;
use tch::{Device, nn};
use whitebox_analysis::plots::{MAX_CLASSES, confusion_matrix};
use whitebox_analysis::{Report, Section, count};
use whitebox_datasets::text::{TextTable, Tokenizer};
use whitebox_language::ClassifierConfig;
use whitebox_model::weights::{Card, LoadOptions};
use whitebox_train::diff;

use super::OnSentences;
use crate::checkpoint::read;
use crate::checkpoint::sentences::{Pretrained, open_encoder};
use crate::memory;
use crate::progress::meter;
use crate::recipe::{ClassifyTextConfig, InitConfig, Named, TaskConfig};
use crate::sentences::measures::{OF_CLASSES, OF_SCORES};
use crate::sentences::{
    Encoded, Found, Predictions, SentenceSets, SentenceSource, SentencesCard, SentencesConfig, Target, evaluate,
};
use crate::tasks::{Conclusion, Outline, RecipeTask, Run, moments};

/// Wrong sentences that a report shows at most.
const SHOWN: usize = 10;

/// What a recipe comes to, before a number is drawn.
struct Plan {
    sets: SentenceSets,
    tokenizer: Arc<dyn Tokenizer>,
    model: ClassifierConfig,
}

fn plan(named: &Named, task: &ClassifyTextConfig) -> Result<Plan> {
    let recipe = &named.recipe;
    let sentences = recipe.of_sentences()?;
    let tokenizer = match (&sentences.tokenizer, &recipe.init) {
        (Some(spec), _) => crate::text::found(spec)?.open().context("sentences.tokenizer")?,
        (None, Some(init)) => {
            read(Some(&init.checkpoint)).and_then(open_encoder).context("init.checkpoint")?.opened.tokenizer
        }
        (None, None) => bail!(
            "sentences.tokenizer is missing: expected bytes, gpt2, a tokenizer.json or a vocab.txt, or init.checkpoint whose it is to be"
        ),
    };
    let encoder = recipe.masked_config(tokenizer.vocabulary())?;
    let length = sentences.length(encoder.context())?;
    if tokenizer.vocabulary() as i64 > encoder.vocabulary() {
        bail!(
            "the tokenizer {} has {} ids, and model.vocabulary = {}: leave that out, or name the model's own tokenizer",
            tokenizer.identity().name,
            tokenizer.vocabulary(),
            encoder.vocabulary()
        );
    }
    let parts = sentences.open()?;
    let target = Target::of(&parts.train).context("the training sentences have no labels")?;
    let model = task.model(encoder, target.outputs());
    model.check()?;
    let measured: &[&str] = if target == Target::Score { &OF_SCORES } else { &OF_CLASSES };
    if let Some(best) = &recipe.train.checkpoint.best
        && best.metric != "loss"
        && !measured.contains(&best.metric.as_str())
    {
        let what = if target == Target::Score { "scores" } else { "classes" };
        bail!(
            "train.checkpoint.best.metric = {:?}, and of {what} an evaluation measures loss, {}",
            best.metric,
            measured.join(", ")
        );
    }
    Ok(Plan { sets: SentenceSets::new(parts, tokenizer.as_ref(), length)?, tokenizer, model })
}

impl RecipeTask for OnSentences {
    type Config = ClassifyTextConfig;
    type Source = SentenceSource;
    const UNIT: &'static str = "sentences";

    fn outline(named: &Named, config: &ClassifyTextConfig) -> Result<Outline> {
        let recipe = &named.recipe;
        let Plan { sets, model, .. } = plan(named, config)?;
        let (cost, tokens) = (model.encoder().cost(), sets.train.mean_tokens());
        let (training, batch) = (sets.train.len() as u64, recipe.of_sentences()?.batch_size as u64);
        Ok(Outline {
            unit: "sentence",
            parameters: model.parameters(),
            training,
            validation: sets.validation.len() as u64,
            batches: [training.div_ceil(batch), batch],
            forward: cost.forward(tokens),
            step: cost.training_step(batch.saturating_mul(recipe.train.accumulate), tokens),
            bytes: model.parameters().saturating_mul(4 * (2 + moments(named))),
        })
    }

    fn open(
        named: &Named,
        config: &ClassifyTextConfig,
        device: Device,
        command: &str,
    ) -> Result<(Self, SentenceSource)> {
        let recipe = &named.recipe;
        let sentences: &SentencesConfig = recipe.of_sentences()?;
        let Plan { sets, tokenizer, model: description } = plan(named, config)?;
        let Some(definition) = tokenizer.definition() else {
            bail!("the tokenizer cannot be written into checkpoints")
        };
        memory::check(description.parameters().saturating_mul(4 * (2 + moments(named))), device)?;
        tch::manual_seed(recipe.train.seed as i64);
        let store = nn::VarStore::new(device);
        let mut model = description.build(&store.root())?;
        model.encoder.recompute_layers(recipe.train.recompute);
        let mut card = Card::new(to_value(&description)?);
        card.classes = sets.target.classes();
        card.data = Some(to_value(SentencesCard { sentences: sentences.clone(), tokenizer: definition })?);
        card.task = Some(to_value(TaskConfig::ClassifyText(config.clone()))?);
        card.command = Some(command.to_owned());
        let source =
            SentenceSource { sentences: sets.train.clone(), batch: sentences.batch_size, seed: recipe.train.seed };
        let (tokenizer, eval_batch) = (tokenizer.identity().clone(), sentences.eval_batch_size);
        Ok((OnSentences { store, model, card, sets, tokenizer, eval_batch }, source))
    }

    fn parameters(&self) -> u64 {
        self.model.config().parameters()
    }

    fn data(&self) -> String {
        let test = self.sets.test.as_ref().map(|test| format!(", {} to test", count(test.len() as u64)));
        let what = match &self.sets.target {
            Target::Classes(names) => format!("{} classes", names.len()),
            Target::Score => "scores".into(),
        };
        format!(
            "{} training and {} validation sentences{}, {what}",
            count(self.sets.train.len() as u64),
            count(self.sets.validation.len() as u64),
            test.unwrap_or_default()
        )
    }

    fn begin_from(&mut self, init: &InitConfig) -> Result<String> {
        let Pretrained { opened, outputs } =
            read(Some(&init.checkpoint)).and_then(open_encoder).context("init.checkpoint")?;
        let theirs = opened.tokenizer.identity();
        if theirs.sha256 != self.tokenizer.sha256 {
            bail!(
                "init.checkpoint reads ids of {theirs}, and sentences.tokenizer is {}: a token would mean another word; leave \
                 sentences.tokenizer out, or name the file's own there",
                self.tokenizer
            );
        }
        let config = self.model.config();
        let path = opened.weights.path.display().to_string();
        let found = opened.under_classifier(config.pool);
        // Dropout is of the training, not of the weights.
        let plain = |encoder: &whitebox_language::MaskedConfig| to_value(encoder.clone().with_dropout(0.0));
        let differences = diff(&plain(&found.config)?, &plain(&config.encoder())?);
        if !differences.is_empty() {
            bail!(
                "the encoder in {path} is another than [model] (\"before\" is the file's):\n  {}\nleave [model] empty (--set model={{}}), which takes \
                 that of the file",
                differences.join("\n  ")
            );
        }
        let replace_head = init.new_head || outputs != Some(config.outputs);
        found.weights.load_into(&self.store.variables(), LoadOptions { replace_head, ..LoadOptions::default() })?;
        let head = if replace_head { "the encoder of" } else { "the weights of" };
        Ok(format!("beginning with {head} {path}{}", if replace_head { ", with a new head" } else { "" }))
    }

    fn conclude(&self, run: &Run<'_>) -> Result<Conclusion> {
        let measure =
            |part: &Encoded, what| evaluate(&self.model, part, self.eval_batch, &mut meter(what, "sentences"));
        let found = measure(&self.sets.validation, "evaluating")?;
        let mut metrics = found.metrics();
        let mut summary = vec![in_words("validation", self.sets.validation.len(), &metrics)];
        if let Some(test) = &self.sets.test {
            let found = measure(test, "evaluating the test part")?.metrics();
            summary.push(in_words("test", test.len(), &found));
            metrics.extend(found.into_iter().map(|(name, value)| (format!("test_{name}"), value)));
        }
        Ok(Conclusion {
            metrics,
            images: self.sets.validation.len() as u64,
            report: Report { summary, sections: self.sections(&found, run)?, ..Report::default() },
            ..Conclusion::default()
        })
    }
}

fn in_words(part: &str, sentences: usize, metrics: &[(String, f64)]) -> String {
    let measures = metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join(", ");
    format!("On the {} {part} sentences: {measures}.", count(sentences as u64))
}

impl OnSentences {
    /// What the report shows of the predictions.
    fn sections(&self, found: &Found, run: &Run<'_>) -> Result<Vec<Section>> {
        let names = self.sets.target.classes();
        let mut sections = Vec::new();
        let confusion = found.confusion();
        if (1..=MAX_CLASSES).contains(&names.len()) {
            let mut figure = confusion_matrix(&names, &confusion)?;
            figure.caption =
                "Rows are the true classes, columns the predictions; right answers lie on the diagonal.".into();
            sections.push(Section {
                title: "Confusions".into(),
                method: "The validation sentences by their class and by what the trained model takes them for.".into(),
                figures: vec![figure],
                ..Section::default()
            });
        }
        let worst = found.worst(SHOWN.min(run.named.recipe.report.samples));
        if !worst.is_empty() {
            let table = &self.sets.validation.table;
            let (title, method) = match &found.predictions {
                Predictions::Classes { .. } => {
                    ("Wrong sentences", "The mistakes on validation sentences that the model is surest of.")
                }
                Predictions::Scores { .. } => {
                    ("The widest errors", "The validation sentences whose scores the model misses by most.")
                }
            };
            sections.push(Section {
                title: title.into(),
                method: method.into(),
                excerpts: worst.into_iter().map(|row| excerpt(table, &found.predictions, &names, row)).collect(),
                ..Section::default()
            });
        }
        Ok(sections)
    }
}

/// A row with what is true and what was said.
fn excerpt(table: &TextTable, predictions: &Predictions, names: &[String], row: usize) -> String {
    let said = match predictions {
        Predictions::Classes { truth, predicted, .. } => {
            let (class, sure) = predicted[row];
            format!("{}, taken for {} ({:.0} %)", names[truth[row]], names[class], 100.0 * sure)
        }
        Predictions::Scores { truth, predicted } => format!("{:.2}, taken for {:.2}", truth[row], predicted[row]),
    };
    let (first, second) = &table.rows[row];
    let second = second.as_ref().map(|second| format!("\n{second}")).unwrap_or_default();
    format!("{said}:\n{first}{second}")
}
