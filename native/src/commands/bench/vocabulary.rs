//! A made-up vocabulary of real size and structure, for files with random weights: how long a model takes to load
//! depends on its tokens and merges, and a text must have ids to be run with.
//!
//! Tokens are words of random syllables, each joined from two that came before it, so that every token can be reached by
//! merging; a merge stands in the list for every way to join a token, as in converted vocabularies of today (Llama 3: 2.2
//! merges a token).

use std::collections::{HashMap, HashSet};

use twinfer_engine::gguf::{Array, Metadata, Value};

use super::shapes::Shape;
use super::synthetic::Random;

/// Longest token made, in characters.
const LONGEST: usize = 14;
/// The latest of the tokens that another one is prolonged with: short ones.
const SUFFIXES: u64 = 3000;
/// Control tokens at the end of a byte pair vocabulary.
const CONTROL: usize = 256;

const SPACE_MARK: char = '\u{2581}';

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL_TYPE: i32 = 3;
const BYTE: i32 = 6;

/// Adds the `tokenizer.ggml` keys of a vocabulary like that of the shape's family.
pub(super) fn insert(metadata: &mut Metadata, shape: &Shape) {
    let pre = match shape
        .name
        .split_once('-')
        .map_or(shape.name, |(family, _)| family)
    {
        "llama" => Some("llama-bpe"),
        "qwen2.5" | "qwen3" => Some("qwen2"),
        "smollm2" => Some("smollm"),
        "phi" if shape.n_vocab > 100_000 => Some("dbrx"),
        _ => None,
    };
    match pre {
        Some(pre) => byte_pairs(metadata, shape.n_vocab, pre),
        None => sentence_pieces(metadata, shape.n_vocab),
    }
}

/// Distinct words: `single` first, then every pair of letters, then joined ones until there are `n`, in the order in which
/// a tokenizer would learn them.
fn words(single: Vec<String>, letters: std::ops::Range<usize>, n: usize) -> Vec<String> {
    let mut random = Random(1);
    let mut words = single;
    let mut joinable: Vec<usize> = letters.clone().collect();
    for left in letters.clone() {
        for right in letters.clone() {
            if !is_space(&words[right]) {
                joinable.push(words.len());
                words.push(format!("{}{}", words[left], words[right]));
            }
        }
    }
    let mut seen: HashSet<String> = words.iter().cloned().collect();
    while words.len() < n && !joinable.is_empty() {
        let (left, right) = (random.next(), random.next());
        let left = &words[joinable[(left % joinable.len() as u64) as usize]];
        let right = &words[joinable[(right % SUFFIXES.min(joinable.len() as u64)) as usize]];
        // A space only ever begins a word.
        if left.chars().count() + right.chars().count() > LONGEST || is_space(right) {
            continue;
        }
        let word = format!("{left}{right}");
        if seen.insert(word.clone()) {
            joinable.push(words.len());
            words.push(word);
        }
    }
    words
}

fn is_space(word: &str) -> bool {
    word.starts_with(['Ġ', SPACE_MARK])
}

fn strings(words: impl IntoIterator<Item = String>) -> Value {
    let bytes = words.into_iter().map(|word| word.into_bytes().into_boxed_slice());
    Value::Array(Array::Strings(bytes.collect()))
}

/// GPT-2's kind: the 256 bytes as printable characters, words, control tokens.
fn byte_pairs(m: &mut Metadata, n: usize, pre: &str) {
    let control = CONTROL.min(n / 8);
    let shown = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut shifted = (0x100..).filter_map(char::from_u32);
    let alphabet: Vec<char> = (0..=255)
        .map(|byte| match char::from_u32(byte).filter(|_| shown(byte)) {
            Some(shown) => shown,
            None => shifted.next().unwrap_or(' '),
        })
        .collect();
    // Letters and the space first: those that words are made of.
    let (letters, others): (Vec<char>, Vec<char>) = alphabet
        .into_iter()
        .partition(|c| c.is_ascii_lowercase() || *c == 'Ġ');
    let n_letters = letters.len();
    let single = letters.into_iter().chain(others).map(String::from).collect();
    let words = words(single, 0..n_letters, n - control);
    let rank: HashMap<&str, usize> = words
        .iter()
        .enumerate()
        .map(|(i, word)| (word.as_str(), i))
        .collect();
    let mut merges = Vec::with_capacity(words.len() * 2);
    for word in &words[256.min(words.len())..] {
        for (at, _) in word.char_indices().skip(1) {
            let (left, right) = word.split_at(at);
            if rank.contains_key(left) && rank.contains_key(right) {
                merges.push(format!("{left} {right}"));
            }
        }
    }
    let first_control = words.len();
    let types = (0..n).map(|i| if i < first_control { NORMAL } else { CONTROL_TYPE });
    m.insert("tokenizer.ggml.model", Value::String("gpt2".into()));
    m.insert("tokenizer.ggml.pre", Value::String(pre.into()));
    m.insert(
        "tokenizer.ggml.token_type",
        Value::Array(Array::I32(types.collect())),
    );
    m.insert("tokenizer.ggml.merges", strings(merges));
    let named = ["<|begin_of_text|>".to_owned(), "<|end_of_text|>".to_owned()];
    let reserved = (0..).map(|i| format!("<|reserved_special_token_{i}|>"));
    let tokens = words.into_iter().chain(named).chain(reserved).take(n);
    m.insert("tokenizer.ggml.tokens", strings(tokens));
    m.insert("tokenizer.ggml.bos_token_id", Value::U32(first_control as u32));
    m.insert(
        "tokenizer.ggml.eos_token_id",
        Value::U32(first_control as u32 + 1),
    );
    m.insert("tokenizer.ggml.add_bos_token", Value::Bool(true));
}

/// SentencePiece's kind: three control tokens, 256 byte tokens, words with scores.
fn sentence_pieces(m: &mut Metadata, n: usize) {
    let mut single = vec!["<unk>".to_owned(), "<s>".into(), "</s>".into()];
    single.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let first = single.len();
    single.extend(
        (b'a'..=b'z')
            .map(|c| char::from(c).to_string())
            .chain([SPACE_MARK.into()]),
    );
    let letters = first..single.len();
    let words = words(single, letters, n);
    let types = (0..words.len()).map(|i| match i {
        0 => UNKNOWN,
        1 | 2 => CONTROL_TYPE,
        _ if i < first => BYTE,
        _ => NORMAL,
    });
    let scores = (0..words.len()).map(|i| first as f32 - i as f32).collect();
    m.insert("tokenizer.ggml.model", Value::String("llama".into()));
    m.insert(
        "tokenizer.ggml.token_type",
        Value::Array(Array::I32(types.collect())),
    );
    m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    m.insert("tokenizer.ggml.tokens", strings(words));
    m.insert("tokenizer.ggml.bos_token_id", Value::U32(1));
    m.insert("tokenizer.ggml.eos_token_id", Value::U32(2));
}

#[cfg(test)]
mod tests {
    use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

    use super::super::shapes;
    use super::*;

    #[test]
    fn vocabularies_are_whole_and_their_tokens_are_reached() {
        for name in ["llama-3.2-1b", "tinyllama-1.1b", "smollm2-135m"] {
            let shape = shapes::find(name).unwrap();
            let mut metadata = Metadata::new();
            metadata.insert("general.architecture", Value::String(shape.arch.into()));
            insert(&mut metadata, shape);
            let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
            assert_eq!(tokenizer.n_vocab(), shape.n_vocab);
            let text = "some words in a language";
            let ids = tokenizer.encode(text, EncodeOptions::default()).unwrap();
            assert!(ids.len() < text.len() * 2 / 3, "{name}: {ids:?}");
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.as_bytes(), "{name}");
            if let Some(merges) = metadata.opt_strings("tokenizer.ggml.merges").unwrap() {
                let per_token = merges.len() as f64 / shape.n_vocab as f64;
                assert!((0.9..4.0).contains(&per_token), "{name}: {per_token}");
            }
        }
    }
}
