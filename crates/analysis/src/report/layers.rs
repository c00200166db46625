//! The section on the layers: R^c and sparsity at initialisation and after training, and what the numbers say.

use super::{Error, LayerComparison, grid};
use crate::Result;
use crate::layerwise::EPS_SQUARED;
use crate::plots::{Chart, Figure, Series, line_chart};
use crate::stats::{LayerStats, Stat};
use crate::text::{count, escape, number};
use std::collections::{BTreeMap, BTreeSet};

/// A quantity by layer.
type Column = BTreeMap<usize, Stat>;

/// The sentences for the summary, and the section itself.
pub(super) fn section(c: &LayerComparison) -> Result<(Vec<String>, String)> {
    let (rate0, rate1) = (column(&c.before, |l| Some(l.coding_rate))?, column(&c.after, |l| Some(l.coding_rate))?);
    let (zeros0, zeros1) = (column(&c.before, |l| l.nonzero_fraction)?, column(&c.after, |l| l.nonzero_fraction)?);
    let mut html = String::from("<section><h2>Layer by layer</h2>");
    html.push_str(
        "<p>A layer is meant to do two things in turn: compress the tokens against its subspaces, which should lower their coding rate \
         <i>R</i><sup>c</sup>, then code them sparsely, which should leave fewer entries of <i>Z</i><sup>ℓ+1</sup> different from zero. Both are \
         measured here, not assumed.</p>",
    );
    let mut sentences = Vec::new();
    if rate0.is_empty() && rate1.is_empty() {
        html.push_str("<p>No layer was measured.</p></section>");
        return Ok((sentences, html));
    }
    let mut figures = vec![chart("Coding rate", "Rᶜ (nats)", rate_caption(c), &rate0, &rate1)?];
    sentences.push(reading("The coding rate", &rate0, &rate1));
    if zeros0.is_empty() && zeros1.is_empty() {
        sentences.push("Sparsity is not measured: no layer has an ISTA step.".into());
    } else {
        let caption = format!(
            "Fraction of the entries of Z^(ℓ+1), the output of the ISTA step of layer ℓ, that are not exactly zero: lower is sparser. Mean over {}; \
             bands are one standard deviation between images.",
            images(zeros0.values().chain(zeros1.values()))
        );
        figures.push(chart("Sparsity", "non-zero fraction", caption, &zeros0, &zeros1)?);
        sentences.push(reading("The non-zero fraction", &zeros0, &zeros1));
    }
    html.push_str(&grid(&figures));
    html.push_str(&format!("<p>{} Measured on {} images.", escape(&sentences.join(" ")), count(c.images)));
    if !c.note.is_empty() {
        html.push_str(&format!(" {}", escape(&c.note)));
    }
    html.push_str("</p></section>");
    Ok((sentences, html))
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
    let series = named.iter().filter(|(_, column)| !column.is_empty()).map(|(name, column)| series(name, column)).collect();
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
        (Some(a), _) => format!("{} images", count(*a)),
        _ => "no images".into(),
    }
}

fn rate_caption(c: &LayerComparison) -> String {
    let all = || c.before.iter().chain(&c.after);
    format!(
        "Rᶜ = Σ_k ½ log det(I + p/(n ε²) W_k W_kᵀ), measured on W = {}, what the attention of layer ℓ reads in its subspaces, before the layer changes it; \
         every token scaled to unit norm in every head; ε² = {EPS_SQUARED}, n = {} tokens, K = {} heads of dimension p = {}; natural logarithm. Mean over {}; \
         bands are one standard deviation between images.",
        distinct(all().map(|l| l.place.clone())),
        distinct(all().map(|l| l.tokens)),
        distinct(all().map(|l| l.heads)),
        distinct(all().map(|l| l.head_dim)),
        images(all().map(|l| &l.coding_rate))
    )
}

/// What a quantity does over the layers and through training, counted.
fn reading(what: &str, before: &Column, after: &Column) -> String {
    let mut parts = Vec::new();
    for (when, column) in [("after training", after), ("at initialisation", before)] {
        if let Some(walk) = walk(column) {
            parts.push(format!("{when} {walk}"));
        }
    }
    let mut text = format!("{what} {}", parts.join("; "));
    let pairs: Vec<_> = after
        .iter()
        .filter_map(|(layer, stat)| Some((stat.mean, before.get(layer)?.mean)))
        .filter(|(a, b)| a.is_finite() && b.is_finite())
        .collect();
    if !pairs.is_empty() {
        let lower = pairs.iter().filter(|(a, b)| a < b).count();
        text.push_str(&format!("; it is lower after training than before in {lower} of {} layers", pairs.len()));
    }
    text.push('.');
    text
}

fn walk(column: &Column) -> Option<String> {
    let ((first, a), (last, b)) = (column.iter().next()?, column.iter().next_back()?);
    if first == last {
        return Some(format!("is {} in layer {}, the only one", number(a.mean), first + 1));
    }
    let means: Vec<f64> = column.values().map(|stat| stat.mean).collect();
    let steps: Vec<(f64, f64)> =
        means.windows(2).filter_map(|w| Some((*w.first()?, *w.last()?))).filter(|(a, b)| a.is_finite() && b.is_finite()).collect();
    let falls = steps.iter().filter(|(a, b)| b < a).count();
    let bad = means.iter().filter(|m| !m.is_finite()).count();
    let mut text = format!(
        "falls in {falls} of {} steps from layer to layer ({} in layer {}, {} in layer {})",
        steps.len(),
        number(a.mean),
        first + 1,
        number(b.mean),
        last + 1
    );
    if bad > 0 {
        text.push_str(&format!(", {bad} layers without a finite value left out"));
    }
    Some(text)
}
