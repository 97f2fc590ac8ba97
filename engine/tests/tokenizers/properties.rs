//! Arbitrary texts and ids: nothing panics, texts come back, and pairs join as the definition says.

use std::sync::OnceLock;

use proptest::prelude::*;
use twinfer_engine::gguf::{Array, Metadata, Value};
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

use super::{PLAIN, is_lossless, streamed, strings, vocabulary};

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
