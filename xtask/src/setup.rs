//! `cargo xtask setup`: a libtorch that the clone's `.libtorch` points at, and LAPACK.
//!
//! Whatever is whole already is used before anything is fetched. A libtorch is made in a folder with an unfinished
//! name, gets its `complete` marker last and is then renamed: a run that is cut off leaves nothing that counts.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::files::{self, free_space, human};
use crate::libtorch::{self, LINKED, Libtorch, VERSION};
use crate::manifest::Manifest;
use crate::pins::Lock;
use crate::places::Places;
use crate::{shell, unpack, wheels};

/// Where libtorch shall come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// What is at hand, else a download.
    #[default]
    Any,
    /// This folder.
    Folder(PathBuf),
    /// The wheels in this folder.
    Wheels(PathBuf),
}

/// Everything that setup depends on.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Clone and cache.
    pub places: Places,
    /// The wheels of the CPU libtorch.
    pub cpu: Lock,
    /// The wheels of the libtorch with CUDA.
    pub cuda: Lock,
    /// The wheels of the benches' Python environment.
    pub reference: Lock,
    /// The Python whose torch is looked at and whose pip downloads.
    pub python: PathBuf,
    /// The user's `LIBTORCH`.
    pub user_libtorch: Option<PathBuf>,
}

impl Setup {
    /// The setup of this clone, this user and the pinned wheels.
    ///
    /// # Errors
    /// When there is no cache folder.
    pub fn new() -> Result<Self> {
        let places = Places::find()?;
        // the configuration of cargo sets LIBTORCH to the clone's own link where the user set nothing
        let ours = places.link().join("torch");
        let user_libtorch = env::var_os("LIBTORCH").map(PathBuf::from).filter(|path| *path != ours);
        let reference = Lock::python_reference()?;
        Ok(Self { places, cpu: Lock::cpu()?, cuda: Lock::cuda()?, reference, python: "python3".into(), user_libtorch })
    }

    /// Makes `.libtorch` point at a whole libtorch, with CUDA where `cuda` asks for it. Does nothing where it does.
    ///
    /// # Errors
    /// A sentence that says what is missing and what to do; the clone is then as it was.
    pub fn libtorch(&self, source: &Source, cuda: bool) -> Result<Libtorch> {
        if *source == Source::Any
            && let Ok(ready) = libtorch::linked(&self.places)
            && (ready.cuda || !cuda)
        {
            return Ok(ready);
        }
        let _lock = files::lock(&self.places.cache)?;
        let folder = match source {
            Source::Folder(folder) => self.adopt(folder, cuda)?,
            Source::Wheels(folder) => self.install(&wheels::verified(self.lock(cuda), folder)?, cuda)?,
            Source::Any => match self.at_hand(cuda) {
                Some(folder) => folder,
                None => self.fetch(cuda)?,
            },
        };
        files::point(&self.places.link(), &folder)?;
        libtorch::linked(&self.places).context("libtorch was put in place but is not usable")
    }

    fn lock(&self, cuda: bool) -> &Lock {
        if cuda { &self.cuda } else { &self.cpu }
    }

    /// The place of the libtorch that is unpacked from wheels.
    fn cached(&self, cuda: bool) -> PathBuf {
        self.places.cache.join(format!("libtorch-{VERSION}-{}", if cuda { "cuda" } else { "cpu" }))
    }

    fn is_cached(&self, cuda: bool) -> bool {
        let folder = self.cached(cuda);
        Manifest::check(&folder).is_ok_and(|manifest| manifest.source == self.lock(cuda).origin())
            && libtorch::inspect(&folder.join("torch")).is_ok()
    }

    /// A libtorch that needs no download: the user's `LIBTORCH`, an earlier setup, the Python package.
    fn at_hand(&self, cuda: bool) -> Option<PathBuf> {
        if let Some(folder) = &self.user_libtorch {
            match self.adopt(folder, cuda) {
                Ok(folder) => return Some(folder),
                Err(error) => eprintln!("LIBTORCH is set but not used: {error:#}"),
            }
        }
        if let Some(kind) = [cuda, true].into_iter().find(|kind| self.is_cached(*kind)) {
            return Some(self.cached(kind));
        }
        let python = self.python_torch()?;
        match self.adopt(&python, cuda) {
            Ok(folder) => Some(folder),
            Err(error) => {
                eprintln!("the torch of {} is not used: {error:#}", self.python.display());
                None
            }
        }
    }

    /// The folder of Python's torch package, found without importing it.
    fn python_torch(&self) -> Option<PathBuf> {
        const FIND: &str = "import importlib.util as u; s = u.find_spec('torch'); \
                            print(list(s.submodule_search_locations)[0] if s else '')";
        shell::answer(&self.python, &["-c", FIND]).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Uses the libtorch in `folder` where it lies: a folder in the cache links to it and says its version, because
    /// torch-sys looks for a `build-version` file, which a Python package lacks, and the folder is not ours to write.
    fn adopt(&self, folder: &Path, cuda: bool) -> Result<PathBuf> {
        let folder = folder.canonicalize().with_context(|| format!("{} does not exist", folder.display()))?;
        let torch = if folder.join("torch/lib").is_dir() { folder.join("torch") } else { folder };
        let found = libtorch::inspect(&torch)?;
        if cuda && !found.cuda {
            bail!("{} is libtorch {} without CUDA", torch.display(), found.version);
        }
        let real = torch.to_str().context("the path is not valid UTF-8")?;
        let name = files::sha256(real.as_bytes(), &indicatif::ProgressBar::hidden())?;
        let place = self.places.cache.join(format!("libtorch-{VERSION}-linked-{}", name.get(..12).unwrap_or(&name)));
        let source = vec![format!("{LINKED}{real}"), found.version.clone()];
        if Manifest::check(&place).is_ok_and(|manifest| manifest.source == source) {
            return Ok(place);
        }
        eprintln!("libtorch {} is there already: {}", found.version, torch.display());
        let scratch = files::unfinished(&self.places.cache)?;
        let facade = scratch.path().join("facade");
        fs::create_dir_all(facade.join("torch"))?;
        for part in ["include", "lib"] {
            symlink(torch.join(part), facade.join("torch").join(part))?;
        }
        fs::write(facade.join("torch/build-version"), VERSION)?;
        if let Some(nvidia) = torch.parent().map(|parent| parent.join("nvidia")).filter(|path| path.is_dir()) {
            symlink(nvidia, facade.join("nvidia"))?;
        }
        Manifest { source, files: Vec::new() }.write(&facade)?;
        files::put(&facade, &place)?;
        Ok(place)
    }

    /// Downloads the wheels and unpacks them.
    fn fetch(&self, cuda: bool) -> Result<PathBuf> {
        if let Some(other) = other_platform() {
            bail!(
                "the pinned wheels are for x86-64 Linux, this is {other}: \
                 get libtorch {VERSION} for it and run `cargo xtask setup --libtorch DIR`"
            );
        }
        let what = format!("libtorch {VERSION} {}", kind(cuda));
        self.fetched(self.lock(cuda), &self.python, &what, |wheels| self.install(wheels, cuda))
    }

    /// Downloads the wheels of `lock` by the pip of `python`, makes `what` of them by `install`, and removes them.
    pub(crate) fn fetched(
        &self,
        lock: &Lock,
        python: &Path,
        what: &str,
        install: impl FnOnce(&[PathBuf]) -> Result<PathBuf>,
    ) -> Result<PathBuf> {
        let downloads = self.places.cache.join("downloads");
        fs::create_dir_all(&downloads)?;
        eprintln!(
            "{what}: {} to download, {} unpacked; {} free at {}",
            human(lock.download),
            human(lock.unpacked),
            human(free_space(&self.places.cache)?),
            self.places.cache.display()
        );
        // pip holds the wheels twice for a moment; afterwards they lie beside what is unpacked from them
        self.room(lock.download.saturating_add(lock.download.max(lock.unpacked)))?;
        let wheels = wheels::download(lock, python, &downloads)?;
        let place = install(&wheels)?;
        fs::remove_dir_all(&downloads).with_context(|| format!("removing {}", downloads.display()))?;
        Ok(place)
    }

    /// Unpacks verified wheels into the cache, unless just these were unpacked before.
    fn install(&self, wheels: &[PathBuf], cuda: bool) -> Result<PathBuf> {
        let place = self.cached(cuda);
        if self.is_cached(cuda) {
            return Ok(place);
        }
        let free = self.room(self.lock(cuda).unpacked)?;
        eprintln!("unpacking libtorch {}: {} of {} free", kind(cuda), human(self.lock(cuda).unpacked), human(free));
        let scratch = files::unfinished(&self.places.cache)?;
        let fresh = scratch.path().join("libtorch");
        fs::create_dir(&fresh)?;
        unpack::unpack(wheels, cuda, &fresh)?;
        libtorch::inspect(&fresh.join("torch")).context("the wheels do not make a whole libtorch")?;
        Manifest { source: self.lock(cuda).origin(), files: files::listing(&fresh)? }.write(&fresh)?;
        files::put(&fresh, &place)?;
        Ok(place)
    }

    /// Asks for `needed` bytes in the cache folder; gives what is free.
    pub(crate) fn room(&self, needed: u64) -> Result<u64> {
        let free = free_space(&self.places.cache)?;
        if free < needed {
            bail!(
                "{} are needed at {} and {} are free: make room, or set XDG_CACHE_HOME to a larger disk",
                human(needed),
                self.places.cache.display(),
                human(free)
            );
        }
        Ok(free)
    }
}

/// This platform where it is another than that of the pinned wheels.
pub(crate) fn other_platform() -> Option<String> {
    let (system, machine) = (env::consts::OS, env::consts::ARCH);
    ((system, machine) != ("linux", "x86_64")).then(|| format!("{machine} {system}"))
}

fn kind(cuda: bool) -> &'static str {
    if cuda { "with CUDA" } else { "for the CPU" }
}
