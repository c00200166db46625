//! The confusion matrix: one row a true class, one column a prediction.

use super::{Figure, PALETTE, hex, open};
use crate::text::{count, escape, shorten};
use crate::{Error, Result};
use std::fmt::Write;

/// Beyond this many classes a matrix is not legible and not drawn.
pub const MAX_CLASSES: usize = 100;
/// Up to this many classes the counts are written into the cells.
const MAX_NUMBERS: usize = 20;
/// Up to this many classes rows and columns are named.
const MAX_NAMES: usize = 40;
/// Side of the matrix, whatever the number of classes.
const SIDE: f64 = 400.0;

/// Draws a confusion matrix `[truth][predicted]`.
///
/// # Errors
/// A matrix that is not square, or of another size than `classes`; more than [`MAX_CLASSES`] of them.
pub fn confusion_matrix(classes: &[String], confusion: &[Vec<u64>]) -> Result<Figure> {
    let n = classes.len();
    check(classes, confusion)?;
    if n > MAX_CLASSES {
        return Err(Error::Data(format!(
            "a confusion matrix of {n} classes is not legible; the limit is {MAX_CLASSES}"
        )));
    }
    let cell = SIDE / n.max(1) as f64;
    let (left, top, right) = (104.0, 84.0, 48.0);
    let mut svg = open(left + SIDE + right, top + SIDE + 2.0, "Confusion matrix");
    let font = (0.62 * cell).clamp(5.0, 14.0);
    let _ = write!(
        svg,
        r#"<g fill="currentColor" font-size="13"><text x="4" y="16" font-style="italic">truth ↓ predicted →</text></g><g font-size="{font:.1}" fill="currentColor">"#
    );
    for (i, name) in classes.iter().enumerate() {
        let (name, at) = (escape(&shorten(name, 12)), (i as f64 + 0.5) * cell);
        if n <= MAX_NAMES {
            let (y, x) = (top + at, left + at);
            let _ = write!(
                svg,
                r#"<text x="{:.1}" y="{y:.1}" text-anchor="end" dominant-baseline="central">{name}</text>"#,
                left - 8.0
            );
            let _ = write!(svg, r#"<text transform="translate({x:.1} {:.1})rotate(-45)">{name}</text>"#, top - 8.0);
        }
    }
    svg.push_str("</g><g text-anchor=\"middle\" fill=\"currentColor\">");
    for (row, counts) in confusion.iter().enumerate() {
        let total = counts.iter().sum::<u64>();
        for (column, &value) in counts.iter().enumerate().filter(|(_, value)| **value > 0) {
            // The square root makes rare confusions visible; 0.75 at most keeps the number legible on it.
            let opacity = 0.75 * (value as f64 / total as f64).sqrt();
            let (x, y) = (left + column as f64 * cell, top + row as f64 * cell);
            let fill = hex(PALETTE[usize::from(row != column)]);
            let _ = write!(
                svg,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{cell:.1}" height="{cell:.1}" fill="{fill}" fill-opacity="{opacity:.2}"><title>{} taken for {}: {value} of {total}</title></rect>"#,
                escape(&classes[row]),
                escape(&classes[column])
            );
            if n <= MAX_NUMBERS {
                let size = font.min(1.5 * cell / value.to_string().len() as f64);
                let (x, y) = (x + cell / 2.0, y + cell / 2.0);
                let _ = write!(
                    svg,
                    r#"<text x="{x:.1}" y="{y:.1}" font-size="{size:.1}" dominant-baseline="central" pointer-events="none">{value}</text>"#
                );
            }
        }
    }
    let _ = write!(
        svg,
        r#"</g><rect x="{left}" y="{top}" width="{SIDE}" height="{SIDE}" fill="none" stroke="currentColor" stroke-opacity=".4"/></svg>"#
    );
    let images: u64 = confusion.iter().flatten().sum();
    let mut caption = format!(
        "Rows are the true classes, columns the predictions, over {} images. Right answers lie on the diagonal (blue), mistakes beside it (orange); \
         the shade is the square root of the share of its row, an empty cell is zero.",
        count(images)
    );
    if images == 0 {
        caption.push_str(" There are no predictions to show.");
    }
    Ok(Figure { title: "Confusion matrix".into(), caption, svg })
}

/// That the matrix is square and has a name for every class.
pub(crate) fn check(classes: &[String], confusion: &[Vec<u64>]) -> Result<()> {
    let n = classes.len();
    match confusion.iter().position(|row| row.len() != n) {
        Some(row) => Err(Error::Data(format!(
            "row {row} of the confusion matrix has {} entries for {n} class names; it is [truth][predicted], one row and one column a class",
            confusion[row].len()
        ))),
        None if confusion.len() != n => Err(Error::Data(format!(
            "the confusion matrix has {} rows for {n} class names; it is [truth][predicted], one row and one column a class",
            confusion.len()
        ))),
        None => Ok(()),
    }
}
