//! A file's first four bytes: GGUF, or a guess at what was given in its place.

use crate::{Error, Result};

/// The first bytes of every GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// Says what a file that is not GGUF is, where its first bytes tell.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let hint = match bytes {
        _ if bytes == MAGIC => return Ok(()),
        b"FUGG" => "a big-endian GGUF file; convert it to little-endian",
        b"lmgg" | b"fmgg" | b"tjgg" | b"ggml" | b"ggmf" | b"ggjt" => {
            "a GGML file from before GGUF; convert the original model anew"
        }
        b"vers" => "perhaps a Git LFS pointer; fetch the file itself with `git lfs pull`",
        [b'P', b'K', ..] => "a zip archive or PyTorch checkpoint; convert it to GGUF first",
        b"<!DO" | b"<!do" | b"<htm" | b"<HTM" => "a web page; the download gave a page in place of the file",
        [b'{', ..] => "JSON text; perhaps a message that the download gave in place of the file",
        b"Entr" | b"Inva" | b"Acce" | b"Not " => {
            "text; perhaps a message that the download gave in place of the file"
        }
        [0x1f, 0x8b, ..] => "a gzip archive; unpack it first",
        _ => "not a model in this format",
    };
    Err(Error::Format {
        offset: 0,
        what: format!("expected the magic \"GGUF\", found {bytes:02x?}: {hint}"),
    })
}
