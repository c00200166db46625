//! Token ids at the door of a model.
//!
//! Ids on the CPU are looked at and then sent to the model's device, which waits for nothing. Ids that lie on a GPU already are taken on trust in
//! their range, since asking would make the CPU wait for all that the GPU still has to do: check them before sending, or hand over ids on the CPU.

use tch::{Device, Kind, Tensor};
use whitebox_model::{Error, Result};

/// The target that a loss passes over.
pub const IGNORED: i64 = -100;

/// Refuses ids of another kind, rank, length or range than a model reads, and brings them to its device.
///
/// # Shapes
/// `ids`: `[B, n]`, `Int64`, B and n at least 1, n at most `context`; unchanged.
///
/// # Errors
/// What was found, what is expected and what to do.
pub(crate) fn at_the_door(ids: &Tensor, vocabulary: i64, context: i64, device: Device) -> Result<Tensor> {
    let expected = || format!("ids [B, n] of kind Int64, n at most the context of {context}");
    check_rank(ids, expected)?;
    if ids.size()[1] > context {
        return Err(Error::Input {
            found: format!("{} tokens a row", ids.size()[1]),
            expected: format!("at most the context of {context}; cut the text, or read a window of its last tokens"),
        });
    }
    check_range(ids, vocabulary, "ids", None)?;
    Ok(ids.to_device(device))
}

/// Refuses targets that do not stand beside `ids`, or name no token.
///
/// # Shapes
/// `targets`: as `ids`, [`IGNORED`] or ids.
pub(crate) fn check_targets(targets: &Tensor, ids: &Tensor, vocabulary: i64) -> Result<()> {
    beside(targets, ids, "targets")?;
    check_range(targets, vocabulary, "targets", Some(IGNORED))
}

/// Refuses a tensor of another shape or kind than `ids`.
pub(crate) fn beside(tensor: &Tensor, ids: &Tensor, what: &str) -> Result<()> {
    if tensor.size() == ids.size() && tensor.kind() == Kind::Int64 {
        return Ok(());
    }
    Err(Error::Input {
        found: format!("{what} {:?} of kind {:?}", tensor.size(), tensor.kind()),
        expected: format!("{what} {:?} of kind Int64, as the ids", ids.size()),
    })
}

/// Refuses ids outside `0..below`, where they lie on the CPU; `or` is allowed besides.
pub(crate) fn check_range(ids: &Tensor, below: i64, what: &str, or: Option<i64>) -> Result<()> {
    if ids.device() != Device::Cpu {
        return Ok(());
    }
    let wrong = ids.lt(0).logical_or(&ids.ge(below));
    let wrong = match or {
        Some(or) => wrong.logical_and(&ids.ne(or)),
        None => wrong,
    };
    let wrong = ids.masked_select(&wrong);
    if wrong.numel() == 0 {
        return Ok(());
    }
    let besides = or.map_or(String::new(), |or| format!(", or {or} where nothing is asked"));
    Err(Error::Input {
        found: format!("{what} such as {} ({} in all)", wrong.int64_value(&[0]), wrong.numel()),
        expected: format!("{what} from 0 to {}{besides}: was the text read by this model's tokenizer?", below - 1),
    })
}

fn check_rank(ids: &Tensor, expected: impl Fn() -> String) -> Result<()> {
    if ids.dim() == 2 && ids.kind() == Kind::Int64 && ids.size().iter().all(|&x| x > 0) {
        return Ok(());
    }
    Err(Error::Input { found: format!("ids {:?} of kind {:?}", ids.size(), ids.kind()), expected: expected() })
}
