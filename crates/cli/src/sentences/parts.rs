//! The parts of a recipe's sentences, read from their files: training, validation and, where there is one, test, with classes in one order.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use whitebox_analysis::count;
use whitebox_datasets::Error;
use whitebox_datasets::text::{Labels, Part, TableOptions, TextTable, movie_reviews};

use super::{SentencesConfig, SentencesName};
use crate::data::data_home;

/// All parts as tables, with classes in one order.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What is learned from.
    pub train: TextTable,
    /// What is measured on.
    pub validation: TextTable,
    /// What is measured at the end.
    pub test: Option<TextTable>,
}

/// What is predicted of a sentence.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// One of these classes.
    Classes(Vec<String>),
    /// A number.
    Score,
}

impl Target {
    /// What the labels of a table are; none where it has none.
    pub fn of(table: &TextTable) -> Option<Self> {
        match &table.labels {
            Labels::Classes { names, .. } => Some(Target::Classes(names.clone())),
            Labels::Scores(_) => Some(Target::Score),
            Labels::Absent => None,
        }
    }

    /// Numbers that a model gives for it.
    pub fn outputs(&self) -> i64 {
        match self {
            Target::Classes(names) => names.len() as i64,
            Target::Score => 1,
        }
    }

    /// The classes' names; none of a number.
    pub fn classes(&self) -> Vec<String> {
        match self {
            Target::Classes(names) => names.clone(),
            Target::Score => Vec::new(),
        }
    }

    /// How a table of the same is read.
    pub fn options(&self, table: &TableOptions) -> TableOptions {
        let scores = Some(*self == Target::Score);
        match self {
            Target::Classes(names) => TableOptions { classes: Some(names.clone()), scores, ..table.clone() },
            Target::Score => TableOptions { scores, ..table.clone() },
        }
    }
}

impl SentencesConfig {
    /// Reads all parts.
    pub fn open(&self) -> Result<Parts> {
        let parts = match self.set {
            Some(SentencesName::MovieReviews) => {
                let file = movie_file()?;
                let part = |part| movie_reviews(&file, part);
                Parts { train: part(Part::Train)?, validation: part(Part::Validation)?, test: Some(part(Part::Test)?) }
            }
            None => self.own_files()?,
        };
        let pairs = |table: &TextTable| table.rows.first().is_some_and(|(_, second)| second.is_some());
        let others = [Some((&parts.validation, "validation")), parts.test.as_ref().map(|test| (test, "test"))];
        for (table, name) in others.into_iter().flatten() {
            if pairs(table) != pairs(&parts.train) {
                let what = |pairs| if pairs { "pairs of sentences" } else { "single sentences" };
                bail!(
                    "the training part holds {}, the {name} part {}: name the columns in sentences.table.text",
                    what(pairs(&parts.train)),
                    what(pairs(table))
                );
            }
        }
        if let Labels::Classes { names, ids } = &parts.train.labels {
            let first = ids.first().copied().unwrap_or_default();
            if ids.iter().all(|id| *id == first) {
                bail!(
                    "all {} training sentences are of the class {:?}: expected two classes at least{}",
                    count(ids.len() as u64),
                    names.get(first).map_or("", String::as_str),
                    if self.set.is_none() { " (sentences.table.label names their column)" } else { "" }
                );
            }
        }
        Ok(parts)
    }

    fn own_files(&self) -> Result<Parts> {
        let file = self.train.as_deref().context("sentences.train is missing")?;
        let mut train = open_table(file, &self.table)?;
        let target = labelled(&train, file)?;
        let others = target.options(&self.table);
        let validation = match (&self.validation, self.hold_out) {
            (Some(file), _) => {
                let table = open_table(file, &others)?;
                labelled(&table, file)?;
                table
            }
            (None, every) => {
                let rows = train.len();
                let every = every.unwrap_or(rows.max(1));
                let (kept, held) = (0..rows).partition::<Vec<_>, _>(|row| (row + 1) % every != 0);
                if held.is_empty() || kept.is_empty() {
                    bail!(
                        "sentences.hold_out = {every} leaves nothing to measure on of the {rows} rows of {}: set a smaller one",
                        file.display()
                    );
                }
                let validation = rows_of(&train, &held);
                train = rows_of(&train, &kept);
                validation
            }
        };
        // GLUE's own test files tell no labels: then there is nothing to measure on them.
        let test = self.test.as_deref().map(|file| open_table(file, &others)).transpose()?;
        Ok(Parts { train, validation, test: test.filter(|table| table.labels != Labels::Absent) })
    }
}

/// A table by the options of a recipe.
pub fn open_table(file: &Path, options: &TableOptions) -> Result<TextTable> {
    TextTable::open(file, options).map_err(|error| match error {
        // Its name is that of a field of the section.
        error @ Error::Config { .. } => anyhow!("sentences.table.{error}"),
        other => other.into(),
    })
}

fn labelled(table: &TextTable, file: &Path) -> Result<Target> {
    Target::of(table).with_context(|| {
        format!("{} has no column of labels by a usual name: name it in sentences.table.label", file.display())
    })
}

fn rows_of(table: &TextTable, rows: &[usize]) -> TextTable {
    let labels = match &table.labels {
        Labels::Classes { names, ids } => {
            Labels::Classes { names: names.clone(), ids: rows.iter().map(|&row| ids[row]).collect() }
        }
        Labels::Scores(scores) => Labels::Scores(rows.iter().map(|&row| scores[row]).collect()),
        Labels::Absent => Labels::Absent,
    };
    TextTable { rows: rows.iter().map(|&row| table.rows[row].clone()).collect(), labels }
}

fn movie_file() -> Result<PathBuf> {
    let folder = data_home()?.join("movie-reviews");
    let file = folder.join("movieReviewSnippets_GroundTruth.txt");
    if !file.is_file() {
        bail!(
            "movie-reviews is not at {}: get it with `cargo xtask data movie-reviews`, or write a recipe with sentences.train=FILE.tsv",
            folder.display()
        );
    }
    Ok(file)
}
