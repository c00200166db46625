//! House rules that no compiler checks, on every file of the clone: each source says what it is, none grows past 500
//! lines, `unsafe` stays in its place, links lead somewhere, recipes say what they give.

use std::fs;
use std::path::{Path, PathBuf};

/// No file is longer: past it, it is two notions.
const LONGEST: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// All files of the clone with one of the endings, by path from its root; not what builds and runs leave there.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !["target", "runs", ".git"].contains(&name.as_str()) {
                open.push(path);
            } else if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path.strip_prefix(&root).unwrap().display().to_string(), text));
            }
        }
    }
    found.sort();
    found
}

fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{}\n", complaints.join("\n"));
}

/// The code of a line of Rust: without comment and without what stands in quotation marks.
fn code(line: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            '"' => quoted = !quoted,
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if !quoted => out.push(character),
            _ => {}
        }
    }
    out
}

#[test]
fn sources_open_with_what_they_are_and_stay_short() {
    let sources = files(&[".rs", ".cpp", ".h"]);
    assert!(sources.len() > 30, "found {} sources only", sources.len());
    let mut complaints = Vec::new();
    for (path, text) in &sources {
        let opening = if path.ends_with(".rs") { "//! " } else { "// " };
        // a crate may open with its README, which says what it is
        let readme = path.ends_with("src/lib.rs") && text.starts_with("#![doc = include_str!(\"../README.md\")]");
        if !text.starts_with(opening) && !readme {
            complaints.push(format!("{path}:1: should open with `{opening}` and what the file is"));
        }
        let lines = text.lines().count();
        if lines > LONGEST {
            complaints.push(format!("{path}: {lines} lines, at most {LONGEST}"));
        }
    }
    assert_none(complaints);
}

#[test]
fn unsafe_code_stays_in_its_place() {
    let mut complaints = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if path.starts_with("crates/torch-extras/") || path == "crates/datasets/src/mmap.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            // the lint `unsafe_code` is another word
            if code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
                complaints.push(format!("{path}:{}: unsafe outside crates/torch-extras", number + 1));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [["to", "do!"], ["unimple", "mented!"], ["FIX", "ME"], ["TO", "DO"]].map(|parts| parts.concat());
    let mut complaints = Vec::new();
    for (path, text) in files(&[".rs", ".cpp", ".h", ".toml", ".md", ".py", ".lock"]) {
        for (number, line) in text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(mark.as_str())) {
                complaints.push(format!("{path}:{}: {mark}", number + 1));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn no_registry_is_named() {
    let hosts = [
        ["crates", ".io"],
        ["py", "pi.org"],
        ["python", "hosted.org"],
        ["npm", "js.org"],
        ["npm", "js.com"],
        ["download.py", "torch.org"],
        ["deb.deb", "ian.org"],
        ["proxy.gol", "ang.org"],
    ]
    .map(|parts| parts.concat());
    let mut complaints = Vec::new();
    for (path, text) in files(&[".rs", ".cpp", ".h", ".toml", ".md", ".py", ".lock", "run"]) {
        // cargo itself writes the workspace's lock file
        if path == "Cargo.lock" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for host in hosts.iter().filter(|host| line.contains(host.as_str())) {
                complaints.push(format!("{path}:{}: names {host}", number + 1));
            }
        }
    }
    assert_none(complaints);
}

/// The targets of the links in a Markdown text, code left out.
fn links(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut plain = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            // every second piece between backticks is code
            plain.extend(line.split('`').step_by(2));
            plain.push('\n');
        }
    }
    plain.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

#[test]
fn links_are_found_outside_code() {
    let text = "[a](b.md#c) and ![x](y.svg)\n`v[i](j)` [`code`](crate::X)\n```\n[no](no.md)\n```\n";
    assert_eq!(links(text), ["b.md#c", "y.svg", "crate::X"]);
}

#[test]
fn relative_links_lead_somewhere() {
    let root = root();
    let mut complaints = Vec::new();
    for (path, text) in files(&[".md"]) {
        let folder = root.join(&path).parent().unwrap().to_path_buf();
        for link in links(&text) {
            let target = link.split(['#', ' ']).next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("::") || target.contains(':');
            if !elsewhere && !folder.join(target).exists() {
                complaints.push(format!("{path}: the link to {target} leads nowhere"));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn recipes_say_command_figure_hardware_and_time() {
    let cli = root().join("crates/cli");
    let read = fs::read_dir(cli.join("src")).unwrap().flatten();
    let expected = read.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("recipe"));
    let folder = "crates/cli/recipes/";
    let recipes: Vec<_> = files(&[".toml"]).into_iter().filter(|(path, _)| path.starts_with(folder)).collect();
    assert!(!expected || !recipes.is_empty(), "there are recipes in the code and none in {folder}");
    let mut complaints = Vec::new();
    for (path, text) in &recipes {
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let header = header.join("\n").to_lowercase();
        for word in ["cargo xtask ", "expect", "hardware", "time"] {
            if !header.contains(word) {
                complaints.push(format!("{path}: the comment at its top does not say {word:?}"));
            }
        }
    }
    assert_none(complaints);
}
