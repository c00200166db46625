//! How a trained model is to be used: the options that the commands which read one share.

use anyhow::Result;
use tch::Device;
use whitebox_autoencoder::AutoencoderConfig;
use whitebox_model::weights::Weights;

use super::{Opened, open, open_autoencoder, open_features};
use crate::data::DataConfig;

/// How a trained model is to be used: the options that all who read one share.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelUse {
    /// The recipe whose data section prepares the images, for files that don't tell [default: the model's own].
    #[arg(long)]
    recipe: Option<String>,
    /// The model of a file that does not say it: a preset or a recipe file.
    #[arg(long, value_name = "PRESET|FILE")]
    model: Option<String>,
    /// A field of the model or of its data, as --set model.heads=6 or --set data.path=DIR; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl ModelUse {
    /// A classifier, how its images are prepared, and where it is to run. What was found out or assumed is told on stderr.
    pub fn open(&self, weights: Weights) -> Result<(Opened, DataConfig, Device)> {
        self.open_with(weights, open)
    }

    /// The same; of an autoencoder it is the encoder.
    pub fn open_features(&self, weights: Weights) -> Result<(Opened, DataConfig, Device)> {
        self.open_with(weights, open_features)
    }

    /// An autoencoder.
    pub fn open_autoencoder(&self, weights: Weights) -> Result<(Opened<AutoencoderConfig>, DataConfig, Device)> {
        self.open_with(weights, open_autoencoder)
    }

    /// The same options with this recipe where none was named.
    pub fn or_recipe(&self, name: Option<&str>) -> Self {
        ModelUse { recipe: self.recipe.clone().or(name.map(str::to_owned)), ..self.clone() }
    }

    fn open_with<M>(
        &self,
        weights: Weights,
        open: impl FnOnce(Weights, Option<&str>, &[String]) -> Result<Opened<M>>,
    ) -> Result<(Opened<M>, DataConfig, Device)> {
        let device = self.device()?;
        let (of_data, of_model): (Vec<_>, Vec<_>) = self.sets.iter().cloned().partition(|set| set.starts_with("data."));
        let opened = open(weights, self.model.as_deref(), &of_model)?;
        for note in &opened.notes {
            eprintln!("{note}");
        }
        let data = opened.data(self.recipe.as_deref(), &of_data)?;
        Ok((opened, data, device))
    }

    /// Where it is to run.
    pub fn device(&self) -> Result<Device> {
        Ok(torch_extras::cuda::device_from_str(&self.device)?)
    }

    /// The model that was named.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Fields that were set.
    pub fn sets(&self) -> &[String] {
        &self.sets
    }

    /// The recipe that was named.
    pub fn recipe(&self) -> Option<&str> {
        self.recipe.as_deref()
    }
}
