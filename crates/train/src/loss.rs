//! Cross-entropy with label smoothing (Szegedy et al., arXiv:1512.00567, section 7): the target is 1 - s on the label plus s / C on every
//! class. The published CRATE runs use s = 0.1.

use tch::{Reduction, Tensor};

use crate::error::{Error, Result};

/// Mean cross-entropy over the batch, a scalar. `smoothing` 0 is the plain loss. A label of -100 is left out of the mean.
///
/// # Shapes
/// `logits` `[B, C]`, `labels` `[B]` of int64.
///
/// # Errors
/// A smoothing outside 0 to 1, shapes that do not fit.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&smoothing) {
        return Err(Error::Config(format!("label smoothing {smoothing}: expected a number from 0 to 1")));
    }
    Ok(logits.f_cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, smoothing)?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn is_the_mean_over_the_smoothed_target() -> Result<()> {
        let logits = Tensor::arange(12, (Kind::Double, Device::Cpu)).sin().reshape([3, 4]);
        let labels = Tensor::from_slice(&[2i64, 0, 3]);
        let rows: Vec<Vec<f64>> = Vec::try_from(&logits)?;
        let expected = rows.iter().zip([2usize, 0, 3]).map(|(row, label)| {
            let total: f64 = row.iter().map(|x| x.exp()).sum();
            let target = |c: usize| 0.1 / 4.0 + if c == label { 0.9 } else { 0.0 };
            row.iter().enumerate().map(|(c, x)| -target(c) * (x.exp() / total).ln()).sum::<f64>()
        });
        let expected = expected.sum::<f64>() / 3.0;
        assert!((f64::try_from(cross_entropy(&logits, &labels, 0.1)?)? - expected).abs() < 1e-12);
        assert!(cross_entropy(&logits, &labels, 1.5).is_err());
        assert!(cross_entropy(&logits, &Tensor::from_slice(&[0i64]), 0.1).is_err());
        Ok(())
    }
}
