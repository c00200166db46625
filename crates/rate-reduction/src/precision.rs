//! The coding precision eps, and the two scalars that the rates are built from (NIPS section 2, book ch. 4):
//!
//! ```text
//! alpha = d / (N eps^2)        gamma = p / (N eps^2)
//! ```
//!
//! The papers write eps; the released code of MCR^2, of ReduNet and of CRATE's measurements has an argument of that name (or a
//! literal 0.01) that stands in the place of eps^2. [`Precision`] is therefore only made by a constructor that says which is meant.

use crate::{Error, Result};

/// A coding precision. `Precision::from_eps(0.5)` and `Precision::from_eps_squared(0.25)` are the same one.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Precision {
    eps_squared: f64,
}

impl Precision {
    /// From eps as the papers write it.
    ///
    /// # Errors
    /// eps must be positive and finite, and so must its square.
    pub fn from_eps(eps: f64) -> Result<Self> {
        if eps > 0.0 && (eps * eps).is_normal() {
            return Ok(Self { eps_squared: eps * eps });
        }
        Err(Error::Parameter { name: "eps", value: eps, expected: "positive, with a square that is finite and not 0" })
    }

    /// From the value that stands in the place of eps^2: what released code often calls `eps`.
    ///
    /// # Errors
    /// The value must be positive and finite.
    pub fn from_eps_squared(eps_squared: f64) -> Result<Self> {
        if eps_squared > 0.0 && eps_squared.is_normal() {
            return Ok(Self { eps_squared });
        }
        Err(Error::Parameter { name: "eps^2", value: eps_squared, expected: "positive and finite" })
    }

    /// eps, not squared.
    pub fn eps(self) -> f64 {
        self.eps_squared.sqrt()
    }

    /// eps^2.
    pub fn eps_squared(self) -> f64 {
        self.eps_squared
    }

    /// `alpha = d / (N eps^2)` for `N` tokens of dimension `d`; N counts a class token like any other.
    ///
    /// # Errors
    /// Neither count may be 0, and the quotient must be finite.
    pub fn alpha(self, d: usize, n: usize) -> Result<f64> {
        self.scale(d, n)
    }

    /// `gamma = p / (N eps^2)` for `N` tokens seen in a subspace of dimension `p`.
    ///
    /// # Errors
    /// As for [`Precision::alpha`].
    pub fn gamma(self, p: usize, n: usize) -> Result<f64> {
        self.scale(p, n)
    }

    fn scale(self, dimension: usize, n: usize) -> Result<f64> {
        if dimension == 0 || n == 0 {
            return Err(Error::Empty { what: "the token matrix", rows: dimension, columns: n });
        }
        let scale = dimension as f64 / (n as f64 * self.eps_squared);
        if scale.is_finite() {
            return Ok(scale);
        }
        Err(Error::Parameter {
            name: "eps^2",
            value: self.eps_squared,
            expected: "large enough that d / (N eps^2) is finite",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_eps_is_meant() {
        let paper = Precision::from_eps(0.5).unwrap();
        assert_eq!(paper, Precision::from_eps_squared(0.25).unwrap());
        assert_eq!((paper.eps(), paper.eps_squared()), (0.5, 0.25));
        assert!((paper.alpha(4, 3).unwrap() - 16.0 / 3.0).abs() < 1e-15);
        assert!((paper.gamma(2, 3).unwrap() - 8.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn refuses_what_has_no_scale() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Precision::from_eps(bad).is_err(), "eps {bad}");
            assert!(Precision::from_eps_squared(bad).is_err(), "eps^2 {bad}");
        }
        assert!(Precision::from_eps(1e-200).is_err(), "the square underflows");
        let fine = Precision::from_eps_squared(1e-307).unwrap();
        assert!(fine.alpha(1000, 1).is_err(), "alpha overflows");
        assert!(fine.alpha(1, 0).is_err() && fine.gamma(0, 1).is_err());
    }
}
