//! Vocabularies that cannot be used, that are odd, or that are made to be slow.

use std::fs;
use std::time::Instant;

use serde_json::Value as Json;
use twinfer_engine::Error;
use twinfer_engine::error::Class;
use twinfer_engine::gguf::{Array, Gguf, Metadata, Value};
use twinfer_engine::tokenizer::{TokenKind, Tokenizer};

use super::special_ids::SPECIAL_IDS;
use super::{PARSED, PLAIN, reference, small, strings, with};

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let refused = |m: Metadata, part: &str| {
        let error = Tokenizer::from_metadata(&m).expect_err(part);
        assert_eq!(error.class(), Class::Model, "{error}");
        let message = error.to_string();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    };
    let none = Metadata::new();
    refused(none, "tokenizer.ggml.model");
    refused(
        with(small("llama"), "model", Value::U32(1)),
        "tokenizer.ggml.model",
    );
    for model in ["xyz", "hybriddna", "no_vocab", ""] {
        refused(small(model), "supported: llama, gpt2, bert, gemma4, t5");
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
    for key in SPECIAL_IDS {
        let key = format!("{key}_token_id");
        for id in [Value::F32(1.0), Value::String("1".into())] {
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
fn special_ids_outside_the_vocabulary_count_as_absent() {
    let plain = Tokenizer::from_metadata(&small("llama")).unwrap();
    assert!(plain.notes().is_empty());
    let text = "abab <s> ab</s>";
    for key in SPECIAL_IDS {
        for id in [
            Value::U32(265),
            Value::U32(u32::MAX),
            Value::I32(-1),
            Value::I64(i64::MIN),
            Value::U64(u64::MAX),
        ] {
            let described = id.describe();
            let m = with(small("llama"), &format!("{key}_token_id"), id);
            let tokenizer = Tokenizer::from_metadata(&m).unwrap();
            let [note] = tokenizer.notes() else {
                panic!("{key} = {described}: {:?}", tokenizer.notes());
            };
            assert!(
                note.contains(&format!("`tokenizer.ggml.{key}_token_id`")),
                "{note}"
            );
            let specials = |t: &Tokenizer| {
                (
                    t.bos(),
                    t.eos(),
                    t.eot(),
                    t.unk(),
                    t.pad(),
                    t.sep(),
                    t.mask(),
                    t.fim(),
                )
            };
            assert_eq!(specials(&tokenizer), specials(&plain), "{key} = {described}");
            assert_eq!(tokenizer.end_tokens(), plain.end_tokens(), "{key} = {described}");
            assert_eq!(
                tokenizer.encode(text, PARSED).unwrap(),
                plain.encode(text, PARSED).unwrap()
            );
        }
    }
    // Of two spellings the one that can be meant counts.
    let m = with(small("llama"), "seperator_token_id", Value::U32(7));
    let m = with(m, "separator_token_id", Value::U32(u32::MAX));
    assert_eq!(Tokenizer::from_metadata(&m).unwrap().sep(), Some(7));
}

#[test]
fn suppressed_tokens_are_those_of_the_vocabulary() {
    let read = |value: Value| {
        let tokenizer = Tokenizer::from_metadata(&with(small("llama"), "suppress_tokens", value)).unwrap();
        (tokenizer.suppressed().to_vec(), tokenizer.notes().to_vec())
    };
    let ids = |ids: &[i32]| read(Value::Array(Array::I32(ids.to_vec())));
    assert_eq!(ids(&[]), (vec![], vec![]));
    assert_eq!(ids(&[7, 3, 7]), (vec![3, 7], vec![]));
    let (suppressed, notes) = ids(&[5, -1, 265, i32::MAX]);
    assert_eq!(suppressed, [5]);
    assert!(
        notes[0].contains("3 of 4 ids outside the vocabulary of 265 tokens"),
        "{notes:?}"
    );
    let (suppressed, notes) = read(Value::String("5".into()));
    assert!(
        suppressed.is_empty() && notes[0].contains("suppress_tokens"),
        "{notes:?}"
    );
    let (suppressed, notes) = read(Value::Array(Array::U32((0..265).collect())));
    assert!(
        suppressed.is_empty() && notes[0].contains("every token"),
        "{notes:?}"
    );
}

#[test]
fn what_the_file_has_no_token_for_is_not_added() {
    for key in ["add_bos_token", "add_eos_token"] {
        let m = with(small("gpt2"), key, Value::Bool(true));
        let tokenizer = Tokenizer::from_metadata(&m).unwrap();
        assert!(!tokenizer.add_bos() && !tokenizer.add_eos());
        let ids = |options| tokenizer.encode("abab ab", options).unwrap();
        assert_eq!(ids(PARSED), ids(PLAIN));
    }
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
        with(
            small("t5"),
            "scores",
            Value::Array(Array::F32(vec![f32::NEG_INFINITY; 265])),
        ),
        with(small("t5"), "tokens", strings(&[&b"\xe2\x96"[..]; 265])),
        with(small("rwkv"), "tokens", strings(&[&b"\\x"[..]; 265])),
        with(
            small("plamo2"),
            "scores",
            Value::Array(Array::F32(vec![f32::MAX; 265])),
        ),
        small("gpt2"),
        small("gemma4"),
        small("bert"),
        small("t5"),
        small("rwkv"),
        small("whitespace"),
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
        let outside = Error::TokenOutOfRange {
            token: 265,
            n_vocab: 265,
        };
        assert_eq!(tokenizer.decode(&[265], false), Err(outside));
        assert_eq!(tokenizer.token_bytes(265, true), None);
        assert_eq!(tokenizer.token_kind(u32::MAX), TokenKind::Unused);
    }
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
    for model in ["llama", "gpt2", "gemma4", "bert", "t5", "rwkv", "whitespace"] {
        // tokens that are found in the text before all else are so by the same code for every model
        let kinds: &[i32] = if ["t5", "rwkv", "whitespace"].contains(&model) {
            &[1]
        } else {
            &[1, 4]
        };
        for &kind in kinds {
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
