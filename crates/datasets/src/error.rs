//! Everything that can go wrong between a path and a batch, each as one sentence that says what was found, what was
//! expected and what to do.

use std::path::PathBuf;

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. [`Error::is_corrupt`] tells the faults of a single sample, which a loader may skip, from those of
/// the set or the configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("{path}: cannot be read ({source}); check that it exists and that its permissions allow it", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A data set is not where it was looked for.
    #[error("{set} not found in {dir}: looked for {looked_for}; {how}", dir = .dir.display())]
    Missing {
        /// The set and its part.
        set: String,
        /// The folder searched.
        dir: PathBuf,
        /// The names tried.
        looked_for: String,
        /// How the set can be had.
        how: String,
    },
    /// The first four bytes are not those of the expected kind of IDX file.
    #[error("{path}: {found}, but an IDX file of {expected} is expected here; {advice}", path = .path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// What the bytes are.
        found: String,
        /// "images" or "labels".
        expected: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A file holds fewer or more bytes than its header or its record size says.
    #[error("{path}: {found}, but {expected}; the file is damaged or only partly there: fetch it again", path = .path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// A gzip stream ends early or its checksum fails.
    #[error("{path}: the gzip stream is damaged ({source}); fetch the file again", path = .path.display())]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What the decompressor said.
        source: std::io::Error,
    },
    /// A header declares more than the file can hold or than is read into memory at once.
    #[error("{path}: declares {declared} bytes of data, more than {limit} ({reason}); nothing was allocated: fetch the file again or use an image folder", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes declared, saturated at 2^64 - 1.
        declared: u64,
        /// The most that is accepted.
        limit: u64,
        /// Why that is the limit.
        reason: &'static str,
    },
    /// Images and labels are not equally many.
    #[error("{images} holds {image_count} images but {labels} holds {label_count} labels; the two files must belong together", images = .images.display(), labels = .labels.display())]
    CountMismatch {
        /// The file of images.
        images: PathBuf,
        /// How many images.
        image_count: usize,
        /// The file of labels.
        labels: PathBuf,
        /// How many labels.
        label_count: usize,
    },
    /// A label is not the index of a class.
    #[error("{origin}: sample {index} has label {label}, but there are {classes} classes (labels 0 to {last}); check that the file belongs to this set", last = .classes.saturating_sub(1))]
    Label {
        /// The file or set.
        origin: String,
        /// The sample, from 0.
        index: usize,
        /// Its label.
        label: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// A line of a CSV file does not parse.
    #[error("{path}, line {line}: {reason}; a line of the digits is 64 whole numbers from 0 to 16, then the label from 0 to 9", path = .path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A line of a set's list does not parse.
    #[error("{path}, line {line}: {reason}; {expected}", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
        /// What a line is.
        expected: &'static str,
    },
    /// A MATLAB file is damaged, of another kind, or holds other values.
    #[error("{path}: {reason}; {expected}: fetch the file again", path = .path.display())]
    Matlab {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What it should be.
        expected: String,
    },
    /// A set holds no sample, or an image no pixel.
    #[error("{origin}: {what}; at least one is needed")]
    Empty {
        /// The file or set.
        origin: String,
        /// What there is none of.
        what: String,
    },
    /// A folder is not laid out as one folder of images a class.
    #[error("{dir}: {reason}; expected is DIR/CLASS/IMAGE.jpg (or .jpeg, .png, .webp): {advice}", dir = .dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// An image file does not decode. A loader may skip it.
    #[error(
        "{origin}: not a readable image ({reason}); replace or remove the file, or have corrupt images skipped (in a recipe: data.skip_corrupt=true)"
    )]
    Decode {
        /// The file or sample.
        origin: String,
        /// What the decoder said.
        reason: String,
    },
    /// An image's buffer, size and channels contradict each other.
    #[error(
        "{origin}: {width} x {height} pixels of {channels} channels do not fit a buffer of {bytes} bytes; sizes must be positive, channels 1 or 3, and the buffer their product"
    )]
    Layout {
        /// What the image is called.
        origin: String,
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// Values a pixel.
        channels: usize,
        /// Length of the buffer.
        bytes: usize,
    },
    /// A transform cannot be applied to this image.
    #[error("{transform} cannot be applied to an image of {width} x {height} pixels: {reason}")]
    Unfit {
        /// The transform's name.
        transform: &'static str,
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// Why, and what to do.
        reason: String,
    },
    /// A configured value is out of its range.
    #[error("{name} = {found}: {expected}")]
    Config {
        /// The setting.
        name: String,
        /// Its value.
        found: String,
        /// What it must be, and what to do.
        expected: String,
    },
    /// A sample's result has another shape than the batch.
    #[error(
        "the transforms give {found} values but {expected} are expected; let them end in a fixed size (resize to [height, width] or a crop)"
    )]
    OutputSize {
        /// Values produced.
        found: usize,
        /// Values the output has room for.
        expected: usize,
    },
    /// A file that should be text is not.
    #[error("{path}: byte {offset} is not valid UTF-8; convert the file, or read files that are not UTF-8 as Latin-1 (in a recipe: data.latin1=true)", path = .path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Where the first invalid byte lies, from 0, after decompression.
        offset: u64,
    },
    /// A text holds a character that the tokenizer does not know.
    #[error("the character {character:?} (U+{code:04X}) at byte {offset} of the text is not in the vocabulary of {vocabulary} characters; take it out, or build the vocabulary from a text that holds it", code = *.character as u32)]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Where it begins, from 0.
        offset: u64,
        /// The size of the vocabulary.
        vocabulary: usize,
    },
    /// An id is not one of the tokenizer's.
    #[error(
        "token {id} at position {position} is not below {vocabulary}, the size of the vocabulary of {tokenizer}; the tokens belong to another tokenizer"
    )]
    UnknownToken {
        /// The id.
        id: u32,
        /// Where it stands.
        position: usize,
        /// The tokenizer's name.
        tokenizer: String,
        /// The size of its vocabulary.
        vocabulary: usize,
    },
    /// A tokenizer cannot be opened, or fails on a text.
    #[error("tokenizer {tokenizer}: {reason}; {advice}")]
    Tokenizer {
        /// Its name or file.
        tokenizer: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// A file of packed tokens is damaged or belongs to something else.
    #[error("{path}: {found}, but {expected}; {advice}", path = .path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
        /// What to do.
        advice: &'static str,
    },
    /// A folder holds tokens of something else than what is to be packed into it.
    #[error("{folder} holds tokens packed from {what}: {found}, but {expected} is asked for; choose another folder, or remove this one to pack anew", folder = .folder.display())]
    PackedOtherwise {
        /// The folder.
        folder: PathBuf,
        /// In what they differ.
        what: &'static str,
        /// What is there.
        found: String,
        /// What is asked for.
        expected: String,
    },
    /// A token set is too short for what is wanted of it.
    #[error("{what} needs at least {needed} tokens, but the set holds {tokens}; {advice}")]
    TooFewTokens {
        /// What needs them.
        what: String,
        /// How many it needs.
        needed: u64,
        /// How many there are.
        tokens: u64,
        /// What to do.
        advice: &'static str,
    },
    /// An index past the end of a set.
    #[error("sample {index} was asked for, but the set holds {len} (0 to {last}); choose a smaller index", last = .len.saturating_sub(1))]
    Index {
        /// The index.
        index: usize,
        /// The number of samples.
        len: usize,
    },
    /// An error on one sample, with the sample's name.
    #[error("{origin}: {source}")]
    Sample {
        /// What the sample is called.
        origin: String,
        /// What went wrong with it.
        source: Box<Error>,
    },
    /// Code called for a sample panicked; the panic was contained.
    #[error(
        "{origin}: the decoder or a transform failed unexpectedly ({message}); replace or remove the sample and report the failure"
    )]
    Panicked {
        /// What the sample is called.
        origin: String,
        /// The panic's message.
        message: String,
    },
    /// A worker thread failed to deliver its batch.
    #[error("batch {batch}: its worker thread failed outside any sample; run again with workers = 0 to see why")]
    WorkerLost {
        /// The batch's number in the epoch.
        batch: usize,
    },
}

impl Error {
    /// Whether the fault lies in a single image, so that leaving it out is a way on. A file that cannot be opened is
    /// not such a fault: a disk that goes away would otherwise skip the whole set.
    pub fn is_corrupt(&self) -> bool {
        match self {
            Error::Decode { .. } | Error::Layout { .. } => true,
            Error::Sample { source, .. } => source.is_corrupt(),
            _ => false,
        }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_owned(), source }
    }

    pub(crate) fn config(name: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Error {
        Error::Config { name: name.into(), found: found.to_string(), expected: expected.into() }
    }
}
