//! A user who wants one crate: the templates of `docs/templates`, copied out of the workspace, build there and run.
//!
//! They share the workspace's target folder, lock file, profiles and flags, so that torch-sys is not compiled again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// The workspace's profile tables, to be appended to a template's manifest.
fn profiles() -> String {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has a manifest");
    let start = manifest.find("[profile.").expect("the workspace sets profiles");
    manifest[start..].to_owned()
}

/// The linker flags of `.cargo/config.toml`, as cargo's variable wants them.
fn encoded_rustflags() -> String {
    let config = fs::read_to_string(root().join(".cargo/config.toml")).expect("the workspace has a config");
    let line = config.lines().find(|l| l.starts_with("rustflags")).expect("the config sets rustflags");
    line.split('"').skip(1).step_by(2).collect::<Vec<_>>().join("\x1f")
}

/// The target folder that this test was built in.
fn target() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its path");
    exe.ancestors().nth(3).expect("target/debug/deps/test").to_owned()
}

struct Template(tempfile::TempDir);

impl Template {
    fn copy(name: &str) -> Self {
        let from = root().join("docs/templates").join(name);
        let to = tempfile::tempdir().expect("a temporary folder can be made");
        let manifest = fs::read_to_string(from.join("Cargo.toml")).expect("the template has a manifest");
        let manifest = manifest.replace("../../../crates", &root().join("crates").to_string_lossy());
        fs::write(to.path().join("Cargo.toml"), manifest + "\n" + &profiles()).expect("the manifest can be written");
        fs::create_dir(to.path().join("src")).expect("a folder can be made");
        fs::copy(from.join("src/main.rs"), to.path().join("src/main.rs")).expect("the program can be copied");
        fs::copy(root().join("Cargo.lock"), to.path().join("Cargo.lock")).expect("the lock file can be copied");
        Template(to)
    }

    /// Cargo's standard output; panics with what it said where it fails.
    fn cargo(&self, arguments: &[&str], libtorch: bool) -> String {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(arguments).current_dir(self.0.path()).env_remove("LIBTORCH").env_remove("LD_LIBRARY_PATH");
        cargo.env("CARGO_TARGET_DIR", target()).env("CARGO_ENCODED_RUSTFLAGS", encoded_rustflags());
        if libtorch {
            cargo.env("LIBTORCH", root().join(".libtorch/torch"));
        }
        let output = cargo.output().expect("cargo can be run");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn the_maths_alone_builds_without_libtorch() {
    let template = Template::copy("coding-rate");
    let tree = template.cargo(&["tree", "--edges", "normal,build", "--prefix", "none"], false);
    assert!(tree.contains("rate-reduction") && !tree.contains("torch"), "{tree}");
    let output = template.cargo(&["run", "--quiet"], false);
    assert!(output.contains("spread over the plane: ") && output.contains("on a line: "), "{output}");
}

#[test]
fn the_model_alone_builds_without_engine_and_datasets() {
    let template = Template::copy("look-inside");
    let tree = template.cargo(&["tree", "--edges", "normal,build", "--prefix", "none"], true);
    assert!(tree.contains("whitebox-model"), "{tree}");
    for other in ["whitebox-train", "whitebox-datasets", "whitebox-analysis", "rate-reduction"] {
        assert!(!tree.contains(other), "{other} is pulled in: {tree}");
    }
    let output = template.cargo(&["run", "--quiet"], true);
    assert!(output.contains("layer 2: 0.") && output.contains("logits [2, 10]"), "{output}");
}
