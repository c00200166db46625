//! Coding rates and their gradients over sizes, up to a CRATE-B layer at 224 px (`N = 197, d = 768, K = 12, p = 64`).

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::Array2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rate_reduction::*;

/// N, d, K, p.
const SIZES: [(usize, usize, usize, usize); 4] =
    [(17, 128, 4, 32), (65, 192, 3, 64), (197, 384, 6, 64), (197, 768, 12, 64)];

struct Setting {
    name: String,
    z: Array2<f64>,
    u: Codebook<f64>,
    precision: Precision,
}

fn settings() -> Vec<Setting> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let setting = |(n, d, heads, p)| {
        let raw = Array2::from_shape_simple_fn((d, n), || StandardNormal.sample(&mut rng));
        Setting {
            name: format!("N{n}_d{d}_K{heads}_p{p}"),
            z: unit_norm(raw.view()).expect("Gaussian tokens are not zero"),
            u: random_codebook(d, heads, p, &mut rng).expect("p is at most d"),
            precision: Precision::from_eps(0.5).expect("0.5 is a precision"),
        }
    };
    SIZES.into_iter().map(setting).collect()
}

fn rates(c: &mut Criterion) {
    let mut group = c.benchmark_group("rate");
    for Setting { name, z, u, precision } in settings() {
        for (label, form) in [("R, N x N", Form::Tokens), ("R, d x d", Form::Features)] {
            group.bench_function(BenchmarkId::new(label, &name), |b| {
                b.iter(|| coding_rate_in_form(black_box(z.view()), precision, form));
            });
        }
        group.bench_function(BenchmarkId::new("R^c", &name), |b| {
            b.iter(|| compression_rate(black_box(z.view()), &u, precision));
        });
        let single = z.mapv(|v| v as f32);
        group.bench_function(BenchmarkId::new("R, f32", &name), |b| {
            b.iter(|| coding_rate(black_box(single.view()), precision));
        });
    }
}

fn gradients(c: &mut Criterion) {
    let mut group = c.benchmark_group("gradient");
    for Setting { name, z, u, precision } in settings() {
        group.bench_function(BenchmarkId::new("R", &name), |b| {
            b.iter(|| coding_rate_gradient(black_box(z.view()), precision));
        });
        group.bench_function(BenchmarkId::new("R^c", &name), |b| {
            b.iter(|| compression_rate_gradient(black_box(z.view()), &u, precision));
        });
        group.bench_function(BenchmarkId::new("Hess R", &name), |b| {
            b.iter(|| coding_rate_hvp(black_box(z.view()), z.view(), precision));
        });
        group.bench_function(BenchmarkId::new("MSSA", &name), |b| {
            b.iter(|| mssa(black_box(z.view()), &u, precision));
        });
    }
}

criterion_group!(benches, rates, gradients);
criterion_main!(benches);
