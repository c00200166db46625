//! The segments before the first scan: sizes, tables, and whether this is a kind of file that is decoded here.

use super::huffman::Table;

/// Places of a block's coefficients in the order in which a file has them.
#[rustfmt::skip]
pub(super) const ZIGZAG: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Tables in the four places that a file can put them.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) dc: [Table; 4],
    pub(super) ac: [Table; 4],
    /// Steps of quantisation, rows first.
    pub(super) steps: [Steps; 4],
}

pub(super) struct Steps(pub(super) [i16; 64]);

impl Default for Steps {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// A colour plane of the file.
#[derive(Clone, Copy, Default)]
pub(super) struct Component {
    id: u8,
    /// Blocks of an MCU, across and down.
    pub(super) blocks: [usize; 2],
    pub(super) steps: usize,
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// What the segments say.
#[derive(Default)]
pub(super) struct Header {
    pub(super) width: usize,
    pub(super) height: usize,
    components: [Component; 3],
    count: usize,
    /// MCUs between restart markers; 0 for none.
    pub(super) restart: usize,
    /// Where the scan's data begin.
    pub(super) scan: usize,
}

impl Header {
    /// Grey, or luminance and two chrominances.
    pub(super) fn components(&self) -> &[Component] {
        &self.components[..self.count]
    }

    /// Reads up to the first scan. `None` for what is not decoded here: anything but 8-bit Huffman-coded sequential
    /// files in one scan, grey or YCbCr, chroma in full, halved across or halved both ways; and for any damage.
    pub(super) fn read(bytes: &[u8], tables: &mut Tables) -> Option<Self> {
        let mut header = Self::default();
        let (mut jfif, mut adobe) = (false, None);
        // Tables of the file before must not stand in for ones that this one lacks.
        let (mut has_steps, mut has_dc, mut has_ac) = ([false; 4], [false; 4], [false; 4]);
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return None;
        }
        let mut at = 2;
        loop {
            let &[0xff, marker, high, low] = bytes.get(at..at + 4)? else { return None };
            if marker == 0xff {
                at += 1;
                continue;
            }
            let length = usize::from(u16::from_be_bytes([high, low]));
            let mut body = bytes.get(at + 4..at + 2 + length)?;
            at += 2 + length;
            match marker {
                0xdb => {
                    while let Some((&place, rest)) = body.split_first() {
                        // Steps of 16 bits (the upper half) are not those of a baseline file.
                        let (values, rest) = rest.split_at_checked(64)?;
                        let steps = &mut tables.steps.get_mut(usize::from(place))?.0;
                        for (&k, &value) in ZIGZAG.iter().zip(values) {
                            steps[usize::from(k)] = i16::from(value);
                        }
                        has_steps[usize::from(place)] = true;
                        body = rest;
                    }
                }
                0xc4 => {
                    while let Some((&place, rest)) = body.split_first() {
                        let count: usize = rest.get(..16)?.iter().map(|&count| usize::from(count)).sum();
                        let (part, rest) = rest.split_at_checked(16 + count)?;
                        let (kind, place) = (place >> 4, usize::from(place & 15));
                        let (set, has) = match kind {
                            0 => (&mut tables.dc, &mut has_dc),
                            1 => (&mut tables.ac, &mut has_ac),
                            _ => return None,
                        };
                        set.get_mut(place)?.set(kind == 0, part)?;
                        has[place] = true;
                        body = rest;
                    }
                }
                0xc0 | 0xc1 => header.frame(body)?,
                0xdd => header.restart = usize::from(u16::from_be_bytes(body.try_into().ok()?)),
                0xe0 => jfif |= body.starts_with(b"JFIF\0"),
                0xee if body.starts_with(b"Adobe") => adobe = Some(*body.get(11)?),
                0xe1..=0xef | 0xfe => {}
                0xda => {
                    header.scan(body)?;
                    header.scan = at;
                    let whole = |c: &Component| has_steps[c.steps] && has_dc[c.dc] && has_ac[c.ac];
                    let ids = header.components.map(|c| c.id);
                    let rgb = match (jfif, adobe) {
                        (true, _) => false,
                        (false, Some(transform)) => transform != 1,
                        (false, None) => &ids == b"RGB",
                    };
                    return (header.components().iter().all(whole) && !(rgb && header.count == 3)).then_some(header);
                }
                _ => return None,
            }
        }
    }

    /// SOF: precision, height, width, and of each component its name, factors and table of steps.
    fn frame(&mut self, body: &[u8]) -> Option<()> {
        let (&[precision, h1, h0, w1, w0, count], list) = body.split_first_chunk()?;
        (self.height, self.width) =
            (usize::from(u16::from_be_bytes([h1, h0])), usize::from(u16::from_be_bytes([w1, w0])));
        let list = list.as_chunks::<3>();
        let sound = precision == 8 && self.count == 0 && matches!(count, 1 | 3) && list.1.is_empty();
        if !sound || list.0.len() != usize::from(count) || self.width == 0 || self.height == 0 {
            return None;
        }
        self.count = list.0.len();
        for (component, &[id, factors, steps]) in self.components.iter_mut().zip(list.0) {
            // A file of one component has its blocks row by row, whatever its factors say.
            let factors = if count == 1 { 0x11 } else { factors };
            let blocks = [usize::from(factors >> 4), usize::from(factors & 15)];
            *component = Component { id, blocks, steps: usize::from(steps), dc: 0, ac: 0 };
            if steps > 3 {
                return None;
            }
        }
        let [luma, blue, red] = self.components.map(|component| component.blocks);
        let known = count == 1 || matches!(luma, [1, 1] | [2, 1] | [2, 2]) && blue == [1, 1] && red == [1, 1];
        // libjpeg doubles the pixels of narrower chroma where it otherwise interpolates.
        (known && !(luma[0] == 2 && self.width < 5)).then_some(())
    }

    /// SOS: the tables of each component, and that all coefficients come in this scan.
    fn scan(&mut self, body: &[u8]) -> Option<()> {
        let (&count, rest) = body.split_first()?;
        let (list, [0, 63, 0]) = rest.split_last_chunk()? else { return None };
        let list = list.as_chunks::<2>();
        if self.count == 0 || usize::from(count) != self.count || list.0.len() != self.count || !list.1.is_empty() {
            return None;
        }
        for (component, &[id, tables]) in self.components.iter_mut().zip(list.0) {
            (component.dc, component.ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            if id != component.id || component.dc > 3 || component.ac > 3 {
                return None;
            }
        }
        Some(())
    }
}
