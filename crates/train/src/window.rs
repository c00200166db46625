//! The losses since the last log line, left on the device until someone asks: reading a number waits for all work before it.

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::task::Loss;

/// What one micro-batch reported: its numbers are still on the device.
struct Pending {
    step: u64,
    lr: f64,
    samples: u64,
    /// The loss, then the scalars, each [] float32.
    values: Vec<Tensor>,
}

/// A number that is not one, and when.
#[derive(Debug, PartialEq)]
pub(crate) struct Broken {
    pub what: String,
    pub step: u64,
    pub lr: f64,
}

/// Means over the window, weighted by samples.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Means {
    pub loss: f64,
    pub scalars: Vec<(String, f64)>,
    pub grad_norm: f64,
    pub samples: u64,
}

#[derive(Default)]
pub(crate) struct Window {
    names: Vec<&'static str>,
    pending: Vec<Pending>,
    norms: Vec<(u64, f64, Tensor)>,
    sums: Vec<f64>,
    samples: u64,
    norm_sum: f64,
    norm_count: u64,
}

impl Window {
    /// Takes the report of a micro-batch of step `step`.
    pub fn add(&mut self, step: u64, lr: f64, report: &Loss) -> Result<()> {
        let names: Vec<_> = std::iter::once("loss").chain(report.scalars.iter().map(|(name, _)| *name)).collect();
        if self.names.is_empty() {
            self.names = names;
        } else if self.names != names {
            let text =
                format!("the task reports {names:?} after {:?}: expected the same names in every batch", self.names);
            return Err(Error::Config(text));
        }
        let tensors = std::iter::once(&report.loss).chain(report.scalars.iter().map(|(_, value)| value));
        let values = tensors
            .zip(&self.names)
            .map(|(value, name)| match value.numel() {
                1 => Ok(value.f_detach()?.f_to_kind(Kind::Float)?.f_reshape([])?),
                _ => Err(Error::Config(format!("the task's {name} has shape {:?}: expected a scalar", value.size()))),
            })
            .collect::<Result<_>>()?;
        self.pending.push(Pending { step, lr, samples: report.samples, values });
        Ok(())
    }

    /// Takes the gradient norm of step `step`.
    pub fn add_norm(&mut self, step: u64, lr: f64, norm: Tensor) {
        self.norms.push((step, lr, norm));
    }

    /// Reads what is pending, in one transfer, and says what is not finite first.
    pub fn read(&mut self) -> Result<Option<Broken>> {
        let values: Vec<&Tensor> =
            self.pending.iter().flat_map(|p| &p.values).chain(self.norms.iter().map(|(.., norm)| norm)).collect();
        if values.is_empty() {
            return Ok(None);
        }
        let flat: Vec<f64> = Vec::try_from(Tensor::f_stack(&values, 0)?.f_to_kind(Kind::Double)?)?;
        let width = self.names.len();
        let (losses, norms) = flat.split_at(width * self.pending.len());
        self.sums.resize(width, 0.0);
        let mut broken: Option<Broken> = None;
        let mut report = |what: &str, value: f64, step: u64, lr: f64| {
            if !value.is_finite() && broken.as_ref().is_none_or(|b| step < b.step) {
                broken = Some(Broken { what: format!("the {what} ({value})"), step, lr });
            }
        };
        for (p, row) in self.pending.drain(..).zip(losses.chunks_exact(width.max(1))) {
            for (sum, value) in self.sums.iter_mut().zip(row) {
                *sum += value * p.samples as f64;
            }
            self.samples += p.samples;
            if let Some(loss) = row.first() {
                report("loss", *loss, p.step, p.lr);
            }
        }
        for ((step, lr, _), norm) in self.norms.drain(..).zip(norms) {
            self.norm_sum += norm;
            self.norm_count += 1;
            report("gradient norm", *norm, step, lr);
        }
        Ok(broken)
    }

    /// The means of what has been read; the window starts anew. `None` where nothing was.
    pub fn close(&mut self) -> Option<Means> {
        let window = std::mem::take(self);
        let samples = window.samples as f64;
        let mut means = window.names.iter().zip(window.sums).map(|(name, sum)| (name.to_string(), sum / samples));
        let (_, loss) = means.next().filter(|_| window.samples > 0)?;
        Some(Means {
            loss,
            scalars: means.collect(),
            grad_norm: window.norm_sum / window.norm_count.max(1) as f64,
            samples: window.samples,
        })
    }
}

/// Time spent on training since the last report.
pub(crate) struct Clock {
    since: Instant,
    paused: Duration,
}

impl Clock {
    pub fn new() -> Self {
        Self { since: Instant::now(), paused: Duration::ZERO }
    }

    /// Leaves out what has passed since `began`.
    pub fn pause(&mut self, began: Instant) {
        self.paused += began.elapsed();
    }

    /// The time since the last call, less the pauses.
    pub fn restart(&mut self) -> Duration {
        let Self { since, paused } = std::mem::replace(self, Self::new());
        since.elapsed().saturating_sub(paused).max(Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(loss: f64, accuracy: f64, samples: u64) -> Loss {
        let scalar = |x: f64| Tensor::from_slice(&[x]);
        Loss { loss: scalar(loss), samples, scalars: vec![("accuracy", scalar(accuracy))] }
    }

    #[test]
    fn means_are_over_samples() -> Result<()> {
        let mut window = Window::default();
        assert_eq!((window.read()?, window.close()), (None, None));
        window.add(1, 0.1, &report(1.0, 0.5, 3))?;
        window.add_norm(1, 0.1, Tensor::from(4.0));
        assert_eq!(window.read()?, None);
        window.add(2, 0.1, &report(5.0, 0.0, 1))?;
        window.add_norm(2, 0.1, Tensor::from(2.0));
        assert_eq!(window.read()?, None);
        let means = window.close().unwrap();
        assert_eq!((means.loss, means.grad_norm, means.samples), (2.0, 3.0, 4));
        assert_eq!(means.scalars, [("accuracy".to_owned(), 0.375)]);
        assert_eq!(window.close(), None);
        Ok(())
    }

    #[test]
    fn the_first_broken_number_is_named() -> Result<()> {
        let mut window = Window::default();
        window.add(4, 0.4, &report(1.0, f64::NAN, 1))?;
        window.add_norm(4, 0.4, Tensor::from(1.0));
        window.add(5, 0.5, &report(1.0, 0.0, 1))?;
        window.add_norm(5, 0.5, Tensor::from(f64::INFINITY));
        window.add(6, 0.6, &report(f64::NAN, 0.0, 1))?;
        let broken = window.read()?.unwrap();
        assert_eq!(broken, Broken { what: "the gradient norm (inf)".into(), step: 5, lr: 0.5 });
        Ok(())
    }

    #[test]
    fn what_is_no_scalar_or_changes_its_name_is_refused() -> Result<()> {
        let mut window = Window::default();
        let vector = Loss { loss: Tensor::from_slice(&[1.0, 2.0]), samples: 1, scalars: vec![] };
        assert!(window.add(1, 0.1, &vector).unwrap_err().to_string().contains("expected a scalar"));
        let mut window = Window::default();
        window.add(1, 0.1, &report(1.0, 1.0, 1))?;
        let other = Loss { loss: Tensor::from(1.0), samples: 1, scalars: vec![] };
        assert!(window.add(2, 0.1, &other).unwrap_err().to_string().contains("same names"));
        Ok(())
    }
}
