//! Cross-entropy with label smoothing (Szegedy et al., arXiv:1512.00567, section 7): the target is 1 - s on the label plus s / C on every
//! class. The published CRATE runs use s = 0.1. With soft targets t (what mixed images have) the loss is `-sum_c w_c t_c log p_c`.

use tch::{Kind, Reduction, Tensor};

use crate::error::{Error, Result};

/// Mean cross-entropy over the batch, a scalar. `smoothing` 0 is the plain loss. A label of -100 is left out of the mean. With `weights` of the
/// classes the mean is weighted by those of the labels, as PyTorch's.
///
/// # Shapes
/// `logits` `[B, C]`, `labels` `[B]` of int64, `weights` `[C]`.
///
/// # Errors
/// A smoothing outside 0 to 1, shapes that do not fit.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64, weights: Option<&Tensor>) -> Result<Tensor> {
    check(smoothing)?;
    Ok(logits.f_cross_entropy_loss(labels, weights, Reduction::Mean, -100, smoothing)?)
}

fn check(smoothing: f64) -> Result<()> {
    match smoothing {
        0.0..=1.0 => Ok(()),
        _ => Err(Error::Config(format!("label smoothing {smoothing}: expected a number from 0 to 1"))),
    }
}

/// Smoothed one-hot targets: 1 - s on the label plus s / C on every class.
///
/// # Shapes
/// `labels` `[B]` of int64 to `[B, classes]`.
///
/// # Errors
/// A smoothing outside 0 to 1; a label that is no class.
pub fn soft_targets(labels: &Tensor, classes: i64, smoothing: f64) -> Result<Tensor> {
    check(smoothing)?;
    let hot = labels.f_one_hot(classes)?.f_to_kind(Kind::Float)?;
    Ok(hot.f_mul_scalar(1.0 - smoothing)?.f_add_scalar(smoothing / classes as f64)?)
}

/// Mean over the batch of `-sum_c w_c t_c log p_c`, a scalar.
///
/// # Shapes
/// `logits` and `targets` `[B, C]`, `weights` `[C]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor, weights: Option<&Tensor>) -> Result<Tensor> {
    Ok(logits.f_cross_entropy_loss(targets, weights, Reduction::Mean, -100, 0.0)?)
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
        let none = None;
        assert!((f64::try_from(cross_entropy(&logits, &labels, 0.1, none)?)? - expected).abs() < 1e-12);
        assert!(cross_entropy(&logits, &labels, 1.5, none).is_err());
        assert!(cross_entropy(&logits, &Tensor::from_slice(&[0i64]), 0.1, none).is_err());

        let soft = soft_cross_entropy(&logits, &soft_targets(&labels, 4, 0.1)?.to_kind(Kind::Double), none)?;
        assert!((f64::try_from(soft)? - expected).abs() < 1e-7);
        assert!(soft_targets(&Tensor::from_slice(&[4i64]), 4, 0.1).is_err());
        Ok(())
    }

    #[test]
    fn weights_weigh_the_labels_of_their_class() -> Result<()> {
        let logits = Tensor::arange(6, (Kind::Double, Device::Cpu)).cos().reshape([2, 3]);
        let labels = Tensor::from_slice(&[2i64, 0]);
        let weights = Tensor::from_slice(&[3.0f64, 1.0, 0.5]);
        let each: Vec<f64> = (0..2)
            .map(|i| {
                cross_entropy(&logits.narrow(0, i, 1), &labels.narrow(0, i, 1), 0.0, None)?
                    .try_into()
                    .map_err(Error::from)
            })
            .collect::<Result<_>>()?;
        let expected = (0.5 * each[0] + 3.0 * each[1]) / 3.5;
        assert!((f64::try_from(cross_entropy(&logits, &labels, 0.0, Some(&weights))?)? - expected).abs() < 1e-12);
        Ok(())
    }
}
