//! A process that lives through all rounds of a case, so that what it takes to start and to compile is paid once and
//! not measured. It has a process group of its own: Ctrl-C in the terminal reaches this program alone, which then ends
//! the whole group, with the helpers that a worker may have started.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process_group};

use super::interrupt;

/// How many of the last lines on standard error an error shows.
const LAST_LINES: usize = 12;

/// Between two looks at whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(100);

/// A running worker; it is ended when dropped.
pub struct Worker {
    name: String,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    said: Arc<Mutex<VecDeque<String>>>,
    listener: JoinHandle<()>,
}

impl Worker {
    /// Starts `command`, called `name` in errors.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name} ({})", command.get_program().to_string_lossy()))?;
        let input = child.stdin.take().context("a worker without standard input")?;
        let output = child.stdout.take().context("a worker without standard output")?;
        let errors = child.stderr.take().context("a worker without standard error")?;
        let (sender, lines) = channel();
        thread::spawn(move || each_line(output, |line| drop(sender.send(line))));
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let keep = Arc::clone(&said);
        let listener = thread::spawn(move || {
            each_line(errors, |line| {
                let mut said = keep.lock().unwrap_or_else(PoisonError::into_inner);
                if said.len() == LAST_LINES {
                    said.pop_front();
                }
                said.push_back(line);
            });
        });
        Ok(Self { name: name.to_owned(), child, input, lines, said, listener })
    }

    /// The next line of JSON; what else a worker prints (notes of its libraries) is passed over.
    ///
    /// # Errors
    /// The worker ended, with what it said last, or the user wants to stop.
    pub fn line(&mut self) -> Result<String> {
        loop {
            interrupt::check()?;
            match self.lines.recv_timeout(LOOK) {
                Ok(line) if line.trim_start().starts_with('{') => return Ok(line),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.end();
                    return Err(self.died(status));
                }
            }
        }
    }

    /// Asks for a measurement and waits for its line.
    ///
    /// # Errors
    /// As [`Worker::line`].
    pub fn ask(&mut self) -> Result<String> {
        // a worker that is gone closes its output too, and says why there
        let _ = self.input.write_all(b"\n").and_then(|()| self.input.flush());
        self.line()
    }

    /// Waits until the worker ends by itself.
    ///
    /// # Errors
    /// It ended with a status other than 0, or the user wants to stop.
    pub fn finish(mut self) -> Result<()> {
        loop {
            interrupt::check()?;
            if let Err(RecvTimeoutError::Disconnected) = self.lines.recv_timeout(LOOK) {
                break;
            }
        }
        match self.end() {
            Some(status) if status.success() => Ok(()),
            status => Err(self.died(status)),
        }
    }

    /// How the worker ended, once its output is closed; it has a moment to do so.
    fn end(&mut self) -> Option<ExitStatus> {
        for _ in 0..20 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(LOOK / 2);
        }
        None
    }

    fn died(&self, status: Option<ExitStatus>) -> anyhow::Error {
        for _ in 0..10 {
            if self.listener.is_finished() {
                break;
            }
            thread::sleep(LOOK / 2);
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let how = status.map_or("closed its output".to_owned(), |status| format!("ended ({status})"));
        let said =
            if said.is_empty() { " nothing".to_owned() } else { said.iter().map(|l| format!("\n  {l}")).collect() };
        anyhow!("{} {how} before it had answered. On standard error it said last:{said}", self.name)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // one that has ended and was waited for has no group any more
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn each_line(from: impl Read, mut take: impl FnMut(String)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        take(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Worker {
        Worker::start("the worker", Command::new("sh").args(["-c", text])).unwrap()
    }

    #[test]
    fn it_answers_as_often_as_it_is_asked() {
        let mut worker = shell("echo note; echo '{1}'; while read x; do echo '{2}'; done");
        assert_eq!(worker.line().unwrap(), "{1}");
        assert_eq!((worker.ask().unwrap(), worker.ask().unwrap()), ("{2}".to_owned(), "{2}".to_owned()));
        shell("echo a; echo b").finish().unwrap();
    }

    #[test]
    fn a_dead_worker_is_named_with_its_last_lines() {
        let error = shell("seq 30 >&2; echo 'ImportError: no torch' >&2; exit 3").line().unwrap_err().to_string();
        assert!(error.starts_with("the worker ended (exit status: 3)"), "{error}");
        assert!(error.ends_with("  30\n  ImportError: no torch") && !error.contains("\n  19\n"), "{error}");
        let error = shell("echo '{}'; exit 0").ask().and_then(|_| shell("exit 0").ask()).unwrap_err().to_string();
        assert!(error.contains("exit status: 0") && error.ends_with("nothing"), "{error}");
        assert!(shell("exit 4").finish().unwrap_err().to_string().contains("exit status: 4"));
        let missing = Worker::start("nobody", &mut Command::new("/no/such/program")).err().unwrap().to_string();
        assert!(missing.contains("starting nobody"), "{missing}");
    }

    #[test]
    fn nothing_of_it_is_left() {
        let mut worker = shell("sleep 1000 & echo \"{$!}\"; wait");
        let helper = worker.line().unwrap().trim_matches(['{', '}']).to_owned();
        let alive = || std::fs::read_to_string(format!("/proc/{helper}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        assert!(alive());
        drop(worker);
        while alive() {
            thread::sleep(LOOK / 10);
        }
    }
}
