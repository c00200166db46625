//! Tokens/s of CRATE's layers, forward and forward with backward, and the rate of plain matrix products beside them.
//!
//! Two shapes: a layer of CRATE-T at 224 px, where matrix products are all, and one of the demo's small model, where
//! the calls themselves count. Plain attention forms the map (a probe asks for it), plain ISTA makes three products, a block
//! in parts is computed op by op (a probe asks for what lies between), where `block` on the CPU is one operation; forward alone, in
//! float32, that operation shows it, too.

mod common;

use std::hint::black_box;

use common::{Format, Setting, group, normal};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use tch::{Kind, Tensor, nn};
use whitebox_model::block::{Block, ResidualBase};
use whitebox_model::ista::{Ista, IstaConfig, IstaForm};
use whitebox_model::mssa::{Mssa, MssaConfig};
use whitebox_model::{NoProbe, Probe, Site};

/// The tokens of one batch, and the layer they go through.
struct Shape {
    name: &'static str,
    batch: i64,
    tokens: i64,
    d: i64,
    heads: i64,
}

const SHAPES: [Shape; 2] = [
    Shape { name: "crate-tiny_224px_b16", batch: 16, tokens: 197, d: 384, heads: 6 },
    Shape { name: "demo_28px_b64", batch: 64, tokens: 17, d: 128, heads: 4 },
];

/// Has one intermediate formed and lets it go.
struct Wants(Site);

impl Probe for Wants {
    fn wants(&self, _layer: usize, site: Site) -> bool {
        site == self.0
    }

    fn see(&mut self, _layer: usize, _site: Site, value: &Tensor) {
        black_box(value);
    }
}

fn layers(c: &mut Criterion) {
    for setting in Setting::all() {
        let mut group = setting.group(c);
        for shape in SHAPES {
            bench_shape(&setting, &mut group, &shape);
        }
    }
}

fn bench_shape(setting: &Setting, group: &mut BenchmarkGroup<'_, WallTime>, shape: &Shape) {
    let Shape { name, batch, tokens, d, heads } = *shape;
    let store = nn::VarStore::new(setting.device);
    let root = store.root();
    let mssa = MssaConfig { d, heads, head_dim: d / heads, ..MssaConfig::default() };
    let ista = |form| IstaConfig { d, form, ..IstaConfig::default() };
    let attention = Mssa::new(&(&root / "mssa"), &mssa);
    let plain = Ista::new(&(&root / "plain"), &ista(IstaForm::Plain));
    let one_product = Ista::new(&(&root / "one"), &ista(IstaForm::OneProduct));
    let block = Block::new(&(&root / "block"), &mssa, &ista(IstaForm::Auto), ResidualBase::Raw);

    let h = normal(&[batch, tokens, d], setting.device).set_requires_grad(true);
    // A dense gradient arrives from above, as inside a network.
    let from_above = normal(&[batch, tokens, d], setting.device);
    let loss = |out: &Tensor| (out * &from_above).sum(Kind::Float);
    let mut bench = |layer: &str, part: &str, forward: &dyn Fn() -> Tensor| {
        let mut inputs = vec![h.shallow_clone()];
        inputs.extend(store.variables().into_iter().filter(|(name, _)| name.starts_with(part)).map(|(_, v)| v));
        setting.bench(group, &format!("{layer}/{name}"), batch * tokens, &inputs, forward, loss);
    };
    bench("mssa-fused", "mssa.", &|| attention.forward(&h, 0, &mut NoProbe));
    bench("mssa-plain", "mssa.", &|| attention.forward(&h, 0, &mut Wants(Site::Attention)));
    bench("ista-plain", "plain.", &|| plain.forward(&h, 0, &mut NoProbe));
    bench("ista-one-product", "one.", &|| one_product.forward(&h, 0, &mut NoProbe));
    bench("block", "block.", &|| block.forward(&h, 0, &mut NoProbe));
    bench("block-in-parts", "block.", &|| block.forward(&h, 0, &mut Wants(Site::ZHalf)));
}

/// The ceiling: products of the shape of a layer's and of a large square one. Here an element is a multiply-add.
fn matmul(c: &mut Criterion) {
    for setting in Setting::all().into_iter().step_by(2) {
        let kind = if setting.format == Format::F32 { Kind::Float } else { Kind::BFloat16 };
        let mut group = group(c, &format!("{}_matmul", setting.prefix()));
        for [m, k, n] in [[3152, 384, 384], [2048, 2048, 2048]] {
            let a = normal(&[m, k], setting.device).to_kind(kind);
            let b = normal(&[n, k], setting.device).to_kind(kind);
            group.throughput(Throughput::Elements((m * k * n).unsigned_abs()));
            setting.time(&mut group, &format!("{m}x{k}x{n}"), || drop(a.linear(&b, None::<&Tensor>)));
        }
    }
}

criterion_group!(benches, matmul, layers);
criterion_main!(benches);
