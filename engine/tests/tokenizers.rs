//! Tokenizers against the reference vocabularies, and against the definition where the reference is silent.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value as Json;
use twinfer_engine::Error;
use twinfer_engine::gguf::{Array, Gguf, Metadata, Value};
use twinfer_engine::tokenizer::{EncodeOptions, TokenKind, Tokenizer};

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

/// A reference vocabulary: its file, the tokenizer, texts and their ids.
type Vocabulary = (String, Tokenizer, Vec<(String, Vec<u32>)>);

/// The reference folder's vocabularies, or nothing (and a line that says so).
fn vocabularies(test: &str) -> Vec<Vocabulary> {
    let folder = reference().join("tokenizers");
    let Ok(index) = fs::read_to_string(folder.join("index.json")) else {
        println!("{test}: left out, {} is not there", folder.display());
        return Vec::new();
    };
    let index: Json = serde_json::from_str(&index).unwrap();
    let mut all = Vec::new();
    for entry in index.as_array().unwrap() {
        let file = entry["file"].as_str().unwrap();
        let m = metadata(&format!("tokenizers/{file}.gz")).unwrap();
        let start = Instant::now();
        let tokenizer = Tokenizer::from_metadata(&m).unwrap();
        println!("{file}: loaded in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
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
    let mut decoder = tokenizer.stream_decoder(special).at_start();
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

#[test]
fn bos_and_eos_are_added_as_the_file_says() {
    // name, what add_special puts around a text
    let around: [(&str, &[u32], &[u32]); 6] = [
        ("llama-spm", &[1], &[]),
        ("llama-bpe", &[128_000], &[]),
        ("gpt-2", &[], &[]),
        ("qwen2", &[], &[]),
        ("gemma-4", &[2], &[]),
        ("bert-bge", &[101], &[102]),
    ];
    for (name, before, after) in around {
        let Some(tokenizer) = vocabulary(name) else { return };
        for text in ["", "Hello, world", "\n"] {
            let plain = tokenizer.encode(text, PLAIN).unwrap();
            let special = tokenizer.encode(text, PARSED).unwrap();
            assert_eq!(special, [before, &plain[..], after].concat(), "{name} {text:?}");
        }
    }
}

#[test]
fn control_tokens_are_read_from_a_text_only_on_request() {
    let Some(llama) = vocabulary("llama-bpe") else {
        return;
    };
    let text = "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>";
    let parsed = llama
        .encode(
            text,
            EncodeOptions {
                parse_special: true,
                ..PLAIN
            },
        )
        .unwrap();
    assert_eq!(parsed, [128_006, 882, 128_007, 271, 13_347, 128_009]);
    assert_eq!(llama.decode(&parsed, true).unwrap(), text.as_bytes());
    assert_eq!(llama.decode(&parsed, false).unwrap(), b"user\n\nHi");
    let plain = llama.encode(text, PLAIN).unwrap();
    assert!(
        plain.iter().all(|&id| llama.token_kind(id) == TokenKind::Normal),
        "{plain:?}"
    );
    assert_eq!(llama.decode(&plain, false).unwrap(), text.as_bytes());

    let Some(qwen) = vocabulary("qwen2") else { return };
    let parse = |text: &str| {
        qwen.encode(
            text,
            EncodeOptions {
                parse_special: true,
                ..PLAIN
            },
        )
        .unwrap()
    };
    for look_alike in [
        "<|im_start",
        "|im_start|>",
        "<|im_start |>",
        "<|im_st<|im_|>art|>",
        "<|IM_START|>",
    ] {
        let ids = parse(look_alike);
        assert!(!ids.contains(&151_644), "{look_alike}");
        assert_eq!(qwen.decode(&ids, true).unwrap(), look_alike.as_bytes());
    }
    // one inside another: the inner one is whole, what is around it is text
    let nested = parse("<|im_<|im_start|>start|>");
    assert_eq!(nested.iter().filter(|&&id| id == 151_644).count(), 1);
    assert_eq!(qwen.decode(&nested, true).unwrap(), b"<|im_<|im_start|>start|>");
    assert_eq!(parse("<|im_end|><|im_end|>"), [151_645, 151_645]);
}

#[test]
fn phi_3_special_tokens_swallow_the_white_space_after_them() {
    let Some(phi) = vocabulary("phi-3") else { return };
    let parse = |text: &str| {
        phi.encode(
            text,
            EncodeOptions {
                parse_special: true,
                ..PLAIN
            },
        )
        .unwrap()
    };
    assert_eq!(
        parse("<|user|> \n\t Hi<|end|>\n<|assistant|>"),
        parse("<|user|>Hi<|end|><|assistant|>")
    );
    assert_eq!(parse("<|user|>Hi"), [32_010, 6324]);
    // but not <s>
    assert_ne!(parse("<s>\nHi"), parse("<s>Hi"));
}

#[test]
fn ends_of_a_generation() {
    let ends: [(&str, &[&str]); 5] = [
        ("llama-spm", &["</s>"]),
        ("llama-bpe", &["<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"]),
        ("qwen2", &["<|im_end|>", "<|endoftext|>"]),
        ("gemma-4", &["<eos>", "<turn|>"]),
        ("phi-3", &["<|end|>", "<|endoftext|>"]),
    ];
    for (name, texts) in ends {
        let Some(tokenizer) = vocabulary(name) else { return };
        for text in texts {
            // this file's vocabulary calls <|eom_id|> by a reserved name
            let Some(id) = tokenizer.find_token(text.as_bytes()) else {
                assert_eq!(*text, "<|eom_id|>");
                continue;
            };
            assert!(tokenizer.is_end(id), "{name} {text}");
            assert_eq!(tokenizer.token_kind(id), TokenKind::Control, "{name} {text}");
        }
        assert!(tokenizer.is_end(tokenizer.eos().unwrap()));
        assert!(!tokenizer.is_end(tokenizer.encode("word", PLAIN).unwrap()[0]));
        assert!(!tokenizer.is_end(u32::MAX));
    }
}

#[test]
fn spm_puts_a_space_before_a_text_and_takes_it_away() {
    let Some(llama) = vocabulary("llama-spm") else {
        return;
    };
    assert!(llama.add_space_prefix() && llama.add_bos() && !llama.add_eos());
    assert_eq!(llama.encode("Hello", PARSED).unwrap(), [1, 15_043]);
    assert_eq!(llama.token_bytes(15_043, false), Some(&b" Hello"[..]));
    assert_eq!(llama.token_text(15_043), Some("\u{2581}Hello".as_bytes()));
    assert_eq!(llama.decode(&[1, 15_043, 15_043], false).unwrap(), b"Hello Hello");
    assert_eq!(llama.decode(&[1, 15_043], true).unwrap(), b"<s>Hello");
    // a continuation keeps its space
    assert_eq!(llama.stream_decoder(false).push(15_043), " Hello");
    assert_eq!(llama.encode("</s>Hello", PARSED).unwrap(), [1, 2, 15_043]);
    let Some(bert) = vocabulary("bert-bge") else {
        return;
    };
    let ids = bert.encode("Hello,  W\u{f6}rld", PARSED).unwrap();
    assert_eq!(bert.decode(&ids, false).unwrap(), b"hello , world");
    assert_eq!(llama.nl(), Some(13));
    assert_eq!(llama.token_kind(13), TokenKind::Byte);
}

#[test]
fn streaming_waits_for_whole_characters() {
    let Some(llama) = vocabulary("llama-spm") else {
        return;
    };
    let ids = llama.encode("a\u{1f999}b", PLAIN).unwrap();
    let mut decoder = llama.stream_decoder(false).at_start();
    let steps: Vec<String> = ids.iter().map(|&id| decoder.push(id).to_string()).collect();
    assert_eq!(steps.concat(), "a\u{1f999}b");
    assert_eq!(steps, ["a", "", "", "", "\u{1f999}", "b"]);
    // a character that is broken off, then one that goes on
    let byte = |byte: u8| llama.find_token(format!("<0x{byte:02X}>").as_bytes()).unwrap();
    let mut decoder = llama.stream_decoder(false);
    assert_eq!(decoder.push(byte(0xf0)), "");
    assert_eq!(decoder.push(byte(0x9f)), "");
    assert_eq!(decoder.push(byte(b'x')), "\u{fffd}x");
    assert_eq!(decoder.push(byte(0xff)), "\u{fffd}");
    assert_eq!(decoder.push(byte(0xc3)), "");
    assert_eq!(decoder.flush(), "\u{fffd}");
    assert_eq!(decoder.flush(), "");
    assert_eq!(decoder.push(byte(b'y')), "y");
    assert_eq!(decoder.push(u32::MAX), "");
}

/// Metadata of a small vocabulary of bytes, ASCII letters and a few words.
fn small(model: &str) -> Metadata {
    let mut tokens: Vec<Box<[u8]>> = ["<unk>", "<s>", "</s>"].map(|text| text.as_bytes().into()).into();
    let mut types = vec![2, 3, 3];
    for byte in 0..=255 {
        tokens.push(format!("<0x{byte:02X}>").into_bytes().into());
        types.push(6);
    }
    for text in ["a", "b", "ab", "abab", "\u{2581}", "\u{2581}a"] {
        tokens.push(text.as_bytes().into());
        types.push(1);
    }
    let mut m = Metadata::new();
    let scores = (0..tokens.len()).map(|i| -(i as f32)).collect();
    let merges: [Box<[u8]>; 3] = [&b"a b"[..], b"ab ab", b"x y"].map(Into::into);
    m.insert("tokenizer.ggml.model", Value::String(model.into()));
    m.insert("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    m.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    m.insert(
        "tokenizer.ggml.merges",
        Value::Array(Array::Strings(merges.into())),
    );
    m
}

fn with(mut m: Metadata, key: &str, value: Value) -> Metadata {
    m.insert(format!("tokenizer.ggml.{key}"), value);
    m
}

fn strings(texts: &[&[u8]]) -> Value {
    Value::Array(Array::Strings(texts.iter().map(|&text| text.into()).collect()))
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let refused = |m: Metadata, part: &str| {
        let message = Tokenizer::from_metadata(&m).expect_err(part).to_string();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    };
    let none = Metadata::new();
    refused(none, "tokenizer.ggml.model");
    refused(
        with(small("llama"), "model", Value::U32(1)),
        "tokenizer.ggml.model",
    );
    for model in ["xyz", "t5", "rwkv", "plamo2", "no_vocab", ""] {
        refused(small(model), "supported: llama, gpt2, bert, gemma4");
    }
    refused(
        with(small("gpt2"), "pre", Value::String("xyz".into())),
        "pre-tokenizer `xyz`",
    );
    let mut no_tokens = Metadata::new();
    no_tokens.insert("tokenizer.ggml.model", Value::String("llama".into()));
    refused(no_tokens.clone(), "`tokenizer.ggml.tokens` is missing");
    refused(with(no_tokens, "tokens", strings(&[])), "tokenizer.ggml.tokens");
    refused(
        with(small("llama"), "tokens", Value::U8(1)),
        "tokenizer.ggml.tokens",
    );
    for key in ["token_type", "scores"] {
        refused(
            with(small("llama"), key, Value::Array(Array::I32(vec![1; 4]))),
            "found 4 entries",
        );
    }
    for key in [
        "bos",
        "eos",
        "eot",
        "unknown",
        "padding",
        "seperator",
        "mask",
        "fim_pre",
        "eom",
    ] {
        for id in [
            Value::U32(265),
            Value::U32(u32::MAX),
            Value::I32(-1),
            Value::U64(1 << 32),
        ] {
            let key = format!("{key}_token_id");
            refused(with(small("llama"), &key, id), &format!("`tokenizer.ggml.{key}`"));
        }
    }
    for text in ["<0x+1>", "<0x-1>", "<0x>", "<0x1", "", "x"] {
        let m = with(small("llama"), "tokens", strings(&[text.as_bytes()]));
        refused(
            with(m, "token_type", Value::Array(Array::I32(vec![6]))),
            "`<0xXX>`",
        );
    }
    refused(
        with(small("llama"), "tokens", strings(&[&[b'x'; 5000]])),
        "over the limit: 5000",
    );
    let add = |key: &str| with(small("gpt2"), key, Value::Bool(true));
    refused(add("add_bos_token"), "tokenizer.ggml.bos_token_id");
    refused(add("add_eos_token"), "tokenizer.ggml.eos_token_id");
    refused(
        with(small("llama"), "add_bos_token", Value::U8(1)),
        "tokenizer.ggml.add_bos_token",
    );
    let mut no_merges = Metadata::new();
    for (key, value) in small("gpt2").iter().filter(|(key, _)| !key.ends_with("merges")) {
        no_merges.insert(key, value.clone());
    }
    refused(no_merges, "tokenizer.ggml.merges");
}

#[test]
fn odd_vocabularies_do_no_harm() {
    let texts = [
        "",
        "abab ab",
        "\u{1f999}\0\r\n",
        "<s></s><unk>",
        "[EMPTY_0]",
        "\u{2581}",
    ];
    let all = [
        with(
            small("llama"),
            "scores",
            Value::Array(Array::F32(vec![f32::NAN; 265])),
        ),
        with(
            small("llama"),
            "token_type",
            Value::Array(Array::I32(vec![99; 265])),
        ),
        with(
            small("llama"),
            "token_type",
            Value::Array(Array::I64(vec![i64::MIN; 265])),
        ),
        // no byte tokens, equal tokens, empty tokens, tokens that are not UTF-8
        with(small("llama"), "tokens", strings(&[&b"a"[..]; 265])),
        with(small("llama"), "tokens", strings(&[&b""[..]; 265])),
        with(small("gpt2"), "tokens", strings(&[&b"\xff\xfe"[..]; 265])),
        with(small("gemma4"), "tokens", strings(&[&b"\xe2\x96"[..]; 265])),
        with(small("bert"), "tokens", strings(&[&b"\xe2\x96\x81"[..]; 265])),
        with(
            small("gpt2"),
            "merges",
            strings(&[b"", b" ", b"a", b" a", b"a ", b"a  b", b"\xff \xff", b"a b c"]),
        ),
        with(small("gemma4"), "merges", strings(&[])),
        small("gpt2"),
        small("gemma4"),
        small("bert"),
    ];
    for mut m in all {
        // byte tokens that are not are refused, which another test shows
        if !matches!(m.get("tokenizer.ggml.tokens"), Some(Value::Array(Array::Strings(t))) if t.len() > 1 && *t[5] == *b"<0x02>")
        {
            m.insert(
                "tokenizer.ggml.token_type",
                Value::Array(Array::I32(vec![1; 265])),
            );
        }
        let tokenizer = Tokenizer::from_metadata(&m).unwrap();
        for text in texts {
            for opts in [PLAIN, PARSED] {
                let ids = tokenizer.encode(text, opts).unwrap();
                assert!(
                    ids.iter().all(|&id| (id as usize) < tokenizer.n_vocab()),
                    "{text:?}: {ids:?}"
                );
                tokenizer.decode(&ids, true).unwrap();
            }
        }
        assert!(matches!(
            tokenizer.decode(&[265], false),
            Err(Error::Tokenizer { .. })
        ));
        assert_eq!(tokenizer.token_bytes(265, true), None);
        assert_eq!(tokenizer.token_kind(u32::MAX), TokenKind::Unused);
    }
}

#[test]
fn user_defined_tokens_are_found_longest_first() {
    let tokens = [
        "<unk>", "ab", "abc", "cdef", "x", "yy", "a", "b", "c", "d", "e", "f", "y",
    ];
    let mut m = Metadata::new();
    m.insert("tokenizer.ggml.model", Value::String("llama".into()));
    m.insert("tokenizer.ggml.tokens", strings(&tokens.map(str::as_bytes)));
    let types = (0..tokens.len())
        .map(|i| if (1..6).contains(&i) { 4 } else { 1 })
        .collect();
    m.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    m.insert("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    m.insert("tokenizer.ggml.add_bos_token", Value::Bool(false));
    let tokenizer = Tokenizer::from_metadata(&m).unwrap();
    let texts = |text: &str| {
        let ids = tokenizer.encode(text, PLAIN).unwrap();
        ids.iter().map(|&id| tokens[id as usize]).collect::<Vec<_>>()
    };
    // the longest token of the text first, wherever it stands; the shorter ones in what it leaves
    assert_eq!(texts("abcdef"), ["ab", "cdef"]);
    assert_eq!(texts("abcabcde"), ["abc", "abc", "d", "e"]);
    assert_eq!(texts("yyyxyy"), ["yy", "y", "x", "yy"]);
    assert_eq!(texts("acdefx"), ["a", "cdef", "x"]);
}

#[test]
fn hostile_vocabularies_are_refused_or_harmless() {
    let folder = reference().join("gguf-bad");
    let Ok(index) = fs::read_to_string(folder.join("index.json")) else {
        println!(
            "hostile vocabularies: left out, {} is not there",
            folder.display()
        );
        return;
    };
    let index: Json = serde_json::from_str(&index).unwrap();
    // files whose fault lies in the vocabulary, where a header can be read at all
    let ours = [
        "tokens-missing",
        "tokens-empty",
        "types-short",
        "tok-model-unknown",
        "tok-gpt2-no-merges",
    ];
    let (mut total, mut refused) = (0, 0);
    for case in index["cases"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let Ok(gguf) = Gguf::parse(&fs::read(folder.join(file)).unwrap()) else {
            continue;
        };
        let result = Tokenizer::from_metadata(gguf.metadata());
        total += 1;
        refused += u32::from(result.is_err());
        let name = file.trim_start_matches("files/").trim_end_matches(".gguf");
        if ours.contains(&name) {
            println!("{name}: {}", result.as_ref().unwrap_err());
        } else if case["expect"] == "accept" {
            assert!(result.is_ok(), "{name}: {result:?}");
        }
        if let Ok(tokenizer) = result {
            tokenizer.encode("Once upon a time \u{1f999}", PARSED).unwrap();
        }
    }
    println!("hostile vocabularies: {refused} of {total} readable headers refused");
}

/// One vocabulary of each kind and pre-tokenizer family.
fn samples() -> &'static [Tokenizer] {
    static SAMPLES: OnceLock<Vec<Tokenizer>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let names = [
            "llama-spm",
            "gpt-2",
            "llama-bpe",
            "deepseek-llm",
            "falcon",
            "gemma-4",
            "bert-bge",
        ];
        names.iter().filter_map(|name| vocabulary(name)).collect()
    })
}

/// Texts of pieces that pre-tokenizers treat differently.
fn odd_text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\u{a0}",
        "\u{3000}",
        "\0",
        "'",
        "'s",
        "'LL",
        "a",
        "Z",
        "word",
        "\u{df}",
        "\u{c9}",
        "e\u{301}",
        "0",
        "12",
        "3456",
        "\u{bd}",
        "\u{663}",
        ".",
        "...",
        "!?",
        "_",
        "/",
        "<|im_start|>",
        "<|im_end",
        "<s>",
        "</s>",
        "<bos>",
        "[MASK]",
        "\u{4e2d}\u{6587}",
        "\u{3042}",
        "\u{d55c}\u{ae00}",
        "\u{1112}\u{1161}\u{11ab}",
        "\u{e01}\u{e33}",
        "\u{928}\u{93f}",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "\u{1f1e9}\u{1f1ea}",
        "\u{1f999}",
        "\u{feff}",
        "\u{fffd}",
        "\u{10ffff}",
        "\u{e000}",
        "<0x41>",
    ]);
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 192,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_is_encoded_and_comes_back(text in prop_oneof![any::<String>(), odd_text()], parse: bool) {
        // U+2581 stands for a space in vocabularies that have it, so it does not come back
        let text = text.replace('\u{2581}', "");
        for tokenizer in samples() {
            let opts = EncodeOptions { add_special: parse, parse_special: parse };
            let ids = tokenizer.encode(&text, opts).unwrap();
            let bytes = tokenizer.decode(&ids, true).unwrap();
            prop_assert_eq!(streamed(tokenizer, &ids, true), String::from_utf8_lossy(&bytes));
            if is_lossless(tokenizer) && !parse {
                prop_assert_eq!(String::from_utf8_lossy(&bytes), text.as_str(), "{:?}", tokenizer);
            }
        }
    }

    #[test]
    fn any_ids_are_decoded(ids in prop::collection::vec(0..30_000u32, 0..40)) {
        for tokenizer in samples() {
            for special in [false, true] {
                let bytes = tokenizer.decode(&ids, special).unwrap();
                prop_assert_eq!(streamed(tokenizer, &ids, special), String::from_utf8_lossy(&bytes));
            }
        }
    }
}

/// Joins pairs by the definition: of all adjacent pairs the one with the lowest rank, leftmost first.
fn join_naively(mut parts: Vec<String>, rank: impl Fn(&str, &str) -> Option<usize>) -> Vec<String> {
    loop {
        let pairs = parts.windows(2).enumerate();
        let best = pairs
            .filter_map(|(i, pair)| Some((rank(&pair[0], &pair[1])?, i)))
            .min();
        let Some((_, i)) = best else { return parts };
        let right = parts.remove(i + 1);
        parts[i].push_str(&right);
    }
}

fn letters(text: &str) -> Vec<String> {
    text.chars().map(String::from).collect()
}

proptest! {
    #[test]
    fn spm_joins_as_the_definition_says(
        longer in prop::collection::btree_set("[ab \u{e9}]{2,5}", 0..20),
        seed in prop::collection::vec(0..6u8, 24),
        text in prop_oneof!["[ab \u{e9}]{0,20}", "[ab ]{60,90}"],
        space_prefix: bool,
    ) {
        let mark = |text: &str| text.replace(' ', "\u{2581}");
        let tokens: Vec<String> =
            ["a", "b", " ", "\u{e9}"].into_iter().map(mark).chain(longer.iter().map(|t| mark(t))).collect();
        let scores: Vec<f32> = (0..tokens.len()).map(|i| -f32::from(seed[i])).collect();
        let mut m = Metadata::new();
        m.insert("tokenizer.ggml.model", Value::String("llama".into()));
        m.insert("tokenizer.ggml.tokens", strings(&tokens.iter().map(|t| t.as_bytes()).collect::<Vec<_>>()));
        m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
        m.insert("tokenizer.ggml.add_space_prefix", Value::Bool(space_prefix));
        let tokenizer = Tokenizer::from_metadata(&m).unwrap();
        let prefixed = if space_prefix && !text.is_empty() { format!(" {text}") } else { text.clone() };
        let expected = join_naively(letters(&mark(&prefixed)), |left, right| {
            let id = tokens.iter().position(|token| *token == format!("{left}{right}"))?;
            Some(usize::from(seed[id]))
        });
        let ids = tokenizer.encode(&text, PLAIN).unwrap();
        let found: Vec<String> = ids.iter().map(|&id| tokens[id as usize].clone()).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.as_bytes());
    }

    #[test]
    fn bpe_merges_as_the_definition_says(
        merges in prop::collection::vec(("[ab]{1,3}", "[ab]{1,3}"), 0..24),
        text in prop_oneof!["[ab]{0,20}", "[ab]{60,90}"],
    ) {
        let mut tokens = vec!["a".to_string(), "b".to_string()];
        tokens.extend(merges.iter().map(|(left, right)| format!("{left}{right}")));
        tokens.sort();
        tokens.dedup();
        let lines: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        let mut m = Metadata::new();
        m.insert("tokenizer.ggml.model", Value::String("gpt2".into()));
        m.insert("tokenizer.ggml.pre", Value::String("gpt-2".into()));
        m.insert("tokenizer.ggml.tokens", strings(&tokens.iter().map(|t| t.as_bytes()).collect::<Vec<_>>()));
        m.insert("tokenizer.ggml.merges", strings(&lines.iter().map(|t| t.as_bytes()).collect::<Vec<_>>()));
        let tokenizer = Tokenizer::from_metadata(&m).unwrap();
        let expected = join_naively(letters(&text), |left, right| {
            merges.iter().position(|(l, r)| l == left && r == right)
        });
        let ids = tokenizer.encode(&text, PLAIN).unwrap();
        let found: Vec<String> = ids.iter().map(|&id| tokens[id as usize].clone()).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_tokenizer_is_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Tokenizer>();
    fn sent<T: Send + 'static>() {}
    sent::<twinfer_engine::tokenizer::StreamDecoder>();
}

#[test]
fn vocabularies_made_to_be_slow_are_not() {
    let mut tokens: Vec<Vec<u8>> = vec![b"<unk>".to_vec(), b"b".to_vec()];
    tokens.extend((1..256).map(|n| [&vec![b'a'; n][..], b"c"].concat()));
    tokens.extend((1..256).map(|n| vec![b'a'; n]));
    tokens.push(vec![b'a'; 4096]);
    let texts: Vec<&[u8]> = tokens.iter().map(|t| &t[..]).collect();
    let merges: Vec<Vec<u8>> = (1..256).map(|n| [&vec![b'a'; n][..], b" a"].concat()).collect();
    let merges: Vec<&[u8]> = merges.iter().map(|t| &t[..]).collect();
    let text = "a".repeat(300_000);
    for model in ["llama", "gpt2", "gemma4", "bert"] {
        for kind in [1, 4] {
            let mut m = Metadata::new();
            m.insert("tokenizer.ggml.model", Value::String(model.into()));
            m.insert("tokenizer.ggml.tokens", strings(&texts));
            m.insert("tokenizer.ggml.merges", strings(&merges));
            m.insert(
                "tokenizer.ggml.token_type",
                Value::Array(Array::I32(vec![kind; tokens.len()])),
            );
            let tokenizer = Tokenizer::from_metadata(&m).unwrap();
            let start = Instant::now();
            let ids = tokenizer.encode(&text, PLAIN).unwrap();
            let took = start.elapsed();
            println!(
                "{model}, type {kind}: {} tokens in {:.0} ms",
                ids.len(),
                took.as_secs_f64() * 1e3
            );
            assert!(took.as_secs() < 20, "{model}, type {kind}: {took:?}");
        }
    }
}
