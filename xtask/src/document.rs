//! Writes a result into the documents: what stands between two marks is replaced, what stands outside stays.
//!
//! ```text
//! <!-- versus-pytorch cpu -->
//! ...
//! <!-- end -->
//! ```

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

/// The mark that ends a block.
const END: &str = "<!-- end -->";

/// Whether the document has room for a result called `name`: asked before anything is measured for it.
///
/// # Errors
/// It can't be read, or the marks are missing.
pub fn check(document: &Path, name: &str) -> Result<()> {
    with_block(document, name, "").map(drop)
}

/// Puts `block` between the marks of `name`. The file appears whole or not at all.
///
/// # Errors
/// It can't be read or written, or the marks are missing.
pub fn write(document: &Path, name: &str, block: &str) -> Result<()> {
    let text = with_block(document, name, block)?;
    let folder = document.parent().context("a document without a folder")?;
    let said = || format!("writing {}", document.display());
    let mut fresh = tempfile::Builder::new().suffix(".tmp").tempfile_in(folder).with_context(said)?;
    fresh.write_all(text.as_bytes()).with_context(said)?;
    let mode = fs::metadata(document).with_context(said)?.permissions();
    fresh.as_file().set_permissions(mode).with_context(said)?;
    fresh.as_file().sync_all().with_context(said)?;
    fresh.persist(document).with_context(said)?;
    Ok(())
}

fn with_block(document: &Path, name: &str, block: &str) -> Result<String> {
    let text = fs::read_to_string(document).with_context(|| format!("reading {}", document.display()))?;
    replaced(&text, name, block).ok_or_else(|| {
        anyhow!(
            "{} has no room for the result: it lacks a line `<!-- {name} -->` with a line `{END}` after it; add them",
            document.display()
        )
    })
}

fn replaced(text: &str, name: &str, block: &str) -> Option<String> {
    let begin = format!("<!-- {name} -->");
    let (before, rest) = text.split_once(&begin)?;
    // an end that belongs to another block would swallow that block's beginning
    let (old, after) = rest.split_once(END)?;
    if old.contains("<!--") {
        return None;
    }
    Some(format!("{before}{begin}\n{}\n{END}{after}", block.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = "versus-pytorch cpu";
    const CUDA: &str = "versus-pytorch cuda";

    const TEXT: &str =
        "# A\n<!-- versus-pytorch cpu -->\nold\n<!-- end -->\nb\n<!-- versus-pytorch cuda -->\n<!-- end -->\nc";

    #[test]
    fn only_what_stands_between_the_marks_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("benchmarks.md");
        fs::write(&file, TEXT).unwrap();
        for block in ["new\nlines\n", "x"] {
            write(&file, CPU, block).unwrap();
        }
        let cpu = TEXT.replace("old", "x");
        assert_eq!(fs::read_to_string(&file).unwrap(), cpu);
        write(&file, CUDA, "gpu").unwrap();
        let both = cpu.replace("cuda -->\n", "cuda -->\ngpu\n");
        assert_eq!(fs::read_to_string(&file).unwrap(), both);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_document_without_marks_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("benchmarks.md");
        assert!(check(&file, CPU).unwrap_err().to_string().contains("reading"));
        for text in ["", "<!-- versus-pytorch cpu -->", "<!-- end -->\n<!-- versus-pytorch cpu -->"] {
            fs::write(&file, text).unwrap();
            let error = check(&file, CPU).unwrap_err().to_string();
            assert!(error.contains("`<!-- versus-pytorch cpu -->`"), "{error}");
            assert!(write(&file, CPU, "x").is_err());
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        let swallowing = "<!-- versus-pytorch cpu -->\n<!-- versus-pytorch cuda -->\n<!-- end -->";
        assert!(replaced(swallowing, CPU, "x").is_none());
    }
}
