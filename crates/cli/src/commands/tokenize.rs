//! `tokenize`: text files into a folder of token shards.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use whitebox_analysis::count;
use whitebox_datasets::text::{Holdout, Manifest, PackOptions, Part, Sources, TokenSet, TokenizerSpec};

use crate::commands::train::stop_on_signal;
use crate::text::{found, pack_into};

/// Pack text into token shards that training reads by position.
///
/// The work is shared among all cores and goes on where it was stopped; the same text gives the same bytes. The folder keeps the tokenizer, and counts and hashes of
/// everything.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask tokenize book.txt --out tokens/book
  cargo xtask tokenize corpus/ --tokenizer gpt2 --validation 0.0005 --out tokens/corpus
  cargo xtask tokenize corpus/ --tokenizer mine/tokenizer.json --documents --out tokens/mine
  cargo xtask tokenize --verify tokens/corpus
  cargo xtask train language-demo --set text.path=tokens/book")]
pub struct TokenizeArgs {
    /// Text files (.txt, .txt.gz; .jsonl with a `text` a line), and folders of them.
    #[arg(required_unless_present = "verify", value_name = "TEXT")]
    inputs: Vec<PathBuf>,
    /// bytes, characters, gpt2, or a tokenizer.json or vocab.txt (also .gz).
    #[arg(long, default_value = "bytes", value_name = "NAME|FILE")]
    tokenizer: TokenizerSpec,
    /// The folder to write.
    #[arg(long, required_unless_present = "verify", value_name = "DIR")]
    out: Option<PathBuf>,
    /// The share of the text that is held out for validation, its end.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    validation: f64,
    /// Hold out the end of each document in the place of the end of the whole text.
    #[arg(long)]
    documents: bool,
    /// Put no end-of-text token behind documents.
    #[arg(long)]
    no_end_of_text: bool,
    /// Read files that are no UTF-8 as latin-1.
    #[arg(long)]
    latin1: bool,
    /// Tokens in a file, at most.
    #[arg(long, default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    shard_tokens: u64,
    /// Read a packed folder through and hold it against its hashes.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["inputs", "out"])]
    verify: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &TokenizeArgs) -> Result<()> {
    if let Some(folder) = &args.verify {
        let manifest = Manifest::read(folder)?;
        for part in [Part::Train, Part::Validation].into_iter().filter(|part| manifest.part(*part).is_some()) {
            TokenSet::open(folder, part)?.verify()?;
        }
        return crate::say(&format!("{} is whole\n{}", folder.display(), told(&manifest)));
    }
    let out = args.out.as_ref().context("where to? Name a folder with --out")?;
    let sources = Sources::open(&args.inputs, args.latin1)?;
    let tokenizer = found(&args.tokenizer)?.open_for(&sources)?;
    let options = PackOptions {
        validation: args.validation,
        holdout: if args.documents { Holdout::Document } else { Holdout::Text },
        end_of_text: !args.no_end_of_text,
        shard_tokens: args.shard_tokens,
    };
    if !pack_into(&sources, tokenizer.as_ref(), out, &options, stop_on_signal()?.as_ref())? {
        eprintln!("stopped; the same command goes on behind the last whole shard in {}", out.display());
        std::process::exit(130);
    }
    crate::say(&told(&Manifest::read(out)?))
}

fn told(manifest: &Manifest) -> String {
    let mut text = format!("tokenizer    {}", manifest.tokenizer);
    for part in [Part::Train, Part::Validation] {
        if let Some(found) = manifest.part(part) {
            text += &format!(
                "\n{:<12} {} tokens of {} bytes of text ({:.2} bytes a token), {} documents, {} files",
                part.name(),
                count(found.tokens),
                count(found.text_bytes),
                found.text_bytes as f64 / found.tokens.max(1) as f64,
                count(found.documents),
                count(found.shards.len() as u64)
            );
        }
    }
    text
}
