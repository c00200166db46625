//! Does each half of a layer do its job? The objective at three places of every layer, and the two steps between them.
//!
//! All at unit tokens: the columns of Z scaled to norm 1, as the theory takes them (NeurIPS 2023, section 2.3 and footnote 10), so that nothing is gained by growing.
//! With alpha = d/(n eps^2), gamma = p/(n eps^2), eps^2 = [`EPS_SQUARED`]:
//!
//! ```text
//! R(Z) = 1/2 logdet(I + alpha Z Z^T)     R^c(Z) = sum_k 1/2 logdet(I + gamma U_k^T Z Z^T U_k)     objective = R - R^c - lambda |Z|_1
//!
//! places     Z^l         Z^{l+1/2}         Z^{l+1}
//! attention  R^c(Z^{l+1/2}) - R^c(Z^l) < 0 ?          cos(what it adds, -grad R^c(LN(Z^l)))
//! sparsity   (lambda |.|_1 - R)(Z^{l+1}) - (lambda |.|_1 - R)(LN(Z^{l+1/2})) < 0 ?     cos(the step, the proximal step on that function)
//! ```
//!
//! U is taken as it was learned, not made orthonormal. Departure from the released script: it scales tokens to unit norm in every head and measures the input of the
//! attention alone, which is [`layerwise`](crate::layerwise)'s figure. The proximal step is MM-prox from the same tokens (NeurIPS, App. A.3): for CRATE's ISTA, which
//! replaces R by a dictionary, it says how near that comes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use whitebox_model::probe::{Probe, Site};

use crate::layerwise::EPS_SQUARED;
use crate::operators::Operators;
use crate::parts;
use crate::rate::{NORM_FLOOR, rates};
use crate::stats::{Running, Stat};
use crate::{Error, Result};

/// The objective and its parts at one place, over samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlaceStats {
    /// R, in nats.
    pub rate: Stat,
    /// R^c, in nats; without values where the layer has no subspaces.
    pub compression: Stat,
    /// R - R^c.
    pub reduction: Stat,
    /// R - R^c - lambda |Z|_1.
    pub objective: Stat,
}

/// What one half of a layer does to the function that it is meant to lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HalfStep {
    /// The function behind the step minus before it; below zero is what is meant.
    pub change: Stat,
    /// Share of samples on which it falls.
    pub falls: f64,
    /// Cosine of the step with the direction in which the theory goes.
    pub alignment: Stat,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepStats {
    /// The layer, counted from 0.
    pub layer: usize,
    /// At Z^l.
    pub before: PlaceStats,
    /// At Z^{l+1/2}.
    pub half: PlaceStats,
    /// At Z^{l+1}.
    pub after: PlaceStats,
    /// The attention; none where the layer has no subspaces.
    pub attention: Option<HalfStep>,
    /// The sparsifying step; none where the layer has no dictionary.
    pub sparsity: Option<HalfStep>,
}

/// Measures the half-steps of the forward passes it is shown, batch after batch; what it holds does not grow with them.
pub struct StepsProbe<'a> {
    operators: &'a [Operators],
    layers: BTreeMap<usize, Layer>,
    /// Z^l of the layer at hand, part by part of the batch, and what was seen of that layer.
    tokens: Vec<Tokens>,
    seen: BTreeMap<Site, Tensor>,
    failed: Option<Error>,
}

const SITES: [Site; 6] = [Site::Embed, Site::AttentionInput, Site::MssaOut, Site::ZHalf, Site::IstaInput, Site::ZOut];

impl<'a> StepsProbe<'a> {
    /// A probe for a model whose layers have these operators, in order.
    pub fn new(operators: &'a [Operators]) -> Self {
        StepsProbe { operators, layers: BTreeMap::new(), tokens: Vec::new(), seen: BTreeMap::new(), failed: None }
    }

    /// The layers in order.
    ///
    /// # Errors
    /// The first thing that went wrong while it was shown something.
    pub fn finish(self) -> Result<Vec<StepStats>> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.layers.iter().map(|(number, layer)| layer.stats(*number)).collect()),
        }
    }

    fn take(&mut self, number: usize, site: Site, value: &Tensor) -> Result<()> {
        let value = value.detach();
        if site == Site::Embed {
            self.tokens = parts::each(parts::split(&value)?, |part| Tokens::of(&part))?;
            return Ok(());
        }
        self.seen.insert(site, value);
        if site != Site::ZOut {
            return Ok(());
        }
        let none = Operators::default();
        let operators = self.operators.get(number).unwrap_or(&none);
        let mut given: Vec<Given> = Vec::new();
        let mut start = std::mem::take(&mut self.tokens).into_iter();
        for (site, value) in std::mem::take(&mut self.seen) {
            for (i, part) in parts::split(&value)?.into_iter().enumerate() {
                if given.len() == i {
                    given.push((start.next(), BTreeMap::new(), operators.share()));
                }
                given[i].1.insert(site, part);
            }
        }
        let layer = self.layers.entry(number).or_default();
        for (end, found) in parts::each(given, |(start, seen, operators)| measure(start, &seen, &operators))? {
            layer.take(&found);
            // What comes out of a layer goes into the next.
            self.tokens.push(end);
        }
        Ok(())
    }
}

impl Probe for StepsProbe<'_> {
    fn wants(&self, _layer: usize, site: Site) -> bool {
        self.failed.is_none() && SITES.contains(&site)
    }

    fn see(&mut self, layer: usize, site: Site, value: &Tensor) {
        if self.failed.is_none() {
            self.failed = tch::no_grad(|| self.take(layer, site, value)).err();
        }
    }
}

#[derive(Default)]
struct Place {
    rate: Running,
    compression: Running,
    reduction: Running,
    objective: Running,
}

impl Place {
    fn take(&mut self, numbers: &AtPlace) {
        self.rate.extend(numbers.rate.iter().copied());
        for (i, c) in numbers.compression.iter().flatten().enumerate() {
            let reduction = numbers.rate[i] - c;
            self.compression.push(*c);
            self.reduction.push(reduction);
            self.objective.push(reduction - numbers.penalty[i]);
        }
    }

    fn stats(&self) -> PlaceStats {
        let [rate, compression, reduction, objective] =
            [&self.rate, &self.compression, &self.reduction, &self.objective].map(Running::stat);
        PlaceStats { rate, compression, reduction, objective }
    }
}

#[derive(Default)]
struct Half {
    change: Running,
    falls: u64,
    alignment: Running,
}

impl Half {
    fn take(&mut self, numbers: &OfStep) {
        self.falls += numbers.changes.iter().filter(|change| **change < 0.0).count() as u64;
        self.change.extend(numbers.changes.iter().copied());
        self.alignment.extend(numbers.alignments.iter().copied());
    }

    fn stats(&self) -> Option<HalfStep> {
        let change = self.change.stat();
        let falls = self.falls as f64 / change.n as f64;
        (change.n > 0).then(|| HalfStep { change, falls, alignment: self.alignment.stat() })
    }
}

#[derive(Default)]
struct Layer {
    before: Place,
    half: Place,
    after: Place,
    attention: Half,
    sparsity: Half,
}

impl Layer {
    fn take(&mut self, found: &Found) {
        for (place, numbers) in [&mut self.before, &mut self.half, &mut self.after].into_iter().zip(&found.places) {
            if let Some(numbers) = numbers {
                place.take(numbers);
            }
        }
        for (half, numbers) in [(&mut self.attention, &found.attention), (&mut self.sparsity, &found.sparsity)] {
            if let Some(numbers) = numbers {
                half.take(numbers);
            }
        }
    }

    fn stats(&self, layer: usize) -> StepStats {
        let [before, half, after] = [&self.before, &self.half, &self.after].map(Place::stats);
        StepStats { layer, before, half, after, attention: self.attention.stats(), sparsity: self.sparsity.stats() }
    }
}

/// The numbers of some samples at one place.
struct AtPlace {
    rate: Vec<f64>,
    /// Where the layer has subspaces.
    compression: Option<Vec<f64>>,
    /// lambda |Z|_1.
    penalty: Vec<f64>,
}

/// The numbers of some samples across one half of a layer.
struct OfStep {
    changes: Vec<f64>,
    alignments: Vec<f64>,
}

/// The numbers of some samples in one layer.
struct Found {
    /// Z^l, Z^{l+1/2}, Z^{l+1}.
    places: [Option<AtPlace>; 3],
    attention: Option<OfStep>,
    sparsity: Option<OfStep>,
}

/// Tokens at one place, scaled to norm 1, with each sample's numbers that depend on nothing else.
struct Tokens {
    /// `[B, n, d]`.
    unit: Tensor,
    rate: Vec<f64>,
    /// |Z|_1.
    size: Vec<f64>,
}

/// What came into a layer, what was seen of it, and its operators, for some samples.
type Given = (Option<Tokens>, BTreeMap<Site, Tensor>, Operators);

/// Measures some samples in a layer. Gives what came out of it, too.
fn measure(start: Option<Tokens>, seen: &BTreeMap<Site, Tensor>, operators: &Operators) -> Result<(Tokens, Found)> {
    let lambda = operators.lambda;
    let end = Tokens::of(&seen[&Site::ZOut])?;
    let half = seen.get(&Site::ZHalf).map(Tokens::of).transpose()?;
    let at = |tokens: Option<&Tokens>| tokens.map(|tokens| tokens.at_place(operators)).transpose();
    let places = [at(start.as_ref())?, at(half.as_ref())?, at(Some(&end))?];
    let [before, behind] = [0, 1].map(|i| places[i].as_ref().and_then(|place| place.compression.as_ref()));
    let mut attention = None;
    if let (Some(u), Some(before), Some(behind), Some(input), Some(added)) =
        (&operators.u, before, behind, seen.get(&Site::AttentionInput), seen.get(&Site::MssaOut))
    {
        let alignments = cosines(added, &-compression_gradient(&unit(input)?, u, operators.heads)?)?;
        attention = Some(OfStep { changes: behind.iter().zip(before).map(|(b, a)| b - a).collect(), alignments });
    }
    let mut sparsity = None;
    if let (true, Some(input)) = (operators.dictionary.is_some(), seen.get(&Site::IstaInput)) {
        let h = Tokens::of(input)?;
        let change = |i: usize| lambda * (end.size[i] - h.size[i]) - (end.rate[i] - h.rate[i]);
        let alignments = cosines(&end.unit.f_sub(&h.unit)?, &proximal_step(&h.unit, lambda)?)?;
        sparsity = Some(OfStep { changes: (0..end.rate.len()).map(change).collect(), alignments });
    }
    Ok((end, Found { places, attention, sparsity }))
}

impl Tokens {
    fn of(z: &Tensor) -> Result<Tokens> {
        let unit = unit(z)?;
        let (_, n, d) = unit.size3()?;
        // Token by token first: no tensor of absolute values comes to be.
        let size = unit.f_norm_scalaropt_dim(1, [-1i64].as_slice(), false)?.f_sum_dim_intlist(
            [1i64].as_slice(),
            false,
            Kind::Double,
        )?;
        let rate = rates(&unit, 1, over(d, n), false)?.try_into()?;
        Ok(Tokens { unit, rate, size: size.try_into()? })
    }

    fn at_place(&self, operators: &Operators) -> Result<AtPlace> {
        let penalty = self.size.iter().map(|size| operators.lambda * size).collect();
        Ok(AtPlace { rate: self.rate.clone(), compression: self.compression(operators)?, penalty })
    }

    /// R^c against a layer's subspaces, where it has them.
    fn compression(&self, operators: &Operators) -> Result<Option<Vec<f64>>> {
        let Some(u) = &operators.u else { return Ok(None) };
        let projected = self.unit.f_linear(&u.f_to_kind(self.unit.kind())?, None::<&Tensor>)?;
        let (_, n, width) = projected.size3()?;
        let p = width / operators.heads;
        Ok(Some(rates(&projected, operators.heads, over(p, n), false)?.try_into()?))
    }
}

/// `size / (n eps^2)`: alpha of d dimensions, gamma of p.
fn over(size: i64, n: i64) -> f64 {
    size as f64 / (n as f64 * EPS_SQUARED)
}

/// Tokens scaled to norm 1, at least float32.
fn unit(z: &Tensor) -> Result<Tensor> {
    let z = if z.kind() == Kind::Double { z.shallow_clone() } else { z.f_to_kind(Kind::Float)? };
    Ok(z.f_div(&z.f_norm_scalaropt_dim(2, [-1i64].as_slice(), true)?.f_clamp_min(NORM_FLOOR)?)?)
}

/// The cosine of two tensors of a sample's, sample by sample.
fn cosines(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let [a, b] = [a, b].map(|t| t.f_flatten(1, -1).and_then(|t| t.f_to_kind(b.kind())));
    let (a, b) = (a?, b?);
    let dot = a.f_mul(&b)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?;
    let norm = |t: &Tensor| t.f_norm_scalaropt_dim(2, [1i64].as_slice(), false)?.f_to_kind(Kind::Double);
    let norms = norm(&a)?.f_mul(&norm(&b)?)?.f_clamp_min(f64::MIN_POSITIVE)?;
    Ok(dot.f_div(&norms)?.try_into()?)
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
