//! The few calls that a pickle may ask for, answered with data; every other is refused by name.
//!
//! | asked for | answer |
//! |---|---|
//! | `collections.OrderedDict`, `defaultdict`, `Counter`, `set`, `frozenset`, `torch.Size` | the plain container |
//! | `_codecs.encode`, `bytes` | byte strings, as protocol 2 writes them |
//! | `torch._utils._rebuild_tensor[_v2,_v3]`, `_rebuild_parameter[_with_state]` | a window on a storage |
//! | devices, numpy scalars and arrays, paths, dates | a placeholder |

use std::sync::Arc;

use super::error::Problem;
use super::pickle::{Fault, Id, Machine, Node};
use super::tensor::{DType, Storage, TensorRef};

/// What a call gives.
pub(super) enum Outcome<'a> {
    New(Node<'a>),
    /// A node that is there already.
    Same(Id),
}

/// Answers `module.name(*args)`.
pub(super) fn reduce<'a>(
    machine: &Machine<'a>,
    module: &'a str,
    name: &'a str,
    args: &[Id],
) -> Result<Outcome<'a>, Fault> {
    let first = args.first().map(|&id| (id, machine.node(id)));
    let container = |empty| match first {
        None => Ok(Outcome::New(empty)),
        Some((id, node)) if std::mem::discriminant(node) == std::mem::discriminant(&empty) => Ok(Outcome::Same(id)),
        Some(_) => Err(Fault::Damage(format!("`{module}.{name}` with arguments that torch does not write"))),
    };
    match (module, name) {
        ("collections", "OrderedDict" | "Counter") => container(Node::Dict(Vec::new())),
        // Its argument is the factory of missing values, which is not needed.
        ("collections", "defaultdict") => Ok(Outcome::New(Node::Dict(Vec::new()))),
        ("builtins" | "__builtin__", "set" | "frozenset") => container(Node::List(Vec::new())),
        ("torch", "Size") => container(Node::Tuple(Vec::new())),
        ("builtins" | "__builtin__", "bytes") if args.is_empty() => Ok(Outcome::New(Node::Bytes((&[]).into()))),
        ("_codecs", "encode") => match first {
            Some((_, &Node::Str(text))) => latin1(machine, text).map(Outcome::New),
            _ => Err("`_codecs.encode` without a string".into()),
        },
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
            tensor(machine, name, args).map(|t| Outcome::New(Node::Tensor(Box::new(t))))
        }
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => match first {
            Some((id, Node::Tensor(_))) => Ok(Outcome::Same(id)),
            _ => Err("a parameter without its tensor".into()),
        },
        ("torch._utils", kind) => Err(Fault::Problem(Problem::Tensor {
            tensor: "a tensor".into(),
            found: format!("it is of a kind (`{kind}`) that is not supported: save it as a plain dense tensor"),
        })),
        _ if is_inert(module, name) => Ok(Outcome::New(Node::Object(module, name))),
        _ => Err(Fault::Problem(Problem::WantsCode { function: format!("{module}.{name}") })),
    }
}

/// Constructors of plain values that are found in checkpoints beside the weights; the value is let go, the name kept.
fn is_inert(module: &str, name: &str) -> bool {
    match module {
        "torch" => name == "device",
        "torch.serialization" => name == "_get_layout",
        "torch.storage" => name == "_load_from_bytes",
        "numpy" => name == "dtype",
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "scalar" | "_reconstruct"),
        "numpy.core.numeric" | "numpy._core.numeric" => name == "_frombuffer",
        "builtins" | "__builtin__" => matches!(name, "complex" | "slice" | "bytearray" | "range"),
        "pathlib" | "pathlib._local" => name.ends_with("Path"),
        "datetime" => matches!(name, "datetime" | "date" | "time" | "timedelta" | "timezone"),
        _ => false,
    }
}

/// Protocol 2 has no byte strings: they travel as text, one character a byte.
fn latin1<'a>(machine: &Machine<'a>, text: &str) -> Result<Node<'a>, Fault> {
    machine.charge(text.len())?;
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    bytes.map(|b| Node::Bytes(b.into())).ok_or("a byte string with characters past 255".into())
}

/// The storage that a persistent id `("storage", class, key, location, elements)` names.
pub(super) fn storage(machine: &Machine<'_>, items: &[Id]) -> Result<Storage, Fault> {
    let nodes: Vec<_> = items.iter().take(5).map(|&id| machine.node(id)).collect();
    let &[Node::Str("storage"), &Node::Global(module, class), &Node::Str(key), _, &Node::Int(count)] = nodes.as_slice()
    else {
        return Err("a persistent id that names no storage".into());
    };
    let bad = |found: String| Fault::Problem(Problem::Tensor { tensor: format!("storage {key:.40?}"), found });
    if key.is_empty() || key.len() > 32 || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(bad("its name is not a short word, as torch gives".into()));
    }
    let dtype = match (module, class) {
        ("torch.storage" | "torch", "UntypedStorage") => None,
        _ => Some(DType::from_storage_name(class).filter(|_| module == "torch").ok_or_else(|| {
            bad(format!(
                "elements are of the kind `{module}.{class}`, which is not supported: convert them before saving"
            ))
        })?),
    };
    let len = usize::try_from(count).ok().and_then(|n| n.checked_mul(dtype.map_or(1, DType::size)));
    let len = len.ok_or_else(|| bad(format!("{count} elements overflow the address space")))?;
    Ok(Storage { key: key.to_owned(), dtype, len })
}

/// `_rebuild_tensor(storage, offset, size, stride)`, `_v2(.., requires_grad, hooks)`, `_v3(.., requires_grad, hooks, dtype)`.
fn tensor(machine: &Machine<'_>, name: &str, args: &[Id]) -> Result<TensorRef, Fault> {
    let nodes: Vec<_> = args.iter().take(7).map(|&id| machine.node(id)).collect();
    let [storage, Node::Int(offset), Node::Tuple(shape), Node::Tuple(strides), rest @ ..] = nodes.as_slice() else {
        return Err("a tensor without storage, offset, sizes and strides".into());
    };
    let storage = match storage {
        Node::Storage(storage) => storage,
        Node::Object(module, class) => {
            let found = format!(
                "its elements come from `{module}.{class}`, a pickle within the pickle: save it with `torch.save`"
            );
            return Err(Fault::Problem(Problem::Tensor { tensor: "a tensor".into(), found }));
        }
        _ => return Err("a tensor whose first argument is no storage".into()),
    };
    let bad =
        |found| Fault::Problem(Problem::Tensor { tensor: format!("a tensor on storage `{}`", storage.key), found });
    let dtype = match (name, rest) {
        ("_rebuild_tensor_v3", [_, _, Node::Global("torch", dtype), ..]) => DType::from_torch_name(dtype)
            .ok_or_else(|| bad(format!("type {dtype} is not supported: convert it before saving")))?,
        ("_rebuild_tensor_v3", _) => return Err("a tensor without its type".into()),
        _ => storage.dtype.ok_or("a tensor on an untyped storage without a type of its own")?,
    };
    machine.charge(shape.len().saturating_add(strides.len()))?;
    let sizes = |ids: &[Id]| {
        let size = |&id: &Id| match *machine.node(id) {
            Node::Int(n) => usize::try_from(n).map_err(|_| bad(format!("a size, stride or offset of {n}"))),
            _ => Err("a size or stride that is no integer".into()),
        };
        ids.iter().map(size).collect::<Result<Vec<_>, Fault>>()
    };
    let offset = usize::try_from(*offset).map_err(|_| bad(format!("a size, stride or offset of {offset}")))?;
    TensorRef::new(Arc::clone(storage), dtype, offset, sizes(shape)?, sizes(strides)?).map_err(bad)
}
