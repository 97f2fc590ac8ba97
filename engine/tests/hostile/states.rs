//! Keys of layers that keep a state: sizes that are nothing, do not divide, or are more than any model has.

use twinfer_engine::gguf::{Array, Value};

use crate::small::Small;

const MODELS: [&str; 5] = [
    "qwen35moe",
    "qwen3next",
    "lfm2moe",
    "granitehybrid",
    "nemotron-h-moe",
];

/// Those whose layers have heads with a state.
const WITH_HEADS: [&str; 4] = ["qwen35moe", "qwen3next", "granitehybrid", "nemotron-h-moe"];

fn number(small: &Small, key: &str) -> u32 {
    match small.get(key) {
        Value::U32(value) => *value,
        other => panic!("{key} is {other:?}"),
    }
}

/// Demands that each value is refused by a message that names the key, or another one where it is that one's fault.
fn refused(name: &str, key: &str, values: &[u32], named: &str) {
    for value in values {
        let what = format!("{name} with {key} = {value}");
        Small::read(name)
            .set(key, Value::U32(*value))
            .refused(&what, named);
    }
}

#[test]
fn models_with_states_are_sound() {
    for name in MODELS {
        Small::read(name).accepted(name);
    }
}

#[test]
fn sizes_of_states() {
    const HUGE: [u32; 4] = [0, (1 << 20) + 1, 1 << 31, u32::MAX];
    for name in WITH_HEADS {
        for key in [
            "ssm.inner_size",
            "ssm.time_step_rank",
            "ssm.state_size",
            "ssm.group_count",
            "ssm.conv_kernel",
        ] {
            let dotted = format!(".{key}");
            refused(name, &dotted, &HUGE, key);
            Small::read(name)
                .without(&dotted)
                .refused(&format!("{name} without {key}"), &format!("{key}` is missing"));
            for wrong in [Value::I32(-1), Value::F32(4.0), Value::String("4".into())] {
                let what = format!("{name} with {key} = {}", wrong.describe());
                Small::read(name).set(&dotted, wrong).refused(&what, key);
            }
        }
        let small = Small::read(name);
        let (inner, heads) = (
            number(&small, ".ssm.inner_size"),
            number(&small, ".ssm.time_step_rank"),
        );
        refused(
            name,
            ".ssm.inner_size",
            &[inner + 1, heads - 1, 1],
            "ssm.inner_size",
        );
        refused(
            name,
            ".ssm.group_count",
            &[heads + 1, heads * 2],
            "ssm.group_count",
        );
        refused(name, ".ssm.conv_kernel", &[1, 65], "ssm.conv_kernel");
        refused(name, ".ssm.state_size", &[4097, 1 << 20], "ssm.state_size");
        // Possible by themselves, but not what the tensors have.
        for (key, value) in [
            (".ssm.inner_size", 2 * inner),
            (".ssm.state_size", 1),
            (".ssm.conv_kernel", 5),
        ] {
            refused(name, key, &[value], "blk.");
        }
    }
    refused("lfm2moe", ".shortconv.l_cache", &HUGE, "shortconv.l_cache");
    refused("lfm2moe", ".shortconv.l_cache", &[1, 65], "shortconv.l_cache");
    refused("lfm2moe", ".shortconv.l_cache", &[4, 64], "shortconv.conv.weight");
    refused(
        "qwen35moe",
        ".full_attention_interval",
        &[0],
        "full_attention_interval",
    );
    refused("qwen35moe", ".full_attention_interval", &[1, u32::MAX], "blk.");
}

/// Weights that let a state grow without bound end the pass, not the process.
#[test]
fn states_that_overflow() {
    for (name, tensor) in [
        ("qwen35moe", "ssm_a"),
        ("granitehybrid", "ssm_a"),
        ("granitehybrid", "ssm_d"),
        ("nemotron-h-moe", "ssm_dt.bias"),
        ("qwen3next", "ssm_dt.bias"),
        ("lfm2moe", "shortconv.conv.weight"),
        ("qwen35moe", "ssm_conv1d.weight"),
    ] {
        let small = Small::read(name);
        let found = small
            .tensors
            .iter()
            .map(|(spec, _)| spec.name.clone())
            .find(|found| found.ends_with(tensor))
            .unwrap();
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let changed = small.clone().change(&found, |_, _| value);
            // Finite logits, or an error; the bounds of memory and time are checked by both.
            let _ = changed.run(&format!("{name} with {tensor} = {value}"));
        }
    }
}

#[test]
fn layers_that_are_neither() {
    for name in ["lfm2moe", "granitehybrid", "nemotron-h-moe"] {
        let layers = number(&Small::read(name), ".block_count") as usize;
        let key = ".attention.head_count_kv";
        for wrong in [
            Value::Array(Array::U32(vec![0; layers - 1])),
            Value::Array(Array::I32(vec![-1; layers])),
            Value::Array(Array::U32(vec![u32::MAX; layers])),
        ] {
            let what = format!("{name} with {}", wrong.describe());
            Small::read(name)
                .set(key, wrong)
                .refused(&what, "attention.head_count_kv");
        }
        // No attention at all: the tensors are other ones.
        Small::read(name)
            .set(key, Value::Array(Array::U32(vec![0; layers])))
            .refused(&format!("{name} without attention"), "blk.");
    }
}
