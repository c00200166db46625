//! A rate and its gradient together, at the size of a CRATE-B layer at 224 px (`d = 768, N = 197, K = 12, p = 64`), in f64.
//!
//! `xtask/reference/numpy_rates.py` computes the same numbers from the same entries in NumPy; both print them.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use ndarray::Array2;
use rate_reduction::*;

const D: usize = 768;
const N: usize = 197;
const K: usize = 12;
const P: usize = 64;

/// Brings the length of a vector of 768 entries, uniform in [-1/2, 1/2), to about 1.
const SCALE: f64 = 0.125;

/// Entry `index` of matrix `seed`, in [-1/2, 1/2): an integer hash, so that another language gets the same bits.
fn entry(seed: u32, index: usize) -> f64 {
    let mut x = (index as u32).wrapping_add(seed.wrapping_mul(0x9e37_79b9));
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    f64::from((x ^ (x >> 16)) >> 8) / 16_777_216.0 - 0.5
}

fn matrix(seed: u32, rows: usize, columns: usize) -> Array2<f64> {
    Array2::from_shape_fn((rows, columns), |(i, j)| entry(seed, i * columns + j) * SCALE)
}

fn versus_numpy(c: &mut Criterion) {
    let (z, precision) = (matrix(1, D, N), Precision::from_eps(0.5).expect("0.5 is a precision"));
    let u = Codebook::from_matrix(matrix(2, D, K * P).view(), K).expect("12 bases of 64 columns");
    let norm = |g: Array2<f64>| g.iter().map(|x| x * x).sum::<f64>().sqrt();
    let of_all = || coding_rate_and_gradient(black_box(z.view()), precision).expect("the entries are finite");
    let in_subspaces =
        || compression_rate_and_gradient(black_box(z.view()), &u, precision).expect("the entries are finite");

    let threads = rayon::current_num_threads();
    let (rate, gradient) = of_all();
    println!("rate_and_gradient_768x197: R {rate}, norm of its gradient {}, {threads} threads", norm(gradient));
    let (rate, gradient) = in_subspaces();
    println!("rc_and_gradient_768x197: R^c {rate}, norm of its gradient {}, {threads} threads", norm(gradient));

    // One call a sample: the median is then that of single calls, as on the other side, and not of means that a busy machine drags up.
    let mut group = c.benchmark_group("versus_numpy");
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(1));
    group.sample_size(400).bench_function("rate_and_gradient_768x197", |b| b.iter(of_all));
    group.sample_size(100).bench_function("rc_and_gradient_768x197", |b| b.iter(in_subspaces));
    group.finish();
}

criterion_group!(benches, versus_numpy);
criterion_main!(benches);
