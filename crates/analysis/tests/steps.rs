//! The half-steps of a layer against the float64 library, sample by sample; and on a real network.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2};
use rate_reduction::{Codebook, Precision, coding_rate, compression_rate, compression_rate_gradient, mm_prox};
use tch::{Device, Kind, Tensor, nn};
use torch_extras::autocast::Autocast;
use whitebox_analysis::layerwise::EPS_SQUARED;
use whitebox_analysis::operators::Operators;
use whitebox_analysis::steps::{StepsProbe, compression_gradient};
use whitebox_model::probe::{Probe, Site};
use whitebox_model::{CrateConfig, ModelConfig};

const HEADS: i64 = 3;

/// A sample's tokens as columns, scaled to norm 1.
fn columns(tokens: &Tensor) -> Array2<f64> {
    let [n, d] = tokens.size()[..] else { panic!("[n, d]") };
    let flat: Vec<f64> = tokens.flatten(0, -1).to_kind(Kind::Double).try_into().unwrap();
    let mut z = Array2::from_shape_vec([n as usize, d as usize], flat).unwrap().reversed_axes();
    for mut token in z.columns_mut() {
        let norm = token.dot(&token).sqrt();
        token /= norm;
    }
    z
}

fn plain(tokens: &Tensor) -> Array2<f64> {
    let [n, d] = tokens.size()[..] else { panic!("[n, d]") };
    let flat: Vec<f64> = tokens.flatten(0, -1).to_kind(Kind::Double).try_into().unwrap();
    Array2::from_shape_vec([n as usize, d as usize], flat).unwrap().reversed_axes()
}

fn cosine(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()
}

fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{what}: {found}, expected {expected}");
}

/// Fewer tokens than p, and more than d.
#[test]
fn every_number_is_the_oracle_s() {
    for (n, d) in [(3, 12), (20, 12)] {
        tch::manual_seed(n);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu));
        let (u, lambda) = (random(&[d, d]) * 0.4, 0.3);
        let operators = [Operators {
            u: Some(u.shallow_clone()),
            heads: HEADS,
            dictionary: Some(random(&[d, d])),
            lambda,
            ..Operators::default()
        }];
        let one = |_| random(&[1, n, d]);
        let seen: BTreeMap<Site, Tensor> = BTreeMap::from([
            (Site::Embed, one(())),
            (Site::AttentionInput, one(())),
            (Site::MssaOut, one(())),
            (Site::ZHalf, one(())),
            (Site::IstaInput, one(())),
            (Site::ZOut, one(()).relu()),
        ]);
        let mut probe = StepsProbe::new(&operators);
        for (site, value) in &seen {
            assert!(probe.wants(0, *site));
            probe.see(0, *site, value);
        }
        let found = probe.finish().unwrap().remove(0);

        let precision = Precision::from_eps_squared(EPS_SQUARED).unwrap();
        let codebook = Codebook::from_matrix(plain(&u).view(), HEADS as usize).unwrap();
        let at = |site: Site| columns(&seen[&site].squeeze_dim(0));
        let rate = |z: &Array2<f64>| coding_rate(z.view(), precision).unwrap();
        let compressed = |z: ArrayView2<'_, f64>| compression_rate(z, &codebook, precision).unwrap();
        let size = |z: &Array2<f64>| z.mapv(f64::abs).sum();
        for (place, site) in [(found.before, Site::Embed), (found.half, Site::ZHalf), (found.after, Site::ZOut)] {
            let z = at(site);
            near(place.rate.mean, rate(&z), "R");
            near(place.compression.mean, compressed(z.view()), "R^c");
            near(place.objective.mean, rate(&z) - compressed(z.view()) - lambda * size(&z), "the objective");
        }
        let attention = found.attention.unwrap();
        let change = compressed(at(Site::ZHalf).view()) - compressed(at(Site::Embed).view());
        near(attention.change.mean, change, "change of R^c");
        assert_eq!(attention.falls, if change < 0.0 { 1.0 } else { 0.0 });
        let h = at(Site::AttentionInput);
        let gradient = compression_rate_gradient(h.view(), &codebook, precision).unwrap();
        let tensor = h.t().iter().copied().collect::<Vec<_>>();
        let tensor = compression_gradient(&Tensor::from_slice(&tensor).view([1, n, d]), &u, HEADS).unwrap();
        near(cosine(&plain(&tensor.squeeze_dim(0)), &gradient), 1.0, "direction of grad R^c");
        near(tensor.norm().double_value(&[]), (&gradient * &gradient).sum().sqrt(), "length of grad R^c");
        let added = plain(&seen[&Site::MssaOut].squeeze_dim(0));
        near(attention.alignment.mean, -cosine(&added, &gradient), "alignment of the attention");

        let sparsity = found.sparsity.unwrap();
        let (h, z) = (at(Site::IstaInput), at(Site::ZOut));
        near(sparsity.change.mean, lambda * (size(&z) - size(&h)) - (rate(&z) - rate(&h)), "change of sparsity");
        let proximal = mm_prox(h.view(), precision, lambda).unwrap() - &h;
        near(sparsity.alignment.mean, cosine(&(z - &h), &proximal), "alignment of the sparsifying step");
    }
}

/// A layer that takes a step down the gradient falls on every sample, and is aligned with it.
#[test]
fn a_true_gradient_step_compresses() {
    tch::manual_seed(1);
    let u = Tensor::linalg_qr(&Tensor::randn([12, 12], (Kind::Double, Device::Cpu)), "reduced").0;
    let operators = [Operators { u: Some(u.shallow_clone()), heads: HEADS, ..Operators::default() }];
    let z = Tensor::randn([5, 8, 12], (Kind::Double, Device::Cpu));
    let z = &z / z.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    let step = compression_gradient(&z, &u, HEADS).unwrap() * -1e-3;
    let half = &z + &step;
    let mut probe = StepsProbe::new(&operators);
    for (site, value) in [
        (Site::Embed, &z),
        (Site::AttentionInput, &z),
        (Site::MssaOut, &step),
        (Site::ZHalf, &half),
        (Site::ZOut, &half),
    ] {
        probe.see(0, site, value);
    }
    let found = probe.finish().unwrap().remove(0);
    let attention = found.attention.unwrap();
    assert!(attention.falls == 1.0 && attention.change.n == 5 && attention.change.mean < 0.0, "{attention:?}");
    near(attention.alignment.mean, 1.0, "alignment");
    assert!(found.sparsity.is_none());
}

#[test]
fn a_network_is_measured_and_an_operator_that_does_not_fit_is_named() {
    tch::manual_seed(2);
    let store = nn::VarStore::new(Device::Cpu);
    let config = CrateConfig { image: [8, 8], patch: [4, 4], d: 24, depth: 2, heads: 3, ..CrateConfig::default() };
    let model = ModelConfig::Crate(config).build(&store.root()).unwrap();
    let variables = store.variables();
    let operators: Vec<_> = (0..2)
        .map(|l| Operators {
            u: Some(variables[&format!("transformer.layers.{l}.0.fn.qkv.weight")].shallow_clone()),
            heads: 3,
            dictionary: Some(variables[&format!("transformer.layers.{l}.1.fn.weight")].shallow_clone()),
            lambda: 0.1,
            ..Operators::default()
        })
        .collect();
    let mut probe = StepsProbe::new(&operators);
    for _ in 0..2 {
        let images = Tensor::randn([4, 3, 8, 8], (Kind::Float, Device::Cpu));
        let _ = tch::no_grad(|| model.tokens(&images, &mut probe)).unwrap();
    }
    // Under autocast tokens and steps are of two kinds.
    {
        let _cast = Autocast::new(Device::Cpu, Kind::BFloat16, true).unwrap();
        let images = Tensor::randn([4, 3, 8, 8], (Kind::Float, Device::Cpu));
        let mut cast = StepsProbe::new(&operators);
        let _ = tch::no_grad(|| model.tokens(&images, &mut cast)).unwrap();
        assert_eq!(cast.finish().unwrap().len(), 2);
    }
    let layers = probe.finish().unwrap();
    assert_eq!(layers.len(), 2);
    for layer in &layers {
        assert!(layer.before.rate.n == 8 && layer.after.objective.n == 8, "{layer:?}");
        let (attention, sparsity) = (layer.attention.unwrap(), layer.sparsity.unwrap());
        assert!(attention.alignment.mean.abs() <= 1.0 && sparsity.alignment.mean.abs() <= 1.0);
    }
    // The output of one layer is the input of the next.
    assert_eq!(layers[0].after.rate, layers[1].before.rate);

    let wrong =
        [Operators { u: Some(Tensor::zeros([24, 7], (Kind::Float, Device::Cpu))), heads: 3, ..Operators::default() }];
    let mut probe = StepsProbe::new(&wrong);
    let images = Tensor::randn([1, 3, 8, 8], (Kind::Float, Device::Cpu));
    let _ = tch::no_grad(|| model.tokens(&images, &mut probe)).unwrap();
    assert!(probe.finish().is_err());
}
