//! The scan: its bits to blocks of coefficients, those to samples, as far as they are wanted.
//!
//! Codes can only be read one after the other, so that blocks before the wanted part are read without being kept;
//! what comes after it is not read.

use std::ops::Range;

use fearless_simd::Simd;

use super::header::{Component, Header, Tables, ZIGZAG};
use super::huffman::{END, Table};
use super::idct;

/// A scan's data without the zeros stuffed after 0xff.
#[derive(Default)]
pub(super) struct Data {
    bytes: Vec<u8>,
    /// Where the data between restart markers begin; the last is the end.
    parts: Vec<usize>,
}

impl Data {
    /// Copies the scan that begins `bytes`, up to the end-of-image marker. `None` where there is none, or another
    /// marker that is no restart.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Option<()> {
        self.bytes.clear();
        self.parts.clear();
        self.parts.push(0);
        loop {
            let next = memchr::memchr(0xff, bytes)?;
            let (data, rest) = bytes.split_at(next);
            self.bytes.extend_from_slice(data);
            bytes = rest.get(2..)?;
            match rest[1] {
                0x00 => self.bytes.push(0xff),
                // A fill byte before a marker.
                0xff => bytes = &rest[1..],
                0xd0..=0xd7 => self.parts.push(self.bytes.len()),
                0xd9 => break,
                _ => return None,
            }
        }
        self.parts.push(self.bytes.len());
        // So that eight bytes can be read anywhere.
        self.bytes.extend_from_slice(&[0; 8]);
        Some(())
    }
}

/// The next bits, the first one highest, of which `count` are sure to be there.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    bits: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at, bits: 0, count: 0 }
    }

    /// At least 56 bits; zeros past the end.
    #[inline(always)]
    fn refill(&mut self) {
        let next = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>());
        let next = next.map_or(0, |bytes| u64::from_be_bytes(*bytes));
        self.bits |= next.wrapping_shr(self.count);
        // The count is 63 at most, and what is missing from it the other bits.
        self.at = self.at.wrapping_add(((63 ^ self.count) >> 3) as usize);
        self.count |= 56;
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.bits = self.bits.wrapping_shl(count);
        self.count = self.count.wrapping_sub(count);
    }

    /// Bytes of which a bit has been read.
    fn read(&self) -> usize {
        self.at.wrapping_sub((self.count >> 3) as usize)
    }

    /// The number of `size` bits after a code, of `both` bits together with it. One that begins with 0 is negative.
    #[inline(always)]
    fn number(&self, both: u32, size: u32) -> i32 {
        let bits = self.bits.wrapping_shl(both.wrapping_sub(size));
        // Twice, since by 64 bits in one go cannot be shifted.
        let value = (bits >> 1).wrapping_shr(63u32.wrapping_sub(size)) as i32;
        let negative = !((bits as i64) >> 63) as i32;
        value.wrapping_add(negative & 1i32.wrapping_sub(1i32.wrapping_shl(size)))
    }

    /// The difference to the first coefficient of the block before.
    #[inline(always)]
    fn dc(&mut self, table: &Table) -> Option<i32> {
        self.refill();
        let symbol = table.find(self.bits)?;
        let value = self.number(symbol.bits(), symbol.size());
        self.skip(symbol.bits());
        Some(value)
    }

    /// The other 63 coefficients, with KEEP put into their places. Returns the place of the last in the file's order,
    /// 0 for none.
    #[inline(always)]
    fn ac<const KEEP: bool>(&mut self, table: &Table, block: &mut [i16; 64]) -> Option<usize> {
        let (mut place, mut last) = (0, 0);
        loop {
            self.refill();
            // Two codes of 16 bits with numbers of 10 are 52.
            for _ in 0..2 {
                let symbol = table.find(self.bits)?;
                place += symbol.step();
                if place > 63 {
                    self.skip(symbol.bits());
                    // A run that leads past the block is damage.
                    return (place >= END).then_some(last);
                }
                if KEEP {
                    let value = self.number(symbol.bits(), symbol.size());
                    block[usize::from(ZIGZAG[place & 63]) & 63] = value as i16;
                    last = place;
                }
                self.skip(symbol.bits());
                if place == 63 {
                    return Some(last);
                }
            }
        }
    }
}

/// The samples of one component for the wanted MCUs.
#[derive(Default)]
pub(super) struct Plane {
    pub(super) samples: Vec<u8>,
    /// Samples in a row.
    pub(super) stride: usize,
}

/// The MCUs that are wanted.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

/// Reads the scan as far as it is needed. `None` where it is damaged up to there.
#[inline(always)]
pub(super) fn read<S: Simd>(
    simd: S,
    header: &Header,
    tables: &Tables,
    data: &Data,
    wanted: &Wanted,
    planes: &mut [Plane; 3],
) -> Option<()> {
    let components = header.components();
    let [across, down] = components[0].blocks;
    let per_row = header.width.div_ceil(8 * across);
    for (component, plane) in components.iter().zip(planes.iter_mut()) {
        let [across, down] = component.blocks;
        plane.stride = 8 * across * wanted.columns.len();
        plane.samples.resize(plane.stride * 8 * down * wanted.rows.len(), 0);
    }
    let total = per_row * header.height.div_ceil(8 * down);
    let interval = if header.restart == 0 { total } else { header.restart };
    if data.parts.len() - 1 != total.div_ceil(interval) {
        return None;
    }
    let mut bits = Bits::new(&data.bytes, 0);
    let mut before = [0i16; 3];
    let mut block = [0i16; 64];
    let (mut left, mut part) = (interval, 0);
    for row in 0..wanted.rows.end {
        // A file that declares more than it holds is not read on in zeros.
        if bits.read() > data.parts[part + 1] {
            return None;
        }
        for column in 0..per_row {
            if left == 0 {
                part += 1;
                // Each part ends where its data end.
                if bits.read() > data.parts[part] {
                    return None;
                }
                bits = Bits::new(&data.bytes, data.parts[part]);
                (before, left) = ([0; 3], interval);
            }
            left -= 1;
            let keep = wanted.rows.contains(&row) && wanted.columns.contains(&column);
            for ((component, plane), before) in components.iter().zip(planes.iter_mut()).zip(&mut before) {
                let Component { blocks: [across, down], steps, dc, ac, .. } = *component;
                let (steps, dc, ac) = (&tables.steps[steps & 3].0, &tables.dc[dc & 3], &tables.ac[ac & 3]);
                if !keep {
                    for _ in 0..across * down {
                        *before = before.wrapping_add(bits.dc(dc)? as i16);
                        bits.ac::<false>(ac, &mut block)?;
                    }
                    continue;
                }
                for y in 0..down {
                    for x in 0..across {
                        *before = before.wrapping_add(bits.dc(dc)? as i16);
                        let last = bits.ac::<true>(ac, &mut block)?;
                        let corner = ((row - wanted.rows.start) * down + y) * 8 * plane.stride
                            + ((column - wanted.columns.start) * across + x) * 8;
                        let rows = plane.samples[corner..].chunks_mut(plane.stride);
                        if last == 0 {
                            let value = idct::flat(before.wrapping_mul(steps[0]));
                            rows.take(8).for_each(|row| row[..8].fill(value));
                        } else {
                            block[0] = *before;
                            let samples = idct::block(simd, &block, steps);
                            for (row, samples) in rows.zip(samples.as_chunks::<8>().0) {
                                row[..8].copy_from_slice(samples);
                            }
                            block = [0; 64];
                        }
                    }
                }
            }
        }
    }
    (bits.read() <= data.parts[part + 1]).then_some(())
}
