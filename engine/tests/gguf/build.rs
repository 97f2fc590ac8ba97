//! Builds GGUF files byte by byte, right or wrong: what a writer that checks its input cannot write.

use twinfer_engine::Error;
use twinfer_engine::gguf::{Gguf, Limits, Parser, Status};

use crate::memory::measure;

pub(crate) const U8: u32 = 0;
pub(crate) const U16: u32 = 2;
pub(crate) const U32: u32 = 4;
pub(crate) const I32: u32 = 5;
pub(crate) const F32: u32 = 6;
pub(crate) const BOOL: u32 = 7;
pub(crate) const STRING: u32 = 8;
pub(crate) const ARRAY: u32 = 9;
pub(crate) const U64: u32 = 10;
pub(crate) const F64: u32 = 12;

/// A file under construction. Counts are right unless set otherwise.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) version: u32,
    pub(crate) n_keys: Option<u64>,
    pub(crate) n_tensors: Option<u64>,
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

/// An empty file of version 3.
pub(crate) fn file() -> File {
    version(3)
}

pub(crate) fn version(version: u32) -> File {
    File {
        version,
        n_keys: None,
        n_tensors: None,
        keys: Vec::new(),
        tensors: Vec::new(),
        data: 0,
    }
}

impl File {
    /// A count or length as wide as the version has it.
    pub(crate) fn word(&self, value: u64) -> Vec<u8> {
        if self.version == 1 {
            (value as u32).to_le_bytes().to_vec()
        } else {
            value.to_le_bytes().to_vec()
        }
    }

    /// Length and bytes.
    pub(crate) fn string(&self, bytes: &[u8]) -> Vec<u8> {
        [self.word(bytes.len() as u64), bytes.to_vec()].concat()
    }

    /// A key, a type id and the value's bytes as they are.
    pub(crate) fn key(mut self, key: impl AsRef<[u8]>, ty: u32, value: impl AsRef<[u8]>) -> Self {
        let entry = [
            self.string(key.as_ref()),
            ty.to_le_bytes().to_vec(),
            value.as_ref().to_vec(),
        ];
        self.keys.push(entry.concat());
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        let value = self.string(value.as_bytes());
        self.key(key, STRING, value)
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.key(key, U32, value.to_le_bytes())
    }

    /// An array that announces `count` elements, and the elements' bytes.
    pub(crate) fn array(self, key: &str, element: u32, count: u64, bytes: impl AsRef<[u8]>) -> Self {
        let value = [
            element.to_le_bytes().to_vec(),
            self.word(count),
            bytes.as_ref().to_vec(),
        ];
        self.key(key, ARRAY, value.concat())
    }

    /// Bytes in place of a key, as they are.
    pub(crate) fn raw_key(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.keys.push(bytes.as_ref().to_vec());
        self
    }

    /// A directory entry; no data.
    pub(crate) fn tensor(mut self, name: impl AsRef<[u8]>, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let mut entry = self.string(name.as_ref());
        entry.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|&dim| entry.extend(self.word(dim)));
        entry.extend(type_id.to_le_bytes());
        entry.extend(offset.to_le_bytes());
        self.tensors.push(entry);
        self
    }

    /// This many bytes of data behind the header, which is padded to 32.
    pub(crate) fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    pub(crate) fn keys(mut self, count: u64) -> Self {
        self.n_keys = Some(count);
        self
    }

    pub(crate) fn tensors(mut self, count: u64) -> Self {
        self.n_tensors = Some(count);
        self
    }

    pub(crate) fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.word(self.n_tensors.unwrap_or(self.tensors.len() as u64)));
        out.extend(self.word(self.n_keys.unwrap_or(self.keys.len() as u64)));
        self.keys.iter().for_each(|entry| out.extend(entry));
        self.tensors.iter().for_each(|entry| out.extend(entry));
        out
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        if self.data > 0 {
            out.resize(out.len().next_multiple_of(32), 0);
            out.resize(out.len() + self.data, 0x5a);
        }
        out
    }

    pub(crate) fn parse(&self) -> Result<Gguf, Error> {
        Gguf::parse(&self.bytes())
    }
}

/// A small valid file with every value type and two tensors.
pub(crate) fn sample(version_number: u32) -> File {
    let f = version(version_number);
    let strings = [f.string(b"a"), f.string(b""), f.string(b"\xe2\x96\x81b\xff")].concat();
    let inner = [1u32.to_le_bytes().to_vec(), f.word(2), vec![1, 2]].concat();
    let nested = [inner.clone(), inner].concat();
    version(version_number)
        .text("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .key("x.u8", U8, [7])
        .key("x.i8", 1, [0x80])
        .key("x.u16", U16, [1, 2])
        .key("x.i16", 3, [1, 0x80])
        .key("x.i32", I32, (-5i32).to_le_bytes())
        .key("x.f32", F32, 1.5f32.to_le_bytes())
        .key("x.bool", BOOL, [1])
        .key("x.u64", U64, u64::MAX.to_le_bytes())
        .key("x.i64", 11, i64::MIN.to_le_bytes())
        .key("x.f64", F64, f64::MAX.to_le_bytes())
        .key("x.raw", STRING, f.string(b"\xff\xfe"))
        .array("x.strings", STRING, 3, strings)
        .array("x.bools", BOOL, 3, [0, 1, 1])
        .array("x.u16s", U16, 3, [1, 0, 2, 0, 3, 0])
        .array("x.f64s", F64, 2, [0; 16])
        .array("x.nested", ARRAY, 2, nested)
        .array("x.empty", ARRAY, 0, [])
        .tensor("a.weight", &[32, 3], 8, 0)
        .tensor("b.weight", &[5], 0, 128)
        .data(148)
}

/// Bytes that a refused header of a few hundred bytes may take: its own, the maps', an error message.
const SMALL: usize = 64 << 10;

/// Parses and demands an error that holds `part`, cheaply, from the whole file and from single bytes alike.
pub(crate) fn refused(file: &File, part: &str) {
    let bytes = file.bytes();
    let (result, cost) = measure(|| Gguf::parse(&bytes));
    let error = result.expect_err("the file is accepted");
    assert!(error.to_string().contains(part), "expected {part:?} in {error:?}");
    let bound = SMALL + 8 * bytes.len();
    assert!(
        cost.peak < bound,
        "{} bytes for a file of {}",
        cost.peak,
        bytes.len()
    );
    assert!(cost.time.as_millis() < 1000, "{:?}", cost.time);
    assert_eq!(chunked(&bytes, 1, Some(bytes.len() as u64)), Err(error));
    // Without the file's length the announcement may be met only at the end, but it is met.
    assert!(
        chunked(&bytes, 7, None)
            .and_then(|gguf| gguf.check_data_len(bytes.len() as u64))
            .is_err()
    );
}

/// Parses in chunks of one size.
pub(crate) fn chunked(bytes: &[u8], size: usize, file_len: Option<u64>) -> Result<Gguf, Error> {
    let mut parser = match file_len {
        Some(total) => Parser::with_file_len(Limits::default(), total),
        None => Parser::new(Limits::default()),
    };
    // An empty file is one empty chunk.
    parser.push(&[])?;
    let mut before = 0;
    for chunk in bytes.chunks(size) {
        match parser.push(chunk)? {
            Status::NeedMore => before += chunk.len(),
            Status::Complete { consumed } => {
                let gguf = parser.finish()?;
                assert_eq!((before + consumed) as u64, gguf.header_len());
                return Ok(gguf);
            }
        }
    }
    parser.finish()
}

/// The fuzz target starts from these samples; `TWINFER_WRITE_SEEDS=1` writes them anew.
#[test]
fn fuzz_seeds_are_the_samples() {
    for version in [1, 2, 3] {
        let path = format!(
            "{}/../fuzz/seeds/gguf/v{version}.gguf",
            env!("CARGO_MANIFEST_DIR")
        );
        let bytes = sample(version).bytes();
        if std::env::var_os("TWINFER_WRITE_SEEDS").is_some() {
            std::fs::write(&path, &bytes).expect("the seed is written");
        }
        assert_eq!(std::fs::read(&path).expect("a seed"), bytes, "{path}");
    }
}
