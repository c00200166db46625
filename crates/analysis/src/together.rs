//! Several probes on one forward pass.

use tch::Tensor;
use whitebox_model::probe::{Probe, Site};

/// Shows each of its probes what that one wants.
pub struct Together<'a>(pub Vec<&'a mut dyn Probe>);

impl Probe for Together<'_> {
    fn wants(&self, layer: usize, site: Site) -> bool {
        self.0.iter().any(|probe| probe.wants(layer, site))
    }

    fn see(&mut self, layer: usize, site: Site, value: &Tensor) {
        for probe in self.0.iter_mut().filter(|probe| probe.wants(layer, site)) {
            probe.see(layer, site, value);
        }
    }
}
