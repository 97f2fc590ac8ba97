//! The input: its lines as bytes, one at a time, however long they are.
//!
//! Each line has a digest, over what decides its answer: its bytes, and what the caller says holds for all lines. An
//! answer carries it, so that an output can be held against an input without a file beside it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::failure;
use crate::output;

/// Bytes of a line that are kept; no model's context holds a prompt of so many.
const MAX_LINE: usize = 64 << 20;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Where lines come from. They are read more than once.
#[derive(Debug)]
pub(super) enum Input {
    File {
        path: PathBuf,
        written: SystemTime,
    },
    /// What can be read only once, and was.
    Whole {
        bytes: Vec<u8>,
        read: SystemTime,
    },
}

/// A line with something in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawLine<'a> {
    /// Counted from 1, empty lines as well, as editors do.
    pub(super) number: u64,
    /// Without its line end; of a line that is too long, its beginning.
    pub(super) bytes: &'a [u8],
    /// All of them.
    pub(super) length: u64,
    pub(super) digest: u64,
}

impl RawLine<'_> {
    /// Why it is not even read, where that is so.
    pub(super) fn too_long(&self) -> Option<String> {
        let length = self.length;
        (length > self.bytes.len() as u64)
            .then(|| format!("the line is too long: {length} bytes, at most {MAX_LINE}"))
    }
}

impl Input {
    /// Looks at the file; reads stdin and what else is no file to its end.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if path != Path::new("-") {
            let metadata = std::fs::metadata(path).map_err(|error| failure::no_file(path, "read", error))?;
            if metadata.is_file() {
                let written = metadata.modified().unwrap_or_else(|_| SystemTime::now());
                let path = path.into();
                return Ok(Input::File { path, written });
            }
        }
        Ok(Input::Whole {
            bytes: output::read_bytes(path)?,
            read: SystemTime::now(),
        })
    }

    /// The seconds since 1970 at which its requests were made, as far as that can be told: when the file was written.
    /// So a run that is repeated gives the same bytes.
    pub(super) fn time(&self) -> u64 {
        let (Input::File { written: time, .. } | Input::Whole { read: time, .. }) = self;
        time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Its lines, from the first one. `all` is what holds for all of them.
    pub(super) fn lines(&self, all: &Sha256) -> Result<Lines<'_>> {
        let reader: Box<dyn BufRead + '_> = match self {
            Input::File { path, .. } => {
                let file = File::open(path).map_err(|error| failure::no_file(path, "read", error))?;
                Box::new(BufReader::with_capacity(1 << 18, file))
            }
            Input::Whole { bytes, .. } => Box::new(bytes.as_slice()),
        };
        Ok(Lines {
            reader,
            all: all.clone(),
            number: 0,
            buffer: Vec::new(),
        })
    }
}

/// See [`Input::lines`].
pub(super) struct Lines<'a> {
    reader: Box<dyn BufRead + 'a>,
    all: Sha256,
    number: u64,
    buffer: Vec<u8>,
}

impl Lines<'_> {
    /// The next line that is not blank.
    pub(super) fn next(&mut self) -> Result<Option<RawLine<'_>>> {
        loop {
            let Some((length, digest)) = self.read().context("cannot read the input")? else {
                return Ok(None);
            };
            self.number += 1;
            if self.buffer.iter().all(u8::is_ascii_whitespace) && length == self.buffer.len() as u64 {
                continue;
            }
            let bytes = self.buffer.strip_suffix(b"\r").unwrap_or(&self.buffer);
            let cut = (self.buffer.len() - bytes.len()) as u64;
            return Ok(Some(RawLine {
                number: self.number,
                bytes,
                length: length - cut,
                digest,
            }));
        }
    }

    /// Reads a line into the buffer, as far as it is kept; its length and its digest.
    fn read(&mut self) -> io::Result<Option<(u64, u64)>> {
        self.buffer.clear();
        let mut digest = self.all.clone();
        let mut length = 0;
        let mut any = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let read = chunk.len();
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let mut part = &chunk[..end.unwrap_or(read)];
            if !any && self.number == 0 {
                part = part.strip_prefix(BOM).unwrap_or(part);
            }
            any |= read > 0;
            digest.update(part);
            length += part.len() as u64;
            let room = MAX_LINE - self.buffer.len();
            self.buffer.extend_from_slice(&part[..part.len().min(room)]);
            self.reader.consume(end.map_or(read, |at| at + 1));
            if end.is_some() || read == 0 {
                let bytes: [u8; 8] = std::array::from_fn({
                    let whole = digest.finalize();
                    move |i| whole[i]
                });
                return Ok(any.then(|| (length, u64::from_be_bytes(bytes))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let input = Input::Whole {
            bytes: bytes.into(),
            read: SystemTime::now(),
        };
        let mut lines = input.lines(&Sha256::new()).unwrap();
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            assert_eq!(line.too_long(), None);
            found.push((line.number, line.bytes.to_vec()));
        }
        found
    }

    #[test]
    fn lines_are_counted_as_editors_do() {
        let found = lines(b"\xef\xbb\xbfa\r\n\n  \t\r\nb\n\xff c\n\nlast");
        let expected: [(u64, &[u8]); 4] = [(1, b"a"), (4, b"b"), (5, b"\xff c"), (7, b"last")];
        assert_eq!(found, expected.map(|(n, bytes)| (n, bytes.to_vec())));
        for empty in [&b""[..], b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"] {
            assert_eq!(lines(empty), []);
        }
    }

    #[test]
    fn a_digest_is_of_the_line_and_of_what_holds_for_all() {
        let digests = |all: &[u8], bytes: &[u8]| {
            let input = Input::Whole {
                bytes: bytes.into(),
                read: SystemTime::now(),
            };
            let mut lines = input.lines(&Sha256::new_with_prefix(all)).unwrap();
            let mut found = Vec::new();
            while let Some(line) = lines.next().unwrap() {
                found.push(line.digest);
            }
            found
        };
        let found = digests(b"x", b"a\nb\na");
        assert_eq!(found[0], found[2]);
        assert_ne!(found[0], found[1]);
        // Neither the line's place nor a missing last line end changes it.
        assert_eq!(digests(b"x", b"\n\na\n"), found[2..]);
        assert_ne!(digests(b"y", b"a")[0], found[0]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let mut bytes = vec![b'x'; MAX_LINE + 10];
        bytes.extend_from_slice(b"\nnext\n");
        let input = Input::Whole {
            bytes,
            read: SystemTime::now(),
        };
        let mut lines = input.lines(&Sha256::new()).unwrap();
        let long = lines.next().unwrap().unwrap();
        assert_eq!(
            (long.number, long.bytes.len(), long.length),
            (1, MAX_LINE, MAX_LINE as u64 + 10)
        );
        assert!(long.too_long().unwrap().contains("67108874 bytes"));
        assert_eq!(lines.next().unwrap().unwrap().bytes, b"next");
    }
}
