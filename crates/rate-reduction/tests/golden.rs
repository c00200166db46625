//! The worked example: values computed once, independently of this code, for `d = 4, N = 3, K = 2, p = 2, eps = 0.5`.

mod common;

use approx::assert_abs_diff_eq;
use common::{eps, golden_codebook, golden_dictionary, golden_tokens, norm};
use ndarray::{Array2, Axis, array, stack};
use rate_reduction::*;

#[test]
fn scales() {
    assert_abs_diff_eq!(eps(0.5).alpha(4, 3).unwrap(), 5.3333333, epsilon = 5e-8);
    assert_abs_diff_eq!(eps(0.5).gamma(2, 3).unwrap(), 2.6666667, epsilon = 5e-8);
}

#[test]
fn rates() {
    let (z, u, precision) = (golden_tokens(), golden_codebook(), eps(0.5));
    assert_abs_diff_eq!(coding_rate(z.view(), precision).unwrap(), 2.788022413277867, epsilon = 1e-13);
    for (basis, expected) in u.bases().iter().zip([1.9939597808291434, 0.761516230497606]) {
        let alone = Codebook::new(vec![basis.clone()]).unwrap();
        assert_abs_diff_eq!(compression_rate(z.view(), &alone, precision).unwrap(), expected, epsilon = 1e-13);
        let projected = basis.t().dot(&z);
        assert_abs_diff_eq!(coding_rate(projected.view(), precision).unwrap(), expected, epsilon = 1e-13);
    }
    assert_abs_diff_eq!(compression_rate(z.view(), &u, precision).unwrap(), 2.755476011326749, epsilon = 1e-13);
    assert_abs_diff_eq!(rate_reduction(z.view(), &u, precision).unwrap(), 0.03254640195111769, epsilon = 1e-13);
}

#[test]
fn gradient() {
    let gradient = compression_rate_gradient(golden_tokens().view(), &golden_codebook(), eps(0.5)).unwrap();
    assert_abs_diff_eq!(norm(gradient.view()), 1.2432274594684873, epsilon = 1e-13);
    assert_abs_diff_eq!(gradient.row(0), array![0.23064284, -0.62934544, 0.59209243].view(), epsilon = 1e-8);
}

#[test]
fn attention() {
    let (z, u, precision) = (golden_tokens(), golden_codebook(), eps(0.5));
    let paper = mssa(z.view(), &u, precision).unwrap();
    assert_abs_diff_eq!(paper.row(0), array![1.75265934, -2.97082835, 2.45629988].view(), epsilon = 1e-8);

    let weight = u.to_matrix();
    let released = MultiHead::new(&u, weight.view(), None).unwrap();
    let row = array![0.5966414, -0.90505909, 0.78043383];
    assert_abs_diff_eq!(released.forward(z.view()).unwrap().row(0), row.view(), epsilon = 1e-8);

    let gamma = precision.gamma(2, 3).unwrap();
    let weight = weight * gamma;
    let tied = MultiHead::new(&u, weight.view(), None).unwrap().with_scale(1.0).unwrap();
    assert_abs_diff_eq!(tied.forward(z.view()).unwrap(), paper, epsilon = 1e-12);
}

#[test]
fn sparsification() {
    let sparse = ista(golden_tokens().view(), golden_dictionary().view(), 0.1, 0.1).unwrap();
    let expected = array![
        [0.67492869, 0.0, 0.45683774],
        [0.64334157, 0.0, 0.0],
        [0.01545477, 0.43096517, 0.0],
        [0.0, 0.71740795, 0.0]
    ];
    assert_abs_diff_eq!(sparse, expected, epsilon = 1e-8);
    assert_eq!(nonzero_fraction(sparse.view()).unwrap(), 0.5);
}

#[test]
fn released_measure() {
    let heads = golden_codebook().project(golden_tokens().view()).unwrap();
    let heads = stack(Axis(0), &[heads[0].view(), heads[1].view()]).unwrap();
    assert_abs_diff_eq!(released_compression_measure(heads.view()).unwrap(), 7.420745815508176, epsilon = 1e-12);
}

#[test]
fn maximal_coding_rate_reduction() {
    let labels = Memberships::from_labels(&[0, 0, 1], 2).unwrap();
    let value = mcr2(golden_tokens().view(), &labels, eps(0.5)).unwrap().value();
    assert_abs_diff_eq!(value, 0.5020338025589098, epsilon = 1e-13);
}

#[test]
fn objective_is_the_sum_of_its_terms() {
    let (z, u, precision) = (golden_tokens(), golden_codebook(), eps(0.5));
    let l0 = sparse_rate_reduction(z.view(), &u, precision, 0.1, Sparsity::L0).unwrap();
    assert_abs_diff_eq!(l0.value(), 0.03254640195111769 - 1.2, epsilon = 1e-12);
    let l1 = sparse_rate_reduction(z.view(), &u, precision, 0.1, Sparsity::L1).unwrap();
    assert_abs_diff_eq!(l1.value(), 0.03254640195111769 - 0.1 * z.mapv(f64::abs).sum(), epsilon = 1e-12);
}

#[test]
fn single_precision_agrees() {
    let single = |x: &Array2<f64>| x.mapv(|v| v as f32);
    let (z, d, precision) = (single(&golden_tokens()), single(&golden_dictionary()), eps(0.5));
    let u = Codebook::new(golden_codebook().bases().iter().map(single).collect()).unwrap();
    assert_abs_diff_eq!(rate_reduction(z.view(), &u, precision).unwrap(), 0.032_546_4, epsilon = 1e-5);
    let gradient = compression_rate_gradient(z.view(), &u, precision).unwrap();
    assert_abs_diff_eq!(gradient.row(0), array![0.230_642_84_f32, -0.629_345_4, 0.592_092_4].view(), epsilon = 1e-5);
    assert_abs_diff_eq!(mssa(z.view(), &u, precision).unwrap()[(0, 1)], -2.970_828_3, epsilon = 1e-5);
    assert_abs_diff_eq!(ista(z.view(), d.view(), 0.1, 0.1).unwrap()[(3, 1)], 0.717_407_95, epsilon = 1e-5);
}
