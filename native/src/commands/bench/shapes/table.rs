//! The shapes: a row for each model of alike dense layers, a function for each of the others; those of encoders are in
//! `encoders`.

use twinfer_engine::gguf::{Array, Value};
use twinfer_engine::quant::GgmlType;

use super::encoders::{all_minilm, bge_m3};
use super::parts::{
    Attention, Bias, DeltaNet, Experts, Ffn, Fill, Latent, Layer, Mamba2, Mixer, Qkv, Tensor,
};
use super::{Build, Model, Output, Shape, Vocabulary, number, numbers};

/// A model of alike layers of attention and a gated part.
#[derive(Debug)]
pub(super) struct Dense {
    arch: &'static str,
    n_embd: usize,
    n_ff: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    n_vocab: usize,
    /// The output matrix is the embedding.
    tied: bool,
    n_ctx_train: usize,
    rope_base: f32,
}

/// Rows. Columns of the first: name, arch, layers, width, feed-forward, heads, KV heads, head dimension, vocabulary,
/// tied, context, RoPE base; of the second: name, layers, function.
macro_rules! shapes {
    ($($name:literal $arch:literal $l:literal $d:literal $ff:literal $h:literal $kv:literal $hd:literal $v:literal
       $tied:literal $ctx:literal $base:literal;)* $(by: $by:literal $by_l:literal $build:expr;)*) => {
        pub(super) const SHAPES: &[Shape] = &[
            $(Shape {
                name: $name, n_layers: $l, build: Build::Dense(Dense {
                    arch: $arch, n_embd: $d, n_ff: $ff, n_heads: $h, n_kv_heads: $kv, head_dim: $hd, n_vocab: $v,
                    tied: $tied, n_ctx_train: $ctx, rope_base: $base,
                }),
            },)*
            $(Shape { name: $by, n_layers: $by_l, build: Build::By($build) },)*
        ];
    };
}

#[rustfmt::skip]
shapes! {
    "stories42m"     "llama"   8  512  1376  8  8  64  32000 true    1024    10000.0;
    "smollm2-135m"   "llama"  30  576  1536  9  3  64  49152 true    8192   100000.0;
    "smollm2-360m"   "llama"  32  960  2560 15  5  64  49152 true    8192   100000.0;
    "smollm2-1.7b"   "llama"  24 2048  8192 32 32  64  49152 true    8192   130000.0;
    "tinyllama-1.1b" "llama"  22 2048  5632 32  4  64  32000 false   2048    10000.0;
    "llama-3.2-1b"   "llama"  16 2048  8192 32  8  64 128256 true  131072   500000.0;
    "llama-3.2-3b"   "llama"  28 3072  8192 24  8 128 128256 true  131072   500000.0;
    "llama-3.1-8b"   "llama"  32 4096 14336 32  8 128 128256 false 131072   500000.0;
    "llama-3.3-70b"  "llama"  80 8192 28672 64  8 128 128256 false 131072   500000.0;
    "mistral-7b"     "llama"  32 4096 14336 32  8 128  32768 false  32768  1000000.0;
    "qwen2.5-0.5b"   "qwen2"  24  896  4864 14  2  64 151936 true   32768  1000000.0;
    "qwen2.5-1.5b"   "qwen2"  28 1536  8960 12  2 128 151936 true   32768  1000000.0;
    "qwen2.5-7b"     "qwen2"  28 3584 18944 28  4 128 152064 false  32768  1000000.0;
    "qwen3-0.6b"     "qwen3"  28 1024  3072 16  8 128 151936 true   40960  1000000.0;
    "qwen3-1.7b"     "qwen3"  28 2048  6144 16  8 128 151936 true   40960  1000000.0;
    "qwen3-4b"       "qwen3"  36 2560  9728 32  8 128 151936 true   40960  1000000.0;
    "qwen3-8b"       "qwen3"  36 4096 12288 32  8 128 151936 false  40960  1000000.0;
    "qwen3-14b"      "qwen3"  40 5120 17408 40  8 128 151936 false  40960  1000000.0;
    "qwen3-32b"      "qwen3"  64 5120 25600 64  8 128 151936 false  40960  1000000.0;
    "gemma-3-1b"     "gemma3" 26 1152  6912  4  1 256 262144 true   32768  1000000.0;
    "gemma-3-4b"     "gemma3" 34 2560 10240  8  4 256 262208 true  131072  1000000.0;
    "phi-3-mini"     "phi3"   32 3072  8192 32 32  96  32064 false   4096    10000.0;
    "phi-4"          "phi3"   40 5120 17920 40 10 128 100352 false  16384   250000.0;
    by: "stories15m-moe"    6 stories15m_moe;
    by: "qwen3-30b-a3b"    48 qwen3moe;
    by: "qwen3.6-35b-a3b"  40 qwen35moe;
    by: "gpt-oss-20b"      24 |n| gpt_oss(n, 32);
    by: "gpt-oss-120b"     36 |n| gpt_oss(n, 128);
    by: "gemma-4-e4b"      42 gemma4_e4b;
    by: "gemma-4-26b-a4b"  30 gemma4_moe;
    by: "lfm2-8b-a1b"      24 lfm2moe;
    by: "granite-4-h-tiny" 40 granitehybrid;
    by: "deepseek-v3"      61 deepseek2;
    by: "bge-m3"           24 bge_m3;
    by: "all-minilm"        6 all_minilm;
}

const POST_NORMS: &[&str] = &["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"];

/// The norm before the output.
fn output_norm(name: &str, n_embd: usize) -> Tensor {
    Tensor::new(format!("{name}.weight"), &[n_embd]).filled(Fill::Ones)
}

pub(super) fn float(value: f32) -> Value {
    Value::F32(value)
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn flags(all: impl Iterator<Item = bool>) -> Value {
    Value::Array(Array::Bool(all.collect()))
}

/// The keys of attention whose heads are alike in all layers that have some.
fn attention_keys(attention: &Attention, eps: f32) -> Vec<(&'static str, Value)> {
    vec![
        ("attention.head_count", number(attention.n_heads)),
        ("attention.head_count_kv", number(attention.n_kv_heads)),
        ("attention.key_length", number(attention.head_dim)),
        ("attention.value_length", number(attention.head_dim)),
        ("attention.layer_norm_rms_epsilon", float(eps)),
    ]
}

/// Puts another value in the place of a key's.
fn replace(keys: &mut [(&'static str, Value)], key: &str, value: Value) {
    if let Some(entry) = keys.iter_mut().find(|entry| entry.0 == key) {
        entry.1 = value;
    }
}

/// KV heads of each layer, where 0 marks those without attention.
fn kv_heads(layers: &[Layer]) -> Value {
    numbers(layers.iter().map(|layer| match &layer.mixer {
        Mixer::Attention(attention) => attention.n_kv_heads,
        _ => 0,
    }))
}

impl Dense {
    pub(super) fn model(&self, name: &str, n_layers: usize) -> Model {
        let attention = Attention {
            qkv: if self.arch == "phi3" {
                Qkv::Fused
            } else {
                Qkv::Apart
            },
            bias: if self.arch == "qwen2" {
                Bias::Qkv
            } else {
                Bias::None
            },
            qk_norm: matches!(self.arch, "qwen3" | "gemma3"),
            ..Attention::new(self.n_heads, self.n_kv_heads, self.head_dim)
        };
        let n_ff = self.n_ff;
        let ffn = match self.arch {
            "phi3" => Ffn::GatedInOne { n_ff },
            _ => Ffn::Gated { n_ff },
        };
        let mut layer = Layer::new(Mixer::Attention(attention), ffn);
        let mut keys = attention_keys(&attention, 1e-6);
        keys.extend([
            ("feed_forward_length", number(n_ff)),
            ("rope.dimension_count", number(self.head_dim)),
            ("rope.freq_base", float(self.rope_base)),
        ]);
        if self.arch == "gemma3" {
            layer = layer.with_norms(POST_NORMS);
            let window = if self.n_embd == 1152 { 512 } else { 1024 };
            keys.push(("attention.sliding_window", number(window)));
        }
        let vocabulary = match name.split_once('-').map_or(name, |(family, _)| family) {
            "llama" => Vocabulary::BytePairs("llama-bpe"),
            "qwen2.5" | "qwen3" => Vocabulary::BytePairs("qwen2"),
            "smollm2" => Vocabulary::BytePairs("smollm"),
            "phi" if self.n_vocab > 100_000 => Vocabulary::BytePairs("dbrx"),
            _ => Vocabulary::SentencePieces,
        };
        Model {
            arch: self.arch,
            n_embd: self.n_embd,
            n_vocab: self.n_vocab,
            vocabulary,
            mix: "q4_k_m",
            keys,
            n_ctx_train: self.n_ctx_train,
            layers: vec![layer; n_layers],
            output: if self.tied { Output::Embedding } else { Output::Own },
            others: vec![output_norm("output_norm", self.n_embd)],
        }
    }
}

/// stories15M-MOE, the smallest well-known model with experts: each layer of stories15M has its gated part four times,
/// of which a token takes two as Mixtral's do.
fn stories15m_moe(n_layers: usize) -> Model {
    let attention = Attention::new(6, 6, 48);
    let experts = Experts::new(4, 2, 768);
    let mut keys = attention_keys(&attention, 1e-5);
    keys.extend([
        ("feed_forward_length", number(experts.n_ff)),
        ("rope.dimension_count", number(48)),
        ("rope.freq_base", float(1e4)),
    ]);
    Model {
        arch: "llama",
        n_embd: 288,
        n_vocab: 32_000,
        vocabulary: Vocabulary::SentencePieces,
        mix: "q8_0",
        keys,
        n_ctx_train: 256,
        layers: vec![Layer::new(Mixer::Attention(attention), Ffn::Experts(experts)); n_layers],
        output: Output::Own,
        others: vec![output_norm("output_norm", 288)],
    }
}

/// Qwen3-30B-A3B.
fn qwen3moe(n_layers: usize) -> Model {
    let attention = Attention {
        qk_norm: true,
        ..Attention::new(32, 4, 128)
    };
    let experts = Experts::new(128, 8, 768);
    let mut keys = attention_keys(&attention, 1e-6);
    keys.extend([
        ("feed_forward_length", number(6144)),
        ("expert_feed_forward_length", number(experts.n_ff)),
        ("rope.dimension_count", number(128)),
        ("rope.freq_base", float(1e6)),
    ]);
    Model {
        arch: "qwen3moe",
        n_embd: 2048,
        n_vocab: 151_936,
        vocabulary: Vocabulary::BytePairs("qwen2"),
        mix: "q4_k_m",
        keys,
        n_ctx_train: 40_960,
        layers: vec![Layer::new(Mixer::Attention(attention), Ffn::Experts(experts)); n_layers],
        output: Output::Own,
        others: vec![output_norm("output_norm", 2048)],
    }
}

/// Qwen3.6-35B-A3B: three delta nets to each attention.
fn qwen35moe(n_layers: usize) -> Model {
    const INTERVAL: usize = 4;
    let attention = Attention {
        qk_norm: true,
        gate: true,
        ..Attention::new(16, 2, 256)
    };
    let delta_net = DeltaNet {
        n_k_heads: 16,
        n_v_heads: 32,
        head_dim: 128,
        kernel: 4,
    };
    let experts = Experts {
        n_ff_shared: 512,
        shared_gate: true,
        ..Experts::new(256, 8, 512)
    };
    let layer = |i: usize| {
        let mixer = match (i + 1).is_multiple_of(INTERVAL) {
            true => Mixer::Attention(attention),
            false => Mixer::DeltaNet(delta_net),
        };
        Layer::new(mixer, Ffn::Experts(experts)).with_norms(&["attn_norm", "post_attention_norm"])
    };
    let mut keys = attention_keys(&attention, 1e-6);
    keys.extend([
        ("expert_feed_forward_length", number(experts.n_ff)),
        ("expert_shared_feed_forward_length", number(experts.n_ff_shared)),
        ("full_attention_interval", number(INTERVAL)),
        ("rope.dimension_count", number(64)),
        ("rope.dimension_sections", numbers([11, 11, 10, 0].into_iter())),
        ("rope.freq_base", float(1e7)),
        ("ssm.conv_kernel", number(delta_net.kernel)),
        ("ssm.state_size", number(delta_net.head_dim)),
        ("ssm.group_count", number(delta_net.n_k_heads)),
        ("ssm.time_step_rank", number(delta_net.n_v_heads)),
        ("ssm.inner_size", number(delta_net.inner())),
    ]);
    Model {
        arch: "qwen35moe",
        n_embd: 2048,
        n_vocab: 248_320,
        vocabulary: Vocabulary::BytePairs("qwen35"),
        mix: "q4_k_m",
        keys,
        n_ctx_train: 262_144,
        layers: (0..n_layers).map(layer).collect(),
        output: Output::Own,
        others: vec![output_norm("output_norm", 2048)],
    }
}

/// gpt-oss: every second layer is local, attention has sinks, and all matrices have biases.
fn gpt_oss(n_layers: usize, n_experts: usize) -> Model {
    let attention = Attention {
        bias: Bias::All,
        sinks: true,
        ..Attention::new(64, 8, 64)
    };
    let experts = Experts {
        bias: true,
        ..Experts::new(n_experts, 4, 2880)
    };
    let layer = Layer::new(Mixer::Attention(attention), Ffn::Experts(experts));
    let mut keys = attention_keys(&attention, 1e-5);
    keys.extend([
        ("feed_forward_length", number(2880)),
        ("expert_feed_forward_length", number(experts.n_ff)),
        ("attention.sliding_window", number(128)),
        ("rope.dimension_count", number(64)),
        ("rope.freq_base", float(150_000.0)),
        ("rope.scaling.type", text("yarn")),
        ("rope.scaling.factor", float(32.0)),
        ("rope.scaling.original_context_length", number(4096)),
    ]);
    Model {
        arch: "gpt-oss",
        n_embd: 2880,
        n_vocab: 201_088,
        vocabulary: Vocabulary::BytePairs("gpt-4o"),
        mix: "mxfp4",
        keys,
        n_ctx_train: 131_072,
        layers: vec![layer.with_norms(&["attn_norm", "post_attention_norm"]); n_layers],
        output: Output::Own,
        others: vec![output_norm("output_norm", 2880)],
    }
}

/// Five local layers to each that sees all positions.
fn gemma4_local(i: usize) -> bool {
    i % 6 != 5
}

/// Gemma 4: local layers with narrower heads, and what all sizes share. `ffn` is the feed-forward part of a layer.
fn gemma4(
    n_layers: usize,
    (n_embd, n_heads): (usize, usize),
    [local, global]: [Attention; 2],
    ffn: &Ffn,
) -> Model {
    let layer = |i: usize| {
        let attention = if gemma4_local(i) { local } else { global };
        Layer {
            output_scale: true,
            ..Layer::new(Mixer::Attention(attention), ffn.clone()).with_norms(POST_NORMS)
        }
    };
    let layers: Vec<Layer> = (0..n_layers).map(layer).collect();
    let mut keys = attention_keys(&global, 1e-6);
    replace(&mut keys, "attention.head_count", number(n_heads));
    replace(&mut keys, "attention.head_count_kv", kv_heads(&layers));
    keys.extend([
        ("attention.key_length_swa", number(local.head_dim)),
        ("attention.value_length_swa", number(local.head_dim)),
        (
            "attention.sliding_window_pattern",
            flags((0..n_layers).map(gemma4_local)),
        ),
        ("rope.dimension_count", number(global.head_dim)),
        ("rope.dimension_count_swa", number(local.head_dim)),
        ("rope.freq_base", float(1e6)),
        ("rope.freq_base_swa", float(10_000.0)),
        ("final_logit_softcapping", float(30.0)),
    ]);
    // A quarter of each head of a global layer turns.
    let factors = Tensor::new("rope_freqs.weight", &[global.head_dim / 2]);
    Model {
        arch: "gemma4",
        n_embd,
        n_vocab: 262_144,
        vocabulary: Vocabulary::Gemma4,
        mix: "q4_k_m",
        keys,
        n_ctx_train: 131_072,
        layers,
        output: Output::Embedding,
        others: vec![
            factors.filled(Fill::Turning(global.head_dim / 8)),
            output_norm("output_norm", n_embd),
        ],
    }
}

/// Gemma 4 26B-A4B: experts beside the gated part.
fn gemma4_moe(n_layers: usize) -> Model {
    let local = Attention {
        qk_norm: true,
        ..Attention::new(16, 8, 256)
    };
    let global = Attention {
        qkv: Qkv::NoValues,
        qk_norm: true,
        ..Attention::new(16, 2, 512)
    };
    let experts = Experts {
        scaled: true,
        ..Experts::new(128, 8, 704)
    };
    let ffn = Ffn::GatedAndExperts { n_ff: 2112, experts };
    let mut model = gemma4(n_layers, (2816, 16), [local, global], &ffn);
    model.n_ctx_train = 262_144;
    model.keys.extend([
        ("attention.sliding_window", number(1024)),
        ("feed_forward_length", number(2112)),
        ("expert_feed_forward_length", number(experts.n_ff)),
        ("embedding_length_per_layer_input", number(0)),
    ]);
    model
}

/// Gemma 4 E4B: an embedding for each layer, and keys and values that the last layers share.
fn gemma4_e4b(n_layers: usize) -> Model {
    const PERIOD: usize = 6;
    const LAYERS: usize = 42;
    const OWN: usize = 24;
    const PER_LAYER: usize = 256;
    let attention = |head_dim| Attention {
        qk_norm: true,
        ..Attention::new(8, 2, head_dim)
    };
    let n_ff = 10_240;
    let parts = [attention(256), attention(512)];
    let mut model = gemma4(n_layers, (2560, 8), parts, &Ffn::Gated { n_ff });
    // Layers with keys and values of their own end with a global one behind a local one: these are what the others
    // read.
    let own = match (n_layers * OWN).div_ceil(LAYERS).next_multiple_of(PERIOD) {
        own if own <= n_layers => own,
        _ => n_layers,
    };
    for (i, layer) in model.layers.iter_mut().enumerate() {
        layer.per_layer_input = PER_LAYER;
        if let Mixer::Attention(attention) = &mut layer.mixer
            && i >= own
        {
            attention.qkv = Qkv::QueriesOnly;
        }
    }
    model.keys.extend([
        ("attention.sliding_window", number(512)),
        ("attention.shared_kv_layers", number(n_layers - own)),
        (
            "feed_forward_length",
            numbers(std::iter::repeat_n(n_ff, n_layers)),
        ),
        ("embedding_length_per_layer_input", number(PER_LAYER)),
    ]);
    let n = PER_LAYER * n_layers;
    model.others.extend([
        Tensor::new("per_layer_token_embd.weight", &[n, model.n_vocab]),
        Tensor::new("per_layer_model_proj.weight", &[model.n_embd, n]).kept_as(GgmlType::BF16),
        Tensor::new("per_layer_proj_norm.weight", &[PER_LAYER]).filled(Fill::Ones),
    ]);
    model
}

/// LFM2-8B-A1B: short convolutions, attention in six layers, experts behind two dense layers.
fn lfm2moe(n_layers: usize) -> Model {
    const ATTENTION: [usize; 6] = [2, 6, 10, 14, 18, 21];
    const DENSE: usize = 2;
    let attention = Attention {
        qk_norm: true,
        ..Attention::new(32, 8, 64)
    };
    let experts = Experts {
        selection_bias: true,
        ..Experts::new(32, 4, 1792)
    };
    let layer = |i: usize| {
        let mixer = match ATTENTION.contains(&i) {
            true => Mixer::Attention(attention),
            false => Mixer::ShortConv { l_cache: 3 },
        };
        let ffn = match i < DENSE {
            true => Ffn::Gated { n_ff: 7168 },
            false => Ffn::Experts(experts),
        };
        Layer::new(mixer, ffn)
    };
    let layers: Vec<Layer> = (0..n_layers).map(layer).collect();
    let mut keys = attention_keys(&attention, 1e-5);
    replace(&mut keys, "attention.head_count_kv", kv_heads(&layers));
    keys.retain(|entry| !matches!(entry.0, "attention.key_length" | "attention.value_length"));
    keys.extend([
        ("feed_forward_length", number(7168)),
        ("expert_feed_forward_length", number(experts.n_ff)),
        ("expert_gating_func", number(2)),
        ("leading_dense_block_count", number(DENSE)),
        ("shortconv.l_cache", number(3)),
        ("rope.freq_base", float(1e6)),
    ]);
    Model {
        arch: "lfm2moe",
        n_embd: 2048,
        n_vocab: 65_536,
        vocabulary: Vocabulary::BytePairs("lfm2"),
        mix: "q4_k_m",
        keys,
        n_ctx_train: 128_000,
        layers,
        output: Output::Embedding,
        others: vec![output_norm("token_embd_norm", 2048)],
    }
}

/// Granite 4.0 H Tiny: Mamba 2, attention without rotation in four layers, experts and one that all tokens meet.
fn granitehybrid(n_layers: usize) -> Model {
    let attention = Attention::new(12, 4, 128);
    let mamba = Mamba2 {
        inner: 3072,
        state: 128,
        n_heads: 48,
        n_groups: 1,
        kernel: 4,
    };
    let experts = Experts {
        n_ff_shared: 1024,
        ..Experts::new(64, 6, 512)
    };
    let layer = |i: usize| {
        let mixer = match i % 10 == 5 {
            true => Mixer::Attention(attention),
            false => Mixer::Mamba2(mamba),
        };
        Layer::new(mixer, Ffn::Experts(experts))
    };
    let layers: Vec<Layer> = (0..n_layers).map(layer).collect();
    let mut keys = attention_keys(&attention, 1e-5);
    replace(&mut keys, "attention.head_count_kv", kv_heads(&layers));
    keys.retain(|entry| !matches!(entry.0, "attention.key_length" | "attention.value_length"));
    keys.extend([
        ("feed_forward_length", number(experts.n_ff)),
        ("expert_shared_feed_forward_length", number(experts.n_ff_shared)),
        ("embedding_scale", float(12.0)),
        ("residual_scale", float(0.22)),
        ("attention.scale", float(0.007_812_5)),
        ("logit_scale", float(6.0)),
        ("rope.dimension_count", number(128)),
        ("rope.freq_base", float(10_000.0)),
        ("rope.scaling.finetuned", Value::Bool(false)),
        ("ssm.conv_kernel", number(mamba.kernel)),
        ("ssm.state_size", number(mamba.state)),
        ("ssm.group_count", number(mamba.n_groups)),
        ("ssm.time_step_rank", number(mamba.n_heads)),
        ("ssm.inner_size", number(mamba.inner)),
    ]);
    Model {
        arch: "granitehybrid",
        n_embd: 1536,
        n_vocab: 100_352,
        vocabulary: Vocabulary::BytePairs("dbrx"),
        mix: "q4_k_m",
        keys,
        n_ctx_train: 131_072,
        layers,
        output: Output::Embedding,
        others: vec![output_norm("output_norm", 1536)],
    }
}

/// DeepSeek V3 and R1: latent attention (absorbed), three dense layers, then 256 experts in groups.
fn deepseek2(n_layers: usize) -> Model {
    const DENSE: usize = 3;
    let latent = Latent {
        n_heads: 128,
        q_rank: 1536,
        kv_rank: 512,
        dim_nope: 128,
        dim_rope: 64,
        dim_v: 128,
    };
    let experts = Experts {
        n_ff_shared: 2048,
        selection_bias: true,
        ..Experts::new(256, 8, 2048)
    };
    let layer = |i: usize| {
        let ffn = match i < DENSE {
            true => Ffn::Gated { n_ff: 18_432 },
            false => Ffn::Experts(experts),
        };
        Layer::new(Mixer::Latent(latent), ffn)
    };
    let head_dim = latent.dim_nope + latent.dim_rope;
    let keys = vec![
        ("attention.head_count", number(latent.n_heads)),
        ("attention.head_count_kv", number(1)),
        ("attention.key_length", number(latent.kv_rank + latent.dim_rope)),
        ("attention.value_length", number(latent.kv_rank)),
        ("attention.key_length_mla", number(head_dim)),
        ("attention.value_length_mla", number(latent.dim_v)),
        ("attention.q_lora_rank", number(latent.q_rank)),
        ("attention.kv_lora_rank", number(latent.kv_rank)),
        ("attention.layer_norm_rms_epsilon", float(1e-6)),
        ("feed_forward_length", number(18_432)),
        ("leading_dense_block_count", number(DENSE)),
        ("expert_feed_forward_length", number(experts.n_ff)),
        ("expert_shared_count", number(1)),
        ("expert_group_count", number(8)),
        ("expert_group_used_count", number(4)),
        ("expert_gating_func", number(2)),
        ("expert_weights_norm", Value::Bool(true)),
        ("expert_weights_scale", float(2.5)),
        ("rope.dimension_count", number(latent.dim_rope)),
        ("rope.freq_base", float(10_000.0)),
        ("rope.scaling.type", text("yarn")),
        ("rope.scaling.factor", float(40.0)),
        ("rope.scaling.original_context_length", number(4096)),
        ("rope.scaling.yarn_log_multiplier", float(0.1)),
    ];
    Model {
        arch: "deepseek2",
        n_embd: 7168,
        n_vocab: 129_280,
        vocabulary: Vocabulary::BytePairs("deepseek-v3"),
        mix: "q4_k_m",
        keys,
        n_ctx_train: 163_840,
        layers: (0..n_layers).map(layer).collect(),
        output: Output::Own,
        others: vec![output_norm("output_norm", 7168)],
    }
}
