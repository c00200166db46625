//! What the tests of the CPU's kernels share.

use tch::{Device, Kind, Tensor};

/// Numbers without a pattern, the same in every run.
pub(crate) fn wave(shape: &[i64], salt: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 1.3 + salt).sin().reshape(shape)
}

/// The error in norm, relative to `b`.
#[track_caller]
pub(crate) fn assert_near(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    let (a, b) = (a.detach().to_kind(Kind::Double), b.detach().to_kind(Kind::Double));
    assert_eq!(a.size(), b.size(), "{what}");
    let error = f64::try_from((&a - &b).norm() / b.norm()).unwrap();
    assert!(error < tolerance, "{what}: {error}");
}
