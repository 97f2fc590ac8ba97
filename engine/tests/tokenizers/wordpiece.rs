//! WordPiece against a real vocabulary: all-MiniLM-L6-v2 of the reference folder.

use std::fs;

use serde_json::Value as Json;
use twinfer_engine::tokenizer::Tokenizer;

use super::{PARSED, PLAIN, metadata, reference};

fn minilm() -> Option<Tokenizer> {
    let Some(m) = metadata("minilm/all-MiniLM-L6-v2-Q8_0.gguf") else {
        println!("left out: the reference folder has no minilm");
        return None;
    };
    Some(Tokenizer::from_metadata(&m).unwrap())
}

/// What Hugging Face's `BertWordPieceTokenizer` (tokenizers 0.23.3) makes of texts with this vocabulary. Left out is
/// what llama.cpp does otherwise: spacing marks of Indic scripts, Hangul.
const CASES: &[(&str, &[u32])] = &[
    ("Hello, World!", &[101, 7592, 1010, 2088, 999, 102]),
    (
        "Na\u{ef}ve caf\u{e9} \u{2014} d\u{e9}j\u{e0}-vu\u{2026}",
        &[101, 15743, 7668, 1517, 2139, 3900, 1011, 24728, 1529, 102],
    ),
    (
        "\u{dc}n\u{ef}c\u{f6}d\u{e9} \u{c0}\u{c9}\u{ce}\u{d5}\u{dc} \u{f1} \u{e7} \u{f8} \u{df} \u{142}",
        &[101, 27260, 29347, 3695, 2226, 1050, 1039, 1100, 1096, 1105, 102],
    ),
    (
        "\u{6771}\u{4eac}\u{306f}\u{5927}\u{304d}\u{3044}",
        &[101, 1879, 1755, 1672, 1810, 1652, 30173, 102],
    ),
    (
        "\u{4e2d}\u{6587}\u{5206}\u{8bcd}test\u{6df7}\u{5408}",
        &[101, 1746, 1861, 1775, 100, 3231, 100, 1792, 102],
    ),
    (
        "unaffordable tokenization",
        &[101, 14477, 4246, 8551, 3085, 19204, 3989, 102],
    ),
    (
        "don't re-enter (now)!",
        &[
            101, 2123, 1005, 1056, 2128, 1011, 4607, 1006, 2085, 1007, 999, 102,
        ],
    ),
    ("zzxqyywk\u{1f999} \u{1f999}", &[101, 100, 100, 102]),
    ("e\u{301}te\u{301}", &[101, 3802, 2063, 102]),
    (
        "price: $3.50 + 2^4 = `x` ~ <y>",
        &[
            101, 3976, 1024, 1002, 1017, 1012, 2753, 1009, 1016, 1034, 1018, 1027, 1036, 1060, 1036, 1066,
            1026, 1061, 1028, 102,
        ],
    ),
    (
        "tabs\u{9}and\u{a}new\u{a0}lines\u{3000}",
        &[101, 21628, 2015, 1998, 2047, 3210, 102],
    ),
    ("\u{0}a\u{1}b\u{200b}c\u{feff}d\u{ad}", &[101, 5925, 2094, 102]),
    ("[MASK] is [CLS]", &[101, 103, 2003, 101, 102]),
    (
        "Stra\u{df}e \u{130}stanbul \u{c7}A",
        &[101, 2358, 27807, 9960, 6187, 102],
    ),
    ("\u{20000}\u{2a6a5}", &[101, 100, 100, 102]),
    ("a\u{308}\u{323}", &[101, 1037, 102]),
    (
        "\u{fb01} \u{b2} \u{bd} \u{2163}",
        &[101, 1984, 1082, 1092, 100, 102],
    ),
];

#[test]
fn texts_of_many_scripts() {
    let Some(tokenizer) = minilm() else { return };
    for (text, ids) in CASES {
        assert_eq!(tokenizer.encode(text, PARSED).unwrap(), *ids, "{text:?}");
        let inner = &ids[1..ids.len() - 1];
        if !text.contains('[') {
            assert_eq!(tokenizer.encode(text, PLAIN).unwrap(), inner, "{text:?}");
        }
    }
    assert_eq!(tokenizer.encode(" \u{a0}\n", PARSED).unwrap(), [101, 102]);
    // of 40 letters: `aaa` and then two at a time
    let long = tokenizer.encode(&"A".repeat(40), PLAIN).unwrap();
    assert_eq!((long.len(), long[0], long[19]), (20, 13_360, 2050));
}

#[test]
fn sentences_of_the_reference() {
    let Some(tokenizer) = minilm() else { return };
    let cases = fs::read_to_string(reference().join("minilm/embeddings.json")).unwrap();
    let cases: Json = serde_json::from_str(&cases).unwrap();
    let sentences = cases["sentences"].as_array().unwrap();
    assert!(!sentences.is_empty());
    for sentence in sentences {
        let ids: Vec<u32> = serde_json::from_value(sentence["ids"].clone()).unwrap();
        let text = sentence["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, PARSED).unwrap(), ids, "{text}");
    }
    assert_eq!(
        (tokenizer.cls(), tokenizer.sep(), tokenizer.unk()),
        (Some(101), Some(102), Some(100))
    );
}
