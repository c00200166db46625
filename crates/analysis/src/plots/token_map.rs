//! A map over the tokens of a text, as attention is: one row a token that looks, one column a token that is looked at.
//!
//! An entry that is not finite is one that cannot be: it stays empty, and what can be is lightly tinted even where it is zero, so that a causal triangle is seen.

use super::{Figure, PALETTE, hex, open};
use crate::text::{escape, number, shorten};
use crate::{Error, Result};
use std::fmt::Write;

/// More tokens than this are refused: their names could not be read.
pub const MAX_TOKENS: usize = 48;
/// Side of the map, whatever the number of tokens.
const SIDE: f64 = 420.0;
/// Room for names, left and above.
const NAMES: f64 = 96.0;

/// Draws `entries[row][column]`, from 0 (nearly empty) to 1 (full) by their roots, so that small weights are seen, between tokens named by `labels`.
///
/// # Errors
/// A map that is not square or of another size than `labels`; more than [`MAX_TOKENS`] of them.
pub fn token_map(title: &str, caption: &str, labels: &[String], entries: &[Vec<f64>]) -> Result<Figure> {
    let n = labels.len();
    if entries.len() != n || entries.iter().any(|row| row.len() != n) {
        return Err(Error::Data(format!(
            "{title:?} has {} rows for {n} tokens, and needs {n} of {n} entries",
            entries.len()
        )));
    }
    if n > MAX_TOKENS {
        return Err(Error::Data(format!("{title:?} has {n} tokens; of more than {MAX_TOKENS} no name could be read")));
    }
    let cell = SIDE / n.max(1) as f64;
    let mut svg = open(NAMES + SIDE + 20.0, NAMES + SIDE + 2.0, title);
    let font = (0.72 * cell).clamp(5.0, 13.0);
    let _ = write!(
        svg,
        r#"<g fill="currentColor" font-size="12"><text x="4" y="16" font-style="italic">query ↓ key →</text></g><g font-size="{font:.1}" fill="currentColor">"#
    );
    for (i, label) in labels.iter().enumerate() {
        let (name, at) = (escape(&shorten(label, 12)), (i as f64 + 0.5) * cell);
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end" dominant-baseline="central">{name}</text>"#,
            NAMES - 6.0,
            NAMES + at
        );
        let _ = write!(
            svg,
            r#"<text transform="translate({:.1} {:.1})rotate(-60)">{name}</text>"#,
            NAMES + at,
            NAMES - 6.0
        );
    }
    svg.push_str("</g>");
    let fill = hex(PALETTE[0]);
    for (row, values) in entries.iter().enumerate() {
        for (column, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let (x, y) = (NAMES + column as f64 * cell, NAMES + row as f64 * cell);
            let opacity = 0.06 + 0.94 * value.clamp(0.0, 1.0).sqrt();
            let _ = write!(
                svg,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{cell:.1}" height="{cell:.1}" fill="{fill}" fill-opacity="{opacity:.2}"><title>{} to {}: {}</title></rect>"#,
                escape(&shorten(&labels[row], 24)),
                escape(&shorten(&labels[column], 24)),
                number(*value)
            );
        }
    }
    let _ = write!(
        svg,
        r#"<rect x="{NAMES}" y="{NAMES}" width="{SIDE}" height="{SIDE}" fill="none" stroke="currentColor" stroke-opacity=".4"/></svg>"#
    );
    Ok(Figure { title: title.into(), caption: caption.into(), svg })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_stays_empty_and_names_are_escaped() {
        let labels = ["<b>".to_owned(), "cat".to_owned()];
        let figure = token_map("head 1", "", &labels, &[vec![1.0, f64::NAN], vec![0.0, 1.0]]).unwrap();
        assert_eq!(figure.svg.matches("fill-opacity=\"").count(), 3);
        assert!(figure.svg.contains("&lt;b&gt;") && !figure.svg.contains("<b>"));
        assert!(figure.svg.contains("cat to &lt;b&gt;: 0<"), "{}", figure.svg);
        assert!(figure.png(300).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn maps_that_do_not_fit_are_refused() {
        let labels = vec!["a".to_owned(); MAX_TOKENS + 1];
        let square = vec![vec![0.0; MAX_TOKENS + 1]; MAX_TOKENS + 1];
        assert!(token_map("m", "", &labels, &square).unwrap_err().to_string().contains("no name could be read"));
        assert!(token_map("m", "", &labels[..2], &square[..1]).unwrap_err().to_string().contains("needs 2 of 2"));
    }
}
