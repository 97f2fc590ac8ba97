//! Shapes of well-known models, from their published configurations.

use anyhow::{Result, bail};

/// A model's dimensions: all that its speed depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) arch: &'static str,
    pub(super) n_layers: usize,
    pub(super) n_embd: usize,
    pub(super) n_ff: usize,
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) n_vocab: usize,
    /// The output matrix is the embedding.
    pub(super) tied: bool,
    pub(super) n_ctx_train: usize,
    pub(super) rope_base: f32,
}

/// Columns: name, arch, layers, width, feed-forward, heads, KV heads, head dimension, vocabulary, tied, context, RoPE base.
macro_rules! shapes {
    ($($name:literal $arch:literal $l:literal $d:literal $ff:literal $h:literal $kv:literal $hd:literal $v:literal
       $tied:literal $ctx:literal $base:literal;)*) => {
        const SHAPES: &[Shape] = &[$(Shape {
            name: $name, arch: $arch, n_layers: $l, n_embd: $d, n_ff: $ff, n_heads: $h, n_kv_heads: $kv,
            head_dim: $hd, n_vocab: $v, tied: $tied, n_ctx_train: $ctx, rope_base: $base,
        },)*];
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
}

/// The shape of this name.
pub(super) fn find(name: &str) -> Result<&'static Shape> {
    match SHAPES.iter().find(|shape| shape.name.eq_ignore_ascii_case(name)) {
        Some(shape) => Ok(shape),
        None => {
            let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
            bail!("there is no shape `{name}`; there are {}", names.join(", "))
        }
    }
}

/// Weights in its matrices.
pub(super) fn parameters(shape: &Shape) -> usize {
    let s = shape;
    let attention = s.n_embd * s.head_dim * (2 * s.n_heads + 2 * s.n_kv_heads);
    let embeddings = s.n_vocab * s.n_embd * if s.tied { 1 } else { 2 };
    s.n_layers * (attention + 3 * s.n_embd * s.n_ff) + embeddings
}

/// All shapes, one a line.
pub(super) fn list() -> String {
    SHAPES
        .iter()
        .map(|s| {
            let billions = parameters(s) as f64 / 1e9;
            format!(
                "{:16} {:7} {billions:>6.2} B parameters, {} layers, width {}\n",
                s.name, s.arch, s.n_layers, s.n_embd
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_the_names_promise() {
        for (name, billions) in [
            ("llama-3.2-1b", 1.24),
            ("llama-3.2-3b", 3.21),
            ("llama-3.1-8b", 8.03),
            ("llama-3.3-70b", 70.55),
            ("mistral-7b", 7.25),
            ("tinyllama-1.1b", 1.10),
            ("stories42m", 0.0417),
            ("smollm2-135m", 0.135),
            ("qwen2.5-0.5b", 0.494),
            ("qwen2.5-7b", 7.62),
            ("qwen3-0.6b", 0.596),
            ("qwen3-8b", 8.19),
            ("qwen3-32b", 32.76),
            ("gemma-3-1b", 1.0),
            ("gemma-3-4b", 3.88),
            ("phi-3-mini", 3.82),
            ("phi-4", 14.66),
        ] {
            let found = parameters(find(name).unwrap()) as f64 / 1e9;
            assert!((found / billions - 1.0).abs() < 0.01, "{name}: {found}");
        }
        assert!(find("gpt-5").unwrap_err().to_string().contains("llama-3.1-8b"));
    }
}
