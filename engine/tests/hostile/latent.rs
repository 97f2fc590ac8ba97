//! Keys of latent attention and of YaRN that only some families read.

use twinfer_engine::gguf::Value;

use crate::small::Small;

fn u(value: u32) -> Value {
    Value::U32(value)
}

fn f(value: f32) -> Value {
    Value::F32(value)
}

fn latent() -> Small {
    Small::read("deepseek2")
}

/// Latent attention with YaRN, whose multiplier makes scores larger.
fn latent_yarn() -> Small {
    latent()
        .set(".rope.scaling.type", Value::String("yarn".into()))
        .set(".rope.scaling.factor", f(40.0))
        .set(".rope.scaling.yarn_log_multiplier", f(0.1))
}

fn mistral3() -> Small {
    Small::read("llama-yarn")
        .of_family("mistral3")
        .set(".rope.scaling.yarn_beta_fast", f(4.0))
        .set(".rope.scaling.yarn_beta_slow", f(0.5))
        .set(".rope.scaling.yarn_log_multiplier", f(1.0))
        .set(".attention.temperature_scale", f(0.1))
}

/// Demands that each value of a key is refused by a message that holds `part`.
fn refused(base: &Small, key: &str, part: &str, values: impl IntoIterator<Item = Value>) {
    for value in values {
        let what = format!("{key} = {}", value.describe());
        base.clone().set(key, value).refused(&what, part);
    }
}

/// Demands that each value of a key is refused by a message that names it.
fn named(base: &Small, key: &str, values: impl IntoIterator<Item = Value>) {
    refused(base, key, key.trim_start_matches('.'), values);
}

#[test]
fn the_models_are_sound() {
    latent().accepted("latent attention");
    latent_yarn().accepted("latent attention with yarn");
    mistral3().accepted("mistral3");
}

#[test]
fn widths_of_latent_attention() {
    let base = latent();
    let wrong = || [u(u32::MAX), Value::I32(-1), f(8.0), Value::Bool(true)];
    for key in [
        ".attention.kv_lora_rank",
        ".attention.q_lora_rank",
        ".attention.key_length_mla",
        ".attention.value_length_mla",
        ".rope.dimension_count",
        ".leading_dense_block_count",
    ] {
        named(&base, key, wrong());
    }
    for key in [
        ".attention.kv_lora_rank",
        ".attention.q_lora_rank",
        ".rope.dimension_count",
        ".expert_feed_forward_length",
        ".expert_shared_count",
    ] {
        base.clone()
            .without(key)
            .refused(&format!("without {key}"), key.trim_start_matches('.'));
    }
    named(&base, ".attention.kv_lora_rank", [u(0), u((1 << 20) + 1)]);
    // One of the two does not say the other.
    named(&base, ".attention.key_length_mla", [u(0), u(8), u(4), u(577)]);
    named(&base, ".attention.value_length_mla", [u(0), u(577)]);
    // What is cached follows from the ranks.
    named(&base, ".attention.key_length", [u(16), u(23), u(25), u(577)]);
    named(&base, ".attention.value_length", [u(8), u(24)]);
    named(&base, ".attention.head_count_kv", [u(2), u(4)]);
    refused(
        &base,
        ".attention.kv_lora_rank",
        "attention.key_length",
        [u(17), u(1 << 20)],
    );
    refused(
        &base,
        ".rope.dimension_count",
        "attention.key_length",
        [u(2), u(10)],
    );
    refused(&base, ".attention.q_lora_rank", "blk.0.attn_q.weight", [u(0)]);
    refused(
        &base,
        ".attention.q_lora_rank",
        "blk.0.attn_q_a.weight",
        [u(23), u(1 << 20)],
    );
    refused(
        &base,
        ".attention.value_length_mla",
        "blk.0.attn_v_b.weight",
        [u(7)],
    );
    refused(
        &base,
        ".leading_dense_block_count",
        "expert_count",
        [u(2), u(1 << 20)],
    );
    refused(&base, ".leading_dense_block_count", "blk.0.ffn_gate", [u(0)]);
    // Without them the file is of the older kind, whose keys and values are as wide as it says.
    base.clone()
        .set(".attention.key_length_mla", u(0))
        .set(".attention.value_length_mla", u(0))
        .refused("one head for several", "attention.head_count_kv");
    base.clone()
        .set(".attention.key_length_mla", u(0))
        .set(".attention.value_length_mla", u(0))
        .set(".attention.head_count_kv", u(4))
        .refused("the older kind", "blk.0.attn_q_b.weight");
}

#[test]
fn tensors_of_latent_attention() {
    use twinfer_engine::quant::GgmlType;
    let base = latent();
    for (tensor, shapes) in [
        (
            "blk.0.attn_k_b.weight",
            [vec![8, 64], vec![8, 16, 3], vec![16, 8, 4]],
        ),
        (
            "blk.1.attn_v_b.weight",
            [vec![16, 32], vec![16, 8, 2], vec![16, 8, 4, 2]],
        ),
        (
            "blk.0.attn_kv_a_mqa.weight",
            [vec![32, 16], vec![24, 32], vec![32, 24, 2]],
        ),
        ("blk.0.attn_kv_a_norm.weight", [vec![24], vec![15], vec![16, 2]]),
        ("blk.1.attn_q_a_norm.weight", [vec![32], vec![1], vec![24, 2]]),
    ] {
        for shape in shapes {
            base.clone()
                .reshape(tensor, GgmlType::F32, &shape)
                .refused(&format!("{tensor} of {shape:?}"), tensor);
        }
        base.clone()
            .without_tensor(tensor)
            .refused(&format!("without {tensor}"), tensor);
    }
    base.add_tensor("blk.0.attn_kv_b.weight", &[16, 64], &[0.0; 1024])
        .refused("both forms", "blk.0.attn_kv_b.weight");
}

#[test]
fn too_many_heads() {
    // A head's query and value count, not what is cached of them.
    latent()
        .set(".attention.key_length_mla", u(576))
        .set(".attention.value_length_mla", u(576))
        .set(".attention.head_count", u(2048))
        .refused("heads that are too wide together", "attention.head_count");
}

/// Where one head of keys serves many queries those are computed in sets. That is as if each had a copy of it.
#[test]
fn one_head_of_keys_for_many_is_as_many_equal_ones() {
    use twinfer_engine::quant::GgmlType;
    const HEADS: usize = 12;
    const DIM: usize = 8;
    let base = Small::read("llama-gqa");
    let n_embd = match base.get(".embedding_length") {
        Value::U32(n_embd) => *n_embd as usize,
        other => panic!("{other:?}"),
    };
    let value = |i: usize| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5;
    let model = |kv_heads: usize| {
        let mut small = base
            .clone()
            .set(".attention.head_count", u(HEADS as u32))
            .set(".attention.head_count_kv", u(kv_heads as u32))
            .set(".attention.key_length", u(DIM as u32))
            .set(".attention.value_length", u(DIM as u32))
            .set(".rope.dimension_count", u(DIM as u32));
        for layer in 0..2 {
            for (name, shape, period) in [
                ("attn_q", [n_embd, HEADS * DIM], usize::MAX),
                ("attn_k", [n_embd, kv_heads * DIM], n_embd * DIM),
                ("attn_v", [n_embd, kv_heads * DIM], n_embd * DIM),
                ("attn_output", [HEADS * DIM, n_embd], usize::MAX),
            ] {
                let name = format!("blk.{layer}.{name}.weight");
                let offset = name.len() + layer;
                small = small
                    .reshape(&name, GgmlType::F32, &shape)
                    .change(&name, |i, _| value(i % period + offset));
            }
        }
        small.accepted(&format!("{kv_heads} heads of keys for {HEADS}"))
    };
    let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    let want = bits(model(HEADS));
    assert_eq!(bits(model(1)), want);
    assert_eq!(bits(model(3)), want);
}

#[test]
fn numbers_of_yarn() {
    let not_positive = || [f(0.0), f(-1.0), f(f32::NAN), f(f32::INFINITY), u(4)];
    for key in [".rope.scaling.yarn_beta_fast", ".rope.scaling.yarn_beta_slow"] {
        named(&mistral3(), key, not_positive());
        for value in [f32::MIN_POSITIVE, 1e-45, 1.0, 4.0, f32::MAX] {
            mistral3()
                .set(key, f(value))
                .accepted(&format!("{key} = {value}"));
        }
        // Families that do not read it do not care.
        Small::read("llama-yarn").set(key, f(-1.0)).accepted(key);
    }
    const MULTIPLIER: &str = ".rope.scaling.yarn_log_multiplier";
    for base in [mistral3(), latent_yarn()] {
        let wrong = [
            f(-0.1),
            f(1001.0),
            f(f32::MAX),
            f(f32::NAN),
            f(f32::INFINITY),
            u(1),
        ];
        named(&base, MULTIPLIER, wrong);
        for value in [0.0, 1e-45, 0.0707, 1.0] {
            base.clone()
                .set(MULTIPLIER, f(value))
                .accepted(&format!("{MULTIPLIER} = {value}"));
        }
        for factor in [0.0, 1e-45, 1e-3, 1.0, f32::MAX] {
            base.clone()
                .set(".rope.scaling.factor", f(factor))
                .accepted(&format!("a factor of {factor}"));
        }
    }
    latent_yarn()
        .set(".rope.scaling.attn_factor", f(1e30))
        .refused("scores with an infinite factor", "rope.scaling.factor");
}

#[test]
fn temperatures() {
    const SCALE: &str = ".attention.temperature_scale";
    const LENGTH: &str = ".attention.temperature_length";
    for base in [mistral3(), latent().set(LENGTH, u(8))] {
        named(&base, SCALE, [f(f32::NAN), f(1e7), f(f32::NEG_INFINITY), u(1)]);
        for value in [0.0, -0.5, 1e-45, 100.0] {
            base.clone()
                .set(SCALE, f(value))
                .accepted(&format!("{SCALE} = {value}"));
        }
    }
    let base = latent().set(SCALE, f(0.1));
    base.refused("no length", "attention.temperature_length");
    named(&base, LENGTH, [u(0), f(8.0), Value::I32(-8)]);
    for value in [1, 2, u32::MAX] {
        base.clone()
            .set(LENGTH, u(value))
            .accepted(&format!("{LENGTH} = {value}"));
    }
}
