//! Measures the contestants of a case one after the other, in turn, round by round. One works at a time.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::cases::{CEILING, Case};
use super::contestant::Contestant;
use super::interrupt;
use super::stage::Stage;

/// Between two turns, but no longer than a turn: threads of the one before, which wait for work in a loop for a while,
/// have gone to sleep.
const PAUSE: Duration = Duration::from_millis(200);

/// What was measured of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// For each of its entries, a number for each round.
    pub values: Vec<Vec<f64>>,
    /// Operations in our matrix products for an image, where it is a model.
    pub gflop_per_image: Option<f64>,
}

/// A bar over all cases, counting starts and turns; it shows the time left and is invisible where standard error is no
/// terminal.
#[must_use]
pub fn bar(cases: &[Case], rounds: usize) -> ProgressBar {
    let steps = cases.iter().map(|case| case.entries.len() * (1 + case.rounds(rounds))).sum::<usize>();
    let style = ProgressStyle::with_template("[{bar:24}] {pos}/{len}, {eta} left: {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(steps as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// Starts all contestants of `case`, then measures them for `rounds` rounds.
///
/// # Errors
/// One of them ended or answered nonsense, or the user wants to stop; all are then ended.
pub fn run(case: &Case, rounds: usize, stage: &Stage, bar: &ProgressBar) -> Result<Outcome> {
    let mut contestants = Vec::new();
    for entry in &case.entries {
        let name = format!("{}, {}", case.name(), entry.name);
        bar.set_message(format!("{name} gets ready"));
        interrupt::check()?;
        contestants.push(entry.plan.start(&name, stage)?);
        bar.inc(1);
    }
    let gflop_per_image = contestants.first().and_then(|ours| ours.gflop_per_image());
    bar.set_message(case.name());
    let pause = PAUSE.min(Duration::try_from_secs_f64(stage.seconds).unwrap_or(PAUSE));
    let values = in_turn(&mut contestants, case.rounds(rounds), pause, bar)?;
    Ok(Outcome { case: case.clone(), values, gflop_per_image })
}

fn in_turn(
    contestants: &mut [Box<dyn Contestant>],
    rounds: usize,
    pause: Duration,
    bar: &ProgressBar,
) -> Result<Vec<Vec<f64>>> {
    let mut values = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        for index in order(round, contestants.len()) {
            thread::sleep(pause);
            interrupt::check()?;
            if let (Some(contestant), Some(values)) = (contestants.get_mut(index), values.get_mut(index)) {
                values.push(contestant.turn()?);
            }
            bar.inc(1);
        }
    }
    Ok(values)
}

/// Who comes when in a round: each begins a round once, and every second round runs backwards, so that nobody always
/// follows the same one.
fn order(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if count > 0 {
        order.rotate_left(round % count);
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

impl Outcome {
    /// The rounds of the entry `name`; empty where there is none.
    #[must_use]
    pub fn of(&self, name: &str) -> &[f64] {
        let index = self.case.entries.iter().position(|entry| entry.name == name);
        index.and_then(|index| self.values.get(index)).map_or(&[], Vec::as_slice)
    }

    /// Names of those who do the work, ours first; not that of the ceiling.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.case.entries.iter().map(|entry| entry.name).filter(|name| *name != CEILING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    struct Fake(usize, Arc<Mutex<Vec<usize>>>);

    impl Contestant for Fake {
        fn turn(&mut self) -> Result<f64> {
            self.1.lock().unwrap().push(self.0);
            Ok(self.0 as f64)
        }
    }

    #[test]
    fn each_has_its_turn_in_every_round() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut all: Vec<Box<dyn Contestant>> = Vec::new();
        for index in 0..3 {
            all.push(Box::new(Fake(index, Arc::clone(&log))));
        }
        let values = in_turn(&mut all, 4, Duration::ZERO, &ProgressBar::hidden()).unwrap();
        assert_eq!(values, [vec![0.0; 4], vec![1.0; 4], vec![2.0; 4]]);
        let log = log.lock().unwrap();
        assert_eq!(log[..], [0, 1, 2, 0, 2, 1, 2, 0, 1, 2, 1, 0]);
        assert!(order(5, 0).is_empty());
    }

    #[test]
    fn a_failed_turn_ends_the_case() {
        struct Dead;
        impl Contestant for Dead {
            fn turn(&mut self) -> Result<f64> {
                anyhow::bail!("gone")
            }
        }
        let mut all: Vec<Box<dyn Contestant>> = vec![Box::new(Dead)];
        assert!(in_turn(&mut all, 2, Duration::ZERO, &ProgressBar::hidden()).is_err());
    }
}
