//! The data section of a recipe: which set, where it lies, how its images become the model's input.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use whitebox_datasets::{
    Batch, Dataset, ImageFolder, Loader, LoaderConfig, OnCorrupt, Pipeline, Split, Subset, Transform, cifar, digits,
    flowers, idx, pets,
};
use whitebox_train::{BoxError, Source};

/// The sets that a recipe can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetName {
    /// 6,000 + 1,000 images of Fashion-MNIST that lie in `data/`.
    FashionMnistSubset,
    /// Fashion-MNIST, 60,000 + 10,000.
    FashionMnist,
    /// MNIST, 60,000 + 10,000.
    Mnist,
    /// CIFAR-10: the official binary files, or a folder of images by class.
    Cifar10,
    /// CIFAR-100, binary files or a folder.
    Cifar100,
    /// Oxford Flowers-102: `jpg/`, `imagelabels.mat`, `setid.mat`.
    Flowers102,
    /// Oxford-IIIT Pets: `images/` and `annotations/`.
    Pets,
    /// 1,797 digits of 8x8 pixels that lie in `data/`; every fifth validates.
    Digits,
    /// One's own images: `train/CLASS/*` and `val/CLASS/*`, or `CLASS/*` alone, of which every tenth validates.
    ImageFolder,
}

/// Where images come from and how they are prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Which set.
    pub set: SetName,
    /// Where it lies. Default: where `cargo xtask data` puts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Validate on every n-th image of the training part instead of the set's own test part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<usize>,
    /// Channels of the model's input: 1 or 3; grey and colour are converted.
    pub channels: usize,
    /// Subtracted from each channel, in units of 0..1.
    pub mean: Vec<f64>,
    /// Divided by, after `mean`.
    pub std: Vec<f64>,
    /// Steps on training images.
    #[serde(default)]
    pub train: Vec<Transform>,
    /// Steps on images that are evaluated.
    #[serde(default)]
    pub eval: Vec<Transform>,
    /// Images in a (micro-)batch.
    pub batch_size: usize,
    /// How often an image comes in the epochs that it is part of, each time prepared anew (repeated augmentation); an epoch stays as long as it is.
    /// Default: 1.
    #[serde(default = "once")]
    pub repeats: usize,
    /// Images in a batch of an evaluation. Default: 256.
    #[serde(default = "default_eval_batch")]
    pub eval_batch_size: usize,
    /// Threads that decode; changes no number. Default: 2.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// Leave out images that cannot be decoded, and count them, instead of stopping. Default: false.
    #[serde(default)]
    pub skip_corrupt: bool,
}

fn default_eval_batch() -> usize {
    256
}

fn once() -> usize {
    1
}

fn default_workers() -> usize {
    2
}

/// An opened set.
pub struct Sets {
    /// What is learned from.
    pub train: Arc<dyn Dataset>,
    /// What is measured on.
    pub validation: Arc<dyn Dataset>,
}

impl DataConfig {
    /// Refuses values that cannot be meant, before the set is opened.
    pub fn check(&self) -> Result<()> {
        for (key, value) in
            [("batch_size", self.batch_size), ("eval_batch_size", self.eval_batch_size), ("repeats", self.repeats)]
        {
            if value == 0 {
                bail!("data.{key} = 0: expected at least 1");
            }
        }
        self.train_pipeline()?;
        self.eval_pipeline()?;
        Ok(())
    }

    /// Opens both parts.
    pub fn open(&self) -> Result<Sets> {
        if let Some(every) = self.hold_out {
            let whole = self.split(Split::Train)?;
            let (train, validation) = Subset::hold_out(whole, every)?;
            return Ok(Sets { train: Arc::new(train), validation: Arc::new(validation) });
        }
        Ok(Sets { train: self.split(Split::Train)?, validation: self.split(Split::Test)? })
    }

    fn split(&self, split: Split) -> Result<Arc<dyn Dataset>> {
        let folder = self.folder()?;
        Ok(match self.set {
            SetName::FashionMnistSubset | SetName::FashionMnist => Arc::new(idx::fashion_mnist(&folder, split)?),
            SetName::Mnist => Arc::new(idx::mnist(&folder, split)?),
            SetName::Cifar10 => by_files_or_class(cifar::cifar10(&folder, split), &folder, split)?,
            SetName::Cifar100 => by_files_or_class(cifar::cifar100(&folder, split), &folder, split)?,
            SetName::Flowers102 => Arc::new(flowers::flowers102(&folder, split)?),
            SetName::Pets => Arc::new(pets::pets(&folder, split)?),
            SetName::Digits => {
                let file = if folder.is_dir() { folder.join("digits.csv.gz") } else { folder };
                let (train, test) = Subset::hold_out(Arc::new(digits::open(&file)?), 5)?;
                Arc::new(if split == Split::Train { train } else { test })
            }
            SetName::ImageFolder => own_images(&folder, split)?,
        })
    }

    /// Where the set lies.
    fn folder(&self) -> Result<PathBuf> {
        if let Some(path) = &self.path {
            if !path.exists() {
                bail!("data.path = {}: there is nothing there", path.display());
            }
            return Ok(path.clone());
        }
        let name = serde_json::to_value(self.set)?.as_str().unwrap_or_default().to_owned();
        match self.set {
            SetName::FashionMnistSubset | SetName::Digits => embedded_folder(),
            SetName::ImageFolder => bail!(
                "image-folder needs to know where the images are: add --set data.path=DIR, where DIR holds train/CLASS/* and \
                 val/CLASS/*, or CLASS/* alone"
            ),
            _ => {
                let folder = data_home()?.join(&name);
                if !folder.exists() {
                    let get = match self.set {
                        SetName::Cifar100 => "get the official binary files from its authors' page".to_owned(),
                        SetName::Flowers102 | SetName::Pets => {
                            "get the official archives from its authors' page".to_owned()
                        }
                        _ => format!("get it with `cargo xtask data {name}`"),
                    };
                    bail!("{name} is not at {}; {get}, or name its folder with --set data.path=DIR", folder.display());
                }
                Ok(folder)
            }
        }
    }

    /// The steps for training images.
    pub fn train_pipeline(&self) -> Result<Pipeline> {
        self.pipeline(self.train.clone()).context("data.train")
    }

    /// The steps for images that are evaluated.
    pub fn eval_pipeline(&self) -> Result<Pipeline> {
        self.pipeline(self.eval.clone()).context("data.eval")
    }

    /// Steps of one's own, with this section's channels and normalisation.
    pub fn pipeline(&self, steps: Vec<Transform>) -> Result<Pipeline> {
        // Written as f64, so that 0.286 in a recipe stays 0.286 in the files of its runs.
        let single = |values: &[f64]| values.iter().map(|&x| x as f32).collect();
        Ok(Pipeline::new(steps, self.channels, single(&self.mean), single(&self.std))?)
    }

    /// A loader of training images, shuffled by `seed` and epoch.
    pub fn train_loader(&self, set: Arc<dyn Dataset>, seed: u64) -> Result<Loader> {
        let repeats = self.repeats;
        self.loader(set, self.train_pipeline()?, LoaderConfig { repeats, ..self.shuffled(seed) })
    }

    /// A loader of training images without augmentation, for models that compare.
    pub fn plain_loader(&self, set: Arc<dyn Dataset>, seed: u64) -> Result<Loader> {
        self.loader(set, self.eval_pipeline()?, self.shuffled(seed))
    }

    /// A loader of images in their order.
    pub fn eval_loader(&self, set: Arc<dyn Dataset>) -> Result<Loader> {
        let (batch_size, shuffle) = (self.eval_batch_size, false);
        self.loader(set, self.eval_pipeline()?, LoaderConfig { batch_size, shuffle, ..self.shuffled(0) })
    }

    fn shuffled(&self, seed: u64) -> LoaderConfig {
        let on_corrupt = if self.skip_corrupt { OnCorrupt::Skip } else { OnCorrupt::Fail };
        let (batch_size, workers) = (self.batch_size, self.workers);
        LoaderConfig { batch_size, workers, seed, shuffle: true, on_corrupt, ..Default::default() }
    }

    fn loader(&self, set: Arc<dyn Dataset>, pipeline: Pipeline, config: LoaderConfig) -> Result<Loader> {
        Ok(Loader::new(set, Arc::new(pipeline), config)?)
    }
}

/// What a reader of official files has found, or images by class where it has found nothing.
fn by_files_or_class(
    files: whitebox_datasets::Result<Arc<dyn Dataset>>,
    folder: &Path,
    split: Split,
) -> Result<Arc<dyn Dataset>> {
    match files {
        Ok(files) => Ok(files),
        Err(error) => own_images(folder, split).map_err(|_| error.into()),
    }
}

/// `train/` and `val/` (or `test/`), or one folder of classes of which every tenth image of a class validates.
fn own_images(folder: &Path, split: Split) -> Result<Arc<dyn Dataset>> {
    let train = folder.join("train");
    if !train.is_dir() {
        let (train, validation) = Subset::hold_out(Arc::new(ImageFolder::open(folder)?), 10)?;
        return Ok(Arc::new(if split == Split::Train { train } else { validation }));
    }
    let opened = ImageFolder::open(&train)?;
    if split == Split::Train {
        return Ok(Arc::new(opened));
    }
    match ["val", "validation", "test"].map(|n| folder.join(n)).into_iter().find(|p| p.is_dir()) {
        Some(validation) => Ok(Arc::new(ImageFolder::open_with_classes(&validation, opened.classes())?)),
        None => bail!(
            "{} holds train/ but no val/ beside it: add one, or hold out every tenth training image with --set data.hold_out=10 \
             --set data.path={}",
            folder.display(),
            train.display()
        ),
    }
}

/// Where `cargo xtask data` puts whole sets: `$WHITEBOX_DATA`, or `whitebox/data` in the user's cache folder.
pub fn data_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("WHITEBOX_DATA").filter(|h| !h.is_empty()) {
        return Ok(PathBuf::from(home));
    }
    Ok(dirs::cache_dir().context("there is no cache folder: set WHITEBOX_DATA")?.join("whitebox/data"))
}

/// The `data/` folder of the repository, in the current folder or in the clone that built this program.
pub fn embedded_folder() -> Result<PathBuf> {
    let candidates = [PathBuf::from("data"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")];
    match candidates.iter().find(|p| p.join("fmnist-train6k-images-idx3-ubyte.gz").exists()) {
        Some(found) => Ok(found.canonicalize().unwrap_or(found.clone())),
        None => bail!(
            "the project's data/ folder is neither here nor where this program was built: run it in a clone, or name the files' \
             folder with --set data.path=DIR"
        ),
    }
}

/// The trainer's view of a loader.
pub struct ImageSource(pub Loader);

impl Source for ImageSource {
    type Batch = Batch;

    fn batch_size(&self) -> u64 {
        self.0.config().batch_size as u64
    }

    fn batches_per_epoch(&self) -> u64 {
        self.0.batches_per_epoch() as u64
    }

    fn epoch(&self, epoch: u64, start_batch: u64) -> Box<dyn Iterator<Item = Result<Batch, BoxError>> + Send> {
        Box::new(self.0.epoch(epoch, start_batch as usize).map(|batch| batch.map_err(BoxError::from)))
    }
}
