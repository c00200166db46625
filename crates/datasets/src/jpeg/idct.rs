//! The inverse discrete cosine transform of an 8 x 8 block, in the integers of libjpeg's "slow" method, so that the
//! pixels are those which PIL and torchvision see.
//!
//! Loeffler, Ligtenberg and Moschytz (ICASSP 1989) factor the eight-point transform; written out as sums of products
//! the same integers come out without their intermediate sums, which lets one instruction form two products and
//! their sum. Columns first, rounded to 1/4, then rows. Here a vector holds a row of the block.

use fearless_simd::{Simd, i8x16, i16x8, i16x16, i32x8, prelude::*};

/// Cosine products in units of 2^-13, as libjpeg has them.
const C0_298: i16 = 2446;
const C0_390: i16 = 3196;
const C0_541: i16 = 4433;
const C0_765: i16 = 6270;
const C0_899: i16 = 7373;
const C1_175: i16 = 9633;
const C1_501: i16 = 12299;
const C1_847: i16 = 15137;
const C1_961: i16 = 16069;
const C2_053: i16 = 16819;
const C2_562: i16 = 20995;
const C3_072: i16 = 25172;
const ONE: i16 = 1 << 13;

/// Bits that the first pass keeps below the point.
const KEPT: u32 = 2;

/// The samples of a block, a row of eight after the other, of its coefficients (rows first) and their steps.
#[inline(always)]
pub(super) fn block<S: Simd>(simd: S, coefficients: &[i16; 64], steps: &[i16; 64]) -> [u8; 64] {
    let row = |v: usize| -> i16x8<S> {
        let (value, step) = (&coefficients[8 * v..8 * v + 8], &steps[8 * v..8 * v + 8]);
        i16x8::from_slice(simd, value) * i16x8::from_slice(simd, step)
    };
    let rows = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
    let columns = transposed(pass::<S, { 13 - KEPT }>(simd, rows));
    let [a, b, c, d, e, f, g, h] = pass::<S, { 13 + KEPT + 3 }>(simd, columns);
    // Limited to 8 bits around 128; then the columns are dealt out into rows, halves against halves three times.
    let mut bytes = [a.saturating_narrow(b), c.saturating_narrow(d), e.saturating_narrow(f), g.saturating_narrow(h)];
    for _ in 0..3 {
        let [a, b, c, d] = bytes;
        bytes = [a.zip_low(c), a.zip_high(c), b.zip_low(d), b.zip_high(d)];
    }
    let mut out = [0; 64];
    for (slot, vector) in out.as_chunks_mut::<16>().0.iter_mut().zip(bytes) {
        let shifted: i8x16<S> = vector ^ i8x16::splat(simd, -128);
        *slot = shifted.as_array().map(|value| value as u8);
    }
    out
}

/// The sample that all of a block has whose only coefficient is the first, times its step.
#[inline(always)]
pub(super) fn flat(dc: i16) -> u8 {
    (((i32::from(dc) + 4) >> 3) + 128).clamp(0, 255) as u8
}

/// Eight transforms side by side, rounded off by `SHIFT` bits.
#[inline(always)]
fn pass<S: Simd, const SHIFT: u32>(simd: S, rows: [i16x8<S>; 8]) -> [i16x8<S>; 8] {
    // `a` and `b` of each column beside each other, to be multiplied by two numbers and added.
    let pair = |a: i16x8<S>, b: i16x8<S>| -> i16x16<S> { a.zip_low(b).combine(a.zip_high(b)) };
    let times = |pair: i16x16<S>, a: i16, b: i16| -> i32x8<S> {
        let both = i16x8::splat(simd, a).zip_low(i16x8::splat(simd, b));
        pair.pairwise_dot_product(both.combine(both))
    };
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let (p04, p26, p13, p57) = (pair(r0, r4), pair(r2, r6), pair(r1, r3), pair(r5, r7));

    let half = i32x8::splat(simd, 1 << (SHIFT - 1));
    let (sum, difference) = (times(p04, ONE, ONE) + half, times(p04, ONE, -ONE) + half);
    let (outer, inner) = (times(p26, C0_541 + C0_765, C0_541), times(p26, C0_541, C0_541 - C1_847));
    let even = [sum + outer, difference + inner, difference - inner, sum - outer];

    let odd = [
        times(p13, C1_501 - C0_899 - C0_390 + C1_175, C1_175) + times(p57, C1_175 - C0_390, C1_175 - C0_899),
        times(p13, C1_175, C3_072 - C2_562 - C1_961 + C1_175) + times(p57, C1_175 - C2_562, C1_175 - C1_961),
        times(p13, C1_175 - C0_390, C1_175 - C2_562) + times(p57, C2_053 - C2_562 - C0_390 + C1_175, C1_175),
        times(p13, C1_175 - C0_899, C1_175 - C1_961) + times(p57, C1_175, C0_298 - C0_899 - C1_961 + C1_175),
    ];

    let narrow = |k: usize| -> (i16x8<S>, i16x8<S>) {
        ((even[k] + odd[k]) >> SHIFT).saturating_narrow((even[k] - odd[k]) >> SHIFT).split()
    };
    let ((r0, r7), (r1, r6), (r2, r5), (r3, r4)) = (narrow(0), narrow(1), narrow(2), narrow(3));
    [r0, r1, r2, r3, r4, r5, r6, r7]
}

/// Columns for rows: the rows of the upper half are dealt between those of the lower, three times.
#[inline(always)]
fn transposed<S: Simd>(mut rows: [i16x8<S>; 8]) -> [i16x8<S>; 8] {
    for _ in 0..3 {
        let [a, b, c, d, e, f, g, h] = rows;
        rows = [
            a.zip_low(e),
            a.zip_high(e),
            b.zip_low(f),
            b.zip_high(f),
            c.zip_low(g),
            c.zip_high(g),
            d.zip_low(h),
            d.zip_high(h),
        ];
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use fearless_simd::{Level, dispatch};
    use proptest::prelude::*;

    fn fast(coefficients: &[i16; 64], steps: &[i16; 64]) -> [u8; 64] {
        dispatch!(Level::new(), simd => block(simd, coefficients, steps))
    }

    /// The definition, in float64: a quarter of the sum over u and v of C(u) C(v) F(v, u) cos cos, plus 128.
    fn defined(coefficients: &[i16; 64]) -> [f64; 64] {
        let basis = |x: usize, u: usize| {
            let scale = if u == 0 { 0.5f64.sqrt() } else { 1.0 };
            scale * ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos()
        };
        std::array::from_fn(|i| {
            let (y, x) = (i / 8, i % 8);
            let term = |k: usize| f64::from(coefficients[k]) * basis(y, k / 8) * basis(x, k % 8);
            (0..64).map(term).sum::<f64>() / 4.0 + 128.0
        })
    }

    proptest! {
        #[test]
        fn it_is_the_definition_to_within_rounding(values in prop::collection::vec((0..64usize, -300..300i16), 0..12)) {
            let mut coefficients = [0; 64];
            values.into_iter().for_each(|(k, value)| coefficients[k] = value);
            for (value, exact) in fast(&coefficients, &[1; 64]).into_iter().zip(defined(&coefficients)) {
                prop_assert!((f64::from(value) - exact.clamp(0.0, 255.0)).abs() < 0.6, "{value} {exact}");
            }
        }

        /// Any numbers at all, which a damaged file may hold: no panic.
        #[test]
        fn hostile_numbers_give_some_samples(seed in any::<[u64; 16]>(), step in any::<i16>()) {
            let numbers: Vec<i16> = seed.iter().flat_map(|word| (0..4).map(move |k| (word >> (16 * k)) as i16)).collect();
            fast(&numbers.try_into().unwrap(), &[step; 64]);
        }

        #[test]
        fn a_flat_block_is_the_general_ones(dc in -2000..2000i16) {
            let mut coefficients = [0; 64];
            coefficients[0] = dc;
            prop_assert_eq!(fast(&coefficients, &[1; 64]), [flat(dc); 64]);
        }
    }
}
