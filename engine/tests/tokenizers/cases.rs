//! The reference vocabularies: every case, decoding, time.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value as Json;
use twinfer_engine::gguf::Gguf;
use twinfer_engine::tokenizer::Tokenizer;

use super::{PARSED, PLAIN, is_lossless, streamed, vocabularies};

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

/// More vocabularies than are kept here: `NAME.gguf` with `NAME.cases.json` in the folder that `TWINFER_VOCABULARIES`
/// names.
#[test]
fn cases_of_ones_own() {
    let Some(folder) = std::env::var_os("TWINFER_VOCABULARIES").map(PathBuf::from) else {
        return;
    };
    let mut failed = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "gguf") {
            continue;
        }
        let gguf = Gguf::parse(&fs::read(&path).unwrap()).unwrap();
        let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
        let cases = fs::read_to_string(path.with_extension("cases.json")).unwrap();
        let cases: Json = serde_json::from_str(&cases).unwrap();
        let (mut total, mut passed) = (0, 0);
        for case in cases["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let mut found = tokenizer.encode(text, PLAIN).unwrap();
            let mut ids = ids;
            // with BOS and the like, where the case says so
            if let Ok(special) = serde_json::from_value::<Vec<u32>>(case["special"].clone()) {
                ids.extend(special);
                found.extend(tokenizer.encode(text, PARSED).unwrap());
            }
            total += 1;
            if found == ids {
                passed += 1;
            } else {
                println!(
                    "{}: {text:?}\n  expected {ids:?}\n  found    {found:?}",
                    path.display()
                );
            }
        }
        println!("{}: {passed} of {total} cases", path.display());
        failed += total - passed;
    }
    assert_eq!(failed, 0);
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
