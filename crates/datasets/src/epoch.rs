//! The threads behind a [`Loader`](crate::Loader): batch numbers go out to workers, batches come back in any order and
//! are handed on in theirs.
//!
//! A batch is the work of one worker. A new number is given out only when a batch has been taken, so that
//! `workers * prefetch` batches at most are held or in the making, and neither channel needs a bound of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::loader::Memory;
use crate::{Batch, Error, Loader, Result};

/// The batches of one epoch, in order. After an error it ends. Dropping it stops and joins its threads, each after the
/// sample it is at.
pub struct Epoch {
    work: Arc<Work>,
    /// Batches not yet handed on.
    left: Range<usize>,
    /// Batches not yet given to a worker.
    waiting: Range<usize>,
    jobs: Option<Sender<usize>>,
    results: Receiver<(usize, Result<Batch>)>,
    ready: BTreeMap<usize, Result<Batch>>,
    threads: Vec<JoinHandle<()>>,
    /// Of the caller's thread, where that does the work.
    memory: Option<Box<Memory>>,
}

/// What the threads share.
struct Work {
    loader: Loader,
    epoch: u64,
    order: Vec<usize>,
    cancelled: AtomicBool,
}

impl Work {
    fn batch(&self, number: usize, memory: &mut Memory) -> Result<Batch> {
        let size = self.loader.config().batch_size;
        let indices = self.order.chunks(size).nth(number).unwrap_or_default();
        let first = number.saturating_mul(size);
        // A batch cut short by cancelling has no reader any more.
        self.loader.assemble(self.epoch, first, indices, memory, || !self.cancelled.load(Ordering::Relaxed))
    }
}

impl Epoch {
    pub(crate) fn new(loader: Loader, epoch: u64, start_batch: usize) -> Self {
        let end = loader.batches_per_epoch();
        let left = start_batch.min(end)..end;
        let workers = loader.config().workers;
        let ahead = workers * loader.config().prefetch;
        let order = if left.is_empty() { Vec::new() } else { loader.order(epoch) };
        let work = Arc::new(Work { loader, epoch, order, cancelled: AtomicBool::new(false) });

        let (jobs, next_job) = unbounded::<usize>();
        let (done, results) = unbounded();
        let worker = |number: usize| {
            let (work, next_job, done) = (work.clone(), next_job.clone(), done.clone());
            let run = move || {
                let mut memory = Memory::default();
                for number in next_job {
                    // Samples are loaded under `catch_unwind` already; this is for what lies around them.
                    let batch = catch_unwind(AssertUnwindSafe(|| work.batch(number, &mut memory)));
                    let batch = batch.unwrap_or(Err(Error::WorkerLost { batch: number }));
                    if work.cancelled.load(Ordering::Relaxed) || done.send((number, batch)).is_err() {
                        break;
                    }
                }
            };
            Builder::new().name(format!("loader-{number}")).spawn(run)
        };
        // Where the system refuses a thread the others do its work, and without any the caller's thread does it all:
        // the batches are the same.
        let threads = (0..workers.min(left.len())).map_while(|number| worker(number).ok()).collect();
        let mut epoch = Self {
            work,
            waiting: left.clone(),
            left,
            jobs: Some(jobs),
            results,
            ready: BTreeMap::new(),
            threads,
            memory: None,
        };
        (0..ahead).for_each(|_| epoch.give_out());
        epoch
    }

    fn give_out(&mut self) {
        if let (Some(jobs), Some(number)) = (&self.jobs, self.waiting.next()) {
            // Without a receiver `take` reports the loss.
            let _ = jobs.send(number);
        }
    }

    /// Waits for a batch.
    fn take(&mut self, number: usize) -> Result<Batch> {
        if self.threads.is_empty() {
            return self.work.batch(number, self.memory.get_or_insert_default());
        }
        loop {
            if let Some(batch) = self.ready.remove(&number) {
                return batch;
            }
            let (number, batch) = self.results.recv().map_err(|_| Error::WorkerLost { batch: number })?;
            self.ready.insert(number, batch);
        }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.left.next()?;
        let batch = self.take(number);
        if batch.is_err() {
            self.left = self.left.end..self.left.end;
            self.jobs = None;
        }
        self.give_out();
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left.len()))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.work.cancelled.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // Its panics were caught, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}
