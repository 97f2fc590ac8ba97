//! Every hyperparameter that a configuration reads: of the wrong type, missing, zero, negative, huge, not a number, and
//! at odds with the others.

use twinfer_engine::gguf::{Array, Value};

use crate::small::{ARCHITECTURES, Small};

const MAX: Value = Value::U32(u32::MAX);

fn u(value: u32) -> Value {
    Value::U32(value)
}

fn f(value: f32) -> Value {
    Value::F32(value)
}

fn ints(values: &[i32]) -> Value {
    Value::Array(Array::I32(values.to_vec()))
}

/// Demands that each value of `key` is refused by a message that names the key.
fn refused(base: &Small, key: &str, values: impl IntoIterator<Item = Value>) -> usize {
    let mut count = 0;
    for value in values {
        let what = format!("{key} = {}", value.describe());
        base.clone()
            .set(key, value)
            .refused(&what, key.trim_start_matches(['.', ':']));
        count += 1;
    }
    count
}

#[test]
fn of_the_wrong_type() {
    let mut count = 0;
    for name in ARCHITECTURES {
        let base = Small::read(name);
        for key in [
            ".embedding_length",
            ".block_count",
            ".context_length",
            ".feed_forward_length",
            ".attention.head_count",
            ".attention.head_count_kv",
            ".attention.key_length",
            ".attention.value_length",
            ".rope.dimension_count",
            ".rope.scaling.original_context_length",
            ".expert_count",
        ] {
            let wrong = [
                Value::I32(-1),
                Value::I64(i64::MIN),
                Value::U64(1 << 32),
                f(8.0),
                Value::Bool(true),
                Value::String("8".into()),
                Value::Array(Array::F32(vec![8.0; 2])),
                Value::Array(Array::Strings(vec![])),
            ];
            count += refused(&base, key, wrong);
        }
        for key in [
            ".attention.layer_norm_rms_epsilon",
            ".rope.freq_base",
            ".rope.scaling.factor",
            ".rope.scaling.attn_factor",
        ] {
            let wrong = [
                u(1),
                Value::String("1".into()),
                f(f32::NAN),
                f(f32::INFINITY),
                f(f32::NEG_INFINITY),
                f(-1.0),
                Value::F64(f64::NAN),
                Value::F64(1e300),
                Value::Array(Array::F32(vec![1.0])),
            ];
            count += refused(&base, key, wrong);
        }
        count += refused(&base, ".rope.scaling.type", [u(1), Value::String("ntk".into())]);
        count += refused(&base, "general.architecture", [u(1), Value::Bytes([0xff].into())]);
    }
    println!("hostile: {count} of {count} values of the wrong type refused");
}

#[test]
fn missing() {
    let mut count = 0;
    for name in ARCHITECTURES {
        for key in [
            ".embedding_length",
            ".block_count",
            ".context_length",
            ".feed_forward_length",
            ".attention.head_count",
            ".attention.layer_norm_rms_epsilon",
            "general.architecture",
        ] {
            let part = format!("{}` is missing", key.trim_start_matches('.'));
            Small::read(name)
                .without(key)
                .refused(&format!("{name} without {key}"), &part);
            count += 1;
        }
    }
    println!("hostile: {count} of {count} missing keys named");
}

#[test]
fn out_of_range() {
    let mut count = 0;
    for name in ARCHITECTURES {
        let base = Small::read(name);
        count += refused(&base, ".embedding_length", [u(0), u((1 << 20) + 1), MAX]);
        count += refused(
            &base,
            ".block_count",
            [u(0), u(4097), MAX, Value::U64(u32::MAX.into())],
        );
        count += refused(&base, ".context_length", [u(0)]);
        count += refused(&base, ".feed_forward_length", [u(0), u((1 << 20) + 1), MAX]);
        count += refused(&base, ".attention.head_count", [u(0), u((1 << 20) + 1), MAX]);
        count += refused(&base, ".attention.head_count_kv", [u(0), u(5), u(1 << 20), MAX]);
        count += refused(&base, ".attention.key_length", [u(0), u(577), u(1 << 31), MAX]);
        count += refused(&base, ".attention.value_length", [u(0), u(577), u(1 << 31), MAX]);
        count += refused(
            &base,
            ".rope.dimension_count",
            [u(0), u(1), u(7), u(64), u(578), u(1 << 31), MAX],
        );
        count += refused(&base, ".attention.layer_norm_rms_epsilon", [f(1.0), f(1e30)]);
        count += refused(&base, ".rope.freq_base", [f(0.0), f(-10_000.0)]);
        count += refused(&base, ".rope.scaling.attn_factor", [f(0.0)]);
        // As llama has experts, it asks how many are used first.
        for experts in [1, 8, u32::MAX] {
            base.clone()
                .set(".expert_count", u(experts))
                .refused(&format!("{name} with {experts} experts"), ".expert_");
            count += 1;
        }
    }
    println!("hostile: {count} of {count} values out of range refused");
}

#[test]
fn per_layer_arrays() {
    let base = Small::read("llama-gqa");
    let mut count = 0;
    for key in [
        ".attention.head_count",
        ".attention.head_count_kv",
        ".feed_forward_length",
    ] {
        let wrong = [
            ints(&[]),
            ints(&[2]),
            ints(&[2; 3]),
            ints(&[2; 100_000]),
            ints(&[2, 0]),
            ints(&[2, -2]),
            ints(&[2, i32::MAX]),
            Value::Array(Array::U64(vec![2, u64::MAX])),
            Value::Array(Array::U64(vec![2, 1 << 32])),
            Value::Array(Array::Bool(vec![true, true])),
            Value::Array(Array::Arrays(vec![Array::U32(vec![2]); 2])),
        ];
        count += refused(&base, key, wrong);
    }
    // Heads differ by layer, tensors do not.
    base.clone()
        .set(".attention.head_count", ints(&[4, 8]))
        .refused("another number of heads", "blk.1.attn_q.weight");
    println!("hostile: {} of {} per-layer arrays refused", count + 1, count + 1);
}

/// Numbers that are each in range but ask for other tensors than the file has.
#[test]
fn that_differ_from_the_tensors() {
    let base = Small::read("llama-gqa");
    let number = |key: &str| match *base.get(key) {
        Value::U32(v) => v,
        ref other => panic!("{other:?}"),
    };
    let (n_embd, n_ff) = (number(".embedding_length"), number(".feed_forward_length"));
    let heads = number(".attention.head_count");
    let mut count = 0;
    for (key, values, part) in [
        (
            ".embedding_length",
            [n_embd - heads, n_embd + heads, 1 << 20],
            "token_embd.weight",
        ),
        (
            ".feed_forward_length",
            [n_ff - 1, n_ff + 1, 1 << 20],
            "blk.0.ffn_gate.weight",
        ),
        (".block_count", [3, 4, 4096], "blk.2."),
        (
            ".attention.head_count",
            [2 * heads, heads / 2, 3],
            "attention.head_count",
        ),
        (".attention.head_count_kv", [1, heads, 1], "blk.0.attn_k.weight"),
        (".attention.key_length", [10, 512, 64], "blk.0.attn_q.weight"),
        (".attention.value_length", [10, 512, 64], "blk.0.attn_v.weight"),
    ] {
        for value in values {
            let what = format!("{key} = {value}");
            match base.clone().set(key, u(value)).run(&what) {
                Ok(_) => panic!("{what} is accepted"),
                Err(message) => {
                    println!("{what}: {message}");
                    // Other heads or widths may be met first by the rotation or another tensor.
                    assert!(
                        message.contains(part)
                            || message.contains("tensor `blk.0.attn_")
                            || message.contains("rope.dimension_count")
                            || message.contains("attention.head_count"),
                        "{message}"
                    );
                }
            }
            count += 1;
        }
    }
    println!("hostile: {count} of {count} hyperparameters at odds with the tensors refused");
}

#[test]
fn of_rotations() {
    let base = Small::read("llama-yarn");
    let mut count = 1;
    base.clone()
        .set(".rope.scaling.attn_factor", f(3e38))
        .refused("yarn with an infinite magnitude", "rope.freq_base");
    for value in [0.0, f32::MIN_POSITIVE, 1e-45, 1e30, f32::MAX] {
        base.clone()
            .set(".rope.scaling.factor", f(value))
            .accepted(&format!("yarn with factor {value}"));
        count += 1;
    }
    // A base of 1 has no slow and fast pairs for YaRN to tell apart.
    for value in [1e-45, 1e-30, 0.5, 1.0, 2.0, f32::MAX] {
        base.clone()
            .set(".rope.freq_base", f(value))
            .accepted(&format!("yarn with base {value}"));
        count += 1;
    }
    for value in [u(0), u(1), MAX] {
        base.clone()
            .set(".rope.scaling.original_context_length", value)
            .accepted("yarn with another original context");
        count += 1;
    }
    println!("hostile: {count} of {count} rotations as they must be");
}

#[test]
fn of_windows() {
    let base = Small::read("gemma3-pattern");
    for window in [0, 1, 2, 63, 64, 65, u32::MAX] {
        base.clone()
            .set(".attention.sliding_window", u(window))
            .accepted(&format!("a window of {window}"));
    }
    for period in [0, 1, 2, 5, u32::MAX] {
        base.clone()
            .set(".attention.sliding_window_pattern", u(period))
            .accepted(&format!("a pattern of {period}"));
    }
    let mut count = refused(
        &base,
        ".attention.sliding_window",
        [Value::I32(-1), f(8.0), ints(&[8; 4])],
    );
    let flags = |n: usize| Value::Array(Array::Bool(vec![true; n]));
    let wrong = [
        Value::I32(-1),
        f(2.0),
        Value::Bool(true),
        flags(0),
        flags(3),
        Value::Array(Array::F32(vec![1.0; 4])),
        Value::Array(Array::Strings(vec![])),
    ];
    count += refused(&base, ".attention.sliding_window_pattern", wrong);
    count += refused(&base, ".rope.freq_base_swa", [f(0.0), f(-1.0), f(f32::NAN), u(3)]);
    count += refused(
        &base,
        ".final_logit_softcapping",
        [f(f32::NAN), f(f32::INFINITY), u(30)],
    );
    for cap in [0.0, -1.0, f32::MIN_POSITIVE, f32::MAX] {
        base.clone()
            .set(".final_logit_softcapping", f(cap))
            .accepted(&format!("a cap of {cap}"));
    }
    println!("hostile: {count} of {count} windows, patterns and caps refused, 16 odd ones run");
}

/// The one place where a width is divided by a number of heads after both were checked.
#[test]
fn of_the_27b_model() {
    Small::read("gemma3-62-layers")
        .set(".attention.head_count", u(1 << 10))
        .refused("62 layers with more heads than width", "attention.head_count");
}

/// A model without a vocabulary is for `eval`; the tokenizer refuses it, and sizes that are stated must be right.
#[test]
fn of_the_vocabulary() {
    use twinfer_engine::gguf::ModelFile;
    use twinfer_engine::memory::Bytes;
    use twinfer_engine::model::{LoadOptions, Model};
    let load = |small: &Small| {
        let file = ModelFile::from_parts(vec![Bytes::from_vec(small.bytes())]).unwrap();
        Model::load(&file, &LoadOptions::default(), &mut |_, _| {})
    };
    let bare = Small::read("llama-gqa").without(":tokens");
    bare.refused("no vocabulary", "tokenizer.ggml.tokens` is missing");
    assert!(load(&bare).is_ok());
    for value in [0, 1, 47, 49, u32::MAX] {
        let error = load(&bare.clone().set(".vocab_size", u(value))).unwrap_err();
        println!("vocab_size = {value}: {error}");
        assert!(error.to_string().contains("token_embd.weight"), "{error}");
    }
    for value in [Value::I32(-1), f(48.0)] {
        let error = load(&bare.clone().set(".vocab_size", value)).unwrap_err();
        assert!(error.to_string().contains("vocab_size"), "{error}");
    }
}
