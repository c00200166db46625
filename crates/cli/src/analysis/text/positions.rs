//! The section on what changes along a sequence.

use anyhow::Result;
use whitebox_analysis::plots::line_chart;
use whitebox_analysis::positions::PositionStats;
use whitebox_analysis::{Chart, Section, Series, Stat};

use super::{TextMeasures, some_layers};
use crate::analysis::sections::shown as digits;

/// The rates of a layer's blocks or prefixes.
type Rates = fn(&PositionStats) -> &[Stat];

/// The section; `shown` are the networks that were asked for, `causal` tells whether all of them are causal.
pub fn section(shown: &[&TextMeasures], causal: bool) -> Result<Section> {
    let blocks = shown.first().and_then(|m| m.positions.first());
    let (count, block) = blocks.map_or((0, 0), |p| (p.block_rate.len(), p.block));
    let method = format!(
        "A sequence is cut into {count} blocks of {block} tokens, and the rate of the first section (tokens at unit norm in every head, ε² = 0.01) is taken of each block alone, n being \
         its {block} tokens: blocks compare, and what differs between them is the context behind their tokens. The rate of a prefix is that of all tokens up to the end of a block, n \
         being their number; {}. Below them, the share of the code's entries that are above zero at each position.",
        match causal {
            true => "no token depends on later ones, so it is the rate that the text would have if it ended there",
            false => "where tokens see both sides it is a part of the whole text's",
        }
    );
    let mut section = Section { title: "Along the sequence".into(), method, ..Section::default() };
    for measures in shown {
        let name = &measures.common.subject;
        let some = some_layers(measures.positions.len());
        let layers: Vec<&PositionStats> =
            measures.positions.iter().enumerate().filter(|(i, _)| some.contains(i)).map(|(_, layer)| layer).collect();
        let rates: [(&str, &str, Rates); 2] =
            [("Rᶜ of blocks", "of a block", |p| &p.block_rate), ("Rᶜ of prefixes", "of a prefix", |p| &p.prefix_rate)];
        for (title, what, of) in rates {
            let series = layers.iter().filter(|p| !of(p).is_empty()).map(|p| Series {
                name: format!("layer {}", p.layer + 1),
                points: of(p)
                    .iter()
                    .enumerate()
                    .map(|(b, stat)| ((b + 1) as f64 * p.block as f64, stat.mean))
                    .collect(),
                band: Some(of(p).iter().map(|stat| stat.std).collect()),
            });
            let caption = format!(
                "Drawn at the last token {what}. Mean over sequences; bands are one standard deviation between them. {name}."
            );
            let series = series.collect();
            draw(&mut section, title, &caption, "Rᶜ (nats)", series)?;
            for p in &layers {
                let means: Vec<f64> = of(p).iter().map(|stat| stat.mean).collect();
                section
                    .findings
                    .extend(walk(&means).map(|walk| format!("{title}, {name}, layer {}: {walk}.", p.layer + 1)));
            }
        }
        let series = layers.iter().map(|p| Series {
            name: format!("layer {}", p.layer + 1),
            points: p.active.iter().enumerate().map(|(i, share)| (i as f64 + 1.0, *share)).collect(),
            band: None,
        });
        let caption = format!("Share of the entries of the code above zero, mean over sequences. {name}.");
        draw(&mut section, "Active entries by position", &caption, "share", series.collect())?;
        for p in &layers {
            section.findings.extend(halves(&p.active).map(|[first, second]| {
                format!(
                    "Active entries, {name}, layer {}: {:.2} % over the first half of the positions, {:.2} % over the second.",
                    p.layer + 1,
                    100.0 * first,
                    100.0 * second
                )
            }));
        }
    }
    Ok(section)
}

fn draw(section: &mut Section, title: &str, caption: &str, y: &str, series: Vec<Series>) -> Result<()> {
    if series.is_empty() {
        return Ok(());
    }
    let chart =
        Chart { title: title.into(), caption: caption.into(), x_label: "position".into(), y_label: y.into(), series };
    section.figures.push(line_chart(&chart)?);
    Ok(())
}

/// What a quantity does from block to block, counted.
fn walk(means: &[f64]) -> Option<String> {
    let (first, last) = (means.first()?, means.last()?);
    let steps = means.len() - 1;
    let falls = means.windows(2).filter(|pair| pair[1] < pair[0]).count();
    (steps > 0).then(|| format!("falls in {falls} of {steps} steps, from {} to {}", digits(*first), digits(*last)))
}

fn halves(shares: &[f64]) -> Option<[f64; 2]> {
    let (first, second) = shares.split_at(shares.len() / 2);
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    (!first.is_empty()).then(|| [mean(first), mean(second)])
}
