//! What a token attends to, head by head, as maps over the image.
//!
//! The map of head k is the row of the class token in its attention, without the class token's own entry, laid out as the patches lie; in a model without a class token it
//! is the mean over all tokens' rows.

use tch::Tensor;

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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

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
}
