//! A JPEG decoder that decodes only the part of a picture that is asked for.
//!
//! Random crops throw away half of the pixels on average. Of a file like nearly all photographs (8-bit, Huffman-coded,
//! sequential, one scan) this decoder reads the codes up to the end of the wanted part and computes the samples inside
//! it alone, with libjpeg's integers: the pixels are those of PIL and torchvision, and do not depend on the part.
//!
//! It has no errors: of anything else (progressive, arithmetic, CMYK, rare chroma factors) and of anything that looks
//! damaged it says `None`, and the general decoder says what is wrong or makes the best of it. Damage behind the wanted
//! part is not seen.
//!
//! Vectors are those of `fearless_simd`, which picks the instructions at run time and has a safe interface.

mod colour;
mod header;
mod huffman;
mod idct;
mod scan;

use fearless_simd::{Level, Simd, dispatch};

use crate::decode::MOST_BYTES;
use crate::raster::{Part, Raster};
use header::{Header, Tables};

/// The decoder's tables and memory, kept from file to file.
pub(crate) struct Decoder {
    level: Level,
    tables: Tables,
    data: scan::Data,
    planes: [scan::Plane; 3],
    rows: colour::Rows,
}

impl Default for Decoder {
    fn default() -> Self {
        let (tables, data, planes, rows) = Default::default();
        Self { level: Level::new(), tables, data, planes, rows }
    }
}

impl Decoder {
    /// Decodes the part that `choose` names once it is told `[height, width]`; it must lie inside. The result has one
    /// plane for a grey file, else three; `pixels` is its memory. `None` for what is not decoded here, where `choose`
    /// may have been asked already, or where it names no part.
    pub(crate) fn part(
        &mut self,
        bytes: &[u8],
        mut pixels: Vec<u8>,
        choose: impl FnOnce([usize; 2]) -> Option<Part>,
    ) -> Option<Raster> {
        let header = Header::read(bytes, &mut self.tables)?;
        // Samples of three components, and the pixels that become of them.
        if 6 * (header.width * header.height) as u64 > MOST_BYTES {
            return None;
        }
        self.data.read(bytes.get(header.scan..)?)?;
        let part = choose([header.height, header.width])?;
        let planes = header.components().len();
        pixels.resize(planes * part.width * part.height, 0);
        let level = self.level;
        dispatch!(level, simd => self.decode(simd, &header, &part, &mut pixels))?;
        let Part { width, height, .. } = part;
        Some(Raster { width, height, planes, pixels })
    }

    #[inline(always)]
    fn decode<S: Simd>(&mut self, simd: S, header: &Header, part: &Part, out: &mut [u8]) -> Option<()> {
        let Part { top, left, height, width } = *part;
        let components = header.components();
        let [across, down] = components[0].blocks;
        // Interpolating chroma takes a sample more on each side.
        let [beside, above] = [across, down].map(|factor| if factor == 1 { 0 } else { 2 });
        let wanted = scan::Wanted {
            columns: left.saturating_sub(beside) / (8 * across)
                ..(left + width + beside).min(header.width).div_ceil(8 * across),
            rows: top.saturating_sub(above) / (8 * down)..(top + height + above).min(header.height).div_ceil(8 * down),
        };
        scan::read(simd, header, &self.tables, &self.data, &wanted, &mut self.planes)?;
        let places = std::array::from_fn(|k| {
            let [own_across, own_down] = components.get(k).map_or([1, 1], |component| component.blocks);
            colour::Place {
                corner: [8 * own_across * wanted.columns.start, 8 * own_down * wanted.rows.start],
                end: [(header.width * own_across).div_ceil(across), (header.height * own_down).div_ceil(down)],
            }
        });
        if components.len() == 3 {
            colour::convert(&self.planes, &places, [across, down], part, &mut self.rows, out);
            return Some(());
        }
        let [column, row] = places[0].corner;
        let plane = &self.planes[0];
        for (y, line) in out.chunks_exact_mut(width).enumerate() {
            line.copy_from_slice(&plane.samples[(top + y - row) * plane.stride + left - column..][..width]);
        }
        Some(())
    }
}
