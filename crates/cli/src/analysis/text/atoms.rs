//! Tokens that switch an atom on: a few selective atoms of a layer, each with the places of the text where it is loudest.

use anyhow::Result;
use serde::Serialize;
use whitebox_analysis::Section;
use whitebox_analysis::atoms::{ALMOST_DEAD, AtomStats, MOSTLY_ON};
use whitebox_datasets::text::Tokenizer;

use super::{KEPT, TextMeasures, visible};

/// Atoms shown of a layer.
const SHOWN: usize = 5;
/// Bytes of text shown on either side of a token, about.
const AROUND: usize = 32;

/// Some atoms of a layer.
#[derive(Debug, Serialize)]
pub struct WatchedLayer {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Which code it is.
    pub place: String,
    /// Atoms of the layer.
    pub atoms: usize,
    /// Those shown, most selective first.
    pub shown: Vec<WatchedAtom>,
}

/// One atom.
#[derive(Debug, Serialize)]
pub struct WatchedAtom {
    /// Its number, counted from 0.
    pub atom: usize,
    /// The share of tokens for which it is active.
    pub frequency: f64,
    /// The kurtosis of its activation.
    pub kurtosis: f64,
    /// Where it is loudest.
    pub top: Vec<Loud>,
}

/// A token that switches an atom on.
#[derive(Debug, Serialize)]
pub struct Loud {
    /// The activation.
    pub value: f64,
    /// Where its sequence begins in the text, in tokens.
    pub start: u64,
    /// The token in its sequence, with what frames it, counted from 0.
    pub position: u64,
    /// The text before it.
    pub before: String,
    /// The token.
    pub token: String,
    /// The text behind it.
    pub after: String,
}

impl WatchedLayer {
    /// The selective atoms of a layer that has read these sequences.
    pub fn of(layer: &AtomStats, starts: &[u64], rows: &[Vec<u32>], tokenizer: &dyn Tokenizer) -> Result<Self> {
        let shown = layer.selective(SHOWN).into_iter().map(|atom| {
            let top = layer.top[atom].iter().filter_map(|found| {
                let (row, start) = (rows.get(found.sequence as usize)?, starts.get(found.sequence as usize)?);
                Some(Loud::of(found.value, *start, row, found.position as usize, tokenizer))
            });
            Ok(WatchedAtom {
                atom,
                frequency: layer.frequency[atom],
                kurtosis: layer.kurtosis[atom],
                top: top.collect::<Result<_>>()?,
            })
        });
        let shown = shown.collect::<Result<_>>()?;
        Ok(WatchedLayer { layer: layer.layer, place: layer.place.clone(), atoms: layer.frequency.len(), shown })
    }
}

impl Loud {
    fn of(value: f64, start: u64, row: &[u32], position: usize, tokenizer: &dyn Tokenizer) -> Result<Self> {
        let bytes = |id: &u32| tokenizer.decode_bytes(&[*id]).map(|bytes| bytes.len());
        let (mut from, mut to) = (position, position + 1);
        let mut room = AROUND;
        while from > 0 && room > 0 {
            from -= 1;
            room = room.saturating_sub(bytes(&row[from])?);
        }
        room = AROUND;
        while to < row.len() && room > 0 {
            room = room.saturating_sub(bytes(&row[to])?);
            to += 1;
        }
        Ok(Loud {
            value,
            start,
            position: position as u64,
            before: tokenizer.decode(&row[from..position])?,
            token: tokenizer.token(row[position])?,
            after: tokenizer.decode(&row[position + 1..to])?,
        })
    }

    fn line(&self) -> String {
        let [before, token, after] = [&self.before, &self.token, &self.after].map(|text| visible(text));
        format!("{:>9.3}  {before}▸{token}◂{after}", self.value)
    }
}

/// The section; `shown` are the networks that were asked for.
pub fn section(shown: &[&TextMeasures]) -> Section {
    let method = format!(
        "An atom of a layer's code says something if few tokens switch it on, and if they have something in common. Of each layer shown, the {SHOWN} atoms of the largest kurtosis \
         E(x − Ex)^{{4}}/(E(x − Ex)^{{2}})^{{2}} of their activation x (what is not above zero counts as zero) among those active for {} to {} % of the tokens; of each the {KEPT} \
         tokens with the largest activation, marked by ▸ ◂ in the text around them. A causal model knows what stands before the mark, and the token, alone. Atoms and tokens are \
         chosen by these rules and not by eye.",
        100.0 * ALMOST_DEAD,
        100.0 * MOSTLY_ON
    );
    let mut section = Section { title: "Tokens that switch an atom on".into(), method, ..Section::default() };
    for measures in shown {
        for layer in &measures.atoms {
            let name = format!("{}, layer {}", measures.common.network, layer.layer + 1);
            for atom in &layer.shown {
                let lines: Vec<String> = atom.top.iter().map(Loud::line).collect();
                section.excerpts.push(format!(
                    "{name}, atom {}: active for {:.2} % of the tokens, kurtosis {:.1}\n{}",
                    atom.atom,
                    100.0 * atom.frequency,
                    atom.kurtosis,
                    lines.join("\n")
                ));
            }
            section.findings.push(match layer.shown.iter().filter(|atom| one_token(atom)).count() {
                _ if layer.shown.is_empty() => {
                    format!("{name}: none of the {} atoms in {} is active for so many tokens.", layer.atoms, layer.place)
                }
                alike => format!(
                    "{name} ({}): of {alike} of the {} atoms shown the {KEPT} loudest places are one and the same token.",
                    layer.place,
                    layer.shown.len()
                ),
            });
        }
    }
    section
}

fn one_token(atom: &WatchedAtom) -> bool {
    atom.top.windows(2).all(|pair| pair[0].token == pair[1].token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use whitebox_datasets::text::TokenizerSpec;

    #[test]
    fn the_token_is_marked_where_it_stands() {
        let tokenizer = TokenizerSpec::Bytes.open().unwrap();
        let row = tokenizer.encode("a cat\nsat on the mat and looked at the other cats all day").unwrap();
        let found = Loud::of(1.5, 0, &row, 6, tokenizer.as_ref()).unwrap();
        assert_eq!((found.before.as_str(), found.token.as_str()), ("a cat\n", "s"));
        assert!(found.after.starts_with("at on the mat") && found.after.len() == AROUND);
        assert!(found.line().ends_with("a cat⏎▸s◂at on the mat and looked at the "), "{}", found.line());
        assert_eq!(Loud::of(1.5, 0, &row, 0, tokenizer.as_ref()).unwrap().before, "");
        assert_eq!(Loud::of(1.5, 0, &row, row.len() - 1, tokenizer.as_ref()).unwrap().after, "");
    }
}
