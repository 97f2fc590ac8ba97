//! What a header says: metadata and the directory of tensors, with every range checked.
//!
//! A [`Gguf`] that exists holds: names unique; shapes without zeros whose product fits the address space; rows of
//! whole blocks; data ranges aligned, free of overflow and free of overlap. That the ranges lie inside the file is
//! checked where its length is known ([`Gguf::parse`], [`Gguf::check_data_len`]).

use std::collections::HashMap;

use super::magic::MAGIC;
use super::{Limits, Metadata, Parser};
use crate::quant::GgmlType;
use crate::{Error, Result};

/// Alignment of tensor data where `general.alignment` is absent, in bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The most dimensions a tensor may have.
pub const MAX_DIMS: usize = 4;

/// One tensor of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in its file.
    pub name: String,
    /// Element type.
    pub ty: GgmlType,
    /// 1 to 4 dimensions in GGUF's order: `shape[0]` is the row length k, `shape[1]` the number of rows of a matrix.
    pub shape: Vec<usize>,
    /// Where its data begins, in bytes from the start of the file that holds it.
    pub offset: u64,
    /// Bytes of its data.
    pub bytes: u64,
}

impl TensorInfo {
    /// Checks type and shape and computes the size; the offset stays 0 until [`Gguf::new`] places the tensor.
    pub(super) fn new(name: String, type_id: u32, dims: &[u64]) -> Result<Self> {
        let ty = GgmlType::from_id(type_id).map_err(|error| match error {
            Error::UnsupportedType { id, what } => Error::UnsupportedType {
                id,
                what: format!("tensor `{name}`: {what}"),
            },
            other => other,
        })?;
        let fail = |what: String| Error::Tensor {
            tensor: name.clone(),
            what,
        };
        if dims.is_empty() || dims.len() > MAX_DIMS {
            return Err(fail(format!(
                "expected 1 to {MAX_DIMS} dimensions, found {}",
                dims.len()
            )));
        }
        if dims.contains(&0) {
            return Err(fail(format!("a dimension is 0 in shape {dims:?}")));
        }
        let too_large = || fail(format!("shape {dims:?} is too large for this platform"));
        let shape = dims
            .iter()
            .map(|&d| usize::try_from(d).ok())
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(too_large)?;
        // Signed, because code downstream of many readers computes with signed sizes; no real tensor comes near.
        shape
            .iter()
            .try_fold(1usize, |product, &d| product.checked_mul(d))
            .filter(|&elements| isize::try_from(elements).is_ok())
            .ok_or_else(too_large)?;
        let (block_len, block_bytes) = (ty.block_len() as u64, ty.block_bytes() as u64);
        if !dims[0].is_multiple_of(block_len) {
            return Err(fail(format!(
                "rows of {} are not whole blocks of type {}, which has {block_len} weights per block",
                dims[0],
                ty.name()
            )));
        }
        let bytes = dims[1..]
            .iter()
            .try_fold((dims[0] / block_len).checked_mul(block_bytes), |bytes, &d| {
                Some(bytes?.checked_mul(d))
            })
            .flatten()
            .filter(|&bytes| i64::try_from(bytes).is_ok())
            .ok_or_else(too_large)?;
        Ok(TensorInfo {
            name,
            ty,
            shape,
            offset: 0,
            bytes,
        })
    }

    /// Weights per row: `shape[0]`.
    pub fn row_len(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Number of rows: the product of all dimensions but the first. Fits, for the product of all of them does.
    pub fn n_rows(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Whether it is a matrix of `n` rows of `k`. Dimensions of 1 behind those two change nothing; files have them.
    pub fn is_matrix(&self, n: usize, k: usize) -> bool {
        let dimension = |i: usize| self.shape.get(i).copied().unwrap_or(1);
        dimension(0) == k && dimension(1) == n && self.shape.iter().skip(2).all(|&d| d == 1)
    }

    /// Whether it is `count` matrices of `n` rows of `k`, one after the other.
    pub fn is_stack(&self, count: usize, n: usize, k: usize) -> bool {
        let dimension = |i: usize| self.shape.get(i).copied().unwrap_or(1);
        [dimension(0), dimension(1), dimension(2), dimension(3)] == [k, n, count, 1]
    }

    /// Number of weights.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where its data ends, in bytes from the start of the file.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// A parsed header.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    header_len: u64,
    data_offset: u64,
}

impl Gguf {
    /// Parses the header at the start of a whole file, and checks that all tensor data lies inside `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parse_with(bytes, Limits::default())
    }

    /// As [`Self::parse`], with limits of your own.
    pub fn parse_with(bytes: &[u8], limits: Limits) -> Result<Self> {
        let mut parser = Parser::with_file_len(limits, bytes.len() as u64);
        parser.push(bytes)?;
        parser.finish()
    }

    /// Places the tensors behind the header: `relative[i]` is the offset of tensor `i` from the start of the data.
    pub(super) fn new(
        version: u32,
        metadata: Metadata,
        mut tensors: Vec<TensorInfo>,
        relative: &[u64],
        header_len: u64,
        limits: &Limits,
    ) -> Result<Self> {
        let alignment = alignment_of(&metadata, limits)?;
        let overflow = |tensor: &TensorInfo, offset: u64| Error::Tensor {
            tensor: tensor.name.clone(),
            what: format!("its {} bytes at data offset {offset} overflow", tensor.bytes),
        };
        // The header is bounded by `limits.header_bytes`; saturation can only make a later check fail.
        let data_offset = header_len.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        let mut index = HashMap::new();
        for (i, (tensor, &offset)) in tensors.iter_mut().zip(relative).enumerate() {
            if !offset.is_multiple_of(alignment) {
                return Err(Error::Tensor {
                    tensor: tensor.name.clone(),
                    what: format!("data offset {offset} is not a multiple of the alignment {alignment}"),
                });
            }
            // Padded, so that code which rounds an end up to the alignment cannot wrap either.
            data_offset
                .checked_add(offset)
                .and_then(|start| start.checked_add(tensor.bytes))
                .and_then(|end| end.checked_next_multiple_of(alignment))
                .filter(|&end| i64::try_from(end).is_ok())
                .ok_or_else(|| overflow(tensor, offset))?;
            tensor.offset = data_offset + offset;
            if index.insert(tensor.name.clone(), i).is_some() {
                return Err(Error::Tensor {
                    tensor: tensor.name.clone(),
                    what: "the name is there twice".into(),
                });
            }
        }
        check_overlap(&tensors)?;
        Ok(Gguf {
            version,
            alignment,
            metadata,
            tensors,
            index,
            header_len,
            data_offset,
        })
    }

    /// Checks that all tensor data lies inside a file of `total` bytes. Bytes behind the last tensor are allowed.
    pub fn check_data_len(&self, total: u64) -> Result<()> {
        match self.tensors.iter().find(|tensor| tensor.end() > total) {
            None => Ok(()),
            Some(tensor) => Err(Error::Tensor {
                tensor: tensor.name.clone(),
                what: format!(
                    "its data is expected at bytes {}..{}, but the file has {total} bytes; it may be cut short",
                    tensor.offset,
                    tensor.end()
                ),
            }),
        }
    }

    /// Version of the format: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of tensor data in bytes, a power of two.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// All metadata, in file order.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.index.get(name)?)
    }

    /// Bytes of the header, without the padding behind it.
    pub fn header_len(&self) -> u64 {
        self.header_len
    }

    /// Where tensor data begins, in bytes from the start of the file: the header's end, aligned.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Where the last tensor's data ends: the least length of the file.
    pub fn data_end(&self) -> u64 {
        self.tensors
            .iter()
            .map(TensorInfo::end)
            .fold(self.header_len, u64::max)
    }

    /// Whether another GGUF file begins where this one ends, in a file that holds `bytes`.
    pub(super) fn is_followed_by_another(&self, bytes: &[u8]) -> bool {
        let end = self.data_end();
        let padded = end.checked_next_multiple_of(self.alignment).unwrap_or(end);
        [end, padded].into_iter().any(|end| {
            let rest = usize::try_from(end).ok().and_then(|end| bytes.get(end..));
            rest.is_some_and(|rest| rest.starts_with(&MAGIC))
        })
    }
}

/// The file's alignment, checked.
fn alignment_of(metadata: &Metadata, limits: &Limits) -> Result<u64> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.opt_u64(KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && alignment <= limits.alignment {
        return Ok(alignment);
    }
    Err(Error::Metadata {
        key: KEY.into(),
        expected: format!("a power of two up to {}", limits.alignment),
        found: alignment.to_string(),
    })
}

/// Two tensors never share bytes. A stream hands every byte to one tensor, and a mapping releases what a packed
/// tensor has read, so sharing is refused even where it would be harmless to look at.
fn check_overlap(tensors: &[TensorInfo]) -> Result<()> {
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        let [first, second] = pair else { continue };
        if first.end() > second.offset {
            return Err(Error::Tensor {
                tensor: second.name.clone(),
                what: format!(
                    "its data at byte {} overlaps tensor `{}`, which ends at byte {}",
                    second.offset,
                    first.name,
                    first.end()
                ),
            });
        }
    }
    Ok(())
}
