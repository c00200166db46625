//! Images in one folder a class, as ImageNet is laid out: `ROOT/CLASS/IMAGE.jpg`.
//!
//! Opening lists the files; an image is decoded each time it is asked for. Classes are the names of the folders in
//! byte order, which is the order that torchvision gives them, and files below a class (in nested folders too) are
//! sorted by path, so that an index means the same image on every machine.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{Dataset, Error, Image, Result, decode};

const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// A data set of image files by class.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    files: Vec<(PathBuf, usize)>,
    classes: Vec<String>,
}

impl ImageFolder {
    /// Lists `root/CLASS/**.{jpg,jpeg,png,webp}`; each folder is a class. Names that begin with a dot and files with
    /// other extensions are passed over; links are followed. A name that is no UTF-8 becomes a class name with
    /// replacement characters, its files are opened under their true name.
    ///
    /// # Errors
    /// [`Error::Folder`] where there is no class folder, where one has no image, where two have the same name once
    /// replaced, or where the folders are splits (`train`, `val`) rather than classes; [`Error::Io`] where a folder
    /// cannot be listed.
    pub fn open(root: &Path) -> Result<Self> {
        Self::listed(root, None)
    }

    /// As [`ImageFolder::open`], with the labels of another set: those of the training set for a validation folder,
    /// or those of a trained model. A class without a folder just has no sample.
    ///
    /// # Errors
    /// As [`ImageFolder::open`], and [`Error::Folder`] for a folder that is none of the classes.
    pub fn open_with_classes(root: &Path, classes: &[impl AsRef<str>]) -> Result<Self> {
        Self::listed(root, Some(classes.iter().map(|class| class.as_ref().to_owned()).collect()))
    }

    /// Image files and folders of them (nested ones too, in the order of their paths), without classes: every label is 0.
    ///
    /// # Errors
    /// [`Error::Folder`] for a folder without images, [`Error::Io`] for one that cannot be listed and for a file that is not there.
    pub fn unlabelled(paths: &[PathBuf]) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            let meta = fs::metadata(path).map_err(Error::io(path))?;
            if !meta.is_dir() {
                files.push((path.clone(), 0));
                continue;
            }
            let mut found = Vec::new();
            collect(path, &mut HashSet::new(), &mut found)?;
            found.sort_unstable();
            if found.is_empty() {
                let reason = format!("it holds no image ({})", EXTENSIONS.join(", "));
                return Err(Error::Folder { dir: path.clone(), reason, advice: "name one that does".into() });
            }
            files.extend(found.into_iter().map(|path| (path, 0)));
        }
        Ok(Self { files, classes: vec!["image".into()] })
    }

    /// Files and labels that a set's own list names.
    pub(crate) fn of_list(files: Vec<(PathBuf, usize)>, classes: &[&str]) -> Self {
        Self { files, classes: classes.iter().map(|&class| class.to_owned()).collect() }
    }

    fn listed(root: &Path, given: Option<Vec<String>>) -> Result<Self> {
        let fault =
            |reason: String, advice: &str| Error::Folder { dir: root.to_owned(), reason, advice: advice.into() };
        let (folders, files) = entries(root)?;
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let names: Vec<String> = folders.iter().map(name).collect();
        if names.is_empty() {
            let images = files.iter().filter(|path| is_image(path)).count();
            let advice = "sort the images into one folder for each class";
            return Err(fault(format!("it has no class folder ({images} images lie in it directly)"), advice));
        }
        if names.iter().all(|name| matches!(name.as_str(), "train" | "val" | "valid" | "validation" | "test")) {
            return Err(fault(
                format!("its folders are {}, not classes", names.join(", ")),
                "name one of these instead",
            ));
        }
        let mut seen = HashSet::new();
        if let Some(twin) = names.iter().find(|name| !seen.insert(*name)) {
            let reason = format!("two class folders are called {twin:?} once bytes that are no UTF-8 are replaced");
            return Err(fault(reason, "rename one of them"));
        }
        let classes = given.unwrap_or_else(|| names.clone());
        let labels: HashMap<&String, usize> = classes.iter().zip(0..).collect();
        let mut samples = Vec::new();
        for (folder, name) in folders.iter().zip(&names) {
            let Some(&label) = labels.get(name) else {
                let reason = format!("its folder {name:?} is none of the {} classes", classes.len());
                return Err(fault(reason, "remove or rename the folder, or use the classes of this set"));
            };
            let mut paths = Vec::new();
            collect(folder, &mut HashSet::new(), &mut paths)?;
            if paths.is_empty() {
                let (dir, reason) = (folder.clone(), "this class folder holds no image".into());
                return Err(Error::Folder { dir, reason, advice: "put images into it or remove it".into() });
            }
            paths.sort_unstable();
            samples.extend(paths.into_iter().map(|path| (path, label)));
        }
        Ok(Self { files: samples, classes })
    }

    /// The file of a sample; `None` past the end.
    pub fn path(&self, index: usize) -> Option<&Path> {
        self.files.get(index).map(|(path, _)| path.as_path())
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        self.files[index].1
    }

    fn image(&self, index: usize) -> Result<Image> {
        let mut bytes = Vec::new();
        self.encoded(index, &mut bytes)?;
        decode(&bytes, &self.source(index))
    }

    fn encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
        let path = self.path(index).ok_or(Error::Index { index, len: self.len() })?;
        bytes.clear();
        let read = File::open(path).and_then(|mut file| file.read_to_end(bytes));
        read.map_err(Error::io(path))?;
        Ok(true)
    }

    fn source(&self, index: usize) -> String {
        self.path(index).map_or_else(|| format!("sample {index}"), |path| path.to_string_lossy().into_owned())
    }
}

/// Adds all images below `folder`. `seen` holds the true paths of folders visited, so that a link that leads back
/// ends.
fn collect(folder: &Path, seen: &mut HashSet<PathBuf>, images: &mut Vec<PathBuf>) -> Result<()> {
    if !seen.insert(folder.canonicalize().map_err(Error::io(folder))?) {
        return Ok(());
    }
    let (folders, files) = entries(folder)?;
    images.extend(files.into_iter().filter(|path| is_image(path)));
    folders.iter().try_for_each(|folder| collect(folder, seen, images))
}

/// The folders and the files in a folder, each sorted, without those that begin with a dot. A dangling link counts as
/// a file: opening it will name it.
fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io(&path))?;
        let is_folder = kind.is_dir() || kind.is_symlink() && path.is_dir();
        if is_folder { folders.push(path) } else { files.push(path) }
    }
    folders.sort_unstable();
    files.sort_unstable();
    Ok((folders, files))
}

fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}
