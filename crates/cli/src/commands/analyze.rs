//! `analyze`: opens the white box of a trained network and writes what is found as numbers, figures and one page.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use whitebox_analysis::{Report, Section, count};
use whitebox_datasets::masks::{self, Masked};

use crate::analysis::images::{Images, Named, named};
use crate::analysis::segmentation::{self, Scores};
use crate::analysis::{self, Measures, Network, networks};
use crate::checkpoint::{ModelUse, open_features};
use crate::data::{DataConfig, embedded_folder};
use crate::images::check_fit;
use crate::progress::meter;
use crate::run_folder::{RunFolder, command_line, commit};

/// Look inside a trained network, layer by layer.
///
/// Measures whether each layer does what the theory says: coding rates and the objective, sparsity, the direction of each half-step, the learned operators, tokens in their
/// subspaces; and shows attention, heads and principal components on single images. Of a run folder the network before its first step is measured too, and half-way
/// where a checkpoint was kept.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask analyze             # the demo's model
  cargo xtask analyze runs/mine --samples 1000
  cargo xtask analyze runs/crate --compare runs/vit --out runs/crate-and-vit
  cargo xtask analyze runs/cifar10 --masks emoji
  cargo xtask analyze --data photos/ --resolution 112
  cargo xtask analyze crate.pth --recipe image-folder --set data.path=DIR")]
pub struct AnalyzeArgs {
    /// A weight file, a run folder or a checkpoint folder [default: the demo's model].
    checkpoint: Option<PathBuf>,
    /// Another one, measured on the same images and drawn into the same figures.
    #[arg(long, value_name = "CHECKPOINT")]
    compare: Option<PathBuf>,
    /// A recipe whose set is measured, or image files and folders of them [default: the set it was trained on].
    #[arg(long, num_args = 1.., value_name = "SET|IMAGE")]
    data: Vec<PathBuf>,
    /// Images measured of each part of the set, evenly out of all.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    samples: u64,
    /// Images shown one by one.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=32))]
    shown: u64,
    /// The size in pixels at which single images are shown to the network, its positions interpolated [default: the model's].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    resolution: Option<u32>,
    /// Score masks found without labels: `emoji` for the drawings in data/, or a folder with images/ and masks/.
    #[arg(long, value_name = "emoji|DIR")]
    masks: Option<PathBuf>,
    /// The folder to write [default: a new one, runs/analysis-DATE].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    usage: ModelUse,
}

/// The file of an analysis that holds every number.
const NUMBERS: &str = "analysis.json";
/// Width of a figure's PNG in pixels.
const PNG_WIDTH: u32 = 1440;

/// Runs the command.
pub fn run(args: &AnalyzeArgs) -> Result<()> {
    let checkpoint = args.checkpoint.as_deref();
    let named = named(&args.data)?;
    let recipe = match named {
        Some(Named::Recipe(name)) => Some(name),
        _ => None,
    };
    let (opened, data, device) = args.usage.or_recipe(recipe).open_features(checkpoint)?;
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
        let opened = open_features(Some(other), None, &[])?;
        for (_, loader) in &loaders {
            check_fit(loader, &opened.config.grid()).with_context(|| format!("--compare {}", other.display()))?;
        }
        let name = other.display().to_string();
        all.push(Network::of_file(&name, &opened, device)?);
    }
    if let Some(out) = args.out.as_deref().filter(|out| out.join(NUMBERS).exists()) {
        bail!("{} already holds an analysis, which is not overwritten: name another folder", out.display());
    }
    let folder = RunFolder::create(args.out.as_deref(), "analysis")?;
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
    let shown = images.shown(args.shown, args.resolution.map(|side| [i64::from(side); 2]))?;
    let mut sections = analysis::sections(&measures)?;
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
    let info = json!({
        "command": command_line(),
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit(),
        "checkpoint": path,
        "compared": args.compare,
        "data": data,
        "networks": measures,
        "masks": scores,
    });
    folder.write(NUMBERS, serde_json::to_string_pretty(&info)?.as_bytes())?;
    let figures = folder.path.join("figures");
    std::fs::create_dir_all(&figures).with_context(|| format!("making {}", figures.display()))?;
    for (number, section) in sections.iter().enumerate() {
        for (i, figure) in section.figures.iter().enumerate() {
            let name = format!("figures/{}-{}", number + 1, i + 1);
            folder.write(&format!("{name}.svg"), figure.svg.as_bytes())?;
            folder.write(&format!("{name}.png"), &figure.png(PNG_WIDTH)?)?;
        }
        for (i, picture) in section.pictures.iter().enumerate() {
            folder.write(&format!("figures/{}-picture-{}.png", number + 1, i + 1), &picture.png)?;
        }
    }
    let images = measures.first().map_or(0, |m| m.images);
    let facts = [
        ("Checkpoint", path.display().to_string()),
        ("Command", command_line()),
        ("Version", format!("whitebox {}", env!("CARGO_PKG_VERSION"))),
        ("Commit", commit().unwrap_or("not in a clone".into())),
        ("Images", format!("{} of each part", count(images))),
    ];
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
        facts: facts.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        sections,
        ..Report::default()
    };
    folder.write("report.html", report.render()?.as_bytes())?;
    crate::say(&format!("report:   {}", folder.path.join("report.html").display()))?;
    crate::say(&format!("numbers:  {}", folder.path.join(NUMBERS).display()))
}
