//! An analysis on disk: every number, the figures of every section, and the page.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use whitebox_analysis::Report;

use crate::run_folder::{RunFolder, command_line, commit};

/// The file of an analysis that holds every number.
const NUMBERS: &str = "analysis.json";
/// Width of a figure's PNG in pixels.
const PNG_WIDTH: u32 = 1440;

/// The folder of a new analysis.
pub fn folder(out: Option<&Path>) -> Result<RunFolder> {
    if let Some(out) = out.filter(|out| out.join(NUMBERS).exists()) {
        bail!("{} already holds an analysis, which is not overwritten: name another folder", out.display());
    }
    RunFolder::create(out, "analysis")
}

/// What every analysis tells of itself, as facts for its page.
pub fn facts(checkpoint: &Path, more: Vec<(&str, String)>) -> Vec<(String, String)> {
    let facts = [
        ("Checkpoint", checkpoint.display().to_string()),
        ("Command", command_line()),
        ("Version", format!("whitebox {}", env!("CARGO_PKG_VERSION"))),
        ("Commit", commit().unwrap_or("not in a clone".into())),
    ];
    facts.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Writes an analysis; `numbers` is an object, to which the command and the version are added.
pub fn write(folder: &RunFolder, mut numbers: Value, report: &Report) -> Result<()> {
    numbers["command"] = json!(command_line());
    numbers["version"] = json!(env!("CARGO_PKG_VERSION"));
    numbers["commit"] = json!(commit());
    folder.write(NUMBERS, serde_json::to_string_pretty(&numbers)?.as_bytes())?;
    let figures = folder.path.join("figures");
    std::fs::create_dir_all(&figures).with_context(|| format!("making {}", figures.display()))?;
    for (number, section) in report.sections.iter().enumerate() {
        for (i, figure) in section.figures.iter().enumerate() {
            let name = format!("figures/{}-{}", number + 1, i + 1);
            folder.write(&format!("{name}.svg"), figure.svg.as_bytes())?;
            folder.write(&format!("{name}.png"), &figure.png(PNG_WIDTH)?)?;
        }
        for (i, picture) in section.pictures.iter().enumerate() {
            folder.write(&format!("figures/{}-picture-{}.png", number + 1, i + 1), &picture.png)?;
        }
    }
    folder.write("report.html", report.render()?.as_bytes())?;
    crate::say(&format!("report:   {}", folder.path.join("report.html").display()))?;
    crate::say(&format!("numbers:  {}", folder.path.join(NUMBERS).display()))
}
