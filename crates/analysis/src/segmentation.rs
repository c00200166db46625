//! Objects without labels: masks from attention and from the affinity of tokens, and how well they fit true ones.
//!
//! ```text
//! by attention   the patches that hold the first 60 % of a head's attention, largest first
//! MaskCut        W_ij = 1 where cos(f_i, f_j) > tau, else 1e-5;   (diag(W 1) - W) x = mu diag(W 1) x,  x the second smallest
//!                foreground: x above its mean, or below, whichever holds the entry of largest magnitude, unless that takes three corners of the image;
//!                the part of it that hangs together with that entry; then again among the patches that are left
//! ```
//!
//! f_i are the U_k^T z_i of all heads side by side (a ViT's keys), tau 0.15 (Wang et al. 2023, CutLER; arXiv 2308.16271 for CRATE). A mask's score is how far the two
//! sides of x lie apart, in standard deviations. No CRF afterwards.

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// The share of attention that a mask keeps.
pub const KEPT: f64 = 0.6;
/// The cosine above which two patches are joined.
pub const TAU: f64 = 0.15;
/// What joins the others: a graph must hang together.
const WEAK: f64 = 1e-5;

/// A mask over patches, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// Whether each patch belongs to the object.
    pub patches: Vec<bool>,
    /// How sure it is; only the order means anything.
    pub score: f64,
}

/// The patches that hold the first `kept` of the sum of a map, largest first.
pub fn by_attention(map: &[f64], kept: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..map.len()).collect();
    order.sort_by(|a, b| map[*b].total_cmp(&map[*a]));
    let all: f64 = map.iter().sum();
    let mut mask = vec![false; map.len()];
    let mut sum = 0.0;
    for i in order {
        if sum >= kept * all {
            break;
        }
        mask[i] = true;
        sum += map[i];
    }
    mask
}

/// Up to `count` masks of an image.
///
/// # Shapes
/// `features`: `[height x width, any]`, a row for each patch of `grid`.
///
/// # Errors
/// Another number of rows, or values that are not finite.
pub fn mask_cut(features: &Tensor, grid: [i64; 2], tau: f64, count: usize) -> Result<Vec<Mask>> {
    let (n, _) = features.size2()?;
    if n != grid[0] * grid[1] || n < 2 {
        let expected = format!("[{}, features], a row for each patch of {} x {}", grid[0] * grid[1], grid[0], grid[1]);
        return Err(Error::Shape { what: "features for MaskCut".into(), found: features.size(), expected });
    }
    let features = features.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
    if !features.f_isfinite()?.f_all()?.f_double_value(&[])?.eq(&1.0) {
        return Err(Error::Data("features for MaskCut hold values that are not finite".into()));
    }
    let unit = features.f_div(&features.f_norm_scalaropt_dim(2, [1i64].as_slice(), true)?.f_clamp_min(1e-12)?)?;
    let joined = unit.f_matmul(&unit.tr())?.f_gt(tau)?.f_to_kind(Kind::Double)?.f_clamp(WEAK, 1.0)?;
    let mut left = vec![true; n as usize];
    let mut masks = Vec::new();
    while masks.len() < count && left.iter().filter(|free| **free).count() > 1 {
        let Some(mask) = cut(&joined, &left, grid)? else { break };
        left.iter_mut().zip(&mask.patches).for_each(|(free, taken)| *free &= !taken);
        masks.push(mask);
    }
    Ok(masks)
}

/// One normalised cut among the patches that are left; none where nothing tells them apart.
fn cut(joined: &Tensor, left: &[bool], grid: [i64; 2]) -> Result<Option<Mask>> {
    let free = Tensor::from_slice(left);
    // A patch that is taken keeps no edge of weight: all its edges are weak ones.
    let both = free.f_unsqueeze(0)?.f_logical_and(&free.f_unsqueeze(1)?)?;
    let w = joined.f_where_self(&both, &Tensor::from(WEAK))?;
    let degree = w.f_sum_dim_intlist([1i64].as_slice(), false, None)?.f_rsqrt()?;
    let normal = w.f_mul(&degree.f_unsqueeze(0)?)?.f_mul(&degree.f_unsqueeze(1)?)?;
    // The second greatest of D^{-1/2} W D^{-1/2} is the second smallest of the problem above.
    let (_, vectors) = normal.f_linalg_eigh("L")?;
    let n = left.len() as i64;
    let x: Vec<f64> = vectors.f_select(1, n - 2)?.f_mul(&degree)?.try_into()?;
    let values = || (0..left.len()).filter(|i| left[*i]).map(|i| x[i]);
    let size = values().count() as f64;
    let mean = values().sum::<f64>() / size;
    let spread = (values().map(|v| (v - mean).powi(2)).sum::<f64>() / size).sqrt();
    if spread < 1e-12 {
        return Ok(None);
    }
    let side = |above: bool| -> Vec<bool> { (0..left.len()).map(|i| left[i] && (x[i] > mean) == above).collect() };
    let seed_of = |side: &[bool]| {
        (0..x.len()).filter(|i| side[*i]).max_by(|a, b| (x[*a] - mean).abs().total_cmp(&(x[*b] - mean).abs()))
    };
    let Some(strongest) = seed_of(left) else { return Ok(None) };
    let mut above = x[strongest] > mean;
    if corners(&side(above), grid) >= 3 {
        above = !above;
    }
    let chosen = side(above);
    let Some(seed) = seed_of(&chosen) else { return Ok(None) };
    let inside = |mask: &[bool]| -> f64 {
        let members: Vec<f64> = (0..x.len()).filter(|i| mask[*i]).map(|i| x[i]).collect();
        members.iter().sum::<f64>() / members.len().max(1) as f64
    };
    let score = (inside(&chosen) - inside(&side(!above))).abs() / spread;
    Ok(Some(Mask { patches: connected(&chosen, seed, grid), score }))
}

fn corners(mask: &[bool], [height, width]: [i64; 2]) -> usize {
    let (h, w) = (height as usize, width as usize);
    [0, w - 1, (h - 1) * w, h * w - 1].iter().filter(|i| mask[**i]).count()
}

/// The part of a mask that hangs together, by sides, with `seed`.
fn connected(mask: &[bool], seed: usize, [height, width]: [i64; 2]) -> Vec<bool> {
    let (h, w) = (height as usize, width as usize);
    let mut part = vec![false; mask.len()];
    let mut open = vec![seed];
    part[seed] = true;
    while let Some(at) = open.pop() {
        let (y, x) = (at / w, at % w);
        let beside = [
            (y > 0).then(|| at - w),
            (y + 1 < h).then(|| at + w),
            (x > 0).then(|| at - 1),
            (x + 1 < w).then(|| at + 1),
        ];
        for next in beside.into_iter().flatten() {
            if mask[next] && !part[next] {
                part[next] = true;
                open.push(next);
            }
        }
    }
    part
}

/// Intersection over union; 1 where both are empty.
///
/// # Errors
/// Masks of different sizes.
pub fn iou(a: &[bool], b: &[bool]) -> Result<f64> {
    if a.len() != b.len() {
        return Err(Error::Data(format!("masks of {} and {} entries cannot be compared", a.len(), b.len())));
    }
    let both = a.iter().zip(b).filter(|(a, b)| **a && **b).count();
    let either = a.iter().zip(b).filter(|(a, b)| **a || **b).count();
    Ok(if either == 0 { 1.0 } else { both as f64 / either as f64 })
}

/// A mask over patches as one over pixels: each patch's value for all of its pixels.
pub fn enlarged(patches: &[bool], [height, width]: [i64; 2], to: [usize; 2]) -> Vec<bool> {
    let (h, w) = (height as usize, width as usize);
    let pixel = |y: usize, x: usize| patches[(y * h / to[0]).min(h - 1) * w + (x * w / to[1]).min(w - 1)];
    (0..to[0] * to[1]).map(|i| pixel(i / to[1], i % to[1])).collect()
}

/// Average precision: the area under precision over recall, where precision at a recall is the best at that recall or a greater one. `found` holds the score of
/// each mask and whether it fits a true one that no better mask fits already; `truths` is how many true ones there are.
pub fn average_precision(found: &[(f64, bool)], truths: usize) -> f64 {
    let mut found = found.to_vec();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut right, mut points) = (0usize, Vec::new());
    for (i, (_, fits)) in found.iter().enumerate() {
        right += usize::from(*fits);
        if *fits {
            points.push(right as f64 / (i + 1) as f64);
        }
    }
    let mut best = 0.0f64;
    points
        .iter()
        .rev()
        .map(|p| {
            best = best.max(*p);
            best
        })
        .sum::<f64>()
        / truths.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: [i64; 2] = [6, 8];

    /// Two rectangles with features of their own before a ground.
    fn scene() -> (Tensor, Vec<bool>, Vec<bool>) {
        let inside = |y0: usize, y1: usize, x0: usize, x1: usize| -> Vec<bool> {
            (0..48).map(|i| (y0..y1).contains(&(i / 8)) && (x0..x1).contains(&(i % 8))).collect()
        };
        let (first, second) = (inside(1, 5, 1, 4), inside(2, 4, 5, 7));
        let rows: Vec<f64> = (0..48)
            .flat_map(|i| match (first[i], second[i]) {
                (true, _) => [1.0, 0.0, 0.0],
                (_, true) => [0.0, 1.0, 0.0],
                _ => [0.0, 0.05, 1.0],
            })
            .collect();
        (Tensor::from_slice(&rows).view([48, 3]), first, second)
    }

    #[test]
    fn mask_cut_finds_planted_objects() {
        let (features, first, second) = scene();
        let masks = mask_cut(&features, GRID, TAU, 2).unwrap();
        assert_eq!(masks.len(), 2);
        for truth in [&first, &second] {
            let best = masks.iter().map(|m| iou(&m.patches, truth).unwrap()).fold(0.0, f64::max);
            assert!(best > 0.99, "{best}: {masks:?}");
        }
        assert!(mask_cut(&features, [5, 8], TAU, 2).is_err());
        assert!(mask_cut(&(&features * f64::NAN), GRID, TAU, 2).unwrap_err().to_string().contains("not finite"));
        // Nothing to tell apart: no mask, no panic.
        let even = Tensor::ones([48, 3], (Kind::Double, Device::Cpu));
        assert!(mask_cut(&even, GRID, TAU, 3).unwrap().len() <= 1);
    }

    #[test]
    fn attention_keeps_its_largest_entries() {
        assert_eq!(by_attention(&[0.1, 0.5, 0.3, 0.1], KEPT), [false, true, true, false]);
        assert_eq!(by_attention(&[0.0, 0.0], KEPT), [false, false]);
    }

    #[test]
    fn scores_are_those_of_small_cases_by_hand() {
        assert_eq!(iou(&[true, true, false], &[true, false, true]).unwrap(), 1.0 / 3.0);
        assert_eq!(iou(&[false], &[false]).unwrap(), 1.0);
        assert!(iou(&[true], &[true, false]).is_err());
        assert_eq!(enlarged(&[true, false], [1, 2], [2, 4]), [true, true, false, false, true, true, false, false]);
        // Right, wrong, right of two true ones: precisions 1 and 2/3.
        let found = [(0.9, true), (0.8, false), (0.7, true)];
        assert!((average_precision(&found, 2) - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(average_precision(&[], 3), 0.0);
    }
}
