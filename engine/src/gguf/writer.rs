//! Writes GGUF version 3: metadata and tensors in the order given, tensor data one tensor at a time.

use std::io::{self, Write};

use super::{Array, Gguf, Limits, Metadata, Parser, TensorInfo, Value};
use crate::quant::GgmlType;
use crate::{Error, Result};

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, unique in the file.
    pub name: String,
    /// Element type.
    pub ty: GgmlType,
    /// Dimensions in GGUF's order, row length first.
    pub shape: Vec<usize>,
}

impl From<&TensorInfo> for TensorSpec {
    /// The same tensor, to be written anew.
    fn from(tensor: &TensorInfo) -> Self {
        TensorSpec {
            name: tensor.name.clone(),
            ty: tensor.ty,
            shape: tensor.shape.clone(),
        }
    }
}

/// The bytes of a header, and what the parser reads from them: offsets and sizes of every tensor.
///
/// Reading the header back is the check: what this function returns, the parser accepts. Errors are the parser's own:
/// duplicate names, shapes that do not fit the type, an alignment that is not a power of two.
pub fn header(metadata: &Metadata, tensors: &[TensorSpec]) -> Result<(Vec<u8>, Gguf)> {
    let alignment = metadata
        .opt_u64("general.alignment")?
        .unwrap_or(super::directory::DEFAULT_ALIGNMENT);
    let mut out = Vec::new();
    out.extend_from_slice(b"GGUF");
    out.extend_from_slice(&3u32.to_le_bytes());
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        put_string(&mut out, key.as_bytes());
        out.extend_from_slice(&value.value_type().id().to_le_bytes());
        put_value(&mut out, value);
    }
    let mut offset = 0u64;
    for spec in tensors {
        let dims: Vec<u64> = spec.shape.iter().map(|&d| d as u64).collect();
        let info = TensorInfo::new(spec.name.clone(), spec.ty.id(), &dims)?;
        put_string(&mut out, spec.name.as_bytes());
        out.extend_from_slice(&(dims.len() as u32).to_le_bytes());
        for dim in dims {
            out.extend_from_slice(&dim.to_le_bytes());
        }
        out.extend_from_slice(&spec.ty.id().to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        offset = offset
            .checked_add(info.bytes)
            .and_then(|end| {
                if alignment == 0 {
                    None
                } else {
                    end.checked_next_multiple_of(alignment)
                }
            })
            .ok_or_else(|| Error::Tensor {
                tensor: spec.name.clone(),
                what: format!(
                    "its data ends beyond what a file can hold, or the alignment {alignment} is not one"
                ),
            })?;
    }
    let mut parser = Parser::new(Limits::default());
    parser.push(&out)?;
    Ok((out, parser.finish()?))
}

/// Writes a file: the header at once, then every tensor's data in the order of the directory.
///
/// Errors of the engine (a shape, a size, an order that does not fit) come as [`io::ErrorKind::InvalidInput`] with the
/// [`Error`] inside.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    gguf: Gguf,
    next: usize,
    /// Bytes of the next tensor that are written.
    part: u64,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub fn new(mut out: W, metadata: &Metadata, tensors: &[TensorSpec]) -> io::Result<Self> {
        let (bytes, gguf) = header(metadata, tensors).map_err(invalid)?;
        out.write_all(&bytes)?;
        Ok(Writer {
            out,
            gguf,
            next: 0,
            part: 0,
            written: bytes.len() as u64,
        })
    }

    /// The header as it was written.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Writes the next tensor's data. `name` says which one is meant, since a mistake in the order would be silent.
    pub fn write_tensor(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        let bytes = self.next_tensor(name)?.bytes;
        if self.part > 0 || bytes != data.len() as u64 {
            let found = self.part + data.len() as u64;
            return Err(invalid(wrong(
                name,
                format!("expected {bytes} bytes of data, found {found}"),
            )));
        }
        self.write_part(name, data)
    }

    /// Writes some of the next tensor's data, which goes on where the part before ended: for tensors that need not be
    /// in memory as a whole.
    pub fn write_part(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        let tensor = self.next_tensor(name)?;
        let (start, bytes) = (tensor.offset, tensor.bytes);
        let part = self.part + data.len() as u64;
        if part > bytes {
            return Err(invalid(wrong(
                name,
                format!("expected {bytes} bytes of data, found {part} or more"),
            )));
        }
        if self.part == 0 {
            self.pad_to(start)?;
        }
        self.out.write_all(data)?;
        self.written += data.len() as u64;
        self.part = part;
        if part == bytes {
            self.next += 1;
            self.part = 0;
        }
        Ok(())
    }

    /// The tensor whose data comes next, which has to be the one of this name.
    fn next_tensor(&self, name: &str) -> io::Result<&TensorInfo> {
        match self.gguf.tensors().get(self.next) {
            Some(tensor) if tensor.name == name => Ok(tensor),
            Some(tensor) => Err(invalid(wrong(
                name,
                format!("expected the data of tensor `{}` next", tensor.name),
            ))),
            None => Err(invalid(wrong(
                name,
                "all tensors of the header are written".into(),
            ))),
        }
    }

    /// Pads the end as readers expect it, flushes, and gives the output back. An error where a tensor was not written.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(tensor) = self.gguf.tensors().get(self.next) {
            return Err(invalid(wrong(&tensor.name, "its data was not written".into())));
        }
        let end = self.written.next_multiple_of(self.gguf.alignment());
        self.pad_to(end)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        let zeros = [0u8; 4096];
        while self.written < offset {
            let n = (offset - self.written).min(zeros.len() as u64) as usize;
            self.out.write_all(&zeros[..n])?;
            self.written += n as u64;
        }
        Ok(())
    }
}

fn wrong(tensor: &str, what: String) -> Error {
    Error::Tensor {
        tensor: tensor.into(),
        what,
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_string(out, v.as_bytes()),
        Value::Bytes(v) => put_string(out, v),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend_from_slice(&array.element_type().id().to_le_bytes());
    out.extend_from_slice(&(array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend_from_slice(v),
        Array::I8(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::Bool(v) => v.iter().for_each(|&x| out.push(u8::from(x))),
        Array::Strings(v) => v.iter().for_each(|x| put_string(out, x)),
        Array::U64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        // As deep as the caller's own value; what came from a file is at most `Limits::array_depth` deep.
        Array::Arrays(v) => v.iter().for_each(|x| put_array(out, x)),
    }
}
