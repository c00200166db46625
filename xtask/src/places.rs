//! Where things lie: the clone, the link to libtorch, the cache folder that all clones of a user share, the data sets.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folders that the commands work in.
#[derive(Clone, Debug)]
pub struct Places {
    /// The root of the clone: the folder with the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// `<user cache>/whitebox`, shared between clones: `$XDG_CACHE_HOME/whitebox` or `~/.cache/whitebox`.
    pub cache: PathBuf,
    /// The folder that holds one folder a data set, see [`data_folder`].
    pub data: PathBuf,
}

impl Places {
    /// The places of this clone and this user.
    ///
    /// # Errors
    /// When neither `XDG_CACHE_HOME` nor `HOME` says where the cache folder is.
    pub fn find() -> Result<Self> {
        let cache = dirs::cache_dir()
            .context("no cache folder: neither XDG_CACHE_HOME nor HOME is set; set one of them")?
            .join("whitebox");
        let data = data_folder(&cache, env::var_os("WHITEBOX_DATA").map(PathBuf::from));
        Ok(Self { root: project_root(), cache, data })
    }

    /// The git-ignored link in the clone that `.cargo/config.toml` names: `.libtorch` -> a folder with `torch/` in it.
    #[must_use]
    pub fn link(&self) -> PathBuf {
        self.root.join(".libtorch")
    }
}

/// The one rule for where data sets lie, the same as in the `whitebox` binary: the set `NAME` is the folder `NAME`
/// inside `$WHITEBOX_DATA` where that is set and not empty, and else inside `<user cache>/whitebox/data`.
#[must_use]
pub fn data_folder(cache: &Path, whitebox_data: Option<PathBuf>) -> PathBuf {
    whitebox_data.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| cache.join("data"))
}

/// The root of the clone. Cargo says at run time where this package lies, so a clone may be moved with its build.
fn project_root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map(Path::to_path_buf).unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lie_in_the_named_folder_or_in_the_cache() {
        let cache = Path::new("/home/me/.cache/whitebox");
        assert_eq!(data_folder(cache, None), Path::new("/home/me/.cache/whitebox/data"));
        assert_eq!(data_folder(cache, Some("".into())), Path::new("/home/me/.cache/whitebox/data"));
        assert_eq!(data_folder(cache, Some("/sets".into())), Path::new("/sets"));
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(project_root().join("Cargo.lock").is_file());
    }
}
