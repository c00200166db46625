//! Points of the plane, coloured by group, in a square of given half width.
//!
//! The points of a group are one path of dots, so that thousands of them stay a small file.

use super::{Figure, PALETTE, hex, open};
use crate::text::number;
use std::fmt::Write;

const SIDE: f64 = 960.0;
const DOT: f64 = 9.0;

/// Draws groups of points around the origin, within `half` of it on both axes. The caption says how many lie outside or
/// are not finite.
pub fn scatter(title: &str, caption: &str, groups: &[Vec<(f64, f64)>], half: f64) -> Figure {
    let half = if half.is_finite() && half > 0.0 { half } else { 1.0 };
    let place = |v: f64| SIDE / 2.0 * (1.0 + v / half);
    let mut left_out = 0;
    let mut svg = open(SIDE, SIDE, title);
    let middle = SIDE / 2.0;
    let _ = write!(
        svg,
        r#"<path d="M0 {middle}H{SIDE}M{middle} 0V{SIDE}" stroke="currentColor" stroke-opacity=".15" stroke-width="2"/><g stroke-width="{DOT}" stroke-linecap="round" stroke-opacity=".55" fill="none">"#
    );
    for (i, points) in groups.iter().enumerate() {
        let mut path = String::new();
        for &(x, y) in points {
            if x.abs() <= half && y.abs() <= half {
                let _ = write!(path, "M{:.0} {:.0}h0", place(x), place(-y));
            } else {
                left_out += 1;
            }
        }
        let _ = write!(svg, r#"<path stroke="{}" d="{path}"/>"#, hex(PALETTE[i % PALETTE.len()]));
    }
    let _ = write!(
        svg,
        r#"</g><text x="{:.0}" y="{:.0}" font-size="26" fill="currentColor" text-anchor="end">&#177;{}</text><rect width="{SIDE}" height="{SIDE}" fill="none" stroke="currentColor" stroke-opacity=".4" stroke-width="2"/></svg>"#,
        SIDE - 12.0,
        SIDE - 14.0,
        number(half)
    );
    let mut caption = caption.to_owned();
    if left_out > 0 {
        caption.push_str(&format!(" Outside the frame: {left_out} points."));
    }
    Figure { title: title.into(), caption, svg }
}
