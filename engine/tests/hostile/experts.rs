//! Experts: counts, groups and widths that are nothing or do not go together, and tensors that are not what they say.

use twinfer_engine::gguf::{Array, Value};
use twinfer_engine::quant::GgmlType;

use crate::small::Small;

fn u(value: u32) -> Value {
    Value::U32(value)
}

fn number(small: &Small, key: &str) -> u32 {
    match *small.get(key) {
        Value::U32(v) => v,
        ref other => panic!("{key}: {other:?}"),
    }
}

/// Models whose experts are described by different keys.
const MODELS: [&str; 4] = ["qwen3moe", "gpt-oss", "llama4", "minimax-m2"];

#[test]
fn counts_and_widths() {
    let mut count = 0;
    for name in MODELS {
        let base = Small::read(name);
        base.accepted(name);
        let experts = number(&base, ".expert_count");
        let wrong = [
            (
                ".expert_count",
                vec![u(0), u(4097), u(u32::MAX), Value::I32(-1), Value::F32(8.0)],
            ),
            (
                ".expert_used_count",
                vec![
                    u(0),
                    u(experts + 1),
                    u(u32::MAX),
                    Value::I32(-1),
                    Value::Bool(true),
                ],
            ),
            (".expert_group_count", vec![u(65), u(u32::MAX), Value::F32(2.0)]),
        ];
        for (key, values) in wrong {
            for value in values {
                let what = format!("{name}: {key} = {}", value.describe());
                base.clone().set(key, value).refused(&what, &key[1..]);
                count += 1;
            }
        }
        for key in [".expert_count", ".expert_used_count"] {
            let what = format!("{name} without {key}");
            base.clone()
                .without(key)
                .refused(&what, &format!("{}` is missing", &key[1..]));
            count += 1;
        }
        // In range, and not what the tensors are.
        base.clone()
            .set(".expert_count", u(experts + 1))
            .refused(&format!("{name} with one expert more"), "blk.");
        count += 1;
    }
    for (name, key) in [
        ("qwen3moe", ".expert_feed_forward_length"),
        ("gpt-oss", ".expert_feed_forward_length"),
        ("minimax-m2", ".feed_forward_length"),
    ] {
        let base = Small::read(name);
        for value in [1, 4, (1 << 20) + 1, u32::MAX] {
            let result = base
                .clone()
                .set(key, u(value))
                .run(&format!("{name}: {key} = {value}"));
            let message = result.expect_err("another width than that of the tensors");
            assert!(
                message.contains("_exps") || message.contains(&key[1..]),
                "{message}"
            );
            count += 1;
        }
    }
    // As many numbers as there are layers.
    for values in [vec![], vec![1; 100], vec![1, 0]] {
        let what = format!("{} numbers of used experts", values.len());
        Small::read("qwen3moe")
            .set(".expert_used_count", Value::Array(Array::I32(values)))
            .refused(&what, "expert_used_count");
        count += 1;
    }
    println!("hostile: {count} of {count} numbers of experts refused");
}

#[test]
fn groups() {
    let base = Small::read("qwen3moe");
    let experts = number(&base, ".expert_count");
    let mut count = 0;
    for (groups, used, part) in [
        // No divisor; groups of one expert; none used, or more than there are.
        (3, 1, "expert_group_count"),
        (experts, 1, "expert_group_count"),
        (2, 0, "expert_group_used_count"),
        (2, 3, "expert_group_used_count"),
        (2, u32::MAX, "expert_group_used_count"),
    ] {
        base.clone()
            .set(".expert_group_count", u(groups))
            .set(".expert_group_used_count", u(used))
            .refused(&format!("{used} of {groups} groups"), part);
        count += 1;
    }
    base.clone().set(".expert_group_count", u(2)).refused(
        "groups of which none is used",
        "expert_group_used_count` is missing",
    );
    // A group has fewer experts than a token uses.
    base.clone()
        .set(".expert_group_count", u(2))
        .set(".expert_group_used_count", u(1))
        .set(".expert_used_count", u(experts / 2 + 1))
        .refused("more experts than are left", "expert_used_count");
    for (groups, used) in [(0, 9), (1, 9), (2, 1), (2, 2)] {
        base.clone()
            .set(".expert_group_count", u(groups))
            .set(".expert_group_used_count", u(used))
            .set(".expert_used_count", u(1))
            .accepted(&format!("{used} of {groups} groups"));
    }
    println!("hostile: {} of {} groups refused", count + 2, count + 2);
}

#[test]
fn functions() {
    let base = Small::read("minimax-m2");
    for func in [3, 5, u32::MAX] {
        base.clone()
            .set(".expert_gating_func", u(func))
            .refused(&format!("gating function {func}"), "expert_gating_func");
    }
    base.clone()
        .without(".expert_gating_func")
        .refused("no gating function", "expert_gating_func` is missing");
    for func in [1, 2, 4] {
        base.clone()
            .set(".expert_gating_func", u(func))
            .accepted(&format!("gating function {func}"));
    }
}

#[test]
fn tensors() {
    let base = Small::read("qwen3moe");
    let name = |suffix: &str| format!("blk.0.{suffix}.weight");
    let shape = |suffix: &str| base.tensors[base.index(&name(suffix))].0.shape.clone();
    let [k, n, experts] = shape("ffn_up_exps")[..] else {
        panic!("a stack has three dimensions")
    };
    let mut count = 0;
    for other in [
        vec![k, n],
        vec![k, n * experts],
        vec![k, experts, n],
        vec![k, n, experts - 1],
        vec![k, n, experts, 2],
        vec![k, n, 1, experts],
        vec![1, 1, 1, 1],
    ] {
        let what = format!("experts of the shape {other:?}");
        base.clone()
            .reshape(&name("ffn_up_exps"), GgmlType::F32, &other)
            .refused(&what, &name("ffn_up_exps"));
        count += 1;
    }
    for suffix in ["ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"] {
        base.clone()
            .without_tensor(&name(suffix))
            .refused(&format!("no {suffix}"), &name(suffix));
        count += 1;
    }
    // Nobody asks for them here.
    for (tensor, len) in [
        ("blk.0.exp_probs_b.bias", experts),
        ("blk.0.ffn_up_shexp.weight", k),
    ] {
        base.clone()
            .add_tensor(tensor, &[len], &vec![1.0; len])
            .refused(&format!("{tensor} besides"), tensor);
        count += 1;
    }
    for (len, values) in [
        (experts - 1, vec![1.0; experts - 1]),
        (experts, vec![f32::NAN; experts]),
    ] {
        base.clone()
            .add_tensor("blk.0.ffn_up_exps.scale", &[len], &values)
            .refused("other scales", "blk.0.ffn_up_exps.scale");
        count += 1;
    }
    base.clone()
        .add_tensor("blk.0.ffn_up_exps.scale", &[experts], &vec![2.0; experts])
        .accepted("a scale for each expert");
    // Numbers that are not finite end the pass where they are met.
    for value in [f32::NAN, f32::INFINITY] {
        base.clone()
            .change(&name("ffn_gate_inp"), |_, _| value)
            .refused(&format!("a router of {value}"), "ffn_router");
        count += 1;
    }
    // All experts are alike to a router of zeros.
    base.clone()
        .change(&name("ffn_gate_inp"), |_, _| 0.0)
        .accepted("a router of zeros");
    Small::read("minimax-m2")
        .change("blk.0.exp_probs_b.bias", |_, _| f32::INFINITY)
        .refused("a bias of infinity", "blk.0.exp_probs_b.bias");
    println!(
        "hostile: {} of {} tensors of experts refused",
        count + 1,
        count + 1
    );
}
