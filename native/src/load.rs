//! From a path to a model's file: files mapped, split files found by name, the built-in model, the tokenizer.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use twinfer_engine::Error;
use twinfer_engine::gguf::{Gguf, ModelFile, split};
use twinfer_engine::memory::Bytes;
use twinfer_engine::sample::Recommended;
use twinfer_engine::tokenizer::Tokenizer;

use crate::memory;
use crate::settings::Verbosity;

/// The model that runs where none is named: a toy for demonstration, trained by this project.
const BUILT_IN: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/demo/twinfer-demo-q4_k_m.gguf"));

/// What the built-in model is called in reports.
const BUILT_IN_NAME: &str = "built-in toy model";

/// Tensor data in a file begins at multiples of 32 bytes; this keeps it so in memory.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

/// Which model a command works on. Its text is what messages call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelSource {
    BuiltIn,
    File(PathBuf),
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelSource::BuiltIn => f.write_str(BUILT_IN_NAME),
            ModelSource::File(path) => path.display().fmt(f),
        }
    }
}

impl ModelSource {
    /// The path that was given.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            ModelSource::BuiltIn => None,
            ModelSource::File(path) => Some(path),
        }
    }

    /// Bytes of the model's files; `None` for the built-in one, which also stands for none, and where they are not
    /// there, which opening them says.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let len = |path: &PathBuf| Some(std::fs::metadata(path).ok()?.len());
        match self {
            ModelSource::BuiltIn => None,
            ModelSource::File(path) => part_paths(path).ok()?.iter().map(len).sum(),
        }
    }

    /// Opens and parses the model's files. Nothing but the headers is read.
    pub(crate) fn open(&self) -> Result<ModelFile> {
        match self {
            ModelSource::BuiltIn => {
                ModelFile::from_parts(vec![Bytes::from_static(&BUILT_IN.0)]).context(BUILT_IN_NAME)
            }
            ModelSource::File(path) => open(path),
        }
    }
}

/// As [`ModelSource::open`], for a path.
pub(crate) fn open(path: &Path) -> Result<ModelFile> {
    let parts = part_paths(path)?;
    let bytes = parts
        .iter()
        .map(|path| memory::map(path))
        .collect::<Result<Vec<_>>>()?;
    ModelFile::from_parts(bytes).map_err(|error| at_fault(error, path, &parts))
}

/// The error with the file that it was found in.
fn at_fault(error: Error, path: &Path, parts: &[PathBuf]) -> anyhow::Error {
    let (error, path) = match error {
        Error::Part { part, error, .. } => (*error, parts.get(part).map_or(path, PathBuf::as_path)),
        error => (error, path),
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let piece = name.and_then(|name| Some((name, split::raw_piece_of(name)?)));
    let context = match piece {
        Some((name, whole)) => format!(
            "`{}` is by its name a piece of `{whole}`: join all pieces in their order first, as in \
             `cat {name} ... > {whole}`",
            path.display()
        ),
        None if path.extension().is_some_and(|e| e == "safetensors") => format!(
            "`{}` is by its name a safetensors file: convert the model to GGUF first",
            path.display()
        ),
        None => format!("`{}`", path.display()),
    };
    anyhow::Error::new(error).context(context)
}

/// The files of the model that `path` belongs to: itself, or all parts of the split model that it is a part of. A model
/// of one file may have the name of a part.
pub(crate) fn part_paths(path: &Path) -> Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(split) = name.and_then(split::parse_name) else {
        return Ok(vec![path.into()]);
    };
    let parts: Vec<PathBuf> = split.parts().map(|name| path.with_file_name(name)).collect();
    for (i, part) in parts.iter().enumerate() {
        if !part.exists() {
            if is_whole(path) {
                return Ok(vec![path.into()]);
            }
            bail!(
                "part {} of {} is missing: `{}`; put all parts into one directory",
                i + 1,
                parts.len(),
                part.display()
            );
        }
    }
    Ok(parts)
}

/// Whether the file says that it is no part of a split model; false where it cannot be read.
fn is_whole(path: &Path) -> bool {
    let header = memory::map(path).ok().map(|bytes| Gguf::parse(&bytes));
    matches!(header, Some(Ok(header)) if split::split_count(&header).is_ok_and(|count| count == 1))
}

/// The tokenizer of a file.
pub(crate) fn tokenizer(source: &ModelSource, file: &ModelFile, verbosity: Verbosity) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::from_metadata(file.metadata()).with_context(|| format!("`{source}`"))?;
    for text in tokenizer.notes() {
        verbosity.note(&format!("note: {text}"));
    }
    Ok(tokenizer)
}

/// What the file's author recommends for the sampler.
pub(crate) fn recommended(file: &ModelFile, verbosity: Verbosity) -> Recommended {
    let recommended = Recommended::read(file.metadata());
    for text in recommended.notes() {
        verbosity.note(&format!("note: {text}"));
    }
    if let Some(values) = recommended.describe() {
        verbosity.detail(&format!("sampling defaults of the model: {values}"));
    }
    recommended
}
