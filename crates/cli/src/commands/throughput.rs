//! `throughput`: how fast this machine trains a model or runs it, in images and operations a second, and in how much memory.
//!
//! The images are random and lie in memory, so that nothing but the model is measured. With `--turns` the program waits for a line on
//! standard input before each measurement: a driver can so ask several programs in turn, on a machine whose speed drifts.

use std::io::BufRead;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, nn};
use torch_extras::autocast::Autocast;
use torch_extras::cuda::{peak_memory, synchronize};
use whitebox_analysis::count;
use whitebox_model::{ModelConfig, NoProbe, VisionModel};
use whitebox_train::optimizer::Optimizer;
use whitebox_train::{OptimizerConfig, cross_entropy};

use crate::checkpoint;
use crate::memory;

/// Measure how fast a model trains or runs here, on random images.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask throughput crate-tiny
  cargo xtask throughput crate-small --pass inference --precision bfloat16
  cargo xtask throughput crate-base --device cuda --precision bfloat16 --batch 512
  cargo xtask throughput crate-tiny --set model.image=[384,384] --batch 4
  cargo xtask throughput crate-tiny --memory --batch 64   # of a training step
  cargo xtask throughput crate-tiny --memory --batch 64 --recompute
  cargo xtask throughput matmul                           # the ceiling")]
pub struct ThroughputArgs {
    /// A preset, a file with a model, or `matmul`.
    model: String,
    /// A field of the model, as --set model.heads=6; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// What is measured: a whole training step (forward, loss, backward, AdamW) or the forward pass of the model folded for inference.
    #[arg(long, value_enum, default_value = "training")]
    pass: Pass,
    /// The number format of matrix products.
    #[arg(long, value_enum, default_value = "float32")]
    precision: Format,
    /// Keep of each layer only what comes into it and compute it again in the backward pass.
    #[arg(long)]
    recompute: bool,
    /// Images in a batch.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(i64).range(1..=1 << 20))]
    batch: i64,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto")]
    device: String,
    /// How long to measure; three passes at least.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Measure memory instead of time.
    #[arg(long, conflicts_with = "turns")]
    memory: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Measure once for each line on standard input and answer each by a line of JSON.
    #[arg(long)]
    turns: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pass {
    Training,
    Inference,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    #[value(name = "float32")]
    Float32,
    #[value(name = "bfloat16")]
    BFloat16,
}

impl Format {
    fn kind(self) -> Kind {
        match self {
            Format::Float32 => Kind::Float,
            Format::BFloat16 => Kind::BFloat16,
        }
    }
}

/// Runs the command.
pub fn run(args: &ThroughputArgs) -> Result<()> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        bail!("--seconds {}: a number above 0 and up to 3600 is expected", args.seconds);
    }
    let device = torch_extras::cuda::device_from_str(&args.device)?;
    if args.model == "matmul" {
        return ceiling(args, device);
    }
    let config = checkpoint::model(&args.model, &args.sets)?;
    config.check()?;
    memory::check(config.cost().training_bytes(args.batch.unsigned_abs(), 2), device)?;
    let mut work = Work::new(args, &config, device)?;
    if args.memory {
        return measure_memory(args, &mut work);
    }
    for _ in 0..2 {
        work.pass()?; // memory is asked for, kernels are chosen
    }
    let operations = match args.pass {
        Pass::Training => config.cost().training_step(args.batch.unsigned_abs()),
        Pass::Inference => config.cost().forward_per_image * args.batch.unsigned_abs(),
    };
    let gflop_per_image = 2.0 * operations as f64 / args.batch as f64 / 1e9;
    if args.turns {
        let ready = json!({"ready": true, "gflop_per_image": gflop_per_image, "threads": tch::get_num_threads(),
            "version": env!("CARGO_PKG_VERSION")});
        return turns(&ready, || {
            let (seconds, repeats) = timed(args.seconds, || work.pass())?;
            Ok(json!({"ms": 1e3 * seconds / args.batch as f64, "repeats": repeats}))
        });
    }
    let (seconds, repeats) = timed(args.seconds, || work.pass())?;
    let images = args.batch as f64 / seconds;
    let found = json!({"model": args.model, "batch": args.batch, "threads": tch::get_num_threads(), "repeats": repeats,
        "ms_per_image": 1e3 / images, "images_per_second": images, "gflops": gflop_per_image * images});
    tell(args, &found, || {
        format!(
            "{}, {} images a batch, {} threads: {images:.1} images/s, {:.2} ms an image, {:.0} GFLOP/s",
            args.model,
            args.batch,
            tch::get_num_threads(),
            1e3 / images,
            gflop_per_image * images
        )
    })
}

/// A model, a batch and what is done with them.
struct Work {
    store: nn::VarStore,
    model: Box<dyn VisionModel>,
    folded: Option<Box<dyn VisionModel>>,
    optimizer: Optimizer,
    images: Tensor,
    labels: Tensor,
    pass: Pass,
    format: Format,
}

impl Work {
    fn new(args: &ThroughputArgs, config: &ModelConfig, device: Device) -> Result<Self> {
        tch::manual_seed(0);
        let store = nn::VarStore::new(device);
        let mut model = config.build(&store.root())?;
        model.recompute_layers(args.recompute);
        model.set_training(args.pass == Pass::Training);
        let grid = config.grid();
        let mut variables: Vec<_> = store.variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        let optimizer = OptimizerConfig { weight_decay: 0.05, ..OptimizerConfig::default() };
        Ok(Self {
            folded: (args.pass == Pass::Inference).then(|| model.fold(args.precision.kind())).flatten(),
            model,
            optimizer: Optimizer::new(&variables, &optimizer)?,
            images: Tensor::randn([args.batch, grid.channels, grid.image[0], grid.image[1]], (Kind::Float, device)),
            labels: Tensor::randint(config.classes(), [args.batch], (Kind::Int64, device)),
            pass: args.pass,
            format: args.precision,
            store,
        })
    }

    fn forward(&self) -> Result<Tensor> {
        let _cast = match self.format {
            Format::Float32 => None,
            Format::BFloat16 => Some(Autocast::new(self.store.device(), Kind::BFloat16, true)?),
        };
        Ok(self.folded.as_ref().unwrap_or(&self.model).forward(&self.images, &mut NoProbe)?)
    }

    fn pass(&mut self) -> Result<()> {
        match self.pass {
            Pass::Inference => drop(tch::no_grad(|| self.forward())?),
            Pass::Training => {
                self.optimizer.clear_grads()?;
                cross_entropy(&self.forward()?.to_kind(Kind::Float), &self.labels, 0.1, None)?.f_backward()?;
                self.optimizer.step(1e-3)?;
            }
        }
        synchronize(self.store.device());
        Ok(())
    }
}

/// Median seconds of `work` over `seconds`, three times at least, and how often it was done.
fn timed(seconds: f64, mut work: impl FnMut() -> Result<()>) -> Result<(f64, usize)> {
    let began = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || began.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times.len()))
}

/// What two passes take at their peak beside the model and the batch that are there already.
fn measure_memory(args: &ThroughputArgs, work: &mut Work) -> Result<()> {
    let device = work.store.device();
    let before = match device {
        Device::Cpu => memory::resident_and_reset_peak()?,
        _ => peak_memory(device).unwrap_or(0),
    };
    work.pass()?;
    work.pass()?;
    let Some(peak) = peak_memory(device) else { bail!("this system does not tell a process's peak of memory") };
    let bytes = peak.saturating_sub(before);
    tell(args, &json!({"model": args.model, "batch": args.batch, "peak_bytes": bytes}), || {
        format!("{}, {} images a batch: {} MiB beside model and batch", args.model, args.batch, count(bytes >> 20))
    })
}

/// Products of two large matrices, the fastest that libtorch does here.
fn ceiling(args: &ThroughputArgs, device: Device) -> Result<()> {
    let size = if device == Device::Cpu { 1536 } else { 8192 };
    let [a, b] = [0, 1].map(|_| Tensor::randn([size, size], (Kind::Float, device)).to_kind(args.precision.kind()));
    let measure = |seconds: f64| {
        let product = || {
            drop(a.linear(&b, None::<&Tensor>));
            synchronize(device);
            Ok(())
        };
        Ok::<_, anyhow::Error>(2.0 * (size as f64).powi(3) / timed(seconds, product)?.0 / 1e9)
    };
    measure(0.2)?;
    if args.turns {
        return turns(&json!({"ready": true, "threads": tch::get_num_threads()}), || {
            Ok(json!({"gflops": measure(args.seconds)?}))
        });
    }
    let gflops = measure(args.seconds)?;
    tell(args, &json!({"gflops": gflops, "threads": tch::get_num_threads()}), || {
        format!("products of {size} x {size} matrices, {} threads: {gflops:.0} GFLOP/s", tch::get_num_threads())
    })
}

/// Says `ready`, then answers every line on standard input by one measurement.
fn turns(ready: &Value, mut measure: impl FnMut() -> Result<Value>) -> Result<()> {
    crate::say(&ready.to_string())?;
    for line in std::io::stdin().lock().lines() {
        line?;
        crate::say(&measure()?.to_string())?;
    }
    Ok(())
}

fn tell(args: &ThroughputArgs, found: &Value, text: impl FnOnce() -> String) -> Result<()> {
    crate::say(&if args.json { found.to_string() } else { text() })
}
