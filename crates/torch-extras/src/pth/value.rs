//! The pickle's graph unfolded into a tree of plain values.
//!
//! Sharing makes a graph of a few bytes unfold into a tree of any size and a cycle into an endless one: both are met by limits.

use std::borrow::Cow;
use std::collections::HashSet;

use super::error::Problem;
use super::pickle::{Graph, Id, MAX_NODES, Node};
use super::tensor::TensorRef;

/// How deep containers may nest. torch's own files stay below ten.
pub const MAX_DEPTH: usize = 100;

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits (a longer one is [`Value::Opaque`]).
    Int(i64),
    /// A float.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list or set.
    List(Vec<Value>),
    /// A tuple or `torch.Size`.
    Tuple(Vec<Value>),
    /// A dictionary of any kind, in the file's order, no key twice.
    Dict(Vec<(Value, Value)>),
    /// A tensor, to be read by [`Checkpoint::tensor`](super::Checkpoint::tensor).
    Tensor(TensorRef),
    /// A class, a function, or an object whose class is not rebuilt: its name alone, never called.
    Opaque {
        /// Python module.
        module: String,
        /// Name in the module.
        name: String,
    },
}

impl Value {
    /// The value under a text key; `None` where this is no dictionary or has no such key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Dict(items) = self else { return None };
        items.iter().find(|(k, _)| matches!(k, Value::Str(k) if k == key)).map(|(_, v)| v)
    }
}

/// A key that Python would compare by value.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Str(&'a str),
    Int(i64),
    Bytes(&'a [u8]),
}

struct Unfolding<'g, 'a> {
    graph: &'g Graph<'a>,
    /// Nodes that lie on the way from the root to here.
    open: Vec<bool>,
    nodes_left: usize,
    bytes_left: usize,
    pickle_len: usize,
}

/// Unfolds the graph of a pickle of `pickle_len` bytes.
pub(super) fn unfold(graph: &Graph<'_>, pickle_len: usize) -> Result<Value, Problem> {
    let mut unfolding = Unfolding {
        graph,
        open: vec![false; graph.nodes.len()],
        // Without sharing a pickle has fewer nodes than bytes, and fewer bytes of text.
        nodes_left: pickle_len.saturating_mul(2).saturating_add(1 << 12).min(MAX_NODES),
        bytes_left: pickle_len.saturating_mul(16).saturating_add(1 << 16),
        pickle_len,
    };
    unfolding.value(graph.root, 0)
}

impl<'a> Unfolding<'_, 'a> {
    fn damaged(&self, found: String) -> Problem {
        Problem::Pickle { at: self.pickle_len, found }
    }

    fn charge(&mut self, nodes: usize, bytes: usize) -> Result<(), Problem> {
        match (self.nodes_left.checked_sub(nodes), self.bytes_left.checked_sub(bytes)) {
            (Some(nodes), Some(bytes)) => (self.nodes_left, self.bytes_left) = (nodes, bytes),
            _ => return Err(self.damaged("shared parts unfold into far more than the file holds".into())),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<String, Problem> {
        self.charge(0, text.len())?;
        Ok(text.to_owned())
    }

    fn opaque(&mut self, module: &str, name: &str) -> Result<Value, Problem> {
        Ok(Value::Opaque { module: self.text(module)?, name: self.text(name)? })
    }

    fn value(&mut self, id: Id, depth: usize) -> Result<Value, Problem> {
        self.charge(1, 0)?;
        let graph = self.graph;
        Ok(match &graph.nodes[id] {
            Node::None => Value::None,
            Node::Bool(b) => Value::Bool(*b),
            Node::Int(n) => Value::Int(*n),
            Node::Float(x) => Value::Float(*x),
            Node::Str(text) => Value::Str(self.text(text)?),
            Node::Bytes(bytes) => {
                self.charge(0, bytes.len())?;
                Value::Bytes(Cow::clone(bytes).into_owned())
            }
            Node::Tensor(tensor) => {
                self.charge(2 * tensor.shape().len(), 0)?;
                Value::Tensor(TensorRef::clone(tensor))
            }
            Node::Global(module, name) | Node::Object(module, name) => self.opaque(module, name)?,
            Node::Storage(storage) => {
                let class = storage.dtype.map_or("UntypedStorage", |d| d.storage_name());
                self.opaque("torch", class)?
            }
            Node::List(items) => Value::List(self.nested(id, depth, |s, d| s.values(items, d))?),
            Node::Tuple(items) => Value::Tuple(self.nested(id, depth, |s, d| s.values(items, d))?),
            Node::Dict(items) => Value::Dict(self.nested(id, depth, |s, d| s.pairs(items, d))?),
        })
    }

    /// Goes into the container `id`, unless the way there came through it already.
    fn nested<T>(
        &mut self,
        id: Id,
        depth: usize,
        inside: impl FnOnce(&mut Self, usize) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        if self.open[id] {
            return Err(self.damaged("a container holds itself".into()));
        }
        if depth >= MAX_DEPTH {
            return Err(self.damaged(format!("containers nest deeper than {MAX_DEPTH}")));
        }
        self.open[id] = true;
        let value = inside(self, depth + 1)?;
        self.open[id] = false;
        Ok(value)
    }

    fn values(&mut self, ids: &[Id], depth: usize) -> Result<Vec<Value>, Problem> {
        ids.iter().map(|&id| self.value(id, depth)).collect()
    }

    fn pairs(&mut self, items: &[(Id, Id)], depth: usize) -> Result<Vec<(Value, Value)>, Problem> {
        let mut seen = HashSet::new();
        items
            .iter()
            .map(|&(key, value)| {
                let plain = match &self.graph.nodes[key] {
                    Node::Str(text) => Some(Key::Str(text)),
                    Node::Int(n) => Some(Key::Int(*n)),
                    Node::Bool(b) => Some(Key::Int(i64::from(*b))),
                    Node::Bytes(bytes) => Some(Key::Bytes(bytes)),
                    _ => None,
                };
                let fresh = plain.is_none_or(|key| seen.insert(key));
                let key = self.value(key, depth)?;
                if !fresh {
                    return Err(self.damaged(format!("a dictionary has the key {key:?} twice")));
                }
                Ok((key, self.value(value, depth)?))
            })
            .collect()
    }
}
