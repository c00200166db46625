//! A run's `metrics.jsonl`, read back as series.
//!
//! One JSON object a line: `event` (or `kind`: "step", "eval"...), `step`, perhaps `epoch`, and numbers by name, either
//! beside these or in an object of their own (`scalars`, `metrics`). What a crash leaves is read as what it means: an
//! incomplete line is skipped and counted, and where a resumed run repeats steps that were already written, the
//! repetition replaces them.

use crate::plots::{Chart, Series};
use crate::stats::Running;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// One line of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Optimiser steps taken when it was written.
    pub step: u64,
    /// The epoch, where the line says.
    pub epoch: Option<f64>,
    /// Every other number by name; `null` is NaN, since JSON has no other way to write it.
    pub values: BTreeMap<String, f64>,
}

/// All records of a run, by kind, with rising steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    kinds: BTreeMap<String, Vec<Record>>,
    /// Lines that were not whole records: at most one after a crash, the last of what was then written.
    pub skipped: usize,
}

impl Metrics {
    /// Reads a metrics file.
    ///
    /// # Errors
    /// The file cannot be read, or it is not empty and holds not one record.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let metrics = Self::parse(&String::from_utf8_lossy(&bytes));
        if metrics.kinds.is_empty() && metrics.skipped > 0 {
            return Err(Error::Metrics(format!(
                "{} holds {} lines and not one is a metrics record, an object with \"event\" and \"step\"; is it another file?",
                path.display(),
                metrics.skipped
            )));
        }
        Ok(metrics)
    }

    /// Reads the text of a metrics file.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Metrics::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match record(line) {
                Some((kind, record)) => {
                    let records = metrics.kinds.entry(kind).or_default();
                    while records.last().is_some_and(|last| last.step >= record.step) {
                        records.pop();
                    }
                    records.push(record);
                }
                None => metrics.skipped += 1,
            }
        }
        metrics
    }

    /// The records of one kind, in order of step.
    pub fn records(&self, kind: &str) -> &[Record] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }

    /// `(step, value)` of one number.
    pub fn points(&self, kind: &str, field: &str) -> Vec<(f64, f64)> {
        self.records(kind).iter().filter_map(|r| Some((r.step as f64, *r.values.get(field)?))).collect()
    }

    /// The last value of one number.
    pub fn last(&self, kind: &str, field: &str) -> Option<f64> {
        self.records(kind).iter().rev().find_map(|r| r.values.get(field).copied())
    }

    /// One number as a series, every value of it.
    pub fn series(&self, kind: &str, field: &str, name: &str) -> Series {
        Series { name: name.into(), points: self.points(kind, field), band: None }
    }

    /// One number as the means of at most `bins` equal groups of successive records, with their standard deviation as band:
    /// what a noisy quantity such as the loss of single batches needs to be legible.
    pub fn binned(&self, kind: &str, field: &str, name: &str, bins: usize) -> Series {
        let points = self.points(kind, field);
        let size = points.len().div_ceil(bins.max(1)).max(1);
        if size == 1 {
            return Series { name: name.into(), points, band: None };
        }
        let (means, stds) = points
            .chunks(size)
            .map(|group| {
                let x = group.iter().map(|p| p.0).collect::<Running>().stat();
                let y = group.iter().map(|p| p.1).collect::<Running>().stat();
                ((x.mean, y.mean), y.std)
            })
            .unzip();
        Series { name: name.into(), points: means, band: Some(stds) }
    }

    /// The usual charts of a training run: loss, accuracy and learning rate, each where the run recorded it.
    pub fn charts(&self) -> Vec<Chart> {
        let chart = |title: &str, caption: &str, y: &str, series: Vec<Series>| Chart {
            title: title.into(),
            caption: caption.into(),
            x_label: "step".into(),
            y_label: y.into(),
            series: series.into_iter().filter(|s| !s.points.is_empty()).collect(),
        };
        let charts = [
            chart(
                "Loss",
                "As the run recorded it. Training: means over groups of successive records, taken while the weights move; the \
                 band is their standard deviation. Validation: at each evaluation.",
                "loss",
                vec![self.binned("step", "loss", "training", 60), self.series("eval", "loss", "validation")],
            ),
            chart(
                "Accuracy",
                "Share of samples whose most probable class is the true one.",
                "accuracy",
                vec![self.binned("step", "accuracy", "training", 60), self.series("eval", "accuracy", "validation")],
            ),
            chart(
                "Learning rate",
                "The rate that was applied at each step.",
                "learning rate",
                vec![self.series("step", "lr", "learning rate")],
            ),
        ];
        charts.into_iter().filter(|c| !c.series.is_empty()).collect()
    }
}

fn record(line: &str) -> Option<(String, Record)> {
    let Value::Object(object) = serde_json::from_str(line).ok()? else { return None };
    let kind = object.get("event").or_else(|| object.get("kind"))?.as_str()?.to_owned();
    let step = object.get("step")?.as_u64()?;
    let epoch = object.get("epoch").and_then(Value::as_f64);
    let mut values = BTreeMap::new();
    for (name, value) in object.into_iter().filter(|(name, _)| name != "step" && name != "epoch") {
        match value {
            Value::Object(inside) => values.extend(inside.into_iter().filter_map(|(name, v)| Some((name, float(&v)?)))),
            value => values.extend(float(&value).map(|x| (name, x))),
        }
    }
    Some((kind, Record { step, epoch, values }))
}

fn float(value: &Value) -> Option<f64> {
    if value.is_null() { Some(f64::NAN) } else { value.as_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = concat!(
        r#"{"event":"step","step":1,"epoch":0.5,"loss":2.3,"lr":0.1,"scalars":{"accuracy":0.1}}"#,
        "\n",
        r#"{"kind":"step","step":2,"epoch":0,"loss":null,"lr":0.2,"note":"text"}"#,
        "\n\n",
        r#"{"event":"eval","step":2,"epoch":1,"metrics":{"loss":2.0,"accuracy":0.5},"best":true}"#,
        "\n",
    );

    #[test]
    fn reads_kinds_and_numbers() {
        let metrics = Metrics::parse(RUN);
        assert_eq!(metrics.points("step", "lr"), [(1.0, 0.1), (2.0, 0.2)]);
        assert!(metrics.points("step", "loss").last().is_some_and(|p| p.1.is_nan()));
        assert_eq!(metrics.last("eval", "accuracy"), Some(0.5));
        assert_eq!(metrics.points("step", "accuracy"), [(1.0, 0.1)]);
        assert_eq!(metrics.records("eval").first().and_then(|r| r.epoch), Some(1.0));
        assert!(metrics.points("none", "loss").is_empty());
        let titles: Vec<_> = metrics.charts().into_iter().map(|c| c.title).collect();
        assert_eq!(titles, ["Loss", "Accuracy", "Learning rate"]);
    }

    #[test]
    fn a_truncated_line_is_counted_at_every_length() {
        let last = RUN.trim_end().rfind('\n').unwrap() + 1;
        for end in last + 1..RUN.trim_end().len() {
            let metrics = Metrics::parse(&RUN[..end]);
            assert_eq!((metrics.skipped, metrics.records("step").len(), metrics.records("eval").len()), (1, 2, 0));
        }
    }

    #[test]
    fn a_resumed_run_replaces_what_it_repeats() {
        let resumed = format!("{RUN}{}\n", r#"{"kind":"step","step":2,"loss":2.1}"#);
        let metrics = Metrics::parse(&resumed);
        assert_eq!(metrics.points("step", "loss"), [(1.0, 2.3), (2.0, 2.1)]);
    }

    #[test]
    fn bins_keep_mean_and_spread() {
        let text: String =
            (0..10).map(|i| format!("{{\"kind\":\"step\",\"step\":{i},\"loss\":{}}}\n", i % 2)).collect();
        let series = Metrics::parse(&text).binned("step", "loss", "training", 5);
        assert_eq!(series.points, [(0.5, 0.5), (2.5, 0.5), (4.5, 0.5), (6.5, 0.5), (8.5, 0.5)]);
        let band = series.band.unwrap();
        assert!(band.iter().all(|s| (s - 0.5f64.sqrt()).abs() < 1e-12));
    }

    #[test]
    fn another_file_is_refused_and_an_empty_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, b"\xff\xfebinary\nmore").unwrap();
        assert!(Metrics::read(&path).unwrap_err().to_string().contains("not one is a metrics record"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(Metrics::read(&path).unwrap(), Metrics::default());
        assert!(Metrics::read(&folder.path().join("none")).unwrap_err().to_string().contains("cannot read"));
    }
}
