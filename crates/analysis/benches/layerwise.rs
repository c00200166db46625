//! The layer-wise measure on the tensors of one CRATE-T layer at 224 px: 16 images, 197 tokens, 6 heads of 64 dimensions, float32.
//!
//! Only the measure is timed, on a given `U^T LN(Z)`: no forward pass. `xtask/reference/numpy_rates.py` computes the same number
//! from the same entries by the released script's formula; both print it.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use tch::Tensor;
use whitebox_analysis::layerwise::coding_rate;
use whitebox_analysis::stats::Running;

/// B, n, K, p.
const SHAPE: [i64; 4] = [16, 197, 6, 64];

/// Entry `index` of tensor `seed`, in [-1/2, 1/2): an integer hash, so that another language gets the same bits.
fn entry(seed: u32, index: u32) -> f32 {
    let mut x = index.wrapping_add(seed.wrapping_mul(0x9e37_79b9));
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    ((x ^ (x >> 16)) >> 8) as f32 / 16_777_216.0 - 0.5
}

/// Mean and unbiased standard deviation over the batch, as they enter a report.
fn measure(uz: &Tensor) -> [f64; 2] {
    let rates = coding_rate(uz, SHAPE[2] as usize).expect("the shape is [B, n, K p]");
    let stat = Vec::<f64>::try_from(rates).expect("one number a sample").into_iter().collect::<Running>().stat();
    [stat.mean, stat.std]
}

fn layerwise(c: &mut Criterion) {
    let [batch, tokens, heads, p] = SHAPE;
    let count = u32::try_from(batch * tokens * heads * p).expect("4.8 M entries");
    let entries: Vec<f32> = (0..count).map(|index| entry(3, index)).collect();
    let uz = Tensor::from_slice(&entries).view([batch, tokens, heads * p]);
    let [mean, std] = measure(&uz);
    println!("versus_official/measure_b16: mean {mean}, std {std}, threads {}", tch::get_num_threads());
    // One call a sample: the median is then that of single calls, as on the other side.
    let mut group = c.benchmark_group("versus_official");
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(1)).sample_size(200);
    group.bench_function("measure_b16", |b| b.iter(|| measure(black_box(&uz))));
    group.finish();
}

criterion_group!(benches, layerwise);
criterion_main!(benches);
