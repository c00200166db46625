//! From luminance and chrominance to red, green and blue, with chroma interpolated to full size: the integers of
//! libjpeg's "fancy" upsampling and of its colour conversion.
//!
//! Nothing here overflows; sums are `wrapping_` because the checks of a debug build keep a loop from becoming vectors.

use super::scan::Plane;
use crate::raster::Part;

/// Rows of chroma that have been brought to the width of the picture.
#[derive(Default)]
pub(super) struct Rows {
    /// Three times the nearer row and once the farther, with a column more on each side.
    sums: Vec<u16>,
    wide: [Vec<u8>; 2],
}

/// Where a plane lies: the column and row of its first sample, and where the picture's samples end.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) corner: [usize; 2],
    pub(super) end: [usize; 2],
}

/// Chroma of row `y` for the columns `left..left + width`: `factors` across and down.
#[inline(always)]
fn widened<'a>(
    plane: &'a Plane,
    place: &Place,
    factors: [usize; 2],
    (y, left, width): (usize, usize, usize),
    sums: &mut Vec<u16>,
    wide: &'a mut Vec<u8>,
) -> &'a [u8] {
    let [column, row] = place.corner;
    let line = |y: usize| &plane.samples[(y - row) * plane.stride..][..plane.stride];
    if factors == [1, 1] {
        return &line(y)[left - column..][..width];
    }
    // Columns of chroma that are needed, one more on each side where there is one, else the last once again.
    let (first, end) = (left / 2, (left + width).div_ceil(2));
    let (before, after) = (first.saturating_sub(1), end.min(place.end[0] - 1));
    sums.clear();
    let (scale, low, high) = if factors[1] == 1 {
        let near = line(y);
        let sum = |x: usize| u16::from(near[x - column]);
        sums.push(sum(before));
        sums.extend(near[first - column..end - column].iter().map(|&value| u16::from(value)));
        sums.push(sum(after));
        (2, 1, 2)
    } else {
        let near = y / 2;
        let far = if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(place.end[1] - 1) };
        let (near, far) = (line(near), line(far));
        let weigh = |near: u8, far: u8| u16::from(near).wrapping_mul(3).wrapping_add(u16::from(far));
        let sum = |x: usize| weigh(near[x - column], far[x - column]);
        sums.push(sum(before));
        let both = near[first - column..end - column].iter().zip(&far[first - column..end - column]);
        sums.extend(both.map(|(&near, &far)| weigh(near, far)));
        sums.push(sum(after));
        (4, 8, 7)
    };
    let count = end - first;
    wide.resize(2 * count, 0);
    let (lefts, middles, rights) = (&sums[..count], &sums[1..][..count], &sums[2..][..count]);
    let pairs = wide.as_chunks_mut::<2>().0.iter_mut().zip(lefts).zip(middles).zip(rights);
    for (((pair, &left), &middle), &right) in pairs {
        let middle = middle.wrapping_mul(3);
        let (left, right) =
            (middle.wrapping_add(left.wrapping_add(low)), middle.wrapping_add(right.wrapping_add(high)));
        *pair = [(left >> scale) as u8, (right >> scale) as u8];
    }
    &wide[left % 2..][..width]
}

/// The part of the picture as planes of red, green and blue, one after the other in `out`.
#[inline(always)]
pub(super) fn convert(
    planes: &[Plane; 3],
    places: &[Place; 3],
    factors: [usize; 2],
    part: &Part,
    rows: &mut Rows,
    out: &mut [u8],
) {
    let Part { top, left, height, width } = *part;
    let (red, rest) = out.split_at_mut(width * height);
    let (green, blue) = rest.split_at_mut(width * height);
    let [column, row] = places[0].corner;
    let [wide_blue, wide_red] = &mut rows.wide;
    for y in 0..height {
        let wanted = (top + y, left, width);
        let luma = &planes[0].samples[(top + y - row) * planes[0].stride + left - column..][..width];
        let cb = widened(&planes[1], &places[1], factors, wanted, &mut rows.sums, wide_blue);
        let cr = widened(&planes[2], &places[2], factors, wanted, &mut rows.sums, wide_red);
        let row = y * width..(y + 1) * width;
        let outs = red[row.clone()].iter_mut().zip(&mut green[row.clone()]).zip(&mut blue[row]);
        for ((((r, g), b), &luma), (&cb, &cr)) in outs.zip(luma).zip(cb.iter().zip(cr)) {
            let (luma, cb, cr) = (i32::from(luma), i32::from(cb).wrapping_sub(128), i32::from(cr).wrapping_sub(128));
            // In units of 2^-16, rounded.
            let limited = |shift: i32| luma.wrapping_add(shift.wrapping_add(1 << 15) >> 16).clamp(0, 255) as u8;
            *r = limited(cr.wrapping_mul(91_881));
            *g = limited(cb.wrapping_mul(-22_554).wrapping_sub(cr.wrapping_mul(46_802)));
            *b = limited(cb.wrapping_mul(116_130));
        }
    }
}
