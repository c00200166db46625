//! `bench versus-pytorch` as a whole, on fakes: a whitebox program, a Python and a cargo that are shell scripts.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use common::{Machine, script};
use xtask::document;
use xtask::manifest::Manifest;
use xtask::pins::Lock;
use xtask::reference::place;
use xtask::setup::Source;
use xtask::versus::options::Device;

const DOCUMENT: &str = "# Benchmarks\nbefore\n<!-- versus-pytorch cpu -->\n<!-- end -->\nafter\n";

/// A worker's side of the protocol: what it says when ready, and in a turn.
fn worker(ready: &str, turn: &str) -> String {
    format!("echo '{ready}'; while read line; do {turn}; done; exit 0")
}

/// A machine on which everything that the command starts is a fake.
struct Fakes {
    machine: Machine,
    xtask: PathBuf,
}

impl Fakes {
    fn new() -> Self {
        let machine = Machine::new();
        machine.setup.libtorch(&Source::Any, false).unwrap();
        let at = |name: &str| machine.at(name);
        for folder in ["bin", "clone/docs", "clone/target/debug", "clone/target/release"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let xtask = at("clone/target/debug/xtask");
        let built = env!("CARGO_BIN_EXE_xtask");
        if fs::hard_link(built, &xtask).is_err() {
            assert!(Command::new("cp").arg(built).arg(&xtask).status().unwrap().success());
        }
        fs::write(at("clone/docs/benchmarks.md"), DOCUMENT).unwrap();
        script(&at("bin/pkg-config"), "#!/bin/sh\necho 0.3.21\n");
        script(&at("cargo"), &cargo(&at("calls")));
        let fakes = Self { machine, xtask };
        fakes.ours(&worker(r#"{"ready": true, "gflop_per_image": 9.0, "threads": 2}"#, r#"echo '{"ms": 50.0}'"#));
        fakes.python(&worker(r#"{"ready": true, "threads": 2}"#, r#"echo '{"ms": 100.0}'"#));
        let reference = place(&Lock::python_reference().unwrap(), &fakes.machine.setup.places).unwrap();
        fs::create_dir_all(&reference).unwrap();
        Manifest::default().write(&reference).unwrap();
        fakes
    }

    /// What the whitebox program does as a worker.
    fn ours(&self, text: &str) {
        let log = self.machine.at("calls");
        let special = "case \"$*\" in *--memory*) echo '{\"peak_bytes\": 2000000000}'; exit 0;; \
                       *matmul*) echo '{\"ready\": true}'; while read l; do echo '{\"gflops\": 360}'; done; exit 0;; esac";
        let text = format!("#!/bin/sh\necho \"ours $OMP_NUM_THREADS $*\" >> {}\n{special}\n{text}\n", log.display());
        script(&self.machine.at("clone/target/release/whitebox"), &text);
    }

    /// What Python does as a worker.
    fn python(&self, text: &str) {
        let log = self.machine.at("calls");
        let special = "case \"$2\" in *version_info*) echo 3.11; exit 0;; esac\n\
                       case \"$*\" in *' memory '*) echo '{\"peak_bytes\": 3000000000}'; exit 0;; esac";
        let said = format!("echo \"python $OMP_NUM_THREADS $OPENBLAS_CORETYPE $*\" >> {}", log.display());
        script(&self.machine.at("bin/python3"), &format!("#!/bin/sh\n{special}\n{said}\n{text}\n"));
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.xtask);
        let path = format!("{}:{}", self.machine.at("bin").display(), std::env::var("PATH").unwrap_or_default());
        command
            .args(["bench", "versus-pytorch", "--threads", "2", "--seconds", "0"])
            .args(words)
            .env("CARGO_MANIFEST_DIR", self.machine.at("clone/xtask"))
            .env("XDG_CACHE_HOME", self.machine.at("cache"))
            .env("CARGO", self.machine.at("cargo"))
            .env("OPENBLAS_CORETYPE", "Zen")
            .env("PATH", path)
            .env_remove("LIBTORCH");
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn document(&self) -> String {
        fs::read_to_string(self.machine.at("clone/docs/benchmarks.md")).unwrap()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.machine.at("calls")).unwrap()
    }

    /// What a run that has to fail said.
    fn complaint(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(self.document(), DOCUMENT);
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A cargo that builds nothing and whose benches take 36 ms for 18 elements.
fn cargo(log: &Path) -> String {
    format!(
        "#!/bin/sh\necho \"cargo $*\" >> {}\n\
         case \"$*\" in *--noplot*) ;; *) exit 0;; esac\n\
         while [ \"$1\" != --exact ]; do shift; done\nd=\"$CRITERION_HOME/$2/new\"; mkdir -p \"$d\"\n\
         echo '{{\"median\": {{\"point_estimate\": 36000000}}}}' > \"$d/estimates.json\"\n\
         echo '{{\"throughput\": {{\"Elements\": 18}}}}' > \"$d/benchmark.json\"\n",
        log.display()
    )
}

#[test]
fn a_whole_run_ends_in_the_document() {
    let fakes = Fakes::new();
    let output = fakes.run(&["--rounds", "1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document = fakes.document();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(document.contains(printed.trim_end()), "{printed}");
    assert!(document.starts_with("# Benchmarks\nbefore\n<!-- versus-pytorch cpu -->\n"), "{document}");
    assert!(document.ends_with("\n<!-- end -->\nafter\n"), "{document}");
    let times = "50.0 | 100 | 100 | 100 | 100 | 2.00 | 2.00 | 2.00 | 2.00 | 20.0 | 180 | 50 % |";
    for line in [
        format!("| crate-tiny | training | float32 | {times}"),
        format!("| crate-small | inference | bfloat16 | {times}"),
        "| crate-tiny | bfloat16 | 2.0 GB | 3.0 GB | 3.0 GB | 3.0 GB | 3.0 GB | 1.50 | 1.50 | 1.50 | 1.50 |".into(),
        "| photos_500x375 | 2.00 | 100 | 100 | 50.00 | 50.00 |".into(),
        "| layer-wise | 2.00 | - | - | - | 100 | - | - | - | 50.00 |".into(),
        "    cargo xtask bench versus-pytorch --threads 2 --seconds 0 --rounds 1".into(),
    ] {
        assert!(document.contains(&format!("{line}\n")), "{line} is not in\n{document}");
    }
    for fact in ["libtorch 2.11.0", "PyTorch 2.11.0", "whitebox of an unknown commit", "Load of the machine"] {
        assert!(document.contains(fact), "{fact} is not in\n{document}");
    }

    let calls = fakes.calls();
    for call in [
        "cargo build --release --package whitebox",
        "cargo bench --no-run --package rate-reduction --bench versus_numpy",
        "ours 2 throughput crate-tiny --pass training --precision float32 --batch 16 --device cpu --seconds 0 --turns",
        "ours 2 throughput matmul --precision bfloat16 --device cpu --seconds 0 --turns",
        "ours 2 throughput crate-tiny --pass training --precision float32 --batch 64 --device cpu --memory",
        "xtask/reference/pytorch.py serve --model crate-small --form tuned --mode compile --pass inference",
        "xtask/reference/numpy_rates.py serve --case rc --form printed --seconds 0",
    ] {
        assert!(calls.contains(call), "{call} is not in\n{calls}");
    }
    assert!(!calls.contains("Zen"), "Python saw our OpenBLAS's setting");
}

#[test]
fn this_clone_has_room_for_the_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for device in [Device::Cpu, Device::Cuda] {
        document::check(&root.join("docs/benchmarks.md"), &format!("versus-pytorch {}", device.word())).unwrap();
    }
}

#[test]
fn a_part_or_a_look_is_printed_alone() {
    let fakes = Fakes::new();
    let output = fakes.run(&["--only", "crate-tiny/training/float32", "--rounds", "3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("| crate-tiny | training | float32 | 50.0 | 100 "), "{printed}");
    assert!(printed.contains("2.00 (2.00-2.00)") && !printed.contains("bfloat16"), "{printed}");
    assert_eq!(fakes.document(), DOCUMENT);
    assert!(!fakes.calls().contains("cargo bench"), "only what is measured is built");

    assert!(fakes.run(&["--only", "loader", "--rounds", "1"]).status.success());
    assert!(!fakes.calls().contains("cargo bench --no-run --package rate-reduction"));
    assert!(fakes.run(&["--only", "rates/Rc", "--rounds", "1", "--no-write"]).status.success());
    assert_eq!(fakes.document(), DOCUMENT);
}

#[test]
fn a_dead_worker_is_named_with_its_last_words() {
    let fakes = Fakes::new();
    fakes.python("echo Traceback >&2; echo 'ImportError: no torch' >&2; exit 1");
    let error = fakes.complaint(&["--rounds", "1"]);
    assert!(
        error.contains("error: models/crate-tiny/training/float32, published eager ended (exit status: 1)"),
        "{error}"
    );
    assert!(error.contains("ImportError: no torch"), "{error}");

    // in the middle of the rounds
    fakes.python(&worker(r#"{"ready": true}"#, "echo 'out of memory' >&2; exit 9"));
    let error = fakes.complaint(&["--rounds", "1", "--only", "crate-tiny/training/float32"]);
    assert!(error.contains("ended (exit status: 9)") && error.contains("out of memory"), "{error}");

    fakes.python(&worker(r#"{"ready": true, "threads": 1}"#, "echo '{}'"));
    let error = fakes.complaint(&["--rounds", "1"]);
    assert!(error.contains("published eager: it computes on 1 threads, expected 2"), "{error}");

    fakes.ours(&worker(r#"{"ready": true}"#, "echo '{\"ms\": 0}'"));
    fakes.python(&worker(r#"{"ready": true}"#, "echo '{\"ms\": 1}'"));
    let error = fakes.complaint(&["--rounds", "1"]);
    assert!(error.contains("ours: it wrote {\"ms\": 0}, expected"), "{error}");
}

#[test]
fn what_is_missing_is_said_before_anything_is_measured() {
    let fakes = Fakes::new();
    let error = fakes.complaint(&["--only", "no-such-case"]);
    assert!(error.contains("no case's name contains \"no-such-case\"; names are like models/"), "{error}");
    let error = fakes.complaint(&["--device", "cuda"]);
    assert!(error.contains("has no room for the result") && error.contains("<!-- versus-pytorch cuda -->"), "{error}");
    let error = fakes.complaint(&["--device", "cuda", "--no-write"]);
    assert!(error.contains("cargo xtask setup --cuda"), "{error}");
    let error = fakes.complaint(&["--rounds", "0"]);
    assert!(error.contains("at least 1"), "{error}");

    script(&fakes.machine.at("cargo"), "#!/bin/sh\necho 'error: no' >&2\nexit 101\n");
    let error = fakes.complaint(&["--only", "loader"]);
    assert!(error.contains("error: no") && error.contains("--bench decode` failed"), "{error}");

    let reference = place(&Lock::python_reference().unwrap(), &fakes.machine.setup.places).unwrap();
    fs::remove_dir_all(reference).unwrap();
    let error = fakes.complaint(&[]);
    assert!(error.contains("run `cargo xtask setup --python-reference`"), "{error}");
}

/// The process ids that the fakes wrote.
fn ids(fakes: &Fakes) -> Vec<String> {
    let text = fs::read_to_string(fakes.machine.at("ids")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn alive(id: &str) -> bool {
    // one that nobody has waited for yet is dead all the same
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ctrl_c_ends_the_workers_and_leaves_the_document() {
    let fakes = Fakes::new();
    let log = fakes.machine.at("ids").display().to_string();
    // a turn that never ends, with a helper process of its own
    let endless = format!("sleep 1000 & echo $! >> {log}; echo $$ >> {log}; wait");
    fakes.ours(&worker(r#"{"ready": true}"#, &endless));
    let started = fakes.command(&[]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let run: Child = started.unwrap();
    wait_until(|| ids(&fakes).len() == 2);
    assert!(Command::new("sh").args(["-c", &format!("kill -INT {}", run.id())]).status().unwrap().success());
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: interrupted: nothing was written"), "{said}");
    assert_eq!(fakes.document(), DOCUMENT);
    wait_until(|| ids(&fakes).iter().all(|id| !alive(id)));
}
