//! Keys and tensors that only some families read. Their models are made of the small ones of `tests/oracle`: other
//! names for keys and tensors, and norms where the family has them elsewhere.

use twinfer_engine::gguf::{Array, Metadata, Value};

use crate::small::Small;

fn u(value: u32) -> Value {
    Value::U32(value)
}

fn f(value: f32) -> Value {
    Value::F32(value)
}

/// Values that no factor, cap or scale can have.
fn no_factors() -> [Value; 5] {
    [
        f(f32::NAN),
        f(f32::INFINITY),
        f(f32::NEG_INFINITY),
        u(1),
        Value::String("1".into()),
    ]
}

impl Small {
    /// The same model as one of another family: keys that begin with the family's name get the other's.
    pub(crate) fn of_family(mut self, name: &str) -> Self {
        let old = format!("{}.", self.metadata.str("general.architecture").unwrap());
        let mut renamed = Metadata::new();
        for (key, value) in self.metadata.iter() {
            let key = match key.strip_prefix(&old) {
                Some(rest) => format!("{name}.{rest}"),
                None => key.to_owned(),
            };
            renamed.insert(key, value.clone());
        }
        renamed.insert("general.architecture", Value::String(name.into()));
        self.metadata = renamed;
        self
    }

    /// Tensors of all layers get another name.
    fn rename(mut self, old: &str, new: &str) -> Self {
        for (spec, _) in &mut self.tensors {
            if let Some(layer) = spec.name.strip_suffix(old) {
                spec.name = format!("{layer}{new}");
            }
        }
        self
    }

    /// No layer has the tensor any more, nor has the model.
    fn drop_all(mut self, name: &str) -> Self {
        self.tensors
            .retain(|(spec, _)| match spec.name.strip_suffix(name) {
                Some(layer) => !(layer.is_empty() || layer.ends_with('.')),
                None => true,
            });
        self
    }

    /// Every layer has a vector of ones more.
    fn with_ones(mut self, name: &str, len: usize) -> Self {
        for layer in 0..self.number(".block_count") {
            self = self.add_tensor(&format!("blk.{layer}.{name}"), &[len], &vec![1.0; len]);
        }
        self
    }

    fn number(&self, key: &str) -> usize {
        match self.get(key) {
            Value::U32(value) => *value as usize,
            other => panic!("{key} is {other:?}"),
        }
    }
}

/// Models of every family that this file is about.
fn families() -> Vec<Small> {
    let llama = || Small::read("llama-gqa");
    let n_embd = llama().number(".embedding_length");
    let head_dim = n_embd / llama().number(".attention.head_count");
    let normed_after = |small: Small| {
        small
            .rename("attn_norm.weight", "post_attention_norm.weight")
            .rename("ffn_norm.weight", "post_ffw_norm.weight")
    };
    let cohere = |name| {
        let tied = llama().drop_all("output.weight").drop_all("ffn_norm.weight");
        tied.of_family(name)
            .set(".attention.layer_norm_epsilon", f(1e-5))
            .set(".logit_scale", f(0.25))
    };
    vec![
        llama().of_family("granite").set(".logit_scale", f(4.0)),
        llama().of_family("smollm3"),
        normed_after(llama().of_family("olmo2"))
            .with_ones("attn_q_norm.weight", n_embd)
            .with_ones(
                "attn_k_norm.weight",
                head_dim * llama().number(".attention.head_count_kv"),
            ),
        normed_after(llama().of_family("exaone4"))
            .with_ones("attn_q_norm.weight", head_dim)
            .with_ones("attn_k_norm.weight", head_dim),
        llama()
            .of_family("seed_oss")
            .rename("ffn_norm.weight", "post_attention_norm.weight"),
        cohere("command-r"),
        cohere("cohere2").set(".attention.sliding_window", u(3)),
        llama()
            .of_family("glm4")
            .with_ones("post_attention_norm.weight", n_embd)
            .with_ones("post_ffw_norm.weight", n_embd),
        Small::read("gemma3-pattern")
            .of_family("gemma2")
            .drop_all("output.weight")
            .drop_all("attn_q_norm.weight")
            .drop_all("attn_k_norm.weight"),
    ]
}

fn family(name: &str) -> Small {
    let named = |small: &Small| small.metadata.str("general.architecture").unwrap() == name;
    families()
        .into_iter()
        .find(named)
        .unwrap_or_else(|| panic!("{name} is there"))
}

/// Demands that each value of a family's key is refused by a message that names the key.
fn refused(name: &str, key: &str, values: impl IntoIterator<Item = Value>) {
    for value in values {
        let what = format!("{name} with {key} = {}", value.describe());
        family(name)
            .set(key, value)
            .refused(&what, key.trim_start_matches('.'));
    }
}

#[test]
fn the_models_of_families_are_sound() {
    for small in families() {
        small.accepted(small.metadata.str("general.architecture").unwrap());
    }
}

#[test]
fn factors() {
    for key in [
        ".embedding_scale",
        ".attention.scale",
        ".residual_scale",
        ".logit_scale",
    ] {
        refused("granite", key, no_factors());
        family("granite").set(key, f(0.0)).accepted(&format!("{key} = 0"));
    }
    // Its reciprocal is infinite.
    refused("granite", ".logit_scale", [f(1e-45)]);
    for name in ["granite", "command-r", "cohere2"] {
        family(name)
            .without(".logit_scale")
            .refused(&format!("{name} without"), "logit_scale` is missing");
        refused(name, ".logit_scale", no_factors());
    }
    for key in [".attn_logit_softcapping", ".final_logit_softcapping"] {
        refused("gemma2", key, no_factors());
        refused("gemma2", key, [f(0.0), f(-1.0), f(1e-45)]);
    }
    refused("granite", ".rope.scaling.finetuned", [u(0), f(0.0)]);
}

#[test]
fn windows() {
    let wrong = || [Value::I32(-1), f(8.0), Value::Array(Array::I32(vec![8; 4]))];
    for name in ["olmo2", "cohere2", "gemma2"] {
        refused(name, ".attention.sliding_window", wrong());
        for window in [1, 2, 64, u32::MAX] {
            let small = family(name).set(".attention.sliding_window", u(window));
            small.accepted(&format!("{name} with a window of {window}"));
            for period in [0, 1, 2, u32::MAX] {
                small
                    .clone()
                    .set(".attention.sliding_window_pattern", u(period))
                    .accepted(&format!("{name} with a period of {period}"));
            }
            small
                .set(
                    ".attention.sliding_window_pattern",
                    Value::Array(Array::Bool(vec![true])),
                )
                .refused(
                    &format!("{name} with one flag"),
                    "attention.sliding_window_pattern",
                );
        }
    }
    family("olmo2")
        .set(".attention.sliding_window", u(0))
        .accepted("no window");
    for name in ["cohere2", "gemma2"] {
        refused(name, ".attention.sliding_window", [u(0)]);
    }
    refused(
        "gemma2",
        ".rope.freq_base_swa",
        [f(0.0), f(-1.0), f(f32::NAN), u(3)],
    );
}

/// Rotations with a section for each axis of a position: on text they are those of halves, if the fourth axis has none.
#[test]
fn sections() {
    let sections = |values: &[i32]| Value::Array(Array::I32(values.to_vec()));
    let glm4 = |value| family("glm4").set(".rope.dimension_sections", value);
    let plain = family("glm4").accepted("no sections");
    assert_eq!(plain, glm4(sections(&[0, 0, 0, 0])).accepted("empty sections"));
    let halves = glm4(sections(&[1, 1, 0, 0])).accepted("sections");
    assert_ne!(plain, halves);
    assert_eq!(halves, glm4(sections(&[2, 1, 1])).accepted("three sections"));
    refused(
        "glm4",
        ".rope.dimension_sections",
        [
            sections(&[1, 1, 1, 1]),
            sections(&[1, 1, 1, -1]),
            sections(&[1; 100_000]),
            sections(&[1]),
            Value::String("1".into()),
            f(1.0),
        ],
    );
}

/// Families that norm what their parts make must not be given norms elsewhere, and the other way round.
#[test]
fn norms_in_other_places() {
    for (name, tensor) in [
        ("olmo2", "blk.0.post_attention_norm.weight"),
        ("exaone4", "blk.0.post_ffw_norm.weight"),
        ("exaone4", "blk.1.attn_k_norm.weight"),
        ("olmo2", "blk.1.attn_q_norm.weight"),
        ("olmo2", "output.weight"),
        ("seed_oss", "blk.0.post_attention_norm.weight"),
        ("command-r", "blk.0.attn_norm.weight"),
        ("glm4", "blk.0.ffn_norm.weight"),
        ("gemma2", "blk.0.post_ffw_norm.weight"),
    ] {
        family(name)
            .without_tensor(tensor)
            .refused(&format!("{name} without {tensor}"), tensor);
    }
    for (name, tensor) in [
        ("olmo2", "blk.0.attn_norm.weight"),
        ("exaone4", "blk.0.ffn_norm.weight"),
        ("command-r", "blk.1.ffn_norm.weight"),
        ("command-r", "blk.0.attn_q_norm.weight"),
        ("command-r", "output.weight"),
        ("granite", "blk.0.attn_q_norm.weight"),
    ] {
        family(name)
            .add_tensor(tensor, &[32], &[1.0; 32])
            .refused(&format!("{name} with {tensor}"), tensor);
    }
}

/// From 64 layers on, command-r has layer norms of the heads of q and k, each with weights of its own.
#[test]
fn heads_with_weights_of_their_own() {
    let mut small = family("command-r");
    let (n_heads, n_kv_heads) = (
        small.number(".attention.head_count"),
        small.number(".attention.head_count_kv"),
    );
    let head_dim = small.number(".embedding_length") / n_heads;
    let layers = small.number(".block_count");
    let first: Vec<_> = small
        .tensors
        .iter()
        .filter(|(spec, _)| spec.name.starts_with("blk.0."))
        .cloned()
        .collect();
    for layer in layers..64 {
        for (spec, data) in &first {
            let mut spec = spec.clone();
            spec.name = spec.name.replace("blk.0.", &format!("blk.{layer}."));
            small.tensors.push((spec, data.clone()));
        }
    }
    small = small.set(".block_count", u(64));
    small.refused("64 layers without norms", "blk.0.attn_q_norm.weight");
    for layer in 0..64 {
        for (name, heads) in [("attn_q_norm", n_heads), ("attn_k_norm", n_kv_heads)] {
            let name = format!("blk.{layer}.{name}.weight");
            small = small.add_tensor(&name, &[head_dim, heads], &vec![1.0; head_dim * heads]);
        }
    }
    let even = small.accepted("64 layers");
    let second = small.clone().change("blk.0.attn_q_norm.weight", |i, x| {
        if i / head_dim == 1 { 2.0 } else { x }
    });
    assert_ne!(even, second.accepted("the second head's weights count"));
    small
        .reshape(
            "blk.3.attn_q_norm.weight",
            twinfer_engine::quant::GgmlType::F32,
            &[head_dim],
        )
        .refused("one head's weights", "blk.3.attn_q_norm.weight");
}

#[test]
fn of_unknown_names() {
    for (name, part) in [
        ("qwen33", "the nearest that is: `qwen3`"),
        ("granite_swa", "the nearest that is: `granite`"),
        ("qwen3mo", "the nearest that is: `qwen3moe`"),
        ("qwen3vl", "the nearest that is: `qwen3`"),
        ("lama", "the nearest that is: `llama`"),
        ("LLaMA", "the nearest that is: `llama`"),
        ("commandr", "the nearest that is: `command-r`"),
        ("", "supported: llama"),
        ("a model of no family", "is not supported; supported: llama"),
    ] {
        Small::read("llama-gqa").of_family(name).refused(name, part);
    }
}
