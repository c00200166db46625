//! Tokens/s of whole models, CRATE against ViT: inference and training passes (forward, cross-entropy, all gradients).
//!
//! CRATE-T beside ViT-T on 16 images of 224 px, and the demo's CRATE beside a ViT with about as many parameters on 64 images
//! of 28 px. Multiply-adds of each come from [`whitebox_model::ModelConfig::cost`] and are printed once.

mod common;

use common::{Format, Pass, Setting, normal};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use tch::{Kind, Reduction, Tensor, nn};
use whitebox_model::{CrateConfig, ModelConfig, NoProbe, VitConfig};

struct Case {
    name: &'static str,
    batch: i64,
    config: ModelConfig,
}

fn cases() -> [Case; 4] {
    let (image, patch, channels, classes) = ([28, 28], [7, 7], 1, 10);
    let (depth, heads) = (4, 4);
    let small = CrateConfig { image, patch, channels, classes, d: 128, depth, heads, ..CrateConfig::default() };
    let small_vit = VitConfig { image, patch, channels, classes, d: 64, depth, heads, ..VitConfig::default() };
    [
        Case { name: "crate-tiny_224px_b16", batch: 16, config: ModelConfig::Crate(CrateConfig::tiny()) },
        Case { name: "vit-tiny_224px_b16", batch: 16, config: ModelConfig::Vit(VitConfig::tiny()) },
        Case { name: "crate-demo_28px_b64", batch: 64, config: ModelConfig::Crate(small) },
        Case { name: "vit-demo_28px_b64", batch: 64, config: ModelConfig::Vit(small_vit) },
    ]
}

fn models(c: &mut Criterion) {
    for Case { name, batch, config } in cases() {
        let cost = config.cost();
        let step = cost.training_step(batch.unsigned_abs()) as f64 / batch as f64;
        println!(
            "{name}: {} parameters, {:.4} G multiply-adds an image in inference, {:.4} in training",
            cost.parameters,
            cost.forward_per_image as f64 / 1e9,
            step / 1e9
        );
    }
    for setting in Setting::all() {
        let mut group = setting.group(c);
        for case in cases() {
            bench_case(&setting, &mut group, &case);
        }
    }
}

fn bench_case(setting: &Setting, group: &mut BenchmarkGroup<'_, WallTime>, case: &Case) {
    let Case { name, batch, config } = case;
    let store = nn::VarStore::new(setting.device);
    let model = config.build(&store.root()).expect("the config is valid");
    let grid = config.grid();
    let images = normal(&[*batch, grid.channels, grid.image[0], grid.image[1]], setting.device);
    let labels = Tensor::randint(config.classes(), [*batch], (Kind::Int64, setting.device));
    let forward = || model.forward(&images, &mut NoProbe).expect("the images fit");
    let loss = |logits: &Tensor| logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
    let tokens = batch * (grid.patches() + 1);
    setting.bench(group, name, tokens, &store.trainable_variables(), forward, loss);
    let kind = if setting.format == Format::F32 { Kind::Float } else { Kind::BFloat16 };
    if let (Pass::Inference, Some(folded)) = (setting.pass, model.fold(kind)) {
        let forward = || folded.forward(&images, &mut NoProbe).expect("the images fit");
        setting.bench(group, &format!("{name}_folded"), tokens, &[], forward, loss);
    }
}

criterion_group!(benches, models);
criterion_main!(benches);
