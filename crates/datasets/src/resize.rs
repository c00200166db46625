//! Another size by PIL's antialiased convolution, one plane of bytes at a time: columns first, then rows, each rounded
//! to 8 bits, with weights of 16 bits that use all of them.
//!
//! Both passes are the same sum of weighted vectors of 16 bytes. For the rows, 16 of them are turned so that a vector
//! holds a column; all that stays in the nearest cache.

use fearless_simd::{Level, Simd, dispatch, i8x16, i16x16, i32x8, prelude::*, u8x16};

use crate::raster::Part;
use crate::transform::Filter;

/// Bytes of a vector, and the rows and columns that are turned at once.
const LANES: usize = 16;
/// The most bits that the sum of an 8-bit value times its weights may have behind the point, as in PIL.
const MOST_SHIFT: u32 = 32 - 8 - 2;

/// For each pixel of a side of the result, which pixels of the source count and how much.
#[derive(Default)]
struct Weights {
    starts: Vec<usize>,
    /// `pairs` for each pixel, in units of 2^-shift, the first of a pair in the lower half; filled up with zeros.
    values: Vec<i32>,
    pairs: usize,
    shift: u32,
    exact: Vec<f64>,
}

impl Weights {
    /// Of `to` pixels from `from`.
    #[inline(always)]
    fn set(&mut self, from: usize, to: usize, filter: Filter) {
        let scale = from as f64 / to as f64;
        // Shrinking widens the filter.
        let stretch = scale.max(1.0);
        let (function, support): (fn(f64) -> f64, f64) = match filter {
            Filter::Bilinear => (bilinear, 1.0),
            Filter::Bicubic => (bicubic, 2.0),
        };
        let radius = support * stretch;
        let window = 2 * (radius.ceil() as usize) + 1;
        self.pairs = window.div_ceil(2);
        self.starts.clear();
        self.exact.clear();
        if from == to {
            self.pairs = 1;
            self.exact.extend((0..to).flat_map(|_| [1.0, 0.0]));
            self.starts.extend(0..to);
        }
        for x in self.starts.len()..to {
            let centre = (x as f64 + 0.5) * scale;
            let start = (centre - radius).floor().max(0.0) as usize;
            let end = (centre + radius).ceil().min(from as f64) as usize;
            let place = self.exact.len();
            let (mut first, mut sum) = (start, 0.0);
            for k in start..end {
                let weight = function((k as f64 - (centre - 0.5)) * (1.0 / stretch));
                // Zeros at the beginning are left out.
                if k == first && weight == 0.0 {
                    first += 1;
                } else {
                    self.exact.push(weight);
                    sum += weight;
                }
            }
            if sum != 0.0 {
                self.exact[place..].iter_mut().for_each(|weight| *weight /= sum);
            }
            self.exact.resize(place + 2 * self.pairs, 0.0);
            self.starts.push(first);
        }
        // As many bits as let the largest weight be a 16-bit number.
        let largest = self.exact.iter().copied().fold(0.0, f64::max);
        let fits = |shift: &u32| (largest * f64::from(1u32 << (shift + 1))).round() < 32_768.0;
        self.shift = (0..MOST_SHIFT).find(|shift| !fits(shift)).unwrap_or(MOST_SHIFT - 1);
        let unit = f64::from(1u32 << self.shift);
        // Halves away from zero; spelt out because there is an instruction for `floor`.
        let rounded = |weight: f64| ((weight.abs() * unit + 0.5).floor() as i16) * if weight < 0.0 { -1 } else { 1 };
        self.values.clear();
        let pair = |&[a, b]: &[f64; 2]| i32::from(rounded(a)) & 0xffff | i32::from(rounded(b)) << 16;
        self.values.extend(self.exact.as_chunks::<2>().0.iter().map(pair));
    }

    /// The first pixel that counts for pixel `x`, and the weights from there on.
    #[inline(always)]
    fn of(&self, x: usize) -> (usize, &[i32]) {
        (self.starts[x], &self.values[x * self.pairs..][..self.pairs])
    }
}

#[inline(always)]
fn bilinear(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 { 1.0 - x } else { 0.0 }
}

/// Keys' cubic with a = -1/2.
#[inline(always)]
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Weights and memory, used again.
pub(crate) struct Resizer {
    level: Level,
    down: Weights,
    across: Weights,
    /// [`LANES`] rows after the columns' pass; the same turned; turned after the rows' pass.
    strip: Vec<u8>,
    turned: Vec<u8>,
    narrowed: Vec<u8>,
}

impl Default for Resizer {
    fn default() -> Self {
        let (down, across, strip, turned, narrowed) = Default::default();
        Self { level: Level::new(), down, across, strip, turned, narrowed }
    }
}

impl Resizer {
    /// Brings `part` of each plane to `[height, width]`; the planes of `from` have rows of `stride` bytes.
    pub(crate) fn resize<'a>(
        &mut self,
        planes: impl Iterator<Item = (&'a [u8], &'a mut [u8])>,
        stride: usize,
        part: &Part,
        size: [usize; 2],
        filter: Filter,
    ) {
        let level = self.level;
        dispatch!(level, simd => {
            self.down.set(part.height, size[0], filter);
            self.across.set(part.width, size[1], filter);
            for (from, to) in planes {
                self.plane(simd, from, stride, part, size, to);
            }
        });
    }

    #[inline(always)]
    fn plane<S: Simd>(&mut self, simd: S, from: &[u8], stride: usize, part: &Part, size: [usize; 2], to: &mut [u8]) {
        let [height, width] = size;
        let from = &from[part.top * stride + part.left..];
        // Rows of whole vectors.
        let row = part.width.next_multiple_of(LANES);
        self.strip.resize(LANES * row, 0);
        // Weights of 0 may stand behind the last column.
        self.turned.resize(LANES * (row + 2 * self.across.pairs), 0);
        self.narrowed.resize(LANES * width.next_multiple_of(LANES), 0);
        for top in (0..height).step_by(LANES) {
            let rows = LANES.min(height - top);
            for (y, line) in (top..top + rows).zip(self.strip.chunks_exact_mut(row)) {
                columns(simd, from, stride, part, &self.down, y, line);
            }
            for x in (0..row).step_by(LANES) {
                let columns = transposed(block(simd, &self.strip[x..], row));
                for (slot, column) in self.turned[x * LANES..].as_chunks_mut().0.iter_mut().zip(columns) {
                    *slot = bytes(column);
                }
            }
            for (x, slot) in self.narrowed.as_chunks_mut().0.iter_mut().enumerate().take(width) {
                let (first, weights) = self.across.of(x);
                let columns = &self.turned[first * LANES..];
                *slot = match weights {
                    [a] => beside(simd, columns, [*a], self.across.shift),
                    [a, b] => beside(simd, columns, [*a, *b], self.across.shift),
                    [a, b, c] => beside(simd, columns, [*a, *b, *c], self.across.shift),
                    _ => general(simd, columns, LANES, weights, self.across.shift),
                };
            }
            for x in (0..width).step_by(LANES) {
                let lines = transposed(block(simd, &self.narrowed[x * LANES..], LANES));
                let columns = LANES.min(width - x);
                for (line, row) in to[top * width..].chunks_mut(width).take(rows).zip(lines) {
                    line[x..x + columns].copy_from_slice(&bytes(row)[..columns]);
                }
            }
        }
    }
}

/// Row `y` of the columns' pass. The usual counts of weights have code of their own, in which weights stay in registers.
#[inline(always)]
fn columns<S: Simd>(simd: S, from: &[u8], stride: usize, part: &Part, down: &Weights, y: usize, line: &mut [u8]) {
    let (first, weights) = down.of(y);
    match weights {
        _ if part.width < LANES => {}
        [a] => return above(simd, from, stride, part, first, [*a], down.shift, line),
        [a, b] => return above(simd, from, stride, part, first, [*a, *b], down.shift, line),
        [a, b, c] => return above(simd, from, stride, part, first, [*a, *b, *c], down.shift, line),
        _ => {}
    }
    for (x, slot) in line.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        *slot = general(simd, &from[(first * stride + x * LANES).min(from.len())..], stride, weights, down.shift);
    }
}

/// The weighted sum of rows above each other, `part` at least a vector wide.
#[inline(always)]
fn above<S: Simd, const N: usize>(
    simd: S,
    from: &[u8],
    stride: usize,
    part: &Part,
    first: usize,
    weights: [i32; N],
    shift: u32,
    line: &mut [u8],
) {
    // Where there is no row any more its weight is 0.
    let row = |k: usize| &from[(first + k).min(part.height - 1) * stride..][..part.width];
    let rows: [[&[u8]; 2]; N] = std::array::from_fn(|k| [row(2 * k), row(2 * k + 1)]);
    let mut x = 0;
    loop {
        let mut sums = nothing(simd, shift);
        for ([a, b], &weight) in rows.iter().zip(&weights) {
            let pair = [&a[x..x + LANES], &b[x..x + LANES]];
            sums = added(simd, sums, u8x16::from_slice(simd, pair[0]), u8x16::from_slice(simd, pair[1]), weight);
        }
        line[x..x + LANES].copy_from_slice(&rounded(simd, sums, shift));
        if x + LANES == part.width {
            break;
        }
        // The last vector ends with the row.
        x = (x + LANES).min(part.width - LANES);
    }
}

/// The weighted sum of vectors beside each other.
#[inline(always)]
fn beside<S: Simd, const N: usize>(simd: S, columns: &[u8], weights: [i32; N], shift: u32) -> [u8; LANES] {
    let pairs = columns[..2 * N * LANES].chunks_exact(2 * LANES);
    let mut sums = nothing(simd, shift);
    for (pair, &weight) in pairs.zip(&weights) {
        let (a, b) = pair.split_at(LANES);
        sums = added(simd, sums, u8x16::from_slice(simd, a), u8x16::from_slice(simd, b), weight);
    }
    rounded(simd, sums, shift)
}

/// Any number of vectors, each `stride` after the other; past the end they are 0.
#[inline(always)]
fn general<S: Simd>(simd: S, source: &[u8], stride: usize, weights: &[i32], shift: u32) -> [u8; LANES] {
    let mut sums = nothing(simd, shift);
    for (k, &weight) in weights.iter().enumerate() {
        let (a, b) = (load(simd, source, 2 * k * stride), load(simd, source, (2 * k + 1) * stride));
        sums = added(simd, sums, a, b, weight);
    }
    rounded(simd, sums, shift)
}

/// Sums of no vectors: what rounds them, and 128 less so that a signed byte holds them in the end.
#[inline(always)]
fn nothing<S: Simd>(simd: S, shift: u32) -> (i32x8<S>, i32x8<S>) {
    let start = i32x8::splat(simd, (1 << (shift - 1)) - (128 << shift));
    (start, start)
}

/// The sums and two vectors, each by its half of `weight`.
#[inline(always)]
fn added<S: Simd>(
    simd: S,
    (low, high): (i32x8<S>, i32x8<S>),
    a: u8x16<S>,
    b: u8x16<S>,
    weight: i32,
) -> (i32x8<S>, i32x8<S>) {
    let factors: i16x16<S> = i32x8::splat(simd, weight).bitcast();
    let (first, second) = a.zip_low(b).widen();
    let low = low + first.combine(second).bitcast::<i16x16<S>>().pairwise_dot_product(factors);
    let (first, second) = a.zip_high(b).widen();
    (low, high + first.combine(second).bitcast::<i16x16<S>>().pairwise_dot_product(factors))
}

/// The sums without the bits behind the point, limited to 0 to 255.
#[inline(always)]
fn rounded<S: Simd>(simd: S, (low, high): (i32x8<S>, i32x8<S>), shift: u32) -> [u8; LANES] {
    let (low, high) = (low >> shift).saturating_narrow(high >> shift).split();
    let signed: i8x16<S> = low.saturating_narrow(high) ^ i8x16::splat(simd, -128);
    bytes(signed.bitcast())
}

#[inline(always)]
fn bytes<S: Simd>(vector: u8x16<S>) -> [u8; LANES] {
    let mut out = [0; LANES];
    vector.store_slice(&mut out);
    out
}

/// The vector that begins at `at`; zeros past the end.
#[inline(always)]
fn load<S: Simd>(simd: S, source: &[u8], at: usize) -> u8x16<S> {
    match source.get(at..).and_then(|rest| rest.first_chunk::<LANES>()) {
        Some(chunk) => u8x16::from_slice(simd, chunk),
        None => {
            let mut chunk = [0; LANES];
            let rest = source.get(at..).unwrap_or_default();
            chunk[..rest.len()].copy_from_slice(rest);
            u8x16::from_slice(simd, &chunk)
        }
    }
}

/// Columns for rows: the upper half is dealt between the lower, four times.
#[inline(always)]
fn transposed<S: Simd>(mut rows: [u8x16<S>; LANES]) -> [u8x16<S>; LANES] {
    // Loops rather than `array::from_fn`, which unoptimised code around it keeps from being vectors.
    for _ in 0..4 {
        let before = rows;
        for i in 0..LANES / 2 {
            let (upper, lower) = (before[i], before[i + LANES / 2]);
            (rows[2 * i], rows[2 * i + 1]) = (upper.zip_low(lower), upper.zip_high(lower));
        }
    }
    rows
}

/// [`LANES`] vectors of which each begins `stride` after the one before.
#[inline(always)]
fn block<S: Simd>(simd: S, source: &[u8], stride: usize) -> [u8x16<S>; LANES] {
    let mut out = [u8x16::splat(simd, 0); LANES];
    for (slot, vector) in out.iter_mut().zip(source.chunks(stride)) {
        *slot = u8x16::from_slice(simd, &vector[..LANES]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use fast_image_resize::images::{CroppedImage, Image as Target, ImageRef};
    use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// `fast_image_resize` follows PIL in the same integers.
        #[test]
        fn it_is_what_another_implementation_gives(
            (height, width) in (1..70usize, 1..70usize),
            size in [1..80usize, 1..80usize],
            corners in any::<[u16; 4]>(),
            bicubic in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let span = |a: u16, b: u16, whole: usize| {
                let first = usize::from(a) % whole;
                (first, 1 + usize::from(b) % (whole - first))
            };
            let ((top, rows), (left, columns)) = (span(corners[0], corners[1], height), span(corners[2], corners[3], width));
            let part = Part { top, left, height: rows, width: columns };
            let value = |i: usize| ((i as u64 + 1).wrapping_mul(seed | 1) >> 40) as u8;
            let source: Vec<u8> = (0..height * width).map(value).collect();
            let (ours, theirs) =
                if bicubic { (Filter::Bicubic, FilterType::CatmullRom) } else { (Filter::Bilinear, FilterType::Bilinear) };

            let mut result = vec![0; size[0] * size[1]];
            Resizer::default().resize([(&source[..], &mut result[..])].into_iter(), width, &part, size, ours);

            let whole = ImageRef::new(width as u32, height as u32, &source, PixelType::U8).unwrap();
            let cropped = CroppedImage::new(&whole, left as u32, top as u32, columns as u32, rows as u32).unwrap();
            let mut target = Target::new(size[1] as u32, size[0] as u32, PixelType::U8);
            let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(theirs));
            fast_image_resize::Resizer::new().resize(&cropped, &mut target, &options).unwrap();
            prop_assert_eq!(&result[..], target.buffer());
        }
    }
}
