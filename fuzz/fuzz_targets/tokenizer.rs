//! A vocabulary and a text made of the input: ids lie inside the vocabulary, the stream decoder prints what the whole
//! decode does, and where every byte has a token the text comes back.
//!
//! Input: model, pre-tokenizer, flags; number of entries, and each as length and type (one byte) and its bytes; number
//! of merges likewise; the rest is the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinfer_engine::gguf::{Array, Metadata, Value};
use twinfer_engine::tokenizer::{EncodeOptions, TokenKind, Tokenizer};
use twinfer_fuzz as _;

const MODELS: [&str; 8] = [
    "llama",
    "gpt2",
    "gemma4",
    "bert",
    "t5",
    "rwkv",
    "plamo2",
    "whitespace",
];
/// One of each kind of cut; all work on bytes.
const PRE: [&str; 8] = [
    "default",
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "deepseek-llm",
    "tekken",
    "gpt-4o",
    "falcon",
];

/// The input, read from the front; zeros and nothing where it has ended.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n.min(self.0.len()));
        self.0 = tail;
        head
    }
}

/// GPT-2's character for a byte.
fn alphabet(byte: u8) -> char {
    let shifted = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte.into(),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
    };
    char::from_u32(shifted).expect("below the surrogates")
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let model = MODELS[usize::from(input.byte()) % MODELS.len()];
    let pre = PRE[usize::from(input.byte()) % PRE.len()];
    let flags = input.byte();
    let flag = |bit: u8| flags >> bit & 1 == 1;

    let mut tokens: Vec<Box<[u8]>> = Vec::new();
    let mut types = Vec::new();
    let mut push = |text: &[u8], ty: i32| {
        tokens.push(text.into());
        types.push(ty);
    };
    let covered = flag(0);
    if covered {
        // Ids 0 to 2 are special by default.
        for text in ["<unk>", "<s>", "</s>"] {
            push(text.as_bytes(), 3);
        }
        // Without it a space would be three bytes, and come back as U+2581.
        push("\u{2581}".as_bytes(), 1);
        for byte in 0..=255 {
            push(format!("<0x{byte:02X}>").as_bytes(), 6);
        }
        for byte in 0..=255 {
            push(alphabet(byte).to_string().as_bytes(), 1);
        }
    }
    for _ in 0..input.byte() {
        let head = input.byte();
        let text = input.bytes(usize::from(head & 15));
        push(text, i32::from(head >> 4));
    }
    let mut merges: Vec<Box<[u8]>> = Vec::new();
    for _ in 0..input.byte() {
        let n = usize::from(input.byte() & 15);
        merges.push(input.bytes(n).into());
    }
    let text = String::from_utf8_lossy(input.0);

    let scores = (0..tokens.len()).map(|i| -((i * 7919 % 1021) as f32)).collect();
    let mut m = Metadata::new();
    let mut set = |key: &str, value| m.insert(format!("tokenizer.ggml.{key}"), value);
    set("model", Value::String(model.into()));
    set("pre", Value::String(pre.into()));
    set("tokens", Value::Array(Array::Strings(tokens)));
    set("token_type", Value::Array(Array::I32(types)));
    set("scores", Value::Array(Array::F32(scores)));
    set("merges", Value::Array(Array::Strings(merges)));
    set("add_space_prefix", Value::Bool(flag(1)));
    let Ok(tokenizer) = Tokenizer::from_metadata(&m) else {
        return;
    };

    let options = EncodeOptions {
        add_special: flag(2),
        parse_special: flag(3),
    };
    let ids = tokenizer.encode(&text, options).expect("the text is short");
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.n_vocab()));
    for special in [false, true] {
        let whole = tokenizer.decode(&ids, special).expect("ids of the vocabulary");
        let mut stream = tokenizer.stream_decoder(special).at_start();
        let mut streamed = String::new();
        for &id in &ids {
            streamed.push_str(stream.push(id));
        }
        streamed.push_str(stream.flush());
        assert_eq!(streamed, String::from_utf8_lossy(&whole));
    }
    let plain = !options.add_special && !options.parse_special;
    // After a token that is found in the text SPM puts a space that was not there; unused tokens print nothing.
    let ordinary = ids.iter().all(|&id| {
        !matches!(
            tokenizer.token_kind(id),
            TokenKind::UserDefined | TokenKind::Unused
        )
    });
    // Of the others, some drop white space, and some have tokens for characters only or read entries otherwise.
    let lossless = ["llama", "gpt2", "gemma4"].contains(&model);
    if covered && plain && ordinary && lossless && !text.contains('\u{2581}') {
        let back = tokenizer.decode(&ids, true).expect("ids of the vocabulary");
        assert_eq!(String::from_utf8_lossy(&back), text);
    }
});
