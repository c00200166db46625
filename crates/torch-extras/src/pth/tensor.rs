//! Tensors as the file holds them: a typed window (offset, sizes, strides) on a storage, made contiguous on demand.

use std::sync::Arc;

/// How many times a file's own length the tensors asked for in one call may take.
///
/// Weights tied between layers share one storage in the file and become separate tensors here, so more than 1 is needed;
/// a tensor expanded from one element to terabytes must fail.
pub const TENSOR_GROWTH: u64 = 16;

/// torch's own limit on dimensions.
const MAX_DIMS: usize = 64;

/// Element types that this module reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 8-bit signed integer.
    I8,
    /// 8-bit unsigned integer.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// Every type, in order of declaration.
    pub const ALL: [Self; 10] =
        [Self::F64, Self::F32, Self::F16, Self::BF16, Self::I64, Self::I32, Self::I16, Self::I8, Self::U8, Self::Bool];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    fn names(self) -> [&'static str; 3] {
        match self {
            Self::F64 => ["F64", "float64", "DoubleStorage"],
            Self::F32 => ["F32", "float32", "FloatStorage"],
            Self::F16 => ["F16", "float16", "HalfStorage"],
            Self::BF16 => ["BF16", "bfloat16", "BFloat16Storage"],
            Self::I64 => ["I64", "int64", "LongStorage"],
            Self::I32 => ["I32", "int32", "IntStorage"],
            Self::I16 => ["I16", "int16", "ShortStorage"],
            Self::I8 => ["I8", "int8", "CharStorage"],
            Self::U8 => ["U8", "uint8", "ByteStorage"],
            Self::Bool => ["BOOL", "bool", "BoolStorage"],
        }
    }

    /// Name in a safetensors header, as `BF16`.
    pub fn safetensors_name(self) -> &'static str {
        self.names()[0]
    }

    /// Name in torch, as `bfloat16`.
    pub fn torch_name(self) -> &'static str {
        self.names()[1]
    }

    /// Name of torch's storage class, as `BFloat16Storage`.
    pub fn storage_name(self) -> &'static str {
        self.names()[2]
    }

    pub(super) fn from_torch_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.torch_name() == name)
    }

    pub(super) fn from_storage_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.storage_name() == name)
    }
}

/// A tensor as plain bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTensor {
    /// Element type.
    pub dtype: DType,
    /// Sizes; empty for a scalar.
    pub shape: Vec<usize>,
    /// Elements in row-major order, little endian: `shape.product() * dtype.size()` bytes.
    pub data: Vec<u8>,
}

impl RawTensor {
    /// Whether the number of bytes follows from shape and type, and every `Bool` byte is 0 or 1; if not, what was found.
    pub(super) fn check(&self) -> Result<(), String> {
        let wanted = byte_len(&self.shape, self.dtype);
        if wanted != Some(self.data.len()) {
            let wanted = wanted.map_or("more than the address space".into(), |n| n.to_string());
            return Err(format!(
                "shape {:?} of {} takes {wanted} bytes, {} given",
                self.shape,
                self.dtype.torch_name(),
                self.data.len()
            ));
        }
        match self.data.iter().find(|&&b| self.dtype == DType::Bool && b > 1) {
            Some(b) => Err(format!("a bool is stored as one byte 0 or 1, found {b}")),
            None => Ok(()),
        }
    }
}

/// Bytes that a contiguous tensor takes; `None` past the address space.
fn byte_len(shape: &[usize], dtype: DType) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(dtype.size(), |n, &s| n.checked_mul(s)).filter(|&n| n <= isize::MAX as usize)
}

/// One storage of the file: the entry `data/<key>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub key: String,
    /// `None` for an untyped one.
    pub dtype: Option<DType>,
    /// Bytes, as the pickle has it.
    pub len: usize,
}

/// A tensor in the file, not yet read: [`Checkpoint::tensor`](super::Checkpoint::tensor) reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef {
    dtype: DType,
    shape: Vec<usize>,
    /// In elements.
    strides: Vec<usize>,
    offset: usize,
    storage: Arc<Storage>,
}

impl TensorRef {
    /// Checks that the window lies within its storage; the error says what does not fit.
    pub(super) fn new(
        storage: Arc<Storage>,
        dtype: DType,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<Self, String> {
        if shape.len() != strides.len() || shape.len() > MAX_DIMS {
            return Err(format!("{} sizes and {} strides (at most {MAX_DIMS} of each)", shape.len(), strides.len()));
        }
        let bytes = byte_len(&shape, dtype).ok_or_else(|| format!("shape {shape:?} overflows the address space"))?;
        // One past the last element that the window touches.
        let end = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |at, (&n, &stride)| at.checked_add(n.saturating_sub(1).checked_mul(stride)?))
            .and_then(|last| last.checked_add(1)?.checked_mul(dtype.size()));
        if bytes > 0 && end.is_none_or(|end| end > storage.len) {
            return Err(format!(
                "shape {shape:?}, strides {strides:?} from element {offset} reach past storage `{}` of {} bytes",
                storage.key, storage.len
            ));
        }
        // The stride of a dimension of one element is never walked and may be anything.
        let strides = shape.iter().zip(strides).map(|(&n, stride)| if n > 1 { stride } else { 0 }).collect();
        Ok(Self { dtype, shape, strides, offset, storage })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Bytes of the tensor once contiguous.
    pub fn byte_len(&self) -> usize {
        // `new` has refused what overflows.
        byte_len(&self.shape, self.dtype).unwrap_or(0)
    }

    pub(super) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Copies the window out of its storage's bytes; `None` where they are shorter than the pickle said.
    pub(super) fn gather(&self, storage: &[u8]) -> Option<RawTensor> {
        let size = self.dtype.size();
        let mut data = Vec::with_capacity(self.byte_len());
        if self.byte_len() > 0 {
            // The trailing dimensions that lie densely are copied as one run.
            let mut run = size;
            let mut outer = self.shape.len();
            while outer > 0 && (self.shape[outer - 1] == 1 || self.strides[outer - 1] * size == run) {
                run *= self.shape[outer - 1];
                outer -= 1;
            }
            let mut index = vec![0; outer];
            let mut at = self.offset * size;
            'runs: loop {
                data.extend_from_slice(storage.get(at..at.checked_add(run)?)?);
                for d in (0..outer).rev() {
                    let step = self.strides[d] * size;
                    index[d] += 1;
                    if index[d] < self.shape[d] {
                        at += step;
                        continue 'runs;
                    }
                    at -= step * (self.shape[d] - 1);
                    index[d] = 0;
                }
                break;
            }
        }
        Some(RawTensor { dtype: self.dtype, shape: self.shape.clone(), data })
    }
}
