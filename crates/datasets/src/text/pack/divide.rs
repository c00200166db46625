//! What of a text is held out: each document is cut once, and the parts of a chunk go to training or validation.

use serde::{Deserialize, Serialize};

use crate::text::{Chunk, Piece};

/// Where the validation share is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holdout {
    /// The end of the whole text, as with tiny-shakespeare: the first 90 % train, the last 10 % validate.
    #[default]
    Text,
    /// The end of each document.
    Document,
}

/// A part of a piece that goes to one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share<'a> {
    pub(super) text: &'a str,
    /// Where it begins in its document.
    pub(super) offset: u64,
    /// Whether its side's part of the document begins with it.
    pub(super) begins: bool,
    /// Whether that ends with it.
    pub(super) ends: bool,
}

/// The rule: which share of how much text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    pub(super) validation: f64,
    pub(super) holdout: Holdout,
    pub(super) text_bytes: u64,
}

impl Division {
    /// What of a chunk is trained on, and what is held out. A cut falls at the character that its byte lies in.
    pub(super) fn divide<'a>(&self, chunk: &'a Chunk) -> [Vec<Share<'a>>; 2] {
        let mut sides = [Vec::new(), Vec::new()];
        let mut start = chunk.start;
        for piece in &chunk.pieces {
            let cut = match self.holdout {
                Holdout::Document => kept(piece.document_bytes, self.validation),
                Holdout::Text => {
                    // a document's own beginning lies before the piece by its offset
                    let kept = kept(self.text_bytes, self.validation).saturating_add(piece.offset);
                    kept.saturating_sub(start).min(piece.document_bytes)
                }
            };
            start += piece.text.len() as u64;
            let [train, validation] = halves(piece, cut);
            sides[0].extend(train);
            sides[1].extend(validation);
        }
        sides
    }
}

fn kept(bytes: u64, validation: f64) -> u64 {
    // Rounding to the nearest undoes that 1 - 0.1 is no sum of binary fractions; then down to a whole byte.
    let share = (bytes as f64 * (1.0 - validation) * 1e6).round() / 1e6;
    (share as u64).min(bytes)
}

/// The two sides of a piece of a document that is cut after `cut` bytes.
fn halves(piece: &Piece, cut: u64) -> [Option<Share<'_>>; 2] {
    let Piece { text, offset, document_bytes } = piece;
    let end = offset + text.len() as u64;
    let mut at = cut.clamp(*offset, end) - offset;
    while !text.is_char_boundary(at as usize) {
        at -= 1;
    }
    let (before, after) = text.split_at(at as usize);
    let nothing = before.is_empty() && *offset == 0;
    // an empty document belongs to training
    let train = if *document_bytes == 0 { true } else { *offset < cut && !nothing };
    let train = train.then_some(Share { text: before, offset: *offset, begins: *offset == 0, ends: end >= cut });
    let validation = (!after.is_empty()).then_some(Share {
        text: after,
        offset: offset + at,
        begins: cut >= *offset,
        ends: end == *document_bytes,
    });
    [train, validation]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(text: &str, cuts: &[usize], start: u64) -> Vec<Chunk> {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| text.floor_char_boundary_of(*cut)).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        ends.dedup();
        let piece = |pair: &[usize]| Piece {
            text: text[pair[0]..pair[1]].into(),
            offset: pair[0] as u64,
            document_bytes: text.len() as u64,
        };
        let chunk =
            |pair: &[usize]| Chunk { file: 0, number: 0, start: start + pair[0] as u64, pieces: vec![piece(pair)] };
        ends.windows(2).map(chunk).collect()
    }

    trait Floor {
        fn floor_char_boundary_of(&self, at: usize) -> usize;
    }

    impl Floor for str {
        fn floor_char_boundary_of(&self, at: usize) -> usize {
            (0..=at.min(self.len())).rev().find(|at| self.is_char_boundary(*at)).unwrap_or(0)
        }
    }

    #[test]
    fn the_cut_of_tiny_shakespeare() {
        // int(0.9 * n) in Python
        assert_eq!(kept(1_115_394, 0.1), 1_003_854);
        assert_eq!((kept(10, 0.1), kept(7, 0.0), kept(3, 0.5)), (9, 7, 1));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_moved_however_a_text_is_cut_into_chunks(
            text in "[aé😀 ]{1,40}",
            cuts in proptest::collection::vec(0usize..120, 0..5),
            validation in 0.0f64..0.99,
            document in any::<bool>(),
            before in 0u64..50,
        ) {
            let holdout = if document { Holdout::Document } else { Holdout::Text };
            let text_bytes = before + text.len() as u64;
            let division = Division { validation, holdout, text_bytes };
            let chunks = chunk(&text, &cuts, before);
            let mut sides = [String::new(), String::new()];
            let mut frames = [(0, 0), (0, 0)];
            for chunk in &chunks {
                for (side, shares) in division.divide(chunk).iter().enumerate() {
                    for share in shares {
                        prop_assert_eq!(share.begins, sides[side].is_empty() && frames[side].0 == 0);
                        prop_assert_eq!(frames[side].1, 0, "nothing comes after the end");
                        sides[side] += share.text;
                        frames[side].0 += usize::from(share.begins);
                        frames[side].1 += usize::from(share.ends);
                    }
                }
            }
            prop_assert_eq!(sides.concat(), text.clone());
            let kept = if document { kept(text.len() as u64, validation) } else {
                kept(text_bytes, validation).saturating_sub(before)
            };
            prop_assert_eq!(sides[0].len(), text.floor_char_boundary_of(kept as usize));
            for (side, frame) in sides.iter().zip(frames) {
                prop_assert_eq!(frame.0, frame.1);
                prop_assert!(frame.0 <= 1 && (side.is_empty() || frame.0 == 1));
            }
        }
    }
}
