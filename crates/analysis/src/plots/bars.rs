//! Horizontal bars: a few named shares beside each other.

use super::{Figure, PALETTE, hex, open};
use crate::text::{escape, percent, shorten};
use std::fmt::Write;

const ROW: f64 = 30.0;
const LEFT: f64 = 186.0;
const WIDTH: f64 = 490.0;

/// One bar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// What it stands for.
    pub name: String,
    /// A share between 0 and 1; another value is written as it is, and the bar ends at the axis.
    pub share: f64,
    /// Whether it is the one the figure is about; the others are grey.
    pub accent: bool,
}

/// Draws shares as bars from 0 to 100 %.
pub fn horizontal_bars(title: &str, caption: &str, bars: &[Bar]) -> Figure {
    let full = WIDTH - LEFT - 70.0;
    let mut svg = open(WIDTH, ROW * bars.len().max(1) as f64 + 4.0, title);
    svg.push_str("<g font-size=\"14\" fill=\"currentColor\" dominant-baseline=\"central\">");
    if bars.is_empty() {
        let _ = write!(svg, r#"<text x="4" y="{}">no data</text>"#, ROW / 2.0);
    }
    for (i, bar) in bars.iter().enumerate() {
        let middle = ROW * (i as f64 + 0.5) + 2.0;
        let length = if bar.share.is_finite() { full * bar.share.clamp(0.0, 1.0) } else { 0.0 };
        let fill = hex(PALETTE[if bar.accent { 0 } else { 5 }]);
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{middle:.1}" text-anchor="end">{}</text><rect x="{LEFT}" y="{:.1}" width="{full:.1}" height="16" fill-opacity=".08"/><rect x="{LEFT}" y="{:.1}" width="{length:.1}" height="16" fill="{fill}"/><text x="{:.1}" y="{middle:.1}">{}</text>"#,
            LEFT - 10.0,
            escape(&shorten(&bar.name, 24)),
            middle - 8.0,
            middle - 8.0,
            LEFT + full + 8.0,
            percent(bar.share)
        );
    }
    svg.push_str("</g></svg>");
    Figure { title: title.into(), caption: caption.into(), svg }
}
