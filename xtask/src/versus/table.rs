//! The outcomes as Markdown: a table for each part, one row a case.

use super::cases::{CEILING, Part};
use super::rounds::Outcome;
use super::statistics::{Ratio, median};
use crate::files::human;

/// All tables, each under its heading. `batch` and `memory_batch` are those that were measured.
#[must_use]
pub fn tables(outcomes: &[Outcome], batch: usize, memory_batch: usize) -> String {
    let mut text = String::new();
    for part in Part::ALL {
        let rows: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.case.part == part).collect();
        if !rows.is_empty() {
            text += &format!("{}\n\n{}\n", heading(part, batch, memory_batch), table(part, &rows));
        }
    }
    text
}

fn heading(part: Part, batch: usize, memory_batch: usize) -> String {
    match part {
        Part::Models => format!(
            "**Models**, batch {batch}, ms an image. Training is zero_grad, forward, cross-entropy with label smoothing, \
             backward and AdamW. GFLOP/s are of the operations that our form performs in matrix products; the ceiling is \
             what one large product of the same precision reaches here, in the same rounds."
        ),
        Part::Memory => format!(
            "**Memory** of two training steps with AdamW, batch {memory_batch}: the peak above what model and batch take."
        ),
        Part::Loader => "**Loader**, one core, ms an image: JPEG file to normalised floats, with a random crop and flip; \
                         `pil` is torchvision on PIL images, `tensor` its decoder and transforms on tensors."
            .to_owned(),
        Part::Rates => "**Rates**, ms. R and R^c are value and gradient in float64, d = 768, N = 197, K = 12; `cholesky` and \
                        `inverse` take the smaller matrix, `printed` is the formula as it stands. The layer-wise measure is \
                        that of 16 images in float32, `official` the released script's."
            .to_owned(),
    }
}

fn table(part: Part, rows: &[&Outcome]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| row.names()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let rivals: Vec<&str> = names.iter().copied().filter(|name| *name != "ours").collect();
    let ceiling = part == Part::Models;
    let mut head: Vec<String> = part.labels().iter().chain(&names).map(|label| (*label).to_owned()).collect();
    head.extend(rivals.iter().map(|rival| format!("{rival} / ours")));
    if ceiling {
        head.extend(["images/s, ours", "GFLOP/s, ours", "of the ceiling"].map(str::to_owned));
    }
    let mut text = line(&head) + &line(&vec!["---".to_owned(); head.len()]).replace(' ', "");
    for row in rows {
        let mut cells: Vec<String> = row.case.labels.iter().map(|label| (*label).to_owned()).collect();
        cells.extend(names.iter().map(|name| shown(part, row.of(name))));
        cells.extend(rivals.iter().map(|rival| ratio(row.of(rival), row.of("ours"))));
        if ceiling {
            cells.extend(of_the_ceiling(row));
        }
        text += &line(&cells);
    }
    text
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A contestant's figure, or a dash for one that this case does not have.
fn shown(part: Part, values: &[f64]) -> String {
    match (values.is_empty(), part) {
        (true, _) => "-".to_owned(),
        (false, Part::Memory) => human(median(values) as u64),
        (false, _) => figure(median(values)),
    }
}

fn ratio(theirs: &[f64], ours: &[f64]) -> String {
    if theirs.is_empty() || ours.is_empty() {
        return "-".to_owned();
    }
    let Ratio { median, least, most } = Ratio::of(theirs, ours);
    if theirs.len() == 1 { format!("{median:.2}") } else { format!("{median:.2} ({least:.2}-{most:.2})") }
}

/// Images a second, GFLOP/s and the share of what bare products reach, round by round.
fn of_the_ceiling(row: &Outcome) -> [String; 3] {
    let ours = row.of("ours");
    let rates: Vec<f64> = ours.iter().map(|ms| 1e3 * row.gflop_per_image.unwrap_or(f64::NAN) / ms).collect();
    let share = Ratio::of(&rates, row.of(CEILING)).median;
    let known = |value: f64, text: String| if value.is_finite() { text } else { "-".to_owned() };
    let rate = median(&rates);
    let images = 1e3 / median(ours);
    [figure(images), known(rate, figure(rate)), known(share, format!("{:.0} %", 100.0 * share))]
}

/// Three digits, and all of those before the point.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        0.0..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::cases::{Case, Entry};
    use crate::versus::contestant::{Plan, Program};

    fn outcome(part: Part, labels: &[&'static str], values: &[(&'static str, &[f64])]) -> Outcome {
        let plan = Plan::Once(Program::Ours(Vec::new()));
        let entries = values.iter().map(|(name, _)| Entry { name, plan: plan.clone() }).collect();
        let case = Case { part, labels: labels.to_vec(), entries };
        Outcome { case, values: values.iter().map(|(_, v)| v.to_vec()).collect(), gflop_per_image: Some(9.0) }
    }

    #[test]
    fn a_row_holds_times_ratios_and_the_share_of_the_ceiling() {
        let values: [(&str, &[f64]); 3] =
            [("ours", &[50.0, 100.0, 50.0]), ("tuned eager", &[60.0, 100.0, 55.0]), (CEILING, &[240.0, 200.0, 360.0])];
        let text = tables(&[outcome(Part::Models, &["crate-tiny", "training", "float32"], &values)], 16, 64);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        assert!(lines[0].starts_with("**Models**, batch 16, ms an image."), "{text}");
        assert_eq!(
            lines[2..],
            [
                "| model | pass | precision | ours | tuned eager | tuned eager / ours | images/s, ours | GFLOP/s, ours \
                 | of the ceiling |",
                "|---|---|---|---|---|---|---|---|---|",
                "| crate-tiny | training | float32 | 50.0 | 60.0 | 1.10 (1.00-1.20) | 20.0 | 180 | 50 % |",
            ]
        );
    }

    #[test]
    fn memory_is_in_bytes_and_missing_forms_are_dashes() {
        let memory = outcome(Part::Memory, &["crate-tiny", "float32"], &[("ours", &[2e9]), ("eager", &[3e9])]);
        let first = outcome(Part::Rates, &["R"], &[("ours", &[1.0, 1.0]), ("printed", &[1234.0, 1234.0])]);
        let second = outcome(Part::Rates, &["Rc"], &[("ours", &[0.25, 0.25]), ("cholesky", &[0.5, 0.75])]);
        let text = tables(&[second, memory, first], 16, 64);
        for line in [
            "| crate-tiny | float32 | 2.0 GB | 3.0 GB | 1.50 |",
            "| case | ours | cholesky | printed | cholesky / ours | printed / ours |",
            "| Rc | 0.250 | 0.625 | - | 2.50 (2.00-3.00) | - |",
            "| R | 1.00 | - | 1234 | - | 1234.00 (1234.00-1234.00) |",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
        }
        assert!(text.find("**Memory**") < text.find("**Rates**"));
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1234")] {
            assert_eq!(figure(value), text);
        }
    }
}
