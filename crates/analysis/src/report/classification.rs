//! The section on a classifier: accuracy beside a simple method, confusions, sample predictions.

use super::{Classification, Error, counted, figure, pictures};
use crate::Result;
use crate::plots::{Bar, MAX_CLASSES, confusion_matrix, horizontal_bars};
use crate::text::{count, escape, percent};
use std::fmt::Write;

/// Up to this many classes each gets a bar.
const MAX_BARS: usize = 20;
/// Rows of the table of confusions.
const CONFUSIONS: usize = 6;

fn right(c: &Classification) -> u64 {
    c.confusion.iter().enumerate().filter_map(|(i, row)| row.get(i)).sum()
}

fn total(c: &Classification) -> u64 {
    c.confusion.iter().flatten().sum()
}

fn images(n: u64) -> String {
    counted(n, "image", "images")
}

/// The accuracy in words, beside the baseline.
pub(super) fn sentence(c: &Classification) -> Result<String> {
    let (right, total) = (right(c), total(c));
    let by_count = right as f64 / total as f64;
    if total > 0 && c.accuracy.is_finite() && (c.accuracy - by_count).abs() > 0.5 / total as f64 {
        return Err(Error::Data(format!(
            "the accuracy given is {}, but the confusion matrix holds {right} right of {total}, {by_count}; both must come from the same predictions, as shares between 0 and 1",
            c.accuracy
        )));
    }
    let mut text = if total > 0 {
        format!("The model predicts {} of {} right ({})", count(right), images(total), percent(c.accuracy))
    } else {
        format!("The accuracy is given as {}, without the predictions it comes from", percent(c.accuracy))
    };
    if let Some(baseline) = &c.baseline {
        let points = 100.0 * (c.accuracy - baseline.accuracy);
        let reached = percent(baseline.accuracy);
        let _ = match points {
            p if !p.is_finite() => write!(text, "; {} reaches {reached}", baseline.name),
            p if p.abs() < 0.05 => write!(text, ", the same as {} ({reached})", baseline.name),
            p if p > 0.0 => write!(text, ", {p:.1} points more than {} ({reached})", baseline.name),
            p => write!(text, ", {:.1} points less than {} ({reached})", -p, baseline.name),
        };
    }
    text.push('.');
    Ok(text)
}

pub(super) fn section(c: &Classification) -> Result<String> {
    let mut html = String::from("<section><h2>Classification</h2>");
    html.push_str(&figure(&accuracy_bars(c)));
    crate::plots::check_confusion(&c.classes, &c.confusion)?;
    let matrix = if c.classes.len() <= MAX_CLASSES {
        figure(&confusion_matrix(&c.classes, &c.confusion)?)
    } else {
        format!("<p>A confusion matrix of {} classes is not legible and not drawn.</p>", c.classes.len())
    };
    let bars = if c.classes.len() <= MAX_BARS { figure(&class_bars(c)) } else { String::new() };
    let _ = write!(html, "<div class=\"grid\">{matrix}<div>{bars}{}</div></div></section>", confusions(c));
    html.push_str(&pictures::section(&c.samples)?);
    Ok(html)
}

fn accuracy_bars(c: &Classification) -> crate::plots::Figure {
    let mut bars = vec![Bar { name: "this model".into(), share: c.accuracy, accent: true }];
    let mut caption = format!("Share of the {} predicted right.", images(total(c)));
    if let Some(baseline) = &c.baseline {
        bars.push(Bar { name: baseline.name.clone(), share: baseline.accuracy, accent: false });
        caption.push_str(" Grey: a simple method on the same images, for comparison.");
    }
    horizontal_bars("Accuracy", &caption, &bars)
}

fn class_bars(c: &Classification) -> crate::plots::Figure {
    let shares = c.confusion.iter().zip(&c.classes).enumerate().map(|(i, (row, name))| Bar {
        name: name.clone(),
        share: row.get(i).copied().unwrap_or(0) as f64 / row.iter().sum::<u64>() as f64,
        accent: true,
    });
    let empty = c.confusion.iter().filter(|row| row.iter().sum::<u64>() == 0).count() as u64;
    let mut caption = String::from("Share of each true class that is predicted right (recall).");
    if empty > 0 {
        let _ = write!(caption, " Without images, so without a share: {}.", counted(empty, "class", "classes"));
    }
    horizontal_bars("Accuracy by class", &caption, &shares.collect::<Vec<_>>())
}

fn confusions(c: &Classification) -> String {
    let cells = c.confusion.iter().zip(&c.classes).enumerate().flat_map(|(i, (row, truth))| {
        let of: u64 = row.iter().sum();
        let wrong = row.iter().zip(&c.classes).enumerate().filter(move |(j, (n, _))| *j != i && **n > 0);
        wrong.map(move |(_, (n, predicted))| (*n, of, truth, predicted))
    });
    let mut cells: Vec<_> = cells.collect();
    if cells.is_empty() {
        return String::new();
    }
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.0));
    let rows: String = cells
        .iter()
        .take(CONFUSIONS)
        .map(|(n, of, truth, predicted)| {
            format!(
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{} of {}</td></tr>",
                escape(truth),
                escape(predicted),
                count(*n),
                count(*of)
            )
        })
        .collect();
    format!(
        "<table class=\"list\"><caption>Most frequent confusions</caption><thead><tr><th scope=\"col\">truth</th><th scope=\"col\">taken for</th>\
         <th scope=\"col\" class=\"n\">images</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}
