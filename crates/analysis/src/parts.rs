//! A batch's samples measured apart, on the CPU each on one thread.
//!
//! Measures are chains of small operations and small factorisations. Over a whole batch each operation moves every token through memory, and libtorch factorises
//! the matrices of a batch one after the other; a sample's tokens alone stay in a core's cache, and samples need nothing of each other.

use std::sync::OnceLock;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::{Device, Tensor};

use crate::Result;

/// A batch in parts: sample by sample on the CPU, as a whole on another device.
pub(crate) fn split(batch: &Tensor) -> Result<Vec<Tensor>> {
    match batch.device() {
        Device::Cpu if !batch.size().is_empty() => Ok(batch.f_split(1, 0)?),
        _ => Ok(vec![batch.shallow_clone()]),
    }
}

/// What `measure` makes of each part, in order, without gradients.
pub(crate) fn each<I: Send, T: Send>(parts: Vec<I>, measure: impl Fn(I) -> Result<T> + Sync) -> Result<Vec<T>> {
    let one = |part| tch::no_grad(|| measure(part));
    match pool() {
        Some(pool) if parts.len() > 1 => pool.install(|| parts.into_par_iter().map(one).collect()),
        _ => parts.into_iter().map(one).collect(),
    }
}

/// As many threads as libtorch has, each of which computes alone; none where there is one anyway, or the system gives no more.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    POOL.get_or_init(|| {
        let threads = tch::get_num_threads();
        if threads <= 1 {
            return None;
        }
        // The number is each thread's own, and what is set last is what threads to come begin with.
        let pool = ThreadPoolBuilder::new().num_threads(threads as usize).build().ok()?;
        pool.broadcast(|_| tch::set_num_threads(1));
        tch::set_num_threads(threads);
        Some(pool)
    })
    .as_ref()
}
