//! `cargo xtask test`: everything that has to hold before a change goes in, the cheapest check first.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lapack;
use crate::setup::{Setup, Source};
use crate::whitebox::{cargo, find_libtorch};

/// Numbers of tests, and what those said that could not run here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: Vec<String>,
}

/// A test that lacks what it needs says so in a line that begins like this, past libtest's capture.
const SKIPPED: &str = "skipped: ";

/// Runs the checks; `fast` skips formatting, lints and docs; `rest` goes to `cargo test`.
///
/// # Errors
/// The machine can't be set up, or cargo not be started. A check that fails is an exit status.
pub fn run(fast: bool, rest: &[OsString]) -> Result<ExitCode> {
    let mut times = Vec::new();
    let result = checks(fast, rest, &mut times);
    eprintln!();
    for (name, time) in &times {
        eprintln!("{name:10} {}", spelled(*time));
    }
    match result? {
        Some(count) => {
            // ignored tests are counted where there are any, so that none hides
            let ignored = if count.ignored > 0 { format!(", {} ignored", count.ignored) } else { String::new() };
            count.skipped.iter().for_each(|what| println!("{SKIPPED}{what}"));
            println!("{} passed, {} failed{ignored}", count.passed, count.failed);
            Ok(if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        None => Ok(ExitCode::FAILURE),
    }
}

/// The number of tests, or `None` where a check before or the build of the tests failed (cargo has said why).
fn checks(fast: bool, rest: &[OsString], times: &mut Vec<(&'static str, Duration)>) -> Result<Option<Count>> {
    let mut timed = |name, start: Instant| times.push((name, start.elapsed()));
    let start = Instant::now();
    let setup = Setup::new()?;
    setup.libtorch(&Source::Any, false)?;
    lapack::ensure()?;
    timed("setup", start);

    let lints: [(&str, &[&str]); 3] = [
        ("format", &["fmt", "--all", "--check"]),
        ("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        ("docs", &["doc", "--workspace", "--no-deps"]),
    ];
    for (name, arguments) in lints.into_iter().filter(|_| !fast) {
        let start = Instant::now();
        let mut command = cargo();
        command.args(arguments).current_dir(&setup.places.root);
        if name == "docs" {
            command.env("RUSTDOCFLAGS", "-D warnings");
        }
        eprintln!("== {name}: cargo {}", arguments.join(" "));
        let status = command.status().context("starting cargo")?;
        timed(name, start);
        if !status.success() {
            eprintln!("== {name}: failed{}", if name == "format" { "; `cargo fmt --all` mends it" } else { "" });
            return Ok(None);
        }
    }

    let start = Instant::now();
    eprintln!("== tests: cargo test --workspace");
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--no-fail-fast"]).args(rest).current_dir(&setup.places.root);
    let counted = count(find_libtorch(&mut tests, &setup.places.root)?, &mut io::stdout());
    timed("tests", start);
    counted
}

/// Runs the tests, passing what they print to `shown`, and adds up libtest's closing lines.
fn count(tests: &mut Command, shown: &mut impl Write) -> Result<Option<Count>> {
    let mut child = tests.stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let mut output = BufReader::new(child.stdout.take().context("the tests' output cannot be read")?);
    let mut total = Count::default();
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        shown.write_all(&line)?;
        add(&mut total, &String::from_utf8_lossy(&line));
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() && total.failed == 0 {
        eprintln!("== tests: cargo test failed ({status}) without a failed test: it did not build, or a test crashed");
        return Ok(None);
    }
    if status.success() && total.passed == 0 {
        bail!("no test ran: does the filter fit any name?");
    }
    Ok(Some(total))
}

/// Adds a line like `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn add(total: &mut Count, line: &str) {
    // libtest may have begun a line of its own.
    if let Some((_, what)) = line.split_once(SKIPPED) {
        total.skipped.push(what.trim().to_owned());
        return;
    }
    let Some(result) = line.strip_prefix("test result: ").and_then(|rest| Some(rest.split_once(". ")?.1)) else {
        return;
    };
    for part in result.split(';') {
        match part.trim().split_once(' ').map(|(number, what)| (number.parse::<u64>().unwrap_or(0), what)) {
            Some((number, "passed")) => total.passed += number,
            Some((number, "failed")) => total.failed += number,
            Some((number, "ignored")) => total.ignored += number,
            _ => {}
        }
    }
}

fn spelled(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut total = Count::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n",
            "test a::b ... ok\n",
            "test a::c ... skipped: a::c (there is no Chromium)\n",
        ] {
            add(&mut total, line);
        }
        let skipped = vec!["a::c (there is no Chromium)".to_owned()];
        assert_eq!(total, Count { passed: 15, failed: 2, ignored: 1, skipped });
    }

    #[test]
    fn a_failed_test_and_a_failed_build_differ() {
        let script = |text: &str| count(Command::new("sh").args(["-c", text]), &mut io::sink()).unwrap();
        let failed = "echo 'test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured'; exit 101";
        assert_eq!(script(failed), Some(Count { passed: 3, failed: 2, ..Count::default() }));
        assert_eq!(script("exit 101"), None);
        assert!(count(&mut Command::new("true"), &mut io::sink()).is_err());
    }

    #[test]
    fn times_read_well() {
        assert_eq!(spelled(Duration::from_millis(1540)), "1.5 s");
        assert_eq!(spelled(Duration::from_secs(200)), "3 min 20 s");
    }
}
