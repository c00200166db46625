//! The operators of this project's models, read from their parameters by name.

use std::collections::HashMap;

use tch::Tensor;
use whitebox_model::ModelConfig;
use whitebox_model::crate_vision::{Attend, Sparsify};
use whitebox_model::mssa::OutputMap;

use super::Operators;

impl Operators {
    /// Of every layer, in order; a layer of a ViT has none. `variables` are the model's, as its `VarStore` names them.
    pub fn of_model(config: &ModelConfig, variables: &HashMap<String, Tensor>) -> Vec<Operators> {
        let named = |name: String| variables.get(&name).map(Tensor::shallow_clone);
        let layer = |l: i64| match config {
            ModelConfig::Crate(c) => {
                let at = format!("transformer.layers.{l}");
                let u = (c.attention == Attend::Mssa).then(|| named(format!("{at}.0.fn.qkv.weight"))).flatten();
                let dictionary = (c.sparsify != Sparsify::Mlp).then(|| named(format!("{at}.1.fn.weight"))).flatten();
                let output = u.as_ref().and_then(|_| match c.output_map {
                    OutputMap::Free => named(format!("{at}.0.fn.to_out.0.weight")),
                    OutputMap::Tied => None,
                });
                Operators { u, shift: None, heads: c.heads, dictionary, output, eta: c.eta, lambda: c.lambda }
            }
            ModelConfig::CrateAlpha(c) => {
                let at = format!("transformer.layers.{l}");
                Operators {
                    u: named(format!("{at}.0.fn.qkv.weight")),
                    shift: None,
                    heads: c.heads,
                    dictionary: named(format!("{at}.1.fn.D")),
                    output: named(format!("{at}.0.fn.to_out.0.weight")),
                    eta: c.eta,
                    lambda: c.lambda,
                }
            }
            ModelConfig::Tost(c) => Operators {
                u: named(format!("blocks.{l}.attn.qkv.weight")),
                shift: named(format!("blocks.{l}.attn.qkv.bias")),
                heads: c.heads,
                output: named(format!("blocks.{l}.attn.to_out.0.weight")),
                ..Operators::default()
            },
            ModelConfig::Vit(c) => Operators { heads: c.heads, ..Operators::default() },
        };
        (0..config.depth()).map(layer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::measure;
    use tch::{Device, nn};

    #[test]
    fn every_kind_of_model_has_its_own_and_they_can_be_measured() {
        for (preset, subspaces, dictionary) in [
            ("crate-tiny", true, true),
            ("crate-alpha-tiny", true, true),
            ("tost-tiny", true, false),
            ("vit-tiny", false, false),
        ] {
            let config = ModelConfig::preset(preset).unwrap();
            let store = nn::VarStore::new(Device::Cpu);
            config.build(&store.root()).unwrap();
            let operators = Operators::of_model(&config, &store.variables());
            assert_eq!(operators.len(), 12, "{preset}");
            let found = measure(3, &operators[3]).unwrap();
            assert_eq!((found.subspaces.is_some(), found.dictionary.is_some()), (subspaces, dictionary), "{preset}");
            assert_eq!(found.output_distance.is_some(), subspaces, "{preset}");
        }
    }
}
