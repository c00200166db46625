//! What a person sees of a run: a bar with rate and time left, a line for each evaluation.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use whitebox_train::metrics::Event;
use whitebox_train::{BoxError, Sink};

/// A bar on the terminal; where there is none, a line from time to time.
pub struct Terminal {
    bar: ProgressBar,
    steps_per_epoch: u64,
    total: u64,
    last: String,
    last_line: Instant,
    begin: u64,
    began: Instant,
    unit: &'static str,
}

const LINE_EVERY: Duration = Duration::from_secs(15);

impl Terminal {
    /// A sink for one run, whose speed is told in `unit` a second.
    pub fn new(unit: &'static str) -> Self {
        let now = Instant::now();
        Terminal {
            bar: ProgressBar::hidden(),
            steps_per_epoch: 1,
            total: 0,
            last: String::new(),
            last_line: now,
            begin: 0,
            began: now,
            unit,
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}

impl Sink for Terminal {
    fn emit(&mut self, event: &Event<'_>) -> Result<(), BoxError> {
        match event {
            Event::Start { step, epoch, resumed, total_steps, steps_per_epoch, epochs, .. } => {
                self.bar = bar(*total_steps, "steps");
                self.bar.set_position(*step);
                self.bar.reset_eta();
                (self.total, self.steps_per_epoch, self.begin, self.began) =
                    (*total_steps, *steps_per_epoch, *step, Instant::now());
                if step == total_steps {
                    self.line(&format!("this run is finished ({step} steps): it is measured and reported again"));
                } else if *resumed {
                    self.line(&format!("going on after step {step} of {total_steps}, epoch {} of {epochs}", epoch + 1));
                }
            }
            Event::Tick { step, .. } => self.bar.set_position(*step),
            Event::Step { step, loss, scalars, samples_per_second, .. } => {
                let scalars: String = scalars.iter().map(|(name, value)| format!("{name} {value:.3} | ")).collect();
                self.last = format!("loss {loss:.4} | {scalars}{samples_per_second:.0} {}/s", self.unit);
                self.bar.set_message(self.last.clone());
                if self.bar.is_hidden() && self.last_line.elapsed() > LINE_EVERY {
                    self.last_line = Instant::now();
                    let done = (step - self.begin).max(1) as f64;
                    let left = self.began.elapsed().as_secs_f64() / done * (self.total - step) as f64;
                    self.line(&format!("step {step} of {}: {} | about {} left", self.total, self.last, duration(left)));
                }
            }
            Event::EvalProgress { done, total } => self.bar.set_message(format!("evaluating {done}/{total}")),
            Event::Eval { step, metrics, best, .. } => {
                let epoch = step.div_ceil(self.steps_per_epoch);
                let values: Vec<_> = metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
                let star = if *best { "  (best so far)" } else { "" };
                let train = if self.last.is_empty() { String::new() } else { format!(" | training: {}", self.last) };
                self.line(&format!("epoch {epoch:>3}: validation {}{star}{train}", values.join(", ")));
            }
            Event::Warning { message, .. } => self.line(&format!("warning: {message}")),
            Event::End { .. } => self.bar.finish_and_clear(),
            _ => {}
        }
        Ok(())
    }
}

/// A bar with rate and time left; hidden where stderr is no terminal.
pub fn bar(length: u64, unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("[{{elapsed}}] {{wide_bar}} {{pos}}/{{len}} {unit} ({{per_sec}}, {{eta}} left)\n{{msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// A bar for work that reports (done, total).
pub fn meter(what: &'static str, unit: &str) -> impl FnMut(u64, u64) {
    let bar = bar(0, unit).with_message(what);
    move |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if done == total {
            bar.finish_and_clear();
        }
    }
}

/// `1h 02m`, `3m 20s`, `12 s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round().min(1e12) as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        _ => format!("{}h {:02}m", s / 3600, s % 3600 / 60),
    }
}
