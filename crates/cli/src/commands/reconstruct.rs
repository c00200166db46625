//! `reconstruct`: what an autoencoder makes of the patches that it does not see, as a picture and in numbers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use tch::{Device, Tensor};
use whitebox_autoencoder::{MaskShape, Masking};
use whitebox_model::embed::Grid;

use crate::checkpoint::{ModelUse, read};
use crate::data::DataConfig;
use crate::images::{check_fit, images_of, prepared};
use crate::pictures::{COLUMNS, Pictures};
use crate::reconstruction::{Errors, reconstruct};
use crate::run_folder::whole;
use crate::tasks::reconstruct::{ROWS, load_autoencoder};

/// Draw what an autoencoder makes of images of which it sees a part.
///
/// A row an image: the image, what the model sees of it, its prediction, and the prediction in the place of what it does not see.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask reconstruct runs/mae                  # 8 validation images
  cargo xtask reconstruct runs/mae shoe.png bag.png --out mine.png --scale 8
  cargo xtask reconstruct runs/mae --mask block --mask-ratio 0.5 --seed 3
  cargo xtask reconstruct mae.pth photo.jpg --recipe imagenet-crate-mae-base")]
pub struct ReconstructArgs {
    /// A weight file, a run folder or a checkpoint folder of an autoencoder.
    checkpoint: Option<PathBuf>,
    /// Image files: JPEG, PNG, WebP [default: the first 8 validation images of the model's data].
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The picture to write.
    #[arg(long, value_name = "FILE.png", default_value = "reconstruction.png")]
    out: PathBuf,
    /// The share of patches that is hidden [default: as the model was trained].
    #[arg(long, value_name = "SHARE")]
    mask_ratio: Option<f64>,
    /// What is hidden together [default: as the model was trained].
    #[arg(long, value_enum)]
    mask: Option<Shape>,
    /// Draws other masks; 0 hides of the validation images what an evaluation hides.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many times pixels are enlarged [default: small images to about a hundred pixels].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    scale: Option<u32>,
    #[command(flatten)]
    usage: ModelUse,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The shapes of a mask, as they are named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Single patches.
    Random,
    /// Rectangles of patches.
    Block,
}

/// Images with their names and the seeds of their masks.
#[derive(Default)]
struct Chosen {
    names: Vec<String>,
    seeds: Vec<u64>,
    images: Vec<Tensor>,
}

/// Runs the command.
pub fn run(args: &ReconstructArgs) -> Result<()> {
    if args.out.extension().is_none_or(|end| !end.eq_ignore_ascii_case("png")) {
        bail!("--out {}: expected a file that ends in .png", args.out.display());
    }
    if let Some(image) = args.checkpoint.as_deref().filter(|path| is_image(path)) {
        bail!(
            "{} is an image: name the autoencoder before it, a weight file or a run folder; `cargo xtask train mae-demo` trains a small one",
            image.display()
        );
    }
    let Some(checkpoint) = &args.checkpoint else {
        bail!("which autoencoder? Name a weight file or a run folder; `cargo xtask train mae-demo` trains a small one")
    };
    let (opened, data, device) = args.usage.open_autoencoder(read(Some(checkpoint))?)?;
    let grid = opened.config.grid();
    let trained = opened.task(args.usage.recipe())?;
    let masking = Masking {
        ratio: args.mask_ratio.unwrap_or(trained.masking.ratio),
        shape: match args.mask {
            None => trained.masking.shape,
            Some(Shape::Random) => MaskShape::Random,
            Some(Shape::Block) => MaskShape::Block,
        },
    };
    masking.check().context("--mask-ratio")?;
    let (kept, patches) = (masking.kept(grid.patches()), grid.patches());
    if kept == patches {
        bail!("--mask-ratio {}: nothing is hidden of {patches} patches; expected a larger share", masking.ratio);
    }
    let chosen = choose(args, &data, &grid)?;
    let model = load_autoencoder(&opened, device)?;
    let mut pictures = Pictures::new(grid, &data);
    let mut errors = Errors::default();
    // One at a time: images are few, and of any number.
    for (image, seed) in chosen.images.iter().zip(&chosen.seeds) {
        let mask = masking.seeded(&[*seed], grid.shape(), device)?;
        let found = reconstruct(model.as_ref(), image.to_device(device), mask, &trained.loss, &grid)?;
        let Errors { masked, visible_mean } = found.errors(&grid)?;
        errors.masked.extend(masked);
        errors.visible_mean.extend(visible_mean);
        pictures.add(&found)?;
    }
    let png = pictures.png(args.scale.unwrap_or_else(|| Pictures::scale(&grid)))?;
    whole(&args.out, |path| Ok(std::fs::write(path, &png)?))?;
    let rows: Vec<_> = chosen.names.iter().zip(errors.masked.iter().zip(&errors.visible_mean)).collect();
    if args.json {
        let images = rows.iter().map(|(name, (model, guess))| {
            json!({"image": name, "masked_mse": model, "visible_mean_mse": guess, "ratio": *model / *guess})
        });
        let found = json!({
            "checkpoint": opened.weights.path.to_string_lossy(), "out": args.out.to_string_lossy(), "masking": masking,
            "patches": patches, "seen": kept, "norm_pix": trained.loss.norm_pix, "images": images.collect::<Vec<_>>(),
        });
        return crate::say(&found.to_string());
    }
    let mut text = format!(
        "{}: {kept} of {patches} patches seen; mean squared error on the others, in normalised pixels\n{:<28}{:>10}{:>18}\n",
        opened.weights.path.display(),
        "image",
        "the model",
        "mean of visible"
    );
    for (name, (model, guess)) in &rows {
        text += &format!("{name:<28}{model:>10.4}{guess:>18.4}\n");
    }
    if rows.len() > 1 {
        let mean = |errors: &[f64]| errors.iter().sum::<f64>() / errors.len() as f64;
        text += &format!("{:<28}{:>10.4}{:>18.4}\n", "all", mean(&errors.masked), mean(&errors.visible_mean));
    }
    if trained.loss.norm_pix {
        text += "the model predicts normalised patches: each is brought back with the mean and the deviation of the true patch\n";
    }
    crate::say(&format!("{text}{}: from left to right {COLUMNS}", args.out.display()))
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|end| end.to_string_lossy().to_lowercase());
    extension.is_some_and(|end| matches!(end.as_str(), "png" | "jpg" | "jpeg" | "webp"))
}

/// The images that were named, or the first validation images.
fn choose(args: &ReconstructArgs, data: &DataConfig, grid: &Grid) -> Result<Chosen> {
    let mut chosen = Chosen::default();
    if !args.images.is_empty() {
        for (number, path) in args.images.iter().enumerate() {
            let (image, _) = prepared(path, data, grid)?;
            chosen.push(path.display().to_string(), args.seed.wrapping_add(number as u64), image);
        }
        return Ok(chosen);
    }
    let loader = DataConfig { eval_batch_size: ROWS, ..data.clone() }.eval_loader(data.open()?.validation)?;
    check_fit(&loader, grid)?;
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        let images = if batch.labels.is_empty() { None } else { Some(images_of(&batch, Device::Cpu)) };
        for (row, &index) in batch.indices.iter().enumerate().take(ROWS - chosen.names.len()) {
            if let Some(images) = &images {
                let seed = args.seed.wrapping_add(index as u64);
                chosen.push(format!("validation image {index}"), seed, images.narrow(0, row as i64, 1));
            }
        }
        if chosen.names.len() == ROWS {
            break;
        }
    }
    if chosen.names.is_empty() {
        bail!("not one of the validation images could be read");
    }
    Ok(chosen)
}

impl Chosen {
    fn push(&mut self, name: String, seed: u64, image: Tensor) {
        self.names.push(name);
        self.seeds.push(seed);
        self.images.push(image);
    }
}
