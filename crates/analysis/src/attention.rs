//! What a token attends to, head by head: as maps over the image, and as shares of where it goes in a sequence.
//!
//! The map of head k is the row of the class token in its attention, without the class token's own entry, laid out as the patches lie; in a model without a class token it
//! is the mean over all tokens' rows.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{Error, Result};

/// The attention of the class token (or, without one, of all tokens together) on the patches, `[B, K, height, width]`; a map's sum is at most 1.
///
/// # Shapes
/// `attention`: `[B, K, n, n]` with n the patches, or one more.
///
/// # Errors
/// An attention of another number of tokens.
pub fn maps(attention: &Tensor, grid: [i64; 2]) -> Result<Tensor> {
    let [height, width] = grid;
    let patches = height * width;
    let (batch, heads, n, _) = attention.size4()?;
    let rows = if n == patches + 1 {
        attention.f_select(2, 0)?.f_narrow(2, 1, patches)?
    } else if n == patches {
        attention.f_mean_dim([2i64].as_slice(), false, None)?
    } else {
        let expected = format!("{patches} tokens, one for each of {height} x {width} patches, or one more");
        return Err(Error::Shape { what: "the attention".into(), found: attention.size(), expected });
    };
    Ok(rows.f_reshape([batch, heads, height, width])?)
}

/// How concentrated attention is: the entropy of each row over log n, mean over rows, `[B, K]`: 0 on one token, 1 evenly on all.
///
/// # Shapes
/// `attention`: `[B, K, n, n]`.
///
/// # Errors
/// A tensor of another rank.
pub fn evenness(attention: &Tensor) -> Result<Tensor> {
    let (_, _, _, n) = attention.size4()?;
    let entropy = attention.f_xlogy(attention)?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?.f_neg()?;
    Ok(entropy.f_mean_dim([-1i64].as_slice(), false, None)?.f_div_scalar((n.max(2) as f64).ln())?)
}

/// Where attention goes in a sequence, head by head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destinations {
    /// Weight of a token on itself, a mean over tokens.
    pub itself: f64,
    /// On the token before it.
    pub before: f64,
    /// On the first token of the sequence.
    pub first: f64,
}

/// Where the heads look, `[K]`: means over the tokens from the third on, to which itself, the one before and the first are three, and over the batch. No heads where
/// there are fewer than three tokens.
///
/// # Shapes
/// `attention`: `[B, K, n, n]`.
///
/// # Errors
/// A tensor of another rank.
pub fn destinations(attention: &Tensor) -> Result<Vec<Destinations>> {
    let (_, heads, n, _) = attention.size4()?;
    if n < 3 {
        return Ok(Vec::new());
    }
    let rows = attention.f_to_kind(Kind::Double)?.f_narrow(2, 2, n - 2)?;
    let mean = |weights: Tensor| -> Result<Vec<f64>> {
        Ok(weights.f_mean_dim([0i64, 2].as_slice(), false, None)?.try_into()?)
    };
    let itself = mean(rows.f_diagonal(2, 2, 3)?)?;
    let before = mean(rows.f_diagonal(1, 2, 3)?)?;
    let first = mean(rows.f_select(3, 0)?)?;
    Ok((0..heads as usize).map(|k| Destinations { itself: itself[k], before: before[k], first: first[k] }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_class_token_s_row_is_laid_out_as_the_patches_lie() {
        let attention = Tensor::arange(25, (Kind::Float, Device::Cpu)).view([1, 1, 5, 5]);
        let map = maps(&attention, [2, 2]).unwrap();
        assert_eq!(map.size(), [1, 1, 2, 2]);
        assert_eq!(Vec::<f64>::try_from(map.flatten(0, -1)).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        let without = maps(&Tensor::ones([2, 3, 4, 4], (Kind::Float, Device::Cpu)), [2, 2]).unwrap();
        assert_eq!(without.size(), [2, 3, 2, 2]);
        assert!(maps(&attention, [3, 3]).unwrap_err().to_string().contains("one more"));
    }

    #[test]
    fn evenness_goes_from_one_token_to_all() {
        let one = Tensor::eye(4, (Kind::Double, Device::Cpu)).view([1, 1, 4, 4]);
        let all = Tensor::full([1, 1, 4, 4], 0.25, (Kind::Double, Device::Cpu));
        assert_eq!(evenness(&one).unwrap().double_value(&[0, 0]), 0.0);
        assert!((evenness(&all).unwrap().double_value(&[0, 0]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn where_a_head_looks_is_told_apart() {
        let (n, kind) = (5, (Kind::Float, Device::Cpu));
        let itself = Tensor::eye(n, kind);
        let mut before = Tensor::zeros([n, n], kind);
        before.narrow(0, 1, n - 1).narrow(1, 0, n - 1).copy_(&Tensor::eye(n - 1, kind));
        let _ = before.get(0).get(0).fill_(1.0);
        let first = Tensor::zeros([n, n], kind);
        let _ = first.select(1, 0).fill_(1.0);
        before = before * 0.75 + &itself * 0.25;
        let found = destinations(&Tensor::stack(&[itself, before, first], 0).unsqueeze(0)).unwrap();
        assert_eq!(found[0], Destinations { itself: 1.0, before: 0.0, first: 0.0 });
        assert_eq!(found[1], Destinations { itself: 0.25, before: 0.75, first: 0.0 });
        assert_eq!(found[2], Destinations { itself: 0.0, before: 0.0, first: 1.0 });
        assert!(destinations(&Tensor::ones([1, 2, 2, 2], kind)).unwrap().is_empty());
    }
}
