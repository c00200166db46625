//! `cargo xtask doctor`: one line for each part, with the fix where something is wrong.

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;

use crate::data;
use crate::files::{free_space, human};
use crate::pins::Lock;
use crate::places::Places;
use crate::{lapack, libtorch, reference, shell};

/// Room that a build in both profiles and a few runs take.
const ROOM: u64 = 6_000_000_000;

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It works.
    Good,
    /// It works with less than it could.
    Note,
    /// It doesn't work.
    Bad,
}

/// One line.
struct Line {
    part: &'static str,
    state: State,
    text: String,
    fix: Option<String>,
}

impl Line {
    fn new(part: &'static str, state: State, text: impl Into<String>, fix: Option<&str>) -> Self {
        Self { part, state, text: text.into(), fix: fix.map(str::to_owned) }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.state {
            State::Good => "ok",
            State::Note => "note",
            State::Bad => "FAIL",
        };
        write!(f, "{mark:4}  {:10} {}", self.part, self.text)?;
        match &self.fix {
            Some(fix) => write!(f, ". Fix: {fix}"),
            None => Ok(()),
        }
    }
}

/// Prints the lines; the status is 0 where no part fails.
///
/// # Errors
/// When there is no cache folder.
pub fn run() -> Result<ExitCode> {
    let places = Places::find()?;
    let mut lines = vec![platform(), rust(), compiler()];
    lines.extend([torch(&places), linear_algebra(), cuda(&places), python(&places), sets(&places), disk(&places)]);
    for line in &lines {
        println!("{line}");
    }
    let bad = lines.iter().filter(|line| line.state == State::Bad).count();
    if bad == 0 {
        println!("ready");
        return Ok(ExitCode::SUCCESS);
    }
    println!("not ready: {bad} of {} parts fail", lines.len());
    Ok(ExitCode::FAILURE)
}

fn platform() -> Line {
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = format!("{system} {machine}, {cores} cores");
    if (system, machine) == ("linux", "x86_64") {
        Line::new("platform", State::Good, text, None)
    } else {
        let fix = "only x86-64 Linux has been tried; bring a libtorch with `cargo xtask setup --libtorch DIR`";
        Line::new("platform", State::Note, text, Some(fix))
    }
}

fn rust() -> Line {
    let ask = |program: &str, arguments: &[&str]| shell::answer(program, arguments);
    let Some(version) = ask("rustc", &["--version"]) else {
        return Line::new("toolchain", State::Bad, "rustc is not on the path", Some("install Rust with rustup"));
    };
    let lacking: Vec<_> = [("rustfmt", "fmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(_, word)| ask("cargo", &[word, "--version"]).is_none())
        .map(|(name, _)| name)
        .collect();
    if lacking.is_empty() {
        return Line::new("toolchain", State::Good, format!("{version}, rustfmt, clippy"), None);
    }
    let fix = format!("rustup component add {}", lacking.join(" "));
    let text = format!("{version} without {}, which `cargo xtask test` uses", lacking.join(" and "));
    Line::new("toolchain", State::Note, text, Some(&fix))
}

fn compiler() -> Line {
    match shell::answer("c++", &["--version"]).as_deref().and_then(|text| text.lines().next()) {
        Some(version) => Line::new("compiler", State::Good, version, None),
        None => Line::new("compiler", State::Bad, "no C++ compiler", Some("sudo apt-get install -y g++")),
    }
}

fn torch(places: &Places) -> Line {
    match libtorch::linked(places) {
        Ok(found) => {
            let real = found.folder.canonicalize().unwrap_or(found.folder);
            let kind = if found.cuda { "with CUDA" } else { "for the CPU" };
            Line::new("libtorch", State::Good, format!("{} {kind}, {}", found.version, real.display()), None)
        }
        Err(error) => Line::new("libtorch", State::Bad, format!("{error:#}"), Some("cargo xtask setup")),
    }
}

fn linear_algebra() -> Line {
    match lapack::found() {
        Ok(version) => Line::new("LAPACK", State::Good, version, None),
        Err(error) => Line::new("LAPACK", State::Bad, format!("{error:#}"), Some(&lapack::fix())),
    }
}

fn cuda(places: &Places) -> Line {
    let card = shell::answer("nvidia-smi", &["--query-gpu=name,driver_version", "--format=csv,noheader"]);
    let library = libtorch::linked(places).is_ok_and(|found| found.cuda);
    match card.filter(|card| !card.is_empty()).map(|card| card.replace('\n', "; ")) {
        None => Line::new("CUDA", State::Good, "no NVIDIA GPU found: everything runs on the CPU", None),
        Some(card) if library => Line::new("CUDA", State::Good, card, None),
        Some(card) => Line::new(
            "CUDA",
            State::Note,
            format!("{card}, but libtorch is the one for the CPU"),
            Some("cargo xtask setup --cuda"),
        ),
    }
}

/// The one part that nothing but a bench asks for: its absence is no fault.
fn python(places: &Places) -> Line {
    let setup = "cargo xtask setup --python-reference";
    match Lock::python_reference().and_then(|lock| reference::found(&lock, places)) {
        Ok(Some(folder)) => Line::new("reference", State::Good, folder.display().to_string(), None),
        Ok(None) => {
            let text = format!("no PyTorch to compare with, which only `bench versus-pytorch` needs (`{setup}`)");
            Line::new("reference", State::Good, text, None)
        }
        Err(error) => Line::new("reference", State::Note, format!("{error:#}"), Some(setup)),
    }
}

fn sets(places: &Places) -> Line {
    let embedded = places.root.join("data/README.md");
    if !embedded.is_file() {
        let text = format!("{} is missing: the clone is incomplete", embedded.display());
        return Line::new("data", State::Bad, text, Some("git checkout -- data"));
    }
    let there = data::present(&places.data);
    let full = if there.is_empty() { "none (`cargo xtask data list`)".to_owned() } else { there.join(", ") };
    Line::new("data", State::Good, format!("the small sets of the repository; full sets: {full}"), None)
}

fn disk(places: &Places) -> Line {
    match free_space(&places.root) {
        Ok(free) if free < ROOM => {
            let text =
                format!("{} free at {}, a full build takes up to {}", human(free), places.root.display(), human(ROOM));
            Line::new("disk", State::Note, text, Some("make room, or `cargo clean` if the build is old"))
        }
        Ok(free) => Line::new("disk", State::Good, format!("{} free at {}", human(free), places.root.display()), None),
        Err(error) => Line::new("disk", State::Bad, format!("{error:#}"), Some("check the file system")),
    }
}
