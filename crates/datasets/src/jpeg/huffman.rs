//! Huffman codes as one table look-up: the next ten bits say how long the code and the number behind it are together,
//! how long the number is, and how far it leads in the block.

/// Bits looked at in one go; longer codes are rare and are searched for.
const LOOK: u32 = 10;
/// The step of an end of block: past the end of any block, and told from a run that is too long.
pub(super) const END: usize = 128;

/// What follows: `bits` of code and number together, `size` of them the number, which lies `step` places on.
#[derive(Clone, Copy)]
pub(super) struct Symbol(u32);

impl Symbol {
    fn new(length: u32, byte: u8, dc: bool) -> Self {
        let (run, size) = (u32::from(byte >> 4), u32::from(byte & 15));
        let step = match (dc, byte) {
            (true, _) => 0,
            (false, 0) => END as u32,
            _ => run + 1,
        };
        Self((length + size) | size << 8 | step << 16)
    }

    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        self.0 & 0xff
    }

    #[inline(always)]
    pub(super) fn size(self) -> u32 {
        (self.0 >> 8) & 0xff
    }

    #[inline(always)]
    pub(super) fn step(self) -> usize {
        (self.0 >> 16) as usize
    }
}

/// One of the up to eight codes of a file.
pub(super) struct Table {
    short: Box<[u32; 1 << LOOK]>,
    /// For each length: the first code that is longer, aligned to 16 bits; and what turns a code into its place.
    ends: [u32; 17],
    offsets: [i32; 17],
    bytes: Vec<u8>,
    dc: bool,
    /// The segment's bytes that it was made from, since most files have the same.
    from: Vec<u8>,
}

impl Default for Table {
    fn default() -> Self {
        let (ends, offsets) = ([0; 17], [0; 17]);
        Self { short: Box::new([0; 1 << LOOK]), ends, offsets, bytes: Vec::new(), dc: false, from: Vec::new() }
    }
}

impl Table {
    /// From the part of a DHT segment that holds this table: how many codes there are of each length, then their bytes.
    /// `None` for a code that is no code, and for numbers that no baseline file has.
    pub(super) fn set(&mut self, dc: bool, part: &[u8]) -> Option<()> {
        if !self.from.is_empty() && self.dc == dc && self.from == part {
            return Some(());
        }
        self.from.clear();
        let (counts, bytes) = part.split_at_checked(16)?;
        let longest = if dc { 11 } else { 10 };
        let sound = |byte: &u8| byte & 15 <= longest && (!dc || *byte <= longest);
        if !bytes.iter().all(sound) {
            return None;
        }
        self.short.fill(0);
        let (mut code, mut place) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            self.offsets[length as usize] = place as i32 - code as i32;
            for &byte in bytes.get(place..place + usize::from(count))? {
                if code >> length != 0 {
                    return None;
                }
                if length <= LOOK {
                    let first = (code << (LOOK - length)) as usize;
                    self.short[first..first + (1 << (LOOK - length))].fill(Symbol::new(length, byte, dc).0);
                }
                code += 1;
            }
            place += usize::from(count);
            self.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.dc = dc;
        self.from.extend_from_slice(part);
        Some(())
    }

    /// The symbol that begins with the highest of these bits; `None` where there is no such code.
    #[inline(always)]
    pub(super) fn find(&self, bits: u64) -> Option<Symbol> {
        let entry = self.short[(bits >> (64 - LOOK)) as usize];
        if entry != 0 { Some(Symbol(entry)) } else { self.find_long(bits) }
    }

    #[cold]
    #[inline(never)]
    fn find_long(&self, bits: u64) -> Option<Symbol> {
        let head = (bits >> 48) as u32;
        let length = (LOOK + 1..=16).find(|&length| head < self.ends[length as usize])?;
        let place = (head >> (16 - length)) as i32 + self.offsets[length as usize];
        let byte = self.bytes.get(usize::try_from(place).ok()?)?;
        Some(Symbol::new(length, *byte, self.dc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of the standard's table K.3 for the DC of luminance: lengths 2, 3, 3, 3, 3, 3, 4, 5, ... 9.
    fn luminance() -> Vec<u8> {
        [&[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0][..], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]].concat()
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        let mut table = Table::default();
        table.set(true, &luminance()).unwrap();
        for (code, length, size) in [(0b00u64, 2u32, 0), (0b010, 3, 1), (0b110, 3, 5), (0b1110, 4, 6), (0x1fe, 9, 11)] {
            let symbol = table.find(code << (64 - length)).unwrap();
            assert_eq!((symbol.bits(), symbol.size(), symbol.step()), (length + size, size, 0));
        }
        assert!(table.find(u64::MAX).is_none());
    }

    #[test]
    fn codes_longer_than_the_look_up_are_found() {
        // One code of each length from 1 to 16: 0, 10, 110, ...
        let part = [
            &[1; 16][..],
            &[0x01, 0x11, 0x21, 0x31, 0x41, 0x51, 0x61, 0x71, 0x81, 0x91, 0xa1, 0xb1, 0, 0xf0, 0x02, 0x0a],
        ];
        let mut table = Table::default();
        table.set(false, &part.concat()).unwrap();
        for length in 1..=16u32 {
            let symbol = table.find(!(u64::MAX >> (length - 1))).unwrap();
            let byte = part[1][length as usize - 1];
            assert_eq!(symbol.size(), u32::from(byte & 15));
            assert_eq!(symbol.bits(), length + symbol.size());
            assert_eq!(symbol.step(), if byte == 0 { END } else { usize::from(byte >> 4) + 1 });
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let mut table = Table::default();
        assert!(table.set(false, &[]).is_none());
        assert!(table.set(false, &[3; 15]).is_none());
        // Three codes of one bit; fewer bytes than codes; a number of 12 bits.
        assert!(table.set(false, &[&[3][..], &[0; 15], &[1, 2, 3]].concat()).is_none());
        assert!(table.set(false, &[&[2][..], &[0; 15], &[1]].concat()).is_none());
        assert!(table.set(true, &[&[1][..], &[0; 15], &[12]].concat()).is_none());
        assert!(table.set(true, &luminance()).is_some());
    }
}
