//! The wheels that libtorch and the benches' Python are unpacked from, each with its version and SHA-256, as the `.lock`
//! files beside `Cargo.toml` give them. They are in pip's own requirement format, so pip checks the same hashes that xtask does.

use anyhow::{Context, Result, bail};

/// One wheel: `name==version --hash=sha256:...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The package's name as pip writes it (`nvidia-cuda-runtime`).
    pub name: String,
    /// The exact version.
    pub version: String,
    /// The SHA-256 of the wheel file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl Pin {
    /// The beginning of the wheel's file name: `nvidia_cuda_runtime-13.0.96-`.
    #[must_use]
    pub fn file_prefix(&self) -> String {
        format!("{}-{}-", self.name.replace('-', "_"), self.version)
    }
}

/// A list of pinned wheels and how much room it asks for.
#[derive(Clone, Debug)]
pub struct Lock {
    /// The text, given to pip as it stands.
    pub text: String,
    /// The wheels.
    pub pins: Vec<Pin>,
    /// Bytes of all wheels together.
    pub download: u64,
    /// Bytes of what is unpacked from them.
    pub unpacked: u64,
}

impl Lock {
    /// The CPU libtorch.
    ///
    /// # Errors
    /// None in practice: the file is compiled in and a test reads it.
    pub fn cpu() -> Result<Self> {
        Self::parse(include_str!("../libtorch-cpu.lock")).context("xtask/libtorch-cpu.lock")
    }

    /// The libtorch with CUDA.
    ///
    /// # Errors
    /// None in practice: the file is compiled in and a test reads it.
    pub fn cuda() -> Result<Self> {
        Self::parse(include_str!("../libtorch-cuda.lock")).context("xtask/libtorch-cuda.lock")
    }

    /// The Python environment of `bench versus-pytorch`: the wheels of [`Lock::cuda`] and those that torch needs for
    /// Python. The second list gives the sizes of both.
    ///
    /// # Errors
    /// None in practice: the files are compiled in and a test reads them.
    pub fn python_reference() -> Result<Self> {
        let python = Self::parse(include_str!("../python-reference.lock")).context("xtask/python-reference.lock")?;
        let torch = Self::cuda()?;
        let pins = torch.pins.into_iter().chain(python.pins).collect();
        Ok(Self { text: format!("{}{}", torch.text, python.text), pins, ..python })
    }

    /// One line a wheel, for the record of where a folder came from: other pins make another folder.
    #[must_use]
    pub fn origin(&self) -> Vec<String> {
        self.pins.iter().map(|pin| format!("{}=={} {}", pin.name, pin.version, pin.sha256)).collect()
    }

    /// Reads a list: pins, `#` comments, and one comment `# download N bytes, unpacked M bytes`.
    ///
    /// # Errors
    /// A line that is neither, a hash that is not 64 hexadecimal digits, a missing size line, no pin at all.
    pub fn parse(text: &str) -> Result<Self> {
        let mut pins = Vec::new();
        let mut sizes = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                sizes = sizes.or_else(|| parse_sizes(comment));
            } else if !line.is_empty() {
                pins.push(parse_pin(line).with_context(|| format!("line {}: {line:?}", number + 1))?);
            }
        }
        let (download, unpacked) = sizes.context("no line `# download N bytes, unpacked M bytes`")?;
        if pins.is_empty() {
            bail!("no wheel is named");
        }
        Ok(Self { text: text.to_owned(), pins, download, unpacked })
    }
}

fn parse_sizes(comment: &str) -> Option<(u64, u64)> {
    let (download, unpacked) = comment.trim().strip_prefix("download ")?.split_once(" bytes, unpacked ")?;
    Some((download.parse().ok()?, unpacked.strip_suffix(" bytes")?.parse().ok()?))
}

fn parse_pin(line: &str) -> Result<Pin> {
    let (requirement, hash) =
        line.split_once(" --hash=sha256:").context("expected `name==version --hash=sha256:...`")?;
    let (name, version) = requirement.split_once("==").context("expected `name==version`")?;
    let sha256 = hash.trim();
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        bail!("a SHA-256 has 64 lower-case hexadecimal digits, this one is {sha256:?}");
    }
    Ok(Pin { name: name.trim().to_owned(), version: version.trim().to_owned(), sha256: sha256.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::VERSION;

    #[test]
    fn both_lists_pin_the_same_torch() {
        let (cpu, cuda) = (Lock::cpu().unwrap(), Lock::cuda().unwrap());
        for lock in [&cpu, &cuda] {
            let torch = lock.pins.iter().find(|pin| pin.name == "torch").unwrap();
            assert_eq!(torch.version, VERSION);
            assert!(lock.unpacked > 500_000_000 && lock.download > 500_000_000);
        }
        for pin in &cpu.pins {
            assert!(cuda.pins.contains(pin), "{} is pinned differently for CUDA", pin.name);
        }
    }

    #[test]
    fn the_reference_is_the_same_torch_and_what_it_asks_for() {
        let (cuda, python) = (Lock::cuda().unwrap(), Lock::python_reference().unwrap());
        assert_eq!(python.pins[..cuda.pins.len()], cuda.pins);
        let names: Vec<_> = python.pins.iter().map(|pin| pin.name.as_str()).collect();
        for name in ["torchvision", "numpy", "scipy", "pillow", "triton", "sympy", "typing-extensions"] {
            assert_eq!(names.iter().filter(|other| **other == name).count(), 1, "{name}");
        }
        assert!(python.download > cuda.download && python.unpacked > cuda.unpacked);
        assert_eq!(Lock::parse(&python.text).unwrap().pins, python.pins, "pip reads the text");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let sizes = "# download 1 bytes, unpacked 1 bytes\n";
        for (text, complaint) in [
            ("torch==2.11.0", "line 2"),
            ("torch --hash=sha256:00", "name==version"),
            ("torch==2 --hash=sha256:00", "64 lower-case"),
            ("# nothing", "no wheel"),
        ] {
            let error = format!("{:#}", Lock::parse(&format!("{sizes}{text}\n")).unwrap_err());
            assert!(error.contains(complaint), "{error}");
        }
        assert!(Lock::parse("").unwrap_err().to_string().contains("download"));
    }
}
