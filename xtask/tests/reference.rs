//! The Python reference on small fake wheels: made once, whole or not at all, with the right Python alone.

mod common;

use std::fs;
use std::path::PathBuf;
use std::thread;

use common::{Machine, script};
use xtask::manifest::{MARKER, Manifest};
use xtask::reference::{found, place};
use xtask::setup::Source;

fn folder(machine: &Machine) -> PathBuf {
    place(&machine.setup.reference, &machine.setup.places).unwrap()
}

#[test]
fn wheels_become_a_folder_for_pythonpath_once() {
    let machine = Machine::new();
    assert!(found(&machine.setup.reference, &machine.setup.places).unwrap().is_none());
    let error = machine.setup.reference_ready().unwrap_err().to_string();
    assert!(error.contains("cargo xtask setup --python-reference"), "{error}");

    let reference = machine.setup.python_reference(&Source::Any).unwrap();
    assert_eq!(reference.folder, folder(&machine));
    // all of the wheels is there, what only Python needs too
    for file in ["torch/__init__.py", "torch/lib/libtorch_python.so", "nvidia/cu13/lib/libcudart.so.13"] {
        assert!(reference.folder.join(file).is_file(), "{file}");
    }
    assert_eq!(Manifest::check(&reference.folder).unwrap().source, machine.setup.reference.origin());
    let imports = fs::read_to_string(machine.at("imports")).unwrap();
    assert!(imports.contains(".unfinished-"), "imported before it counts: {imports}");
    assert!(!machine.at("cache/whitebox/downloads").exists() && !machine.at("clone/.libtorch").exists());

    machine.pip("exit 1");
    assert_eq!(machine.setup.python_reference(&Source::Any).unwrap(), reference);
    assert_eq!(machine.setup.reference_ready().unwrap(), reference);
    assert_eq!((machine.downloads(), machine.cached_as("python-reference").len()), (1, 1));
}

#[test]
fn other_pins_make_another_folder() {
    let mut machine = Machine::new();
    let first = machine.setup.python_reference(&Source::Any).unwrap();
    machine.setup.reference.pins.reverse();
    assert!(machine.setup.reference_ready().is_err());
    let second = machine.setup.python_reference(&Source::Wheels(machine.at("wheels"))).unwrap();
    assert_ne!(first.folder, second.folder);
    assert!(first.folder.exists(), "another clone may use it");
}

#[test]
fn what_is_not_whole_is_made_again() {
    let machine = Machine::new();
    machine.setup.python_reference(&Source::Any).unwrap();
    for harm in ["marker", "cut"] {
        match harm {
            "marker" => fs::remove_file(folder(&machine).join(MARKER)).unwrap(),
            _ => fs::write(folder(&machine).join("torch/__init__.py"), "").unwrap(),
        }
        let error = machine.setup.reference_ready().unwrap_err().to_string();
        assert!(error.contains("not whole") && error.contains("setup --python-reference"), "{harm}: {error}");
        machine.setup.python_reference(&Source::Any).unwrap();
        machine.setup.reference_ready().unwrap();
    }
    assert_eq!(machine.downloads(), 3);
}

#[test]
fn nothing_is_left_of_a_wrong_wheel_or_a_failed_import() {
    let machine = Machine::new();
    fs::write(machine.at("broken"), "Traceback\nImportError: no libfoo.so\n").unwrap();
    let error = machine.setup.python_reference(&Source::Any).unwrap_err().to_string();
    assert!(error.contains("cannot be imported") && error.ends_with("ImportError: no libfoo.so"), "{error}");
    assert!(machine.cached_as("python-reference").is_empty());
    fs::remove_file(machine.at("broken")).unwrap();

    let wheel = machine.at("wheels/torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl");
    fs::write(&wheel, "half").unwrap();
    fs::remove_dir_all(machine.at("cache")).unwrap();
    for source in [Source::Any, Source::Wheels(machine.at("wheels"))] {
        let error = format!("{:#}", machine.setup.python_reference(&source).unwrap_err());
        assert!(error.contains("SHA-256"), "{error}");
        assert!(machine.cached_as("python-reference").is_empty());
    }
}

#[test]
fn another_python_and_a_full_disk_are_said() {
    let mut machine = Machine::new();
    machine.setup.reference.unpacked = u64::MAX / 4;
    let error = machine.setup.python_reference(&Source::Any).unwrap_err().to_string();
    assert!(error.contains("are needed") && error.contains("XDG_CACHE_HOME"), "{error}");

    let other = machine.at("other");
    fs::create_dir(&other).unwrap();
    script(&other.join("python3"), "#!/bin/sh\necho 3.13\n");
    machine.setup.python = other.join("python3");
    let error = machine.setup.python_reference(&Source::Any).unwrap_err().to_string();
    assert!(error.contains("for Python 3.11, found Python 3.13"), "{error}");
    // a Python of the right version beside it is taken
    script(&other.join("python3.11"), "#!/bin/sh\necho 3.11\n");
    let error = machine.setup.python_reference(&Source::Any).unwrap_err().to_string();
    assert!(error.contains("are needed"), "{error}");
    fs::remove_file(other.join("python3")).unwrap();
    fs::remove_file(other.join("python3.11")).unwrap();
    let error = machine.setup.python_reference(&Source::Any).unwrap_err().to_string();
    assert!(error.contains("found no Python 3"), "{error}");
}

#[test]
fn two_setups_at_once_share_one_download() {
    let machine = Machine::new();
    machine.pip(&format!("sleep 0.3; cp {}/*.whl \"$d\"", machine.at("wheels").display()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| machine.setup.python_reference(&Source::Any).unwrap());
        }
    });
    assert_eq!(machine.downloads(), 1);
}
