//! The attention step of the first token alone as one operation with a backward pass of its own, for the CPU.
//!
//! With one query nothing but that is projected ([`Mssa::forward_first`]); what is left is to normalise all tokens and to gather them, K times:
//!
//! ```text
//! forward    h = LN(z)          q = h_1 U^T        g_k = q_k U_k      m_k = sum_j softmax_j(s h_j g_k) h_j      o_k = m_k U_k^T
//! kept       z                  q, g               m                  (and the statistics of the first tokens)
//! backward   dm_k = do_k U_k    (dz, dg) = pooling'(dm)               dq_k = dg_k U_k^T
//!            dU_k = do_k^T m_k + q_k^T dg_k + (dq^T h_1)_k            dz_1 += LN'(dq U) + what comes back by z_1 itself
//! ```
//!
//! All of the first tokens is computed in the kind that parameters have, under autocast too: it is little.

use tch::{Kind, Tensor};
use torch_extras::function;
use torch_extras::pooling::Pooling;
use torch_extras::rows::{Back, Map, Norm, weight_gradient};

use crate::layers::{LayerNorm, computing_kind, without_autocast};
use crate::mssa::{Mssa, attention_fits};

/// The first tokens `[B, d]` of `z`, in the kind of numbers that sums are taken in, and what attention gathers for them before the output map, `[B, K p]`; nothing
/// where another way must be taken.
///
/// # Shapes
/// `z`: `[B, n, d]`.
pub(crate) fn attend_first(norm: &LayerNorm, mssa: &Mssa, z: &Tensor) -> Option<(Tensor, Tensor)> {
    let kind = computing_kind(z);
    let inputs: Vec<&Tensor> = [z].into_iter().chain(norm.parameters()).chain([&mssa.u]).collect();
    let whole = norm.affine.is_some() && mssa.shift.is_none();
    let fits = matches!(kind, Kind::Float | Kind::Double | Kind::BFloat16)
        && attention_fits(z)
        && z.numel() > 0
        && (whole || !function::recorded(&inputs).unwrap_or(true));
    fits.then(|| {
        let _plain = without_autocast(z.device());
        let step = Step { heads: mssa.head_count(), scale: mssa.scale(), eps: norm.eps };
        let number = if kind == Kind::BFloat16 { Kind::Float } else { kind };
        let ([first, o], kept) = tch::no_grad(|| step.compute(norm, mssa, z, kind, number));
        if let Some(kept) = kept {
            let back = move |kept: &[Tensor], grads: &[Option<Tensor>]| step.backward(kept.try_into()?, grads);
            function::attach("attention of the first token", &[&first, &o], &inputs, &kept.each_ref(), back)
                .expect("all tensors are defined");
        }
        (first, o)
    })
}

const KEPT: usize = 11;

#[derive(Clone, Copy)]
struct Step {
    heads: i64,
    scale: f64,
    eps: f64,
}

impl Step {
    /// The first tokens and `o`, and what the backward pass wants of it; nothing of a folded layer, which has none.
    fn compute(
        self,
        norm: &LayerNorm,
        mssa: &Mssa,
        z: &Tensor,
        kind: Kind,
        number: Kind,
    ) -> ([Tensor; 2], Option<[Tensor; KEPT]>) {
        let fits = "the shapes are those of the layer";
        let (x, u) = (z.to_kind(kind).contiguous(), mssa.u.to_kind(number).contiguous());
        let shift = mssa.shift.as_ref().map(|t| t.to_kind(number));
        let norm = norm.map(|t| t.to_kind(number));
        // A copy, for it must not hang in the graph of `z`.
        let first = x.select(1, 0).to_dtype(number, false, true).contiguous();
        let affine = norm.affine.as_ref().map(|(s, t)| (s, t));
        let applied = Norm { affine, eps: self.eps };
        let project = Map { norm: Some(applied), bias: shift.as_ref(), ..Map::new(&u) };
        let (q, statistics) = project.forward(&first).expect(fits);
        let by_head = u.view([self.heads, -1, u.size()[1]]); // k p d
        let queries = self.joined(&self.heads(&q).bmm(&by_head));
        let pooling = Pooling { x: &x, norm: applied, queries: &queries, scale: self.scale };
        let (mean, logarithms) = pooling.forward().expect(fits);
        let o = self.joined(&mean.transpose(0, 1).bmm(&by_head.transpose(1, 2))).flatten(1, 2);
        let o = shift.iter().fold(o, |o, shift| o + shift);
        let kept = match (norm.affine, statistics, shift) {
            (Some((scale, shift)), Some(found), None) => {
                let (first, mean1, rstd1) = (first.shallow_clone(), found.mean, found.rstd);
                Some([x, u, q, queries, mean, logarithms, first, mean1, rstd1, scale, shift])
            }
            _ => None,
        };
        ([first, o], kept)
    }

    /// The way back, as the module's head writes it.
    fn backward(self, kept: &[Tensor; KEPT], grads: &[Option<Tensor>]) -> function::Gradients {
        let [x, u, q, queries, mean, logarithms, first, mean1, rstd1, scale, shift] = kept;
        let (by_first, by_o) = (grads[0].as_ref().map(Tensor::contiguous), grads[1].as_ref());
        let Some(by_o) = by_o else {
            let by_x = by_first.map(|by_first| add_to_first(&x.zeros_like(), &by_first));
            return Ok(vec![by_x, None, None, None]);
        };
        let by_head = u.view([self.heads, -1, u.size()[1]]); // k p d
        let by_o = self.heads(by_o); // k b p
        let norm = Norm { affine: Some((scale, shift)), eps: self.eps };
        let pooling = Pooling { x, norm, queries, scale: self.scale };
        let pooled = pooling.backward(&self.joined(&by_o.bmm(&by_head)), mean, logarithms)?;
        let by_queries = pooled.queries.transpose(0, 1); // k b d
        let by_q = self.joined(&by_queries.bmm(&by_head.transpose(1, 2))).flatten(1, 2);
        let through_projection = Back {
            out: None,
            weight: u,
            x: first,
            statistics: (mean1, rstd1),
            affine: (scale, shift),
            add: by_first.as_ref(),
        };
        let upper = through_projection.backward(&by_q)?;
        let by_u = by_o.transpose(1, 2).bmm(&mean.transpose(0, 1)) + self.heads(q).transpose(1, 2).bmm(&by_queries);
        let by_u = by_u.view_as(u) + weight_gradient(&by_q, &upper.h)?;
        let by_x = add_to_first(&pooled.x, &upper.x);
        Ok([by_x, pooled.scale + upper.scale, pooled.shift + upper.shift, by_u].map(Some).into())
    }

    /// `[B, K p]` to `[K, B, p]`.
    fn heads(self, joined: &Tensor) -> Tensor {
        joined.view([joined.size()[0], self.heads, -1]).transpose(0, 1)
    }

    /// `[K, B, ...]` to `[B, K, ...]`.
    fn joined(self, heads: &Tensor) -> Tensor {
        heads.transpose(0, 1).contiguous()
    }
}

/// Adds `[B, d]` to the first tokens of `[B, n, d]`, in place.
fn add_to_first(tokens: &Tensor, first: &Tensor) -> Tensor {
    let mut place = tokens.select(1, 0);
    place += first.to_kind(tokens.kind());
    tokens.shallow_clone()
}

#[cfg(test)]
mod tests {
    use tch::nn::VarStore;
    use tch::{Device, Tensor};

    use super::*;
    use crate::mssa::MssaConfig;

    /// Values and every gradient against the layers one after the other; also of one image and of one token.
    #[test]
    fn one_operation_is_the_first_token_of_the_layers() {
        for [b, n] in [[3, 37], [1, 9], [2, 1]] {
            for (kind, tolerance) in [(Kind::Double, 1e-11), (Kind::Float, 1e-4), (Kind::BFloat16, 8e-2)] {
                let mut vs = VarStore::new(Device::Cpu);
                let norm = LayerNorm::new(&(vs.root() / "norm"), 40, 1e-5);
                let config = MssaConfig { d: 40, heads: 5, head_dim: 6, ..MssaConfig::default() };
                let mssa = Mssa::new(&(vs.root() / "mssa"), &config);
                if kind == Kind::Double {
                    vs.double();
                }
                let numbers = norm.parameters().next().map(Tensor::kind).unwrap();
                tch::no_grad(|| norm.parameters().for_each(|t| drop(t.shallow_clone().uniform_(0.5, 1.5))));
                let _ = tch::no_grad(|| mssa.u.shallow_clone().fill_(0.0).normal_(0.0, 0.3));
                let count = Tensor::arange(b * n * 40, (Kind::Double, Device::Cpu));
                let z = ((count * 1.3).sin() * 3.0 + 0.5).reshape([b, n, 40]).to_kind(kind).set_requires_grad(true);
                let (first, o) = attend_first(&norm, &mssa, &z).expect("these fit");
                let plain = z.to_kind(numbers);
                let h = norm.forward(&plain);
                let map = Tensor::eye(30, (numbers, Device::Cpu));
                let output = Some(crate::layers::Linear { weight: map, bias: None });
                let expected = Mssa { output, ..mssa.share() }.forward_first(&h).squeeze_dim(1);
                let near = |a: &Tensor, b: &Tensor, what: &str| {
                    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
                    let error = f64::try_from((a - &b).norm() / b.norm()).unwrap();
                    assert!(error < tolerance, "{what} in {kind:?} of {b:?}: {error}");
                };
                near(&o, &expected, "what is gathered");
                near(&first, &z.select(1, 0), "the first tokens");
                let weigh = |first: &Tensor, o: &Tensor| (o * o).sum(numbers) + (first.sin() * first).sum(numbers);
                let inputs: Vec<Tensor> =
                    [&z].into_iter().chain(norm.parameters()).map(Tensor::shallow_clone).collect();
                let inputs: Vec<Tensor> = inputs.into_iter().chain([mssa.u.shallow_clone()]).collect();
                let own = Tensor::run_backward(&[weigh(&first, &o)], &inputs, false, false);
                let by = Tensor::run_backward(&[weigh(&plain.select(1, 0), &expected)], &inputs, false, false);
                let names = ["tokens", "scale", "shift", "U"];
                own.iter().zip(&by).zip(names).for_each(|((a, b), what)| near(a, b, what));
            }
        }
    }

    /// A loss that reads the first tokens alone has no gradient by the attention.
    #[test]
    fn what_nobody_reads_has_no_gradient() {
        let vs = VarStore::new(Device::Cpu);
        let norm = LayerNorm::new(&(vs.root() / "norm"), 16, 1e-5);
        let config = MssaConfig { d: 16, heads: 2, head_dim: 8, ..MssaConfig::default() };
        let mssa = Mssa::new(&(vs.root() / "mssa"), &config);
        let z = Tensor::randn([2, 3, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (first, _) = attend_first(&norm, &mssa, &z).expect("these fit");
        first.sum(Kind::Float).backward();
        assert!(!mssa.u.grad().defined() || f64::try_from(mssa.u.grad().norm()).unwrap() == 0.0);
        assert_eq!(f64::try_from(z.grad().sum(Kind::Float)).unwrap(), 32.0);
        assert_eq!(f64::try_from(z.grad().select(1, 0).sum(Kind::Float)).unwrap(), 32.0);
    }
}
