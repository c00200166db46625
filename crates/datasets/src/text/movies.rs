//! Movie-review sentences with scores from Hutto and Gilbert's VADER material (2014), as a set of two classes.
//!
//! The file is `movieReviewSnippets_GroundTruth.txt`: a line is a number, a mean score from -4 to 4 and a sentence, with
//! tabs between. Negative is class 0, positive class 1; what lies within 0.5 of 0 is left out. The set has no official
//! parts: the running number of a line, from 1, modulo 10 says its part, 0 test, 1 validation, the rest train.

use std::path::Path;

use super::Part;
use super::table::{Labels, TextTable, read_text};
use crate::{Error, Result};

/// Scores closer to 0 say neither.
const NEITHER: f64 = 0.5;

/// Reads a part of the movie-review sentences.
///
/// # Errors
/// [`Error::Io`], [`Error::Gzip`], [`Error::NotUtf8`]; [`Error::Line`] for a line that is none; [`Error::Empty`] where
/// the part holds no sentence.
pub fn movie_reviews(path: &Path, part: Part) -> Result<TextTable> {
    let text = read_text(path)?;
    let (mut rows, mut ids) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let problem = |reason: String| Error::Line {
            path: path.to_owned(),
            line: number,
            reason,
            expected: "a line is a number, a score from -4 to 4 and a sentence, with tabs between",
        };
        let mut fields = line.splitn(3, '\t');
        let (Some(_), Some(score), Some(sentence)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(problem(format!("it has {} fields", line.split('\t').count())));
        };
        let score: f64 = score.trim().parse().map_err(|_| problem(format!("{score:?} is no number")))?;
        if !(-4.0..=4.0).contains(&score) {
            return Err(problem(format!("the score {score} is out of range")));
        }
        let of = match number % 10 {
            0 => Part::Test,
            1 => Part::Validation,
            _ => Part::Train,
        };
        if of == part && score.abs() > NEITHER {
            rows.push((sentence.trim().to_owned(), None));
            ids.push(usize::from(score > 0.0));
        }
    }
    if rows.is_empty() {
        return Err(Error::Empty { origin: path.display().to_string(), what: format!("holds 0 {part} sentences") });
    }
    let names = vec!["negative".to_owned(), "positive".to_owned()];
    Ok(TextTable { rows, labels: Labels::Classes { names, ids } })
}
