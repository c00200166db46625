//! The sections of an analysis: for every measure the formula, a figure with a line for each network, and a sentence that its numbers decide.

use anyhow::Result;
use whitebox_analysis::activity::{CLASSES, LEAST, MOST};
use whitebox_analysis::layerwise::EPS_SQUARED;
use whitebox_analysis::plots::{Figure, line_chart, magnitudes};
use whitebox_analysis::steps::{HalfStep, PlaceStats, StepStats};
use whitebox_analysis::{Chart, Section, Series, Stat};

use super::Measures;

/// One half of a layer's steps, where the layer has it.
type OfHalf = fn(&StepStats) -> Option<HalfStep>;
/// A quantity by layer.
type Column = Vec<(usize, Stat)>;

/// The title of the section on half-steps.
pub const HALF_STEPS: &str = "Does each half of a layer do its job?";

/// All sections, in order; what does not apply to any of the networks is left out.
pub fn sections(measures: &[&Measures]) -> Result<Vec<Section>> {
    let all = [rates(measures)?, sparsity(measures)?, half_steps(measures)?, operators(measures)?, tokens(measures)?];
    Ok(all.into_iter().flatten().collect())
}

/// Figures of one section as they are gathered, with the sentences that belong to them.
struct Gathered<'a> {
    measures: &'a [&'a Measures],
    section: Section,
}

impl<'a> Gathered<'a> {
    fn new(measures: &'a [&'a Measures], title: &str, method: String) -> Self {
        Gathered { measures, section: Section { title: title.into(), method, ..Section::default() } }
    }

    /// A figure with a line for each network that has the quantity, and a sentence on each.
    fn chart(&mut self, title: &str, y: &str, caption: &str, column: impl Fn(&Measures) -> Column) -> Result<()> {
        let columns = self.measures.iter().map(|m| (m.subject.clone(), column(m))).collect();
        self.lines(
            title,
            y,
            &format!("{caption} Mean over {}s; bands are one standard deviation between them.", unit(self.measures)),
            columns,
        )
    }

    /// The same of columns with their names; those that are empty are left out.
    fn lines(&mut self, title: &str, y: &str, caption: &str, mut columns: Vec<(String, Column)>) -> Result<()> {
        columns.retain(|(_, column)| !column.is_empty());
        if columns.is_empty() {
            return Ok(());
        }
        let sentences: Vec<_> =
            columns.iter().filter_map(|(name, column)| Some(format!("{name}: {}", walk(column)?))).collect();
        if !sentences.is_empty() {
            self.section.findings.push(format!("{title}. {}.", sentences.join("; ")));
        }
        let series = columns.into_iter().map(|(name, column)| Series {
            name,
            points: column.iter().map(|(layer, stat)| (*layer as f64 + 1.0, stat.mean)).collect(),
            band: Some(column.iter().map(|(_, stat)| stat.std).collect()),
        });
        let chart = Chart {
            title: title.into(),
            caption: caption.into(),
            x_label: "layer ℓ".into(),
            y_label: y.into(),
            series: series.collect(),
        };
        self.section.figures.push(line_chart(&chart)?);
        Ok(())
    }

    fn done(self) -> Option<Section> {
        (!self.section.figures.is_empty()).then_some(self.section)
    }
}

/// What a quantity does from layer to layer, counted.
fn walk(column: &Column) -> Option<String> {
    let ((first, a), (last, b)) = (column.first()?, column.last()?);
    let means: Vec<f64> = column.iter().map(|(_, stat)| stat.mean).collect();
    let steps = means.len().saturating_sub(1);
    let falls = means.windows(2).filter(|pair| pair[1] < pair[0]).count();
    if means.iter().all(|mean| *mean == a.mean) {
        return (steps > 0).then(|| format!("is {} in every layer", shown(a.mean)));
    }
    let (a, b) = (shown(a.mean), shown(b.mean));
    (steps > 0).then(|| {
        format!("falls in {falls} of {steps} steps, from {a} in layer {} to {b} in layer {}", first + 1, last + 1)
    })
}

/// What samples are.
fn unit(measures: &[&Measures]) -> &'static str {
    measures.first().map_or("image", |m| m.unit())
}

/// Four significant digits.
pub(super) fn shown(x: f64) -> String {
    let digits = if x == 0.0 || !x.is_finite() { 0 } else { (3 - x.abs().log10().floor() as i32).clamp(0, 6) as usize };
    format!("{x:.digits$}")
}

fn one(value: f64) -> Stat {
    Stat { mean: value, std: 0.0, n: 1 }
}

fn rates(measures: &[&Measures]) -> Result<Option<Section>> {
    let method = format!(
        "The objective of the network is the sparse rate reduction R − R^{{c}} − λ‖Z‖_{{1}}: tokens that spread over many directions together (R large), lie in few within each \
         subspace (R^{{c}} small) and have few entries. The first figure is what the released analysis script measures: R^{{c}} = Σ_{{k}} ½ log det(I + p/(n ε²) W_{{k}}W_{{k}}^{{T}}) of \
         W = U^{{T}}LN(Z^{{ℓ}}), every token at unit norm in every head. The others take tokens at unit norm as a whole, as the theory does, and project them on U^{{ℓ}} as it was \
         learned. ε² = {EPS_SQUARED} throughout, n counts all tokens, natural logarithm."
    );
    let mut found = Gathered::new(measures, "Coding rate and the objective", method);
    let place =
        "measured at the layer's input, U^{T}LN(Z^{ℓ}) (of a network with queries and keys of their own: its keys)";
    found.chart("Rᶜ as released", "Rᶜ (nats)", &format!("{place}, tokens at unit norm in every head."), |m| {
        m.layers.iter().map(|l| (l.layer, l.coding_rate)).collect()
    })?;
    let at = |of: fn(&PlaceStats) -> Stat| move |m: &Measures| column(m, |s| Some(of(&s.after)));
    found.chart("Rᶜ behind the layer", "Rᶜ (nats)", "Unit tokens of Z^{ℓ+1} against U^{ℓ}.", at(|p| p.compression))?;
    found.chart(
        "R behind the layer",
        "R (nats)",
        "R = ½ log det(I + d/(n ε²) ZZ^{T}), unit tokens.",
        at(|p| p.rate),
    )?;
    found.chart(
        "Rate reduction behind the layer",
        "ΔR (nats)",
        "R − R^{c}, unit tokens of Z^{ℓ+1}.",
        at(|p| p.reduction),
    )?;
    found.chart(
        "The objective behind the layer",
        "ΔR − λ‖Z‖₁",
        "R − R^{c} − λ‖Z‖_{1}, unit tokens of Z^{ℓ+1}; λ as in the layer.",
        at(|p| p.objective),
    )?;
    Ok(found.done())
}

/// A quantity of every layer's steps, where it has values.
fn column(measures: &Measures, of: impl Fn(&StepStats) -> Option<Stat>) -> Column {
    measures.steps.iter().filter_map(|s| Some((s.layer, of(s)?))).filter(|(_, stat)| stat.n > 0).collect()
}

fn sparsity(measures: &[&Measures]) -> Result<Option<Section>> {
    let places: Vec<String> = measures.iter().flat_map(|m| m.activity.iter().map(|a| a.place.clone())).collect();
    let mut places: Vec<&str> = places.iter().map(String::as_str).collect();
    places.sort_unstable();
    places.dedup();
    let method = format!(
        "An entry of a token's code is active where it is above zero. The code is {}. An atom is dead if it was active for no token of any {}, always on if for every one.",
        places.join("; "),
        unit(measures)
    );
    let mut found = Gathered::new(measures, "Sparsity", method);
    found.chart(
        "Active entries",
        "share",
        "Share of the entries of the code that are above zero; lower is sparser.",
        |m| m.activity.iter().map(|a| (a.layer, a.active)).collect(),
    )?;
    let share = |count: u64, atoms: usize| one(count as f64 / atoms.max(1) as f64);
    found.chart("Dead atoms", "share", "Share of atoms that were active for no token.", |m| {
        m.activity.iter().map(|a| (a.layer, share(a.dead, a.frequency.len()))).collect()
    })?;
    found.chart("Atoms that are always on", "share", "Share of atoms that were active for every token.", |m| {
        m.activity.iter().map(|a| (a.layer, share(a.always_on, a.frequency.len()))).collect()
    })?;
    if let Some(first) = measures.first() {
        let step = (MOST / LEAST).log10() / CLASSES as f64;
        let last = first.activity.len().saturating_sub(1);
        let mut chosen = vec![0, last / 2, last];
        chosen.dedup();
        let series = chosen.into_iter().filter_map(|i| first.activity.get(i)).map(|a| Series {
            name: format!("layer {}", a.layer + 1),
            points: a.sizes.iter().enumerate().map(|(i, s)| (LEAST.log10() + (i as f64 + 0.5) * step, *s)).collect(),
            band: None,
        });
        let chart = Chart {
            title: "Sizes of active entries".into(),
            caption: format!("Share of active entries by the logarithm of their size; {}.", first.subject),
            x_label: "log₁₀ of the entry".into(),
            y_label: "share".into(),
            series: series.collect(),
        };
        found.section.figures.push(line_chart(&chart)?);
    }
    Ok(found.done())
}

fn half_steps(measures: &[&Measures]) -> Result<Option<Section>> {
    let unit = unit(measures);
    let method = format!(
        "Attention is derived as a step down R^{{c}}, the second step as one that lowers λ‖Z‖_{{1}} − R. Whether they do is measured {unit} by {unit} at unit tokens: the function behind \
                  the step minus before it (below zero is what is meant), and the cosine of the step with the direction that the theory goes in: −∇R^{{c}} at LN(Z^{{ℓ}}), and the proximal step on \
                  λ‖Z‖_{{1}} − R from LN(Z^{{ℓ+1/2}})."
    );
    let mut found = Gathered::new(measures, HALF_STEPS, method);
    let halves: [(&str, &str, OfHalf); 2] =
        [("attention", "Rᶜ", |s| s.attention), ("the sparsifying step", "λ‖Z‖₁ − R", |s| s.sparsity)];
    for (what, function, of) in halves {
        let by = |pick: fn(&HalfStep) -> Stat| move |m: &Measures| column(m, |s| of(s).map(|half| pick(&half)));
        let title = format!("Change of {function} across {what}");
        found.chart(&title, "change (nats)", "Below zero the step does what it is derived to do.", by(|h| h.change))?;
        let title = format!("Alignment of {what}");
        found.chart(&title, "cosine", "Cosine of the step with the direction of the theory.", by(|h| h.alignment))?;
        for m in measures {
            let falls: Vec<f64> = m.steps.iter().filter_map(of).map(|half| half.falls).collect();
            if !falls.is_empty() {
                let layers = falls.iter().filter(|share| **share > 0.5).count();
                let mean = 100.0 * falls.iter().sum::<f64>() / falls.len() as f64;
                let text = format!(
                    "{}: across {what} {function} falls for most {unit}s in {layers} of {} layers, and for {mean:.1} % of {unit}s and layers together.",
                    m.subject,
                    falls.len()
                );
                found.section.findings.push(text);
            }
        }
    }
    Ok(found.done())
}

fn operators(measures: &[&Measures]) -> Result<Option<Section>> {
    let method = "The theory takes the bases U_{k} for orthonormal and incoherent with each other, the dictionary for orthogonal, the output map for U itself, and ISTA's step for one below \
                  2/‖D‖². Frobenius norms are divided by the root of the number of columns.";
    // The same network on other images has the same operators.
    let mut once: Vec<&Measures> = Vec::new();
    for m in measures.iter().copied() {
        if once.iter().all(|known| known.network != m.network) {
            once.push(m);
        }
    }
    let mut found = Gathered::new(measures, "The learned operators", method.into());
    let mut chart = |title: &str,
                     y: &str,
                     caption: &str,
                     of: &dyn Fn(&whitebox_analysis::operators::OperatorStats) -> Option<Stat>|
     -> Result<()> {
        let column = |m: &Measures| m.operators.iter().filter_map(|o| Some((o.layer, of(o)?))).collect();
        let columns = once.iter().map(|m| (m.network.clone(), column(m))).collect();
        found.lines(title, y, caption, columns)
    };
    let u = |o: &whitebox_analysis::operators::OperatorStats| o.subspaces.clone();
    chart(
        "‖UᵀU − I‖ of a head",
        "over √p",
        "‖U_{k}^{T}U_{k} − I‖ over √p, columns as learned. Mean over heads; the band is one standard deviation between them.",
        &|o| Some(u(o)?.orthonormality),
    )?;
    chart(
        "Angles within a head",
        "over √p",
        "The same with columns at unit norm. Mean over heads; the band is one standard deviation between them.",
        &|o| Some(u(o)?.orthogonality),
    )?;
    chart(
        "Coherence between heads",
        "|cos|",
        "|cos| between columns of different heads. Mean over pairs; the band is one standard deviation between them.",
        &|o| Some(u(o)?.coherence),
    )?;
    chart(
        "Distance of the output map from U",
        "share",
        "min_{c} ‖W − cU‖/‖W‖; 1: nothing of U is in it.",
        &|o| o.output_distance.map(one),
    )?;
    let d = |o: &whitebox_analysis::operators::OperatorStats| o.dictionary.clone();
    chart("‖DᵀD − I‖", "over √atoms", "The atoms as learned.", &|o| Some(one(d(o)?.orthonormality)))?;
    chart("ISTA's step against its bound", "η‖D‖²/2", "Above 1 a step can overshoot.", &|o| {
        d(o).map(|d| one(d.eta / d.step_bound))
    })?;
    let heads = measures.first().and_then(|m| Some((m, m.operators.last()?.subspaces.as_ref()?)));
    if let Some((m, subspaces)) = heads {
        let groups = vec![0; subspaces.between_heads.len()];
        let caption = format!(
            "Root mean square of the cosines between columns of heads i and j in the last layer; full is {}. {}.",
            shown(subspaces.between_heads.iter().flatten().copied().fold(0.0, f64::max)),
            m.subject
        );
        let figure: Figure = magnitudes("Heads against heads", &caption, &subspaces.between_heads, &groups)?;
        found.section.figures.push(figure);
    }
    Ok(found.done())
}

fn tokens(measures: &[&Measures]) -> Result<Option<Section>> {
    let method = "How many of its p dimensions a head uses is the effective rank of W_{k} = U_{k}^{T}LN(Z^{ℓ}): the exponential of the entropy of its energies. A token is claimed by the head \
                  that holds most of its energy Σ_{k}‖U_{k}^{T}z‖²; that head's share is 1/K where all see as much of it, 1 where it lies in one subspace.";
    let mut found = Gathered::new(measures, "Tokens in their subspaces", method.into());
    found.chart("Effective rank of a head", "dimensions", "Mean over heads.", |m| {
        let mean = |t: &whitebox_analysis::tokens::TokenStats| {
            let of = |pick: fn(&Stat) -> f64| {
                t.effective_rank.iter().map(pick).sum::<f64>() / t.effective_rank.len().max(1) as f64
            };
            Stat { mean: of(|s| s.mean), std: of(|s| s.std), n: t.effective_rank.first().map_or(0, |s| s.n) }
        };
        m.tokens.iter().map(|t| (t.layer, mean(t))).collect()
    })?;
    found.chart("Share of the claiming head", "share", "Of a token's energy over all heads.", |m| {
        m.tokens.iter().map(|t| (t.layer, t.share)).collect()
    })?;
    found.chart(
        "The busiest head",
        "share of tokens",
        "Of all tokens, those that the head with most of them claims.",
        |m| m.tokens.iter().map(|t| (t.layer, one(t.claimed.iter().copied().fold(0.0, f64::max)))).collect(),
    )?;
    Ok(found.done())
}
