//! Vocabularies that do not hold together: arrays of different lengths, ids outside, merges and bytes that mean
//! nothing.

use twinfer_engine::gguf::{Array, Value};

use crate::small::{ARCHITECTURES, Small, strings};
use crate::special_ids::SPECIAL_IDS;

fn ints(values: Vec<i32>) -> Value {
    Value::Array(Array::I32(values))
}

fn tokens(base: &Small) -> Vec<Vec<u8>> {
    match base.get(":tokens") {
        Value::Array(Array::Strings(tokens)) => tokens.iter().map(|t| t.to_vec()).collect(),
        other => panic!("{other:?}"),
    }
}

/// The vocabulary as byte pairs: 48 entries, two merges.
fn byte_pairs() -> Small {
    Small::read("llama-gqa")
        .without(":scores")
        .set(":model", Value::String("gpt2".into()))
        .set(":pre", Value::String("gpt-2".into()))
        .set(":merges", strings(&["a b", "b c"]))
}

#[test]
fn special_ids() {
    let mut count = 0;
    for base in [Small::read("llama-gqa"), byte_pairs()] {
        for key in SPECIAL_IDS {
            let key = format!(":{key}_token_id");
            for value in [
                Value::F32(1.0),
                Value::String("1".into()),
                Value::Bool(true),
                Value::Array(Array::I32(vec![1])),
            ] {
                let what = format!("{key} = {}", value.describe());
                base.clone().set(&key, value).refused(&what, &key[1..]);
                count += 1;
            }
            // An id outside the vocabulary counts as absent.
            for value in [
                Value::U32(47),
                Value::U32(48),
                Value::U32(99_999),
                Value::U32(u32::MAX),
                Value::U64(1 << 32),
                Value::I32(-1),
            ] {
                base.clone().set(&key, value).accepted(&key);
            }
        }
        for key in [":add_bos_token", ":add_eos_token", ":add_space_prefix"] {
            for value in [Value::U32(1), Value::String("true".into())] {
                base.clone().set(key, value).refused(key, &key[1..]);
                count += 1;
            }
        }
    }
    println!("hostile: {count} of {count} special ids and flags refused");
}

#[test]
fn arrays_of_the_wrong_length_or_type() {
    let mut count = 0;
    for name in ARCHITECTURES {
        let base = Small::read(name);
        for n in [0, 1, 47] {
            let what = format!("{n} entries");
            base.clone()
                .set(":scores", Value::Array(Array::F32(vec![0.0; n])))
                .refused(&what, "tokenizer.ggml.scores");
            base.clone()
                .set(":token_type", ints(vec![1; n]))
                .refused(&what, "tokenizer.ggml.token_type");
            count += 2;
        }
        for wrong in [Value::U32(1), strings(&["1"; 48]), Value::String("x".into())] {
            base.clone()
                .set(":scores", wrong.clone())
                .refused("scores", "tokenizer.ggml.scores");
            base.clone()
                .set(":token_type", wrong)
                .refused("types", "tokenizer.ggml.token_type");
            count += 2;
        }
        for wrong in [
            ints(vec![1; 48]),
            Value::U32(48),
            strings::<&str>(&[]),
            Value::Array(Array::Arrays(vec![])),
        ] {
            base.clone()
                .set(":tokens", wrong)
                .refused("tokens", "tokenizer.ggml.tokens");
            count += 1;
        }
        // More or fewer tokens than the embedding has rows.
        for n in [47, 49] {
            let mut all = tokens(&base);
            all.resize(n, b"new".to_vec());
            let small = base.clone().set(":tokens", strings(&all));
            let small = small
                .set(":scores", Value::Array(Array::F32(vec![0.0; n])))
                .set(":token_type", ints(vec![1; n]));
            small.refused(&format!("{n} tokens"), "token_embd.weight");
            count += 1;
        }
        for model in ["xyz", "", "t6", "no_vocab"] {
            base.clone()
                .set(":model", Value::String(model.into()))
                .refused(model, "tokenizer.ggml.model");
            count += 1;
        }
    }
    println!("hostile: {count} of {count} vocabularies refused");
}

#[test]
fn entries() {
    let base = Small::read("llama-gqa");
    let with = |id: usize, text: &[u8]| {
        let mut all = tokens(&base);
        all[id] = text.to_vec();
        base.clone().set(":tokens", strings(&all))
    };
    // Any bytes may be a token: empty, repeated, not UTF-8, a prefix of a special one.
    for text in [
        &b""[..],
        b"a",
        b"\xff\xfe",
        b"\0",
        b"<s",
        b"<s><s>",
        &[0x81; 4096],
        "\u{2581}".repeat(1000).as_bytes(),
    ] {
        with(20, text).accepted("an odd token");
    }
    with(20, &[b'a'; 4097]).refused("a token of 4097 bytes", "token 20");
    with(20, &vec![b'a'; 1 << 20]).refused("a token of 1 MiB", "token 20");
    // Token 3 is marked as a byte.
    for text in [
        "<0x+A>", "<0x-1>", "<0x A>", "<0xA>", "<0x0A", "0x0A", "<0x00A>", "<0xGG>", "<0X0A>", "", "\n",
        "<0x０A>",
    ] {
        with(3, text.as_bytes()).refused(&format!("byte token {text:?}"), "token 3");
    }
    let all_bytes = base.clone().set(":token_type", ints(vec![6; 48]));
    all_bytes.refused("every token a byte", "a byte token");
    // Every kind of token, known or not.
    for ty in [0, 2, 3, 4, 5, 7, 99, -1, i32::MIN, i32::MAX] {
        base.clone()
            .set(":token_type", ints(vec![ty; 48]))
            .accepted("all of one type");
    }
    for score in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX] {
        let scores = Value::Array(Array::F32(vec![score; 48]));
        base.clone().set(":scores", scores).accepted("all of one score");
    }
}

#[test]
fn merges() {
    let base = byte_pairs();
    base.accepted("byte pairs");
    base.clone()
        .without(":merges")
        .refused("no merges", "tokenizer.ggml.merges");
    for wrong in [
        ints(vec![1]),
        Value::String("a b".into()),
        Value::Array(Array::Arrays(vec![])),
    ] {
        base.clone()
            .set(":merges", wrong)
            .refused("merges", "tokenizer.ggml.merges");
    }
    // Lines that mean nothing are passed over, as every reader of such files does.
    for odd in [
        "",
        " ",
        "  ",
        "a",
        "a ",
        " b",
        "xx yy",
        "a b c",
        "a  b",
        "\u{fffd} b",
        "a b",
    ] {
        base.clone()
            .set(":merges", strings(&[odd, "b c", odd]))
            .accepted(odd);
    }
    base.clone()
        .set(":merges", strings(&[&b"\xff \xfe"[..], b"\0 \0"]))
        .accepted("merges of bytes");
    for pre in ["", "xyz", "llama-bpe\0"] {
        let small = base.clone().set(":pre", Value::String(pre.into()));
        if pre.is_empty() {
            small.accepted("no pre-tokenizer");
        } else {
            small.refused(pre, "tokenizer.ggml.pre");
        }
    }
}

/// Files of byte pairs may ask for a space before the text, which is never put there: a space at the beginning is the
/// text's own, and comes back.
#[test]
fn a_space_that_byte_pairs_do_not_put() {
    use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};
    let base = byte_pairs();
    let mut all = tokens(&base);
    all[40] = "\u{120}".into();
    let small = base
        .set(":tokens", strings(&all))
        .set(":add_space_prefix", Value::Bool(true));
    let tokenizer = Tokenizer::from_metadata(&small.metadata).unwrap();
    let ids = tokenizer.encode(" a b", EncodeOptions::default()).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), b" a b");
    let mut stream = tokenizer.stream_decoder(false).at_start();
    let streamed: String = ids.iter().map(|&id| stream.push(id).to_owned()).collect();
    assert_eq!(streamed, " a b");
}

/// Found by fuzzing: an added token whose bytes begin or end within a character of the text.
#[test]
fn added_tokens_that_are_no_text() {
    use twinfer_engine::gguf::Metadata;
    use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};
    let text = "x\u{2581}y\u{2581}z";
    let added: [&[u8]; 3] = [b"\x96\x81y", b"y\xe2", b"\x96"];
    for model in ["llama", "gpt2"] {
        for kind in [3, 4] {
            let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| format!("<0x{byte:02X}>").into()).collect();
            let mut kinds = vec![6; 256];
            tokens.extend(added.iter().map(|token| token.to_vec()));
            kinds.extend([kind; 3]);
            let mut m = Metadata::new();
            m.insert("tokenizer.ggml.model", Value::String(model.into()));
            m.insert("tokenizer.ggml.tokens", strings(&tokens));
            m.insert("tokenizer.ggml.token_type", ints(kinds));
            m.insert("tokenizer.ggml.merges", strings::<&str>(&[]));
            let tokenizer = Tokenizer::from_metadata(&m).unwrap();
            for parse_special in [false, true] {
                let options = EncodeOptions {
                    add_special: false,
                    parse_special,
                };
                let ids = tokenizer.encode(text, options).unwrap();
                assert!(ids.iter().all(|id| !(256..259).contains(id)), "{ids:?}");
            }
        }
    }
}

/// Tokens of many lengths that overlap everywhere in the text: time is bounded by the text times the longest of them.
#[test]
fn added_tokens_that_overlap() {
    use std::time::Instant;
    use twinfer_engine::gguf::Metadata;
    use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};
    let mut m = Metadata::new();
    let all: Vec<Vec<u8>> = (0..2000usize).map(|i| vec![b'a'; i % 1000 + 1]).collect();
    m.insert("tokenizer.ggml.model", Value::String("llama".into()));
    m.insert("tokenizer.ggml.tokens", strings(&all));
    m.insert("tokenizer.ggml.token_type", ints(vec![4; 2000]));
    let tokenizer = Tokenizer::from_metadata(&m).unwrap();
    let text = "a".repeat(100_123);
    let start = Instant::now();
    let ids = tokenizer.encode(&text, EncodeOptions::default()).unwrap();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), text.as_bytes());
    println!(
        "hostile: {} overlapping tokens in {:?}",
        ids.len(),
        start.elapsed()
    );
    // Keys of the search end at 256 bytes.
    assert_eq!(ids.len(), text.len().div_ceil(256));
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn templates() {
    let base = Small::read("llama-gqa");
    let with = |value: Value| base.clone().set("tokenizer.chat_template", value);
    Small::read("llama-gqa")
        .set("general.name", Value::Bytes([0xff].into()))
        .accepted("a damaged name");
    with(Value::String("{{ messages[0].content }}".into())).accepted("a template");
    for wrong in [Value::U32(1), Value::Bytes([0xff].into()), strings(&["x"])] {
        with(wrong).refused("a template of the wrong type", "tokenizer.chat_template");
    }
    // What is written in a template is the crate's that reads them; a model loads without it.
    with(Value::String("{{".into())).accepted("a broken template");
}
