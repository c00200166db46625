//! The GELU MLP of a transformer, `fc2(GELU(fc1 h))`: what CRATE has a dictionary in the place of. ViT and ToST have it in every layer, and CRATE for the
//! paper's ablation (`sparsify = "mlp"`). Language models bring their own two maps, and GPT-2 another GELU.

use tch::Tensor;
use tch::nn::Path;

use crate::layers::{LayerNorm, Linear, LinearInit};
use crate::probe::{Probe, Site, show};

/// How GELU, `x Phi(x)` with the normal distribution's `Phi`, is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gelu {
    /// By the error function.
    #[default]
    Exact,
    /// `x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`, GPT-2's `gelu_new`.
    Tanh,
}

impl Gelu {
    /// # Shapes
    /// Any, unchanged.
    pub fn forward(self, x: &Tensor) -> Tensor {
        x.gelu(match self {
            Gelu::Exact => "none",
            Gelu::Tanh => "tanh",
        })
    }
}

/// Two linear maps with a GELU between them; parameters `fc1.*`, `fc2.*`, unless the maps come from elsewhere.
#[derive(Debug)]
pub struct Mlp {
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
    gelu: Gelu,
}

impl Mlp {
    /// An MLP under `path` with `hidden` activations.
    pub fn new(path: &Path<'_>, d: i64, hidden: i64, init: LinearInit) -> Self {
        Mlp {
            fc1: Linear::new(&(path / "fc1"), d, hidden, true, init),
            fc2: Linear::new(&(path / "fc2"), hidden, d, true, init),
            gelu: Gelu::Exact,
        }
    }

    /// The MLP of these maps.
    pub fn of(fc1: Linear, fc2: Linear, gelu: Gelu) -> Self {
        Mlp { fc1, fc2, gelu }
    }

    /// What the MLP adds to the tokens.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, h: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let hidden = self.gelu.forward(&self.fc1.forward(h));
        show(probe, layer, Site::MlpHidden, &hidden);
        let out = self.fc2.forward(&hidden);
        show(probe, layer, Site::IstaOut, &out);
        out
    }

    /// The same MLP on the same parameters.
    pub fn share(&self) -> Self {
        Mlp { fc1: self.fc1.share(), fc2: self.fc2.share(), gelu: self.gelu }
    }

    /// Weights and biases of both maps.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.fc1.parameters().chain(self.fc2.parameters())
    }

    /// The same MLP for inference, for inputs whose scale and shift `norm` has left to it.
    pub(crate) fn fold(&self, norm: Option<&LayerNorm>, kind: tch::Kind) -> Self {
        Mlp { fc1: self.fc1.after(norm, kind), fc2: self.fc2.after(None, kind), gelu: self.gelu }
    }
}
