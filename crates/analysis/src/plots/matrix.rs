//! The magnitudes of a matrix as shades: what is zero is empty, what is largest is full.
//!
//! Cells of one shade are one path, so that a matrix of thousands of entries stays a small file.

use super::{Figure, PALETTE, hex, open};
use crate::{Error, Result};
use std::fmt::Write;

/// More entries than this are refused: no one could see them.
pub const MAX_ENTRIES: usize = 100_000;
const WIDTH: f64 = 960.0;
/// Shades beside empty.
const SHADES: usize = 8;

/// Draws `|entries[row][column]|` as shares of the largest. `groups` has a number for every column, which chooses its
/// colour.
///
/// # Errors
/// Rows of different length, another number of groups than columns, or more than [`MAX_ENTRIES`] entries.
pub fn magnitudes(title: &str, caption: &str, entries: &[Vec<f64>], groups: &[usize]) -> Result<Figure> {
    let (rows, columns) = (entries.len(), groups.len());
    if let Some(row) = entries.iter().position(|r| r.len() != columns) {
        let found = entries[row].len();
        return Err(Error::Data(format!("row {row} of {title:?} has {found} entries for {columns} columns")));
    }
    if rows * columns > MAX_ENTRIES {
        return Err(Error::Data(format!(
            "{title:?} has {rows} x {columns} entries; a picture of more than {MAX_ENTRIES} shows nothing"
        )));
    }
    let cell = WIDTH / columns.max(1) as f64;
    let height = (cell * rows as f64).clamp(1.0, WIDTH);
    let tall = height / rows.max(1) as f64;
    let largest = entries.iter().flatten().filter(|v| v.is_finite()).fold(0.0, |top: f64, v| top.max(v.abs()));
    let mut paths = vec![String::new(); PALETTE.len() * SHADES];
    for (row, values) in entries.iter().enumerate() {
        for (column, value) in values.iter().enumerate().filter(|(_, v)| v.is_finite() && largest > 0.0) {
            let shade = (value.abs() / largest * SHADES as f64).round() as usize;
            if shade > 0 {
                let path = &mut paths[groups[column] % PALETTE.len() * SHADES + shade - 1];
                let (x, y) = (column as f64 * cell, row as f64 * tall);
                let _ = write!(path, "M{x:.1} {y:.1}h{cell:.1}v{tall:.1}h-{cell:.1}z");
            }
        }
    }
    let mut svg = open(WIDTH, height, title);
    for (i, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        let opacity = (i % SHADES + 1) as f64 / SHADES as f64;
        let fill = hex(PALETTE[i / SHADES]);
        let _ = write!(svg, r#"<path fill="{fill}" fill-opacity="{opacity:.3}" d="{path}"/>"#);
    }
    let _ = write!(
        svg,
        r#"<rect width="{WIDTH}" height="{height:.1}" fill="none" stroke="currentColor" stroke-opacity=".4" stroke-width="2"/></svg>"#
    );
    Ok(Figure { title: title.into(), caption: caption.into(), svg })
}
