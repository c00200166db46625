//! The stack machine of pickle, protocols 2 to 5, building a graph of data nodes and nothing else.
//!
//! Every opcode makes at most one node and every byte string is borrowed from the pickle, so time and memory are linear in its
//! length. Containers refer to their items by number: sharing costs nothing, cycles do no harm, dropping does not recurse.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use super::calls;
use super::error::Problem;
use super::tensor::{Storage, TensorRef};

/// Most nodes that a pickle may build: a tensor takes about sixteen, this many would fill a gigabyte.
pub(super) const MAX_NODES: usize = 1 << 23;

/// Number of a node in its [`Graph`].
pub(super) type Id = usize;

/// What a pickle can build.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bytes(Cow<'a, [u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by name.
    Global(&'a str, &'a str),
    /// An object of that class, whose content is let go.
    Object(&'a str, &'a str),
    Storage(Arc<Storage>),
    Tensor(Box<TensorRef>),
}

/// The nodes of a pickle.
pub(super) struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    pub root: Id,
}

/// Runs the pickle up to its STOP.
pub(super) fn parse(pickle: &[u8]) -> Result<Graph<'_>, Problem> {
    let mut machine = Machine {
        input: pickle,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copies_left: Cell::new(pickle.len().saturating_mul(2)),
    };
    loop {
        let start = machine.at;
        match machine.step() {
            Ok(None) if machine.nodes.len() <= MAX_NODES => {}
            Ok(None) => return Err(Problem::Pickle { at: start, found: format!("more than {MAX_NODES} objects") }),
            Ok(Some(root)) => return Ok(Graph { nodes: machine.nodes, root }),
            Err(Fault::Damage(found)) => return Err(Problem::Pickle { at: start, found }),
            Err(Fault::Problem(problem)) => return Err(problem),
        }
    }
}

/// Why the machine stops: a damaged pickle (the place is added by [`parse`]), or a well-formed one that is refused.
pub(super) enum Fault {
    Damage(String),
    Problem(Problem),
}

impl From<&str> for Fault {
    fn from(found: &str) -> Self {
        Self::Damage(found.into())
    }
}

pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
    copies_left: Cell<usize>,
}

impl<'a> Machine<'a> {
    pub fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id]
    }

    /// Accounts for what a call copies out of its arguments: an honest file names each of them once.
    pub fn charge(&self, n: usize) -> Result<(), Fault> {
        let left = self.copies_left.get().checked_sub(n);
        self.copies_left.set(left.ok_or("calls repeat the same arguments without end")?);
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.input.len());
        let end = end.ok_or_else(|| Fault::Damage(format!("it ends {n} bytes short")))?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    /// A little-endian unsigned integer of `n <= 8` bytes.
    fn uint(&mut self, n: usize) -> Result<usize, Fault> {
        let value = self.take(n)?.iter().rev().fold(0u64, |v, &b| v << 8 | u64::from(b));
        usize::try_from(value).map_err(|_| "a length past the address space".into())
    }

    /// A byte string behind its length of `n` bytes.
    fn counted(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let len = self.uint(n)?;
        self.take(len)
    }

    fn text(bytes: &[u8]) -> Result<&str, Fault> {
        std::str::from_utf8(bytes).map_err(|_| "a string that is not UTF-8".into())
    }

    fn line(&mut self) -> Result<&'a str, Fault> {
        let rest = &self.input[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or(Fault::from("a name without its end"))?;
        let line = self.take(len)?;
        self.at += 1;
        Self::text(line)
    }

    fn push(&mut self, node: Node<'a>) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// The stack above the last mark belongs to the opcode that consumes the mark.
    fn pop(&mut self) -> Result<Id, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("an opcode without its operands".into());
        }
        self.stack.pop().ok_or("an opcode without its operands".into())
    }

    fn top(&mut self) -> Result<Id, Fault> {
        let id = self.pop()?;
        self.stack.push(id);
        Ok(id)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Fault> {
        let mark = self.marks.pop().ok_or(Fault::from("an opcode without its mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn push_tuple(&mut self, n: usize) -> Result<(), Fault> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Node::Tuple(items));
        Ok(())
    }

    /// A signed little-endian integer of any length; one past 64 bits is kept as a placeholder.
    fn push_long(&mut self, bytes: &[u8]) {
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut word = [fill; 8];
        let fits = bytes.get(8..).is_none_or(|rest| rest.iter().all(|&b| b == fill));
        word.iter_mut().zip(bytes).for_each(|(w, &b)| *w = b);
        let value = i64::from_le_bytes(word);
        self.push(if fits && (value < 0) == (fill != 0) { Node::Int(value) } else { Node::Object("builtins", "int") });
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), Fault> {
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(list) => list.extend(items),
            Node::Object(..) => {}
            _ => return Err("items are appended to what is no list".into()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), Fault> {
        let dict = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err("a key without its value".into());
        }
        match &mut self.nodes[dict] {
            Node::Dict(dict) => dict.extend(items.chunks_exact(2).map(|kv| (kv[0], kv[1]))),
            Node::Object(..) => {}
            _ => return Err("keys are set on what is no dictionary".into()),
        }
        Ok(())
    }

    fn memoize(&mut self, index: usize) -> Result<(), Fault> {
        let id = self.top()?;
        self.memo.insert(index, id);
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Result<(), Fault> {
        let id = self.memo.get(&index).ok_or_else(|| Fault::Damage(format!("memo {index} was never set")))?;
        self.stack.push(*id);
        Ok(())
    }

    fn call(&mut self) -> Result<(), Fault> {
        let (args, function) = (self.pop()?, self.pop()?);
        let Node::Tuple(args) = self.node(args) else { return Err("a call without its tuple of arguments".into()) };
        match *self.node(function) {
            Node::Global(module, name) => match calls::reduce(self, module, name, args)? {
                calls::Outcome::New(node) => self.push(node),
                calls::Outcome::Same(id) => self.stack.push(id),
            },
            Node::Object(module, name) => {
                return Err(Fault::Problem(Problem::WantsCode { function: format!("{module}.{name}.__call__") }));
            }
            _ => return Err("a call of what is no function".into()),
        }
        Ok(())
    }

    /// An object of a class: a placeholder, whatever its arguments.
    fn new_object(&mut self, operands: usize) -> Result<(), Fault> {
        for _ in 0..operands {
            self.pop()?;
        }
        let class = self.pop()?;
        let Node::Global(module, name) = *self.node(class) else { return Err("an object of what is no class".into()) };
        self.push(Node::Object(module, name));
        Ok(())
    }

    /// Runs one opcode; the root at STOP.
    fn step(&mut self) -> Result<Option<Id>, Fault> {
        let opcode = self.uint(1)? as u8;
        match opcode {
            b'.' => return self.pop().map(Some),
            0x80 => {
                let protocol = self.uint(1)?;
                if !(2..=5).contains(&protocol) {
                    return Err(Fault::Damage(format!("protocol {protocol}, read are 2 to 5")));
                }
            }
            // FRAME: a hint for buffering.
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            // POP takes a mark where the mark is on top.
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let id = self.top()?;
                self.stack.push(id);
            }
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'J' => {
                let value = self.uint(4)? as u32;
                self.push(Node::Int(i64::from(value as i32)));
            }
            b'K' | b'M' => {
                let value = self.uint(if opcode == b'K' { 1 } else { 2 })?;
                self.push(Node::Int(value as i64));
            }
            0x8a | 0x8b => {
                let bytes = self.counted(if opcode == 0x8a { 1 } else { 4 })?;
                self.push_long(bytes);
            }
            b'G' => {
                let value = self.take(8)?.iter().fold(0, |v, &b| v << 8 | u64::from(b));
                self.push(Node::Float(f64::from_bits(value)));
            }
            b'X' | 0x8c | 0x8d => {
                let bytes = self.counted(width(opcode))?;
                self.push(Node::Str(Self::text(bytes)?));
            }
            // Python 2's strings: text where they can be.
            b'T' | b'U' => {
                let bytes = self.counted(width(opcode))?;
                self.push(Self::text(bytes).map_or(Node::Bytes(bytes.into()), Node::Str));
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                let bytes = self.counted(width(opcode))?;
                self.push(Node::Bytes(bytes.into()));
            }
            b']' | 0x8f => self.push(Node::List(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.extend_list(items)?;
            }
            b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items));
            }
            b')' => self.push(Node::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            0x85..=0x87 => self.push_tuple(usize::from(opcode) - 0x84)?,
            b'}' => self.push(Node::Dict(Vec::new())),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_dict(&items)?;
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(Vec::new()));
                self.extend_dict(&items)?;
            }
            b'q' | b'r' => {
                let index = self.uint(if opcode == b'q' { 1 } else { 4 })?;
                self.memoize(index)?;
            }
            0x94 => self.memoize(self.memo.len())?,
            b'h' | b'j' => {
                let index = self.uint(if opcode == b'h' { 1 } else { 4 })?;
                self.recall(index)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (&Node::Str(module), &Node::Str(name)) = (self.node(module), self.node(name)) else {
                    return Err("a global whose name is no string".into());
                };
                self.push(Node::Global(module, name));
            }
            b'R' => self.call()?,
            0x81 => self.new_object(1)?,
            0x92 => self.new_object(2)?,
            // BUILD sets attributes: an object's are let go, a dictionary's (`_metadata` of a state dict) and a tensor's too.
            b'b' => {
                self.pop()?;
                let object = self.top()?;
                if !matches!(self.node(object), Node::Object(..) | Node::Dict(_) | Node::Tensor(_)) {
                    return Err("attributes are set on what is no object".into());
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let Node::Tuple(items) = self.node(id) else { return Err("a persistent id that is no tuple".into()) };
                let storage = calls::storage(self, items)?;
                self.push(Node::Storage(Arc::new(storage)));
            }
            _ => return Err(Fault::Damage(format!("opcode {opcode:#04x}, which torch does not write"))),
        }
        Ok(None)
    }
}

/// Bytes of the length that stands before a string.
fn width(opcode: u8) -> usize {
    match opcode {
        b'U' | b'C' | 0x8c => 1,
        b'X' | b'T' | b'B' => 4,
        _ => 8,
    }
}
