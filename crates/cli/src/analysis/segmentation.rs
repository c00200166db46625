//! Objects without labels, scored against true masks: attention of single heads, and MaskCut on the tokens.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tch::{Device, Kind, Tensor};
use whitebox_analysis::plots::{Bar, horizontal_bars};
use whitebox_analysis::segmentation::{KEPT, TAU, average_precision, by_attention, enlarged, iou, mask_cut};
use whitebox_analysis::stats::Running;
use whitebox_analysis::{Picture, Section, Stat, attention, count};
use whitebox_datasets::masks::{LEAST, MOST, Masked};
use whitebox_datasets::{SampleRng, Size, Transform};
use whitebox_model::probe::{Recorder, Site};

use super::pictures::{CELL, Sheet};
use super::{Network, of_patches};
use crate::data::DataConfig;

/// Masks that MaskCut is asked for.
const MASKS: usize = 3;
/// Images whose masks are drawn.
const SHOWN: usize = 8;
/// Radius of the disc in the middle, as a share of the image's side.
const RADIUS: f64 = 0.35;
/// Thresholds of the average precision over many, as COCO has them.
const THRESHOLDS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// How well a network's masks fit.
#[derive(Debug, Serialize)]
pub struct Scores {
    /// Which network.
    pub network: String,
    /// Images.
    pub images: u64,
    /// The layer looked at, counted from 0.
    pub layer: usize,
    /// IoU of the attention mask of the head that fits each image best.
    pub best_head: Stat,
    /// IoU of the one head that fits best over all images; none without attention maps.
    pub one_head: Stat,
    /// IoU of the MaskCut mask that fits each image best.
    pub best_cut: Stat,
    /// IoU of the first MaskCut mask.
    pub first_cut: Stat,
    /// Average precision of MaskCut at IoU 0.5, 0.75, and the mean from 0.5 to 0.95.
    pub precision: [f64; 3],
    /// IoU of calling everything the object, which needs no network.
    pub everything: Stat,
    /// IoU of a disc in the middle, whose diameter is 0.7 of the image's side.
    pub disc: Stat,
    /// Of the first images the mask of the best head and the first of MaskCut, over pixels.
    #[serde(skip)]
    examples: Vec<[Vec<bool>; 2]>,
}

/// Runs a network over images with masks. `progress` takes (images done, images in all).
pub fn score(
    network: &Network,
    data: &DataConfig,
    images: &[Masked],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Scores> {
    let grid = network.config.grid();
    let shape = grid.shape();
    let layer = (network.config.depth() as usize).saturating_sub(2);
    let heads = network.config.heads() as usize;
    let [mut best_head, mut best_cut, mut first_cut, mut everything, mut disc] = [(); 5].map(|()| Running::default());
    let mut by_head = vec![Running::default(); heads];
    let mut found: [Vec<(f64, bool)>; THRESHOLDS.len()] = Default::default();
    let mut examples = Vec::new();
    for (done, object) in images.iter().enumerate() {
        let size = [object.image.height, object.image.width];
        let input = prepared(object, data, network)?;
        let mut seen = Recorder::new(&[Site::Uz, Site::Attention]);
        let _ = tch::no_grad(|| network.model.tokens(&input, &mut seen))?;
        let fit = |patches: &[bool]| -> Result<f64> { Ok(iou(&enlarged(patches, shape, size), &object.mask)?) };
        let mut by_best_head = vec![false; object.mask.len()];
        if let Some(found) = seen.get(layer, Site::Attention) {
            let maps = attention::maps(found, shape)?.to_kind(Kind::Double).to_device(Device::Cpu);
            let mut best = (0.0f64, Vec::new());
            for (head, scores) in by_head.iter_mut().enumerate() {
                let map: Vec<f64> = maps.get(0).get(head as i64).flatten(0, -1).try_into()?;
                let mask = by_attention(&map, KEPT);
                let score = fit(&mask)?;
                scores.push(score);
                if score >= best.0 {
                    best = (score, mask);
                }
            }
            best_head.push(best.0);
            by_best_head = enlarged(&best.1, shape, size);
        }
        let uz = seen.get(layer, Site::Uz).context("the network shows no projected tokens")?.get(0);
        let masks = mask_cut(&of_patches(&uz, shape), shape, TAU, MASKS)?;
        let fits = masks.iter().map(|mask| fit(&mask.patches)).collect::<Result<Vec<_>>>()?;
        first_cut.push(fits.first().copied().unwrap_or(0.0));
        best_cut.push(fits.iter().copied().fold(0.0, f64::max));
        for (threshold, found) in THRESHOLDS.iter().zip(&mut found) {
            // One object an image: the first mask in the order of scores that fits it has it.
            let mut order: Vec<usize> = (0..masks.len()).collect();
            order.sort_by(|a, b| masks[*b].score.total_cmp(&masks[*a].score));
            let mut taken = false;
            for i in order {
                let right = !taken && fits[i] >= *threshold;
                taken |= right;
                found.push((masks[i].score, right));
            }
        }
        if done < SHOWN {
            let first = masks.first().map_or(by_best_head.clone(), |mask| enlarged(&mask.patches, shape, size));
            examples.push([by_best_head, first]);
        }
        everything.push(iou(&vec![true; object.mask.len()], &object.mask)?);
        disc.push(iou(&in_the_middle(size), &object.mask)?);
        progress(done as u64 + 1, images.len() as u64);
    }
    let precisions: Vec<f64> = found.iter().map(|found| average_precision(found, images.len())).collect();
    let mean = precisions.iter().sum::<f64>() / precisions.len() as f64;
    let one_head = by_head.iter().map(Running::stat).filter(|s| s.n > 0).max_by(|a, b| a.mean.total_cmp(&b.mean));
    Ok(Scores {
        network: network.name.clone(),
        images: images.len() as u64,
        layer,
        best_head: best_head.stat(),
        one_head: one_head.unwrap_or_default(),
        best_cut: best_cut.stat(),
        first_cut: first_cut.stat(),
        precision: [precisions[0], precisions[5], mean],
        everything: everything.stat(),
        disc: disc.stat(),
        examples,
    })
}

fn in_the_middle([height, width]: [usize; 2]) -> Vec<bool> {
    let (h, w) = (height as f64, width as f64);
    let inside = |y: usize, x: usize| {
        let (dy, dx) = ((y as f64 + 0.5) / h - 0.5, (x as f64 + 0.5) / w - 0.5);
        dy * dy + dx * dx < RADIUS * RADIUS
    };
    (0..height * width).map(|i| inside(i / width, i % width)).collect()
}

/// An image as the network takes it, by the steps of its data and, where those leave another size, resized.
fn prepared(object: &Masked, data: &DataConfig, network: &Network) -> Result<Tensor> {
    let grid = network.config.grid();
    let [height, width] = grid.image.map(|side| side as usize);
    // No crop: the mask is that of the whole image.
    let resize = Transform::Resize { size: Size::Exact([height, width]), filter: Default::default() };
    let pipeline = data.pipeline(vec![resize])?;
    let shape = [grid.channels as usize, height, width];
    if pipeline.output_shape([object.image.height, object.image.width]) != shape {
        bail!("the network takes {} channels, its data prepare {}", grid.channels, data.channels);
    }
    let mut buffer = vec![0f32; shape.iter().product()];
    pipeline
        .apply(object.image.clone(), &mut SampleRng::new(0, 0, 0), &mut buffer)
        .with_context(|| object.name.clone())?;
    Ok(Tensor::from_slice(&buffer).view([1, shape[0] as i64, height as i64, width as i64]).to_device(network.device))
}

/// What the scores show.
pub fn section(all: &[Scores], images: &[Masked], of: &str) -> Result<Section> {
    let Some(first) = all.first() else { return Ok(Section::default()) };
    let method = format!(
        "{} images of {of} whose object fills {LEAST} to {MOST} of them, resized to what the network takes. By attention: the patches that hold the first {:.0} % of what the \
         class token attends to. MaskCut: normalised cuts of the tokens' cosines above {TAU}, at most {MASKS} masks. Both at the layer before the last. A mask is scored by \
         intersection over union (IoU) with the true one. Beside them two guesses that need no network.",
        count(first.images),
        100.0 * KEPT
    );
    let mut section = Section { title: "Objects without labels".into(), method, ..Section::default() };
    for s in all {
        let rows = [
            ("attention, best head", s.best_head, true),
            ("attention, one head", s.one_head, true),
            ("MaskCut, best mask", s.best_cut, true),
            ("MaskCut, first mask", s.first_cut, true),
            ("everything", s.everything, false),
            ("a disc in the middle", s.disc, false),
        ];
        let bars: Vec<Bar> = rows
            .iter()
            .filter(|(_, stat, _)| stat.n > 0)
            .map(|(name, stat, accent)| Bar { name: (*name).into(), share: stat.mean, accent: *accent })
            .collect();
        let caption =
            "Mean IoU. Of the best of several the truth itself chooses; \"one head\" and \"first mask\" do without.";
        section.figures.push(horizontal_bars(&format!("IoU, {}", s.network), caption, &bars));
        section.findings.push(format!(
            "{}: mean IoU {:.3} by the best head of each image, {:.3} by one head for all, {:.3} by the first mask of MaskCut, whose AP50 / AP75 / AP are {:.3} / {:.3} / {:.3} \
             (layer {}).",
            s.network,
            s.best_head.mean,
            s.one_head.mean,
            s.first_cut.mean,
            s.precision[0],
            s.precision[1],
            s.precision[2],
            s.layer + 1
        ));
        section.pictures.push(picture(s, images)?);
    }
    section.findings.push(format!(
        "Without a network: {:.3} for everything, {:.3} for a disc in the middle.",
        first.everything.mean, first.disc.mean
    ));
    Ok(section)
}

/// The first images with their true masks and those that were found.
fn picture(scores: &Scores, images: &[Masked]) -> Result<Picture> {
    let side = CELL.div_ceil(images.first().map_or(CELL, |object| object.image.height as u32)).max(1);
    let cell = images.first().map_or([CELL; 2], |o| [o.image.height as u32 * side, o.image.width as u32 * side]);
    let mut sheet = Sheet { cell, rows: Vec::new() };
    for (object, found) in images.iter().zip(&scores.examples) {
        let shape = [object.image.height as i64, object.image.width as i64];
        let at = |i: usize| {
            let pixel = &object.image.pixels[i * object.image.channels..][..object.image.channels];
            [0, 1, 2].map(|c: usize| pixel[c.min(pixel.len() - 1)])
        };
        let masked = |mask: &[bool]| sheet.patches(shape, |i| if mask[i] { at(i) } else { [0; 3] });
        let row = vec![sheet.patches(shape, at), masked(&object.mask), masked(&found[0]), masked(&found[1])];
        sheet.rows.push(row);
    }
    Ok(Picture {
        title: format!("Masks, {}", scores.network),
        caption: "The first images, not chosen by outcome: the image, its object, the mask of the head that fits best, the first of MaskCut.".into(),
        png: sheet.png()?,
    })
}
