//! What Gemma 4 alone reads: layers of two kinds, layers that share keys and values, embeddings per layer.

use twinfer_engine::gguf::{Array, Value};
use twinfer_engine::quant::GgmlType;

use crate::small::Small;

const MAX: Value = Value::U32(u32::MAX);

/// Which of the model's layers are local. The last two read the keys and values of layers 1 and 2.
const LOCAL: [bool; 5] = [true, true, false, true, false];

fn u(value: u32) -> Value {
    Value::U32(value)
}

fn flags(values: &[bool]) -> Value {
    Value::Array(Array::Bool(values.to_vec()))
}

fn base() -> Small {
    Small::read("gemma4")
}

#[test]
fn what_it_requires_is_named() {
    base().accepted("gemma4");
    for key in [
        ".embedding_length_per_layer_input",
        ".attention.key_length_swa",
        ".attention.value_length_swa",
        ".attention.sliding_window",
        ".attention.sliding_window_pattern",
        ".expert_feed_forward_length",
        ".expert_count",
        ".expert_used_count",
    ] {
        let part = format!("{}` is missing", &key[1..]);
        base()
            .without(key)
            .refused(&format!("gemma4 without {key}"), &part);
    }
}

#[test]
fn hyperparameters_out_of_range() {
    let mut count = 0;
    let mut refused = |key: &str, values: &[Value]| {
        for value in values {
            let what = format!("{key} = {}", value.describe());
            base().set(key, value.clone()).refused(&what, &key[1..]);
            count += 1;
        }
    };
    // Layers 1 and 2 must be there to be read, and a full layer cannot read a local one's.
    refused(
        ".attention.shared_kv_layers",
        &[u(1), u(3), u(4), u(5), u(6), MAX],
    );
    refused(".attention.shared_kv_layers", &[Value::I32(-1), Value::F32(2.0)]);
    let mut swapped = LOCAL;
    swapped.swap(1, 2);
    refused(
        ".attention.sliding_window_pattern",
        &[
            flags(&LOCAL[..4]),
            flags(&[]),
            Value::Array(Array::F32(vec![1.0; 5])),
            Value::String("10".into()),
        ],
    );
    refused(
        ".embedding_length_per_layer_input",
        &[u((1 << 20) / 5 + 1), u(1 << 20), MAX, Value::Bool(true)],
    );
    for key in [".attention.key_length_swa", ".attention.value_length_swa"] {
        refused(key, &[u(0), u(577), MAX, Value::F32(8.0)]);
    }
    refused(".attention.sliding_window", &[u(0), Value::F32(4.0)]);
    refused(".rope.dimension_count", &[u(0), u(7), u(34), MAX]);
    refused(".rope.dimension_count_swa", &[u(0), u(3), u(18), MAX]);
    let no_number = [f32::NAN, f32::INFINITY, -1.0].map(Value::F32);
    refused(".rope.freq_base_swa", &no_number);
    refused(".rope.freq_base_swa", &[Value::F32(0.0)]);
    refused(".final_logit_softcapping", &no_number);
    base()
        .set(".attention.sliding_window_pattern", flags(&swapped))
        .refused(
            "layers that read from one of another kind",
            "attention.shared_kv_layers",
        );
    println!("hostile: {count} of {count} values of gemma4's own keys refused");
}

#[test]
fn tensors_of_other_shapes() {
    let float = GgmlType::F32;
    let cases: [(&str, Small, &str); 11] = [
        (
            "no embeddings per layer, whose tensors are there",
            base().set(".embedding_length_per_layer_input", u(0)),
            "has no use for it",
        ),
        (
            "another width of embeddings per layer",
            base().set(".embedding_length_per_layer_input", u(16)),
            "per_layer_token_embd.weight",
        ),
        (
            "too few rows of embeddings per layer",
            base().reshape("per_layer_token_embd.weight", float, &[40, 47]),
            "per_layer_token_embd.weight",
        ),
        (
            "no factors of the rotation",
            base().without_tensor("rope_freqs.weight"),
            "rope_freqs.weight",
        ),
        (
            "factors of half of the head",
            base().reshape("rope_freqs.weight", float, &[8]),
            "rope_freqs.weight",
        ),
        (
            "a factor of 0",
            base().change("rope_freqs.weight", |_, _| 0.0),
            "rope_freqs.weight",
        ),
        (
            "a factor of a layer that is no number",
            base().change("blk.3.layer_output_scale.weight", |_, _| f32::NAN),
            "blk.3.layer_output_scale.weight",
        ),
        (
            "no keys where a layer makes its own",
            base().without_tensor("blk.2.attn_k.weight"),
            "blk.2.attn_k.weight",
        ),
        (
            "no scale of what a router reads",
            base().without_tensor("blk.1.ffn_gate_inp.scale"),
            "blk.1.ffn_gate_inp.scale",
        ),
        (
            "a scale of what a router reads that is no number",
            base().change("blk.1.ffn_gate_inp.scale", |_, _| f32::INFINITY),
            "blk.1.ffn_gate_inp.scale",
        ),
        (
            "experts without a norm of their own",
            base().without_tensor("blk.4.pre_ffw_norm_2.weight"),
            "blk.4.pre_ffw_norm_2.weight",
        ),
    ];
    for (what, small, part) in cases {
        small.refused(what, part);
    }
    // What would make keys and values that nobody reads changes nothing.
    let logits = base().accepted("gemma4");
    let with = base()
        .add_tensor("blk.3.attn_k.weight", &[32, 32], &[f32::NAN; 1024])
        .add_tensor("blk.3.attn_k_norm.weight", &[16], &[f32::NAN; 16]);
    assert_eq!(with.accepted("with keys that nobody reads"), logits);
    let optional = base().without_tensor("blk.1.layer_output_scale.weight");
    assert_ne!(optional.accepted("without the factor of a layer"), logits);
}

/// Every tensor is one that it needs, but for those that files may lack; and of none a value that is no number is
/// passed over.
#[test]
fn every_tensor_counts() {
    let base = base();
    let all = base.accepted("gemma4");
    let (mut needed, mut optional) = (0, 0);
    for (spec, _) in &base.tensors {
        let name = &spec.name;
        let without = base.clone().without_tensor(name);
        let may_lack = [
            "layer_output_scale.weight",
            "attn_v.weight",
            "ffn_down_exps.scale",
        ];
        if may_lack.iter().any(|end| name.ends_with(end)) {
            assert_ne!(without.accepted(&format!("without {name}")), all, "{name}");
            optional += 1;
        } else {
            // The others of its part are named where they have no use without it.
            without.refused(&format!("without {name}"), "tensor `");
            needed += 1;
        }
        let what = format!("{name}, not a number");
        assert!(
            base.clone().change(name, |_, _| f32::NAN).run(&what).is_err(),
            "{what}"
        );
    }
    println!("hostile: {needed} tensors of gemma4 are needed, {optional} optional; each counts");
}
