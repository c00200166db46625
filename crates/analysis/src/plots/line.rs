//! Line charts with error bands, drawn by `plotters` and then fitted to the page.
//!
//! `plotters` places everything on whole pixels, so the chart is drawn at twice its size. What comes out is rewritten in
//! three places: black becomes `currentColor`, the fixed-size `<svg>` becomes a scaling one with a title, and each
//! series' hue gets its dash pattern, which the library's solid lines lack.

use super::{Chart, Figure, PALETTE, Series, hex, open};
use crate::text::{escape, number, shorten};
use crate::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::fmt::Write;

/// Size in drawing units, twice the size at which text is about 15 px.
const SIZE: (u32, u32) = (960, 600);
const FONT: (&str, u32) = ("sans-serif", 30);
/// Mean width of a character in drawing units.
const CHAR: i32 = 16;
/// Beyond this many points a series is thinned to the extremes of equal groups.
const MAX_POINTS: usize = 400;
/// Up to this many points each gets a marker.
const MAX_MARKERS: usize = 24;
/// Values beyond this are treated as not finite: no axis could show them beside others.
const HUGE: f64 = 1e100;
const DASHES: [&str; 6] = ["", "14 8", "4 7", "18 7 4 7", "8 5", "24 8"];

/// `(x, y, half height of the band)`.
type Point = (f64, f64, f64);

/// Draws a chart. Where points are not finite or there are none at all, the caption says so.
///
/// # Errors
/// A band of another length than its series; a failure of the plotting library.
pub fn line_chart(chart: &Chart) -> Result<Figure> {
    let mut left_out = 0;
    let mut lines = Vec::new();
    for series in &chart.series {
        let segments = segments(series)?;
        left_out += series.points.len() - segments.iter().map(Vec::len).sum::<usize>();
        lines.push(segments.into_iter().map(thin).collect::<Vec<_>>());
    }
    let mut caption = chart.caption.clone();
    if left_out > 0 {
        caption.push_str(&format!(" Left out: {left_out} values that are not finite."));
    }
    if lines.iter().all(Vec::is_empty) {
        caption.push_str(" There is nothing to draw.");
    }
    let mut drawn = String::new();
    let spots = draw(chart, &lines, &mut drawn);
    let spots = spots.map_err(|e| Error::Plot { title: chart.title.clone(), message: e.to_string() })?;
    Ok(Figure { title: chart.title.clone(), caption, svg: fit(&drawn, &chart.title, &spots) })
}

/// The runs of drawable points between the gaps.
fn segments(series: &Series) -> Result<Vec<Vec<Point>>> {
    let bands = series.band.as_deref().unwrap_or(&[]);
    if series.band.is_some() && bands.len() != series.points.len() {
        return Err(Error::Data(format!(
            "series {:?} has {} points and a band of {}; a band holds one half height for each point",
            series.name,
            series.points.len(),
            bands.len()
        )));
    }
    let drawable = |v: f64| v.abs() < HUGE;
    let mut segments = vec![Vec::new()];
    for (i, &(x, y)) in series.points.iter().enumerate() {
        let half = bands.get(i).copied().filter(|b| drawable(*b)).unwrap_or(0.0).abs();
        match segments.last_mut() {
            Some(last) if drawable(x) && drawable(y) => last.push((x, y, half)),
            _ => segments.push(Vec::new()),
        }
    }
    segments.retain(|s| !s.is_empty());
    Ok(segments)
}

/// Keeps the lowest and the highest point of equal groups, so that spikes survive.
fn thin(points: Vec<Point>) -> Vec<Point> {
    if points.len() <= MAX_POINTS {
        return points;
    }
    let size = points.len().div_ceil(MAX_POINTS / 2);
    let extremes = points.chunks(size).flat_map(|group| {
        let by_y = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
        let low = group.iter().min_by(by_y).copied();
        let high = group.iter().max_by(by_y).copied();
        let (first, second) = if low.map(|p| p.0) <= high.map(|p| p.0) { (low, high) } else { (high, low) };
        first.into_iter().chain(second.filter(|p| Some(*p) != first))
    });
    extremes.collect()
}

/// The extent of some values with a margin, never empty and never so narrow that ticks would coincide.
fn extent(values: impl Iterator<Item = f64>, margin: f64) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    // Nothing at all, or nothing but zeros: ticks of 1e-13 would tell of differences that are none.
    if low > high || (low == 0.0 && high == 0.0) {
        return (0.0, 1.0);
    }
    let span = high - low;
    let least = 1e-6 * low.abs().max(high.abs());
    let pad = if span > least { span * margin } else { least.max(0.5 * low.abs().max(high.abs())).max(1e-12) };
    (low - pad, high + pad)
}

type Drawing<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A place in the drawing, and what a pointer that rests there is told.
type Spot = (i32, i32, String);

fn draw(chart: &Chart, lines: &[Vec<Vec<Point>>], out: &mut String) -> Drawing<Vec<Spot>> {
    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    let names: Vec<&str> = chart.series.iter().map(|s| s.name.as_str()).collect();
    let (head, body) = root.split_vertically(legend(&root, &names)?);
    drop(head);

    let all = || lines.iter().flatten().flatten();
    let (x0, x1) = extent(all().map(|p| p.0), 0.03);
    let (mut y0, y1) = extent(all().flat_map(|p| [p.1 - p.2, p.1 + p.2]), 0.06);
    if y0 < 0.0 && all().all(|p| p.1 - p.2 >= 0.0) {
        y0 = 0.0; // a margin below zero would suggest that the quantity could be negative
    }
    let text = |style: (&'static str, u32)| style.into_font().color(&BLACK);
    let mut plot = ChartBuilder::on(&body)
        .margin(8)
        .margin_right(28)
        .x_label_area_size(88)
        .y_label_area_size(138)
        .build_cartesian_2d(x0..x1, y0..y1)?;
    // Layers and epochs are whole numbers: few of them get a tick each, and no tick falls between.
    let whole = all().all(|p| p.0.fract() == 0.0) && x1 - x0 < 14.0;
    let ticks = if whole { (x1 - x0).floor() as usize + 2 } else { 6 };
    plot.configure_mesh()
        .disable_x_mesh()
        .bold_line_style(BLACK.mix(0.15))
        .light_line_style(TRANSPARENT)
        .max_light_lines(0)
        .axis_style(BLACK.mix(0.5))
        .x_labels(ticks)
        .y_labels(6)
        .x_label_formatter(&|x| if whole && x.fract() != 0.0 { String::new() } else { number(round(*x, x1 - x0)) })
        .y_label_formatter(&|y| number(round(*y, y1 - y0)))
        .label_style(text(FONT))
        .x_desc(shorten(&chart.x_label, 50))
        .y_desc(shorten(&chart.y_label, 30))
        .axis_desc_style(text(FONT))
        .draw()?;

    for (i, segments) in lines.iter().enumerate() {
        let color = hue(i);
        for points in segments {
            if points.iter().any(|p| p.2 > 0.0) {
                let upper = points.iter().map(|p| (p.0, p.1 + p.2));
                let lower = points.iter().rev().map(|p| (p.0, p.1 - p.2));
                plot.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), color.mix(0.16).filled())])?;
            }
        }
    }
    let mut spots = Vec::new();
    for (i, segments) in lines.iter().enumerate() {
        let count: usize = segments.iter().map(Vec::len).sum();
        for points in segments {
            let xy = points.iter().map(|p| (p.0, p.1));
            plot.draw_series(LineSeries::new(xy.clone(), hue(i).stroke_width(4)))?;
            if count <= MAX_MARKERS || points.len() == 1 {
                plot.draw_series(xy.map(|c| marker(c, i)))?;
                spots.extend(points.iter().map(|p| {
                    let (x, y) = plot.backend_coord(&(p.0, p.1));
                    let spread = if p.2 > 0.0 { format!(" ± {}", number(p.2)) } else { String::new() };
                    (
                        x,
                        y,
                        format!("{}, {} {}: {}{spread}", chart.series[i].name, chart.x_label, number(p.0), number(p.1)),
                    )
                }));
            }
        }
    }
    if lines.iter().all(Vec::is_empty) {
        let style = text(FONT);
        body.draw(&Text::new("no data", (i32::try_from(SIZE.0)? / 2 - 20, i32::try_from(SIZE.1)? / 2 - 60), style))?;
    }
    drop(plot);
    root.present()?;
    Ok(spots)
}

/// Tick positions carry rounding noise (0.30000000000000004); nothing below a thousandth of the range is shown.
fn round(x: f64, range: f64) -> f64 {
    let unit = 10f64.powf((range / 1000.0).log10().floor());
    let rounded = (x / unit).round() * unit;
    if rounded.is_finite() { rounded } else { x }
}

fn hue(series: usize) -> RGBColor {
    let (r, g, b) = PALETTE[series % PALETTE.len()];
    RGBColor(r, g, b)
}

fn marker<C: Clone + 'static>(center: C, series: usize) -> Circle<C, i32> {
    // The second, fourth... series have hollow markers, as their lines are broken.
    let (size, style) = match series % 2 {
        0 => (7, hue(series).filled()),
        _ => (8, hue(series).stroke_width(3)),
    };
    Circle::new(center, size, style)
}

/// Draws the legend over the chart, in as many rows as it needs, and returns its height. One series needs none.
fn legend<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, names: &[&str]) -> Drawing<i32>
where
    DB::ErrorType: 'static,
{
    if names.len() < 2 {
        return Ok(4);
    }
    let (left, right, row) = (138, i32::try_from(SIZE.0)? - 20, 38);
    let (mut x, mut y) = (left, 24);
    for (i, name) in names.iter().enumerate() {
        let name = shorten(name, 44);
        let width = 76 + CHAR * i32::try_from(name.chars().count())?;
        if x > left && x + width > right {
            (x, y) = (left, y + row);
        }
        area.draw(&PathElement::new(vec![(x, y), (x + 60, y)], hue(i).stroke_width(4)))?;
        area.draw(&marker((x + 30, y), i))?;
        area.draw(&Text::new(name, (x + 70, y - 13), FONT.into_font().color(&BLACK)))?;
        x += width + 24;
    }
    Ok(y + 22)
}

/// Turns the library's drawing into a figure of ours.
fn fit(drawn: &str, title: &str, spots: &[Spot]) -> String {
    let body = drawn.split_once('>').map_or("", |(_, rest)| rest);
    let mut svg = open(f64::from(SIZE.0), f64::from(SIZE.1), title);
    let mut body = body.replace("\"#000000\"", "\"currentColor\"");
    for noise in [" opacity=\"1\"", " font-family=\"sans-serif\"", "\n"] {
        body = body.replace(noise, "");
    }
    for (i, dash) in DASHES.iter().enumerate().filter(|(_, dash)| !dash.is_empty()) {
        let stroke = format!("stroke=\"{}\" stroke-width=\"4\"", hex(PALETTE[i]));
        body = body.replace(&stroke, &format!("{stroke} stroke-dasharray=\"{dash}\""));
    }
    let (body, end) = body.rsplit_once("</svg>").unwrap_or((&body, ""));
    svg.push_str(body);
    // Larger than the markers, and seen by nobody: what a pointer finds.
    for (x, y, told) in spots {
        let _ = write!(
            svg,
            r#"<circle cx="{x}" cy="{y}" r="16" fill-opacity="0"><title>{}</title></circle>"#,
            escape(told)
        );
    }
    svg.push_str("</svg>");
    svg.push_str(end);
    svg
}
