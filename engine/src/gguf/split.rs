//! Models split over several files: `name-00001-of-00003.gguf` and so on.
//!
//! Source: llama.cpp's `gguf-split`. Every part is a GGUF file of its own with `split.no` (from 0), `split.count` and
//! `split.tensors.count` (of all parts); the first part holds the model's metadata. A merged file keeps
//! `split.count` with the value 0.

use std::collections::HashMap;

use super::{Gguf, Metadata, TensorInfo};
use crate::{Error, Result};

/// A file name of the form `prefix-00001-of-00003.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitName {
    /// What stands before the numbers, a directory included.
    pub prefix: String,
    /// The part's number, from 1, as the name has it.
    pub no: usize,
    /// The number of parts.
    pub count: usize,
}

impl SplitName {
    /// The file name of part `no`, from 1.
    pub fn part(&self, no: usize) -> String {
        format!("{}-{no:05}-of-{:05}.gguf", self.prefix, self.count)
    }

    /// The file names of all parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = String> {
        (1..=self.count).map(|no| self.part(no))
    }
}

/// Takes a split file's name apart; `None` where the name is not of that form or its numbers make no sense.
pub fn parse_name(name: &str) -> Option<SplitName> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, no) = rest.rsplit_once('-')?;
    let number = |digits: &str| {
        let five = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
        if five { digits.parse::<usize>().ok() } else { None }
    };
    let (no, count) = (number(no)?, number(count)?);
    if no == 0 || no > count || prefix.is_empty() {
        return None;
    }
    Some(SplitName {
        prefix: prefix.into(),
        no,
        count,
    })
}

/// The parsed headers of all files of a model, one or several, as one directory of tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufSet {
    parts: Vec<Gguf>,
    /// Name -> part, place in that part.
    index: HashMap<String, (usize, usize)>,
}

impl GgufSet {
    /// Joins parts given in order. Fails where one is missing or out of place, where two parts hold a tensor of the
    /// same name or differ in the model's parameters, or where tensors are missing.
    pub fn new(parts: Vec<Gguf>) -> Result<Self> {
        let Some((first, others)) = parts.split_first() else {
            return Err(invalid("a model needs at least one file".into()));
        };
        let count = split_count(first)?;
        if count != parts.len() {
            return Err(invalid(format!(
                "the model is split into {count} files, but {} are given",
                parts.len()
            )));
        }
        if count > 1 {
            for (i, part) in parts.iter().enumerate() {
                check_place(part, i, count)?;
            }
            check_total(first, parts.iter().map(|part| part.tensors().len() as u64).sum())?;
        }
        for (i, part) in others.iter().enumerate() {
            check_same_model(first.metadata(), part.metadata(), i + 2)?;
        }
        let mut index = HashMap::new();
        for (p, part) in parts.iter().enumerate() {
            for (t, tensor) in part.tensors().iter().enumerate() {
                if let Some((other, _)) = index.insert(tensor.name.clone(), (p, t)) {
                    return Err(Error::Tensor {
                        tensor: tensor.name.clone(),
                        what: format!(
                            "it is in file {} and again in file {} of the model",
                            other + 1,
                            p + 1
                        ),
                    });
                }
            }
        }
        Ok(GgufSet { parts, index })
    }

    /// The model's metadata: the first part's.
    pub fn metadata(&self) -> &Metadata {
        self.parts
            .first()
            .map(Gguf::metadata)
            .expect("`new` refuses an empty list of parts")
    }

    /// The headers, in order.
    pub fn parts(&self) -> &[Gguf] {
        &self.parts
    }

    /// The tensor of this name, with the index of the part that holds it.
    pub fn tensor(&self, name: &str) -> Option<(usize, &TensorInfo)> {
        let &(part, tensor) = self.index.get(name)?;
        Some((part, self.parts.get(part)?.tensors().get(tensor)?))
    }

    /// All tensors with the index of the part that holds each, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &TensorInfo)> {
        let parts = self.parts.iter().enumerate();
        parts.flat_map(|(p, part)| part.tensors().iter().map(move |tensor| (p, tensor)))
    }

    /// Number of tensors in all parts.
    pub fn n_tensors(&self) -> usize {
        self.index.len()
    }
}

fn invalid(what: String) -> Error {
    Error::InvalidInput { what }
}

/// The number of files that the model is split into, as a part says; 1 for a file that is not split.
pub fn split_count(part: &Gguf) -> Result<usize> {
    let count = part.metadata().opt_u32("split.count")?.unwrap_or(1);
    Ok((count as usize).max(1))
}

fn check_place(part: &Gguf, i: usize, count: usize) -> Result<()> {
    let found = split_count(part)?;
    if found != count {
        return Err(invalid(format!(
            "file {} says that the model is split into {found} files, the first file says {count}",
            i + 1
        )));
    }
    let no = part.metadata().u32("split.no")? as usize;
    if no != i {
        return Err(invalid(format!(
            "file {} of the model holds part {}; the parts are expected in order",
            i + 1,
            no.saturating_add(1)
        )));
    }
    Ok(())
}

fn check_total(first: &Gguf, found: u64) -> Result<()> {
    const KEY: &str = "split.tensors.count";
    match first.metadata().opt_u64(KEY)? {
        Some(expected) if expected != found => Err(Error::Metadata {
            key: KEY.into(),
            expected: format!("{found}, the number of tensors in all files"),
            found: expected.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Later parts need not repeat the model's parameters; where they do, they say the same.
fn check_same_model(first: &Metadata, other: &Metadata, number: usize) -> Result<()> {
    let arch = first.opt_str("general.architecture")?.unwrap_or_default();
    for (key, value) in other.iter() {
        let parameter = key.strip_prefix(arch).is_some_and(|rest| rest.starts_with('.'));
        if (key == "general.architecture" || parameter) && first.get(key) != Some(value) {
            return Err(Error::Metadata {
                key: key.into(),
                expected: first
                    .get(key)
                    .map_or("no such key, as in the first file".into(), |value| {
                        format!("{}, as in the first file", value.describe())
                    }),
                found: format!("{} in file {number}", value.describe()),
            });
        }
    }
    Ok(())
}
