//! Metadata of a GGUF file: values as the file types them, and getters whose errors name the key, what was
//! expected and what was found.

use super::value_type::ValueType;
use crate::{Error, Result};

/// One metadata value, as typed in the file.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
    /// A string that is not UTF-8, kept as it stands so that a copy of the file keeps it. Nothing that needs a
    /// string accepts it, so a damaged name does not stop a model and a damaged template gives an error.
    Bytes(Box<[u8]>),
}

/// An array value. Strings are kept as bytes where a vocabulary needs it: see [`Array::Strings`].
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    /// Raw bytes of each string: vocabularies of real files hold tokens that are not UTF-8.
    Strings(Vec<Box<[u8]>>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    /// Arrays of arrays: the specification allows them.
    Arrays(Vec<Array>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::Strings(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F64(v) => v.len(),
            Array::Arrays(v) => v.len(),
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type, as the specification names it.
    pub fn type_name(&self) -> &'static str {
        self.element_type().name()
    }

    /// Element type in the file format.
    pub(super) fn element_type(&self) -> ValueType {
        match self {
            Array::U8(_) => ValueType::U8,
            Array::I8(_) => ValueType::I8,
            Array::U16(_) => ValueType::U16,
            Array::I16(_) => ValueType::I16,
            Array::U32(_) => ValueType::U32,
            Array::I32(_) => ValueType::I32,
            Array::F32(_) => ValueType::F32,
            Array::Bool(_) => ValueType::Bool,
            Array::Strings(_) => ValueType::String,
            Array::U64(_) => ValueType::U64,
            Array::I64(_) => ValueType::I64,
            Array::F64(_) => ValueType::F64,
            Array::Arrays(_) => ValueType::Array,
        }
    }
}

impl Value {
    /// The value's type and, for scalars, the value: what an error shows as "found".
    pub fn describe(&self) -> String {
        match self {
            Value::U8(v) => format!("u8 {v}"),
            Value::I8(v) => format!("i8 {v}"),
            Value::U16(v) => format!("u16 {v}"),
            Value::I16(v) => format!("i16 {v}"),
            Value::U32(v) => format!("u32 {v}"),
            Value::I32(v) => format!("i32 {v}"),
            Value::F32(v) => format!("f32 {v}"),
            Value::Bool(v) => format!("bool {v}"),
            Value::String(v) => {
                let head: String = v.chars().take(40).collect();
                let dots = if head.len() < v.len() { "…" } else { "" };
                format!("string {head:?}{dots}")
            }
            Value::Array(v) => format!("array of {} {}", v.len(), v.type_name()),
            Value::U64(v) => format!("u64 {v}"),
            Value::I64(v) => format!("i64 {v}"),
            Value::F64(v) => format!("f64 {v}"),
            Value::Bytes(v) => format!("string of {} bytes that is not UTF-8", v.len()),
        }
    }

    /// The value's type in the file format.
    pub(super) fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) | Value::Bytes(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }
}

/// All metadata of a file, in file order, keys unique.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: std::collections::HashMap<String, usize>,
}

impl Metadata {
    /// Empty metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a value. Returns the value that stood there.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> Option<Value> {
        let key = key.into();
        if let Some(&i) = self.index.get(&key) {
            return Some(std::mem::replace(&mut self.entries[i].1, value));
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        None
    }

    /// The value of `key`, if the file has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.entries[i].1)
    }

    /// All entries in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn wrong(key: &str, expected: &str, value: &Value) -> Error {
        Error::Metadata {
            key: key.into(),
            expected: expected.into(),
            found: value.describe(),
        }
    }

    fn missing(key: &str) -> Error {
        Error::MissingKey {
            key: key.into(),
            why: "this model cannot be loaded without it".into(),
        }
    }

    /// An unsigned integer of any width that fits 32 bits; `None` where the key is absent.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_u64().and_then(|v| u32::try_from(v).ok()) {
            Some(v) => Ok(Some(v)),
            None => Err(Self::wrong(key, "an unsigned integer below 2^32", value)),
        }
    }

    /// As [`Self::opt_u32`], the key required.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.opt_u32(key)?.ok_or_else(|| Self::missing(key))
    }

    /// An unsigned integer of any width; `None` where the key is absent.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_u64()
            .map(Some)
            .ok_or_else(|| Self::wrong(key, "an unsigned integer", value))
    }

    /// An integer of any width, signed or not; `None` where the key is absent.
    pub fn opt_int(&self, key: &str) -> Result<Option<i128>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match *value {
            Value::I8(v) => Ok(Some(v.into())),
            Value::I16(v) => Ok(Some(v.into())),
            Value::I32(v) => Ok(Some(v.into())),
            Value::I64(v) => Ok(Some(v.into())),
            _ => match value.as_u64() {
                Some(v) => Ok(Some(v.into())),
                None => Err(Self::wrong(key, "an integer", value)),
            },
        }
    }

    /// A finite float (f32, or f64 that is rounded); `None` where the key is absent.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let v = match *value {
            Value::F32(v) => v,
            Value::F64(v) => v as f32,
            _ => return Err(Self::wrong(key, "a float", value)),
        };
        if v.is_finite() {
            Ok(Some(v))
        } else {
            Err(Self::wrong(key, "a finite float", value))
        }
    }

    /// As [`Self::opt_f32`], the key required.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.opt_f32(key)?.ok_or_else(|| Self::missing(key))
    }

    /// A boolean; `None` where the key is absent.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(value) => Err(Self::wrong(key, "a bool", value)),
        }
    }

    /// A string; `None` where the key is absent.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(value) => Err(Self::wrong(key, "a string in UTF-8", value)),
        }
    }

    /// As [`Self::opt_str`], the key required.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.opt_str(key)?.ok_or_else(|| Self::missing(key))
    }

    /// The chat templates by name, in file order: `tokenizer.chat_template` as `default`, and what
    /// `tokenizer.chat_template.NAME` names. A value that is not a string is an error.
    pub fn chat_templates(&self) -> Result<Vec<(&str, &str)>> {
        let mut templates = Vec::new();
        for (key, _) in self.iter() {
            let name = match key.strip_prefix("tokenizer.chat_template") {
                Some("") => "default",
                Some(rest) if rest.starts_with('.') => &rest[1..],
                _ => continue,
            };
            templates.push((name, self.str(key)?));
        }
        Ok(templates)
    }

    /// An array of strings, as bytes; `None` where the key is absent.
    pub fn opt_strings(&self, key: &str) -> Result<Option<&[Box<[u8]>]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Strings(v))) => Ok(Some(v)),
            Some(value) => Err(Self::wrong(key, "an array of strings", value)),
        }
    }

    /// An array of f32; `None` where the key is absent.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(v))) => Ok(Some(v)),
            Some(value) => Err(Self::wrong(key, "an array of f32", value)),
        }
    }

    /// An array of integers of any width, each of which fits i64; `None` where the key is absent.
    pub fn opt_ints(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let Value::Array(array) = value else {
            return Err(Self::wrong(key, "an array of integers", value));
        };
        let ints = match array {
            Array::U8(v) => v.iter().map(|&x| x.into()).collect(),
            Array::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Array::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Array::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Array::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Array::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Array::I64(v) => v.clone(),
            Array::U64(v) if v.iter().all(|&x| i64::try_from(x).is_ok()) => {
                v.iter().map(|&x| x as i64).collect()
            }
            _ => return Err(Self::wrong(key, "an array of integers", value)),
        };
        Ok(Some(ints))
    }
}
