//! `metrics.jsonl`: one JSON object a line, for scripts and reports.
//!
//! A resumed run goes on in the same file. Lines that a killed process wrote after its last checkpoint are cut off first, because their
//! steps are made again.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::error::BoxError;
use crate::metrics::{Event, Sink};
use crate::trainer::Outcome;

/// Writes events as lines. Every line has `event`, `step` and `time` (seconds since 1970).
#[derive(Debug)]
pub struct Jsonl {
    path: PathBuf,
    file: Option<File>,
}

impl Jsonl {
    /// A sink into `path`. The file is opened when the run starts: a fresh run empties it, a resumed one goes on in it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None }
    }

    fn open(&self, step: u64, resumed: bool) -> std::io::Result<File> {
        let keep = match fs::read(&self.path) {
            Ok(content) if resumed => valid_length(&content, step),
            _ => 0,
        };
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
        file.set_len(keep)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }
}

/// How many bytes tell of the run up to `step`: until the first line of a later step (or one cut short), and no further than the
/// checkpoint of that step, after which everything is told again.
fn valid_length(content: &[u8], step: u64) -> u64 {
    let mut end = 0;
    let mut after_checkpoint = None;
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        let value = serde_json::from_slice::<Value>(line).unwrap_or_default();
        let whole = line.ends_with(b"\n") && value["step"].as_u64().is_some_and(|at| at <= step);
        if !whole {
            break;
        }
        end += line.len() as u64;
        if value["event"] == "checkpoint" && value["step"] == step {
            after_checkpoint = Some(end);
        }
    }
    after_checkpoint.unwrap_or(end)
}

fn line(event: &Event<'_>) -> Option<Value> {
    let object = |pairs: &[(String, f64)]| pairs.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>();
    Some(match event {
        Event::Tick { .. } | Event::EvalProgress { .. } => return None,
        Event::Start { step, epoch, resumed, total_steps, steps_per_epoch, epochs, parameters } => json!({
            "event": "start", "step": step, "epoch": epoch, "resumed": resumed, "total_steps": total_steps,
            "steps_per_epoch": steps_per_epoch, "epochs": epochs, "parameters": parameters,
        }),
        Event::Step { step, epoch, samples, loss, scalars, lr, grad_norm, samples_per_second, peak_memory } => {
            let mut value = json!({
                "event": "step", "step": step, "epoch": epoch, "samples": samples, "loss": loss, "lr": lr, "grad_norm": grad_norm,
                "samples_per_second": samples_per_second, "peak_memory": peak_memory,
            });
            value["scalars"] = object(scalars).into();
            value
        }
        Event::Eval { step, epoch, metrics, best, seconds } => json!({
            "event": "eval", "step": step, "epoch": epoch, "metrics": object(metrics), "best": best, "seconds": seconds,
        }),
        Event::Checkpoint { step, path } => {
            json!({ "event": "checkpoint", "step": step, "path": path.to_string_lossy() })
        }
        Event::Warning { step, message } => json!({ "event": "warning", "step": step, "message": message }),
        Event::End { step, outcome } => {
            json!({ "event": "end", "step": step, "finished": matches!(outcome, Outcome::Finished { .. }) })
        }
    })
}

impl Sink for Jsonl {
    fn emit(&mut self, event: &Event<'_>) -> Result<(), BoxError> {
        let Some(mut value) = line(event) else { return Ok(()) };
        value["time"] = json!(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()));
        let mut write = || {
            if let Event::Start { step, resumed, .. } = event {
                self.file = Some(self.open(*step, *resumed)?);
            }
            match &mut self.file {
                Some(file) => file.write_all(format!("{value}\n").as_bytes()),
                None => Ok(()),
            }
        };
        write().map_err(|e| format!("writing {}: {e}", self.path.display()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(sink: &mut Jsonl, start: u64, resumed: bool, steps: std::ops::RangeInclusive<u64>) {
        let start = Event::Start {
            step: start,
            epoch: 0,
            resumed,
            total_steps: 9,
            steps_per_epoch: 9,
            epochs: 1,
            parameters: 1,
        };
        sink.emit(&start).unwrap();
        for step in steps {
            sink.emit(&Event::Tick { step, samples: 0 }).unwrap();
            sink.emit(&Event::Warning { step, message: "w" }).unwrap();
        }
    }

    fn told(path: &std::path::Path) -> Vec<(String, u64)> {
        let text = fs::read_to_string(path).unwrap();
        let values = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        values.map(|v| (v["event"].as_str().unwrap().to_owned(), v["step"].as_u64().unwrap())).collect()
    }

    #[test]
    fn a_resume_cuts_what_comes_after_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut sink = Jsonl::new(&path);
        events(&mut sink, 0, false, 1..=2);
        sink.emit(&Event::Checkpoint { step: 2, path: dir.path() }).unwrap();
        sink.emit(&Event::Warning { step: 2, message: "told again after the resume" }).unwrap();
        sink.emit(&Event::Warning { step: 3, message: "void" }).unwrap();
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":\"wa").unwrap();

        events(&mut Jsonl::new(&path), 2, true, 3..=3);
        let expected = [("start", 0), ("warning", 1), ("warning", 2), ("checkpoint", 2), ("start", 2), ("warning", 3)];
        assert_eq!(told(&path), expected.map(|(event, step)| (event.to_owned(), step)));

        events(&mut Jsonl::new(&path), 0, false, 1..=1);
        assert_eq!(told(&path).len(), 2, "a fresh run starts a fresh file");
    }

    #[test]
    fn numbers_that_are_none_become_null_and_a_full_disk_is_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut sink = Jsonl::new(&path);
        events(&mut sink, 0, false, 1..=1);
        let metrics = [("loss".to_owned(), f64::NAN), ("accuracy".to_owned(), 0.5)];
        sink.emit(&Event::Eval { step: 1, epoch: 1, metrics: &metrics, best: false, seconds: 0.0 }).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["metrics"], json!({"loss": null, "accuracy": 0.5}));

        sink.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let message = sink.emit(&Event::Warning { step: 1, message: "w" }).unwrap_err().to_string();
        assert!(message.starts_with("writing ") && message.contains("metrics.jsonl"), "{message}");
    }
}
