//! OpenBLAS' LAPACK and libtorch's own linear algebra in one process: both export `dgemm_` and its like, and neither may
//! spoil the other's results, whichever the linker bound. Of the program itself libtorch has to be bound first.

use ndarray::{Array2, array};
use ndarray_linalg::{Cholesky, SVD, UPLO};
use tch::{Device, Kind, Tensor};

/// A well-conditioned matrix that has no symmetry.
fn matrix(rows: usize, columns: usize) -> Array2<f64> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        ((i * 7 + j * 13) % 11) as f64 / 11.0 + if i == j { 3.0 } else { 0.0 }
    })
}

fn tensor(a: &Array2<f64>) -> Tensor {
    let values: Vec<f64> = a.iter().copied().collect();
    Tensor::from_slice(&values).view([a.nrows() as i64, a.ncols() as i64])
}

fn distance(a: &Array2<f64>, b: &Tensor) -> f64 {
    f64::try_from((tensor(a) - b).abs().max()).unwrap()
}

#[test]
fn both_give_the_same_and_the_right_numbers() {
    tch::set_num_threads(1);
    for _ in 0..2 {
        // Known by hand: singular values 6 and 2, and the factor of [[4, 2], [2, 5]].
        let (_, s, _) = array![[4.0f64, 2.0], [2.0, 4.0]].svd(false, false).unwrap();
        assert!((s[0] - 6.0).abs() < 1e-12 && (s[1] - 2.0).abs() < 1e-12, "{s}");
        let l: Array2<f64> = array![[4.0, 2.0], [2.0, 5.0]].cholesky(UPLO::Lower).unwrap();
        assert!((&l - &array![[2.0, 0.0], [1.0, 2.0]]).iter().all(|x: &f64| x.abs() < 1e-12), "{l}");

        let a = matrix(90, 60);
        let (u, s, vt) = a.svd(true, true).unwrap();
        let (u, vt) = (u.unwrap(), vt.unwrap());
        let rebuilt = u.slice(ndarray::s![.., ..60]).dot(&Array2::from_diag(&s)).dot(&vt);
        assert!((&rebuilt - &a).iter().all(|x: &f64| x.abs() < 1e-10));
        let theirs = tensor(&a).svd(true, true).1;
        let ours = Tensor::from_slice(s.as_slice().unwrap());
        let error = f64::try_from((ours - theirs).abs().max()).unwrap();
        assert!(error < 1e-10, "singular values differ by {error:e}");

        let gram = a.t().dot(&a);
        let product = tensor(&a).tr().matmul(&tensor(&a));
        assert!(distance(&gram, &product) < 1e-10);
        let factor = gram.cholesky(UPLO::Lower).unwrap();
        assert!(distance(&factor, &product.linalg_cholesky(false)) < 1e-10);

        let x = Tensor::arange(64 * 64, (Kind::Float, Device::Cpu)).view([64, 64]).sin();
        let plain = (x.unsqueeze(2) * x.unsqueeze(0)).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        let error = f64::try_from((x.matmul(&x).to_kind(Kind::Double) - plain).abs().max()).unwrap();
        assert!(error < 1e-4, "libtorch's float product is off by {error:e}");
    }
}

/// Symbols are looked up in the libraries in the order in which the program names them.
#[cfg(all(feature = "experiments", target_os = "linux"))]
#[test]
fn the_program_is_linked_with_libtorch_before_openblas() {
    let mut loader = std::process::Command::new(env!("CARGO_BIN_EXE_whitebox"));
    // The loader lists the libraries and ends before the program begins; a program that is not dynamic would print its help.
    let listed = loader.env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let place = |library: &str| listed.find(library).unwrap_or_else(|| panic!("{library} is not in {listed}"));
    assert!(place("libtorch_cpu.so") < place("libopenblas"), "{listed}");
}
