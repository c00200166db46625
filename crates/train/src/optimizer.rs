//! AdamW and Lion over named parameters, with a state that can be saved (formulas in `torch_extras::fused`).
//!
//! Departures. By default norms, biases, class and mask tokens and position tables do not decay; the released CRATE code shrinks
//! everything ([`Decay::All`]). AdamW's bias correction counts the optimiser's steps, not those in which a parameter had a gradient:
//! the two differ only for a parameter that is used now and then.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;
use torch_extras::fused;

use crate::config::{Decay, OptimizerConfig, Rule};
use crate::error::{Error, Result};
use crate::tensors;

/// An update rule with its moments.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    names: Vec<String>,
    params: Vec<Tensor>,
    decays: Vec<bool>,
    /// What the learning rate of each parameter is multiplied by.
    rates: Vec<f64>,
    /// The moments of every parameter, by the names they have in a checkpoint.
    moments: Vec<(&'static str, Vec<Tensor>)>,
    updates: u64,
}

impl Optimizer {
    /// An optimiser with zero moments for the given variables.
    ///
    /// # Errors
    /// Settings that `OptimizerConfig::check` refuses; no variables; two of one name.
    pub fn new(variables: &[(String, Tensor)], config: &OptimizerConfig) -> Result<Self> {
        config.check()?;
        let mut variables: Vec<_> = variables.iter().map(|(name, v)| (name.clone(), v.shallow_clone())).collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        if variables.is_empty() {
            return Err(Error::Config("the task has no variables: expected at least one to train".into()));
        }
        if let Some(pair) = variables.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::Config(format!("two variables are called {:?}: expected a name each", pair[0].0)));
        }
        let decays = variables.iter().map(|(name, v)| config.decay == Decay::All || is_matrix(name, v.dim())).collect();
        let (names, params): (Vec<_>, Vec<_>) = variables.into_iter().unzip();
        let rates = layer_rates(&names, config.layer_decay.unwrap_or(1.0));
        let kinds: &[&str] = match config.rule {
            Rule::AdamW => &["exp_avg", "exp_avg_sq"],
            Rule::Lion => &["exp_avg"],
        };
        let zeros = || params.iter().map(|p| p.f_detach()?.f_zeros_like()).collect::<std::result::Result<Vec<_>, _>>();
        let moments = kinds.iter().map(|kind| Ok((*kind, zeros()?))).collect::<Result<_>>()?;
        Ok(Self { config: config.clone(), names, params, decays, rates, moments, updates: 0 })
    }

    /// One step with the gradients that lie at the variables. A variable without a gradient is left alone, decay and moments included.
    ///
    /// # Errors
    /// Those of the kernels.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        self.updates += 1;
        let mut groups: BTreeMap<(bool, u64), Vec<usize>> = BTreeMap::new();
        for i in (0..self.params.len()).filter(|&i| self.params[i].grad().defined()) {
            groups.entry((!self.decays[i], self.rates[i].to_bits())).or_default().push(i);
        }
        for ((spared, rate), group) in groups {
            let (decayed, lr) = (!spared, lr * f64::from_bits(rate));
            let pick = |list: &[Tensor]| group.iter().map(|&i| list[i].shallow_clone()).collect::<Vec<_>>();
            let params = pick(&self.params);
            let grads: Vec<_> = params.iter().map(Tensor::grad).collect();
            let moments: Vec<_> = self.moments.iter().map(|(_, list)| pick(list)).collect();
            let [beta1, beta2] = self.config.betas();
            let weight_decay = if decayed { self.config.weight_decay } else { 0.0 };
            match moments.as_slice() {
                [m, v] => {
                    let eps = self.config.eps.unwrap_or(1e-8);
                    let rule = fused::AdamW { lr, beta1, beta2, weight_decay, eps };
                    fused::adamw(&params, &grads, m, v, self.updates as i64, &rule)?;
                }
                [m] => fused::lion(&params, &grads, m, &fused::Lion { lr, beta1, beta2, weight_decay })?,
                _ => unreachable!("a rule has one or two moments"),
            }
        }
        Ok(())
    }

    /// The gradients that are there.
    pub fn grads(&self) -> Vec<Tensor> {
        self.params.iter().map(Tensor::grad).filter(Tensor::defined).collect()
    }

    /// Drops all gradients.
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn clear_grads(&self) -> Result<()> {
        Ok(fused::clear_grads(&self.params)?)
    }

    /// The variables that the optimiser moves, in the order of their names.
    pub fn params(&self) -> &[Tensor] {
        &self.params
    }

    /// The variables' names and whether each decays, in order.
    pub fn groups(&self) -> impl Iterator<Item = (&str, bool)> {
        self.names.iter().map(String::as_str).zip(self.decays.iter().copied())
    }

    /// How many steps have been made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The moments, named `exp_avg.NAME` and `exp_avg_sq.NAME`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |(kind, list): &(&str, Vec<Tensor>)| -> Vec<_> {
            self.names.iter().zip(list).map(|(name, t)| (format!("{kind}.{name}"), t.shallow_clone())).collect()
        };
        self.moments.iter().flat_map(named).collect()
    }

    /// Puts back what `state` and `updates` gave. `path` is named in errors.
    ///
    /// # Errors
    /// A moment that is missing or has another shape.
    pub fn load_state(&mut self, saved: &BTreeMap<String, Tensor>, updates: u64, path: &Path) -> Result<()> {
        tensors::copy_into(&self.state(), saved, "", path)?;
        self.updates = updates;
        Ok(())
    }
}

/// The factor of each parameter's learning rate: `decay` to the number of layers that follow its own.
fn layer_rates(names: &[String], decay: f64) -> Vec<f64> {
    // `layers.3.` or `blocks.3.`, counted from 1; what comes before the first layer has none of these.
    let number = |name: &String| {
        let mut parts = name.split('.').skip_while(|part| !matches!(*part, "layers" | "blocks")).skip(1);
        parts.next().and_then(|part| part.parse::<i32>().ok()).map(|number| number + 1)
    };
    let last = names.iter().filter_map(number).max().unwrap_or(0);
    let layer = |name: &String| {
        let embedding = ["embed", "_token", "pos_"].iter().any(|part| name.contains(part));
        number(name).unwrap_or(if embedding { 0 } else { last + 1 })
    };
    names.iter().map(|name| decay.powi(last + 1 - layer(name))).collect()
}

/// Whether a parameter is a matrix (or a convolution's kernel) by shape and, because tokens and position tables have the shape of
/// matrices, by name: `cls_token`, `mask_token`, `pos_embedding`, `decoder_pos_embed`, `position_embeddings`, `wpe`, ToST's `temp`, ...
fn is_matrix(name: &str, dimensions: usize) -> bool {
    let is_token_or_position = |part: &str| {
        part.ends_with("_token")
            || part.ends_with("_tokens")
            || part.contains("pos_embed")
            || part.contains("position")
            || part == "wpe"
            || part == "temp"
    };
    dimensions >= 2 && !name.split('.').any(is_token_or_position)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const CPU: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn variables() -> Vec<(String, Tensor)> {
        let wave = |shape: &[i64]| {
            let count = shape.iter().product::<i64>();
            (Tensor::arange(count, CPU) + 1.0).sin().reshape(shape).set_requires_grad(true)
        };
        [("head.weight", vec![3, 2]), ("cls_token", vec![1, 1, 4]), ("norm.weight", vec![4]), ("a.bias", vec![2])]
            .map(|(name, shape)| (name.to_owned(), wave(&shape)))
            .into()
    }

    fn backward(variables: &[(String, Tensor)], salt: f64) {
        let terms: Vec<Tensor> = variables.iter().map(|(_, v)| (v * salt).sin().sum(Kind::Double)).collect();
        Tensor::stack(&terms, 0).sum(Kind::Double).backward();
    }

    #[test]
    fn tokens_positions_norms_and_biases_do_not_decay() -> Result<()> {
        let optimizer = Optimizer::new(&variables(), &OptimizerConfig::default())?;
        let groups: Vec<_> = optimizer.groups().collect();
        assert_eq!(groups, [("a.bias", false), ("cls_token", false), ("head.weight", true), ("norm.weight", false)]);
        let all = OptimizerConfig { decay: Decay::All, ..OptimizerConfig::default() };
        assert!(Optimizer::new(&variables(), &all)?.groups().all(|(_, decays)| decays));

        for name in [
            "pos_embedding",
            "decoder_pos_embed",
            "bert.embeddings.position_embeddings.weight",
            "wpe.weight",
            "blocks.0.attn.temp",
        ] {
            assert!(!is_matrix(name, 2), "{name}");
        }
        for name in
            ["wte.weight", "patch_embed.proj.weight", "embeddings.token_type_embeddings.weight", "layers.0.qkv.weight"]
        {
            assert!(is_matrix(name, 2), "{name}");
        }
        Ok(())
    }

    #[test]
    fn decay_shrinks_its_group_alone() -> Result<()> {
        let vars = variables();
        let before: Vec<Tensor> = vars.iter().map(|(_, v)| v.detach().copy()).collect();
        // Zero gradients leave nothing but the decay.
        (&vars[0].1.sum(Kind::Double) * 0.0 + &vars[1].1.sum(Kind::Double) * 0.0).backward();
        let config = OptimizerConfig { weight_decay: 0.5, ..OptimizerConfig::default() };
        Optimizer::new(&vars, &config)?.step(0.1)?;
        assert!((&vars[0].1 - &before[0] * 0.95).abs().max().double_value(&[]) < 1e-15);
        for i in 1..4 {
            assert_eq!(vars[i].1, before[i], "{}", vars[i].0);
        }
        Ok(())
    }

    #[test]
    fn layers_learn_the_slower_the_lower_they_are() -> Result<()> {
        let names = ["pos_embedding", "to_patch_embedding.2.weight", "transformer.layers.0.0.norm.weight"];
        let names = [names.as_slice(), &["transformer.layers.1.0.fn.qkv.weight", "mlp_head.1.weight"]].concat();
        let names: Vec<_> = names.into_iter().map(String::from).collect();
        assert_eq!(layer_rates(&names, 0.5), [0.125, 0.125, 0.25, 0.5, 1.0]);
        assert_eq!(layer_rates(&names, 1.0), [1.0; 5]);

        let vars: Vec<_> = names.iter().map(|n| (n.clone(), Tensor::ones([2], CPU).set_requires_grad(true))).collect();
        let sum: Tensor = vars.iter().map(|(_, v)| v.sum(Kind::Double)).sum();
        sum.backward();
        let config = OptimizerConfig { layer_decay: Some(0.5), weight_decay: 0.0, ..OptimizerConfig::default() };
        Optimizer::new(&vars, &config)?.step(0.1)?;
        let moved: Vec<f64> = vars.iter().map(|(_, v)| 1.0 - v.double_value(&[0])).collect();
        for (moved, rate) in moved.iter().zip([0.125, 0.125, 0.25, 0.5, 1.0]) {
            assert!((moved - 0.1 * rate).abs() < 1e-6, "{moved} at {rate}");
        }
        Ok(())
    }

    #[test]
    fn a_saved_state_continues_in_the_same_bits() -> Result<()> {
        for rule in [Rule::AdamW, Rule::Lion] {
            let config = OptimizerConfig { rule, ..OptimizerConfig::default() };
            let (ours, theirs) = (variables(), variables());
            let mut one = Optimizer::new(&ours, &config)?;
            let steps =
                |optimizer: &mut Optimizer, vars: &[(String, Tensor)], range: std::ops::Range<i32>| -> Result<()> {
                    for salt in range {
                        optimizer.clear_grads()?;
                        backward(vars, f64::from(salt));
                        optimizer.step(1e-2)?;
                    }
                    Ok(())
                };
            steps(&mut one, &ours, 1..7)?;

            let mut first = Optimizer::new(&theirs, &config)?;
            steps(&mut first, &theirs, 1..4)?;
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("optimizer.safetensors");
            tensors::write(&path, &first.state())?;
            let mut second = Optimizer::new(&theirs, &config)?;
            second.load_state(&tensors::read(&path)?, first.updates(), &path)?;
            steps(&mut second, &theirs, 4..7)?;
            for ((name, a), (_, b)) in ours.iter().zip(&theirs) {
                assert_eq!(a, b, "{name}");
            }
        }
        Ok(())
    }

    #[test]
    fn misfits_are_sentences() -> Result<()> {
        assert!(Optimizer::new(&[], &OptimizerConfig::default()).unwrap_err().to_string().contains("no variables"));
        let mut twice = variables();
        twice.push(("a.bias".into(), Tensor::zeros([1], CPU)));
        assert!(Optimizer::new(&twice, &OptimizerConfig::default()).unwrap_err().to_string().contains("a.bias"));

        let mut optimizer = Optimizer::new(&variables(), &OptimizerConfig::default())?;
        let path = Path::new("x/optimizer.safetensors");
        let mut saved: BTreeMap<_, _> = optimizer.state().into_iter().collect();
        saved.insert("exp_avg.a.bias".into(), Tensor::zeros([5], CPU));
        let message = optimizer.load_state(&saved, 1, path).unwrap_err().to_string();
        assert!(message.contains("[5], expected Double [2]"), "{message}");
        saved.remove("exp_avg.a.bias");
        assert!(optimizer.load_state(&saved, 1, path).unwrap_err().to_string().contains("no tensor"));
        assert_eq!(optimizer.updates(), 0);
        Ok(())
    }
}
