//! The checks at the door, written once: everything behind them may assume finite matrices that fit together.

use ndarray::{ArrayBase, ArrayView, ArrayView2, Data, Dimension};

use crate::{Error, Real, Result};

/// Neither empty nor holding NaN or infinity.
pub(crate) fn matrix<A: Real>(what: &'static str, x: ArrayView2<'_, A>) -> Result<()> {
    let (rows, columns) = x.dim();
    if x.is_empty() {
        return Err(Error::Empty { what, rows, columns });
    }
    if finite(x) {
        return Ok(());
    }
    match x.indexed_iter().find(|(_, v)| !v.wide().is_finite()) {
        Some(((row, column), v)) => Err(Error::NotFinite { what, row, column, value: v.wide() }),
        None => Ok(()),
    }
}

/// Whether no entry is NaN or infinite, whose product with 0 is not 0. It looks at every entry without a branch, several at a time.
fn finite<A: Real, D: Dimension>(x: ArrayView<'_, A, D>) -> bool {
    let all = |finite: bool, &v: &A| finite & (v * A::of(0.0) == A::of(0.0));
    match x.as_slice_memory_order() {
        Some(entries) => entries.iter().fold(true, all),
        None => x.iter().fold(true, all),
    }
}

/// Of exactly the expected shape.
pub(crate) fn shape(what: &'static str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { what, found: found.to_vec(), expected: expected.to_vec() })
}

/// Passes on a result, unless finite inputs have left the range of the number type.
pub(crate) fn computed<A: Real, S: Data<Elem = A>, D: Dimension>(
    what: &'static str,
    x: ArrayBase<S, D>,
) -> Result<ArrayBase<S, D>> {
    if finite(x.view()) { Ok(x) } else { Err(Error::Overflow { what }) }
}

/// As [`computed`], for a scalar.
pub(crate) fn computed_scalar<A: Real>(what: &'static str, x: A) -> Result<A> {
    if x.wide().is_finite() { Ok(x) } else { Err(Error::Overflow { what }) }
}

/// A scale computed in f64, rounded to the arrays' type.
pub(crate) fn rounded<A: Real>(what: &'static str, x: f64) -> Result<A> {
    computed_scalar(what, A::of(x))
}

/// A step size or a weight.
pub(crate) fn non_negative(name: &'static str, value: f64) -> Result<f64> {
    if value >= 0.0 && value.is_finite() {
        return Ok(value);
    }
    Err(Error::Parameter { name, value, expected: "finite and not negative" })
}
