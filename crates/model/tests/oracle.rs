//! The tensor layers against the slow truth: the rate-reduction crate's f64 code, values and hand-written gradients.
//!
//! There tokens are columns, here rows: matrices are transposed on the way.

mod common;

use common::seeded;
use ndarray::{Array1, Array2, Axis};
use rate_reduction::{
    Codebook, MultiHead, Precision, ista, ista_backward, ista_one_product, ista_operator, mm_prox_closed, mssa,
};
use tch::{Device, Kind, Tensor, nn};
use whitebox_model::NoProbe;
use whitebox_model::ista::{Ista, IstaConfig, IstaForm, Step};
use whitebox_model::mssa::{Mssa, MssaConfig, OutputMap, Scaling};

const D: i64 = 12;
const HEADS: i64 = 3;
const HEAD_DIM: i64 = 4;
const TOKENS: i64 = 5;

fn draw(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Double, Device::Cpu))
}

/// A matrix of the oracle from a tensor of rank 2.
fn matrix(t: &Tensor) -> Array2<f64> {
    let (rows, columns) = t.size2().unwrap();
    let values = Vec::<f64>::try_from(t.detach().contiguous().view([-1])).unwrap();
    Array2::from_shape_vec((rows as usize, columns as usize), values).unwrap()
}

#[track_caller]
fn assert_same(found: &Tensor, expected: &Array2<f64>, what: &str) {
    let found = matrix(found);
    assert_eq!(found.dim(), expected.dim(), "{what}");
    let error = (&found - expected).mapv(f64::abs).fold(0.0f64, |a, &b| a.max(b));
    assert!(error < 1e-10, "{what}: largest difference {error:e}");
}

/// The bases U_k, d x p, of a stacked projection `[K p, d]`.
fn codebook(u: &Tensor) -> Codebook<f64> {
    Codebook::from_matrix(matrix(u).t(), HEADS as usize).unwrap()
}

fn attention(output_map: OutputMap, scaling: Scaling, gamma: f64) -> (nn::VarStore, Mssa) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let config = MssaConfig { d: D, heads: HEADS, head_dim: HEAD_DIM, output_map, scaling, gamma };
    let layer = Mssa::new(&store.root(), &config);
    store.double();
    (store, layer)
}

#[test]
fn mssa_as_released_equals_the_oracle_in_value_and_gradient() {
    let _drawing = seeded(11);
    let (store, layer) = attention(OutputMap::Free, Scaling::InverseSqrtP, 1.0);
    let variables = store.variables();
    let (u, weight, bias) = (&variables["qkv.weight"], &variables["to_out.0.weight"], &variables["to_out.0.bias"]);
    let (z, upstream) = (draw(&[1, TOKENS, D]).set_requires_grad(true), draw(&[1, TOKENS, D]));
    let out = layer.forward(&z, 0, &mut NoProbe);
    (&out * &upstream).sum(Kind::Double).backward();

    let book = codebook(u);
    let shift = Array1::from(Vec::<f64>::try_from(bias.detach()).unwrap());
    let weights = matrix(weight);
    let oracle = MultiHead::new(&book, weights.view(), Some(shift.view())).unwrap();
    let column_z = matrix(&z.squeeze_dim(0)).reversed_axes();
    let column_upstream = matrix(&upstream.squeeze_dim(0)).reversed_axes();
    assert_same(&out.squeeze_dim(0).tr(), &oracle.forward(column_z.view()).unwrap(), "value");
    let gradient = oracle.backward(column_z.view(), column_upstream.view()).unwrap();
    assert_same(&z.grad().squeeze_dim(0).tr(), &gradient.z, "gradient of Z");
    assert_same(&weight.grad(), &gradient.weight, "gradient of the output map");
    let shift = gradient.bias.clone().insert_axis(Axis(0));
    assert_same(&bias.grad().unsqueeze(0), &shift, "gradient of the bias");
    let stacked: Vec<_> = gradient.bases.iter().map(|g| g.t()).collect();
    assert_same(&u.grad(), &ndarray::concatenate(Axis(0), &stacked).unwrap(), "gradient of U");
}

#[test]
fn mssa_as_derived_equals_the_papers_form() {
    let _drawing = seeded(12);
    let precision = Precision::from_eps(0.7).unwrap();
    let gamma = precision.gamma(HEAD_DIM as usize, TOKENS as usize).unwrap();
    let (store, layer) = attention(OutputMap::Tied, Scaling::None, gamma);
    let z = draw(&[1, TOKENS, D]);
    let out = tch::no_grad(|| layer.forward(&z, 0, &mut NoProbe));
    let book = codebook(&store.variables()["qkv.weight"]);
    let expected = mssa(matrix(&z.squeeze_dim(0)).reversed_axes().view(), &book, precision).unwrap();
    assert_same(&out.squeeze_dim(0).tr(), &expected, "gamma [U] SSA");
}

#[test]
fn ista_equals_the_oracle_in_value_and_gradient() {
    for form in [IstaForm::Plain, IstaForm::OneProduct] {
        let _drawing = seeded(13);
        let mut store = nn::VarStore::new(Device::Cpu);
        let (eta, lambda) = (0.2, 0.3);
        let layer = Ista::new(&store.root(), &IstaConfig { d: D, eta, lambda, form, ..IstaConfig::default() });
        store.double();
        let dictionary = &store.variables()["weight"];
        let (z, upstream) = (draw(&[1, TOKENS, D]).set_requires_grad(true), draw(&[1, TOKENS, D]));
        let out = layer.forward(&z, 0, &mut NoProbe);
        (&out * &upstream).sum(Kind::Double).backward();

        let (column_z, d) = (matrix(&z.squeeze_dim(0)).reversed_axes(), matrix(dictionary));
        let column_upstream = matrix(&upstream.squeeze_dim(0)).reversed_axes();
        let expected = ista(column_z.view(), d.view(), eta, lambda).unwrap();
        assert_same(&out.squeeze_dim(0).tr(), &expected, "value");
        let m = ista_operator(d.view(), eta).unwrap();
        let one_product = ista_one_product(column_z.view(), m.view(), eta, lambda).unwrap();
        assert_same(&out.squeeze_dim(0).tr(), &one_product, "the oracle's own one-product form");
        let gradient = ista_backward(column_z.view(), d.view(), eta, lambda, column_upstream.view()).unwrap();
        assert_same(&z.grad().squeeze_dim(0).tr(), &gradient.z, "gradient of Z");
        assert_same(&dictionary.grad(), &gradient.d, "gradient of D");
    }
}

#[test]
fn mm_prox_equals_the_oracle() {
    let _drawing = seeded(14);
    let mut store = nn::VarStore::new(Device::Cpu);
    let (lambda, precision) = (0.3, Precision::from_eps(0.7).unwrap());
    let mm_alpha = precision.alpha(D as usize, TOKENS as usize).unwrap();
    let config = IstaConfig { d: D, step: Step::MmProx, lambda, mm_alpha, ..IstaConfig::default() };
    let layer = Ista::new(&store.root(), &config);
    store.double();
    let z = draw(&[1, TOKENS, D]);
    let out = tch::no_grad(|| layer.forward(&z, 0, &mut NoProbe));
    let d = matrix(&store.variables()["weight"]);
    let column_z = matrix(&z.squeeze_dim(0)).reversed_axes();
    let expected = mm_prox_closed(column_z.view(), d.view(), precision, lambda).unwrap();
    assert_same(&out.squeeze_dim(0).tr(), &expected, "eq 92");
}
