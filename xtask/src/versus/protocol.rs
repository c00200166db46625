//! What a worker writes: one line of JSON when it is warm, one for every turn. The programs on both sides speak it, so
//! that any of them can be tried by hand in a terminal.
//!
//! ```text
//! -> {"ready": true, "gflop_per_image": 9.0, "threads": 2}
//! <- (an empty line)
//! -> {"ms": 78.6, "repeats": 25}
//! ```
//!
//! A worker that measures the rate of products answers `{"gflops": 162}`, one that measures memory writes
//! `{"peak_bytes": 1}` without being asked, and ends. Fields that are not known here are passed over.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The first line of a worker.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Ready {
    ready: bool,
    /// Two for every multiply-add in the matrix products that are made for an image.
    pub gflop_per_image: Option<f64>,
    /// Threads that it computes with.
    pub threads: Option<usize>,
}

/// The answer to a turn: the field depends on what is measured.
#[derive(Deserialize)]
struct Answer {
    ms: Option<f64>,
    gflops: Option<f64>,
    peak_bytes: Option<f64>,
}

/// Reads the first line of a worker that was told to compute on `threads` threads.
///
/// # Errors
/// Another line, or another number of threads: the comparison would not be fair.
pub fn ready(line: &str, threads: usize) -> Result<Ready> {
    let ready: Ready = parse(line, r#"{"ready": true, ...}"#)?;
    if !ready.ready {
        bail!("it wrote {line}, expected {{\"ready\": true, ...}}");
    }
    match ready.threads {
        Some(other) if other != threads => bail!("it computes on {other} threads, expected {threads}"),
        _ => Ok(ready),
    }
}

/// Reads the number in an answer: milliseconds, GFLOP/s or bytes.
///
/// # Errors
/// Another line, or a number that is not positive and finite.
pub fn value(line: &str) -> Result<f64> {
    const EXPECTED: &str = r#"{"ms": NUMBER}, {"gflops": NUMBER} or {"peak_bytes": NUMBER}"#;
    let answer: Answer = parse(line, EXPECTED)?;
    match answer.ms.or(answer.gflops).or(answer.peak_bytes) {
        Some(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => bail!("it wrote {line}, expected {EXPECTED} with a positive number"),
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a str, expected: &str) -> Result<T> {
    serde_json::from_str(line).with_context(|| format!("it wrote {line:?}, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let read = ready(r#"{"ready": true, "gflop_per_image": 9.5, "threads": 2, "version": "2.11.0"}"#, 2).unwrap();
        assert_eq!((read.gflop_per_image, read.threads), (Some(9.5), Some(2)));
        assert_eq!(ready(r#"{"ready": true, "case": "rate"}"#, 2).unwrap().threads, None);
        assert_eq!(value(r#"{"ms": 78.5, "repeats": 25}"#).unwrap(), 78.5);
        assert_eq!(value(r#"{"gflops": 162}"#).unwrap(), 162.0);
        assert_eq!(value(r#"{"peak_bytes": 3000000000}"#).unwrap(), 3e9);
    }

    #[test]
    fn other_lines_are_shown() {
        for (line, complaint) in [
            ("{\"ready\": false}", "expected {\"ready\": true"),
            ("Loading...", "\"Loading...\", expected"),
            ("{\"ready\": true, \"threads\": 1}", "1 threads, expected 2"),
        ] {
            let error = format!("{:#}", ready(line, 2).unwrap_err());
            assert!(error.contains(complaint), "{error}");
        }
        for line in ["{}", "{\"ms\": 0}", "{\"ms\": -1}", "{\"ms\": 1e999}", "{\"ms\": null}", "12"] {
            let error = format!("{:#}", value(line).unwrap_err());
            assert!(error.contains("expected {\"ms\": NUMBER}"), "{error}");
        }
    }
}
