//! Rows of different lengths as one rectangle.

use crate::{Error, Result};

/// Rows filled up: row `r` lies at `r * length`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padded {
    /// `[rows, length]` tokens.
    pub ids: Vec<u32>,
    /// `[rows, length]`: true where the token is one of the row, false where it fills it up.
    pub mask: Vec<bool>,
    /// Tokens in a row.
    pub length: usize,
}

/// Fills rows up to `length` with `pad`, at their ends.
///
/// # Errors
/// [`Error::Config`] for a row that is longer: cut it where its frame is known
/// ([`Tokenizer::encode_sentence`](super::Tokenizer::encode_sentence)).
pub fn padded<R: AsRef<[u32]>>(rows: &[R], length: usize, pad: u32) -> Result<Padded> {
    let mut ids = Vec::with_capacity(rows.len() * length);
    let mut mask = Vec::with_capacity(rows.len() * length);
    for (number, row) in rows.iter().enumerate() {
        let row = row.as_ref();
        if row.len() > length {
            let expected = format!("at least {}, the tokens of row {number}, is expected: or cut it", row.len());
            return Err(Error::config("length", length, expected));
        }
        ids.extend_from_slice(row);
        mask.resize(ids.len(), true);
        ids.resize((number + 1) * length, pad);
        mask.resize(ids.len(), false);
    }
    Ok(Padded { ids, mask, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up_and_never_cut() {
        let both = padded(&[vec![1, 2], vec![]], 3, 9).unwrap();
        assert_eq!(both.ids, [1, 2, 9, 9, 9, 9]);
        assert_eq!(both.mask, [true, true, false, false, false, false]);
        assert!(padded(&[[1, 2]], 1, 0).unwrap_err().to_string().contains("row 0"));
    }
}
