//! `experiment`, whole: each one on small settings, what it prints and what it leaves, and what it refuses.
#![cfg(feature = "experiments")]

mod common;

use std::fs;
use std::path::Path;

use common::{refused, said};
use serde_json::Value;

/// Runs one on small settings; gives its numbers, after a look at everything else.
#[track_caller]
fn quick(name: &str, figures: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let printed = said(folder.path(), &["experiment", name, "--quick", "--out", "here"]);
    let read = |file: &str| fs::read_to_string(folder.path().join("here").join(file)).unwrap();
    let table = read("table.md");
    assert!(printed.starts_with(&table) && printed.contains("written to here"), "{printed}");
    for block in table.split("\n\n").filter(|block| block.starts_with('|')) {
        let widths: Vec<usize> = block.lines().map(|line| line.matches('|').count()).collect();
        assert!(widths.len() > 2 && widths.iter().all(|w| *w == widths[0]), "{block}");
        assert!(!block.contains("NaN") && !block.contains("inf"), "{block}");
    }
    for figure in figures {
        let svg = read(&format!("{figure}.svg"));
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"), "{figure}");
    }
    // Beside them may lie the runs that were trained for it.
    let files = fs::read_dir(folder.path().join("here")).unwrap().flatten().filter(|e| e.path().is_file()).count();
    assert_eq!(files, figures.len() + 2);
    let numbers: Value = serde_json::from_str(&read("numbers.json")).unwrap();
    assert_eq!((&numbers["experiment"], &numbers["seed"], &numbers["quick"]), (&name.into(), &0.into(), &true.into()));
    let again = said(folder.path(), &["experiment", name, "--quick", "--out", "again"]);
    assert_eq!(again.replace("written to again", "written to here"), printed, "the same seed gives the same numbers");
    numbers
}

fn rows<'a>(numbers: &'a Value, key: &str) -> &'a Vec<Value> {
    numbers[key].as_array().unwrap_or_else(|| panic!("{key} in {numbers}"))
}

#[test]
fn they_are_listed() {
    let list = said(Path::new("."), &["experiment", "list"]);
    for name in ["denoising", "inversion", "snr", "optima", "redunet", "mcr2"] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} in {list}");
    }
}

#[test]
fn denoising_compares_steps_and_rates() {
    let numbers = quick("denoising", &["denoising-steps", "denoising-rates", "denoising-flow"]);
    let steps = rows(&numbers, "steps-crowded-fine");
    let of = |step: &str, field: &str| {
        steps.iter().find(|r| r["step"] == step && r["sigma"] == 0.3).unwrap()[field].as_f64().unwrap()
    };
    assert!(of("exact score", "to_clean") < of("none", "to_clean"));
    assert!(of("Neumann", "to_clean") > 10.0);
    let ratio = rows(&numbers, "rates")[0]["ratio"].as_f64().unwrap();
    assert!((ratio / 1.07 - 1.0).abs() < 0.15, "{ratio}");
    let flow = rows(&numbers, "flow");
    let error = |i: usize| flow[i]["way_back_error"].as_f64().unwrap();
    assert!(error(1) < error(0), "{flow:?}");
}

#[test]
fn snr_grows_by_its_factor_while_nothing_crosses() {
    let numbers = quick("snr", &["snr"]);
    for trace in rows(&numbers, "thresholded") {
        for layer in trace["layers"].as_array().unwrap().iter().filter(|l| l["cross"] == 0.0 && !l["factor"].is_null())
        {
            assert!((layer["factor"].as_f64().unwrap() - 1.3).abs() < 0.013, "{layer}");
        }
    }
    assert_eq!(rows(&numbers, "softmax").len(), 4);
}

#[test]
fn optima_are_far_apart_and_along_the_axes() {
    let numbers = quick("optima", &["optima"]);
    assert_eq!(rows(&numbers, "configurations").len(), 4);
    let ascent = rows(&numbers, "ascent");
    let of = |lambda: f64, field: &str| ascent.iter().find(|r| r["lambda"] == lambda).unwrap()[field].as_f64().unwrap();
    assert!(of(0.0, "off_axis") > 0.3 && of(0.02, "off_axis") < 0.05, "{ascent:?}");
    let classes = rows(&numbers["spectrum"], "classes");
    assert!(classes.iter().all(|c| c["error"].as_f64().unwrap() < 0.02), "{classes:?}");
}

#[test]
fn redunet_climbs_and_tells_unseen_tokens_apart() {
    let numbers = quick("redunet", &["redunet-objective", "redunet-similarity", "redunet-digits"]);
    for row in rows(&numbers, "gaussians") {
        let of = |field: &str| row[field].as_f64().unwrap();
        assert!(of("least_rise") >= 0.0 && of("last") > of("first"), "{row}");
        assert!(of("held_out_after") > 0.95, "{row}");
    }
    let digits = rows(&numbers, "digits");
    assert_eq!(digits.len(), 4);
    // Whether a sample was moved is nothing to the shift-invariant form.
    for row in digits.iter().filter(|row| row["form"].as_str().unwrap().contains("invariant")) {
        assert_eq!(row["after"], row["after_moved"], "{row}");
    }
}

#[test]
fn mcr2_drives_the_classes_apart() {
    let numbers = quick("mcr2", &["mcr2-rates", "mcr2-similarity"]);
    let found = rows(&numbers, "training");
    let of = |i: usize, field: &str| found[i][field].as_f64().unwrap();
    assert!(of(0, "rate") - of(0, "classes") > of(1, "rate") - of(1, "classes"), "{found:?}");
    assert!(found[0]["head"].is_null() && of(1, "head") > 0.1);
}

#[test]
fn the_seed_changes_the_numbers_and_the_default_folder_is_under_runs() {
    let folder = tempfile::tempdir().unwrap();
    let first = said(folder.path(), &["experiment", "snr", "--quick"]);
    assert!(folder.path().join("runs/experiments/snr/table.md").is_file());
    assert_ne!(said(folder.path(), &["experiment", "snr", "--quick", "--seed", "7"]), first);
}

#[test]
fn unknown_names_and_places_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    refused(folder.path(), &["experiment", "denoise"], &["no experiment `denoise`", "did you mean `denoising`"]);
    refused(folder.path(), &["experiment", "snr", "--quick", "--out", "file"], &["--out file"]);
}

#[test]
fn inversion_compares_layers_before_and_after_training() {
    let numbers = quick("inversion", &["inversion"]);
    let cases = rows(&numbers, "layers");
    assert_eq!(cases.len(), 4);
    let error = |decoder: &str, when: &str| {
        let case = cases.iter().find(|c| c["decoder"] == decoder).unwrap();
        case[when].as_array().unwrap().iter().map(|l| l["pair"]["error"].as_f64().unwrap()).sum::<f64>()
    };
    // Two decoders with the encoder's matrices, one of which goes its own way after.
    assert_eq!(error("inverted", "before"), error("tied", "before"));
    assert_ne!(error("inverted", "after"), error("inverted", "before"));
    assert_ne!(error("inverted", "after"), error("tied", "after"));
}
