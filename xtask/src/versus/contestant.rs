//! Who is measured in turn: a worker that lives through all rounds, a program that is run anew each turn, or a criterion
//! bench.

use std::process::Command;

use anyhow::{Context, Result};

use super::criterion::{self, Bench};
use super::protocol::{self, Ready};
use super::stage::Stage;
use super::worker::Worker;

/// One who takes turns.
pub trait Contestant {
    /// Measures once: milliseconds, GFLOP/s or bytes.
    ///
    /// # Errors
    /// It can't be measured, or the user wants to stop.
    fn turn(&mut self) -> Result<f64>;

    /// Operations in the matrix products for an image, where it says them.
    fn gflop_per_image(&self) -> Option<f64> {
        None
    }
}

/// A program with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// `whitebox`.
    Ours(Vec<String>),
    /// A script of `xtask/reference`.
    Python(&'static str, Vec<String>),
}

/// How a contestant comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A worker that lives through all rounds.
    Serve(Program),
    /// A program that writes its one figure and ends.
    Once(Program),
    /// A criterion bench.
    Bench(Bench),
}

impl Program {
    fn command(&self, stage: &Stage) -> Result<Command> {
        match self {
            Program::Ours(words) => stage.ours(words),
            Program::Python(script, words) => Ok(stage.python(script, words)),
        }
    }
}

impl Plan {
    /// Starts the contestant and waits until it is warm; `name` is what errors call it.
    ///
    /// # Errors
    /// It ended, or said something else than that it is ready.
    pub fn start(&self, name: &str, stage: &Stage) -> Result<Box<dyn Contestant>> {
        match self {
            Plan::Serve(program) => {
                let mut worker = Worker::start(name, &mut program.command(stage)?)?;
                let ready = protocol::ready(&worker.line()?, stage.threads).with_context(|| name.to_owned())?;
                Ok(Box::new(Serving { name: name.to_owned(), worker, ready }))
            }
            Plan::Once(program) => Ok(Box::new(Anew { name: name.to_owned(), command: program.command(stage)? })),
            Plan::Bench(bench) => criterion::start(name, bench, stage),
        }
    }
}

struct Serving {
    name: String,
    worker: Worker,
    ready: Ready,
}

impl Contestant for Serving {
    fn turn(&mut self) -> Result<f64> {
        protocol::value(&self.worker.ask()?).with_context(|| self.name.clone())
    }

    fn gflop_per_image(&self) -> Option<f64> {
        self.ready.gflop_per_image
    }
}

struct Anew {
    name: String,
    command: Command,
}

impl Contestant for Anew {
    fn turn(&mut self) -> Result<f64> {
        let mut worker = Worker::start(&self.name, &mut self.command)?;
        let line = worker.line()?;
        worker.finish()?;
        protocol::value(&line).with_context(|| self.name.clone())
    }
}
