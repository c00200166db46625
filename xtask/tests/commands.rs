//! The executable itself: doctor, help, setup's failures, and the hand-over to `whitebox`.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use assert_cmd::Command;
use common::{Machine, script};
use predicates::prelude::*;
use predicates::str::contains;
use xtask::setup::Source;
use xtask::shell::is_root;

/// The executable in the clone and with the cache of `machine`, and with its `bin` folder first on the path.
fn xtask(machine: &Machine, executable: &Path) -> Command {
    let mut command = Command::new(executable);
    let path = format!("{}:{}", machine.at("bin").display(), std::env::var("PATH").unwrap_or_default());
    fs::create_dir_all(machine.at("bin")).unwrap();
    command
        .env("CARGO_MANIFEST_DIR", machine.at("clone/xtask"))
        .env("XDG_CACHE_HOME", machine.at("cache"))
        .env("PATH", path)
        .env_remove("LIBTORCH")
        .env_remove("WHITEBOX_DATA");
    command
}

fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_xtask"))
}

#[test]
fn doctor_names_the_fix_of_a_missing_and_of_a_broken_libtorch() {
    let machine = Machine::new();
    // everything else is well on this machine
    for (name, text) in [("pkg-config", "echo 0.3.21"), ("c++", "echo c++ 12"), ("nvidia-smi", "exit 9")] {
        fs::create_dir_all(machine.at("bin")).unwrap();
        script(&machine.at("bin").join(name), &format!("#!/bin/sh\n{text}\n"));
    }
    let missing = contains("FAIL  libtorch").and(contains("not set up yet")).and(contains("Fix: cargo xtask setup"));
    xtask(&machine, built()).arg("doctor").assert().code(1).stdout(missing);

    machine.setup.libtorch(&Source::Any, false).unwrap();
    let well =
        contains("ok    libtorch   2.11.0 for the CPU").and(contains("ok    LAPACK")).and(contains("FAIL").not());
    xtask(&machine, built()).arg("doctor").assert().success().stdout(well.and(predicates::str::ends_with("ready\n")));

    let library = machine.at("cache/whitebox/libtorch-2.11.0-cpu/torch/lib/libtorch_cpu.so");
    fs::write(&library, &common::library()[..20]).unwrap();
    let broken = contains("FAIL  libtorch").and(contains("libtorch_cpu.so has 20 bytes, expected 64"));
    xtask(&machine, built()).arg("doctor").assert().code(1).stdout(broken.and(contains("not ready: 1 of 9")));

    fs::remove_file(machine.at("clone/.libtorch")).unwrap();
    symlink(machine.at("gone"), machine.at("clone/.libtorch")).unwrap();
    let gone = contains("which is gone. Fix: cargo xtask setup");
    xtask(&machine, built()).arg("doctor").assert().code(1).stdout(gone);
}

#[test]
fn each_help_ends_in_examples() {
    let machine = Machine::new();
    for word in ["setup", "doctor", "test", "bench", "data"] {
        for arguments in [[word, "--help"], ["help", word]] {
            let output = xtask(&machine, built()).args(arguments).assert().success().get_output().stdout.clone();
            let text = String::from_utf8(output).unwrap();
            let last = text.trim_end().lines().last().unwrap();
            assert!(text.contains("Examples:") && last.starts_with(&format!("  cargo xtask {word}")), "{text}");
        }
    }
    xtask(&machine, built()).arg("--help").assert().success().stdout(contains("cargo xtask demo"));
}

#[test]
fn a_failed_download_changes_nothing() {
    let machine = Machine::new();
    machine.pip("echo part > \"$d/torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl\"; exit 2");
    fs::create_dir_all(machine.at("bin")).unwrap();
    fs::rename(&machine.setup.python, machine.at("bin/python3")).unwrap();
    let said = contains("to download").and(contains("free at")).and(contains("the download did not finish"));
    xtask(&machine, built()).arg("setup").assert().code(1).stderr(said);
    assert!(machine.cached().is_empty() && !machine.at("clone/.libtorch").exists());
}

#[test]
fn lapack_is_installed_by_root_and_named_to_others() {
    let machine = Machine::new();
    machine.setup.libtorch(&Source::Any, false).unwrap();
    fs::create_dir_all(machine.at("bin")).unwrap();
    let log = machine.at("apt.log");
    script(&machine.at("bin/apt-get"), &format!("#!/bin/sh\necho \"$@\" >> {}\n", log.display()));
    let asked = format!("#!/bin/sh\n[ \"$1\" = --version ] || [ -f {} ] && echo 0.3.21\n", log.display());
    script(&machine.at("bin/pkg-config"), &asked);
    let setup = xtask(&machine, built()).arg("setup").assert();
    if is_root() {
        setup.success().stdout(contains("LAPACK: OpenBLAS 0.3.21"));
        let calls = fs::read_to_string(log).unwrap();
        assert!(calls.contains("install -y --no-install-recommends libopenblas-dev pkg-config"), "{calls}");
    } else {
        setup
            .code(1)
            .stderr(contains("Run: sudo apt-get update && sudo apt-get install -y libopenblas-dev pkg-config"));
    }
}

#[test]
fn other_words_become_whitebox() {
    let machine = Machine::new();
    machine.setup.libtorch(&Source::Any, false).unwrap();
    fs::create_dir_all(machine.at("bin")).unwrap();
    script(&machine.at("bin/pkg-config"), "#!/bin/sh\necho 0.3.21\n");
    let debug = machine.at("clone/target/debug");
    fs::create_dir_all(&debug).unwrap();
    let copy = debug.join("xtask");
    if fs::hard_link(built(), &copy).is_err() {
        // another file system; a child process copies, see common::script
        assert!(std::process::Command::new("cp").arg(built()).arg(&copy).status().unwrap().success());
    }
    script(&debug.join("whitebox"), "#!/bin/sh\necho \"$WHITEBOX_INVOKED_AS|$#|$*\"\nexit 7\n");
    let cargo = machine.at("cargo");
    script(&cargo, "#!/bin/sh\necho \"    Finished dev\" >&2\necho \"$@\" > called\n");
    let run = |words: &[&str]| xtask(&machine, &copy).env("CARGO", &cargo).args(words).assert();

    let handed = run(&["train", "x", "--set", "a b=c", "--help"]).code(7);
    handed.stdout("cargo xtask|5|train x --set a b=c --help\n").stderr("");
    assert_eq!(fs::read_to_string(machine.at("clone/called")).unwrap(), "build --package whitebox\n");
    run(&["help", "train"]).code(7).stdout("cargo xtask|2|train --help\n");

    script(&cargo, "#!/bin/sh\necho \"error: no\" >&2\nexit 101\n");
    run(&["demo"]).code(1).stdout("").stderr(contains("error: no").and(contains("could not be built")));
}

#[test]
fn tests_are_counted_and_timed() {
    let machine = Machine::new();
    machine.setup.libtorch(&Source::Any, false).unwrap();
    fs::create_dir_all(machine.at("bin")).unwrap();
    script(&machine.at("bin/pkg-config"), "#!/bin/sh\necho 0.3.21\n");
    let cargo = machine.at("cargo");
    let result = "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
    script(&cargo, &format!("#!/bin/sh\necho \"$@ $RUSTDOCFLAGS\" >> calls\n[ $1 = test ] && echo '{result}'; true\n"));
    let run = |words: &[&str]| xtask(&machine, built()).env("CARGO", &cargo).arg("test").args(words).assert();

    run(&[]).success().stdout(contains(result).and(predicates::str::ends_with("4 passed, 0 failed\n")));
    let calls = fs::read_to_string(machine.at("clone/calls")).unwrap();
    let order: Vec<_> = calls.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(order, ["fmt", "clippy", "doc", "test"]);
    assert!(calls.contains("--all-targets -- -D warnings") && calls.contains("doc --workspace --no-deps -D warnings"));

    run(&["--fast", "--", "-p", "x"]).success().stderr(contains("setup").and(contains("lints").not()));
    let calls = fs::read_to_string(machine.at("clone/calls")).unwrap();
    assert!(calls.trim_end().ends_with("test --workspace --no-fail-fast -p x"), "{calls}");

    script(&cargo, "#!/bin/sh\n[ $1 = fmt ] && exit 1\necho $1 >> later\n");
    run(&[]).code(1).stderr(contains("cargo fmt --all` mends it"));
    assert!(!machine.at("clone/later").exists());
}

#[test]
fn results_takes_finished_runs_and_rebuilds_the_tables() {
    let machine = Machine::new();
    let document = machine.at("clone/docs/results.md");
    fs::create_dir_all(document.parent().unwrap()).unwrap();
    let text = "# Results\n\n<!-- results small -->\nold\n<!-- end -->\n\nbelow\n";
    fs::write(&document, text).unwrap();
    let sweep = machine.at("sweep");
    for (run, seed, accuracy) in [("a", 0, 0.5), ("b", 1, 0.7)] {
        let folder = sweep.join(run);
        fs::create_dir_all(&folder).unwrap();
        let config = format!("[model]\nkind = \"crate\"\n[train]\nseed = {seed}\n");
        fs::write(folder.join("config.toml"), config).unwrap();
        fs::write(folder.join("run.json"), r#"{"command": "whitebox sweep x", "commit": "abc"}"#).unwrap();
        let result =
            format!(r#"{{"metrics": {{"accuracy": {accuracy}, "loss": 1}}, "seconds": 60, "parameters": 12}}"#);
        fs::write(folder.join("result.json"), result).unwrap();
    }
    let take = |from: &Path| {
        let mut command = xtask(&machine, built());
        command.args(["results", "--table", "small", "--take"]).arg(from);
        command
    };
    take(&sweep).assert().success().stderr(contains("2 runs").and(contains("table small")));
    let written = fs::read_to_string(&document).unwrap();
    assert!(written.contains("| 12 | 0, 1 | 60.00 % | 50.00 % - 70.00 % | 1.0000 | 1.0 | abc |"), "{written}");
    assert!(written.starts_with("# Results") && written.ends_with("below\n") && !written.contains("old"), "{written}");

    // The runs are kept: the tables come from them alone, the same each time.
    fs::remove_dir_all(&sweep).unwrap();
    xtask(&machine, built()).arg("results").assert().success();
    assert_eq!(fs::read_to_string(&document).unwrap(), written);

    take(&sweep).assert().failure().stderr(contains("holds no finished run"));
    fs::write(machine.at("clone/docs/runs/small/b/result.json"), "{").unwrap();
    xtask(&machine, built()).arg("results").assert().failure().stderr(contains("result.json is not valid JSON"));
    fs::remove_dir_all(machine.at("clone/docs/runs/small/b")).unwrap();
    fs::write(&document, "# Results\n").unwrap();
    xtask(&machine, built()).arg("results").assert().failure().stderr(contains("<!-- results small -->"));
    assert_eq!(fs::read_to_string(&document).unwrap(), "# Results\n");
}
