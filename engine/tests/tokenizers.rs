//! Tokenizers against the reference vocabularies, and against the definition where the reference is silent.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value as Json;
use twinfer_engine::gguf::{Gguf, Metadata};
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

const PLAIN: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: false,
};
const PARSED: EncodeOptions = EncodeOptions {
    add_special: true,
    parse_special: true,
};

fn reference() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference"))
}

/// The reference folder's vocabularies, or nothing (and a line that says so).
fn vocabularies(test: &str) -> Vec<(String, Tokenizer, Vec<(String, Vec<u32>)>)> {
    let folder = reference().join("tokenizers");
    let Ok(index) = fs::read_to_string(folder.join("index.json")) else {
        println!("{test}: left out, {} is not there", folder.display());
        return Vec::new();
    };
    let index: Json = serde_json::from_str(&index).unwrap();
    let mut all = Vec::new();
    for entry in index.as_array().unwrap() {
        let file = entry["file"].as_str().unwrap();
        let tokenizer =
            Tokenizer::from_metadata(&metadata(&format!("tokenizers/{file}.gz")).unwrap()).unwrap();
        let cases = fs::read_to_string(folder.join(entry["cases_json"].as_str().unwrap())).unwrap();
        let cases: Json = serde_json::from_str(&cases).unwrap();
        let cases = cases["cases"].as_array().unwrap().iter().map(|case| {
            let ids = case["ids"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_u64().unwrap() as u32);
            (case["text"].as_str().unwrap().to_string(), ids.collect())
        });
        all.push((file.to_string(), tokenizer, cases.collect()));
    }
    all
}

/// The tokenizer of one reference vocabulary.
fn vocabulary(name: &str) -> Option<Tokenizer> {
    match metadata(&format!("tokenizers/ggml-vocab-{name}.gguf.gz")) {
        Some(m) => Some(Tokenizer::from_metadata(&m).unwrap()),
        None => {
            println!("left out: the vocabulary {name} is not there");
            None
        }
    }
}

fn metadata(path: &str) -> Option<Metadata> {
    let bytes = fs::read(reference().join(path)).ok()?;
    let bytes = if path.ends_with(".gz") {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut out)
            .unwrap();
        out
    } else {
        bytes
    };
    Some(Gguf::parse(&bytes).unwrap().metadata().clone())
}

/// Whether decoding gives back what was encoded.
fn is_lossless(tokenizer: &Tokenizer) -> bool {
    tokenizer.model_name() != "bert"
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: bool) -> String {
    let mut decoder = tokenizer.stream_decoder(special).at_start(tokenizer);
    let mut text: String = ids.iter().map(|&id| decoder.push(id).to_string()).collect();
    text.push_str(decoder.flush());
    text
}

#[test]
fn reference_cases() {
    let (mut total, mut passed) = (0, 0);
    let all = vocabularies("tokenizers");
    for (file, tokenizer, cases) in &all {
        for (text, ids) in cases {
            total += 1;
            let found = tokenizer.encode(text, PLAIN).unwrap();
            if found == *ids {
                passed += 1;
            } else {
                println!("{file}: {text:?}\n  expected {ids:?}\n  found    {found:?}");
            }
        }
    }
    println!(
        "tokenizers: {passed} of {total} cases over {} vocabularies",
        all.len()
    );
    assert_eq!(passed, total);
}

#[test]
fn decoding_gives_the_text_back_whole_and_streamed() {
    for (file, tokenizer, cases) in &vocabularies("round trips") {
        for (text, ids) in cases {
            let bytes = tokenizer.decode(ids, false).unwrap();
            if is_lossless(tokenizer) {
                assert_eq!(String::from_utf8_lossy(&bytes), *text, "{file}");
            }
            assert_eq!(
                streamed(tokenizer, ids, false),
                String::from_utf8_lossy(&bytes),
                "{file} {text:?}"
            );
            let mut continued = tokenizer.stream_decoder(false);
            let mut pieces: String = ids.iter().map(|&id| continued.push(id).to_string()).collect();
            pieces.push_str(continued.flush());
            let whole: Vec<u8> = ids
                .iter()
                .flat_map(|&id| tokenizer.token_bytes(id, false).unwrap().to_vec())
                .collect();
            assert_eq!(pieces, String::from_utf8_lossy(&whole), "{file} {text:?}");
        }
    }
}

#[test]
fn a_megabyte_takes_well_under_a_second() {
    let prose = "Once upon a time there was a small engine that could; it read 1,234 words (or so) a day.\n\n\
        \tНещо на Български, 日本語のテキスト、한국어 텍스트 🦙 — naïve café costs 3.50€!  \r\n";
    let texts: [(&str, String); 7] = [
        ("prose", prose.repeat(1_000_000 / prose.len())),
        ("letters", "a".repeat(1_000_000)),
        ("spaces", " ".repeat(1_000_000)),
        ("line feeds", "\n".repeat(1_000_000)),
        (
            "mixed letters",
            (0..1_000_000u32)
                .map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
                .collect(),
        ),
        ("CJK", "日本語漢字".repeat(66_000)),
        ("combining", "e\u{301}".repeat(333_000)),
    ];
    for (file, tokenizer, _) in &vocabularies("timing") {
        let mut line = String::new();
        for (name, text) in &texts {
            let start = Instant::now();
            let ids = tokenizer.encode(text, PLAIN).unwrap();
            let took = start.elapsed();
            line += &format!(
                " {name} {:.0} ms ({} tokens);",
                took.as_secs_f64() * 1e3,
                ids.len()
            );
            assert!(took.as_secs() < 20, "{file}: {name} took {took:?}");
            if is_lossless(tokenizer) {
                assert!(
                    tokenizer.decode(&ids, false).unwrap() == text.as_bytes(),
                    "{file} {name}"
                );
            }
        }
        println!("{file}: 1 MB:{line}");
    }
}
