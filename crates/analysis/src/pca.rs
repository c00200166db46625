//! Principal components of the tokens of several images together, and the foreground by the first.
//!
//! As in the paper's figure: the features of a token are its U_k^T z of all heads side by side; the first component, scaled to 0..1 over all tokens, splits foreground
//! from background at a half; the next three colour the foreground. The sign of a component means nothing: it is turned so that its entries of largest magnitude
//! in the mean of each image's border fall on the background side.

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Principal components of some tokens.
#[derive(Debug)]
pub struct Components {
    /// Each token's coordinates, `[images, n, count]`, float64, each component scaled to 0..1 over all tokens.
    pub values: Tensor,
    /// Share of the variance that each holds.
    pub variance: Vec<f64>,
}

/// The first `count` components of tokens `[images, n, features]`.
///
/// # Errors
/// Fewer features or tokens than components.
pub fn components(tokens: &Tensor, count: i64) -> Result<Components> {
    let (images, n, features) = tokens.size3()?;
    if count < 1 || count > features || images * n <= count {
        return Err(Error::Shape {
            what: "tokens for principal components".into(),
            found: tokens.size(),
            expected: format!("at least {count} features and more than {count} tokens"),
        });
    }
    let flat = tokens.detach().f_to_kind(Kind::Double)?.f_reshape([images * n, features])?;
    let centred = flat.f_sub(&flat.f_mean_dim([0i64].as_slice(), true, None)?)?;
    let (energies, directions) = centred.tr().f_matmul(&centred)?.f_linalg_eigh("L")?;
    let all = energies.f_clamp_min(0.0)?.f_sum(Kind::Double)?.f_double_value(&[])?.max(f64::MIN_POSITIVE);
    let last = features - count;
    let variance: Vec<f64> = energies.f_narrow(0, last, count)?.f_flip([0])?.f_clamp_min(0.0)?.try_into()?;
    let values = centred.f_matmul(&directions.f_narrow(1, last, count)?.f_flip([1])?)?;
    let (least, most) = (values.f_amin([0i64].as_slice(), true)?, values.f_amax([0i64].as_slice(), true)?);
    let scaled = values.f_sub(&least)?.f_div(&most.f_sub(&least)?.f_clamp_min(f64::MIN_POSITIVE)?)?;
    Ok(Components {
        values: scaled.f_reshape([images, n, count])?,
        variance: variance.into_iter().map(|energy| energy / all).collect(),
    })
}

/// Which tokens the first component takes for foreground, `[images, n]` bool: those on the side of a half on which the images' borders are not.
///
/// # Errors
/// Components of another number of tokens than the grid has.
pub fn foreground(found: &Components, grid: [i64; 2]) -> Result<Tensor> {
    let [height, width] = grid;
    let first = found.values.f_select(2, 0)?;
    let (images, n) = first.size2()?;
    if n != height * width {
        let expected = format!("[images, {}], a token for each patch of {height} x {width}", height * width);
        return Err(Error::Shape { what: "principal components".into(), found: first.size(), expected });
    }
    let map = first.f_reshape([images, height, width])?;
    let edges = [map.f_select(1, 0)?, map.f_select(1, height - 1)?, map.f_select(2, 0)?, map.f_select(2, width - 1)?];
    let border = Tensor::f_cat(&edges, 1)?.f_mean(Kind::Double)?.f_double_value(&[])?;
    Ok(if border > 0.5 { first.f_lt(0.5)? } else { first.f_gt(0.5)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_planted_direction_is_found_and_splits_the_images() {
        tch::manual_seed(4);
        // Two images of 4 x 4 patches: the inner four are shifted along one direction.
        let direction = Tensor::randn([6], (Kind::Double, Device::Cpu));
        let inner = Tensor::zeros([2, 4, 4, 1], (Kind::Double, Device::Cpu));
        let _ = inner.narrow(1, 1, 2).narrow(2, 1, 2).fill_(5.0);
        let noise = Tensor::randn([2, 16, 6], (Kind::Double, Device::Cpu)) * 0.1;
        let found = components(&(inner.view([2, 16, 1]) * direction + noise), 3).unwrap();
        assert!(found.variance[0] > 0.95 && found.variance[0] >= found.variance[1], "{:?}", found.variance);
        let expected = inner.view([2, 16]).gt(0.0);
        assert_eq!(foreground(&found, [4, 4]).unwrap(), expected);
        assert!(foreground(&found, [4, 5]).is_err());
        assert!(components(&Tensor::zeros([1, 3, 6], (Kind::Double, Device::Cpu)), 4).is_err());
    }
}
