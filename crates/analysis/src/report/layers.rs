//! The section on the layers: R^c and sparsity at initialisation and after training, and what the numbers say.

use super::{Error, LayerComparison, counted, grid};
use crate::Result;
use crate::layerwise::EPS_SQUARED;
use crate::plots::{Chart, Figure, Series, line_chart};
use crate::stats::{LayerStats, Stat};
use crate::text::{count, escape, number};
use std::collections::{BTreeMap, BTreeSet};

/// A quantity by layer.
type Column = BTreeMap<usize, Stat>;

/// A sentence for the summary, where something was measured, and the section itself.
pub(super) fn section(c: &LayerComparison) -> Result<(Option<String>, String)> {
    let (rate0, rate1) = (column(&c.before, |l| Some(l.coding_rate))?, column(&c.after, |l| Some(l.coding_rate))?);
    let (some0, some1) = (column(&c.before, |l| l.nonzero_fraction)?, column(&c.after, |l| l.nonzero_fraction)?);
    let mut html = String::from("<section><h2>Layer by layer</h2>");
    if rate0.is_empty() && rate1.is_empty() {
        html.push_str("<p>No layer was measured.</p></section>");
        return Ok((None, html));
    }
    html.push_str(&format!(
        "<p>A CRATE layer is meant to do two things in turn: compress the tokens against its subspaces, which should lower their coding rate \
         <i>R</i><sup>c</sup>, then code them sparsely, which should leave fewer entries of <i>Z</i><sup>ℓ+1</sup> different from zero. \
         What it does was measured on {}. {}</p>",
        counted(c.images, "image", "images"),
        escape(&c.note)
    ));
    let mut figures = vec![chart("Coding rate", "Rᶜ (nats)", rate_caption(c), &rate0, &rate1)?];
    let mut reading = vec![sentence("the coding rate", &rate0, &rate1)];
    let mut brief = vec![short("the coding rate", &rate0, &rate1)];
    if some0.is_empty() && some1.is_empty() {
        reading.push("Sparsity is not measured: no layer has an ISTA step.".into());
    } else {
        let caption = format!(
            "Fraction of the entries of Z^{{ℓ+1}}, the output of the ISTA step of layer ℓ, that are not exactly zero: lower is sparser. Mean over {}; \
             bands are one standard deviation between images.",
            images(some0.values().chain(some1.values()))
        );
        figures.push(chart("Sparsity", "non-zero fraction", caption, &some0, &some1)?);
        reading.push(sentence("the non-zero fraction", &some0, &some1));
        brief.push(short("the non-zero fraction", &some0, &some1));
    }
    html.push_str(&grid(&figures));
    html.extend(reading.iter().map(|text| format!("<p>{}</p>", escape(text))));
    html.push_str("</section>");
    let several = rate0.len().max(rate1.len()) > 1;
    Ok((several.then(|| format!("From the first layer to the last {}.", brief.join(" and "))), html))
}

fn column(layers: &[LayerStats], quantity: impl Fn(&LayerStats) -> Option<Stat>) -> Result<Column> {
    let mut column = Column::new();
    for layer in layers {
        if let Some(stat) = quantity(layer)
            && column.insert(layer.layer, stat).is_some()
        {
            return Err(Error::Data(format!(
                "layer {} is listed twice in one measurement; measure one network a probe",
                layer.layer
            )));
        }
    }
    Ok(column)
}

fn chart(title: &str, y: &str, caption: String, before: &Column, after: &Column) -> Result<Figure> {
    let series = |name: &str, column: &Column| Series {
        name: name.into(),
        points: column.iter().map(|(layer, stat)| (*layer as f64 + 1.0, stat.mean)).collect(),
        band: Some(column.values().map(|stat| stat.std).collect()),
    };
    let named = [("trained", after), ("at initialisation", before)];
    let series =
        named.iter().filter(|(_, column)| !column.is_empty()).map(|(name, column)| series(name, column)).collect();
    line_chart(&Chart { title: title.into(), caption, x_label: "layer ℓ".into(), y_label: y.into(), series })
}

/// The distinct values of something over all layers, joined for a caption.
fn distinct<T: Ord + ToString>(values: impl Iterator<Item = T>) -> String {
    let values: BTreeSet<T> = values.collect();
    values.iter().map(T::to_string).collect::<Vec<_>>().join(" or ")
}

fn images<'a>(stats: impl Iterator<Item = &'a Stat>) -> String {
    let n: BTreeSet<u64> = stats.map(|stat| stat.n).collect();
    match (n.first(), n.last()) {
        (Some(a), Some(b)) if a != b => format!("{} to {} images", count(*a), count(*b)),
        (a, _) => counted(a.copied().unwrap_or(0), "image", "images"),
    }
}

fn rate_caption(c: &LayerComparison) -> String {
    let all = || c.before.iter().chain(&c.after);
    format!(
        "R^{{c}} = Σ_{{k}} ½ log det(I + p/(n ε²) W_{{k}} W_{{k}}^{{T}}), measured on W = {}, what attention compares in layer ℓ, before the layer changes the tokens; \
         every token scaled to unit norm in every head; ε² = {EPS_SQUARED}, n = {} tokens, K = {} heads of dimension p = {}; natural logarithm. Mean over {}; \
         bands are one standard deviation between images.",
        distinct(all().map(|l| l.place.replace("^T", "^{T}").replace("^l", "^{ℓ}"))),
        distinct(all().map(|l| l.tokens)),
        distinct(all().map(|l| l.heads)),
        distinct(all().map(|l| l.head_dim)),
        images(all().map(|l| &l.coding_rate))
    )
}

/// From where to where a quantity goes, after training and before.
fn short(what: &str, before: &Column, after: &Column) -> String {
    let ends = |column: &Column| {
        let (first, last) = (column.values().next()?, column.values().next_back()?);
        Some(format!("from {} to {}", number(first.mean), number(last.mean)))
    };
    match (ends(after), ends(before)) {
        (Some(after), Some(before)) => format!("{what} goes {after} ({before} before training)"),
        (Some(after), None) => format!("{what} goes {after}"),
        (None, Some(before)) => format!("{what} goes {before} before training"),
        (None, None) => format!("{what} was not measured"),
    }
}

/// What a quantity does over the layers and through training, counted.
fn sentence(mut what: &str, before: &Column, after: &Column) -> String {
    let walks = [("After training", after), ("At initialisation", before)];
    let mut parts = Vec::new();
    for (when, column) in walks {
        if let Some(walk) = walk(column) {
            parts.push(format!("{when} {what} {walk}."));
            what = "it";
        }
    }
    let pairs: Vec<_> = after
        .iter()
        .filter_map(|(layer, stat)| Some((stat.mean, before.get(layer)?.mean)))
        .filter(|(a, b)| a.is_finite() && b.is_finite())
        .collect();
    if !pairs.is_empty() {
        let lower = pairs.iter().filter(|(a, b)| a < b).count();
        parts.push(format!("Training lowers it in {lower} of {}.", counted(pairs.len() as u64, "layer", "layers")));
    }
    parts.join(" ")
}

fn walk(column: &Column) -> Option<String> {
    let ((first, a), (last, b)) = (column.iter().next()?, column.iter().next_back()?);
    if first == last {
        return Some(format!("is {} in layer {}, the only one", number(a.mean), first + 1));
    }
    let means: Vec<f64> = column.values().map(|stat| stat.mean).collect();
    let pairs = means.iter().zip(means.iter().skip(1));
    let steps: Vec<_> = pairs.filter(|(a, b)| a.is_finite() && b.is_finite()).collect();
    let falls = steps.iter().filter(|(a, b)| b < a).count();
    let mut text = format!(
        "falls in {falls} of {} from layer to layer, from {} in layer {} to {} in layer {}",
        counted(steps.len() as u64, "step", "steps"),
        number(a.mean),
        first + 1,
        number(b.mean),
        last + 1
    );
    let bad = means.iter().filter(|m| !m.is_finite()).count() as u64;
    if bad > 0 {
        text.push_str(&format!("; {} without a finite value left out", counted(bad, "layer", "layers")));
    }
    Some(text)
}
