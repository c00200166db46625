//! What a network sees in single images: attention of the class token head by head, which head claims which patch, principal components of the tokens.

use std::io::Cursor;

use anyhow::{Context, Result};
use image::{ImageFormat, Rgb, RgbImage};
use tch::{Device, Kind, Tensor};
use whitebox_analysis::plots::{Figure, magnitudes};
use whitebox_analysis::{Picture, Section, attention, pca, tokens};
use whitebox_model::embed::Grid;
use whitebox_model::probe::{Recorder, Site};

use super::{Network, of_patches};
use crate::data::DataConfig;

/// Most heads of which a map is shown.
const HEADS: i64 = 8;
/// A cell is at least about this many pixels high.
pub(super) const CELL: u32 = 84;
/// Pixels between cells.
const GAP: u32 = 4;
/// Rows and columns of a token heat-map.
const TOKENS: i64 = 50;
/// Colours of heads, told apart on light and dark.
const HUES: [[u8; 3]; 12] = [
    [47, 126, 196],
    [208, 106, 36],
    [44, 150, 102],
    [147, 102, 201],
    [207, 76, 88],
    [128, 128, 128],
    [190, 160, 40],
    [60, 180, 190],
    [230, 130, 170],
    [120, 90, 60],
    [160, 200, 90],
    [90, 90, 170],
];

/// Rows of cells of one size.
pub(super) struct Sheet {
    /// Height and width of a cell.
    pub cell: [u32; 2],
    /// The rows.
    pub rows: Vec<Vec<RgbImage>>,
}

impl Sheet {
    /// The sheet as a PNG.
    pub fn png(&self) -> Result<Vec<u8>> {
        let [height, width] = self.cell;
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
        let size = (columns * (width + GAP), self.rows.len() as u32 * (height + GAP));
        let mut canvas = RgbImage::from_pixel(size.0.max(1), size.1.max(1), Rgb([255; 3]));
        for (y, row) in self.rows.iter().enumerate() {
            for (x, cell) in row.iter().enumerate() {
                let at = (x as u32 * (width + GAP) + GAP / 2, y as u32 * (height + GAP) + GAP / 2);
                image::imageops::replace(&mut canvas, cell, i64::from(at.0), i64::from(at.1));
            }
        }
        let mut png = Cursor::new(Vec::new());
        canvas.write_to(&mut png, ImageFormat::Png).context("a picture cannot be encoded")?;
        Ok(png.into_inner())
    }

    /// A cell of values that lie on a grid of patches (or pixels).
    pub fn patches(&self, [rows, columns]: [i64; 2], color: impl Fn(usize) -> [u8; 3]) -> RgbImage {
        let [height, width] = self.cell.map(f64::from);
        RgbImage::from_fn(self.cell[1], self.cell[0], |x, y| {
            let (y, x) = ((f64::from(y) + 0.5) / height, (f64::from(x) + 0.5) / width);
            Rgb(color((y * rows as f64) as usize * columns as usize + (x * columns as f64) as usize))
        })
    }
}

fn shade(value: f64) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// From black through violet and orange to near white, brighter all the way.
fn heat(value: f64) -> [u8; 3] {
    let v = value.clamp(0.0, 1.0);
    [
        shade(v.sqrt()),
        shade(v * v * v * 0.6 + 0.4 * v * v),
        shade(if v < 0.5 { v * 0.9 } else { 0.45 + (v - 0.5) * 0.8 }),
    ]
}

/// The section on single images, `[N, C, H, W]` as the network takes them; `data` tells their units.
pub fn section(network: &Network, images: &Tensor, data: &DataConfig) -> Result<Section> {
    let mut seen = Recorder::new(&[Site::Uz, Site::Attention, Site::ZOut]);
    let _ = tch::no_grad(|| network.model.tokens(&images.to_device(network.device), &mut seen))?;
    let depth = network.config.depth() as usize;
    let (count, channels, height, width) = images.size4()?;
    let Grid { image, patch, .. } = network.config.grid();
    let patch_grid = [height / patch[0], width / patch[1]];
    let scale = CELL.div_ceil(height as u32).max(1);
    let cell = [height as u32 * scale, width as u32 * scale];
    let column = |values: &[f64]| Tensor::from_slice(values).view([1, -1, 1, 1]);
    let plain = images.to_device(Device::Cpu).to_kind(Kind::Double) * column(&data.std) + column(&data.mean);
    let own_size = [height, width] == image;
    let rows: Vec<RgbImage> = (0..count)
        .map(|i| {
            let pixels: Vec<f64> = plain.get(i).flatten(0, -1).try_into()?;
            let sheet = Sheet { cell, rows: Vec::new() };
            let plane = (height * width) as usize;
            Ok(sheet.patches([height, width], |at| {
                [0, 1, 2].map(|c: usize| shade(pixels[c.min(channels as usize - 1) * plane + at]))
            }))
        })
        .collect::<Result<_>>()?;
    let sheet = || Sheet { cell, rows: rows.iter().map(|image| vec![image.clone()]).collect() };
    let mut section = Section {
        title: "Single images".into(),
        method: format!(
            "{count} of the images measured first, evenly out of all, through the network \"{}\". Maps have a value a patch, {} x {} of them{}.",
            network.name,
            patch_grid[0],
            patch_grid[1],
            match own_size {
                true => String::new(),
                false => format!(
                    ": the images are shown at {height} x {width} pixels in the place of the model's {} x {}, its positions interpolated",
                    image[0], image[1]
                ),
            }
        ),
        ..Section::default()
    };
    // The layer before the last: the last one's attention serves the classifier.
    let shown = depth.saturating_sub(2);
    if let Some(found) = seen.get(shown, Site::Attention) {
        section.pictures.push(attention_maps(found, patch_grid, shown, sheet())?);
        section.pictures.push(head_sheet(found, patch_grid, shown, sheet())?);
    }
    let heads = network.config.heads();
    section.pictures.push(claims(&seen, heads, patch_grid, depth, sheet())?);
    if let Some(found) = seen.get(shown, Site::Uz).filter(|_| count > 1) {
        section.pictures.push(components(found, patch_grid, shown, sheet())?);
    }
    for layer in [0, depth / 2, depth.saturating_sub(1)] {
        if let Some(z) = seen.get(layer, Site::ZOut) {
            section.figures.push(heat_map(z, layer)?);
        }
    }
    section.figures.dedup_by(|a, b| a.title == b.title);
    Ok(section)
}

fn attention_maps(found: &Tensor, grid: [i64; 2], layer: usize, mut sheet: Sheet) -> Result<Picture> {
    let maps = attention::maps(found, grid)?.to_kind(Kind::Double).to_device(Device::Cpu);
    let heads = maps.size()[1].min(HEADS);
    for i in 0..sheet.rows.len() {
        for head in 0..heads {
            let map: Vec<f64> = maps.get(i as i64).get(head).flatten(0, -1).try_into()?;
            let most = map.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            let cell = sheet.patches(grid, |at| heat(map[at] / most));
            sheet.rows[i].push(cell);
        }
    }
    let caption = format!(
        "Left the image, then what the class token (without one: the mean token) attends to in layer {}, heads 1 to {heads}; each map is scaled to its own maximum.",
        layer + 1
    );
    Ok(Picture { title: "Attention, head by head".into(), caption, png: sheet.png()? })
}

/// What each head is for: one row a head over all images, so that the eye compares along the row. Each map is laid over its image, which shines where the head looks.
fn head_sheet(found: &Tensor, grid: [i64; 2], layer: usize, images: Sheet) -> Result<Picture> {
    let maps = attention::maps(found, grid)?.to_kind(Kind::Double).to_device(Device::Cpu);
    let heads = maps.size()[1].min(HEADS);
    let pictures: Vec<RgbImage> = images.rows.into_iter().filter_map(|row| row.into_iter().next()).collect();
    let mut sheet = Sheet { cell: images.cell, rows: vec![pictures.clone()] };
    for head in 0..heads {
        let mut row = Vec::new();
        for (i, picture) in pictures.iter().enumerate() {
            let map: Vec<f64> = maps.get(i as i64).get(head).flatten(0, -1).try_into()?;
            let most = map.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            let mut lit = sheet.patches(grid, |at| [shade(0.15 + 0.85 * map[at] / most); 3]);
            for (light, pixel) in lit.pixels_mut().zip(picture.pixels()) {
                for (light, value) in light.0.iter_mut().zip(pixel.0) {
                    *light = (u16::from(*light) * u16::from(value) / 255) as u8;
                }
            }
            row.push(lit);
        }
        sheet.rows.push(row);
    }
    let caption = format!(
        "The images, and below them a row for each of the heads 1 to {heads} of layer {}: bright is what the class token (without one: the mean token) attends to by that head.",
        layer + 1
    );
    Ok(Picture { title: "What each head looks at".into(), caption, png: sheet.png()? })
}

fn claims(seen: &Recorder, heads: i64, grid: [i64; 2], depth: usize, mut sheet: Sheet) -> Result<Picture> {
    let mut layers = vec![0, depth / 3, 2 * depth / 3, depth.saturating_sub(1)];
    layers.dedup();
    for layer in &layers {
        let Some(uz) = seen.get(*layer, Site::Uz) else { continue };
        let who = tokens::claims(&of_patches(uz, grid), heads)?.0.to_device(Device::Cpu);
        for i in 0..sheet.rows.len() {
            let heads: Vec<i64> = who.get(i as i64).try_into()?;
            let cell = sheet.patches(grid, |at| HUES[heads.get(at).copied().unwrap_or(0) as usize % HUES.len()]);
            sheet.rows[i].push(cell);
        }
    }
    let named: Vec<String> = layers.iter().map(|layer| (layer + 1).to_string()).collect();
    let caption = format!(
        "Left the image, then the head that claims each patch, a colour a head, in layers {}.",
        named.join(", ")
    );
    Ok(Picture { title: "Which head claims which patch".into(), caption, png: sheet.png()? })
}

fn components(uz: &Tensor, grid: [i64; 2], layer: usize, mut sheet: Sheet) -> Result<Picture> {
    let found = pca::components(&of_patches(uz, grid).to_device(Device::Cpu), 4)?;
    let inside = pca::foreground(&found, grid)?;
    for i in 0..sheet.rows.len() {
        let values: Vec<f64> = found.values.get(i as i64).flatten(0, -1).try_into()?;
        let front: Vec<i64> = inside.get(i as i64).to_kind(Kind::Int64).try_into()?;
        let first = sheet.patches(grid, |at| heat(values[4 * at]));
        let colours = sheet.patches(grid, |at| match front[at] {
            0 => [0; 3],
            _ => [1, 2, 3].map(|c| shade(values[4 * at + c])),
        });
        sheet.rows[i].extend([first, colours]);
    }
    let held: Vec<String> = found.variance.iter().map(|share| format!("{:.0} %", 100.0 * share)).collect();
    let caption = format!(
        "Of U^TLN(Z) of all heads together in layer {}, over these images: left the image, then the first component, then the second to fourth as red, green and blue where the first \
         says foreground. They hold {} of the variance.",
        layer + 1,
        held.join(", ")
    );
    Ok(Picture { title: "Principal components of the tokens".into(), caption, png: sheet.png()? })
}

/// A part of Z^{l+1} of the first image.
fn heat_map(z: &Tensor, layer: usize) -> Result<Figure> {
    let first = z.get(0).to_kind(Kind::Double).to_device(Device::Cpu);
    let (n, d) = first.size2()?;
    let part = first.narrow(0, 0, n.min(TOKENS)).narrow(1, 0, d.min(TOKENS)).tr();
    let entries = Vec::<Vec<f64>>::try_from(part)?;
    let groups = vec![0; n.min(TOKENS) as usize];
    let caption = format!(
        "The first {} entries (rows) of the first {} tokens (columns) of Z^{{ℓ+1}} behind layer {}, first image; full is the largest magnitude.",
        d.min(TOKENS),
        n.min(TOKENS),
        layer + 1
    );
    Ok(magnitudes(&format!("Tokens behind layer {}", layer + 1), &caption, &entries, &groups)?)
}
