//! A CRATE with random weights, and how sparse its tokens are after each layer.

use tch::{Device, Kind, Tensor, nn};
use whitebox_model::probe::Recorder;
use whitebox_model::{CrateConfig, ModelConfig, Result, Site};

fn main() -> Result<()> {
    let config = CrateConfig { image: [32, 32], patch: [8, 8], d: 64, depth: 3, heads: 4, classes: 10, ..Default::default() };
    tch::manual_seed(0);
    let store = nn::VarStore::new(Device::Cpu);
    let model = ModelConfig::Crate(config).build(&store.root())?;
    let mut probe = Recorder::new(&[Site::ZOut]);
    let logits = model.forward(&Tensor::rand([2, 3, 32, 32], (Kind::Float, Device::Cpu)), &mut probe)?;
    for (layer, _, z) in &probe.seen {
        let nonzero = z.gt(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        println!("layer {layer}: {nonzero:.3} of the numbers are not zero");
    }
    println!("logits {:?}", logits.size());
    Ok(())
}
