//! BOS and EOS, special tokens in a text, ends of a generation, spaces at the start, streaming.

use twinfer_engine::generation::Sampling;
use twinfer_engine::gguf::{Array, Metadata, Value};
use twinfer_engine::sample::{SamplerParams, Scratch};
use twinfer_engine::tokenizer::{EncodeOptions, StreamDecoder, TokenKind, Tokenizer};

use super::{PARSED, PLAIN, small, strings, vocabulary, with};

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
    let pieces: Vec<String> = ids.iter().map(|&id| decoder.push(id).to_string()).collect();
    assert_eq!(pieces.concat(), "a\u{1f999}b");
    assert_eq!(pieces, ["a", "", "", "", "\u{1f999}", "b"]);
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
fn suppressed_tokens_are_never_chosen() {
    let m = with(
        small("llama"),
        "suppress_tokens",
        Value::Array(Array::I32(vec![7, 3])),
    );
    let mut logits = vec![0.0; 265];
    (logits[3], logits[7], logits[9]) = (4.0, 5.0, 1.0);
    for (m, expected) in [(small("llama"), 7), (m, 9)] {
        let tokenizer = Tokenizer::from_metadata(&m).unwrap();
        let mut sampling = Sampling::from(SamplerParams::greedy());
        // a bias of one's own does not bring them back
        sampling.params.logit_bias = vec![(7, 2.0)];
        let mut sampler = sampling.sampler(&tokenizer, 16).unwrap();
        assert_eq!(
            sampler.sample(&logits, &mut Scratch::default()).unwrap(),
            expected
        );
    }
}

#[test]
fn a_tokenizer_is_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Tokenizer>();
    fn sent<T: Send + 'static>() {}
    sent::<StreamDecoder>();
}
