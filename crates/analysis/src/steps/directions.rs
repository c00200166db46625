//! R, R^c and the directions in which the theory goes, of a batch: on the CPU by `torch_extras::steps`, in tensor operations elsewhere; the two agree to rounding.

use tch::{Device, Kind, Tensor};
use torch_extras::steps::{self, Bases};

use crate::Result;
use crate::layerwise::EPS_SQUARED;
use crate::rate::{NORM_FLOOR, rates};

/// R, |Z|_1, and R^c against each of the bases, of every sample, `[B, 2 + bases]`.
pub(super) fn place(z: &Tensor, bases: &[Bases<'_>]) -> Result<Tensor> {
    match z.device() {
        Device::Cpu => Ok(steps::place(z, bases, EPS_SQUARED)?),
        _ => place_by_tensors(z, bases),
    }
}

/// The cosine of `added` with -grad R^c at the unit tokens of `input`, of every sample; `uz` are the bases applied to `input`.
pub(super) fn attention_alignment(input: &Tensor, uz: &Tensor, added: &Tensor, bases: Bases<'_>) -> Result<Tensor> {
    match input.device() {
        Device::Cpu => Ok(steps::attention_alignment(input, uz, added, bases, EPS_SQUARED)?),
        _ => attention_by_tensors(input, added, bases),
    }
}

/// R and |Z|_1 of the tokens `h`, and the cosine of the step to `end` with the proximal one, of every sample, `[B, 3]`.
pub(super) fn sparsity_alignment(h: &Tensor, end: &Tensor, lambda: f64) -> Result<Tensor> {
    match h.device() {
        Device::Cpu => Ok(steps::sparsity_alignment(h, end, lambda, EPS_SQUARED)?),
        _ => sparsity_by_tensors(h, end, lambda),
    }
}

fn place_by_tensors(z: &Tensor, bases: &[Bases<'_>]) -> Result<Tensor> {
    let unit = unit(z)?;
    let (_, n, d) = unit.size3()?;
    let size = unit.f_abs()?.f_sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Double)?;
    let mut numbers = vec![rates(&unit, 1, over(d, n), false)?, size];
    for Bases { u, heads } in bases {
        let projected = unit.f_linear(u, None::<&Tensor>)?;
        numbers.push(rates(&projected, *heads, over(projected.size3()?.2 / heads, n), false)?);
    }
    Ok(Tensor::f_stack(&numbers, 1)?)
}

fn attention_by_tensors(input: &Tensor, added: &Tensor, bases: Bases<'_>) -> Result<Tensor> {
    cosines(added, &-compression_gradient(&unit(input)?, bases.u, bases.heads)?)
}

fn sparsity_by_tensors(h: &Tensor, end: &Tensor, lambda: f64) -> Result<Tensor> {
    let h = unit(h)?;
    let cosines = cosines(&unit(end)?.f_sub(&h)?, &proximal_step(&h, lambda)?)?;
    Ok(Tensor::f_cat(&[place_by_tensors(&h, &[])?, cosines.f_unsqueeze(1)?], 1)?)
}

/// `size / (n eps^2)`: alpha of d dimensions, gamma of p.
fn over(size: i64, n: i64) -> f64 {
    size as f64 / (n as f64 * EPS_SQUARED)
}

/// Tokens scaled to norm 1.
fn unit(z: &Tensor) -> Result<Tensor> {
    Ok(z.f_div(&z.f_norm_scalaropt_dim(2, [-1i64].as_slice(), true)?.f_clamp_min(NORM_FLOOR)?)?)
}

/// The cosine of two tensors of a sample's, sample by sample.
fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let [a, b] = [a, b].map(|t| t.f_flatten(1, -1).and_then(|t| t.f_to_kind(b.kind())));
    let (a, b) = (a?, b?);
    let dot = a.f_mul(&b)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?;
    let norm = |t: &Tensor| t.f_norm_scalaropt_dim(2, [1i64].as_slice(), false)?.f_to_kind(Kind::Double);
    let norms = norm(&a)?.f_mul(&norm(&b)?)?.f_clamp_min(f64::MIN_POSITIVE)?;
    Ok(dot.f_div(&norms)?)
}

/// grad R^c = gamma sum_k U_k (I + gamma W_k W_k^T)^{-1} W_k, W_k = U_k^T Z, or with the smaller matrix W_k^T W_k: `[B, n, d]` (NeurIPS eq. 9).
///
/// # Shapes
/// `z`: `[B, n, d]`, `u`: `[K p, d]`.
///
/// # Errors
/// Shapes that do not fit each other.
pub fn compression_gradient(z: &Tensor, u: &Tensor, heads: i64) -> Result<Tensor> {
    let (batch, n, _) = z.size3()?;
    let u = u.f_to_kind(z.kind())?;
    let width = u.size2()?.0;
    let p = width / heads;
    let gamma = over(p, n);
    let w = z.f_linear(&u, None::<&Tensor>)?.f_view([batch, n, heads, p])?.f_transpose(1, 2)?;
    let solved = resolvent_times(&w, gamma)?;
    Ok(solved.f_transpose(1, 2)?.f_reshape([batch, n, width])?.f_matmul(&u)?.f_mul_scalar(gamma)?)
}

/// `w (I + gamma w^T w)^{-1}` for token-major `w`, `[..., n, p]`.
fn resolvent_times(w: &Tensor, gamma: f64) -> Result<Tensor> {
    let size = w.size();
    let [n, p] = [size[size.len() - 2], size[size.len() - 1]];
    let turned = w.f_transpose(-2, -1)?;
    let by_tokens = n < p;
    let gram = if by_tokens { w.f_matmul(&turned)? } else { turned.f_matmul(w)? };
    let matrix = gram.f_mul_scalar(gamma)?.f_add(&Tensor::f_eye(n.min(p), (w.kind(), w.device()))?)?;
    let (factor, _info) = matrix.f_linalg_cholesky_ex(false, false)?;
    match by_tokens {
        true => Ok(w.f_cholesky_solve(&factor, false)?),
        false => Ok(turned.f_cholesky_solve(&factor, false)?.f_transpose(-2, -1)?),
    }
}

/// A step of MM-prox on `lambda |Z|_1 - R(Z)` over non-negative Z, from `h`: `prox(h + grad R / L) - h`, `L = 9 alpha / 4`.
fn proximal_step(h: &Tensor, lambda: f64) -> Result<Tensor> {
    let (_, n, d) = h.size3()?;
    let alpha = over(d, n);
    let lipschitz = 9.0 * alpha / 4.0;
    let mut step = resolvent_times(h, alpha)?;
    let _ =
        step.f_mul_scalar_(alpha / lipschitz)?.f_add_(h)?.f_sub_scalar_(lambda / lipschitz)?.f_relu_()?.f_sub_(h)?;
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(host: &Tensor, tensors: &Tensor, tolerance: f64, what: &str) {
        let [host, tensors] = [host, tensors].map(|t| Vec::<f64>::try_from(t.flatten(0, -1)).unwrap());
        assert_eq!(host.len(), tensors.len(), "{what}");
        for (a, b) in host.iter().zip(&tensors) {
            assert!((a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}: {a} and {b}");
        }
    }

    #[test]
    fn host_and_tensors_agree() {
        tch::manual_seed(3);
        // Around the sizes of strips and panels, fewer and more tokens than dimensions, of all and of a head.
        for (n, d, heads, p) in [
            (197, 384, 6, 64),
            (40, 24, 3, 8),
            (13, 40, 2, 33),
            (65, 40, 2, 33),
            (1, 5, 1, 5),
            (9, 2, 2, 1),
            (33, 33, 1, 33),
            (12, 96, 5, 7),
        ] {
            for (kind, tolerance) in [(Kind::Double, 1e-10), (Kind::Float, 1e-5)] {
                let random = |width: i64| Tensor::randn([3, n, width], (kind, Device::Cpu));
                let (z, input, added) = (random(d), random(d), random(d));
                // Tokens that are nearly one, as before training.
                z.get(1).copy_(&(random(d).get(1) * 1e-2 + random(d).get(0).get(0)));
                let u = Tensor::randn([heads * p, d], (kind, Device::Cpu)) * 0.2;
                let other = Tensor::randn([12, d], (kind, Device::Cpu));
                let bases = [Bases { u: &u, heads }, Bases { u: &other, heads: 4 }];
                let what = format!("n {n}, d {d}, K {heads}, p {p}, {kind:?}");
                for count in 0..=2 {
                    let found = place(&z, &bases[..count]).unwrap();
                    near(&found, &place_by_tensors(&z, &bases[..count]).unwrap(), tolerance, &what);
                }
                let bases = bases[0];
                let uz = input.linear(&u, None::<&Tensor>);
                let found = attention_alignment(&input, &uz, &added, bases).unwrap();
                near(&found, &attention_by_tensors(&input, &added, bases).unwrap(), tolerance, &what);
                for lambda in [0.0, 0.1] {
                    let found = sparsity_alignment(&z, &input.relu(), lambda).unwrap();
                    near(&found, &sparsity_by_tensors(&z, &input.relu(), lambda).unwrap(), tolerance, &what);
                }
            }
        }
    }

    /// The same on what older CPUs are given, in processes of their own: the choice is made when the program starts.
    #[test]
    fn lesser_cpus_compute_the_same() {
        let tests = ["steps::directions::tests::host_and_tensors_agree", "rate::tests::host_and_tensors_agree"];
        for cpu in ["any", "avx2", "avx512", "avx512_bf16"] {
            let program = std::env::current_exe().unwrap();
            let run = std::process::Command::new(program).args(tests).env("WHITEBOX_CPU", cpu).output().unwrap();
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(run.status.success() && said.contains("2 passed"), "{cpu}: {said}");
        }
    }

    #[test]
    fn a_sample_that_is_not_finite_is_none_alone_and_zero_is_zero() {
        tch::manual_seed(4);
        let z = Tensor::randn([4, 20, 24], (Kind::Float, Device::Cpu));
        let _ = z.get(1).get(19).get(23).fill_(f64::NAN);
        let _ = z.get(2).fill_(0.0);
        let u = Tensor::randn([24, 24], (Kind::Float, Device::Cpu));
        let bases = Bases { u: &u, heads: 3 };
        let end = z.relu();
        for found in [
            place(&z, &[bases]).unwrap(),
            sparsity_alignment(&z, &end, 0.1).unwrap(),
            attention_alignment(&z, &z.linear(&u, None::<&Tensor>), &end, bases).unwrap().unsqueeze(1),
        ] {
            let of = |i: i64| Vec::<f64>::try_from(found.get(i).contiguous()).unwrap();
            assert!(of(0).iter().chain(&of(3)).all(|x| x.is_finite()), "{found:?}");
            assert!(of(1).iter().all(|x| x.is_nan()), "{:?}", of(1));
            assert_eq!(of(2), vec![0.0; of(2).len()]);
        }
        // bf16 tokens are computed as float.
        let halves = z.to_kind(Kind::BFloat16);
        let as_float = place(&halves.to_kind(Kind::Float), &[bases]).unwrap();
        near(&place(&halves, &[bases]).unwrap(), &as_float, 1e-6, "bf16");
        assert!(place(&z, &[Bases { u: &u.narrow(0, 0, 7).contiguous(), heads: 3 }]).is_err());
    }
}
