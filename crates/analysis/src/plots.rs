//! Figures as SVG text, and as PNG where one is asked for: line charts through `plotters`; heat-map, bars, matrices, maps over tokens and points written out; several in one.
//!
//! A figure has no background and draws its text in `currentColor`, so it takes the page's colours, light or dark; the
//! series' hues keep a contrast of about 3 or more on both. Series differ by dash and marker too, never by colour alone.

mod bars;
mod heatmap;
mod line;
mod matrix;
mod panels;
mod raster;
mod scatter;
mod token_map;

use crate::text::escape;
use std::fmt::Write;

pub use bars::{Bar, horizontal_bars};
pub(crate) use heatmap::check as check_confusion;
pub use heatmap::{MAX_CLASSES, confusion_matrix};
pub use line::line_chart;
pub use matrix::{MAX_ENTRIES, magnitudes};
pub use panels::panels;
pub use raster::MAX_WIDTH;
pub use scatter::scatter;
pub use token_map::{MAX_TOKENS, token_map};

/// One line of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// `(x, y)`, in order of x. Points that are not finite are left out, the line has a gap there.
    pub points: Vec<(f64, f64)>,
    /// Half height of the error band at each point.
    pub band: Option<Vec<f64>>,
}

/// A line chart: plain data, drawn by [`line_chart`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// What it shows, in a few words.
    pub title: String,
    /// What exactly is measured, and how. `^{..}` and `_{..}` stand for raised and lowered text.
    pub caption: String,
    /// Quantity and unit of the x axis.
    pub x_label: String,
    /// Quantity and unit of the y axis.
    pub y_label: String,
    /// The lines.
    pub series: Vec<Series>,
}

/// A drawn figure. The title is inside the SVG as its accessible name; the caption is not.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// What exactly is measured, and what the drawing leaves out. `^{..}` and `_{..}` stand for raised and lowered text.
    pub caption: String,
    /// The drawing: a whole `<svg>` element.
    pub svg: String,
}

/// Hues that read on white and on near-black.
const PALETTE: [(u8, u8, u8); 6] = [
    (0x2f, 0x7e, 0xc4),
    (0xd0, 0x6a, 0x24),
    (0x2c, 0x96, 0x66),
    (0x93, 0x66, 0xc9),
    (0xcf, 0x4c, 0x58),
    (0x80, 0x80, 0x80),
];

fn hex((r, g, b): (u8, u8, u8)) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// The opening of a figure's `<svg>`, with its title for screen readers.
fn open(width: f64, height: f64, title: &str) -> String {
    let mut svg = String::new();
    let title = escape(title);
    let _ = write!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}" font-family="system-ui,sans-serif"><title>{title}</title>"#
    );
    svg
}
