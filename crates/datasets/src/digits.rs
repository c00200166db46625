//! The 1,797 handwritten digits of 8 x 8 pixels (UCI "optdigits", test part) as CSV, raw or gzip: 64 values from 0 to
//! 16 in row order, then the label, a line each, without a header.

use std::path::Path;

use crate::file::Source;
use crate::{Error, InMemory, Result};

const SIDE: usize = 8;
const HIGHEST: u64 = 16;
const CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Reads the digits from a file, or from `digits.csv.gz` or `digits.csv` in a folder.
///
/// The values 0 to 16 are spread over 0 to 255 (16 becomes 255, halves are rounded up).
///
/// # Shapes
/// Grey images of 8 x 8.
///
/// # Errors
/// [`Error::Missing`] with how to get the file; [`Error::Csv`] with the line that is wrong; an empty or damaged file.
pub fn open(path: &Path) -> Result<InMemory> {
    let names = ["digits.csv.gz", "digits.csv"];
    let candidates = if path.is_dir() { names.map(|name| path.join(name)).to_vec() } else { vec![path.to_owned()] };
    let Some(file) = candidates.into_iter().find(|file| file.exists()) else {
        return Err(Error::Missing {
            set: "the digits".into(),
            dir: path.to_owned(),
            looked_for: names.join(" or "),
            how: "the file lies in this project's data/ folder (scikit-learn ships it as digits.csv.gz)".into(),
        });
    };
    let text = Source::open(&file)?.rest()?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for record in csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&*text).records() {
        let fault = |line, reason| Error::Csv { path: file.clone(), line, reason };
        let record =
            record.map_err(|error| fault(error.position().map_or(0, csv::Position::line), error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != SIDE * SIDE + 1 {
            return Err(fault(line, format!("{} values were found, 65 are expected", record.len())));
        }
        for (column, field) in record.iter().enumerate() {
            let highest = if column < SIDE * SIDE { HIGHEST } else { CLASSES.len() as u64 - 1 };
            let value = field.trim().parse().ok().filter(|value: &u64| *value <= highest);
            let value = value.ok_or_else(|| {
                fault(
                    line,
                    format!("value {} is {field:?}, a whole number from 0 to {highest} is expected", column + 1),
                )
            })?;
            match column {
                0..64 => pixels.push(((value * 255 + HIGHEST / 2) / HIGHEST) as u8),
                _ => labels.push(value as usize),
            }
        }
    }
    InMemory::new(file.display().to_string(), pixels, [SIDE, SIDE, 1], labels, &CLASSES)
}
