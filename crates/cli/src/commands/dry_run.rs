//! `train --dry-run`: what a run would cost, before it costs it.

use anyhow::Result;
use tch::Device;
use whitebox_analysis::count;

use crate::machine::multiply_adds_per_second;
use crate::progress::duration;
use crate::recipe::{Named, TaskConfig};
use crate::run_folder::device_name;
use crate::tasks::classify::Classify;
use crate::tasks::classify_text::OnSentences;
use crate::tasks::language::OnText;
use crate::tasks::reconstruct::Reconstruct;
use crate::tasks::{Outline, RecipeTask};

/// Prints parameters, arithmetic, memory, steps and the least time.
pub fn run(named: &Named, device: Device) -> Result<()> {
    let recipe = &named.recipe;
    let outline = match &recipe.task {
        TaskConfig::Classify(config) => Classify::outline(named, config)?,
        TaskConfig::Reconstruct(config) => Reconstruct::outline(named, config)?,
        TaskConfig::ClassifyText(config) => OnSentences::outline(named, config)?,
        task @ (TaskConfig::Language(_) | TaskConfig::MaskedLanguage(_)) => OnText::outline(named, task)?,
    };
    let Outline { unit, parameters, training, validation, batches: [batches, batch], forward, step, bytes } = outline;
    recipe.train.course(batches, batch)?;
    let (_, steps) = recipe.train.steps(batches);
    let units = batch.saturating_mul(recipe.train.accumulate);
    let rate = multiply_adds_per_second(device);
    let rows = [
        ("parameters".to_owned(), count(parameters)),
        (format!("training {unit}s"), count(training)),
        (format!("validation {unit}s"), count(validation)),
        ("steps".into(), format!("{} of {} {unit}s", count(steps), count(units))),
        ("multiply-adds, forward".into(), format!("{} a {unit}", amount(forward)).replace("a image", "an image")),
        ("multiply-adds, step".into(), amount(step)),
        ("memory, about".into(), format!("{:.0} MiB of tensors in float32", bytes as f64 / f64::from(1 << 20))),
        (
            "time".into(),
            format!(
                "at least {} of matrix products, at the {:.0} G multiply-adds/s just measured on {}; usually 1.5 to 3 times that",
                duration(step as f64 * steps as f64 / rate),
                rate / 1e9,
                device_name(device)
            ),
        ),
    ];
    let table: Vec<_> = rows.iter().map(|(name, value)| format!("{name:<26}{value}")).collect();
    crate::say(&format!("{} (dry run, nothing is written)\n{}", named.name, table.join("\n")))
}

/// `1.23 G`, `45.60 M`.
fn amount(n: u64) -> String {
    match n {
        0..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} G", n as f64 / 1e9),
    }
}
