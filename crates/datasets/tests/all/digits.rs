//! The digits as CSV.

use tempfile::TempDir;
use whitebox_datasets::{Dataset, InMemory, Result, digits};

use crate::support::{gz, put, says};

fn open(bytes: impl AsRef<[u8]>) -> Result<InMemory> {
    let dir = TempDir::new().unwrap();
    digits::open(&put(dir.path().join("digits.csv"), bytes))
}

/// 64 times a value, then a label.
fn line(value: &str, label: &str) -> String {
    format!("{}{label}\n", format!("{value},").repeat(64))
}

#[test]
fn values_are_spread_over_a_byte() {
    let text = line("0", "3") + &line("8", "0") + &line("16", "9");
    for bytes in [text.clone().into_bytes(), gz(text.as_bytes())] {
        let set = open(bytes).unwrap();
        let first = |i| set.image(i).unwrap().pixels[0];
        assert_eq!((first(0), first(1), first(2)), (0, 128, 255));
        assert_eq!((set.len(), set.label(0), set.label(2)), (3, 3, 9));
    }
}

#[test]
fn bad_lines_are_named() {
    let good = line("1", "1");
    says(open(good.clone() + &line("17", "1")), &["line 2", "value 1 is \"17\"", "0 to 16"]);
    says(open(good.clone() + &line("1", "10")), &["line 2", "value 65 is \"10\"", "0 to 9"]);
    says(open(good.clone() + &line("x", "1")), &["line 2", "\"x\""]);
    says(open(line("1.5", "1")), &["line 1", "\"1.5\""]);
    says(open(line("-1", "1")), &["line 1", "\"-1\""]);
    says(open(good.clone() + "1,2,3\n"), &["line 2", "3 values", "65"]);
    says(open([good.as_bytes(), &[0xff, 0xfe, b'\n']].concat()), &["line 2"]);
    says(open(""), &["holds 0 images"]);
    let packed = gz(good.as_bytes());
    says(open(&packed[..packed.len() - 6]), &["gzip stream is damaged"]);
}

#[test]
fn a_missing_file_says_where_it_is() {
    let dir = TempDir::new().unwrap();
    says(digits::open(dir.path()), &["the digits not found", "digits.csv.gz", "data/"]);
    says(digits::open(&dir.path().join("absent.csv")), &["absent.csv", "data/"]);
}
