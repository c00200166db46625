//! What can be wrong with an input, said so that the caller can mend it.

use thiserror::Error;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a rate, a gradient or a layer could not be computed. No function returns NaN or infinity instead.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A scalar parameter lies outside its range.
    #[error("{name} is {value}, but must be {expected}")]
    Parameter {
        /// The parameter's name.
        name: &'static str,
        /// The value found.
        value: f64,
        /// The range it must lie in.
        expected: &'static str,
    },
    /// A matrix without rows or without columns: its rate is undefined, as `d / (N eps^2)` has no limit at `N = 0`.
    #[error("{what} is {rows} x {columns}: there must be at least one row and one column")]
    Empty {
        /// The matrix's role.
        what: &'static str,
        /// Rows found.
        rows: usize,
        /// Columns found.
        columns: usize,
    },
    /// NaN or infinity in an input.
    #[error("{what} holds {value} at row {row}, column {column}: every entry must be finite")]
    NotFinite {
        /// The matrix's role.
        what: &'static str,
        /// Row of the first such entry.
        row: usize,
        /// Column of the first such entry.
        column: usize,
        /// The entry.
        value: f64,
    },
    /// Two arguments do not fit together.
    #[error(
        "{what} has shape {found:?}, but {expected:?} was expected: tokens are the columns, so transpose token-major arrays first"
    )]
    Shape {
        /// The argument's role.
        what: &'static str,
        /// The shape found.
        found: Vec<usize>,
        /// The shape that fits the other arguments.
        expected: Vec<usize>,
    },
    /// Signals or images that are not of the shape a network or a bank of filters was made for.
    #[error(
        "the signals have shape {found:?}, but {expected} was expected: samples first, then channels, rows, columns"
    )]
    Signals {
        /// The shape found.
        found: Vec<usize>,
        /// The shape that fits.
        expected: String,
    },
    /// A matrix of `columns` columns cannot be cut into `heads` equal bases.
    #[error(
        "{columns} columns cannot be cut into {heads} equal bases: the number of columns must be a positive multiple of the number of heads"
    )]
    Heads {
        /// Columns found.
        columns: usize,
        /// Bases asked for.
        heads: usize,
    },
    /// Finite inputs so large that the result is not representable.
    #[error("{what} leaves the range of the number type: scale the tokens down, take a larger eps, or compute in f64")]
    Overflow {
        /// The quantity that overflowed.
        what: &'static str,
    },
    /// A token without a direction where one is needed.
    #[error("{what} has a zero vector at column {column}, which has no direction: remove it first")]
    ZeroToken {
        /// The matrix's role.
        what: &'static str,
        /// The column's index.
        column: usize,
    },
    /// The exact gradient vanishes, so that nothing can be compared with it.
    #[error(
        "grad R^c is 0: no token has a part in any subspace, so an approximation's error has no scale; take other tokens"
    )]
    ZeroGradient,
    /// Columns that span less than they should.
    #[error(
        "{what} is rank-deficient: column {column} depends on the columns before it, so it has no orthonormal basis of its full width"
    )]
    RankDeficient {
        /// The matrix's role.
        what: &'static str,
        /// The first dependent column.
        column: usize,
    },
    /// A basis whose columns are not orthonormal where the formula is that of a projection.
    #[error("basis {basis} of the codebook is not orthonormal (||U^T U - I|| is {error:e}): orthonormalise it first")]
    NotOrthonormal {
        /// The basis' index.
        basis: usize,
        /// `||U^T U - I||_F`.
        error: f64,
    },
    /// Memberships of one token that are no distribution over the classes.
    #[error("token {token}'s memberships sum to {sum} (smallest {smallest}): they must be non-negative and sum to 1")]
    Membership {
        /// The token's index.
        token: usize,
        /// Their sum.
        sum: f64,
        /// The smallest of them.
        smallest: f64,
    },
    /// A label that names no class.
    #[error("token {token} has label {label}, but there are {classes} classes: labels count from 0")]
    Label {
        /// The token's index.
        token: usize,
        /// The label found.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// One sample of a batch failed.
    #[error("sample {index} of the batch: {source}")]
    Sample {
        /// The sample's index.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: Box<Error>,
    },
    /// LAPACK refused; with finite input this means that the arithmetic ran out of digits.
    #[error("LAPACK could not factorise {what} ({source}): compute in f64 or take a larger eps")]
    Lapack {
        /// The matrix it was given.
        what: &'static str,
        /// LAPACK's own words.
        #[source]
        source: ndarray_linalg::error::LinalgError,
    },
}
