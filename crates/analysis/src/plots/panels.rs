//! Several figures beside each other as one file that stands alone: on a light panel, so that it reads on light and on
//! dark pages.

use super::{Figure, open};
use crate::text::{escape, shorten};
use std::fmt::Write;

const GAP: f64 = 40.0;
const MARGIN: f64 = 20.0;
const TITLE: f64 = 60.0;
/// Width of a panel, in drawing units; each figure is scaled to it.
const WIDTH: f64 = 960.0;

/// Lays figures out in rows of `columns`, each under its title.
pub fn panels(title: &str, figures: &[Figure], columns: usize) -> Figure {
    let columns = columns.clamp(1, figures.len().max(1));
    let height = figures.iter().map(|f| scaled_height(&f.svg)).fold(0.0, f64::max) + TITLE;
    let rows = figures.len().div_ceil(columns).max(1);
    let whole = (
        2.0 * MARGIN + columns as f64 * (WIDTH + GAP) - GAP,
        2.0 * MARGIN + rows as f64 * (height + GAP / 2.0) - GAP / 2.0,
    );
    // The ground comes after the opening and its title, and sets the colour that all text takes.
    let mut svg = open(whole.0, whole.1, title);
    let _ = write!(
        svg,
        r##"<rect width="{:.0}" height="{:.0}" rx="12" fill="#fff"/><g color="#1c1e21">"##,
        whole.0, whole.1
    );
    for (i, figure) in figures.iter().enumerate() {
        let x = MARGIN + (i % columns) as f64 * (WIDTH + GAP);
        let y = MARGIN + (i / columns) as f64 * (height + GAP / 2.0);
        let _ = write!(
            svg,
            r#"<text x="{x:.0}" y="{:.0}" font-size="30" font-weight="600" fill="currentColor">{}</text>{}"#,
            y + 32.0,
            escape(&shorten(&figure.title, 60)),
            placed(&figure.svg, x, y + TITLE)
        );
    }
    svg.push_str("</g></svg>");
    let captions: Vec<&str> = figures.iter().map(|f| f.caption.as_str()).filter(|c| !c.is_empty()).collect();
    Figure { title: title.into(), caption: captions.join(" "), svg }
}

/// Width and height of a drawing of ours, by its view box.
fn size(svg: &str) -> (f64, f64) {
    let view = svg.split_once("viewBox=\"").and_then(|(_, rest)| rest.split_once('"'));
    let numbers: Vec<f64> = view.map_or("", |(v, _)| v).split(' ').filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [_, _, width, height] if width > 0.0 && height > 0.0 => (width, height),
        _ => (WIDTH, WIDTH),
    }
}

fn scaled_height(svg: &str) -> f64 {
    let (width, height) = size(svg);
    height * WIDTH / width
}

/// A drawing of ours as a nested one: the outer `<svg>` gets a place and a size.
fn placed(svg: &str, x: f64, y: f64) -> String {
    let height = scaled_height(svg);
    svg.replacen("<svg ", &format!(r#"<svg x="{x:.0}" y="{y:.0}" width="{WIDTH:.0}" height="{height:.0}" "#), 1)
}
