//! A small Gemma 4 model with every feature of the family but experts: local and full layers with heads of their own, layers
//! that read the keys and values of others, values from the keys' matrix, embeddings per layer, factors of layers.

use twinfer_engine::gguf::{Array, Metadata, TensorSpec, Value, Writer};
use twinfer_engine::quant::GgmlType;

pub(crate) const N_EMBD: usize = 32;
pub(crate) const N_VOCAB: usize = 8;
/// Which layers are local. The last two read the keys and values of layers 1 and 2.
pub(crate) const LOCAL: [bool; 5] = [true, true, false, true, false];
pub(crate) const SHARED: usize = 2;
const PER_LAYER: usize = 8;
const HEADS: usize = 2;
/// Widths of heads of full and of local layers.
const FULL: usize = 16;
const OF_LOCAL: usize = 8;

/// The metadata.
pub(crate) fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", Value::String("gemma4".into()));
    for (key, value) in [
        ("context_length", 256),
        ("embedding_length", N_EMBD),
        ("block_count", LOCAL.len()),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", 1),
        ("attention.key_length", FULL),
        ("attention.value_length", FULL),
        ("attention.key_length_swa", OF_LOCAL),
        ("attention.value_length_swa", OF_LOCAL),
        ("attention.sliding_window", 4),
        ("attention.shared_kv_layers", SHARED),
        ("embedding_length_per_layer_input", PER_LAYER),
        ("rope.dimension_count", FULL),
        ("rope.dimension_count_swa", OF_LOCAL),
    ] {
        metadata.insert(format!("gemma4.{key}"), Value::U32(value as u32));
    }
    for (key, value) in [
        ("attention.layer_norm_rms_epsilon", 1e-6),
        ("rope.freq_base", 1e6),
        ("rope.freq_base_swa", 1e4),
        ("final_logit_softcapping", 12.0),
    ] {
        metadata.insert(format!("gemma4.{key}"), Value::F32(value));
    }
    let widths = (0..LOCAL.len()).map(|layer| width(layer) as i32).collect();
    metadata.insert("gemma4.feed_forward_length", Value::Array(Array::I32(widths)));
    metadata.insert(
        "gemma4.attention.sliding_window_pattern",
        Value::Array(Array::Bool(LOCAL.to_vec())),
    );
    let tokens = ["<unk>", "<s>", "</s>", "<0x61>", "\u{2581}", "a", "b", "ab"];
    metadata.insert("tokenizer.ggml.model", Value::String("llama".into()));
    let tokens = tokens.iter().map(|token| token.as_bytes().into()).collect();
    metadata.insert("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    let scores = (0..N_VOCAB).map(|i| -(i as f32)).collect();
    metadata.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    metadata.insert(
        "tokenizer.ggml.token_type",
        Value::Array(Array::I32(vec![2, 3, 3, 6, 1, 1, 1, 1])),
    );
    metadata
}

fn shares(layer: usize) -> bool {
    layer + SHARED >= LOCAL.len()
}

/// Of the feed-forward part: twice as wide in layers that share.
fn width(layer: usize) -> usize {
    if shares(layer) { 48 } else { 24 }
}

/// The tensors, all of them f32.
pub(crate) fn tensors() -> Vec<(TensorSpec, Vec<f32>)> {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("token_embd.weight".into(), vec![N_EMBD, N_VOCAB]),
        (
            "per_layer_token_embd.weight".into(),
            vec![PER_LAYER * LOCAL.len(), N_VOCAB],
        ),
        (
            "per_layer_model_proj.weight".into(),
            vec![N_EMBD, PER_LAYER * LOCAL.len()],
        ),
        ("per_layer_proj_norm.weight".into(), vec![PER_LAYER]),
        ("rope_freqs.weight".into(), vec![FULL / 2]),
        ("output_norm.weight".into(), vec![N_EMBD]),
    ];
    for (layer, is_local) in LOCAL.into_iter().enumerate() {
        let dim = if is_local { OF_LOCAL } else { FULL };
        let n_ff = width(layer);
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("blk.{layer}.{name}.weight"), shape.to_vec()));
        };
        add("attn_norm", &[N_EMBD]);
        add("attn_q", &[N_EMBD, HEADS * dim]);
        add("attn_q_norm", &[dim]);
        if !shares(layer) {
            add("attn_k", &[N_EMBD, dim]);
            add("attn_k_norm", &[dim]);
            // In full layers the keys' matrix makes values too.
            if is_local {
                add("attn_v", &[N_EMBD, dim]);
            }
        }
        add("attn_output", &[HEADS * dim, N_EMBD]);
        add("post_attention_norm", &[N_EMBD]);
        add("ffn_norm", &[N_EMBD]);
        add("ffn_gate", &[N_EMBD, n_ff]);
        add("ffn_up", &[N_EMBD, n_ff]);
        add("ffn_down", &[n_ff, N_EMBD]);
        add("post_ffw_norm", &[N_EMBD]);
        add("inp_gate", &[N_EMBD, PER_LAYER]);
        add("proj", &[PER_LAYER, N_EMBD]);
        add("post_norm", &[N_EMBD]);
        add("layer_output_scale", &[1]);
    }
    let mut state = 1u32;
    let made = shapes.into_iter().map(|(name, shape)| {
        let mut value = |i: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let random = (state >> 16) as f32 / 65536.0 - 0.5;
            match (name.as_str(), shape.len()) {
                // The last quarter of the pairs is not rotated.
                ("rope_freqs.weight", _) => [1.0, 1e30][usize::from(i >= shape[0] * 3 / 4)],
                (_, 1) => 1.0 + 0.5 * random,
                _ => random,
            }
        };
        let values = (0..shape.iter().product()).map(&mut value).collect();
        let ty = GgmlType::F32;
        (
            TensorSpec {
                name: name.clone(),
                ty,
                shape: shape.clone(),
            },
            values,
        )
    });
    made.collect()
}

/// The file.
pub(crate) fn file() -> Vec<u8> {
    let tensors = tensors();
    let specs: Vec<TensorSpec> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = Writer::new(Vec::new(), &metadata(), &specs).unwrap();
    for (spec, values) in &tensors {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.write_tensor(&spec.name, &data).unwrap();
    }
    writer.finish().unwrap()
}
