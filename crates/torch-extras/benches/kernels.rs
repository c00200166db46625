//! The CPU kernels of this crate beside the libtorch operations that they stand for, at the shape of CRATE-T's layers on 16 images of 224 px.
//!
//! `attention` and `attention_backward` against fused attention with one tensor for all three inputs; `map` (LayerNorm, product, bias, residual, ReLU) and
//! `back` (ReLU, product and LayerNorm backwards) against the same ops one by one; `weight_gradient` against a transposed product; `patches`, `tokens` and `pooling`, the
//! two ends of a classifier, against the ops that they are; `operator`, a dictionary's M, against a symmetric product and what is added to it. `steps` stand for what takes some forty operations.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor};
use torch_extras::attention::{subspace_attention, subspace_attention_backward};
use torch_extras::embedding::{TokenNorm, patches};
use torch_extras::heap::keep_freed_blocks;
use torch_extras::matrices::gram_step;
use torch_extras::pooling::Pooling;
use torch_extras::rows::{Back, Map, Norm, weight_gradient};
use torch_extras::steps::{Bases, attention_alignment, place, sparsity_alignment};

const BATCH: i64 = 16;
const TOKENS: i64 = 197;
const D: i64 = 384;
const HEADS: i64 = 6;
const SCALE: f64 = 0.125;

/// `cpu_f32_WHAT` and `cpu_bf16_WHAT`; elements are multiply-adds.
fn group<'a>(c: &'a mut Criterion, kind: Kind, what: &str, multiply_adds: i64) -> BenchmarkGroup<'a, WallTime> {
    let format = if kind == Kind::Float { "f32" } else { "bf16" };
    let mut group = c.benchmark_group(format!("cpu_{format}_{what}"));
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(multiply_adds.unsigned_abs()));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group
}

fn normal(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

fn heads(w: &Tensor) -> Tensor {
    w.view([BATCH, TOKENS, HEADS, D / HEADS]).transpose(1, 2)
}

fn fused(w: &Tensor) -> Tensor {
    let z = heads(w);
    Tensor::scaled_dot_product_attention(&z, &z, &z, None::<&Tensor>, 0.0, false, SCALE, false)
}

fn attention(c: &mut Criterion) {
    // As the program does.
    keep_freed_blocks();
    let products = BATCH * TOKENS * TOKENS * D;
    for kind in [Kind::Float, Kind::BFloat16] {
        let (w, grad) = (normal(&[BATCH, TOKENS, D], kind), normal(&[BATCH, TOKENS, D], kind));
        let (out, logarithms) = subspace_attention(&w, HEADS, SCALE).expect("the shapes fit");
        let mut forward = group(c, kind, "attention", 2 * products);
        forward.bench_function("own", |b| b.iter(|| subspace_attention(&w, HEADS, SCALE).expect("the shapes fit")));
        forward.bench_function("libtorch", |b| b.iter(|| fused(&w)));
        forward.finish();
        let mut backward = group(c, kind, "attention_backward", 4 * products);
        backward.bench_function("own", |b| {
            b.iter(|| subspace_attention_backward(&grad, &w, &out, &logarithms, HEADS, SCALE).expect("the shapes fit"))
        });
        let leaf = w.copy().set_requires_grad(true);
        let graph = (fused(&leaf) * heads(&grad)).sum(Kind::Float);
        backward.bench_function("libtorch", |b| b.iter(|| Tensor::run_backward(&[&graph], &[&leaf], true, false)));
        backward.finish();
    }
}

fn rows(c: &mut Criterion) {
    let products = BATCH * TOKENS * D * D;
    for kind in [Kind::Float, Kind::BFloat16] {
        let [x, residual, grad] = [0; 3].map(|_| normal(&[BATCH, TOKENS, D], kind));
        let weight = normal(&[D, D], kind);
        let [scale, shift, bias] = [0; 3].map(|_| normal(&[D], Kind::Float));
        let norm = Some(Norm { affine: Some((&scale, &shift)), eps: 1e-5 });
        let map = Map { norm, bias: Some(&bias), residual: Some(&residual), relu: true, ..Map::new(&weight) };
        let by_ops = |x: &Tensor| {
            let h = x.layer_norm([D], Some(&scale), Some(&shift), 1e-5, true);
            (h.linear(&weight, Some(&bias.to_kind(kind))) + &residual).relu()
        };
        let mut forward = group(c, kind, "map", products);
        forward.bench_function("own", |b| b.iter(|| map.forward(&x).expect("the shapes fit")));
        forward.bench_function("libtorch", |b| b.iter(|| by_ops(&x)));
        forward.finish();

        let (out, statistics) = map.forward(&x).expect("the shapes fit");
        let statistics = statistics.expect("there is a norm");
        let back = Back {
            out: Some(&out),
            weight: &weight,
            x: &x,
            statistics: (&statistics.mean, &statistics.rstd),
            affine: (&scale, &shift),
            add: None,
        };
        let mut backward = group(c, kind, "back", products);
        backward.bench_function("own", |b| b.iter(|| back.backward(&grad).expect("the shapes fit")));
        let leaf = x.copy().set_requires_grad(true);
        let graph = (by_ops(&leaf) * &grad).sum(Kind::Float);
        backward.bench_function("libtorch", |b| b.iter(|| Tensor::run_backward(&[&graph], &[&leaf], true, false)));
        backward.finish();

        let mut by_weight = group(c, kind, "weight_gradient", products);
        by_weight.bench_function("own", |b| b.iter(|| weight_gradient(&grad, &x).expect("the shapes fit")));
        by_weight.bench_function("libtorch", |b| b.iter(|| grad.view([-1, D]).tr().matmul(&x.view([-1, D]))));
        by_weight.finish();
    }
}

/// The two ends of a classifier; a number of the tokens is one element.
fn ends(c: &mut Criterion) {
    let images = normal(&[BATCH, 3, 224, 224], Kind::Float);
    let [scale, shift, class] = [0; 3].map(|_| normal(&[D], Kind::Float));
    let (positions, queries) = (normal(&[TOKENS, D], Kind::Float), normal(&[BATCH, HEADS, D], Kind::Float));
    let affine = (Some(&scale), Some(&shift));
    for kind in [Kind::Float, Kind::BFloat16] {
        let mut cut = group(c, kind, "patches", images.numel() as i64);
        cut.bench_function("own", |b| b.iter(|| patches(&images, [16, 16], 1e-5, kind).expect("the shapes fit")));
        let by_ops = || {
            let cut = images.reshape([BATCH, 3, 14, 16, 14, 16]).permute([0, 2, 4, 1, 3, 5]);
            let none = None::<&Tensor>;
            cut.reshape([BATCH, TOKENS - 1, 768]).layer_norm([768], none, none, 1e-5, true).to_kind(kind)
        };
        cut.bench_function("libtorch", |b| b.iter(by_ops));
        cut.finish();

        let x = normal(&[BATCH, TOKENS - 1, D], kind);
        let norm = TokenNorm { scale: &scale, shift: &shift, eps: 1e-5 };
        let mut place = group(c, kind, "tokens", BATCH * TOKENS * D);
        place.bench_function("own", |b| b.iter(|| norm.forward(&x, &class, &positions).expect("the shapes fit")));
        let by_ops = || {
            let first = class.view([1, 1, D]).expand([BATCH, 1, D], false).to_kind(kind);
            let (scale, shift) = affine;
            Tensor::cat(&[first, x.layer_norm([D], scale, shift, 1e-5, true)], 1) + &positions
        };
        place.bench_function("libtorch", |b| b.iter(by_ops));
        let (z, found) = norm.forward(&x, &class, &positions).expect("the shapes fit");
        let back = || norm.backward(&z, &x, &found.mean, &found.rstd).expect("the shapes fit");
        place.bench_function("own_backward", |b| b.iter(back));
        place.finish();

        let z = normal(&[BATCH, TOKENS, D], kind);
        let norm = Norm { affine: Some((&scale, &shift)), eps: 1e-5 };
        let pooling = Pooling { x: &z, norm, queries: &queries, scale: SCALE };
        let mut pool = group(c, kind, "pooling", BATCH * TOKENS * D);
        pool.bench_function("own", |b| b.iter(|| pooling.forward().expect("the shapes fit")));
        let cast = queries.to_kind(kind);
        let by_ops = || {
            let h = z.layer_norm([D], affine.0, affine.1, 1e-5, true);
            (cast.matmul(&h.transpose(1, 2)) * SCALE).softmax(-1, None::<Kind>).matmul(&h)
        };
        pool.bench_function("libtorch", |b| b.iter(by_ops));
        let (out, logarithms) = pooling.forward().expect("the shapes fit");
        let back = || pooling.backward(&queries, &out, &logarithms).expect("the shapes fit");
        pool.bench_function("own_backward", |b| b.iter(back));
        pool.finish();
    }
}

/// For float32 products and for bf16 ones.
fn operator(c: &mut Criterion) {
    let d = normal(&[D, D], Kind::Float);
    for kind in [Kind::Float, Kind::BFloat16] {
        let mut group = group(c, kind, "operator", D * D * D);
        let own = || gram_step(&d, -0.1, 0.1, 1.0, kind == Kind::BFloat16).expect("the shapes fit");
        group.bench_function("own", |b| b.iter(own));
        let identity = Tensor::eye(D, (Kind::Float, Device::Cpu));
        group.bench_function("libtorch", |b| b.iter(|| &identity + (d.tr() - d.tr().matmul(&d)) * 0.1));
        group.finish();
    }
}

/// What the halves of a layer are measured by; a sample is one element.
fn steps(c: &mut Criterion) {
    let [z, end, added, uz] = [0; 4].map(|_| normal(&[BATCH, TOKENS, D], Kind::Float));
    let u = normal(&[D, D], Kind::Float) * 0.05;
    let bases = Bases { u: &u, heads: HEADS };
    let mut group = group(c, Kind::Float, "steps", BATCH);
    group.bench_function("rate", |b| b.iter(|| place(&z, &[], 0.01).expect("the shapes fit")));
    group.bench_function("compression", |b| b.iter(|| place(&z, &[bases], 0.01).expect("the shapes fit")));
    group.bench_function("attention", |b| {
        b.iter(|| attention_alignment(&z, &uz, &added, bases, 0.01).expect("the shapes fit"))
    });
    group.bench_function("sparsity", |b| b.iter(|| sparsity_alignment(&z, &end, 0.1, 0.01).expect("the shapes fit")));
    group.finish();
}

criterion_group!(benches, attention, rows, ends, operator, steps);
criterion_main!(benches);
