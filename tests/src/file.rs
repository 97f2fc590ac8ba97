//! What the parser makes of a file: of all at once, and of the same bytes in small chunks.

use serde_json::{Value, json};
use twinfer_engine::Result;
use twinfer_engine::gguf::{Limits, ModelFile, Parser, Status};
use twinfer_engine::memory::Bytes;

use crate::sha256;

/// Sizes of the chunks in which a stream brings the file, in bytes, taken in turn.
const CHUNKS: [usize; 4] = [1, 7, 64, 4093];

/// The file opened from its parts.
pub fn open(blobs: Vec<Vec<u8>>) -> Result<ModelFile> {
    ModelFile::from_parts(blobs.into_iter().map(Bytes::from_vec).collect())
}

/// Counts, digests of metadata and directory, a digest of every tensor's bytes.
pub fn describe(blobs: Vec<Vec<u8>>) -> Result<Value> {
    let streamed: Vec<Value> = blobs.iter().map(|bytes| stream(bytes)).collect();
    let file = open(blobs)?;
    let metadata: Vec<String> = file
        .metadata()
        .iter()
        .map(|(key, value)| format!("{key} = {value:?}\n"))
        .collect();
    let mut tensors = Vec::new();
    for tensor in file.tensors() {
        let data = file.tensor_bytes(&tensor.name)?;
        tensors.push(format!("{tensor:?} {}\n", sha256([&*data])));
    }
    Ok(json!({
        "streamed": streamed,
        "n_metadata": metadata.len(),
        "n_tensors": tensors.len(),
        "metadata": sha256(metadata),
        "tensors": sha256(tensors),
    }))
}

/// The header as the incremental parser reads it, or its error.
fn stream(bytes: &[u8]) -> Value {
    let read = || -> Result<Value> {
        let mut parser = Parser::with_file_len(Limits::default(), bytes.len() as u64);
        let mut rest = bytes;
        for size in CHUNKS.into_iter().cycle() {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            if !matches!(parser.push(chunk)?, Status::NeedMore) || rest.is_empty() {
                break;
            }
        }
        let header = parser.finish()?;
        Ok(json!({
            "version": header.version(),
            "alignment": header.alignment(),
            "data_offset": header.data_offset(),
            "data_end": header.data_end(),
        }))
    };
    read().unwrap_or_else(|error| json!({ "error": error.to_string() }))
}
