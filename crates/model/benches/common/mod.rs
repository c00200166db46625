//! What the benches share: devices and number formats, one way of timing, inference and training passes.
//!
//! A group is named after device, number format and pass, as `cpu_bf16_training`. Its throughput counts tokens, so that
//! criterion's `elem/s` is tokens/s.

use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use tch::{Device, Kind, Tensor};
use torch_extras::autocast::Autocast;
use torch_extras::cuda::{device_from_str, synchronize};

/// Float32, or bf16 by autocast: parameters stay float32.
#[derive(Clone, Copy, PartialEq)]
pub enum Format {
    F32,
    Bf16,
}

/// Forward alone and without a graph, or forward and the gradients of all parameters.
#[derive(Clone, Copy, PartialEq)]
pub enum Pass {
    Inference,
    Training,
}

/// Where and how a group runs.
#[derive(Clone, Copy)]
pub struct Setting {
    pub device: Device,
    pub format: Format,
    pub pass: Pass,
}

impl Setting {
    /// Every combination that this machine can run; CUDA where there is a GPU.
    pub fn all() -> Vec<Setting> {
        let devices = [Some(Device::Cpu), device_from_str("cuda").ok()];
        let mut settings = Vec::new();
        for device in devices.into_iter().flatten() {
            for format in [Format::F32, Format::Bf16] {
                for pass in [Pass::Inference, Pass::Training] {
                    settings.push(Setting { device, format, pass });
                }
            }
        }
        settings
    }

    /// `cpu_f32`, `cuda_bf16`, ...
    pub fn prefix(&self) -> String {
        let device = if self.device == Device::Cpu { "cpu" } else { "cuda" };
        let format = if self.format == Format::F32 { "f32" } else { "bf16" };
        format!("{device}_{format}")
    }

    /// A group that takes ten samples: one pass of a whole model is long enough to be read from the clock.
    pub fn group<'a>(&self, c: &'a mut Criterion) -> BenchmarkGroup<'a, WallTime> {
        let pass = if self.pass == Pass::Inference { "inference" } else { "training" };
        group(c, &format!("{}_{pass}", self.prefix()))
    }

    /// Times one pass: `forward` gives what is looked at, `loss` what is derived by `inputs`.
    pub fn bench(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        tokens: i64,
        inputs: &[Tensor],
        forward: impl Fn() -> Tensor,
        loss: impl Fn(&Tensor) -> Tensor,
    ) {
        group.throughput(Throughput::Elements(tokens.unsigned_abs()));
        self.time(group, name, || match self.pass {
            Pass::Inference => {
                let _cast = self.autocast();
                drop(tch::no_grad(&forward));
            }
            Pass::Training => {
                let loss = {
                    let _cast = self.autocast();
                    loss(&forward())
                };
                drop(Tensor::run_backward(&[loss], inputs, false, false));
            }
        });
    }

    /// Times `work`, reading the clock once the device has done all of it.
    pub fn time(&self, group: &mut BenchmarkGroup<'_, WallTime>, name: &str, work: impl Fn()) {
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                synchronize(self.device);
                let start = Instant::now();
                for _ in 0..iterations {
                    work();
                }
                synchronize(self.device);
                start.elapsed()
            });
        });
    }

    fn autocast(&self) -> Autocast {
        Autocast::new(self.device, Kind::BFloat16, self.format == Format::Bf16).expect("CPU and CUDA know bf16")
    }
}

/// A group of few and short samples, so that the whole run stays within minutes.
pub fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    group
}

/// Standard normal numbers.
pub fn normal(shape: &[i64], device: Device) -> Tensor {
    Tensor::randn(shape, (Kind::Float, device))
}
