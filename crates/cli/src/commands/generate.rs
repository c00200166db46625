//! `generate`: a language model goes on with a text.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use whitebox_analysis::count;
use whitebox_datasets::text::{Tokenizer, TokenizerSpec, Utf8Stream};
use whitebox_language::{Ended, GenerationConfig, Generator, LanguageConfig, LanguageModel, Overflow, Sampler};

use crate::checkpoint::text::{open_language, read_or_demo};
use crate::tasks::language::load_language;

/// Let a language model go on with a text, token by token.
///
/// What was read is kept in a cache: of CRATE one projection a token and layer, because query, key and value are one, of GPT-2 its keys and values, twice as much.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask generate --prompt 'It is a truth'          # the demo's model
  cargo xtask generate runs/mine --prompt 'To be' --prompt 'Or not' --tokens 200 --temperature 0.8
  cargo xtask generate gpt2/model.safetensors --prompt 'The answer is' --top-k 40 --seed 7
  cargo xtask generate runs/mine --prompt 'Once' --stop '\\n\\n' --window --tokens 2000
  cargo xtask generate runs/mine --prompt-file start.txt --json
  cargo xtask generate runs/crate --bench --compare runs/gpt2")]
pub struct GenerateArgs {
    /// A weight file, a run folder or a checkpoint folder [default: the demo's language model].
    checkpoint: Option<PathBuf>,
    /// What the text begins with; repeatable, and each text is what it would be alone. `\\n` stands for a new line.
    #[arg(long)]
    prompt: Vec<String>,
    /// A file that a text begins with; repeatable.
    #[arg(long, value_name = "FILE")]
    prompt_file: Vec<PathBuf>,
    /// Tokens to write at most.
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// How bold: 0 always takes the most probable token.
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Draw from the K most probable tokens alone.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the most probable tokens that hold this share together.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE")]
    top_p: f64,
    /// Above 1, tokens that were there already become less probable.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    repetition_penalty: f64,
    /// The same seed writes the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End where this was written; repeatable. `\\n` stands for a new line.
    #[arg(long)]
    stop: Vec<String>,
    /// Beyond the context go on with the last tokens alone, in the place of refusing a longer prompt and ending there.
    #[arg(long)]
    window: bool,
    /// Read everything anew for each token: the same text, slower.
    #[arg(long)]
    no_cache: bool,
    /// Whose ids the model reads, where its file does not tell: bytes, gpt2, a tokenizer.json or vocab.txt.
    #[arg(long, value_name = "NAME|FILE")]
    tokenizer: Option<TokenizerSpec>,
    /// The model of a file that does not say it: a preset or a recipe file.
    #[arg(long, value_name = "PRESET|FILE")]
    model: Option<String>,
    /// A field of the model, as --set model.heads=6; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print one JSON object a text at its end.
    #[arg(long)]
    json: bool,
    /// Measure instead: tokens a second with and without cache, and its bytes.
    #[arg(long)]
    bench: bool,
    /// With --bench: another model beside it.
    #[arg(long, value_name = "CHECKPOINT", requires = "bench")]
    compare: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let device = torch_extras::cuda::device_from_str(&args.device)?;
    let open = |path, model, sets: &[String]| {
        let opened = open_language(read_or_demo(path)?, model, sets, args.tokenizer.as_ref())?;
        opened.notes.iter().for_each(|note| eprintln!("{note}"));
        anyhow::Ok((load_language(&opened, device)?, opened))
    };
    let (model, opened) = open(args.checkpoint.as_deref(), args.model.as_deref(), &args.sets)?;
    if args.bench {
        let mut table = bench(model.as_ref(), &opened.weights.path.display().to_string())?;
        if let Some(other) = &args.compare {
            let (model, opened) = open(Some(other), None, &[])?;
            table += &format!("\n{}", bench(model.as_ref(), &opened.weights.path.display().to_string())?);
        }
        return crate::say(&table);
    }
    let tokenizer = opened.tokenizer;
    let config = GenerationConfig {
        new_tokens: args.tokens,
        end_of_text: tokenizer.end_of_text().map(i64::from),
        sampler: Sampler {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            repetition_penalty: args.repetition_penalty,
            seed: args.seed,
        },
        overflow: if args.window { Overflow::Window } else { Overflow::Refuse },
        cached: !args.no_cache,
    };
    let prompts = prompts(args)?;
    let ids = prompts.iter().map(|prompt| encoded(prompt, tokenizer.as_ref())).collect::<Result<Vec<_>>>()?;
    let texts = write(model.as_ref(), tokenizer.as_ref(), &prompts, &ids, &config, args)?;
    if args.json {
        for (prompt, text) in prompts.iter().zip(texts) {
            crate::say(
                &json!({"prompt": prompt, "text": text.text, "tokens": text.tokens, "ended": text.ended}).to_string(),
            )?;
        }
    }
    Ok(())
}

/// What texts begin with; where nothing is said, a new line.
fn prompts(args: &GenerateArgs) -> Result<Vec<String>> {
    let mut prompts: Vec<String> = args.prompt.iter().map(|prompt| unescaped(prompt)).collect();
    for file in &args.prompt_file {
        let bytes = std::fs::read(file).with_context(|| format!("--prompt-file {} cannot be read", file.display()))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            anyhow::anyhow!(
                "--prompt-file {}: byte {} is no UTF-8: convert it first",
                file.display(),
                e.utf8_error().valid_up_to()
            )
        })?;
        prompts.push(text);
    }
    if prompts.is_empty() {
        prompts.push("\n".into());
    }
    match prompts.iter().find(|prompt| prompt.is_empty()) {
        Some(_) => bail!("an empty prompt: expected at least one character to go on from, such as '\\n'"),
        None => Ok(prompts),
    }
}

/// `\n` and `\t` as they would stand in a file.
fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

fn encoded(prompt: &str, tokenizer: &dyn Tokenizer) -> Result<Vec<i64>> {
    let ids = tokenizer.encode(prompt).with_context(|| format!("the prompt {prompt:?}"))?;
    Ok(ids.into_iter().map(i64::from).collect())
}

/// A text that has come to its end.
struct Written {
    text: String,
    tokens: usize,
    ended: String,
}

fn write(
    model: &dyn LanguageModel,
    tokenizer: &dyn Tokenizer,
    prompts: &[String],
    ids: &[Vec<i64>],
    config: &GenerationConfig,
    args: &GenerateArgs,
) -> Result<Vec<Written>> {
    let stops: Vec<String> = args.stop.iter().map(|stop| unescaped(stop)).filter(|stop| !stop.is_empty()).collect();
    // One text is shown as it comes; of several, which would come mixed, each when it is whole.
    let streamed = prompts.len() == 1 && !args.json;
    let mut texts = Vec::new();
    let began = Instant::now();
    let mut total = 0;
    for (row, (prompt, ids)) in prompts.iter().zip(ids).enumerate() {
        let config = GenerationConfig {
            // The seed that the row would have in a batch.
            sampler: Sampler { seed: config.sampler.seed.wrapping_add(row as u64), ..config.sampler.clone() },
            ..config.clone()
        };
        if streamed {
            show(prompt)?;
        }
        let mut generator = Generator::new(model, std::slice::from_ref(ids), &config)?;
        let mut stream = Utf8Stream::new(tokenizer);
        let (mut text, mut shown) = (String::new(), 0);
        while let Some(tokens) = generator.next() {
            for token in tokens?.into_iter().flatten().filter(|token| Some(*token) != config.end_of_text) {
                text += &stream.push(u32::try_from(token)?)?;
            }
            if stopped(&mut text, &stops).is_break() {
                generator.stop(0);
            } else if streamed {
                let certain = certain(&text, &stops).max(shown);
                show(&text[shown..certain])?;
                shown = certain;
            }
        }
        if generator.ended(0) != Some(Ended::Stopped) {
            text += &stream.finish()?;
        }
        let ended = match generator.ended(0) {
            Some(Ended::EndOfText) => "end of text",
            Some(Ended::Context) => "context is full",
            Some(Ended::Stopped) => "stop string",
            _ => "length",
        };
        total += generator.written(0).len();
        if streamed {
            show(&format!("{}\n", &text[shown..]))?;
        } else if !args.json {
            show(&format!("{}{prompt}{text}\n", if row > 0 { "\n---\n" } else { "" }))?;
        }
        if ended == "context is full" {
            eprintln!("the context of {} tokens is full; --window goes on with the last ones", model.context());
        }
        texts.push(Written { text, tokens: generator.written(0).len(), ended: ended.into() });
    }
    if std::io::stderr().is_terminal() {
        eprintln!("{total} tokens, {:.0} a second", total as f64 / began.elapsed().as_secs_f64());
    }
    Ok(texts)
}

/// Cuts a text at the first string that ends it.
fn stopped(text: &mut String, stops: &[String]) -> ControlFlow<()> {
    match stops.iter().filter_map(|stop| text.find(stop.as_str())).min() {
        Some(at) => {
            text.truncate(at);
            ControlFlow::Break(())
        }
        None => ControlFlow::Continue(()),
    }
}

/// How much of a text can be shown: what may be the beginning of a string that ends it is held back.
fn certain(text: &str, stops: &[String]) -> usize {
    let may_end =
        |stop: &String| (1..stop.len()).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n]));
    text.len() - stops.iter().filter_map(may_end).max().unwrap_or(0)
}

/// Part of a line, at once.
fn show(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Tokens a second up to the whole context, with a cache and by reading all anew, and what the cache takes.
fn bench(model: &dyn LanguageModel, name: &str) -> Result<String> {
    let context = model.context() as usize;
    if context < 2 {
        bail!("{name} has a context of {context}: there is nothing to go on with");
    }
    let config =
        GenerationConfig { new_tokens: context - 1, sampler: Sampler::greedy(), ..GenerationConfig::default() };
    let mut rates = Vec::new();
    let mut bytes = 0;
    for cached in [true, false] {
        let began = Instant::now();
        let mut generator = Generator::new(model, &[vec![0]], &GenerationConfig { cached, ..config.clone() })?;
        let mut tokens = 0;
        for written in generator.by_ref() {
            tokens += written?.len();
        }
        rates.push(tokens as f64 / began.elapsed().as_secs_f64());
        if cached {
            bytes = generator.cache_bytes();
        }
    }
    let kind = match model.config() {
        LanguageConfig::CrateGpt(_) => "one projection a token and layer",
        LanguageConfig::Gpt2(_) => "a key and a value a token and layer",
        LanguageConfig::TostGpt(_) => "running sums",
    };
    Ok(format!(
        "{name}: d = {}, {} layers, {} tokens\n  with cache     {:>8.0} tokens/s, {} bytes of it ({kind})\n  without cache  {:>8.0} tokens/s ({:.1} times slower)",
        model.config().d(),
        model.config().depth(),
        context,
        rates[0],
        count(bytes),
        rates[1],
        rates[0] / rates[1]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_where_it_should_and_shows_no_part_of_what_ends_it() {
        let stops = ["END".to_owned(), "\n\n".to_owned()];
        assert_eq!(certain("one E", &stops), 4);
        assert_eq!(certain("one EN", &stops), 4);
        assert_eq!(certain("one ENT", &stops), 7);
        assert_eq!(certain("line\n", &stops), 4);
        assert_eq!(certain("line\n", &[]), 5);
        let mut text = "a\n\nEND b".to_owned();
        assert!(stopped(&mut text, &stops).is_break());
        assert_eq!(text, "a");
        assert!(stopped(&mut text, &stops).is_continue());
    }
}
