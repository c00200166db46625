//! How fast this machine multiplies: what a run's time is estimated from, and what its speed is held against.

use std::time::Instant;

use tch::{Device, Kind, Tensor};

/// What a float32 matrix product of 512 x 512 x 512 (on a GPU 4096) reaches here, the best of a third of a second.
pub fn multiply_adds_per_second(device: Device) -> f64 {
    // Large enough that a GPU has something to do.
    let side: i64 = if device.is_cuda() { 4096 } else { 512 };
    let a = Tensor::ones([side, side], (Kind::Float, device));
    let began = Instant::now();
    let mut best = f64::INFINITY;
    while began.elapsed().as_secs_f64() < 0.33 {
        let start = Instant::now();
        let mut product = a.matmul(&a);
        for _ in 0..4 {
            product = a.matmul(&product);
        }
        torch_extras::cuda::synchronize(device);
        best = best.min(start.elapsed().as_secs_f64() / 5.0);
    }
    (side * side * side) as f64 / best
}
