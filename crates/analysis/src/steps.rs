//! Does each half of a layer do its job? The objective at three places of every layer, and the two steps between them.
//!
//! All at unit tokens: the columns of Z scaled to norm 1, as the theory takes them (NeurIPS 2023, section 2.3 and footnote 10), so that nothing is gained by growing.
//! With alpha = d/(n eps^2), gamma = p/(n eps^2), eps^2 = [`EPS_SQUARED`](crate::layerwise::EPS_SQUARED):
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
//! replaces R by a dictionary, it says how near that comes. Float tokens are multiplied as floats, whose rates agree with those of float64 products to 1e-5 (tested, tokens
//! that are nearly one among them); what the released script measures is in float64 throughout.

mod directions;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use torch_extras::steps::Bases;
use whitebox_model::probe::{Probe, Site};

use crate::operators::Operators;
use crate::rate::on_host;
use crate::stats::{Running, Stat};
use crate::{Error, Result};

pub use directions::compression_gradient;

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
    /// Z^l of the layer at hand, and what was seen of that layer.
    start: Option<Tokens>,
    seen: BTreeMap<Site, Tensor>,
    failed: Option<Error>,
}

const SITES: [Site; 7] =
    [Site::Embed, Site::AttentionInput, Site::Uz, Site::MssaOut, Site::ZHalf, Site::IstaInput, Site::ZOut];

impl<'a> StepsProbe<'a> {
    /// A probe for a model whose layers have these operators, in order.
    pub fn new(operators: &'a [Operators]) -> Self {
        StepsProbe { operators, layers: BTreeMap::new(), start: None, seen: BTreeMap::new(), failed: None }
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
        let kind = if on_host(value) || value.kind() == Kind::Double { value.kind() } else { Kind::Float };
        let value = value.detach().f_to_kind(kind)?.f_contiguous()?;
        match site {
            Site::Embed => self.start = Some(Tokens::of(value, None, self.operators.first())?),
            Site::ZOut => {
                let end = Tokens::of(value, self.operators.get(number), self.operators.get(number + 1))?;
                let (start, seen) = (self.start.take(), std::mem::take(&mut self.seen));
                let none = Operators::default();
                let found = measure(start.as_ref(), &seen, &end, self.operators.get(number).unwrap_or(&none))?;
                self.layers.entry(number).or_default().take(&found);
                // What comes out of a layer goes into the next.
                self.start = Some(end);
            }
            _ => {
                self.seen.insert(site, value);
            }
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

/// Tokens at one place with each sample's numbers.
struct Tokens {
    /// `[B, n, d]`.
    z: Tensor,
    rate: Vec<f64>,
    /// |Z|_1 of unit tokens.
    size: Vec<f64>,
    /// R^c against the bases of the layer that they come from, or are in, and of the one that they go into.
    compression: [Option<Vec<f64>>; 2],
}

/// Measures a batch in a layer: what came in, what was seen, what goes out.
fn measure(
    start: Option<&Tokens>,
    seen: &BTreeMap<Site, Tensor>,
    end: &Tokens,
    operators: &Operators,
) -> Result<Found> {
    let lambda = operators.lambda;
    let half = seen.get(&Site::ZHalf).map(|z| Tokens::of(z.shallow_clone(), Some(operators), None)).transpose()?;
    let places = [
        start.map(|tokens| tokens.at_place(&tokens.compression[1], lambda)),
        half.as_ref().map(|tokens| tokens.at_place(&tokens.compression[0], lambda)),
        Some(end.at_place(&end.compression[0], lambda)),
    ];
    let [before, behind] = [0, 1].map(|i| places[i].as_ref().and_then(|place| place.compression.as_ref()));
    let mut attention = None;
    if let (Some(u), Some(before), Some(behind), Some(input), Some(added)) =
        (&operators.u, before, behind, seen.get(&Site::AttentionInput), seen.get(&Site::MssaOut))
    {
        let u = bases(u, input)?;
        let uz = match (seen.get(&Site::Uz), &operators.shift) {
            (Some(uz), None) => uz.shallow_clone(),
            (Some(uz), Some(shift)) => uz.f_sub(&shift.detach().f_to_kind(uz.kind())?)?,
            (None, _) => input.f_linear(&u.f_to_kind(input.kind())?, None::<&Tensor>)?,
        };
        let bases = Bases { u: &u, heads: operators.heads };
        // Under autocast a layer's parts are of two kinds.
        let [uz, added] = [&uz, added].map(|t| t.f_to_kind(input.kind()));
        let alignments = directions::attention_alignment(input, &uz?, &added?, bases)?.try_into()?;
        attention = Some(OfStep { changes: behind.iter().zip(before).map(|(b, a)| b - a).collect(), alignments });
    }
    let mut sparsity = None;
    if let (true, Some(input)) = (operators.dictionary.is_some(), seen.get(&Site::IstaInput)) {
        let numbers = directions::sparsity_alignment(input, &end.z.f_to_kind(input.kind())?, lambda)?;
        let (rate, size, alignments) = (column(&numbers, 0)?, column(&numbers, 1)?, column(&numbers, 2)?);
        let change = |i: usize| lambda * (end.size[i] - size[i]) - (end.rate[i] - rate[i]);
        sparsity = Some(OfStep { changes: (0..rate.len()).map(change).collect(), alignments });
    }
    Ok(Found { places, attention, sparsity })
}

impl Tokens {
    /// Measured against the bases of the layer that they are in or come from, and of the one that they go into.
    fn of(z: Tensor, own: Option<&Operators>, next: Option<&Operators>) -> Result<Tokens> {
        let with = |operators: Option<&Operators>| -> Result<Option<(Tensor, i64)>> {
            let u = operators.and_then(|o| o.u.as_ref().map(|u| (u, o.heads)));
            u.map(|(u, heads)| Ok((bases(u, &z)?, heads))).transpose()
        };
        let both = [with(own)?, with(next)?];
        let given: Vec<_> = both.iter().flatten().map(|(u, heads)| Bases { u, heads: *heads }).collect();
        let numbers = directions::place(&z, &given)?;
        let behind = 2 + i64::from(both[0].is_some());
        let own = both[0].as_ref().map(|_| column(&numbers, 2)).transpose()?;
        let next = both[1].as_ref().map(|_| column(&numbers, behind)).transpose()?;
        Ok(Tokens { z, rate: column(&numbers, 0)?, size: column(&numbers, 1)?, compression: [own, next] })
    }

    fn at_place(&self, compression: &Option<Vec<f64>>, lambda: f64) -> AtPlace {
        let penalty = self.size.iter().map(|size| lambda * size).collect();
        AtPlace { rate: self.rate.clone(), compression: compression.clone(), penalty }
    }
}

/// A number of every sample.
fn column(numbers: &Tensor, i: i64) -> Result<Vec<f64>> {
    Ok(Vec::try_from(numbers.f_select(1, i)?.f_contiguous()?)?)
}

/// Bases in the kind that tokens are computed in.
fn bases(u: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    let kind = if tokens.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    Ok(u.detach().f_to_device(tokens.device())?.f_to_kind(kind)?.f_contiguous()?)
}
