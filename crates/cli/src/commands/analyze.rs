//! `analyze`: opens the white box of a trained network and writes what is found as numbers, figures and one page.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use whitebox_analysis::{Report, Section, count};
use whitebox_datasets::masks::{self, Masked};
use whitebox_datasets::text::TokenizerSpec;

use super::analyze_text;
use crate::analysis::images::{Images, Named, named};
use crate::analysis::segmentation::{self, Scores};
use crate::analysis::{self, Measures, Network, networks, page};
use crate::checkpoint::text::is_of_text;
use crate::checkpoint::{ModelUse, open_features, read};
use crate::data::{DataConfig, embedded_folder};
use crate::images::check_fit;
use crate::progress::meter;
use crate::run_folder::RunFolder;

/// Look inside a trained network, layer by layer.
///
/// Measures whether each layer does what the theory says: coding rates and the objective, sparsity, the direction of each half-step, the learned operators, tokens in their
/// subspaces; and shows attention, heads and principal components on single images. Of a run folder the network before its first step is measured too, and half-way
/// where a checkpoint was kept. A model of text is measured on its validation text; shown are attention over a sentence and the tokens that switch atoms on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask analyze             # the demo's model
  cargo xtask analyze runs/mine --samples 1000
  cargo xtask analyze runs/crate --compare runs/vit --out runs/crate-and-vit
  cargo xtask analyze runs/cifar10 --masks emoji
  cargo xtask analyze --data photos/ --resolution 112
  cargo xtask analyze runs/crate-gpt --compare runs/gpt2 --prompt \"It is a truth\"
  cargo xtask analyze crate.pth --recipe image-folder --set data.path=DIR")]
pub struct AnalyzeArgs {
    /// A weight file, a run folder or a checkpoint folder [default: the demo's model].
    pub(super) checkpoint: Option<PathBuf>,
    /// Another one, measured on the same images or text and drawn into the same figures; a model of text must read by the same tokenizer.
    #[arg(long, value_name = "CHECKPOINT")]
    pub(super) compare: Option<PathBuf>,
    /// A recipe whose set is measured, or image files and folders of them; for a model of text text files [default: what it was trained on; of a text its validation part].
    #[arg(long, num_args = 1.., value_name = "SET|FILE")]
    pub(super) data: Vec<PathBuf>,
    /// Images measured of each part of the set, evenly out of all; of a text sequences as long as the model reads.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) samples: u64,
    /// Images shown one by one [default: 6].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=32))]
    pub(super) shown: Option<u64>,
    /// The size in pixels at which single images are shown to the network, its positions interpolated [default: the model's].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) resolution: Option<u32>,
    /// Score masks found without labels: `emoji` for the drawings in data/, or a folder with images/ and masks/.
    #[arg(long, value_name = "emoji|DIR")]
    pub(super) masks: Option<PathBuf>,
    /// The sentence over which a model of text shows its attention [default: where the text measured begins].
    #[arg(long, value_name = "SENTENCE")]
    pub(super) prompt: Option<String>,
    /// Whose ids a model of text reads, where its file does not tell: bytes, gpt2, a tokenizer.json or a vocab.txt.
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) tokenizer: Option<TokenizerSpec>,
    /// The folder to write [default: a new one, runs/analysis-DATE].
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) usage: ModelUse,
}

/// Images shown one by one, where no number is named.
const SHOWN: u64 = 6;

/// Runs the command.
pub fn run(args: &AnalyzeArgs) -> Result<()> {
    let weights = read(args.checkpoint.as_deref())?;
    if is_of_text(&weights) {
        return analyze_text::run(args, weights);
    }
    for (given, flag) in [(args.prompt.is_some(), "--prompt"), (args.tokenizer.is_some(), "--tokenizer")] {
        if given {
            bail!("{flag} is for models of text, and the checkpoint is a model of images: leave it out");
        }
    }
    let checkpoint = args.checkpoint.as_deref();
    let named = named(&args.data)?;
    let recipe = match named {
        Some(Named::Recipe(name)) => Some(name),
        _ => None,
    };
    let (opened, data, device) = args.usage.or_recipe(recipe).open_features(weights)?;
    let grid = opened.config.grid();
    let images = match named {
        Some(Named::Files(files)) => Images::of_files(files, &data, &grid)?,
        _ => Images::of_set(&data)?,
    };
    let loaders = images.loaders(args.samples)?;
    loaders.iter().try_for_each(|(_, loader)| check_fit(loader, &grid))?;
    let objects = args.masks.as_deref().map(|masks| objects(masks, args.samples)).transpose()?;
    let mut all = networks(checkpoint, &opened, device)?;
    if let Some(other) = &args.compare {
        let opened = open_features(read(Some(other))?, None, &[])?;
        for (_, loader) in &loaders {
            check_fit(loader, &opened.config.grid()).with_context(|| format!("--compare {}", other.display()))?;
        }
        let name = other.display().to_string();
        all.push(Network::of_file(&name, &opened, device)?);
    }
    let folder = page::folder(args.out.as_deref())?;
    eprintln!(
        "{}: {} parameters\nfolder: {}",
        opened.weights.path.display(),
        count(opened.config.cost().parameters),
        folder.path.display()
    );

    let mut measures = Vec::new();
    for (i, network) in all.iter().enumerate() {
        // The trained one, which comes first, with every part; the others with the first.
        for (images, loader) in &loaders[..if i == 0 { loaders.len() } else { 1 }] {
            eprintln!("{}, {images} images", network.name);
            let found = analysis::measure(network, images, loader, args.samples, &mut meter("measuring", "images"))?;
            measures.push(found);
        }
    }
    let shown = images.shown(args.shown.unwrap_or(SHOWN), args.resolution.map(|side| [i64::from(side); 2]))?;
    let mut sections = analysis::sections(&measures.iter().collect::<Vec<_>>())?;
    let mut scores = Vec::new();
    for network in all.iter().filter(|n| n.shown) {
        sections.push(analysis::pictures::section(network, &shown, &data)?);
    }
    if let Some(objects) = &objects {
        for network in &all {
            eprintln!("{}, objects without labels", network.name);
            scores.push(segmentation::score(network, &data, objects, &mut meter("finding objects", "images"))?);
        }
        let of = args.masks.as_deref().map_or(String::new(), |path| path.display().to_string());
        sections.push(segmentation::section(&scores, objects, &of)?);
    }
    let found = Found { measures, scores, sections };
    let subject = Subject { path: &opened.weights.path, data: &data, note: images.note.as_deref() };
    write(&folder, args, &subject, found)
}

/// What is written down.
struct Found {
    measures: Vec<Measures>,
    scores: Vec<Scores>,
    sections: Vec<Section>,
}

/// At most `wanted` images with masks, evenly out of all there are.
fn objects(masks: &Path, wanted: u64) -> Result<Vec<Masked>> {
    let all = match masks == Path::new("emoji") {
        true => masks::emoji(&embedded_folder()?)?,
        false => masks::folder(masks)?,
    };
    let every = all.len().div_ceil(wanted.min(usize::MAX as u64) as usize).max(1);
    Ok(all.into_iter().step_by(every).collect())
}

/// What was looked at.
struct Subject<'a> {
    path: &'a Path,
    data: &'a DataConfig,
    note: Option<&'a str>,
}

fn write(folder: &RunFolder, args: &AnalyzeArgs, subject: &Subject<'_>, found: Found) -> Result<()> {
    let Subject { path, data, note } = *subject;
    let Found { measures, scores, sections } = found;
    let images = measures.first().and_then(|m| m.images).unwrap_or(0);
    let numbers = json!({
        "checkpoint": path,
        "compared": args.compare,
        "data": data,
        "networks": measures,
        "masks": scores,
    });
    let report = Report {
        title: format!("Inside {}", args.checkpoint.as_deref().unwrap_or(path).display()),
        summary: vec![format!(
            "Every layer of a network was measured on {} images of each part of its data: whether it compresses, whether it sparsifies, and whether what it has learned is what the \
             theory takes it for.",
            count(images)
        )]
        .into_iter()
        .chain(note.map(str::to_owned))
        .collect(),
        facts: page::facts(path, vec![("Images", format!("{} of each part", count(images)))]),
        sections,
        ..Report::default()
    };
    page::write(folder, numbers, &report)
}
