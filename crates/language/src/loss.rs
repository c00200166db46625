//! The cross-entropy of next tokens, from what the head reads; logits of a whole batch need not exist.
//!
//! ```text
//! loss = 1/M sum_i (log sum_v exp(w_v . h_i) - w_{t_i} . h_i)        over the M targets that are not -100
//! ```
//!
//! A batch of 8,192 tokens and a vocabulary of 50,304 words make 1.6 GB of logits in float32, and as much again of their gradients. Past
//! [`MOST_LOGITS`] the loss is therefore taken a few rows at a time, each row's gradient `p - e_t` at once, and what is kept is the gradients by `h`
//! and by the head, of the sizes of these. The arithmetic is that of forward and backward, no product is formed twice. Both ways agree in value and gradients
//! (tests/causal.rs).
//!
//! Words that only pad the vocabulary to a round number have a bias of minus infinity, so that no probability falls to them. In nanoGPT they take part.

use tch::{Kind, Reduction, Tensor};
use torch_extras::function;
use whitebox_model::layers::{computing_kind, without_autocast};

use crate::ids::IGNORED;

/// As many logits are formed at once.
pub const MOST_LOGITS: i64 = 1 << 25;

/// A bias of minus infinity for what pads the vocabulary, where something does.
pub(crate) fn padding_bias(head: &Tensor, vocabulary: i64) -> Option<Tensor> {
    let rows = head.size()[0];
    (rows > vocabulary).then(|| {
        let bias = Tensor::zeros([rows], (head.kind(), head.device()));
        let _ = bias.narrow(0, vocabulary, rows - vocabulary).fill_(f64::NEG_INFINITY);
        bias
    })
}

/// The mean cross-entropy; zero where all targets are ignored. At most `most` logits are formed at once.
///
/// # Shapes
/// `hidden`: `[.., d]`; `head`: `[V, d]`; `bias`: `[V]`; `targets`: `[..]`; to a scalar in float32.
pub fn head_loss(hidden: &Tensor, head: &Tensor, bias: Option<&Tensor>, targets: &Tensor, most: i64) -> Tensor {
    let (rows, words) = (targets.numel() as i64, head.size()[0]);
    let hidden = hidden.flatten(0, -2);
    let targets = targets.to_device(hidden.device()).flatten(0, -1);
    let count = targets.ne(IGNORED).sum(Kind::Float).clamp_min(1.0);
    if rows.saturating_mul(words) <= most {
        let logits = hidden.linear(head, bias).to_kind(float(&hidden));
        return sum_of(&logits, &targets) / count;
    }
    in_pieces(&hidden, head, bias, &targets, &count, (most / words).max(1))
}

/// In which the softmax is taken: float32, unless all is in double.
fn float(t: &Tensor) -> Kind {
    if t.kind() == Kind::Double { Kind::Double } else { Kind::Float }
}

fn sum_of(logits: &Tensor, targets: &Tensor) -> Tensor {
    logits.cross_entropy_loss(targets, None::<&Tensor>, Reduction::Sum, IGNORED, 0.0)
}

fn in_pieces(
    hidden: &Tensor,
    head: &Tensor,
    bias: Option<&Tensor>,
    targets: &Tensor,
    count: &Tensor,
    rows: i64,
) -> Tensor {
    let wanted = hidden.requires_grad() || head.requires_grad() || bias.is_some_and(Tensor::requires_grad);
    let kind = computing_kind(hidden);
    let (loss, saved) = tch::no_grad(|| {
        let _plain = without_autocast(hidden.device());
        let number = float(hidden);
        let (h, w) = (hidden.to_kind(kind), head.to_kind(kind));
        let b = bias.map(|b| b.to_kind(kind));
        let mut loss = count.zeros_like().to_kind(number);
        let mut by_bias = Tensor::zeros([head.size()[0]], (number, head.device()));
        let by_hidden = wanted.then(|| Tensor::empty(hidden.size(), (kind, hidden.device())));
        let mut by_head = wanted.then(|| Tensor::zeros(head.size(), (number, head.device())));
        let all = hidden.size()[0];
        for from in (0..all).step_by(rows as usize) {
            let part = |t: &Tensor| t.narrow(0, from, rows.min(all - from));
            let (h, targets) = (part(&h), part(targets));
            let logits = h.linear(&w, b.as_ref()).to_kind(number);
            loss += sum_of(&logits, &targets);
            if let (Some(by_hidden), Some(by_head)) = (&by_hidden, &mut by_head) {
                // p - e_t, nothing where the target is ignored.
                let asked = targets.ne(IGNORED).unsqueeze(-1);
                let one = asked.to_kind(number).neg();
                let index = targets.clamp_min(0).unsqueeze(-1);
                let gradient = (logits.softmax(-1, None::<Kind>) * asked).scatter_add(-1, &index, &one) / count;
                by_bias += gradient.sum_dim_intlist(0, false, number);
                let gradient = gradient.to_kind(kind);
                part(by_hidden).copy_(&gradient.matmul(&w));
                *by_head += gradient.tr().matmul(&h);
            }
        }
        let saved = by_hidden.zip(by_head).map(|(h, w)| {
            [h.to_kind(hidden.kind()), w.to_kind(head.kind()), by_bias.to_kind(bias.map_or(number, Tensor::kind))]
        });
        (loss / count, saved)
    });
    if let Some(saved) = saved {
        let backward = |saved: &[Tensor], grads: &[Option<Tensor>]| match &grads[0] {
            Some(grad) => Ok(saved.iter().map(|t| Some(t * grad.to_kind(t.kind()))).collect()),
            None => Ok(saved.iter().map(|_| None).collect()),
        };
        let inputs: Vec<&Tensor> = [hidden, head].into_iter().chain(bias).collect();
        let saved: Vec<&Tensor> = saved.iter().take(inputs.len()).collect();
        function::attach("cross-entropy in pieces", &[&loss], &inputs, &saved, backward)
            .expect("the loss was computed without a graph from defined tensors");
    }
    loss
}
