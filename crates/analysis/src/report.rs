//! One page that tells what a run came to: plain data in, one self-contained HTML text out.
//!
//! The page needs no network and no script, takes the reader's light or dark colours and fits a phone. Every sentence
//! in it is either given by the caller or computed here from the numbers beside it; what the numbers do not say is left
//! out. Everything given is escaped.

mod classification;
mod layers;
mod pictures;

use crate::plots::{Chart, Figure, line_chart};
use crate::stats::LayerStats;
use crate::text::{count, escape, math};
use crate::{Error, Result};
use std::fmt::Write;

pub use pictures::{SHOWN, WORST};

/// What a page is made of.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The headline.
    pub title: String,
    /// Sentences of the opening paragraph: what was trained, on what. The accuracy and what the layers show are added
    /// from the numbers.
    pub summary: Vec<String>,
    /// Name and value: command, version, device, time...
    pub facts: Vec<(String, String)>,
    /// Training curves.
    pub curves: Vec<Chart>,
    /// Results of a classifier.
    pub classification: Option<Classification>,
    /// What a model draws.
    pub pictures: Vec<Picture>,
    /// Coding rate and sparsity, layer by layer.
    pub layers: Option<LayerComparison>,
    /// Whatever else was measured, in order.
    pub sections: Vec<Section>,
    /// The resolved configuration, as the run wrote it.
    pub config: String,
}

/// How a classifier did on a set of images.
#[derive(Clone, Debug, Default)]
pub struct Classification {
    /// Class names.
    pub classes: Vec<String>,
    /// Counts, `[truth][predicted]`.
    pub confusion: Vec<Vec<u64>>,
    /// Share of images predicted right, 0 to 1; must agree with the matrix.
    pub accuracy: f64,
    /// What a simple method reaches on the same images.
    pub baseline: Option<Baseline>,
    /// Predictions in the order of the data: the first [`SHOWN`] are shown, and of all of them the [`WORST`] mistakes.
    pub samples: Vec<Sample>,
}

/// A simple method to compare with.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    /// What it is, e.g. "a linear model on pixels".
    pub name: String,
    /// Its share of right predictions, 0 to 1.
    pub accuracy: f64,
}

/// One image and what was predicted for it.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 grey, 2 grey with alpha, 3 RGB, 4 RGB with alpha.
    pub channels: u8,
    /// 8-bit values, row by row, channels last.
    pub pixels: Vec<u8>,
    /// Name of the true class.
    pub truth: String,
    /// Name of the predicted class.
    pub predicted: String,
    /// The model's probability of its prediction, 0 to 1.
    pub probability: f64,
}

/// A picture with what it shows.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// A heading.
    pub title: String,
    /// What is to be seen.
    pub caption: String,
    /// The picture, a PNG file.
    pub png: Vec<u8>,
}

/// A part of the page: what was measured, figures of it, and what they show.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What is measured, and how. `^{..}` and `_{..}` stand for raised and lowered text.
    pub method: String,
    /// Figures, side by side where there is room.
    pub figures: Vec<Figure>,
    /// Pictures, one below the other.
    pub pictures: Vec<Picture>,
    /// Texts that are shown as they stand, line by line.
    pub excerpts: Vec<String>,
    /// Sentences that say what the numbers show.
    pub findings: Vec<String>,
}

/// The same network measured at initialisation and after training, on the same images.
#[derive(Clone, Debug, Default)]
pub struct LayerComparison {
    /// At initialisation; may be empty.
    pub before: Vec<LayerStats>,
    /// After training.
    pub after: Vec<LayerStats>,
    /// Images it was measured on.
    pub images: u64,
    /// What else a reader must know, e.g. which images.
    pub note: String,
}

impl Report {
    /// The whole page.
    ///
    /// # Errors
    /// Data that contradict each other: a confusion matrix that does not fit its class names or its accuracy, a sample
    /// whose pixels do not fit its size, a picture that is no PNG, a band that does not fit its series, a layer listed twice.
    pub fn render(&self) -> Result<String> {
        let mut summary: Vec<String> = self.summary.iter().map(|s| escape(s)).collect();
        let mut sections = String::new();
        if let Some(classification) = &self.classification {
            summary.push(escape(&classification::sentence(classification)?));
            sections.push_str(&classification::section(classification)?);
        }
        for picture in &self.pictures {
            sections.push_str(&pictures::whole(picture)?);
        }
        if let Some(layers) = &self.layers {
            let (reading, section) = layers::section(layers)?;
            summary.extend(reading.map(|s| escape(&s)));
            sections.push_str(&section);
        }
        for section in &self.sections {
            sections.push_str(&section.render()?);
        }
        if !self.curves.is_empty() {
            let figures = self.curves.iter().map(line_chart).collect::<Result<Vec<_>>>()?;
            let _ = write!(sections, "<section><h2>Training</h2>{}</section>", grid(&figures));
        }
        if !self.config.is_empty() {
            let config = escape(&self.config);
            let _ = write!(
                sections,
                "<section><h2>Configuration</h2><details><summary>Every setting, with defaults resolved</summary><pre>{config}</pre></details></section>"
            );
        }
        let title = escape(&self.title);
        let style = include_str!("report/page.css");
        let summary = summary.join(" ");
        let facts = facts(&self.facts);
        Ok(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n\
             <header><h1>{title}</h1><p class=\"summary\">{summary}</p></header>\n{facts}\n{sections}\n</main>\n</body>\n</html>\n"
        ))
    }
}

impl Section {
    fn render(&self) -> Result<String> {
        let mut html = format!("<section><h2>{}</h2>", escape(&self.title));
        if !self.method.is_empty() {
            let _ = write!(html, "<p>{}</p>", math(&self.method));
        }
        if !self.figures.is_empty() {
            html.push_str(&grid(&self.figures));
        }
        for picture in &self.pictures {
            html.push_str(&pictures::inside(picture)?);
        }
        html.extend(self.excerpts.iter().map(|text| format!("<pre class=\"excerpt\">{}</pre>", escape(text))));
        html.extend(self.findings.iter().map(|text| format!("<p>{}</p>", math(text))));
        html.push_str("</section>");
        Ok(html)
    }
}

fn facts(facts: &[(String, String)]) -> String {
    if facts.is_empty() {
        return String::new();
    }
    let rows: String = facts
        .iter()
        .map(|(name, value)| format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(name), escape(value)))
        .collect();
    format!("<section class=\"facts\"><h2>The run</h2><table>{rows}</table></section>")
}

/// A figure with its title and caption.
fn figure(figure: &Figure) -> String {
    format!(
        "<figure><div class=\"title\">{}</div>{}<figcaption>{}</figcaption></figure>",
        escape(&figure.title),
        figure.svg,
        math(&figure.caption)
    )
}

/// Figures beside each other where there is room.
fn grid(figures: &[Figure]) -> String {
    format!("<div class=\"grid\">{}</div>", figures.iter().map(figure).collect::<String>())
}

/// "1 image", "1,000 images".
fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}
