//! Models of a given shape with random weights.
//!
//! Quantized blocks cannot be random bytes: their scales would be anything up to infinity. So a pool of blocks is quantized
//! once from normally distributed weights, and tensors are filled with blocks drawn from it, which goes at the speed of
//! memory.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rayon::ThreadPool;
use rayon::prelude::*;
use twinfer_engine::gguf::{Metadata, TensorSpec, Value, Writer, writer};
use twinfer_engine::quant::{self, GgmlType, Mix, MixModel, QUANTIZATION_VERSION};

use super::shapes::Shape;
use super::vocabulary;
use crate::commands::quantize::find_mix;
use crate::output_file::OutputFile;
use crate::progress::Progress;
use crate::settings::Verbosity;
use crate::{interrupt, system};

/// Blocks in a pool.
const POOL_BLOCKS: usize = 4096;
/// Bytes that one task fills.
const CHUNK_BYTES: usize = 1 << 20;
/// Standard deviation of the weights: about what trained models have.
const DEVIATION: f32 = 0.02;

/// A random model, described but not yet made.
#[derive(Debug)]
pub(super) struct Synthetic {
    metadata: Metadata,
    tensors: Vec<TensorSpec>,
    seed: u64,
}

impl Synthetic {
    /// `vocabulary`: with tokens, which a file needs; a measurement in memory takes ids alone.
    pub(super) fn new(shape: &Shape, mix: &str, seed: u32, vocabulary: bool) -> Result<Self> {
        let mix = find_mix(mix)?;
        let model = MixModel {
            n_layers: shape.n_layers,
            n_experts: 0,
            gqa: shape.n_heads / shape.n_kv_heads,
            tied_output: shape.tied,
        };
        let mut tensors = tensors(shape);
        for tensor in &mut tensors {
            let dims: Vec<u64> = tensor.shape.iter().map(|&d| d as u64).collect();
            if let Some(ty) = mix.tensor_type(&tensor.name, &dims, &model) {
                tensor.ty = ty;
            }
        }
        let mut metadata = metadata(shape, mix);
        if vocabulary {
            vocabulary::insert(&mut metadata, shape);
        } else {
            metadata.insert("tokenizer.ggml.model", Value::String("none".into()));
        }
        Ok(Self {
            metadata,
            tensors,
            seed: seed.into(),
        })
    }

    /// Makes the model as the bytes of a file.
    pub(super) fn in_memory(&self, threads: &ThreadPool, verbosity: Verbosity) -> Result<Vec<u8>> {
        let capacity =
            usize::try_from(self.memory()?).context("this model does not fit into the address space")?;
        self.write(Vec::with_capacity(capacity), threads, verbosity)
    }

    /// Writes the model to a file that lies in memory.
    pub(super) fn write_memory(
        &self,
        file: File,
        threads: &ThreadPool,
        verbosity: Verbosity,
    ) -> Result<File> {
        self.memory()?;
        self.write(file, threads, verbosity)
            .context("cannot write the weights to memory")
    }

    /// Bytes of memory that it takes, which are there.
    fn memory(&self) -> Result<u64> {
        let (_, header) = writer::header(&self.metadata, &self.tensors)?;
        let bytes = header.data_end();
        if let Some(free) = system::available_memory()
            && bytes > free
        {
            bail!(
                "these weights need {} MiB, {} MiB of memory are free; choose a smaller shape or --type, or write a file with -o",
                bytes >> 20,
                free >> 20
            );
        }
        Ok(bytes)
    }

    /// Makes the model as a file. `path` is for messages.
    pub(super) fn write_file(
        &self,
        path: &Path,
        file: OutputFile,
        threads: &ThreadPool,
        verbosity: Verbosity,
    ) -> Result<()> {
        let failed = || format!("cannot write `{}`", path.display());
        self.write(file, threads, verbosity)
            .with_context(failed)?
            .commit()
    }

    fn write<W: Write>(&self, out: W, threads: &ThreadPool, verbosity: Verbosity) -> Result<W> {
        let _guard = interrupt::Guard::new();
        let mut writer = Writer::new(out, &self.metadata, &self.tensors)?;
        let sizes: Vec<(String, GgmlType, u64)> = writer
            .gguf()
            .tensors()
            .iter()
            .map(|t| (t.name.clone(), t.ty, t.bytes))
            .collect();
        let mut progress = Progress::new("making weights", sizes.iter().map(|s| s.2).sum(), verbosity);
        let mut pools: Vec<(GgmlType, Vec<u8>)> = Vec::new();
        let mut data = Vec::new();
        for (i, (name, ty, bytes)) in sizes.iter().enumerate() {
            interrupt::check()?;
            data.clear();
            data.resize(usize::try_from(*bytes)?, 0);
            if name.ends_with("_norm.weight") {
                // Norms scale by one.
                for value in data.chunks_exact_mut(4) {
                    value.copy_from_slice(&1.0f32.to_le_bytes());
                }
            } else {
                let pool = match pools.iter().position(|(of, _)| of == ty) {
                    Some(at) => &pools[at].1,
                    None => {
                        pools.push((*ty, pool(*ty, self.seed)?));
                        &pools[pools.len() - 1].1
                    }
                };
                let seed = self.seed ^ (i as u64 + 1) << 32;
                threads.install(|| fill(&mut data, pool, ty.block_bytes(), seed));
            }
            writer.write_tensor(name, &data)?;
            progress.add(*bytes);
        }
        Ok(writer.finish()?)
    }
}

/// splitmix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// About normal: the sum of four uniform numbers, of variance 1/3, scaled.
    fn weight(&mut self) -> f32 {
        let bits = self.next();
        let sum: i32 = (0..4).map(|i| i32::from((bits >> (16 * i)) as i16)).sum();
        sum as f32 / 32768.0 * (3.0f32 / 4.0).sqrt() * DEVIATION
    }
}

/// Quantized blocks of random weights.
fn pool(ty: GgmlType, seed: u64) -> Result<Vec<u8>> {
    let mut random = Random(seed);
    let weights: Vec<f32> = (0..POOL_BLOCKS * ty.block_len())
        .map(|_| random.weight())
        .collect();
    let mut blocks = vec![0; POOL_BLOCKS * ty.block_bytes()];
    quant::encode(ty, &weights, None, &mut blocks)?;
    Ok(blocks)
}

/// Fills with whole blocks of the pool; the same for any number of threads.
fn fill(data: &mut [u8], pool: &[u8], block_bytes: usize, seed: u64) {
    let n = (pool.len() / block_bytes) as u64;
    let chunk = CHUNK_BYTES / block_bytes * block_bytes;
    data.par_chunks_mut(chunk).enumerate().for_each(|(i, chunk)| {
        let mut random = Random(seed.wrapping_add((i as u64).wrapping_mul(0xD134_2543_DE82_EF95)));
        for block in chunk.chunks_mut(block_bytes) {
            let at = (random.next() % n) as usize * block_bytes;
            block.copy_from_slice(&pool[at..at + block.len()]);
        }
    });
}

fn metadata(shape: &Shape, mix: Mix) -> Metadata {
    let mut m = Metadata::new();
    let text = |s: &str| Value::String(s.into());
    let number = |n: usize| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
    m.insert("general.architecture", text(shape.arch));
    m.insert("general.type", text("model"));
    m.insert(
        "general.name",
        text(&format!("{} with random weights", shape.name)),
    );
    m.insert(
        "general.description",
        text("Random weights and a made-up vocabulary, for measuring speed; its text is noise."),
    );
    m.insert("general.file_type", Value::U32(mix.file_type()));
    m.insert("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    let mut arch = |key: &str, value: Value| {
        m.insert(format!("{}.{key}", shape.arch), value);
    };
    arch("vocab_size", number(shape.n_vocab));
    arch("context_length", number(shape.n_ctx_train));
    arch("embedding_length", number(shape.n_embd));
    arch("block_count", number(shape.n_layers));
    arch("feed_forward_length", number(shape.n_ff));
    arch("attention.head_count", number(shape.n_heads));
    arch("attention.head_count_kv", number(shape.n_kv_heads));
    arch("attention.key_length", number(shape.head_dim));
    arch("attention.value_length", number(shape.head_dim));
    arch("attention.layer_norm_rms_epsilon", Value::F32(1e-6));
    arch("rope.dimension_count", number(shape.head_dim));
    arch("rope.freq_base", Value::F32(shape.rope_base));
    if shape.arch == "gemma3" {
        arch(
            "attention.sliding_window",
            number(if shape.n_layers == 26 { 512 } else { 1024 }),
        );
    }
    m
}

fn tensors(shape: &Shape) -> Vec<TensorSpec> {
    let s = shape;
    let mut out = Vec::new();
    let mut tensor = |name: String, shape: &[usize]| {
        out.push(TensorSpec {
            name,
            ty: GgmlType::F32,
            shape: shape.to_vec(),
        });
    };
    let (q, kv) = (s.n_heads * s.head_dim, s.n_kv_heads * s.head_dim);
    tensor("token_embd.weight".into(), &[s.n_embd, s.n_vocab]);
    for i in 0..s.n_layers {
        let mut layer = |name: &str, shape: &[usize]| tensor(format!("blk.{i}.{name}"), shape);
        layer("attn_norm.weight", &[s.n_embd]);
        if s.arch == "phi3" {
            layer("attn_qkv.weight", &[s.n_embd, q + 2 * kv]);
        } else {
            layer("attn_q.weight", &[s.n_embd, q]);
            layer("attn_k.weight", &[s.n_embd, kv]);
            layer("attn_v.weight", &[s.n_embd, kv]);
        }
        if s.arch == "qwen2" {
            layer("attn_q.bias", &[q]);
            layer("attn_k.bias", &[kv]);
            layer("attn_v.bias", &[kv]);
        }
        if matches!(s.arch, "qwen3" | "gemma3") {
            layer("attn_q_norm.weight", &[s.head_dim]);
            layer("attn_k_norm.weight", &[s.head_dim]);
        }
        layer("attn_output.weight", &[q, s.n_embd]);
        if s.arch == "gemma3" {
            layer("post_attention_norm.weight", &[s.n_embd]);
        }
        layer("ffn_norm.weight", &[s.n_embd]);
        if s.arch == "phi3" {
            layer("ffn_up.weight", &[s.n_embd, 2 * s.n_ff]);
        } else {
            layer("ffn_gate.weight", &[s.n_embd, s.n_ff]);
            layer("ffn_up.weight", &[s.n_embd, s.n_ff]);
        }
        layer("ffn_down.weight", &[s.n_ff, s.n_embd]);
        if s.arch == "gemma3" {
            layer("post_ffw_norm.weight", &[s.n_embd]);
        }
    }
    tensor("output_norm.weight".into(), &[s.n_embd]);
    if !s.tied {
        tensor("output.weight".into(), &[s.n_embd, s.n_vocab]);
    }
    out
}
