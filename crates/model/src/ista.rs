//! The sparsifying step: one proximal gradient step of non-negative sparse coding over a dictionary `D`
//! (NeurIPS eq. 17).
//!
//! ```text
//! ISTA(h | D) = ReLU(h + eta D^T (h - D h) - eta lambda)
//! ```
//!
//! Written out this is three products with a `d x d` matrix for every token. Because the step is affine before the ReLU
//! it is also one:
//!
//! ```text
//! ISTA(h | D) = ReLU(M h - eta lambda),   M = I + eta D^T (I - D)
//! ```
//!
//! where forming `M` costs `d^3` once, whatever the number of tokens. So do the gradients: with `G` that of the output, a row
//! for each token, and `g = G o [out > 0]`,
//!
//! ```text
//! dh = g M        dM = g^T h        dD = eta ((I - D) dM^T - D dM)
//! ```
//!
//! the last since `M` changes by `eta (dD^T (I - D) - D^T dD)`: a product for each token in the places of three and six, and
//! two of size d in the end. `M` and `dD` are formed in float32 also where tokens are bf16. The forms are equal in value and
//! gradient (tests/forms.rs); [`IstaForm::Auto`] takes the cheaper one.
//!
//! The paper's ablation has another proximal step in this place, [`Step::MmProx`] (App. A.3, eq. 92): majorise-minimise on
//! `lambda ||Z||_1 - R(Z)` for orthogonal unit tokens,
//!
//! ```text
//! MM-prox(h | D) = ReLU((1 + 4 / (9 (1 + alpha))) D^T h - 4 lambda / (9 alpha))
//! ```
//!
//! which has the one-product form already, with `M` a multiple of `D^T`, `dD` the same of `dM^T`, and no eta.

use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Device, Kind, Tensor};
use torch_extras::matrices;
use torch_extras::rows::Product;

use crate::layers::{LayerNorm, Linear, uniform, without_autocast};
use crate::probe::{Probe, Site, show};

/// How the step is computed. Not part of the mathematics: any form gives the same tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IstaForm {
    /// The one-product form where it costs less arithmetic: `2 tokens > d`.
    #[default]
    Auto,
    /// Three products with D a token, as the released code writes it.
    Plain,
    /// One product with M a token.
    OneProduct,
}

/// Which proximal step is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// ISTA, NeurIPS eq. 17.
    #[default]
    Ista,
    /// MM-prox, NeurIPS eq. 92 (2.2 points lower on ImageNet in the paper).
    MmProx,
}

/// The shape and the step of a sparsifying layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IstaConfig {
    /// Token dimension. Default: 384.
    pub d: i64,
    /// Default: ISTA.
    pub step: Step,
    /// Step size eta of ISTA. Default: 0.1.
    pub eta: f64,
    /// Weight lambda of the l1 norm. Default: 0.1.
    pub lambda: f64,
    /// The rates' `alpha = d / (N eps^2)` in MM-prox. Default: 1.
    pub mm_alpha: f64,
    /// Default: auto.
    pub form: IstaForm,
}

impl Default for IstaConfig {
    fn default() -> Self {
        IstaConfig { d: 384, step: Step::Ista, eta: 0.1, lambda: 0.1, mm_alpha: 1.0, form: IstaForm::Auto }
    }
}

/// One step of sparse coding; its parameter is the dictionary, named `weight`.
#[derive(Debug)]
pub struct Ista {
    /// The complete dictionary D, `[d, d]`; its columns are the atoms.
    pub dictionary: Tensor,
    /// M and what is added to its product, once they are kept for inference.
    pub(crate) kept: Option<Linear>,
    config: IstaConfig,
}

impl Ista {
    /// A sparsifying layer under `path`; D is drawn as Kaiming uniform with a = 0, bound `sqrt(6/d)`.
    pub fn new(path: &Path<'_>, config: &IstaConfig) -> Self {
        let d = config.d;
        let dictionary = path.var("weight", &[d, d], uniform((6.0 / d as f64).sqrt()));
        Ista { dictionary, kept: None, config: config.clone() }
    }

    /// The same step on the same dictionary.
    pub fn share(&self) -> Self {
        let kept = self.kept.as_ref().map(Linear::share);
        Ista { dictionary: self.dictionary.shallow_clone(), kept, config: self.config.clone() }
    }

    /// The sparse code after one step from `h`; there is no residual connection around it.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, d]`, non-negative.
    pub fn forward(&self, h: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        if let Some(kept) = &self.kept {
            let out = kept.forward(h).relu_();
            show(probe, layer, Site::ZOut, &out);
            return out;
        }
        if self.config.step == Step::Ista && probe.wants(layer, Site::IstaResidual) {
            probe.see(layer, Site::IstaResidual, &(h - h.linear(&self.dictionary, None::<&Tensor>)));
        }
        let out = if self.one_product(h) { self.step_in_one_product(h) } else { self.step_plain(h) };
        show(probe, layer, Site::ZOut, &out);
        out
    }

    /// Whether the step is one product for tokens `h`.
    pub(crate) fn one_product(&self, h: &Tensor) -> bool {
        match (self.config.step, self.config.form) {
            (Step::Ista, IstaForm::Auto) => 2 * (h.numel() as i64 / self.config.d) > self.config.d,
            (Step::Ista, IstaForm::Plain) => false,
            (Step::Ista, IstaForm::OneProduct) | (Step::MmProx, _) => true,
        }
    }

    /// `ReLU(h + eta D^T (h - D h) - eta lambda)`, product by product.
    fn step_plain(&self, h: &Tensor) -> Tensor {
        let IstaConfig { eta, lambda, .. } = self.config;
        let residual = h - h.linear(&self.dictionary, None::<&Tensor>);
        (h + residual.matmul(&self.dictionary) * eta - eta * lambda).relu()
    }

    /// `ReLU(M h - eta lambda)`.
    fn step_in_one_product(&self, h: &Tensor) -> Tensor {
        let m = {
            let _float32 = without_autocast(self.dictionary.device());
            self.operator_by_op()
        };
        h.linear(&m, Some(&self.threshold())).relu()
    }

    /// `M = I + eta D^T (I - D)`, or MM-prox's multiple of `D^T`, `[d, d]`, in the dictionary's kind, outside of autograd. It is going to meet tokens of `kind`: of
    /// floats 16 bits are enough beside bf16.
    pub(crate) fn operator(&self, kind: Kind) -> Tensor {
        let d = &self.dictionary;
        let fits = "a matrix fits itself";
        tch::no_grad(|| match (on_tiles(d), self.config.step) {
            (true, Step::Ista) => {
                let eta = self.config.eta;
                matrices::gram_step(d, -eta, eta, 1.0, kind == Kind::BFloat16).expect(fits)
            }
            _ => self.operator_by_op(),
        })
    }

    /// The same op by op. It must not depend on whether autograd records it: a layer that is computed again for the backward pass must come out as it did before.
    fn operator_by_op(&self) -> Tensor {
        let transposed = self.dictionary.tr();
        if self.config.step == Step::MmProx {
            return transposed.contiguous() * self.growth();
        }
        let mut m = transposed.matmul(&self.dictionary);
        m -= transposed;
        m *= -self.config.eta;
        let mut diagonal = m.diagonal(0, 0, 1);
        diagonal += 1.0;
        m
    }

    /// `- eta lambda`, or `-4 lambda / (9 alpha)`, for every dimension, `[d]`.
    pub(crate) fn threshold(&self) -> Tensor {
        let IstaConfig { d, step, eta, lambda, mm_alpha, .. } = self.config;
        let threshold = match step {
            Step::Ista => eta * lambda,
            Step::MmProx => 4.0 * lambda / (9.0 * mm_alpha),
        };
        Tensor::full([d], -threshold, (self.dictionary.kind(), self.dictionary.device()))
    }

    /// The way from the transposed gradient by `M`, `dM^T`, to that by the dictionary, `[d, d]` both and of one kind; tokens were of `kind`.
    pub(crate) fn dictionary_gradient(&self, kind: Kind) -> impl Fn(&Tensor, &Tensor) -> Tensor + Send + use<> {
        let (step, eta, growth) = (self.config.step, self.config.eta, self.growth());
        move |dictionary, transposed| match step {
            Step::Ista => dictionary_gradient(dictionary, transposed, eta, kind),
            Step::MmProx => transposed * growth,
        }
    }

    /// `1 + 4 / (9 (1 + alpha))`.
    fn growth(&self) -> f64 {
        1.0 + 4.0 / (9.0 * (1.0 + self.config.mm_alpha))
    }

    /// The step with M kept, for inputs whose scale and shift `norm` has left to it.
    pub(crate) fn fold(&self, norm: Option<&LayerNorm>, kind: Kind) -> Self {
        let step = Linear { weight: self.operator(self.dictionary.kind()), bias: Some(self.threshold()) };
        let kept = Some(step.after(norm, kind));
        Ista { dictionary: self.dictionary.shallow_clone(), kept, config: self.config.clone() }
    }
}

/// Whether products of `d` can be taken by the tiles of `torch_extras`, which are faster than libtorch's where the CPU has AMX.
fn on_tiles(d: &Tensor) -> bool {
    d.device() == Device::Cpu && matches!(d.kind(), Kind::Float | Kind::Double) && d.is_contiguous()
}

/// The gradient by the dictionary from the transposed one by `M`: `eta ((I - D) dM^T - D dM) = eta (dM^T - D P)` with `P = dM + dM^T`; `D P` is `(P D^T)^T`. Not for
/// autograd.
///
/// # Shapes
/// `dictionary`, `transposed`: `[d, d]`, of one kind.
fn dictionary_gradient(dictionary: &Tensor, transposed: &Tensor, eta: f64, kind: Kind) -> Tensor {
    if !on_tiles(dictionary) {
        return (transposed - dictionary.matmul(&(transposed + transposed.tr()))) * eta;
    }
    let fits = "matrices of one size and kind";
    let sum = matrices::with_transpose(1.0, transposed, 1.0, transposed, 0.0).expect(fits);
    let product = Product { turned: true, coarse: kind == Kind::BFloat16 }.compute(&sum, dictionary).expect(fits);
    matrices::with_transpose(eta, transposed, -eta, &product, 0.0).expect(fits)
}
