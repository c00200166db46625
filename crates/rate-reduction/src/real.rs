//! The two number types of this crate, f32 and f64, behind one name.
//!
//! Hyper-parameters (eps, eta, lambda, kappa) are `f64` throughout and are rounded to the arrays' type where they are used.

use ndarray::ScalarOperand;
use ndarray_linalg::{Lapack, Scalar};

/// A real number type that LAPACK knows: `f32` or `f64`.
pub trait Real: Lapack + Scalar<Real = Self> + ScalarOperand + PartialOrd + Send + Sync {
    /// The distance from 1 to the next larger number.
    const ULP: f64;

    /// The nearest number of this type.
    fn of(x: f64) -> Self;

    /// The number as `f64`, exactly.
    fn wide(self) -> f64;
}

impl Real for f32 {
    const ULP: f64 = f32::EPSILON as f64;

    fn of(x: f64) -> Self {
        x as f32
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const ULP: f64 = f64::EPSILON;

    fn of(x: f64) -> Self {
        x
    }

    fn wide(self) -> f64 {
        self
    }
}
