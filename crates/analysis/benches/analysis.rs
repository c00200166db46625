//! What looking inside costs: CRATE-T at 224 px on 16 images, without a probe, with the folded model (plain inference), and with the probes of rates, half-steps and
//! atoms, alone and together.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor, nn};
use whitebox_analysis::activity::ActivityProbe;
use whitebox_analysis::operators::Operators;
use whitebox_analysis::steps::StepsProbe;
use whitebox_analysis::{LayerwiseProbe, Together};
use whitebox_model::{ModelConfig, NoProbe, Probe};

const BATCH: i64 = 16;

fn analysis(c: &mut Criterion) {
    torch_extras::heap::keep_freed_blocks(); // as the program does
    tch::manual_seed(1);
    let store = nn::VarStore::new(Device::Cpu);
    let config = ModelConfig::preset("crate-tiny").expect("a preset");
    let model = config.build(&store.root()).expect("a published size");
    let folded = model.fold(Kind::Float).expect("CRATE folds");
    let operators = Operators::of_model(&config, &store.variables());
    let images = Tensor::randn([BATCH, 3, 224, 224], (Kind::Float, Device::Cpu));
    let mut group = c.benchmark_group("analysis");
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(8)).sample_size(10);
    group.bench_function("inference_folded", |b| {
        b.iter(|| tch::no_grad(|| folded.forward(black_box(&images), &mut NoProbe)).expect("images fit"))
    });
    group.bench_function("tokens", |b| {
        b.iter(|| tch::no_grad(|| model.tokens(black_box(&images), &mut NoProbe)).expect("images fit"))
    });
    // Each measure alone, then all of them.
    for (name, [rates, halves, atoms]) in [
        ("rates", [true, false, false]),
        ("half_steps", [false, true, false]),
        ("activity", [false, false, true]),
        ("all", [true; 3]),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut layers = LayerwiseProbe::new(config.heads() as usize);
                let (mut steps, mut activity) = (StepsProbe::new(&operators), ActivityProbe::default());
                let measures: [(bool, &mut dyn Probe); 3] =
                    [(rates, &mut layers), (halves, &mut steps), (atoms, &mut activity)];
                let mut probe = Together(measures.into_iter().filter_map(|(on, probe)| on.then_some(probe)).collect());
                let _ = tch::no_grad(|| model.tokens(black_box(&images), &mut probe)).expect("images fit");
                drop(probe);
                (
                    layers.finish().expect("measured"),
                    steps.finish().expect("measured"),
                    activity.finish().expect("measured"),
                )
            })
        });
    }
    group.finish();
}

criterion_group!(benches, analysis);
criterion_main!(benches);
