//! Models split over several files: `name-00001-of-00003.gguf` and so on; and what people do to such files.
//!
//! Source: llama.cpp's `gguf-split`. Every part is a GGUF file of its own with `split.no` (from 0), `split.count` and
//! `split.tensors.count` (of all parts); the first part holds the model's metadata. A merged file keeps
//! `split.count` with the value 0.

use std::collections::HashMap;

use super::{Gguf, Metadata, TensorInfo, Value};
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

/// The name of the whole file that a file with this name is a raw piece of: what `split` and upload sites leave
/// (`name.gguf.part1of2`, `name.gguf-split-a`, `name.gguf.aa`, `name.gguf.001`). Such pieces are no GGUF files; joined
/// in order with `cat` they are one.
pub fn raw_piece_of(name: &str) -> Option<&str> {
    const EXTENSION: &str = ".gguf";
    // ASCII letters alone change, so offsets stay.
    let at = name.to_ascii_lowercase().rfind(EXTENSION)? + EXTENSION.len();
    let suffix = name[at..].to_ascii_lowercase();
    let mut number = suffix.strip_prefix(['.', '-', '_'])?;
    let mut named = false;
    for word in ["part", "split", "chunk", "piece"] {
        if let Some(rest) = number.strip_prefix(word) {
            number = rest.trim_start_matches(['.', '-', '_']);
            named = true;
        }
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let of = |(no, count): (&str, &str)| digits(no) && digits(count.trim_start_matches(['.', '-', '_']));
    let letters = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_lowercase());
    let counted = number.split_once("of").is_some_and(of) || number.split_once("-of-").is_some_and(of);
    // Without a word such as "part", letters are a piece only as `split` counts: from "aa" on.
    let piece =
        counted || digits(number) || (letters && (named || number.starts_with('a') && number.len() > 1));
    piece.then_some(&name[..at])
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
            return Err(Error::InvalidInput {
                what: "a model needs at least one file".into(),
            });
        };
        let count = split_count(first).map_err(|error| in_part(0, parts.len(), error))?;
        if count != parts.len() {
            return Err(incomplete(first, count, parts.len()));
        }
        if count > 1 {
            for (i, part) in parts.iter().enumerate() {
                check_place(part, i, count).map_err(|error| in_part(i, count, error))?;
            }
        }
        for (i, part) in others.iter().enumerate() {
            check_same_model(first.metadata(), part.metadata())
                .map_err(|error| in_part(i + 1, count, error))?;
        }
        if count > 1 {
            check_total(first, parts.iter().map(|part| part.tensors().len() as u64).sum())?;
        }
        let mut index = HashMap::new();
        for (p, part) in parts.iter().enumerate() {
            for (t, tensor) in part.tensors().iter().enumerate() {
                if let Some((other, _)) = index.insert(tensor.name.clone(), (p, t)) {
                    let error = Error::Tensor {
                        tensor: tensor.name.clone(),
                        what: format!(
                            "it is in part {} as well: one of the two is of another model or another splitting",
                            other + 1
                        ),
                    };
                    return Err(in_part(p, count, error));
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

fn wrong(what: String) -> Error {
    Error::Split { what }
}

/// The number of files that the model is split into, as a part says; 1 for a file that is not split.
pub fn split_count(part: &Gguf) -> Result<usize> {
    let count = part.metadata().opt_u32("split.count")?.unwrap_or(1);
    Ok((count as usize).max(1))
}

/// Not all parts are given: the others are not found where a part's name does not say that it is one.
fn incomplete(first: &Gguf, count: usize, given: usize) -> Error {
    if given > 1 {
        return wrong(format!(
            "the model is split into {count} files, but {given} are given"
        ));
    }
    let no = first.metadata().opt_u32("split.no").ok().flatten().unwrap_or(0);
    wrong(format!(
        "it is part {} of a model that is split into {count} files, but its name does not say so; give the parts the \
         names NAME-00001-of-{count:05}.gguf to NAME-{count:05}-of-{count:05}.gguf, all in one directory",
        u64::from(no) + 1
    ))
}

/// An error that says in which of several files it was found.
pub(super) fn in_part(part: usize, count: usize, error: Error) -> Error {
    match error {
        error if count == 1 => error,
        error => Error::Part {
            part,
            count,
            error: Box::new(error),
        },
    }
}

/// Whether a part's place in the model, as it says itself, is the one at which it is given.
fn check_place(part: &Gguf, i: usize, count: usize) -> Result<()> {
    let found = split_count(part)?;
    if found == 1 {
        return Err(wrong(
            "it is a model of one file by itself, not a part of this one: another file has its name".into(),
        ));
    }
    let no = part.metadata().u32("split.no")? as usize;
    if (no, found) != (i, count) {
        return Err(wrong(format!(
            "it says that it is part {} of {found}: it was renamed, or is a part of another model; give each part the \
             name that it was made with",
            no.saturating_add(1)
        )));
    }
    Ok(())
}

fn check_total(first: &Gguf, found: u64) -> Result<()> {
    const KEY: &str = "split.tensors.count";
    match first.metadata().opt_u64(KEY)? {
        Some(expected) if expected != found => Err(wrong(format!(
            "the parts hold {found} tensors together, the first one says {expected} (`{KEY}`): a part is of another \
             model, or of another splitting of this one"
        ))),
        _ => Ok(()),
    }
}

/// Later parts need not repeat the model's parameters; where they do, they say the same.
fn check_same_model(first: &Metadata, other: &Metadata) -> Result<()> {
    let arch = first.opt_str("general.architecture")?.unwrap_or_default();
    for (key, value) in other.iter() {
        let parameter = key.strip_prefix(arch).is_some_and(|rest| rest.starts_with('.'));
        if (key == "general.architecture" || parameter) && first.get(key) != Some(value) {
            let in_first = first.get(key).map_or("absent".into(), Value::describe);
            return Err(wrong(format!(
                "it is a part of another model: `{key}` is {} here and {in_first} in part 1",
                value.describe()
            )));
        }
    }
    Ok(())
}
