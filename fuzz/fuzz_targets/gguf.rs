//! The GGUF parser on any bytes: no panic, bounded memory, tensor data inside the file; the same answer from the whole
//! as from chunks, errors included; and what it read, written again, reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinfer_engine::Result;
use twinfer_engine::gguf::{Gguf, Limits, ModelFile, Parser, Status, writer};
use twinfer_engine::memory::Bytes;
use twinfer_fuzz as _;

/// Parses in chunks whose sizes follow from `seed`.
fn chunked(data: &[u8], mut seed: u32) -> Result<Gguf> {
    let mut parser = Parser::with_file_len(Limits::default(), data.len() as u64);
    let mut rest = data;
    let mut status = parser.push(&[])?;
    while status == Status::NeedMore && !rest.is_empty() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (chunk, behind) = rest.split_at(rest.len().min((seed >> 27) as usize + 1));
        status = parser.push(chunk)?;
        rest = behind;
    }
    parser.finish()
}

fuzz_target!(|data: &[u8]| {
    let whole = Gguf::parse(data);
    let parts = chunked(data, data.len() as u32);
    let gguf = match (whole, parts) {
        (Ok(whole), Ok(parts)) => {
            assert_eq!(whole.tensors(), parts.tensors());
            whole
        }
        (whole, parts) => {
            // The errors are equal; one `Ok` beside one `Err` is not.
            assert_eq!(whole.map(drop), parts.map(drop));
            return;
        }
    };
    if let Ok(model) = ModelFile::from_parts(vec![Bytes::from_vec(data.to_vec())]) {
        for tensor in model.tensors() {
            let bytes = model
                .tensor_bytes(&tensor.name)
                .expect("the parser checked the range");
            assert_eq!(bytes.len() as u64, tensor.bytes);
        }
    }
    // Bytes rather than values: NaN differs from itself.
    let (written, _) = writer::header(gguf.metadata(), &[]).expect("what was read can be written");
    let again = Gguf::parse(&written).expect("what was written can be read");
    let (twice, _) = writer::header(again.metadata(), &[]).expect("what was read can be written");
    assert!(written == twice);
});
