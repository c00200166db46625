//! Which networks are looked at: a checkpoint, and of a run the same network before its first step and half-way.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tch::{Device, nn};
use whitebox_analysis::operators::Operators;
use whitebox_model::weights::{LoadOptions, Weights};
use whitebox_model::{ModelConfig, VisionModel};

use crate::checkpoint::Opened;
use crate::memory;
use crate::run_folder::RunFolder;

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
    fn new(
        name: &str,
        config: &ModelConfig,
        device: Device,
        fill: impl FnOnce(&nn::VarStore) -> Result<()>,
    ) -> Result<Self> {
        memory::check(config.cost().parameters.saturating_mul(4), device)?;
        let store = nn::VarStore::new(device);
        let model = config.build(&store.root())?;
        fill(&store)?;
        let operators = Operators::of_model(config, &store.variables());
        Ok(Network { name: name.into(), config: config.clone(), device, model, operators, shown: false })
    }

    /// The network of an opened file.
    pub fn of_file(name: &str, opened: &Opened, device: Device) -> Result<Self> {
        let network = Self::new(name, &opened.config, device, |store| load(&opened.weights, opened.headless, store));
        Ok(Network { shown: true, ..network.with_context(|| opened.weights.path.display().to_string())? })
    }

    /// The network as a run drew it, before its first step.
    fn drawn(config: &ModelConfig, seed: u64, device: Device) -> Result<Self> {
        tch::manual_seed(seed as i64);
        Self::new("at initialisation", config, device, |_| Ok(()))
    }
}

fn load(weights: &Weights, headless: bool, store: &nn::VarStore) -> Result<()> {
    let options = LoadOptions { replace_head: headless, ..LoadOptions::default() };
    Ok(weights.load_into(&store.variables(), options)?)
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
        let weights = Weights::open(&file)?;
        let name = format!("after {} steps", whitebox_analysis::count(step));
        let network = Network::new(&name, &opened.config, device, |store| load(&weights, opened.headless, store));
        found.push(network.with_context(|| file.display().to_string())?);
    }
    Ok(found)
}

/// The weights of the kept step nearest to half of the last one, which is left out itself.
fn half_way(checkpoints: &Path) -> Result<Option<(u64, PathBuf)>> {
    let Ok(entries) = std::fs::read_dir(checkpoints) else { return Ok(None) };
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let mut steps: Vec<(u64, PathBuf)> =
        entries.flatten().map(|e| e.path()).filter_map(|path| Some((step(&path)?, path))).collect();
    steps.sort();
    let Some((last, _)) = steps.pop() else { return Ok(None) };
    let nearest = steps.into_iter().min_by_key(|(step, _)| step.abs_diff(last / 2));
    Ok(nearest.map(|(step, folder)| (step, folder.join("model.safetensors"))).filter(|(_, file)| file.is_file()))
}
