//! MCR^2 as a loss against the float64 library, in value and gradient; what it does at its edges.

use ndarray::Array2;
use rate_reduction::{Memberships, Precision};
use tch::{Device, Kind, Tensor};
use whitebox_model::mcr2::{mcr2, unit_rows};

const EPS_SQUARED: f64 = 0.5;

fn draw(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Double, Device::Cpu))
}

/// Rows of a tensor as the oracle's columns.
fn columns(t: &Tensor) -> Array2<f64> {
    let (rows, width) = t.size2().unwrap();
    let values = Vec::<f64>::try_from(t.detach().to_kind(Kind::Double).contiguous().view([-1])).unwrap();
    Array2::from_shape_vec((rows as usize, width as usize), values).unwrap().reversed_axes()
}

/// More features than dimensions and fewer, labels and soft memberships, a class without members.
#[test]
fn value_and_gradient_are_the_oracle_s() {
    tch::manual_seed(8);
    for (n, d, soft) in [(30, 6, false), (5, 12, false), (20, 8, true)] {
        let z = unit_rows(&draw(&[n, d])).unwrap().set_requires_grad(true);
        let pi = match soft {
            true => draw(&[n, 4]).softmax(1, Kind::Double),
            false => Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(3).one_hot(4),
        };
        let found = mcr2(&z, &pi, EPS_SQUARED).unwrap();
        let gradient = Tensor::run_backward(&[found.loss()], &[&z], false, false).remove(0);

        let precision = Precision::from_eps_squared(EPS_SQUARED).unwrap();
        let memberships = Memberships::new(columns(&pi)).unwrap();
        let expected = rate_reduction::mcr2(columns(&z).view(), &memberships, precision).unwrap();
        let direction = rate_reduction::mcr2_gradient(columns(&z).view(), &memberships, precision).unwrap();
        let value = |t: &Tensor| t.double_value(&[]);
        assert!((value(&found.expansion) - expected.expansion).abs() < 1e-10, "{found:?} and {expected:?}");
        assert!((value(&found.compression) - expected.compression).abs() < 1e-10, "{found:?} and {expected:?}");
        let error = (columns(&gradient) + direction).mapv(f64::abs).fold(0.0f64, |a, &b| a.max(b));
        assert!(error < 1e-10, "N {n}, d {d}: {error:e}");
    }
}

#[test]
fn float32_is_near_and_orthogonal_classes_are_best() {
    tch::manual_seed(9);
    let labels = Tensor::arange(40, (Kind::Int64, Device::Cpu)).remainder(4);
    let pi = labels.one_hot(4);
    let z = unit_rows(&draw(&[40, 8])).unwrap();
    let loss = |z: &Tensor| mcr2(z, &pi, EPS_SQUARED).unwrap().loss().double_value(&[]);
    assert!((loss(&z) - loss(&z.to_kind(Kind::Float))).abs() < 1e-4);
    // A plane of its own for each class, against a mixture of all.
    let planes = draw(&[40, 2]).unsqueeze(1) * pi.to_kind(Kind::Double).unsqueeze(2);
    assert!(loss(&unit_rows(&planes.reshape([40, 8])).unwrap()) < loss(&z) - 0.5);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (z, pi) = (draw(&[6, 3]), Tensor::zeros([6], (Kind::Int64, Device::Cpu)).one_hot(2));
    assert!(mcr2(&z, &pi.narrow(0, 0, 5), 0.5).unwrap_err().to_string().contains("memberships [6, classes]"));
    assert!(mcr2(&z, &pi, 0.0).unwrap_err().to_string().contains("eps^2 = 0"));
    assert!(mcr2(&(&z * f64::NAN), &pi, 0.5).unwrap_err().to_string().contains("finite"));
}
