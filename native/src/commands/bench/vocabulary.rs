//! A made-up vocabulary of real size and structure, for files with random weights: how long a model takes to load
//! depends on its tokens and merges, and a text must have ids to be run with.
//!
//! Tokens are words of random syllables, each joined from two that came before it, so that every token can be reached
//! by merging; a merge stands in the list for every way to join a token, as in converted vocabularies of today (Llama
//! 3: 2.2 merges a token).

use std::collections::HashSet;

use twinfer_engine::gguf::{Array, Metadata, Value};

use super::shapes::Vocabulary;
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

/// Adds the `tokenizer.ggml` keys of a vocabulary of `n` tokens.
pub(super) fn insert(metadata: &mut Metadata, vocabulary: Vocabulary, n: usize) {
    match vocabulary {
        Vocabulary::BytePairs(pre) => byte_pairs(metadata, n, pre),
        Vocabulary::Gemma4 => gemma4(metadata, n),
        Vocabulary::SentencePieces => sentence_pieces(metadata, n),
        Vocabulary::WordPieces => word_pieces(metadata, n),
        Vocabulary::Unigrams => unigrams(metadata, n),
    }
}

/// Distinct words: `single` first, then every pair of letters, then joined ones until there are `n`, in the order in
/// which a tokenizer would learn them.
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
    let merges = merges(&words, 256);
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

/// A merge for every way to join a word from two others; those before `first` are no words.
fn merges(words: &[String], first: usize) -> Vec<String> {
    let known: HashSet<&str> = words.iter().map(String::as_str).collect();
    let mut merges = Vec::with_capacity(words.len() * 2);
    for word in words.iter().skip(first) {
        for (at, _) in word.char_indices().skip(1) {
            let (left, right) = word.split_at(at);
            if known.contains(left) && known.contains(right) {
                merges.push(format!("{left} {right}"));
            }
        }
    }
    merges
}

/// The tokens of `single`, letters and the mark of a space, and words of these; beside them where the letters begin.
fn marked_words(mut single: Vec<String>, n: usize) -> (Vec<String>, usize) {
    let first = single.len();
    single.extend(
        (b'a'..=b'z')
            .map(|c| char::from(c).to_string())
            .chain([SPACE_MARK.into()]),
    );
    let letters = first..single.len();
    (words(single, letters, n), first)
}

fn texts<const N: usize>(all: [&str; N]) -> Vec<String> {
    all.map(String::from).into()
}

fn byte_tokens() -> impl Iterator<Item = String> {
    (0..256).map(|byte| format!("<0x{byte:02X}>"))
}

/// What all but byte pairs have.
fn insert_words(m: &mut Metadata, model: &str, words: Vec<String>, types: impl Iterator<Item = i32>) {
    m.insert("tokenizer.ggml.model", Value::String(model.into()));
    m.insert(
        "tokenizer.ggml.token_type",
        Value::Array(Array::I32(types.collect())),
    );
    m.insert("tokenizer.ggml.tokens", strings(words));
}

fn insert_ids<const N: usize>(m: &mut Metadata, ids: [(&str, u32); N]) {
    for (name, id) in ids {
        m.insert(format!("tokenizer.ggml.{name}_token_id"), Value::U32(id));
    }
}

/// SentencePiece's kind: three control tokens, 256 byte tokens, words with scores.
fn sentence_pieces(m: &mut Metadata, n: usize) {
    let mut single = texts(["<unk>", "<s>", "</s>"]);
    single.extend(byte_tokens());
    let (words, first) = marked_words(single, n);
    let types = (0..words.len()).map(|i| match i {
        0 => UNKNOWN,
        1 | 2 => CONTROL_TYPE,
        _ if i < first => BYTE,
        _ => NORMAL,
    });
    let scores = (0..words.len()).map(|i| first as f32 - i as f32).collect();
    m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    insert_words(m, "llama", words, types);
    insert_ids(m, [("bos", 1), ("eos", 2)]);
}

/// Gemma 4's: four control tokens, 256 byte tokens, words and merges.
fn gemma4(m: &mut Metadata, n: usize) {
    let mut single = texts(["<pad>", "<eos>", "<bos>", "<unk>"]);
    single.extend(byte_tokens());
    let (words, first) = marked_words(single, n);
    let types = (0..words.len()).map(|i| match i {
        3 => UNKNOWN,
        0..=2 => CONTROL_TYPE,
        _ if i < first => BYTE,
        _ => NORMAL,
    });
    m.insert("tokenizer.ggml.merges", strings(merges(&words, first)));
    insert_words(m, "gemma4", words, types);
    insert_ids(m, [("padding", 0), ("eos", 1), ("bos", 2), ("unknown", 3)]);
    m.insert("tokenizer.ggml.add_bos_token", Value::Bool(true));
    m.insert("tokenizer.ggml.add_space_prefix", Value::Bool(false));
}

/// BERT's: special tokens, words, of which those that begin one have a mark.
fn word_pieces(m: &mut Metadata, n: usize) {
    let special = texts(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    let n_special = special.len();
    let (words, _) = marked_words(special, n);
    let types = (0..words.len()).map(|i| match i {
        1 => UNKNOWN,
        _ if i < n_special => CONTROL_TYPE,
        _ => NORMAL,
    });
    insert_words(m, "bert", words, types);
    insert_ids(
        m,
        [
            ("padding", 0),
            ("unknown", 1),
            ("cls", 2),
            ("bos", 2),
            ("seperator", 3),
            ("eos", 3),
            ("mask", 4),
        ],
    );
}

/// SentencePiece's other kind, as XLM-RoBERTa has it: four control tokens, words with scores.
fn unigrams(m: &mut Metadata, n: usize) {
    let (words, first) = marked_words(texts(["<s>", "<pad>", "</s>", "<unk>"]), n);
    let types = (0..words.len()).map(|i| match i {
        3 => UNKNOWN,
        _ if i < first => CONTROL_TYPE,
        _ => NORMAL,
    });
    // Later words are rarer, by little, so that a long word is better than its parts.
    let scores = (0..words.len()).map(|i| match i < first {
        true => 0.0,
        false => -5.0 - 5.0 * (i as f32 / n as f32),
    });
    m.insert(
        "tokenizer.ggml.scores",
        Value::Array(Array::F32(scores.collect())),
    );
    insert_words(m, "t5", words, types);
    insert_ids(
        m,
        [
            ("bos", 0),
            ("padding", 1),
            ("eos", 2),
            ("unknown", 3),
            ("cls", 0),
            ("seperator", 2),
        ],
    );
    m.insert("tokenizer.ggml.add_bos_token", Value::Bool(true));
    m.insert("tokenizer.ggml.add_eos_token", Value::Bool(true));
    m.insert("tokenizer.ggml.add_space_prefix", Value::Bool(true));
}

#[cfg(test)]
mod tests {
    use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

    use super::super::shapes;
    use super::*;

    #[test]
    fn vocabularies_are_whole_and_their_tokens_are_reached() {
        for name in [
            "llama-3.2-1b",
            "tinyllama-1.1b",
            "smollm2-135m",
            "qwen3-30b-a3b",
            "qwen3.6-35b-a3b",
            "gpt-oss-20b",
            "gemma-4-e4b",
            "lfm2-8b-a1b",
            "granite-4-h-tiny",
            "deepseek-v3",
            "bge-m3",
            "all-minilm",
        ] {
            let shape = shapes::find(name).unwrap().model(None).unwrap();
            let mut metadata = Metadata::new();
            metadata.insert("general.architecture", Value::String(shape.arch.into()));
            // Of each kind one as large as it is; making and reading them takes long.
            let whole = ["llama-3.2-1b", "tinyllama-1.1b", "all-minilm"].contains(&name);
            let n = if whole { shape.n_vocab } else { 20_000 };
            insert(&mut metadata, shape.vocabulary, n);
            let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
            assert_eq!(tokenizer.n_vocab(), n);
            let text = "some words in a language";
            let ids = tokenizer.encode(text, EncodeOptions::default()).unwrap();
            assert!(ids.len() < text.len() * 2 / 3, "{name}: {ids:?}");
            let decoded = tokenizer.decode(&ids, false).unwrap();
            let decoded = String::from_utf8(decoded).unwrap();
            assert_eq!(decoded.trim_start(), text, "{name}");
            if let Some(merges) = metadata.opt_strings("tokenizer.ggml.merges").unwrap() {
                let per_token = merges.len() as f64 / n as f64;
                assert!((0.9..4.0).contains(&per_token), "{name}: {per_token}");
            }
        }
    }
}
