//! Every gradient, Hessian-vector product and backward formula against central differences, in f64, on both sides of `N = d` and `N = p`.

mod common;

use common::*;
use ndarray::{Array2, ArrayView2};
use rate_reduction::*;

/// d, K, p, N with `N < p`, `p < N < d` and `N > d`.
const SHAPES: [(usize, usize, usize, usize); 3] = [(8, 2, 4, 3), (8, 3, 3, 6), (5, 2, 2, 9)];

fn close(found: ArrayView2<'_, f64>, expected: ArrayView2<'_, f64>, what: &str) {
    let error = relative(found, expected);
    assert!(error < 1e-7, "{what}: relative error {error:e}");
}

#[test]
fn rates() {
    for (seed, (d, k, p, n)) in SHAPES.into_iter().enumerate() {
        let mut rng = rng(seed as u64);
        let (z, along) = (gaussian(d, n, &mut rng), gaussian(d, n, &mut rng));
        let (u, precision) = (loose_codebook(d, k, p, &mut rng), eps(0.7));

        let r = coding_rate_gradient(z.view(), precision).unwrap();
        close(r.view(), numeric_gradient(&z, |z| coding_rate(z, precision).unwrap()).view(), "grad R");
        let rc = compression_rate_gradient(z.view(), &u, precision).unwrap();
        close(rc.view(), numeric_gradient(&z, |z| compression_rate(z, &u, precision).unwrap()).view(), "grad R^c");
        let dr = rate_reduction_gradient(z.view(), &u, precision).unwrap();
        close(dr.view(), numeric_gradient(&z, |z| rate_reduction(z, &u, precision).unwrap()).view(), "grad Delta R");

        let h = coding_rate_hvp(z.view(), along.view(), precision).unwrap();
        let numeric = numeric_directional(&z, &along, |z| coding_rate_gradient(z, precision).unwrap());
        close(h.view(), numeric.view(), "Hess R");
        let h = compression_rate_hvp(z.view(), along.view(), &u, precision).unwrap();
        let numeric = numeric_directional(&z, &along, |z| compression_rate_gradient(z, &u, precision).unwrap());
        close(h.view(), numeric.view(), "Hess R^c");
        let h = rate_reduction_hvp(z.view(), along.view(), &u, precision).unwrap();
        let numeric = numeric_directional(&z, &along, |z| rate_reduction_gradient(z, &u, precision).unwrap());
        close(h.view(), numeric.view(), "Hess Delta R");
    }
}

#[test]
fn hessian_equals_the_lemma_as_printed() {
    for (d, n) in [(6, 4), (4, 6)] {
        let mut rng = rng(5);
        let (z, along, precision) = (gaussian(d, n, &mut rng), gaussian(d, n, &mut rng), eps(0.6));
        let alpha = precision.alpha(d, n).unwrap();
        // alpha Z M is the gradient, so M = I - Z^T (alpha Z M).
        let am = coding_rate_gradient(z.view(), precision).unwrap();
        let m = Array2::<f64>::eye(n) - z.t().dot(&am);
        let printed = along.dot(&m) * alpha - am.dot(&(z.t().dot(&along) + along.t().dot(&z))).dot(&m) * alpha;
        let h = coding_rate_hvp(z.view(), along.view(), precision).unwrap();
        assert!(relative(h.view(), printed.view()) < 1e-12);
    }
}

#[test]
fn mcr2_with_soft_memberships() {
    for (d, n) in [(6, 5), (4, 9)] {
        let mut rng = rng(11);
        let z = gaussian(d, n, &mut rng);
        let raw = gaussian(3, n, &mut rng);
        let soft = Memberships::new(column_softmax(raw.view()).unwrap()).unwrap();
        let gradient = mcr2_gradient(z.view(), &soft, eps(0.5)).unwrap();
        close(gradient.view(), numeric_gradient(&z, |z| mcr2(z, &soft, eps(0.5)).unwrap().value()).view(), "MCR^2");
    }
}

#[test]
fn ista_backward_formulas() {
    let mut rng = rng(3);
    let (z, d, upstream) = (gaussian(5, 7, &mut rng), gaussian(5, 5, &mut rng) * 0.4, gaussian(5, 7, &mut rng));
    let loss =
        |z: ArrayView2<'_, f64>, d: ArrayView2<'_, f64>| inner(ista(z, d, 0.3, 0.2).unwrap().view(), upstream.view());
    let gradient = ista_backward(z.view(), d.view(), 0.3, 0.2, upstream.view()).unwrap();
    close(gradient.z.view(), numeric_gradient(&z, |z| loss(z, d.view())).view(), "ISTA dZ");
    close(gradient.d.view(), numeric_gradient(&d, |d| loss(z.view(), d)).view(), "ISTA dD");
}

#[test]
fn attention_backward_formulas() {
    let mut rng = rng(4);
    let (d, k, p, n, m) = (6, 3, 2, 5, 4);
    let (z, u) = (gaussian(d, n, &mut rng), loose_codebook(d, k, p, &mut rng));
    let (weight, bias) = (gaussian(m, k * p, &mut rng), gaussian(1, m, &mut rng));
    let upstream = gaussian(m, n, &mut rng);
    let loss = |z: ArrayView2<'_, f64>, u: &Codebook<f64>, weight: ArrayView2<'_, f64>, bias: ArrayView2<'_, f64>| {
        let layer = MultiHead::new(u, weight, Some(bias.row(0))).unwrap().with_scale(0.9).unwrap();
        inner(layer.forward(z).unwrap().view(), upstream.view())
    };
    let layer = MultiHead::new(&u, weight.view(), Some(bias.row(0))).unwrap().with_scale(0.9).unwrap();
    let gradient = layer.backward(z.view(), upstream.view()).unwrap();

    let numeric = numeric_gradient(&z, |z| loss(z, &u, weight.view(), bias.view()));
    close(gradient.z.view(), numeric.view(), "MSSA dZ");
    let numeric = numeric_gradient(&weight, |weight| loss(z.view(), &u, weight, bias.view()));
    close(gradient.weight.view(), numeric.view(), "MSSA dW");
    let numeric = numeric_gradient(&bias, |bias| loss(z.view(), &u, weight.view(), bias));
    close(gradient.bias.view().insert_axis(ndarray::Axis(0)), numeric.view(), "MSSA db");
    let numeric = numeric_gradient(&u.to_matrix(), |all| {
        loss(z.view(), &Codebook::from_matrix(all, k).unwrap(), weight.view(), bias.view())
    });
    let bases = Codebook::new(gradient.bases).unwrap().to_matrix();
    close(bases.view(), numeric.view(), "MSSA dU");
}
