//! Unigram against SentencePiece: `unigram/` has a small vocabulary that it trained on this project's texts with
//! normalising rules of our own, and the ids that it gives to texts. unigram/make.py made both.

use std::io::Read;

use serde_json::Value as Json;
use twinfer_engine::gguf::{Array, Gguf, Metadata, Value};
use twinfer_engine::tokenizer::Tokenizer;

use super::{PARSED, PLAIN, small, streamed, strings, with};

const VOCABULARY: &[u8] = include_bytes!("unigram/vocabulary.gguf.gz");
const CASES: &str = include_str!("unigram/cases.json");
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

fn vocabulary() -> Metadata {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(VOCABULARY)
        .read_to_end(&mut bytes)
        .unwrap();
    Gguf::parse(&bytes).unwrap().metadata().clone()
}

#[test]
fn the_ids_are_sentencepieces() {
    let tokenizer = Tokenizer::from_metadata(&vocabulary()).unwrap();
    assert_eq!((tokenizer.model_name(), tokenizer.add_eos()), ("t5", true));
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.unk(), tokenizer.pad()),
        (None, Some(1), Some(2), Some(0))
    );
    let cases: Json = serde_json::from_str(CASES).unwrap();
    let (mut total, mut passed) = (0, 0);
    for case in cases["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let found = tokenizer.encode(text, PLAIN).unwrap();
        total += 1;
        if found == ids {
            passed += 1;
        } else {
            println!("{text:?}\n  expected {ids:?}\n  found    {found:?}");
        }
        let bytes = tokenizer.decode(&found, false).unwrap();
        assert_eq!(
            streamed(&tokenizer, &found, false),
            String::from_utf8_lossy(&bytes)
        );
        let special = tokenizer.encode(text, PARSED).unwrap();
        assert_eq!(special.last(), Some(&1), "{text:?}");
    }
    println!("unigram: {passed} of {total} cases");
    assert!(total > 300);
    assert_eq!(passed, total);
}

#[test]
fn plain_text_comes_back() {
    let tokenizer = Tokenizer::from_metadata(&vocabulary()).unwrap();
    for text in [
        "The engine reads a model, and says so.",
        "a",
        "tokens of the model",
        "",
    ] {
        let ids = tokenizer.encode(text, PLAIN).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.as_bytes());
    }
    // what the character map replaces, and spaces in a row, do not
    let ids = tokenizer
        .encode("  \u{ff34}he \t engine\u{2026} ", PLAIN)
        .unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), b"The engine...");
}

#[test]
fn user_defined_tokens_are_found_before_all_else() {
    let mut m = vocabulary();
    let Some(Value::Array(Array::Strings(tokens))) = m.get("tokenizer.ggml.tokens") else {
        panic!("no tokens");
    };
    let mut tokens = tokens.clone();
    let last = tokens.len() - 1;
    tokens[last] = "<the \u{2026}>".as_bytes().into();
    let Some(Value::Array(Array::I32(types))) = m.get("tokenizer.ggml.token_type") else {
        panic!("no types");
    };
    let mut types = types.clone();
    types[last] = 4;
    m.insert("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    m.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    let tokenizer = Tokenizer::from_metadata(&m).unwrap();
    let encode = |text| tokenizer.encode(text, PLAIN).unwrap();
    let expected = [&encode("a model")[..], &[last as u32], &encode("reads")].concat();
    assert_eq!(encode("a model<the \u{2026}>reads"), expected);
    // a beginning of it is text like any other
    assert_eq!(encode("<the \u{2026}"), encode("<the ..."));
}

#[test]
fn damaged_character_maps_are_refused_or_harmless() {
    let m = vocabulary();
    let Some(Value::Array(Array::U8(map))) = m.get(CHARSMAP) else {
        panic!("no character map");
    };
    let texts = [
        "",
        "a \u{ff34}he \u{2026}\u{200b} e\u{301} \u{1112}\u{1161}\u{11ab}\n",
        "\u{1f999}\0",
    ];
    let (mut refused, mut taken) = (0, 0);
    let mut state = 1u32;
    let mut random = |n: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % n
    };
    for round in 0..400 {
        let mut map = map.clone();
        if round % 4 == 0 {
            map.truncate(random(map.len()));
        }
        for _ in 0..=random(40) {
            let n = map.len().max(1);
            if let Some(byte) = map.get_mut(random(n)) {
                *byte = random(256) as u8;
            }
        }
        let mut m = m.clone();
        m.insert(CHARSMAP, Value::Array(Array::U8(map)));
        match Tokenizer::from_metadata(&m) {
            Err(error) => {
                assert!(error.to_string().contains(CHARSMAP), "{error}");
                refused += 1;
            }
            Ok(tokenizer) => {
                taken += 1;
                for text in texts {
                    let ids = tokenizer.encode(text, PLAIN).unwrap();
                    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.n_vocab()));
                }
            }
        }
    }
    println!("damaged character maps: {refused} refused, {taken} harmless");
    assert!(refused > 20 && taken > 20);
}

#[test]
fn rwkv_takes_the_longest_token() {
    let tokens: [&[u8]; 8] = [
        b"a",
        b"ab",
        b"abcd",
        br"\n",
        br"\xe2\x96",
        br"\x81",
        br"\\",
        b"<|end|>",
    ];
    let mut m = Metadata::new();
    m.insert("tokenizer.ggml.model", Value::String("rwkv".into()));
    m.insert("tokenizer.ggml.tokens", strings(&tokens));
    let m = with(m, "add_bos_token", Value::Bool(true));
    let m = with(m, "bos_token_id", Value::U32(7));
    let mut types = vec![1; 8];
    types[7] = 3;
    let m = with(m, "token_type", Value::Array(Array::I32(types)));
    let tokenizer = Tokenizer::from_metadata(&m).unwrap();
    let text = "abcaab\n\u{2581}\\abcd";
    let ids = tokenizer.encode(text, PLAIN).unwrap();
    // `c` alone is no token, and the vocabulary has none for what is unknown
    assert_eq!(ids, [1, 0, 1, 3, 4, 5, 6, 2]);
    assert_eq!(
        tokenizer.decode(&ids, false).unwrap(),
        "abaab\n\u{2581}\\abcd".as_bytes()
    );
    assert_eq!(tokenizer.encode("a", PARSED).unwrap(), [0]);
    assert_eq!(tokenizer.encode("a<|end|>", PARSED).unwrap(), [0, 7]);
    let m = with(m, "unknown_token_id", Value::U32(7));
    let tokenizer = Tokenizer::from_metadata(&m).unwrap();
    assert_eq!(tokenizer.encode("axa", PLAIN).unwrap(), [0, 7, 0]);
    assert_eq!(tokenizer.nl(), Some(3));
}

#[test]
fn plamo_2_adds_up_scores() {
    // `small`: bytes from 3, then a, b, ab, abab, U+2581, U+2581 a
    let scores = |of: [f32; 6]| {
        let mut scores = vec![0.0; 259];
        scores.extend(of);
        Value::Array(Array::F32(scores))
    };
    let tokenizer = |of| Tokenizer::from_metadata(&with(small("plamo2"), "scores", scores(of))).unwrap();
    let [a, b, ab, abab] = [259, 260, 261, 262];
    let byte = |byte: u8| 3 + u32::from(byte);
    let t = tokenizer([-1.0, -1.0, -1.5, -4.0, -1.0, -1.0]);
    let encode = |t: &Tokenizer, text: &str| t.encode(text, PLAIN).unwrap();
    assert_eq!(encode(&t, "abab"), [ab, ab]);
    assert_eq!(encode(&t, "ba"), [b, a]);
    // a character that is no token: its bytes; a byte order mark at the beginning is none
    assert_eq!(
        encode(&t, "\u{feff}a\u{e9}\u{feff}"),
        [a, byte(0xc3), byte(0xa9), byte(0xef), byte(0xbb), byte(0xbf)]
    );
    assert_eq!(
        t.decode(&encode(&t, "a \u{1f999}b"), false).unwrap(),
        "a \u{1f999}b".as_bytes()
    );
    // at equal sums the longer token first
    assert_eq!(
        encode(&tokenizer([-1.0, -1.0, -2.0, -4.0, 0.0, 0.0]), "abab"),
        [abab]
    );
    // a score so low that bytes are better, and one that is too low to count
    assert_eq!(
        encode(&tokenizer([-1500.0, -3000.0, 0.0, 0.0, 0.0, 0.0]), "ba"),
        [byte(b'b'), byte(b'a')]
    );
    assert_eq!(
        encode(&tokenizer([f32::NAN, f32::INFINITY, 0.0, 0.0, 0.0, 0.0]), "aab"),
        [byte(b'a'), ab]
    );
    // control tokens are not written by chance
    assert_eq!(encode(&t, "<s>").len(), 3);
    assert_eq!(t.encode("<s>a", PARSED).unwrap(), [1, a]);
    let tokens: Vec<&[u8]> = vec![b"a"; 4];
    let mut m = Metadata::new();
    m.insert("tokenizer.ggml.model", Value::String("plamo2".into()));
    m.insert("tokenizer.ggml.tokens", strings(&tokens));
    let error = Tokenizer::from_metadata(&m).unwrap_err().to_string();
    assert!(error.contains("no `<0x00>`"), "{error}");
}

#[test]
fn words_without_white_space() {
    let m = with(small("whitespace"), "pre", Value::String("whitespace".into()));
    let tokenizer = Tokenizer::from_metadata(&m).unwrap();
    assert_eq!(
        tokenizer.encode(" ab\tabab\u{3000}a", PLAIN).unwrap(),
        [261, 262, 259]
    );
    let lowered = with(m, "normalizer.lowercase", Value::Bool(true));
    let lowered = Tokenizer::from_metadata(&lowered).unwrap();
    assert_eq!(lowered.encode("aB AB", PLAIN).unwrap(), [261, 261]);
    assert_ne!(tokenizer.encode("AB", PLAIN).unwrap(), [261]);
}
