//! Which networks are looked at: a checkpoint, and of a run the same network before its first step and half-way.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tch::{Device, nn};
use whitebox_analysis::operators::Operators;
use whitebox_model::{ModelConfig, VisionModel};

use crate::checkpoint::{Opened, open_features, read};
use crate::run_folder::RunFolder;
use crate::tasks::classify::load_into_store;

/// A network with its operators at hand.
pub struct Network {
    /// How it is called in figures.
    pub name: String,
    /// What it is.
    pub config: ModelConfig,
    /// Where it computes.
    pub device: Device,
    /// The network.
    pub model: Box<dyn VisionModel>,
    /// What its layers have learned.
    pub operators: Vec<Operators>,
    /// Whether it is one that was asked for, and not an earlier state of it.
    pub shown: bool,
}

impl Network {
    fn new(name: &str, config: &ModelConfig, store: &nn::VarStore, model: Box<dyn VisionModel>) -> Self {
        let operators = Operators::of_model(config, &store.variables());
        Network { name: name.into(), config: config.clone(), device: store.device(), model, operators, shown: false }
    }

    /// The network of an opened file.
    pub fn of_file(name: &str, opened: &Opened, device: Device) -> Result<Self> {
        let Opened { config, weights, headless, .. } = opened;
        let (store, model) = load_into_store(config, weights, *headless, device)?;
        Ok(Network { shown: true, ..Self::new(name, config, &store, model) })
    }

    /// The network as a run drew it, before its first step.
    fn drawn(config: &ModelConfig, seed: u64, device: Device) -> Result<Self> {
        tch::manual_seed(seed as i64);
        let store = nn::VarStore::new(device);
        let model = config.build(&store.root())?;
        Ok(Self::new("at initialisation", config, &store, model))
    }
}

/// The network of a checkpoint; of a run folder also the one before the first step, where it was drawn and not loaded, and the checkpoint nearest half-way, where the
/// run has kept one. The trained one comes first.
pub fn networks(path: Option<&Path>, opened: &Opened, device: Device) -> Result<Vec<Network>> {
    let mut found = vec![Network::of_file("trained", opened, device)?];
    let Some(folder) = path.map(|path| RunFolder { path: path.to_owned() }) else { return Ok(found) };
    let Ok(named) = folder.recipe() else { return Ok(found) };
    if !opened.headless && named.recipe.init.is_none() {
        found.push(Network::drawn(&opened.config, named.recipe.train.seed, device)?);
    }
    if let Some((step, file)) = half_way(&folder.path.join("checkpoints"))? {
        // Of an autoencoder's, too, it is the encoder.
        let then = open_features(read(Some(&file))?, None, &[])?;
        let (store, model) = load_into_store(&opened.config, &then.weights, then.headless, device)?;
        let name = format!("after {} steps", whitebox_analysis::count(step));
        found.push(Network::new(&name, &opened.config, &store, model));
    }
    Ok(found)
}

/// The weights of the kept step nearest to half of the last one, which is left out itself.
pub(super) fn half_way(checkpoints: &Path) -> Result<Option<(u64, PathBuf)>> {
    let Ok(entries) = std::fs::read_dir(checkpoints) else { return Ok(None) };
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let mut steps: Vec<(u64, PathBuf)> =
        entries.flatten().map(|e| e.path()).filter_map(|path| Some((step(&path)?, path))).collect();
    steps.sort();
    let Some((last, _)) = steps.pop() else { return Ok(None) };
    let nearest = steps.into_iter().min_by_key(|(step, _)| step.abs_diff(last / 2));
    Ok(nearest.map(|(step, folder)| (step, folder.join("model.safetensors"))).filter(|(_, file)| file.is_file()))
}
