//! What maximises the objectives: orthogonal, axis-aligned subspaces, and the closed-form spectrum of MCR^2; and which
//! objectives do not bring that about.

mod common;

use common::*;
use ndarray::{Array2, array};
use proptest::prelude::*;
use rate_reduction::theory::ascent::*;
use rate_reduction::theory::configurations::*;
use rate_reduction::theory::optima::*;
use rate_reduction::*;

const D: usize = 24;
const CLASSES: usize = 3;
const P: usize = 8;
const N: usize = 96;

fn labels() -> Vec<usize> {
    (0..N).map(|i| i % CLASSES).collect()
}

fn random_tokens(seed: u64) -> Array2<f64> {
    Configuration::Random.tokens(D, CLASSES, P, N, &mut rng(seed)).unwrap()
}

fn ascent(seed: u64, lambda: f64) -> Ascent<f64> {
    let pi = Memberships::from_labels(&labels(), CLASSES).unwrap();
    let start = random_tokens(seed);
    ascend(start.view(), Coding::Memberships(&pi), eps(0.5), Penalty::UnitL1(lambda), 1000, |_| ()).unwrap()
}

#[test]
fn ascent_ends_compressed_linearised_and_along_the_axes() {
    let start = random_tokens(3);
    assert!(class_coherence(start.view(), &labels(), CLASSES, 0.99).unwrap() > 0.9);
    for seed in [3, 4] {
        let found = ascent(seed, 0.01);
        assert!(found.values.is_sorted(), "a step was taken that lowers the objective");
        let z = found.z.view();
        let coherence = class_coherence(z, &labels(), CLASSES, 0.99).unwrap();
        assert!(coherence < 0.05, "coherence {coherence}");
        let off = off_axis_energy(z, &labels(), CLASSES).unwrap();
        assert!(off < 0.05, "off the axes {off}");
        assert!(compressed_energy(z, &labels(), CLASSES, P + 2).unwrap() > 0.99);
        assert!(nonzero_fraction(z).unwrap() < 0.1);
    }
}

#[test]
fn without_the_l1_term_everything_but_the_axes_is_found_and_too_much_of_it_spoils_the_rest() {
    let free = ascent(3, 0.0).z;
    assert!(class_coherence(free.view(), &labels(), CLASSES, 0.99).unwrap() < 0.05);
    assert!(off_axis_energy(free.view(), &labels(), CLASSES).unwrap() > 0.3);
    let forced = ascent(3, 0.1).z;
    assert!(class_coherence(forced.view(), &labels(), CLASSES, 0.99).unwrap() > 0.9, "classes share axes");
}

#[test]
fn fixed_subspaces_do_not_gather_tokens_by_the_rate_alone() {
    let start = random_tokens(3);
    let ascend = |u: &Codebook<f64>, lambda| {
        ascend(start.view(), Coding::Codebook(u), eps(0.5), Penalty::UnitL1(lambda), 500, |_| ()).unwrap().z
    };
    let spanning = orthonormal_codebook(D, CLASSES, P, &mut rng(8));
    let found = ascend(&spanning, 0.0);
    assert!(outside_nearest(found.view(), &spanning).unwrap() > 0.4, "tokens lie in single subspaces");
    // What is reached instead: every direction equally full, the bound of Delta R.
    let full = |scale: f64| 0.5 * D as f64 * (1.0 + scale * N as f64 / D as f64).ln();
    let bound = full(eps(0.5).alpha(D, N).unwrap()) - full(eps(0.5).gamma(P, N).unwrap());
    let reached = rate_reduction(found.view(), &spanning, eps(0.5)).unwrap();
    assert!((reached / bound - 1.0).abs() < 1e-4, "{reached} of {bound}");

    let narrow = orthonormal_codebook(D, CLASSES, P / 2, &mut rng(8));
    let inside = |z: &Array2<f64>| norm(narrow.to_matrix().t().dot(z).view()) / norm(z.view());
    assert!(inside(&ascend(&narrow, 0.0)) < 0.85 * inside(&start), "tokens move out of the subspaces");

    let aligned = Codebook::from_matrix(Array2::eye(D).view(), CLASSES).unwrap();
    assert!(outside_nearest(ascend(&aligned, 0.02).view(), &aligned).unwrap() < 0.01, "the l1 term gathers them");
}

#[test]
fn the_spectrum_of_mcr2_is_the_closed_form() {
    let (d, sizes, lambda, precision) = (12, [30, 20, 10], 0.05, eps(0.5));
    let labels: Vec<usize> = sizes.iter().enumerate().flat_map(|(k, n)| vec![k; *n]).collect();
    let pi = Memberships::from_labels(&labels, 3).unwrap();
    let expected = mcr2_spectrum(&sizes, d, precision, lambda).unwrap();
    for (scale, seed) in [(0.5, 1), (2.0, 2)] {
        let start = gaussian(d, 60, &mut rng(seed)) * scale;
        let (coding, penalty) = (Coding::Memberships(&pi), Penalty::Frobenius(lambda));
        let found = ascend(start.view(), coding, precision, penalty, 2000, |_| ()).unwrap();
        assert!(found.values.is_sorted());
        assert!(class_coherence(found.z.view(), &labels, 3, 0.999).unwrap() < 0.01);
        let mut filled = 0;
        for (spectrum, x) in class_spectra(found.z.view(), &labels, 3).unwrap().iter().zip(&expected) {
            for square in spectrum.iter().map(|s| s * s).filter(|square| *square > 0.02 * x) {
                assert!((square / x - 1.0).abs() < 0.02, "{square} where {x} is expected");
                filled += 1;
            }
        }
        assert_eq!(filled, d, "all directions are filled");
    }
    // A start below the smaller root dies out: nothing is a local maximum too.
    let faint = gaussian(d, 60, &mut rng(3)) * 1e-3;
    let found = ascend(faint.view(), Coding::Memberships(&pi), precision, Penalty::Frobenius(lambda), 2000, |_| ());
    assert!(norm(found.unwrap().z.view()) < norm(faint.view()));
}

#[test]
fn the_more_structure_the_larger_the_objective() {
    let precision = eps(0.5);
    let values: Vec<(f64, f64)> = Configuration::ALL
        .iter()
        .map(|configuration| {
            let z = configuration.tokens(D, CLASSES, P, N, &mut rng(1)).unwrap();
            let u = class_codebook(z.view(), &labels(), CLASSES, P).unwrap();
            let found = sparse_rate_reduction(z.view(), &u, precision, 0.01, Sparsity::L0).unwrap();
            (found.expansion - found.compression, found.value())
        })
        .collect();
    let [random, compressed, linearised, sparse] = values[..] else { panic!("four configurations") };
    assert!(
        linearised.0 > random.0 && linearised.0 > compressed.0 && (sparse.0 - linearised.0).abs() < 0.5,
        "{values:?}"
    );
    assert!(sparse.1 > linearised.1 + 10.0, "only the sparsity tells the last two apart: {values:?}");
}

#[test]
fn bad_arguments_are_named() {
    let z = random_tokens(1);
    let pi = Memberships::from_labels(&labels(), CLASSES).unwrap();
    let run =
        |z: &Array2<f64>, penalty| ascend(z.view(), Coding::Memberships(&pi), eps(0.5), penalty, 3, |_| ()).map(drop);
    assert!(run(&z, Penalty::UnitL1(-1.0)).is_err() && run(&z, Penalty::Frobenius(f64::NAN)).is_err());
    let mut gap = z.clone();
    gap.column_mut(4).fill(0.0);
    assert!(matches!(run(&gap, Penalty::UnitL1(0.1)), Err(Error::ZeroToken { column: 4, .. })));
    assert!(mcr2_spectrum(&[], 4, eps(0.5), 0.1).is_err() && mcr2_spectrum(&[3, 0], 4, eps(0.5), 0.1).is_err());
    assert!(mcr2_spectrum(&[10, 10], 4, eps(0.5), 10.0).is_err() && mcr2_spectrum(&[10], 4, eps(0.5), 0.1).is_err());
    let (view, labels) = (z.view(), labels());
    assert!(off_axis_energy(view, &labels[1..], CLASSES).is_err() && off_axis_energy(view, &labels, 2).is_err());
    assert!(class_spectra(view, &labels, 4).is_err(), "the fourth class has no token");
    assert!(
        class_codebook(view, &labels, CLASSES, 0).is_err() && class_codebook(view, &labels, CLASSES, D + 1).is_err()
    );
    assert!(class_coherence(view, &labels, CLASSES, 0.0).is_err());
    assert!(
        Configuration::Sparse.tokens(4, 3, 2, 6, &mut rng(1)).is_err()
            && Configuration::Random.tokens(4, 0, 2, 6, &mut rng(1)).is_err()
    );
    assert!(off_axis_energy(array![[0.0, 0.0]].view(), &[0, 0], 1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn x_k_solves_its_equation(a in 1usize..50, b in 1usize..50, d in 1usize..40, e in 0.1f64..2.0, share in 0.05f64..1.0) {
        let (precision, n) = (eps(e), a + b);
        let alpha = precision.alpha(d, n).unwrap();
        let s = (n as f64 / a.max(b) as f64).sqrt();
        let lambda = share * alpha * (s - 1.0) / (s + 1.0);
        for (x, size) in mcr2_spectrum(&[a, b], d, precision, lambda).unwrap().iter().zip([a, b]) {
            let alpha_k = precision.alpha(d, size).unwrap();
            let left = alpha / (1.0 + alpha * x) - alpha / (1.0 + alpha_k * x);
            prop_assert!((left / lambda - 1.0).abs() < 1e-6, "{left} is not {lambda}");
        }
    }
}
