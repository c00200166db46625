//! Setup on small fake wheels: what is whole is used, what isn't is never mistaken for it.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::thread;

use common::{Machine, python_package, wheels};
use xtask::libtorch;
use xtask::manifest::MARKER;
use xtask::setup::Source;

#[test]
fn a_download_becomes_a_libtorch_once() {
    let mut machine = Machine::new();
    let found = machine.setup.libtorch(&Source::Any, false).unwrap();
    assert_eq!((found.version.as_str(), found.cuda), ("2.11.0", false));
    let lib = machine.at("clone/.libtorch/torch/lib");
    assert_eq!(fs::read_to_string(lib.join("libtorch.so")).unwrap(), "INPUT(libtorch_cpu.so libc10.so)\n");
    assert_eq!(fs::read_to_string(machine.at("clone/.libtorch/torch/build-version")).unwrap(), "2.11.0");
    assert!(machine.at("clone/.libtorch/nvidia/cu13/lib/libcudart.so.13").is_file());
    assert!(!lib.join("libtorch_python.so").exists() && !lib.join("libtorch_cuda.so").exists());
    assert!(!machine.at("cache/whitebox/downloads").exists());

    // a second run, and another clone, need neither pip nor network
    machine.setup.python = machine.at("no-python");
    machine.setup.libtorch(&Source::Any, false).unwrap();
    fs::create_dir(machine.at("second")).unwrap();
    machine.setup.places.root = machine.at("second");
    machine.setup.libtorch(&Source::Any, false).unwrap();
    assert!(machine.at("second/.libtorch/torch/lib/libc10.so").is_file());
    assert_eq!((machine.downloads(), machine.cached().len()), (1, 1));
}

#[test]
fn a_wrong_hash_is_refused_and_nothing_is_left() {
    let machine = Machine::new();
    let wheel = machine.at("wheels/torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl");
    let mut bytes = fs::read(&wheel).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&wheel, bytes).unwrap();
    for source in [Source::Any, Source::Wheels(machine.at("wheels"))] {
        let error = format!("{:#}", machine.setup.libtorch(&source, false).unwrap_err());
        assert!(error.contains("torch-2.11.0-cp311") && error.contains("SHA-256"), "{error}");
        assert!(machine.cached().is_empty() && libtorch::linked(&machine.setup.places).is_err());
    }
    assert!(wheel.exists(), "the user's own wheel was removed");
}

#[test]
fn wheels_from_a_folder_need_no_pip() {
    let mut machine = Machine::new();
    machine.setup.python = machine.at("no-python");
    let source = Source::Wheels(machine.at("wheels"));
    machine.setup.libtorch(&source, false).unwrap();
    machine.setup.libtorch(&source, false).unwrap();
    fs::remove_file(machine.at("wheels/nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl")).unwrap();
    let error = machine.setup.libtorch(&source, false).unwrap_err().to_string();
    assert!(error.contains("holds no nvidia_cuda_runtime-13.0.96-*.whl"), "{error}");
    let error = machine.setup.libtorch(&Source::Wheels(machine.at("nowhere")), false).unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn a_half_unpacked_folder_is_made_again() {
    let machine = Machine::new();
    machine.setup.libtorch(&Source::Any, false).unwrap();
    let folder = machine.at("cache/whitebox/libtorch-2.11.0-cpu");
    for (number, harm) in ["marker", "library", "cut"].into_iter().enumerate() {
        match harm {
            "marker" => fs::remove_file(folder.join(MARKER)).unwrap(),
            "library" => fs::remove_file(folder.join("torch/lib/libc10.so")).unwrap(),
            _ => fs::write(folder.join("torch/lib/libtorch_cpu.so"), b"\x7fELF").unwrap(),
        }
        fs::create_dir_all(machine.at("cache/whitebox/.unfinished-killed/torch")).unwrap();
        assert!(libtorch::linked(&machine.setup.places).is_err(), "{harm}");
        machine.setup.libtorch(&Source::Any, false).unwrap();
        libtorch::linked(&machine.setup.places).unwrap();
        assert_eq!(machine.downloads(), number + 2, "{harm}");
        assert!(!machine.at("cache/whitebox/.unfinished-killed").exists());
    }
}

#[test]
fn an_interrupted_download_leaves_the_old_state() {
    let mut machine = Machine::new();
    machine.setup.user_libtorch = Some(python_package(machine.folder.path(), "2.11.0+cpu"));
    machine.setup.libtorch(&Source::Any, false).unwrap();
    let before = fs::read_link(machine.at("clone/.libtorch")).unwrap();

    machine.pip("echo half > \"$d/torch_of_another_kind-2.11.0-x.whl\"; exit 1");
    let error = format!("{:#}", machine.setup.libtorch(&Source::Any, true).unwrap_err());
    assert!(error.contains("did not finish") && error.contains("nothing was changed"), "{error}");
    assert_eq!(fs::read_link(machine.at("clone/.libtorch")).unwrap(), before);
    libtorch::linked(&machine.setup.places).unwrap();

    // pip says that all is well, but the wheel is not the pinned one
    machine.setup.user_libtorch = None;
    fs::remove_file(machine.at("clone/.libtorch")).unwrap();
    machine.pip("for w in torch-2.11.0-cut nvidia_cuda_runtime-13.0.96-cut; do echo half > \"$d/$w.whl\"; done");
    assert!(machine.setup.libtorch(&Source::Any, false).unwrap_err().to_string().contains("SHA-256"));
    assert!(libtorch::linked(&machine.setup.places).is_err());
    machine.pip(&format!("cp {}/*.whl \"$d\"", machine.at("wheels").display()));
    machine.setup.libtorch(&Source::Any, false).unwrap();
}

#[test]
fn a_wheel_cannot_write_outside_its_folder() {
    let mut machine = Machine::new();
    machine.setup.cpu = wheels(&machine.at("wheels"), &["torch/lib/../../../../evil.so"]);
    let error = format!("{:#}", machine.setup.libtorch(&Source::Any, false).unwrap_err());
    assert!(error.contains("evil.so") && error.contains("leads outside"), "{error}");
    assert!(machine.cached().is_empty());
}

#[test]
fn a_libtorch_that_is_there_is_used_where_it_lies() {
    let mut machine = Machine::new();
    let torch = python_package(machine.folder.path(), "2.11.0+cpu");
    for (name, path) in [("folder", torch.clone()), ("parent", torch.parent().unwrap().to_path_buf())] {
        let found = machine.setup.libtorch(&Source::Folder(path), false).unwrap();
        assert_eq!(found.version, "2.11.0", "{name}");
    }
    assert!(!torch.join("build-version").exists(), "the package is not ours to write");
    assert_eq!(fs::canonicalize(machine.at("clone/.libtorch/torch/lib")).unwrap(), torch.join("lib"));

    // found by itself through LIBTORCH, and through Python
    for by in ["LIBTORCH", "Python"] {
        fs::remove_file(machine.at("clone/.libtorch")).unwrap();
        fs::remove_dir_all(machine.at("cache")).unwrap();
        match by {
            "LIBTORCH" => machine.setup.user_libtorch = Some(torch.clone()),
            _ => fs::write(machine.at("python-torch"), torch.to_str().unwrap()).unwrap(),
        }
        machine.setup.libtorch(&Source::Any, false).unwrap();
        assert!(machine.cached()[0].contains("linked"), "{by}");
        machine.setup.user_libtorch = None;
    }
    assert_eq!(machine.downloads(), 0);

    // the package is upgraded under the link: noticed, and replaced by a download
    fs::write(torch.join("version.py"), "__version__ = '2.12.0'\n").unwrap();
    let error = format!("{:#}", libtorch::linked(&machine.setup.places).unwrap_err());
    assert!(error.contains("has changed") && error.contains("2.12.0"), "{error}");
    machine.setup.libtorch(&Source::Any, false).unwrap();
    assert_eq!(machine.downloads(), 1);
}

#[test]
fn an_unfit_libtorch_is_refused_by_name() {
    let machine = Machine::new();
    let torch = python_package(machine.folder.path(), "2.6.0");
    let refused = |cuda| format!("{:#}", machine.setup.libtorch(&Source::Folder(torch.clone()), cuda).unwrap_err());
    assert!(refused(false).contains("libtorch 2.6.0, expected 2.11.0"));
    fs::write(torch.join("version.py"), "__version__ = '2.11.0'\n").unwrap();
    assert!(refused(true).contains("without CUDA"));
    fs::remove_file(torch.join("include/ATen/ATen.h")).unwrap();
    assert!(refused(false).contains("include/ATen/ATen.h is missing"));
    fs::remove_file(torch.join("version.py")).unwrap();
    assert!(refused(false).contains("does not say its version"));
    fs::remove_dir_all(torch.join("lib")).unwrap();
    assert!(refused(false).contains("no `lib` folder"));
    fs::remove_dir_all(&torch).unwrap();
    assert!(refused(false).contains("does not exist"));
    assert!(machine.cached().is_empty());
}

#[test]
fn two_setups_at_once_share_one_download() {
    let machine = Machine::new();
    machine.pip(&format!("sleep 0.3; cp {}/*.whl \"$d\"", machine.at("wheels").display()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| machine.setup.libtorch(&Source::Any, false).unwrap());
        }
    });
    assert_eq!(machine.downloads(), 1);
}

#[test]
fn missing_room_python_and_pip_are_said() {
    let mut machine = Machine::new();
    machine.setup.cpu.download = u64::MAX / 4;
    let error = machine.setup.libtorch(&Source::Any, false).unwrap_err().to_string();
    assert!(error.contains("are needed") && error.contains("XDG_CACHE_HOME"), "{error}");
    machine.setup.cpu.download = 1;
    common::script(&machine.setup.python, "#!/bin/sh\nexit 1\n");
    let error = machine.setup.libtorch(&Source::Any, false).unwrap_err().to_string();
    assert!(error.contains("sudo apt-get install -y python3-pip"), "{error}");
    machine.setup.python = machine.at("no-python");
    let error = machine.setup.libtorch(&Source::Any, false).unwrap_err().to_string();
    assert!(error.contains("sudo apt-get install -y python3 python3-pip"), "{error}");
}

#[test]
fn what_lies_in_the_links_place_is_kept() {
    let machine = Machine::new();
    fs::create_dir(machine.at("clone/.libtorch")).unwrap();
    let error = machine.setup.libtorch(&Source::Any, false).unwrap_err().to_string();
    assert!(error.contains("in the way"), "{error}");
    fs::remove_dir(machine.at("clone/.libtorch")).unwrap();
    symlink(machine.at("gone"), machine.at("clone/.libtorch")).unwrap();
    let error = libtorch::linked(&machine.setup.places).unwrap_err().to_string();
    assert!(error.contains("which is gone"), "{error}");
    machine.setup.libtorch(&Source::Any, false).unwrap();
}
