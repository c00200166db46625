//! 1/2 logdet(I + gamma W_k W_k^T), summed over the heads: on the CPU by `torch_extras::rates`, in tensor operations elsewhere; the two agree to rounding.

use tch::{Device, Kind, Tensor};
use torch_extras::rates::coding_rates;

use crate::Result;

/// Below this a token's norm counts as zero.
pub(crate) const NORM_FLOOR: f64 = 1e-12;

/// The rate of every sample, `[B]`, float64, of tokens `[B, n, K p]` on any device, as they are or with `unit_norm` scaled to norm 1 in every head; NaN where an
/// entry is not finite.
pub(crate) fn rates(w: &Tensor, heads: i64, gamma: f64, unit_norm: bool) -> Result<Tensor> {
    match w.device() {
        _ if on_host(w) => Ok(coding_rates(&w.f_contiguous()?, heads, gamma, unit_norm)?),
        Device::Cpu => Ok(coding_rates(&w.f_to_kind(Kind::Double)?.f_contiguous()?, heads, gamma, unit_norm)?),
        _ => by_tensors(w, heads, gamma, unit_norm),
    }
}

/// Whether a tensor is what the functions of `torch_extras` for the CPU take.
pub(crate) fn on_host(t: &Tensor) -> bool {
    t.device() == Device::Cpu && matches!(t.kind(), Kind::Float | Kind::Double | Kind::BFloat16)
}

fn by_tensors(w: &Tensor, heads: i64, gamma: f64, unit_norm: bool) -> Result<Tensor> {
    let (batch, tokens, width) = w.size3()?;
    let p = width / heads;
    let mut w = w.f_to_kind(Kind::Double)?.f_reshape([batch, tokens, heads, p])?.f_transpose(1, 2)?;
    if unit_norm {
        w = w.f_div(&w.f_norm_scalaropt_dim(2, [-1i64].as_slice(), true)?.f_clamp_min(NORM_FLOOR)?)?;
    }
    let wt = w.f_transpose(-2, -1)?;
    let gram = if p <= tokens { wt.f_matmul(&w)? } else { w.f_matmul(&wt)? };
    let eye = Tensor::f_eye(p.min(tokens), (Kind::Double, w.device()))?;
    // The matrix is at least I, so a factorisation fails only on values that are not finite: those are told apart by
    // 0 * sum, which is NaN for them and 0 otherwise.
    let (factor, _info) = eye.f_add(&(&gram * gamma))?.f_linalg_cholesky_ex(false, false)?;
    let half_logdet = factor.f_diagonal(0, -2, -1)?.f_log()?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?;
    let finite = gram.f_sum_dim_intlist([-2i64, -1].as_slice(), false, None)?.f_mul_scalar(0.0)?;
    Ok(half_logdet.f_add(&finite)?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(uz: &Tensor, heads: i64, unit_norm: bool) -> [Vec<f64>; 2] {
        let [_, tokens, width] = uz.size()[..] else { panic!("[B, n, K p]") };
        let gamma = (width / heads) as f64 / (tokens as f64 * 0.01);
        let host = coding_rates(uz, heads, gamma, unit_norm).unwrap();
        let tensors = by_tensors(uz, heads, gamma, unit_norm).unwrap();
        [host, tensors].map(|rates| rates.try_into().unwrap())
    }

    #[test]
    fn host_and_tensors_agree() {
        tch::manual_seed(5);
        // Around the widths of a block, both forms, one head and several.
        for (tokens, heads, p) in
            [(197, 6, 64), (197, 1, 250), (17, 4, 12), (40, 2, 33), (1, 3, 5), (9, 2, 1), (7, 2, 9), (18, 2, 30)]
        {
            let spread = Tensor::randn([3, tokens, heads * p], (Kind::Float, Device::Cpu));
            let collapsed = &spread * 1e-3 + Tensor::randn([3, 1, heads * p], (Kind::Float, Device::Cpu));
            for (uz, unit_norm) in [(&spread, true), (&collapsed, true), (&spread, false), (&collapsed, false)] {
                let [host, tensors] = both(uz, heads, unit_norm);
                // Tokens of small and of large norm in one matrix condition it worse.
                let tolerance = if unit_norm { 1e-11 } else { 1e-9 };
                for (a, b) in host.iter().zip(&tensors) {
                    assert!((a - b).abs() < tolerance * (1.0 + b.abs()), "n {tokens}, K {heads}, p {p}: {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn both_say_nan_of_the_same_samples() {
        tch::manual_seed(6);
        let uz = Tensor::randn([4, 20, 24], (Kind::Float, Device::Cpu));
        let _ = uz.get(1).get(19).get(23).fill_(f64::NAN);
        let _ = uz.get(3).get(0).get(0).fill_(f64::NEG_INFINITY);
        let _ = uz.get(2).fill_(0.0);
        let [host, tensors] = both(&uz, 3, true);
        for rates in [host, tensors] {
            assert!(rates[0].is_finite() && rates[1].is_nan() && rates[2] == 0.0 && rates[3].is_nan(), "{rates:?}");
        }
    }
}
