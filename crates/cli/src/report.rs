//! What every run's `report.html` tells, around the sections that its task gives: the facts, the curves, the whole recipe.

use std::path::PathBuf;

use anyhow::Result;
use whitebox_analysis::{Report, count};
use whitebox_train::TrainConfig;

use crate::progress::duration;
use crate::tasks::{Conclusion, Run};

/// Writes `report.html` and gives its path.
pub fn write(run: &Run<'_>, conclusion: &mut Conclusion) -> Result<PathBuf> {
    let images_per_second = run.metrics.last("step", "samples_per_second");
    let mut facts = vec![
        ("Recipe", run.named.name.clone()),
        ("Command", run.info.command.clone()),
        ("Version", format!("whitebox {}", run.info.version)),
        ("Commit", run.info.commit.clone().unwrap_or("not in a clone".into())),
        ("Started", run.info.started.clone()),
        ("Device", format!("{}, {} threads", run.info.device, run.info.threads)),
        ("Parameters", count(run.info.parameters)),
        ("Time", duration(run.seconds)),
    ];
    facts.extend(images_per_second.map(|rate| ("Training speed", format!("{rate:.0} {}/s at the end", run.unit))));
    let peak = run.metrics.last("step", "peak_memory");
    facts.extend(peak.map(|bytes| ("Peak memory", format!("{:.0} MiB", bytes / f64::from(1 << 20)))));
    if let Some(first) = conclusion.skipped.first() {
        facts.push(("Images left out", format!("{} could not be decoded; {first}", conclusion.skipped.len())));
    }
    let told = std::mem::take(&mut conclusion.report);
    let mut summary = vec![format!(
        "A model of {} parameters was trained for {} in {}; it was then measured on {} validation {}.",
        count(run.info.parameters),
        length(&run.named.recipe.train),
        duration(run.seconds),
        count(conclusion.images),
        run.unit,
    )];
    summary.extend(told.summary);
    let mut curves = run.metrics.charts();
    curves.splice(1.min(curves.len())..1.min(curves.len()), told.curves);
    let report = Report {
        title: format!("Training run: {}", run.named.name),
        summary,
        facts: facts.into_iter().map(|(k, v)| (k.to_owned(), v)).chain(told.facts).collect(),
        curves,
        config: toml::to_string(&run.named.recipe)?,
        ..told
    };
    run.folder.write("report.html", report.render()?.as_bytes())?;
    Ok(run.folder.path.join("report.html"))
}

/// How long the recipe trains, in its own unit.
fn length(train: &TrainConfig) -> String {
    match train.max_steps {
        Some(steps) => format!("{} steps (at most {} epochs)", count(steps), train.epochs),
        None => format!("{} epochs", train.epochs),
    }
}
