//! The result does not depend on how the bytes are cut.

use std::time::Duration;

use proptest::prelude::*;
use twinfer_engine::gguf::{Gguf, Limits, Parser, Status, writer};

use crate::build::{chunked, file, sample};
use crate::memory::measure;
use crate::reference::{models, vocabularies};

/// Compares what two parses gave, floats by their bits.
fn assert_same(a: &Gguf, b: &Gguf, what: &str) {
    assert_eq!(a.tensors(), b.tensors(), "{what}");
    assert_eq!(
        (a.header_len(), a.data_offset()),
        (b.header_len(), b.data_offset()),
        "{what}"
    );
    assert_eq!(
        (a.version(), a.alignment()),
        (b.version(), b.alignment()),
        "{what}"
    );
    let bytes = |gguf: &Gguf| writer::header(gguf.metadata(), &[]).expect("metadata").0;
    assert!(bytes(a) == bytes(b), "{what}: metadata differs");
}

#[test]
fn reference_models_in_chunks() {
    let models = models();
    for (name, bytes) in &models {
        let whole = Gguf::parse(bytes).expect("a model");
        for size in [1, 7, 4096] {
            for file_len in [None, Some(bytes.len() as u64)] {
                let parts = chunked(bytes, size, file_len).expect("a model in chunks");
                assert_same(&whole, &parts, &format!("{name} by {size}"));
            }
        }
    }
    println!(
        "gguf: {} models in chunks of 1, 7 and 4096 as whole",
        models.len()
    );
}

#[test]
fn vocabularies_in_chunks() {
    let files = vocabularies();
    let mut slowest = (Duration::ZERO, 0);
    for (name, bytes) in &files {
        let (whole, cost) = measure(|| Gguf::parse(bytes));
        let whole = whole.unwrap_or_else(|error| panic!("{name}: {error}"));
        slowest = slowest.max((cost.time, bytes.len()));
        for size in [1, 7, 65536] {
            let parts = chunked(bytes, size, None).expect("a vocabulary in chunks");
            assert_same(&whole, &parts, &format!("{name} by {size}"));
        }
        assert_eq!(whole.tensors().len(), 0);
        assert!(
            cost.peak < 8 * bytes.len() + (64 << 10),
            "{name}: {} for {}",
            cost.peak,
            bytes.len()
        );
    }
    println!(
        "gguf: {} vocabularies in chunks as whole; slowest whole parse {slowest:?} bytes",
        files.len()
    );
}

/// Single bytes cost a constant each, also in the longest element: scanning 8 MiB anew for each byte would take hours.
#[test]
fn a_long_string_is_not_scanned_again_for_each_chunk() {
    let bytes = file()
        .text("tokenizer.chat_template", &"x".repeat(8 << 20))
        .bytes();
    let (result, cost) = measure(|| chunked(&bytes, 1, None));
    assert!(result.is_ok());
    println!("gguf: a string of 8 MiB by single bytes in {:?}", cost.time);
    assert!(cost.time < Duration::from_secs(10), "{:?}", cost.time);
}

/// 128,256 tokens, 280,147 merges, scores and types: the header of a Llama 3.
#[test]
fn a_large_vocabulary_parses_fast() {
    let f = file();
    let words = |n: usize, word: fn(usize) -> String| {
        let mut bytes = Vec::new();
        (0..n).for_each(|i| bytes.extend(f.string(word(i).as_bytes())));
        bytes
    };
    let bytes = file()
        .array(
            "tokenizer.ggml.tokens",
            8,
            128_256,
            words(128_256, |i| format!("tok{i}")),
        )
        .array(
            "tokenizer.ggml.merges",
            8,
            280_147,
            words(280_147, |i| format!("to k{i}")),
        )
        .array("tokenizer.ggml.token_type", 5, 128_256, vec![1; 4 * 128_256])
        .bytes();
    // The best of several: other tests run beside this one.
    let runs = || (0..5).map(|_| measure(|| Gguf::parse(&bytes)));
    let (whole, cost) = runs().min_by_key(|(_, cost)| cost.time).expect("five runs");
    let stream = measure(|| chunked(&bytes, 1 << 16, None));
    let single = measure(|| chunked(&bytes, 1, None));
    println!(
        "gguf: vocabulary of 128,256 in {} bytes: whole {:?}, chunks of 64 KiB {:?}, single bytes {:?}, peak {} bytes",
        bytes.len(),
        cost.time,
        stream.1.time,
        single.1.time,
        cost.peak
    );
    assert_eq!(whole.expect("a vocabulary"), stream.0.expect("a vocabulary"));
    assert!(single.0.is_ok());
    assert!(cost.time < Duration::from_secs(1));
    assert!(cost.peak < 4 * bytes.len());
}

#[test]
fn memory_follows_what_arrived_not_what_is_announced() {
    // A string of 200 MiB and an array of 10 million strings are announced; a stream of unknown length has yet to
    // bring them.
    let length = file().word(200 << 20);
    for bytes in [
        file().key("x", 8, length).bytes(),
        file().array("x", 8, 10 << 20, []).bytes(),
        file().array("x", 6, 40 << 20, []).bytes(),
        file().array("x", 9, 10 << 20, []).bytes(),
    ] {
        let mut parser = Parser::new(Limits::default());
        let (status, cost) = measure(|| parser.push(&bytes));
        assert_eq!(status, Ok(Status::NeedMore));
        assert!(cost.peak < 64 << 10, "{}", cost.peak);
        let (status, cost) = measure(|| parser.push(&[0; 4096]));
        assert_eq!(status, Ok(Status::NeedMore));
        assert!(cost.peak < 64 << 10, "{}", cost.peak);
        assert!(parser.finish().is_err());
    }
}

#[test]
fn status_says_where_the_header_ends() {
    let bytes = sample(3).bytes();
    let header = sample(3).header().len();
    let mut parser = Parser::new(Limits::default());
    assert_eq!(parser.push(&bytes[..10]), Ok(Status::NeedMore));
    assert_eq!(
        parser.push(&bytes[10..]),
        Ok(Status::Complete {
            consumed: header - 10
        })
    );
    assert_eq!(parser.push(&[1, 2, 3]), Ok(Status::Complete { consumed: 0 }));
    let gguf = parser.finish().expect("a header");
    assert_eq!(gguf.header_len(), header as u64);
    assert_eq!(gguf.data_offset(), header.next_multiple_of(32) as u64);
    assert_eq!(gguf.data_end(), bytes.len() as u64);
}

#[test]
fn an_error_stays() {
    let bytes = sample(3).key("x.u8", 0, [1]).bytes();
    let mut parser = Parser::new(Limits::default());
    let error = parser.push(&bytes).expect_err("a duplicate key");
    assert_eq!(parser.push(&[0; 8]), Err(error.clone()));
    assert_eq!(parser.finish(), Err(error));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any damage, any cuts: the same answer as from the whole, an error to the letter included.
    #[test]
    fn damaged_files_in_random_chunks(
        version in 1u32..=3,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in prop::collection::vec(1usize..40, 1..20),
    ) {
        let mut bytes = sample(version).bytes();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let mut parser = Parser::with_file_len(Limits::default(), bytes.len() as u64);
        let (mut rest, mut cut) = (bytes.as_slice(), cuts.iter().cycle());
        let mut status = parser.push(&[]);
        while let (Ok(Status::NeedMore), false) = (&status, rest.is_empty()) {
            let n = cut.next().copied().unwrap_or(1).min(rest.len());
            status = parser.push(&rest[..n]);
            rest = &rest[n..];
        }
        match (Gguf::parse(&bytes), parser.finish()) {
            (Ok(whole), Ok(parts)) => assert_same(&whole, &parts, "random chunks"),
            (Err(whole), Err(parts)) => prop_assert_eq!(whole, parts),
            (whole, parts) => prop_assert!(false, "{:?} and {:?}", whole, parts),
        }
    }

    /// Any bytes behind the magic.
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), version in 0u32..5) {
        let file = [b"GGUF".as_slice(), &version.to_le_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0], &bytes].concat();
        let (whole, cost) = measure(|| Gguf::parse(&file));
        prop_assert!(cost.peak < 64 << 10);
        prop_assert_eq!(whole.is_ok(), chunked(&file, 3, Some(file.len() as u64)).is_ok());
    }
}
