//! Gaussian blur as torchvision's: a kernel of odd side, columns and rows one after the other in float64, the image
//! reflected about its outermost pixels, halves rounded to even.
//!
//! torchvision sums the whole square in float32, so that a value within some 1e-5 of a half may come out one apart; and it
//! refuses images smaller than half of the kernel, which here are reflected again and again.

use crate::raster::Raster;

/// A blur of which everything is settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Blur {
    /// Pixels of the kernel's side, odd.
    pub(crate) kernel: usize,
    /// Its standard deviation in pixels.
    pub(crate) sigma: f64,
}

impl Blur {
    /// Blurs each plane.
    pub(crate) fn apply(self, raster: &mut Raster) {
        let Raster { width, height, .. } = *raster;
        let weights = self.weights();
        let (columns, rows) = (self.sources(height), self.sources(width));
        let mut between = vec![0.0; width];
        let mut out = Vec::with_capacity(width * height);
        for plane in raster.pixels.chunks_exact_mut(width * height) {
            out.clear();
            for sources in columns.chunks_exact(self.kernel) {
                between.fill(0.0);
                for (&y, weight) in sources.iter().zip(&weights) {
                    for (sum, &value) in between.iter_mut().zip(&plane[y * width..][..width]) {
                        *sum += weight * f64::from(value);
                    }
                }
                out.extend(rows.chunks_exact(self.kernel).map(|sources| {
                    let sum: f64 = sources.iter().zip(&weights).map(|(&x, weight)| weight * between[x]).sum();
                    sum.round_ties_even() as u8
                }));
            }
            plane.copy_from_slice(&out);
        }
    }

    /// Of one side; their sum is 1.
    fn weights(self) -> Vec<f64> {
        let half = (self.kernel / 2) as f64;
        let weights = (0..self.kernel).map(|i| (-0.5 * ((i as f64 - half) / self.sigma).powi(2)).exp());
        let sum: f64 = weights.clone().sum();
        weights.map(|weight| weight / sum).collect()
    }

    /// For each place of a side of `length`, the places that the kernel sees from there.
    fn sources(self, length: usize) -> Vec<usize> {
        let half = self.kernel / 2;
        let period = (2 * (length - 1)).max(1);
        let reflected = |place: usize| {
            // From `half` places before the first on; so many periods more make it positive.
            let place = (place + half * (period - 1)) % period;
            place.min(period - place)
        };
        (0..length).flat_map(|at| (at..at + self.kernel).map(reflected)).collect()
    }
}
