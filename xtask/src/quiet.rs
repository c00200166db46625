//! Runs a cargo command that says nothing when there is nothing to build: its output is held back until it says more
//! than "Finished", and from there on is shown as it comes, progress bar and colours included.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

/// Runs `cargo`, a cargo command, with what it says on standard error.
///
/// # Errors
/// When cargo can't be started or its output not be read.
pub fn run(cargo: &mut Command) -> Result<ExitStatus> {
    if io::stderr().is_terminal() {
        // cargo writes to a pipe here and would think that nobody watches
        cargo.env("CARGO_TERM_COLOR", "always").env("CARGO_TERM_PROGRESS_WHEN", "always");
        cargo.env("CARGO_TERM_PROGRESS_WIDTH", terminal_width().to_string());
    }
    let mut child = cargo.stderr(Stdio::piped()).spawn().context("starting cargo")?;
    let output = child.stderr.take().context("cargo's output cannot be read")?;
    let held = pass_on(output, &mut io::stderr())?;
    let status = child.wait()?;
    if !status.success() {
        io::stderr().write_all(&held)?;
    }
    Ok(status)
}

/// Copies `from` to `to` once there is something to say; gives back what was held to the end.
fn pass_on(mut from: impl Read, to: &mut impl Write) -> Result<Vec<u8>> {
    let mut held = Vec::new();
    let mut silent = true;
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { break };
        held.extend_from_slice(part);
        silent = silent && is_nothing(&held);
        if !silent {
            to.write_all(&held)?;
            to.flush()?;
            held.clear();
        }
    }
    Ok(held)
}

/// Whether the text is empty or (the beginning of) cargo's closing line, terminal codes aside.
fn is_nothing(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain.split(['\n', '\r']).map(str::trim).all(|line| line.starts_with("Finished") || "Finished".starts_with(line))
}

fn terminal_width() -> usize {
    let asked = File::open("/dev/tty").ok().and_then(|terminal| {
        let output = Command::new("stty").arg("size").stdin(terminal).output().ok()?;
        String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1)?.parse().ok()
    });
    asked.unwrap_or(80)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = Vec::new();
        // one byte at a time: a line may come in pieces
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(&mut buffer[..1])
            }
        }
        pass_on(Slow(text.as_bytes()), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_fresh_build_is_silent_and_a_real_one_is_not() {
        assert_eq!(shown("    Finished `dev` profile in 0.10s\n"), "");
        assert_eq!(shown("\u{1b}[1m\u{1b}[32m    Finished\u{1b}[0m `dev` profile in 0.10s\r\n"), "");
        let compiling = "   Compiling tch v0.24.0\n    Finished `dev` profile in 3m\n";
        assert_eq!(shown(compiling), compiling);
        let waiting = "    Blocking waiting for file lock on build directory\n";
        assert_eq!(shown(waiting), waiting);
        let warned = "warning: unused\n    Finished\n";
        assert_eq!(shown(warned), warned);
    }
}
