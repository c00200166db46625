//! The two layers that every model here is made of besides its own: `Linear` and `LayerNorm`, with PyTorch's parameter
//! names and initial values, and nothing hidden.
//!
//! tch has both; they are written out because the draws of the initial values must be PyTorch's
//! (`U(-1/sqrt(fan_in), 1/sqrt(fan_in))` for weight and bias) and because a fused path wants the tensors at hand.

use tch::nn::{Init, Path};
use tch::{Device, Kind, Tensor};
use torch_extras::autocast::Autocast;

/// How the weights of a [`Linear`] are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LinearInit {
    /// PyTorch's default: weight and bias from `U(-1/sqrt(fan_in), 1/sqrt(fan_in))`.
    PyTorch,
    /// timm's for ViT: weight from `N(0, 0.02^2)`, bias zero.
    Timm,
    /// MAE's: weight from `U(-b, b)` with `b = sqrt(6 / (fan_in + fan_out))`, bias zero.
    Xavier,
    /// Weight from `N(0, s^2)` with this standard deviation s, bias zero.
    Normal(f64),
}

/// `y = x W^T + b`.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// A linear layer under `path`, parameters `weight` and, where asked for, `bias`.
    pub fn new(path: &Path<'_>, inputs: i64, outputs: i64, bias: bool, init: LinearInit) -> Self {
        let bound = 1.0 / (inputs as f64).sqrt();
        let (w, b) = match init {
            LinearInit::PyTorch => (uniform(bound), uniform(bound)),
            LinearInit::Timm => (Init::Randn { mean: 0.0, stdev: 0.02 }, Init::Const(0.0)),
            LinearInit::Normal(stdev) => (Init::Randn { mean: 0.0, stdev }, Init::Const(0.0)),
            LinearInit::Xavier => (uniform((6.0 / (inputs + outputs) as f64).sqrt()), Init::Const(0.0)),
        };
        Linear {
            weight: path.var("weight", &[outputs, inputs], w),
            bias: bias.then(|| path.var("bias", &[outputs], b)),
        }
    }

    /// The same layer on the same parameters.
    pub fn share(&self) -> Self {
        Linear { weight: self.weight.shallow_clone(), bias: self.bias.as_ref().map(Tensor::shallow_clone) }
    }

    /// Weight and bias.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    /// # Shapes
    /// `x`: `[..., in]` to `[..., out]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// `U(-bound, bound)`.
pub fn uniform(bound: f64) -> Init {
    Init::Uniform { lo: -bound, up: bound }
}

/// Layer normalisation over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    /// Scale and shift, `[d]` each; none where the next matrix has taken them in ([`fold`](crate::fold)).
    pub affine: Option<(Tensor, Tensor)>,
    d: i64,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// A layer norm under `path`, parameters `weight` (ones) and `bias` (zeros). `eps` is added to the variance.
    pub fn new(path: &Path<'_>, d: i64, eps: f64) -> Self {
        let weight = path.var("weight", &[d], Init::Const(1.0));
        let bias = path.var("bias", &[d], Init::Const(0.0));
        LayerNorm { affine: Some((weight, bias)), d, eps }
    }

    /// # Shapes
    /// `x`: `[..., d]`, unchanged.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = self.affine.as_ref().map(|(w, b)| (w, b)).unzip();
        x.layer_norm([self.d], weight, bias, self.eps, true)
    }

    /// The same normalisation with other tensors for scale and shift.
    pub fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        LayerNorm { affine: self.affine.as_ref().map(|(scale, shift)| (f(scale), f(shift))), ..self.bare() }
    }

    /// Scale and shift, where they are here.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.affine.iter().flat_map(|(scale, shift)| [scale, shift])
    }

    /// The same normalisation without scale and shift.
    pub(crate) fn bare(&self) -> Self {
        LayerNorm { affine: None, d: self.d, eps: self.eps }
    }
}

/// The kind in which tokens `z` are computed: that of autocast where it is on.
pub fn computing_kind(z: &Tensor) -> Kind {
    Autocast::kind(z.device()).ok().flatten().unwrap_or_else(|| z.kind())
}

/// A weight as products of `kind` on the CPU take it: in the `number`s that its sums are taken in as it is, for they round it themselves, which is cheaper than a
/// tensor of rounded ones.
pub(crate) fn factor(weight: &Tensor, kind: Kind, number: Kind) -> Tensor {
    if weight.kind() == number { weight.shallow_clone() } else { weight.to_kind(kind) }
}

/// Switches autocast off for the guard's life; none is needed where there is none.
pub fn without_autocast(device: Device) -> Option<Autocast> {
    Autocast::new(device, Kind::BFloat16, false).ok()
}

/// Whether attention is faster with its map formed than fused: libtorch's fused kernel for the CPU is slow in bf16, its
/// backward most of all (docs/benchmarks.md). Longer sequences stay fused for their memory's sake.
///
/// # Shapes
/// `queries`: `[B, K, n, p]`.
pub(crate) fn map_is_faster(queries: &Tensor) -> bool {
    let short = queries.size().get(2).is_some_and(|&n| n <= 256);
    short && queries.device() == Device::Cpu && queries.kind() == Kind::BFloat16
}
