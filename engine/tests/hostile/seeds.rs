//! The fuzz targets' seeds: sound inputs of a few kilobytes, made here, so that the fuzzers begin behind the first
//! checks.
//!
//! `TWINFER_WRITE_SEEDS=1` writes them anew.

use std::path::PathBuf;

use twinfer_engine::gguf::{Array, Metadata, TensorSpec, Value};
use twinfer_engine::quant::GgmlType;

use crate::small::{Small, strings};

/// A model of one or two layers, 8 wide, with a vocabulary of 8 and every feature of its family.
fn tiny(arch: &str) -> Small {
    let layers = if arch == "gemma3" { 2 } else { 1 };
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", Value::String(arch.into()));
    for (key, value) in [
        ("context_length", 64),
        ("embedding_length", 8),
        ("block_count", layers),
        ("feed_forward_length", 8),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", 2),
    ] {
        metadata.insert(format!("{arch}.{key}"), Value::U32(value));
    }
    metadata.insert(
        format!("{arch}.attention.layer_norm_rms_epsilon"),
        Value::F32(1e-5),
    );
    metadata.insert("tokenizer.ggml.model", Value::String("llama".into()));
    let tokens = ["<unk>", "<s>", "</s>", "<0x61>", "\u{2581}", "a", "b", "ab"];
    metadata.insert("tokenizer.ggml.tokens", strings(&tokens));
    metadata.insert(
        "tokenizer.ggml.scores",
        Value::Array(Array::F32((0..8).map(|i| -(i as f32)).collect())),
    );
    metadata.insert(
        "tokenizer.ggml.token_type",
        Value::Array(Array::I32(vec![2, 3, 3, 6, 1, 1, 1, 1])),
    );
    let mut small = Small {
        metadata,
        tensors: Vec::new(),
    };
    let mut state = 1u32;
    let mut add = |name: String, ty: GgmlType, shape: &[usize]| {
        let spec = TensorSpec {
            name,
            ty,
            shape: shape.to_vec(),
        };
        let mut data = Vec::new();
        for _ in 0..shape.iter().product() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 16) as f32 / 65536.0 - 0.5;
            match ty {
                // The upper half of the bits is the rounding toward zero.
                GgmlType::BF16 => data.extend(((value.to_bits() >> 16) as u16).to_le_bytes()),
                _ => data.extend(value.to_le_bytes()),
            }
        }
        small.tensors.push((spec, data));
    };
    let (float, half) = (GgmlType::F32, GgmlType::BF16);
    add("token_embd.weight".into(), half, &[8, 8]);
    for i in 0..layers {
        let mut layer = |name: &str, shape: &[usize]| {
            let ty = if shape.len() == 1 { float } else { half };
            add(format!("blk.{i}.{name}"), ty, shape);
        };
        layer("attn_norm.weight", &[8]);
        if arch == "phi3" {
            layer("attn_qkv.weight", &[8, 16]);
            layer("ffn_up.weight", &[8, 16]);
        } else {
            for (name, rows) in [("attn_q", 8), ("attn_k", 4), ("attn_v", 4)] {
                layer(&format!("{name}.weight"), &[8, rows]);
                if arch == "qwen2" {
                    layer(&format!("{name}.bias"), &[rows]);
                }
            }
            layer("ffn_gate.weight", &[8, 8]);
            layer("ffn_up.weight", &[8, 8]);
        }
        layer("attn_output.weight", &[8, 8]);
        layer("ffn_norm.weight", &[8]);
        layer("ffn_down.weight", &[8, 8]);
        if arch == "qwen3" || arch == "gemma3" {
            layer("attn_q_norm.weight", &[2]);
            layer("attn_k_norm.weight", &[2]);
        }
        if arch == "gemma3" {
            layer("post_attention_norm.weight", &[8]);
            layer("post_ffw_norm.weight", &[8]);
        }
    }
    add("output_norm.weight".into(), float, &[8]);
    match arch {
        "llama" => {
            add("rope_freqs.weight".into(), float, &[1]);
            small = small.change("rope_freqs.weight", |_, _| 2.0);
        }
        "gemma3" => {
            small = small
                .set(".attention.sliding_window", Value::U32(2))
                .set(".attention.sliding_window_pattern", Value::U32(2))
                .set(".final_logit_softcapping", Value::F32(30.0));
        }
        "qwen2" => {
            small = small
                .set(".rope.scaling.type", Value::String("yarn".into()))
                .set(".rope.scaling.factor", Value::F32(4.0));
        }
        _ => {}
    }
    small
}

/// What the tokenizer's target reads: its first lines say how.
fn tokenizer(head: [u8; 3], entries: &[(u8, &str)], merges: &[&str], text: &str) -> Vec<u8> {
    let mut out = head.to_vec();
    out.push(entries.len() as u8);
    for (ty, entry) in entries {
        out.push(ty << 4 | entry.len() as u8);
        out.extend(entry.as_bytes());
    }
    out.push(merges.len() as u8);
    for merge in merges {
        out.push(merge.len() as u8);
        out.extend(merge.as_bytes());
    }
    out.extend(text.as_bytes());
    out
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for arch in ["llama", "qwen2", "qwen3", "gemma3", "phi3"] {
        all.push((format!("model/{arch}.gguf"), tiny(arch).bytes()));
    }
    let entries = [
        (1, "he"),
        (1, "ll"),
        (1, "hell"),
        (1, "\u{2581}hello"),
        (3, "<|im_end|>"),
        (4, "<x>"),
    ];
    let merges = ["h e", "l l", "he ll", "o Ġ"];
    for (i, model) in ["llama", "gpt2", "gemma4", "bert"].iter().enumerate() {
        let text = "hello hello<x> it's 12345<|im_end|>\n\n  é\u{65e5}\u{1f600}";
        let head = [i as u8, 2, 0b0011 | (i as u8) << 2];
        all.push((
            format!("tokenizer/{model}"),
            tokenizer(head, &entries, &merges, text),
        ));
    }
    for (name, source) in [
        (
            "chat",
            "{{ bos_token }}{% for m in messages %}{{ '<|' ~ m['role'] ~ '|>' }}{%- if m.content is string -%}\
             {{ m.content | trim }}{% else %}{% for p in m.content or [] %}{{ p.text }}{% endfor %}{% endif %}\
             {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ),
        (
            "tools",
            "{%- set ns = namespace(n=0) -%}{% macro one(t) %}{{ t.function | tojson(indent=2) }}{% endmacro %}\
             {% for t in tools %}{{ one(t) }}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}\
             {% if ns.n > 5 %}{{ raise_exception('many') }}{% endif %}{{ strftime_now('%d %b %Y') }}",
        ),
        (
            "python",
            "{{ messages[-1]['content'].split(' ')[::-1] }}{{ messages[1:] | map(attribute='role') | join(',') }}\
             {{ {'a': [1, (2, 3)]}.items() | list }}{{ '%s-%d' % ('x', 3) }}{{ 'a b'.title().replace('A', 'c') }}\
             {% for k, v in {'b': 1}.items() %}{% if loop.last %}{% break %}{% endif %}{{ k }}{% endfor %}",
        ),
    ] {
        all.push((format!("template/{name}.jinja"), source.into()));
    }
    // Parameters near their defaults, and two rows of four logits.
    let f = |v: f32| v.to_bits();
    let words = [
        1,
        0,
        40,
        f(0.95),
        f(0.05),
        f(0.5),
        f(0.1),
        f(0.9),
        f(0.8),
        f(0.2),
        f(1.0),
        8,
        f(1.1),
        f(0.1),
        f(0.2),
        f(0.8),
        f(1.75),
        0x0802,
        f(2.0),
        f(5.0),
        3,
    ];
    let logits = [0.5, -1.0, 2.0, 1.5, 1.0, 1.0, -3.0, 0.0].map(f32::to_bits);
    for (name, mode) in [("chain", 0), ("mirostat", 2)] {
        let all_words = words.into_iter().chain([mode]).chain(logits);
        all.push((
            format!("sampler/{name}"),
            all_words.flat_map(u32::to_le_bytes).collect(),
        ));
    }
    all
}

#[test]
fn are_what_the_project_has() {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds"));
    for (name, bytes) in seeds() {
        let path = root.join(&name);
        if std::env::var_os("TWINFER_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(bytes.len() < 8192, "{name}: {} bytes", bytes.len());
        assert_eq!(std::fs::read(&path).expect("a seed"), bytes, "{name}");
    }
}

#[test]
fn of_models_run() {
    for arch in ["llama", "qwen2", "qwen3", "gemma3", "phi3"] {
        assert_eq!(tiny(arch).accepted(arch).len(), 8);
    }
}
