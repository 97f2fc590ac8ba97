//! The header parser: bytes in, in chunks of any size; a [`Gguf`] out.
//!
//! A state machine that asks for the bytes of one element at a time: a length, a string, a run of an array's numbers.
//! An element that lies whole in a chunk is read from there; one that is cut by a chunk's end is gathered in a buffer
//! that holds that element alone. Nothing is read twice, the result does not depend on how the bytes are cut, and
//! memory grows with the bytes that arrived, never with a count in the file.
//!
//! Source: the GGUF specification (ggml, `docs/gguf.md`). Version 1 differs in its counts and lengths, which are
//! 32 bits wide there, dimensions included; version 2 and 3 are laid out alike.

use super::directory::MAX_DIMS;
use super::magic;
use super::value_type::ValueType;
use super::{Array, Gguf, Limits, Metadata, TensorInfo, Value};
use crate::{Error, Result};

/// How far [`Parser::push`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All of the chunk was read; the header goes on.
    NeedMore,
    /// The header is complete: take it with [`Parser::finish`].
    Complete {
        /// Bytes of this chunk that belong to the header. Behind them come padding and tensor data: the chunk's rest
        /// begins at the file's byte [`Gguf::header_len`], the data at [`Gguf::data_offset`].
        consumed: usize,
    },
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Magic,
    Version,
    Counts,
    KeyLen,
    Key(usize),
    ValueType,
    Scalar(ValueType),
    StringLen,
    String(usize),
    ArrayHead,
    /// Numbers of the innermost array, as many as there are.
    Numbers(ValueType),
    ElementLen,
    Element(usize),
    TensorNameLen,
    TensorName(usize),
    TensorDims,
    TensorShape(usize),
    Complete,
}

/// An array under way; the last one on the stack is the innermost.
#[derive(Debug)]
struct Frame {
    array: Array,
    left: usize,
}

/// Incremental parser of a GGUF header.
///
/// ```
/// use twinfer_engine::gguf::{Limits, Parser, Status};
///
/// # fn main() -> twinfer_engine::Result<()> {
/// let file = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".as_slice();
/// let mut parser = Parser::new(Limits::default());
/// for chunk in file.chunks(7) {
///     if let Status::Complete { .. } = parser.push(chunk)? {
///         break;
///     }
/// }
/// let gguf = parser.finish()?;
/// assert_eq!((gguf.version(), gguf.data_offset()), (3, 32));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    file_len: Option<u64>,
    state: State,
    /// Offset in the file of the element that comes next.
    position: u64,
    /// The first bytes of that element, where a chunk's end cut it.
    pending: Vec<u8>,
    version: u32,
    keys_left: u64,
    tensors_left: u64,
    key: String,
    arrays: Vec<Frame>,
    metadata: Metadata,
    tensor_name: String,
    tensors: Vec<TensorInfo>,
    /// Offset of each tensor from the start of the data.
    offsets: Vec<u64>,
    failed: Option<Error>,
}

impl Parser {
    /// A parser for a stream whose length is not known. Check the data with [`Gguf::check_data_len`] when it is.
    pub fn new(limits: Limits) -> Self {
        Parser {
            limits,
            file_len: None,
            state: State::Magic,
            position: 0,
            pending: Vec::new(),
            version: 0,
            keys_left: 0,
            tensors_left: 0,
            key: String::new(),
            arrays: Vec::new(),
            metadata: Metadata::new(),
            tensor_name: String::new(),
            tensors: Vec::new(),
            offsets: Vec::new(),
            failed: None,
        }
    }

    /// A parser for a file of `total` bytes: what cannot fit into it is refused where it is announced, and
    /// [`Self::finish`] has checked that all tensor data lies inside.
    pub fn with_file_len(limits: Limits, total: u64) -> Self {
        Parser {
            file_len: Some(total),
            ..Self::new(limits)
        }
    }

    /// Reads the next chunk. After an error, the same error comes again.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Status> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.read(chunk)
            .inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// The header, if it is complete.
    pub fn finish(self) -> Result<Gguf> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.state != State::Complete {
            let have = self.position + self.pending.len() as u64;
            return Err(Error::Format {
                offset: have,
                what: format!("the file ends inside {}", self.under_way()),
            });
        }
        let gguf = Gguf::new(
            self.version,
            self.metadata,
            self.tensors,
            &self.offsets,
            self.position,
            &self.limits,
        )?;
        if let Some(total) = self.file_len {
            gguf.check_data_len(total)?;
        }
        Ok(gguf)
    }

    fn read(&mut self, chunk: &[u8]) -> Result<Status> {
        let mut rest = chunk;
        while self.state != State::Complete {
            let need = self.need();
            self.check_room(need as u64)?;
            if self.pending.is_empty() && rest.len() >= need {
                let take = match self.state {
                    State::Numbers(_) => self.whole_numbers(rest.len(), need),
                    _ => need,
                };
                let (bytes, behind) = rest.split_at(take);
                rest = behind;
                self.advance(bytes)?;
                self.position += take as u64;
            } else {
                let missing = need - self.pending.len();
                let (bytes, behind) = rest.split_at(missing.min(rest.len()));
                rest = behind;
                self.pending.extend_from_slice(bytes);
                if self.pending.len() < need {
                    return Ok(Status::NeedMore);
                }
                let mut bytes = std::mem::take(&mut self.pending);
                self.advance(&bytes)?;
                self.position += need as u64;
                // The buffer is kept for the next element, unless it held a rare long one.
                bytes.clear();
                bytes.shrink_to(4096);
                self.pending = bytes;
            }
        }
        Ok(Status::Complete {
            consumed: chunk.len() - rest.len(),
        })
    }

    /// Bytes of a count or a length.
    fn word(&self) -> usize {
        if self.version == 1 { 4 } else { 8 }
    }

    /// Bytes of the next element.
    fn need(&self) -> usize {
        match self.state {
            State::Magic | State::Version | State::ValueType | State::TensorDims => 4,
            State::Counts => 2 * self.word(),
            State::KeyLen | State::StringLen | State::ElementLen | State::TensorNameLen => self.word(),
            State::Key(len) | State::String(len) | State::Element(len) | State::TensorName(len) => len,
            State::Scalar(ty) | State::Numbers(ty) => ty.size(),
            State::ArrayHead => 4 + self.word(),
            State::TensorShape(n_dims) => n_dims * self.word() + 4 + 8,
            State::Complete => 0,
        }
    }

    /// Bytes of the whole numbers of the innermost array that lie in `available` bytes.
    fn whole_numbers(&self, available: usize, size: usize) -> usize {
        let left = self.arrays.last().map_or(0, |frame| frame.left);
        (available / size).min(left) * size
    }

    /// What the file ends inside of, for the error message.
    fn under_way(&self) -> String {
        match self.state {
            State::Counts if self.tensors_left > 0 || self.keys_left > 0 => {
                let (tensors, keys) = (self.tensors_left, self.keys_left);
                format!("a header of {tensors} tensors and {keys} metadata keys")
            }
            State::Magic | State::Version | State::Counts => "the fixed part of the header".into(),
            State::KeyLen | State::Key(_) => {
                format!("the metadata, with {} keys still to come,", self.keys_left)
            }
            State::TensorNameLen | State::TensorName(_) | State::TensorDims | State::TensorShape(_) => {
                format!(
                    "the tensor directory, with {} tensors still to come,",
                    self.tensors_left
                )
            }
            _ => format!("the value of metadata key `{}`", self.key),
        }
    }

    fn malformed(&self, what: String) -> Error {
        Error::Format {
            offset: self.position,
            what,
        }
    }

    fn over(&self, what: &str, found: u64, limit: u64) -> Error {
        let key = match self.state {
            State::ArrayHead | State::StringLen | State::ElementLen | State::String(_) => {
                format!(" of metadata key `{}`", self.key)
            }
            _ => String::new(),
        };
        Error::ModelLimit {
            what: format!("{what}{key} (at byte {})", self.position),
            found,
            limit,
        }
    }

    /// Checks that `bytes` more bytes can follow: within the file where its length is known, within the limit always.
    fn check_room(&self, bytes: u64) -> Result<()> {
        let end = self.position.saturating_add(bytes);
        if let Some(total) = self.file_len.filter(|&total| end > total) {
            return Err(self.malformed(match total {
                0 => "the file is empty".into(),
                _ => format!(
                    "{} needs {bytes} more bytes here, but the file ends at byte {total}; it is cut short or damaged",
                    self.under_way()
                ),
            }));
        }
        if end > self.limits.header_bytes {
            return Err(self.over("the header's size", end, self.limits.header_bytes));
        }
        Ok(())
    }

    /// Checks that `count` elements of at least `size` bytes can follow.
    fn check_count(&self, count: u64, size: usize, behind: usize) -> Result<()> {
        let bytes = count.saturating_mul(size as u64).saturating_add(behind as u64);
        self.check_room(bytes)
    }

    /// A length that fits the room behind the length itself, so that it also fits `usize`.
    fn length(&self, bytes: &[u8]) -> Result<usize> {
        let len = self.word_at(bytes, 0);
        self.check_count(len, 1, self.word())?;
        usize::try_from(len).map_err(|_| self.over("a length", len, usize::MAX as u64))
    }

    fn word_at(&self, bytes: &[u8], at: usize) -> u64 {
        if self.version == 1 {
            u32_at(bytes, at).into()
        } else {
            u64_at(bytes, at)
        }
    }

    /// Reads one element, whole, and says what comes next.
    fn advance(&mut self, bytes: &[u8]) -> Result<()> {
        self.state = match self.state {
            State::Magic => {
                magic::check(bytes)?;
                State::Version
            }
            State::Version => self.read_version(bytes)?,
            State::Counts => self.read_counts(bytes)?,
            State::KeyLen => {
                let len = self.length(bytes)?;
                if len as u64 > self.limits.key_bytes {
                    return Err(self.over("the length of a metadata key", len as u64, self.limits.key_bytes));
                }
                State::Key(len)
            }
            State::Key(_) => {
                self.key = self.read_name("metadata key", bytes)?;
                if self.metadata.get(&self.key).is_some() {
                    return Err(self.malformed(format!("metadata key `{}` is there twice", self.key)));
                }
                State::ValueType
            }
            State::ValueType => match self.value_type(u32_at(bytes, 0))? {
                ValueType::String => State::StringLen,
                ValueType::Array => State::ArrayHead,
                scalar => State::Scalar(scalar),
            },
            State::Scalar(ty) => {
                let value = self.scalar(ty, bytes)?;
                self.store(value)
            }
            State::StringLen => State::String(self.length(bytes)?),
            State::String(_) => self.store(match std::str::from_utf8(bytes) {
                Ok(text) => Value::String(text.into()),
                Err(_) => Value::Bytes(bytes.into()),
            }),
            State::ArrayHead => self.read_array_head(bytes)?,
            State::Numbers(ty) => {
                self.read_numbers(ty, bytes)?;
                self.next_element()
            }
            State::ElementLen => State::Element(self.length(bytes)?),
            State::Element(_) => {
                if let Some(Frame {
                    array: Array::Strings(strings),
                    left,
                }) = self.arrays.last_mut()
                {
                    strings.push(bytes.into());
                    *left -= 1;
                }
                self.next_element()
            }
            State::TensorNameLen => {
                let len = self.length(bytes)?;
                let limit = self.limits.tensor_name_bytes;
                if len as u64 > limit {
                    return Err(self.over("the length of a tensor's name", len as u64, limit));
                }
                State::TensorName(len)
            }
            State::TensorName(_) => {
                self.tensor_name = self.read_name("tensor name", bytes)?;
                State::TensorDims
            }
            State::TensorDims => {
                let n_dims = u32_at(bytes, 0);
                match usize::try_from(n_dims) {
                    Ok(n_dims @ 1..=MAX_DIMS) => State::TensorShape(n_dims),
                    _ => {
                        return Err(Error::Tensor {
                            tensor: self.tensor_name.clone(),
                            what: format!("expected 1 to {MAX_DIMS} dimensions, found {n_dims}"),
                        });
                    }
                }
            }
            State::TensorShape(n_dims) => self.read_tensor(n_dims, bytes)?,
            State::Complete => State::Complete,
        };
        Ok(())
    }

    fn read_version(&mut self, bytes: &[u8]) -> Result<State> {
        self.version = u32_at(bytes, 0);
        match self.version {
            1..=3 => Ok(State::Counts),
            version if matches!(version.swap_bytes(), 1..=3) => Err(self.malformed(format!(
                "version {} in big-endian order; big-endian files are not supported, convert it to little-endian",
                version.swap_bytes()
            ))),
            version => Err(self.malformed(format!("expected version 1, 2 or 3, found {version}"))),
        }
    }

    fn read_counts(&mut self, bytes: &[u8]) -> Result<State> {
        let word = self.word();
        let tensors = self.word_at(bytes, 0);
        let keys = self.word_at(bytes, word);
        if tensors > self.limits.tensors {
            return Err(self.over("the number of tensors", tensors, self.limits.tensors));
        }
        if keys > self.limits.keys {
            return Err(self.over("the number of metadata keys", keys, self.limits.keys));
        }
        // The least key: length, one byte, type, one byte. The least tensor: length, one byte, one dimension.
        let least_keys = keys.saturating_mul(word as u64 + 6);
        let least_tensor = 2 * word + 1 + 4 + 4 + 8;
        self.tensors_left = tensors;
        self.keys_left = keys;
        self.check_count(tensors, least_tensor, 2 * word)
            .and_then(|()| self.check_room(least_keys))
            .map(|()| self.next_key())
    }

    /// A key or a tensor's name: not empty, UTF-8, without control characters, since messages print it.
    fn read_name(&self, what: &str, bytes: &[u8]) -> Result<String> {
        match std::str::from_utf8(bytes) {
            Ok("") => Err(self.malformed(format!("expected a {what}, found an empty string"))),
            Ok(name) if name.chars().any(char::is_control) => {
                Err(self.malformed(format!("{what} {} holds a control character", shortened(name))))
            }
            Ok(name) => Ok(name.into()),
            Err(_) => Err(self.malformed(format!(
                "{what} {} is not UTF-8",
                shortened(&String::from_utf8_lossy(bytes))
            ))),
        }
    }

    fn value_type(&self, id: u32) -> Result<ValueType> {
        ValueType::from_id(id).ok_or_else(|| {
            self.malformed(format!(
                "metadata key `{}`: expected a value type of 0 to 12, found {id}",
                self.key
            ))
        })
    }

    fn scalar(&self, ty: ValueType, bytes: &[u8]) -> Result<Value> {
        Ok(match ty {
            ValueType::U8 => Value::U8(u8::from_le_bytes(at(bytes, 0))),
            ValueType::I8 => Value::I8(i8::from_le_bytes(at(bytes, 0))),
            ValueType::U16 => Value::U16(u16::from_le_bytes(at(bytes, 0))),
            ValueType::I16 => Value::I16(i16::from_le_bytes(at(bytes, 0))),
            ValueType::U32 => Value::U32(u32_at(bytes, 0)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(at(bytes, 0))),
            ValueType::F32 => Value::F32(f32::from_le_bytes(at(bytes, 0))),
            ValueType::Bool => Value::Bool(self.boolean(u8::from_le_bytes(at(bytes, 0)), 0)?),
            ValueType::U64 => Value::U64(u64_at(bytes, 0)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(at(bytes, 0))),
            ValueType::F64 => Value::F64(f64::from_le_bytes(at(bytes, 0))),
            ValueType::String | ValueType::Array => {
                return Err(self.malformed(format!("expected a scalar type, found {}", ty.name())));
            }
        })
    }

    /// The bool that `byte` means, which lies `behind` the element's first byte.
    fn boolean(&self, byte: u8, behind: usize) -> Result<bool> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::Format {
                offset: self.position + behind as u64,
                what: format!(
                    "metadata key `{}`: expected a bool of 0 or 1, found {byte}",
                    self.key
                ),
            }),
        }
    }

    fn read_array_head(&mut self, bytes: &[u8]) -> Result<State> {
        let element = self.value_type(u32_at(bytes, 0))?;
        let count = self.word_at(bytes, 4);
        if self.arrays.len() >= self.limits.array_depth {
            let depth = self.arrays.len() as u64 + 1;
            return Err(self.over(
                "the depth of nested arrays",
                depth,
                self.limits.array_depth as u64,
            ));
        }
        let least = match element {
            ValueType::String => self.word(),
            ValueType::Array => 4 + self.word(),
            scalar => scalar.size(),
        };
        self.check_count(count, least, bytes.len())?;
        let left =
            usize::try_from(count).map_err(|_| self.over("an array's length", count, usize::MAX as u64))?;
        self.arrays.push(Frame {
            array: empty_array(element, left.min(1024)),
            left,
        });
        Ok(self.next_element())
    }

    fn read_numbers(&mut self, ty: ValueType, bytes: &[u8]) -> Result<()> {
        if ty == ValueType::Bool
            && let Some(i) = bytes.iter().position(|&byte| byte > 1)
        {
            self.boolean(bytes[i], i)?;
        }
        let Some(frame) = self.arrays.last_mut() else {
            return Ok(());
        };
        frame.left -= bytes.len() / ty.size();
        match &mut frame.array {
            Array::U8(v) => v.extend_from_slice(bytes),
            Array::I8(v) => v.extend(bytes.iter().map(|&b| b as i8)),
            Array::U16(v) => v.extend(bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b))),
            Array::I16(v) => v.extend(bytes.as_chunks().0.iter().map(|&b| i16::from_le_bytes(b))),
            Array::U32(v) => v.extend(bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b))),
            Array::I32(v) => v.extend(bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b))),
            Array::F32(v) => v.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Array::Bool(v) => v.extend(bytes.iter().map(|&b| b == 1)),
            Array::U64(v) => v.extend(bytes.as_chunks().0.iter().map(|&b| u64::from_le_bytes(b))),
            Array::I64(v) => v.extend(bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b))),
            Array::F64(v) => v.extend(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b))),
            // `next_element` never asks for numbers of these.
            Array::Strings(_) | Array::Arrays(_) => {}
        }
        Ok(())
    }

    /// The state that reads the innermost array's next element; arrays that are full go into what holds them.
    fn next_element(&mut self) -> State {
        while let Some(Frame { array, .. }) = self.arrays.pop_if(|frame| frame.left == 0) {
            match self.arrays.last_mut() {
                None => return self.store(Value::Array(array)),
                Some(outer) => {
                    if let Array::Arrays(arrays) = &mut outer.array {
                        arrays.push(array);
                        outer.left -= 1;
                    }
                }
            }
        }
        match self.arrays.last().map(|frame| frame.array.element_type()) {
            Some(ValueType::String) => State::ElementLen,
            Some(ValueType::Array) => State::ArrayHead,
            Some(number) => State::Numbers(number),
            None => self.next_key(),
        }
    }

    /// Keeps the value of the key under way.
    fn store(&mut self, value: Value) -> State {
        self.metadata.insert(std::mem::take(&mut self.key), value);
        self.keys_left -= 1;
        self.next_key()
    }

    fn next_key(&self) -> State {
        if self.keys_left > 0 {
            State::KeyLen
        } else {
            self.next_tensor()
        }
    }

    fn next_tensor(&self) -> State {
        if self.tensors_left > 0 {
            State::TensorNameLen
        } else {
            State::Complete
        }
    }

    fn read_tensor(&mut self, n_dims: usize, bytes: &[u8]) -> Result<State> {
        let word = self.word();
        let mut dims = [0u64; MAX_DIMS];
        for (i, dim) in dims.iter_mut().enumerate().take(n_dims) {
            *dim = self.word_at(bytes, i * word);
        }
        let type_id = u32_at(bytes, n_dims * word);
        let offset = u64_at(bytes, n_dims * word + 4);
        let name = std::mem::take(&mut self.tensor_name);
        self.tensors
            .push(TensorInfo::new(name, type_id, &dims[..n_dims])?);
        self.offsets.push(offset);
        self.tensors_left -= 1;
        Ok(self.next_tensor())
    }
}

/// The `N` bytes at `at`. `need` has seen to it that they are there; zeros stand in where they are not.
fn at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|tail| tail.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(at(bytes, offset))
}

/// A name for an error message: quoted, escaped, at most 40 characters.
fn shortened(name: &str) -> String {
    let head: String = name.chars().take(40).collect();
    let dots = if head.len() < name.len() { "…" } else { "" };
    format!("{head:?}{dots}")
}

fn empty_array(element: ValueType, capacity: usize) -> Array {
    match element {
        ValueType::U8 => Array::U8(Vec::with_capacity(capacity)),
        ValueType::I8 => Array::I8(Vec::with_capacity(capacity)),
        ValueType::U16 => Array::U16(Vec::with_capacity(capacity)),
        ValueType::I16 => Array::I16(Vec::with_capacity(capacity)),
        ValueType::U32 => Array::U32(Vec::with_capacity(capacity)),
        ValueType::I32 => Array::I32(Vec::with_capacity(capacity)),
        ValueType::F32 => Array::F32(Vec::with_capacity(capacity)),
        ValueType::Bool => Array::Bool(Vec::with_capacity(capacity)),
        ValueType::String => Array::Strings(Vec::with_capacity(capacity)),
        ValueType::Array => Array::Arrays(Vec::with_capacity(capacity)),
        ValueType::U64 => Array::U64(Vec::with_capacity(capacity)),
        ValueType::I64 => Array::I64(Vec::with_capacity(capacity)),
        ValueType::F64 => Array::F64(Vec::with_capacity(capacity)),
    }
}
