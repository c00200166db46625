//! Pictures inside the page, as PNG: sample predictions, right and wrong told apart by sign and word, and pictures that come as they are.

use super::{Error, Picture, Sample};
use crate::Result;
use crate::text::{count, escape, percent};
use base64::Engine;
use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageFormat, RgbImage, RgbaImage};
use std::fmt::Write;
use std::io::Cursor;

/// Samples shown as they come.
pub const SHOWN: usize = 24;
/// Mistakes shown, most confident first.
pub const WORST: usize = 12;
/// Larger pictures are scaled down to this side: the page stays small.
const MAX_SIDE: u32 = 112;

pub(super) fn section(samples: &[Sample]) -> Result<String> {
    if samples.is_empty() {
        return Ok(String::new());
    }
    let mut wrong: Vec<&Sample> = samples.iter().filter(|s| s.truth != s.predicted).collect();
    wrong.sort_by(|a, b| key(b).total_cmp(&key(a)));
    let mut html = String::from("<section><h2>Predictions</h2>");
    let shown = samples.len().min(SHOWN);
    let _ = write!(
        html,
        "<p>The first {shown} of {} predictions, not chosen by outcome; the percentage is the model's probability of its prediction.</p>{}",
        count(samples.len() as u64),
        gallery(samples.iter().take(SHOWN))?
    );
    if wrong.is_empty() {
        let _ = write!(html, "<p>None of the {} predictions given is wrong.</p>", count(samples.len() as u64));
    } else {
        let _ = write!(
            html,
            "<h3>Worst mistakes</h3><p>Of the {} predictions, {} are wrong; these are wrong with the highest probability.</p>{}",
            count(samples.len() as u64),
            count(wrong.len() as u64),
            gallery(wrong.into_iter().take(WORST))?
        );
    }
    html.push_str("</section>");
    Ok(html)
}

/// The order of mistakes; a probability that is not a number comes last, whatever its sign bit.
fn key(sample: &Sample) -> f64 {
    if sample.probability.is_nan() { f64::NEG_INFINITY } else { sample.probability }
}

fn gallery<'a>(samples: impl Iterator<Item = &'a Sample>) -> Result<String> {
    let cards = samples.map(card).collect::<Result<String>>()?;
    Ok(format!("<ul class=\"gallery\">{cards}</ul>"))
}

fn card(sample: &Sample) -> Result<String> {
    let (truth, predicted) = (escape(&sample.truth), escape(&sample.predicted));
    let probability = percent(sample.probability);
    let uri = png_uri(sample)?;
    Ok(if sample.truth == sample.predicted {
        format!(
            "<li class=\"right\"><img src=\"{uri}\" alt=\"{truth}\"><b><span class=\"mark\">✓</span> {predicted}</b><span>right, {probability}</span></li>"
        )
    } else {
        format!(
            "<li class=\"wrong\"><img src=\"{uri}\" alt=\"{truth}\"><b><span class=\"mark\">✗</span> {predicted}</b><span>wrong, {probability}</span><span>is {truth}</span></li>"
        )
    })
}

fn png_uri(sample: &Sample) -> Result<String> {
    let (w, h, pixels) = (sample.width, sample.height, sample.pixels.clone());
    let image = match sample.channels {
        1 => GrayImage::from_raw(w, h, pixels).map(DynamicImage::from),
        2 => GrayAlphaImage::from_raw(w, h, pixels).map(DynamicImage::from),
        3 => RgbImage::from_raw(w, h, pixels).map(DynamicImage::from),
        4 => RgbaImage::from_raw(w, h, pixels).map(DynamicImage::from),
        _ => None,
    };
    let expected = u128::from(w) * u128::from(h) * u128::from(sample.channels);
    let image = image.filter(|_| expected == sample.pixels.len() as u128 && expected > 0).ok_or_else(|| {
        Error::Data(format!(
            "a sample of {w} x {h} pixels and {} channels has {} values, expected width x height x channels = {expected} with 1 to 4 channels",
            sample.channels,
            sample.pixels.len()
        ))
    })?;
    let image = if w.max(h) > MAX_SIDE { image.thumbnail(MAX_SIDE, MAX_SIDE) } else { image };
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png)?;
    Ok(uri(png.get_ref()))
}

fn uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png))
}

/// A section of one picture, pixel for pixel where the page is wide enough.
pub(super) fn whole(picture: &Picture) -> Result<String> {
    let (title, caption) = (escape(&picture.title), escape(&picture.caption));
    Ok(format!("<section><h2>{title}</h2><p>{caption}</p>{}</section>", img(picture)?))
}

/// A picture as a part of a section.
pub(super) fn inside(picture: &Picture) -> Result<String> {
    let (title, caption) = (escape(&picture.title), escape(&picture.caption));
    Ok(format!(
        "<figure class=\"wide\"><div class=\"title\">{title}</div>{}<figcaption>{caption}</figcaption></figure>",
        img(picture)?
    ))
}

fn img(picture: &Picture) -> Result<String> {
    if !picture.png.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(Error::Data(format!("the picture {:?} is no PNG file", picture.title)));
    }
    Ok(format!("<img class=\"picture\" src=\"{}\" alt=\"{}\">", uri(&picture.png), escape(&picture.title)))
}
