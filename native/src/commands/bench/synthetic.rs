//! Models of a given shape with random weights.
//!
//! Quantized blocks cannot be random bytes: their scales would be anything up to infinity. So a pool of blocks is
//! quantized once from normally distributed weights, and tensors are filled with blocks drawn from it, which goes at
//! the speed of memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rayon::ThreadPool;
use rayon::prelude::*;
use twinfer_engine::gguf::{GgufSet, Metadata, ModelFile, TensorSpec, Value, Writer, writer};
use twinfer_engine::memory::Bytes;
use twinfer_engine::quant::{self, GgmlType, Mix, QUANTIZATION_VERSION};

use super::shapes::{Fill, Model, Shape};
use super::vocabulary;
use crate::commands::quantize::{find_mix, mix_model};
use crate::output_file::OutputFile;
use crate::progress::Progress;
use crate::settings::{Settings, Verbosity};
use crate::{budget, interrupt};

/// Blocks in a pool.
const POOL_BLOCKS: usize = 4096;
/// Bytes that one task fills.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes that are made at a time: enough for many tasks, and little beside what a tensor of experts has.
const PART_BYTES: usize = 64 << 20;
/// Bytes of the pool that are taken at a time: a block of a few numbers would not be worth a draw.
const RUN_BYTES: usize = 128;
/// Standard deviation of the weights: about what trained models have.
const DEVIATION: f32 = 0.02;

/// A random model, described but not yet made.
#[derive(Debug)]
pub(super) struct Synthetic {
    /// The shape's name and the mix.
    pub(super) name: String,
    metadata: Metadata,
    tensors: Vec<TensorSpec>,
    fills: Vec<Fill>,
    seed: u64,
}

/// What of a shape is made, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) shape: &'a str,
    /// The first layers alone.
    pub(crate) layers: Option<usize>,
    /// A type or mix; else the one that its published files have.
    pub(crate) mix: Option<&'a str>,
}

impl Synthetic {
    /// `vocabulary`: with tokens, which a file needs; a measurement in memory takes ids alone.
    pub(super) fn new(wish: Wish<'_>, seed: u32, vocabulary: bool) -> Result<Self> {
        let shape = super::shapes::find(wish.shape)?;
        let model = shape.model(wish.layers)?;
        let mix = find_mix(wish.mix.unwrap_or(model.mix))?;
        let mut metadata = metadata(shape, &model, mix);
        if vocabulary {
            vocabulary::insert(&mut metadata, model.vocabulary, model.n_vocab);
        } else {
            metadata.insert("tokenizer.ggml.model", Value::String("none".into()));
        }
        let all = model.tensors();
        let of_mix = mix_model(&metadata, || all.iter().map(|tensor| tensor.name.as_str()))?;
        let spec = |tensor: &super::shapes::Tensor| {
            let dims: Vec<u64> = tensor.shape.iter().map(|&d| d as u64).collect();
            let ty = mix.tensor_type(&tensor.name, &dims, &of_mix);
            TensorSpec {
                name: tensor.name.clone(),
                ty: ty.unwrap_or(tensor.kept_as),
                shape: tensor.shape.clone(),
            }
        };
        let part = wish.layers.map(|n| format!(", {n} layers"));
        Ok(Self {
            name: format!("{} {}{}", shape.name, mix.name(), part.unwrap_or_default()),
            metadata,
            tensors: all.iter().map(spec).collect(),
            fills: all.iter().map(|tensor| tensor.fill).collect(),
            seed: seed.into(),
        })
    }

    /// The model without its weights; what is not random is there, for a configuration may depend on it.
    pub(super) fn headers(&self) -> Result<ModelFile> {
        let (_, header) = writer::header(&self.metadata, &self.tensors)?;
        let mut known = HashMap::new();
        for (spec, fill) in self.tensors.iter().zip(&self.fills) {
            if *fill != Fill::Random && spec.ty == GgmlType::F32 {
                known.insert(spec.name.clone(), Bytes::from_vec(self.floats(spec, *fill)));
            }
        }
        Ok(ModelFile::from_tensors(GgufSet::new(vec![header])?, known))
    }

    /// Makes the model as the bytes of a file.
    pub(super) fn in_memory(&self, threads: &ThreadPool, settings: &Settings) -> Result<Vec<u8>> {
        let capacity = usize::try_from(self.memory(settings)?)
            .context("this model does not fit into the address space")?;
        self.write(Vec::with_capacity(capacity), threads, settings.verbosity)
    }

    /// Writes the model to a file that lies in memory.
    pub(super) fn write_to(&self, file: File, threads: &ThreadPool, settings: &Settings) -> Result<File> {
        self.memory(settings)?;
        self.write(file, threads, settings.verbosity)
            .context("cannot write the weights to memory")
    }

    /// Bytes of memory that it takes, which are there.
    fn memory(&self, settings: &Settings) -> Result<u64> {
        let (_, header) = writer::header(&self.metadata, &self.tensors)?;
        let bytes = header.data_end();
        if let Some(room) = budget::rooms(Path::new("/"), settings.memory_limit).first()
            && bytes > room.free
        {
            bail!(
                "these weights need {} MiB, {} MiB of memory are free ({}); choose fewer --layers, a smaller shape or --type, \
                 or write a file with -o",
                bytes >> 20,
                room.free >> 20,
                room.limiter
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
            let fill = self.fills[i];
            if fill != Fill::Random && *ty == GgmlType::F32 {
                writer.write_tensor(name, &self.floats(&self.tensors[i], fill))?;
                progress.add(*bytes);
                continue;
            }
            let pool = match pools.iter().position(|(of, _)| of == ty) {
                Some(at) => &pools[at].1,
                None => {
                    pools.push((*ty, pool(*ty, self.seed)?));
                    &pools[pools.len() - 1].1
                }
            };
            let chunk = CHUNK_BYTES / ty.block_bytes() * ty.block_bytes();
            let part = PART_BYTES / chunk * chunk;
            let seed = self.seed ^ (i as u64 + 1) << 32;
            let (mut done, total) = (0, usize::try_from(*bytes)?);
            while done < total {
                interrupt::check()?;
                data.resize(part.min(total - done), 0);
                let first = done / chunk;
                threads.install(|| fill_random(&mut data, pool, (chunk, first), ty.block_bytes(), seed));
                writer.write_part(name, &data)?;
                done += data.len();
                progress.add(data.len() as u64);
            }
        }
        Ok(writer.finish()?)
    }

    /// A tensor that is not random, as f32.
    fn floats(&self, spec: &TensorSpec, fill: Fill) -> Vec<u8> {
        let n: usize = spec.shape.iter().product();
        let mut random = Random(self.seed ^ n as u64);
        let share = |i: usize| i as f32 / n.saturating_sub(1).max(1) as f32;
        let value = |i: usize| match fill {
            Fill::Random => random.weight(),
            Fill::Ones => 1.0,
            Fill::Zeros => 0.0,
            Fill::Taps => ((random.next() >> 40) as f32 / (1 << 24) as f32) - 0.5,
            Fill::Decay => -1.0 - 15.0 * share(i),
            Fill::TimeStep => -6.9 + 4.65 * share(i),
            Fill::Turning(pairs) if i < pairs => 1.0,
            Fill::Turning(_) => 1e30,
        };
        (0..n).map(value).flat_map(f32::to_le_bytes).collect()
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

/// Fills with whole blocks of the pool, chunk by chunk from chunk `first` of the tensor on; the same for any number of
/// threads.
fn fill_random(data: &mut [u8], pool: &[u8], (chunk, first): (usize, usize), block_bytes: usize, seed: u64) {
    let run = RUN_BYTES.div_ceil(block_bytes) * block_bytes;
    let n = ((pool.len() - run) / block_bytes) as u64 + 1;
    data.par_chunks_mut(chunk).enumerate().for_each(|(i, chunk)| {
        let i = (first + i) as u64;
        let mut random = Random(seed.wrapping_add(i.wrapping_mul(0xD134_2543_DE82_EF95)));
        for blocks in chunk.chunks_mut(run) {
            let at = (random.next() % n) as usize * block_bytes;
            blocks.copy_from_slice(&pool[at..at + blocks.len()]);
        }
    });
}

fn metadata(shape: &Shape, model: &Model, mix: Mix) -> Metadata {
    let mut m = Metadata::new();
    let text = |s: &str| Value::String(s.into());
    m.insert("general.architecture", text(model.arch));
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
    for (key, value) in model.keys() {
        m.insert(format!("{}.{key}", model.arch), value);
    }
    if let Some(n) = model.token_types() {
        m.insert("tokenizer.ggml.token_type_count", Value::U32(n));
    }
    m
}
