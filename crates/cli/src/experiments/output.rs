//! What an experiment leaves behind: figures, `table.md` and `numbers.json` in one folder; the tables on the screen
//! too.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};
#[cfg(feature = "experiments")]
use whitebox_analysis::plots::magnitudes;
use whitebox_analysis::plots::{Figure, line_chart};
use whitebox_analysis::{Chart, Series};

use crate::commands::experiment::ExperimentArgs;
use crate::run_folder::{RunFolder, command_line};

/// Collects an experiment's results; nothing is written before [`Output::finish`].
pub struct Output {
    name: &'static str,
    folder: PathBuf,
    markdown: String,
    numbers: Map<String, Value>,
    figures: Vec<(String, String)>,
}

impl Output {
    /// For one run. The folder is made at once, so that one that cannot be is found out before the work.
    pub fn new(name: &'static str, args: &ExperimentArgs) -> Result<Self> {
        let folder = args.out.clone().unwrap_or_else(|| Path::new("runs/experiments").join(name));
        fs::create_dir_all(&folder).with_context(|| format!("--out {} cannot be a folder", folder.display()))?;
        let mut numbers = Map::new();
        numbers.insert("experiment".into(), name.into());
        numbers.insert("command".into(), command_line().into());
        numbers.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        numbers.insert("seed".into(), args.seed.into());
        numbers.insert("quick".into(), args.quick.into());
        Ok(Output { name, folder, markdown: String::new(), numbers, figures: Vec::new() })
    }

    /// Where everything is written.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A table with what it holds, and the numbers behind it under a key.
    pub fn table(&mut self, key: &str, what: &str, head: &[&str], rows: &[Vec<String>], numbers: Value) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        let gap = if self.markdown.is_empty() { "" } else { "\n" };
        self.markdown += &format!("{gap}{what}\n\n{}|{}\n", line(&head), "---|".repeat(head.len()));
        self.markdown.extend(rows.iter().map(|row| line(row)));
        self.numbers.insert(key.into(), numbers);
    }

    /// A number or more that is in no table.
    #[cfg(feature = "experiments")]
    pub fn number(&mut self, key: &str, value: Value) {
        self.numbers.insert(key.into(), value);
    }

    /// A figure, as `NAME-PART.svg`; `NAME.svg` for the empty part.
    pub fn figure(&mut self, part: &str, figure: &Figure) {
        let dash = if part.is_empty() { "" } else { "-" };
        self.figures.push((format!("{}{dash}{part}.svg", self.name), figure.svg.clone() + "\n"));
    }

    /// Writes everything and prints the tables and where the rest is.
    pub fn finish(self) -> Result<()> {
        let folder = RunFolder { path: self.folder };
        for (name, svg) in &self.figures {
            folder.write(name, svg.as_bytes())?;
        }
        folder.write("table.md", self.markdown.as_bytes())?;
        folder.write("numbers.json", format!("{:#}\n", Value::Object(self.numbers)).as_bytes())?;
        let names: Vec<&str> = self.figures.iter().map(|(name, _)| name.as_str()).collect();
        let files = names.into_iter().chain(["table.md", "numbers.json"]).collect::<Vec<_>>().join(", ");
        crate::say(&format!("{}\nwritten to {}: {files}", self.markdown, folder.path.display()))
    }
}

/// A figure of lines with no words below it.
pub fn chart(title: &str, x_label: &str, y_label: &str, series: Vec<Series>) -> Result<Figure> {
    let (title, x_label, y_label) = (title.into(), x_label.into(), y_label.into());
    Ok(line_chart(&Chart { title, caption: String::new(), x_label, y_label, series })?)
}

/// `|cos|` between the first `each` unit tokens (columns) of every class, class by class.
#[cfg(feature = "experiments")]
pub fn similarities(title: &str, z: ndarray::ArrayView2<'_, f64>, labels: &[usize], each: usize) -> Result<Figure> {
    let classes = labels.iter().max().map_or(0, |most| most + 1);
    let of = |class: usize| (0..labels.len()).filter(move |i| labels[*i] == class).take(each);
    let chosen: Vec<usize> = (0..classes).flat_map(of).collect();
    let some = z.select(ndarray::Axis(1), &chosen);
    let entries: Vec<Vec<f64>> = some.t().dot(&some).rows().into_iter().map(|row| row.to_vec()).collect();
    Ok(magnitudes(title, "", &entries, &vec![0; chosen.len()])?)
}

/// About three significant digits, in as many places as that takes.
pub fn digits(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        a if !(1e-3..1e5).contains(&a) => format!("{x:.1e}"),
        a if a >= 99.95 => format!("{x:.0}"),
        a if a >= 9.995 => format!("{x:.1}"),
        a if a >= 0.9995 => format!("{x:.2}"),
        _ => format!("{x:.3}"),
    }
}

/// A share as a percentage.
#[cfg(feature = "experiments")]
pub fn percent(x: f64) -> String {
    format!("{:.1} %", 100.0 * x)
}
