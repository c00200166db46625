//! Tables of labelled sentences or pairs of sentences: GLUE's files (Wang et al. 2019) and CSV or TSV of one's own.
//!
//! In a TSV a quotation mark is a character like any other, as in GLUE; in a CSV it quotes. Which columns hold what is
//! told by their names, or said in [`TableOptions`].

use std::path::Path;

use csv::{ReaderBuilder, StringRecord};
use serde::{Deserialize, Serialize};

use crate::file::Source;
use crate::{Error, Result};

/// GLUE's names of the columns of text, and others that are in use; the first that are there are taken.
const TEXTS: [&[&str]; 8] = [
    &["sentence1", "sentence2"],
    &["question1", "question2"],
    &["question", "sentence"],
    &["premise", "hypothesis"],
    &["#1 String", "#2 String"],
    &["sentence"],
    &["text"],
    &["review"],
];
const CLASSES: [&str; 4] = ["gold_label", "label", "is_duplicate", "Quality"];
const SCORE: &str = "score";
/// CoLA has no header: source, label, the author's mark, sentence.
const COLA: [&str; 4] = ["source", "label", "mark", "sentence"];

const LINE: &str =
    "each line has the columns of the first (in a TSV with tabs between, and quotation marks as they are)";

/// How to read a table; what is left out is found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableOptions {
    /// The column of text, or the two of a pair: by name, or by number from 0 where there is no header. By default
    /// GLUE's.
    pub text: Vec<String>,
    /// The column of labels. By default GLUE's; where none is there, the table has no labels.
    pub label: Option<String>,
    /// Whether the first line names the columns. By default it does, unless it looks like CoLA.
    pub header: Option<bool>,
    /// What stands between columns. By default a comma in `.csv`, else a tab.
    pub delimiter: Option<char>,
    /// The names of the classes in the order of their ids. By default those that occur, in the order of their numbers
    /// if all are numbers, else of the alphabet. To be given where a part may lack a class.
    pub classes: Option<Vec<String>>,
    /// Whether labels are scores (regression). By default only in a column called `score`.
    pub scores: Option<bool>,
}

/// What is to be predicted.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// A class for each row.
    Classes {
        /// The classes' names; the position is the id.
        names: Vec<String>,
        /// The id of each row.
        ids: Vec<usize>,
    },
    /// A number for each row.
    Scores(Vec<f64>),
    /// Nothing is known, as in GLUE's test files.
    Absent,
}

/// Labelled sentences, or pairs of them.
#[derive(Clone, Debug, PartialEq)]
pub struct TextTable {
    /// The sentence, and where it is a pair the second one.
    pub rows: Vec<(String, Option<String>)>,
    /// What is to be predicted of each row.
    pub labels: Labels,
}

impl TextTable {
    /// Reads a `.csv`, a `.tsv`, or either as `.gz`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Gzip`], [`Error::NotUtf8`] for a file that cannot be read; [`Error::Config`] for columns
    /// that are not there; [`Error::Line`] for a row of other columns, a score that is no number or a class that is not
    /// among those given; [`Error::Empty`] for a table without rows.
    pub fn open(path: &Path, options: &TableOptions) -> Result<Self> {
        Reader::new(path, options)?.table(options)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// All of a file as text, without a byte order mark.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let bytes = Source::open(path)?.rest()?;
    let mut text = String::from_utf8(bytes)
        .map_err(|error| Error::NotUtf8 { path: path.to_owned(), offset: error.utf8_error().valid_up_to() as u64 })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// The file split into rows, and the names of its columns.
struct Reader<'a> {
    path: &'a Path,
    columns: Vec<String>,
    /// Each with its line, from 1.
    records: Vec<(usize, StringRecord)>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, options: &TableOptions) -> Result<Self> {
        let text = read_text(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let comma = name.strip_suffix(".gz").unwrap_or(&name).ends_with(".csv");
        let delimiter = options.delimiter.unwrap_or(if comma { ',' } else { '\t' });
        let byte = u8::try_from(delimiter).ok().filter(|byte| byte.is_ascii() && !b"\n\r\"".contains(byte));
        let Some(byte) = byte else {
            let expected = "one ASCII character other than a quotation mark or line end is expected";
            return Err(Error::config("delimiter", format!("{delimiter:?}"), expected));
        };
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .delimiter(byte)
            .quoting(byte != b'\t')
            .flexible(true)
            .from_reader(text.as_bytes());
        let mut records = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|error| Error::Line {
                path: path.to_owned(),
                line: error.position().map_or(0, |position| position.line() as usize),
                reason: format!("it does not parse ({error})"),
                expected: LINE,
            })?;
            let line = record.position().map_or(0, |position| position.line() as usize);
            records.push((line, record));
        }
        let Some((_, first)) = records.first() else {
            return Err(empty(path));
        };
        let cola = options.text.is_empty() && first.len() == 4 && matches!(&first[1], "0" | "1");
        let columns = if options.header.unwrap_or(!cola) {
            records.remove(0).1.iter().map(|name| name.trim().to_owned()).collect()
        } else if cola {
            COLA.map(String::from).to_vec()
        } else {
            (0..first.len()).map(|number| number.to_string()).collect()
        };
        if records.is_empty() {
            return Err(empty(path));
        }
        if let Some((line, record)) = records.iter().find(|(_, record)| record.len() != columns.len()) {
            let reason = format!("it has {} columns, the first line {}", record.len(), columns.len());
            return Err(Error::Line { path: path.to_owned(), line: *line, reason, expected: LINE });
        }
        Ok(Self { path, columns, records })
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    fn column(&self, setting: &str, name: &str) -> Result<usize> {
        self.find(name).ok_or_else(|| {
            let expected = format!("{} has the columns {}", self.path.display(), self.columns.join(", "));
            Error::config(setting, format!("{name:?}"), expected)
        })
    }

    fn texts(&self, options: &TableOptions) -> Result<Vec<usize>> {
        if options.text.len() > 2 {
            let found = options.text.join(", ");
            return Err(Error::config("text", found, "one column, or two for pairs, are expected"));
        }
        if !options.text.is_empty() {
            return options.text.iter().map(|name| self.column("text", name)).collect();
        }
        let known = TEXTS.iter().find_map(|names| names.iter().map(|name| self.find(name)).collect());
        known.ok_or_else(|| {
            let expected = format!(
                "{} has the columns {}, and none of the usual names of text is among them: name one or two",
                self.path.display(),
                self.columns.join(", ")
            );
            Error::config("text", "not given", expected)
        })
    }

    fn table(&self, options: &TableOptions) -> Result<TextTable> {
        let texts = self.texts(options)?;
        let label = match &options.label {
            Some(name) => Some(self.column("label", name)?),
            None => CLASSES.iter().chain([&SCORE]).find_map(|name| self.find(name)),
        };
        let text = |record: &StringRecord, column: usize| record[column].trim().to_owned();
        let row = |(_, record): &(usize, StringRecord)| {
            (text(record, texts[0]), texts.get(1).map(|second| text(record, *second)))
        };
        let labels = match label {
            None => Labels::Absent,
            Some(at) if options.scores.unwrap_or(self.columns[at] == SCORE) => Labels::Scores(self.scores(at)?),
            Some(at) => self.classes(at, options.classes.as_deref())?,
        };
        Ok(TextTable { rows: self.records.iter().map(row).collect(), labels })
    }

    fn problem(&self, line: usize, reason: String, expected: &'static str) -> Error {
        Error::Line { path: self.path.to_owned(), line, reason, expected }
    }

    fn scores(&self, column: usize) -> Result<Vec<f64>> {
        let score = |(line, record): &(usize, StringRecord)| match record[column].trim().parse::<f64>() {
            Ok(score) if score.is_finite() => Ok(score),
            _ => Err(self.problem(*line, format!("the score is {:?}", &record[column]), "a score is a number")),
        };
        self.records.iter().map(score).collect()
    }

    fn classes(&self, column: usize, given: Option<&[String]>) -> Result<Labels> {
        let label = |record: &StringRecord| record[column].trim().to_owned();
        let names = given.map(<[String]>::to_vec).unwrap_or_else(|| {
            let mut names: Vec<String> = self.records.iter().map(|(_, record)| label(record)).collect();
            names.sort();
            names.dedup();
            // "10" comes after "9" where all are numbers
            let numbers: Option<Vec<i64>> = names.iter().map(|name| name.parse().ok()).collect();
            if numbers.is_some() {
                names.sort_by_key(|name| name.parse::<i64>().ok());
            }
            names
        });
        let id = |(line, record): &(usize, StringRecord)| {
            let label = label(record);
            names.iter().position(|name| *name == label).ok_or_else(|| {
                let reason = format!("its class is {label:?}, not one of {}", names.join(", "));
                self.problem(*line, reason, "each row is of one of the classes given")
            })
        };
        let ids = self.records.iter().map(id).collect::<Result<_>>()?;
        Ok(Labels::Classes { names, ids })
    }
}

fn empty(path: &Path) -> Error {
    Error::Empty { origin: path.display().to_string(), what: "holds 0 rows".into() }
}
