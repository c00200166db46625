//! The layer-wise measure against the golden vectors, against direct formulas, and on input that is not fit for it.

use std::collections::HashMap;
use tch::{Device, Kind, Tensor};
use whitebox_analysis::layerwise::{EPS_SQUARED, LayerwiseProbe, coding_rate, nonzero_fraction};
use whitebox_model::probe::{Probe, Site};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// The recorded tensors of a small CRATE: 4 images, 17 tokens, width 48, 3 layers, 4 heads.
fn golden() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/crate_micro.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let wanted =
        file.tensors().into_iter().filter(|(name, _)| name.starts_with("act.") || name.starts_with("measure."));
    wanted
        .map(|(name, view)| {
            let shape: Vec<i64> = view.shape().iter().map(|s| *s as i64).collect();
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            (name, Tensor::from_slice(&values).view(&shape[..]))
        })
        .collect()
}

fn scalar(t: &Tensor) -> f64 {
    t.double_value(&[0])
}

fn list(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

/// 1/2 logdet(I + gamma W W^T) by eigenvalues, one head and one sample, W of p x n with unit columns.
fn rate_by_eigenvalues(w: &Tensor, gamma: f64) -> f64 {
    let (eigenvalues, _) = w.matmul(&w.tr()).linalg_eigh("L");
    list(&eigenvalues).iter().map(|e| 0.5 * (gamma * e).ln_1p()).sum()
}

#[test]
fn equals_the_official_measure() {
    let golden = golden();
    for batches in [&[4][..], &[1, 3], &[1, 1, 1, 1]] {
        let mut probe = LayerwiseProbe::new(4);
        let mut start = 0;
        for size in batches {
            for layer in 0..3 {
                for (site, name) in [(Site::Uz, "uz"), (Site::ZOut, "z_out")] {
                    let tensor = &golden[&format!("act.layer{layer}.{name}")];
                    assert!(probe.wants(layer, site));
                    probe.see(layer, site, &tensor.narrow(0, start, *size));
                }
            }
            start += size;
        }
        assert_eq!(probe.images(), 4);
        let layers = probe.finish().unwrap();
        assert_eq!(layers.len(), 3);
        for layer in &layers {
            let of = |name: &str| &golden[&format!("measure.layer{}.{name}", layer.layer)];
            let rate = layer.coding_rate;
            assert!((rate.mean / scalar(of("coding_rate_mean")) - 1.0).abs() < 1e-5, "{rate:?}");
            assert!((rate.std / scalar(of("coding_rate_std")) - 1.0).abs() < 1e-3, "{rate:?}");
            assert_eq!(rate.n, 4);
            let fractions = list(of("nonzero_fraction"));
            let mean = fractions.iter().sum::<f64>() / 4.0;
            let std = (fractions.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
            let nonzero = layer.nonzero_fraction.unwrap();
            assert!((nonzero.mean - mean).abs() < 1e-6 && (nonzero.std - std).abs() < 1e-6, "{nonzero:?}");
            assert_eq!((layer.place.as_str(), layer.tokens, layer.heads, layer.head_dim), ("U^T LN(Z^l)", 17, 4, 12));
        }
    }
}

#[test]
fn each_sample_has_its_own_fraction() {
    let golden = golden();
    for layer in 0..3 {
        let ours = list(&nonzero_fraction(&golden[&format!("act.layer{layer}.z_out")]).unwrap());
        let theirs = list(&golden[&format!("measure.layer{layer}.nonzero_fraction")]);
        assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-6), "{ours:?} {theirs:?}");
    }
}

#[test]
fn both_forms_equal_the_eigenvalues() {
    tch::manual_seed(1);
    // p < n takes the p x p form, p > n the n x n form.
    for (tokens, p) in [(9, 4), (4, 9), (5, 5), (1, 3), (3, 1)] {
        let uz = Tensor::randn([2, tokens, 2 * p], DOUBLE);
        let rates = list(&coding_rate(&uz, 2).unwrap());
        let gamma = p as f64 / (tokens as f64 * EPS_SQUARED);
        for (sample, rate) in rates.iter().enumerate() {
            let head = |k: i64| {
                let w = uz.get(sample as i64).narrow(1, k * p, p).tr();
                let w = &w / w.norm_scalaropt_dim(2, [0i64].as_slice(), true);
                rate_by_eigenvalues(&w, gamma)
            };
            let expected = head(0) + head(1);
            assert!((rate - expected).abs() < 1e-10 * expected, "n {tokens}, p {p}: {rate} {expected}");
        }
    }
}

#[test]
fn the_scale_and_the_order_of_tokens_do_not_matter() {
    tch::manual_seed(2);
    let uz = Tensor::randn([3, 7, 12], DOUBLE);
    let rate = list(&coding_rate(&uz, 3).unwrap());
    for other in [&uz * 1e-9, &uz * 1e9, uz.flip([1])] {
        let same = list(&coding_rate(&other, 3).unwrap());
        assert!(rate.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-9 * a));
    }
}

#[test]
fn zero_tokens_have_rate_zero_and_bad_values_are_nan() {
    let zero = coding_rate(&Tensor::zeros([2, 5, 8], (Kind::Float, Device::Cpu)), 2).unwrap();
    assert_eq!(list(&zero), [0.0, 0.0]);
    tch::manual_seed(3);
    for bad in [f64::NAN, f64::INFINITY] {
        let uz = Tensor::randn([3, 5, 8], DOUBLE);
        let _ = uz.get(1).get(4).get(7).fill_(bad);
        let rates = list(&coding_rate(&uz, 2).unwrap());
        assert!(rates[0].is_finite() && rates[1].is_nan() && rates[2].is_finite(), "{rates:?}");
    }
}

#[test]
fn half_precision_is_measured_in_double() {
    tch::manual_seed(4);
    let uz = Tensor::randn([2, 6, 8], DOUBLE).to_kind(Kind::BFloat16);
    let low = list(&coding_rate(&uz, 2).unwrap());
    let high = list(&coding_rate(&uz.to_kind(Kind::Double), 2).unwrap());
    assert_eq!(low, high);
}

#[test]
fn a_layer_with_an_mlp_has_no_nonzero_fraction() {
    let ones = Tensor::ones([2, 3, 4], DOUBLE);
    let mut probe = LayerwiseProbe::new(2);
    for site in [Site::Uz, Site::MlpHidden, Site::ZOut] {
        probe.see(0, site, &ones);
    }
    let layers = probe.finish().unwrap();
    assert_eq!(layers[0].nonzero_fraction, None);
    assert_eq!(layers[0].place, "keys of LN(Z^l)");
}

#[test]
fn the_gradient_graph_is_left_alone() {
    let uz = Tensor::randn([2, 3, 4], DOUBLE).set_requires_grad(true);
    let mut probe = LayerwiseProbe::new(2);
    probe.see(0, Site::Uz, &uz);
    assert!(!coding_rate(&uz, 2).unwrap().requires_grad());
    uz.square().sum(Kind::Double).backward();
    assert!(uz.grad().defined());
}

#[test]
fn unfit_tensors_are_errors_that_name_the_shape() {
    let tensor = |shape: &[i64]| Tensor::zeros(shape, DOUBLE);
    for (shape, heads) in
        [(&[2, 3][..], 1), (&[2, 3, 8], 3), (&[2, 3, 8], 0), (&[2, 0, 8], 2), (&[2, 3, 0], 2), (&[], 1)]
    {
        let error = coding_rate(&tensor(shape), heads).unwrap_err().to_string();
        assert!(error.contains(&format!("{shape:?}")), "{error}");
    }
    assert!(coding_rate(&tensor(&[0, 3, 8]), 2).unwrap().numel() == 0);
    assert!(nonzero_fraction(&tensor(&[0, 3, 8])).unwrap().numel() == 0);
    assert!(nonzero_fraction(&tensor(&[3])).is_err());
    assert!(nonzero_fraction(&tensor(&[3, 0])).is_err());

    let mut probe = LayerwiseProbe::new(2);
    probe.see(0, Site::Uz, &tensor(&[2, 3, 8]));
    probe.see(0, Site::Uz, &tensor(&[2, 4, 8]));
    assert!(!probe.wants(0, Site::Uz), "a failed probe asks for nothing more");
    let error = probe.finish().unwrap_err().to_string();
    assert!(error.contains("layer 0") && error.contains("[2, 4, 8]") && error.contains("[batch, 3, 8]"), "{error}");
}

#[test]
fn nothing_seen_is_no_layer() {
    assert!(LayerwiseProbe::new(4).finish().unwrap().is_empty());
}
