//! The models: random weights of a known shape, made once by `twinfer bench --shape` and kept.
//!
//! Types that have no quantizer (IQ1 to IQ3, TQ) are made from such a file: its matrices are replaced by blocks of
//! random bits with a moderate scale. Any bits are valid weights in these formats, and no speed depends on them.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use twinfer_benches::run;
use twinfer_engine::gguf::{Metadata, ModelFile, TensorSpec, Writer};
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::ffn::is_of_experts;
use twinfer_engine::quant::GgmlType;

use crate::plan::{Kind, ModelSpec, Test};

/// A model's file and what a token costs in it.
#[derive(Debug, Clone)]
pub(crate) struct ModelOnDisk {
    pub(crate) path: PathBuf,
    /// Weights that every token is multiplied with.
    macs: f64,
    /// Weights of the output matrix, which only the tokens with logits meet.
    output_macs: f64,
    /// Bytes of all that a token with logits reads.
    bytes: f64,
    /// Numbers in the cache per position.
    cache: f64,
}

/// Where the float16 scale lies in blocks without a quantizer; the scale itself, so that weights are of about 0.02.
const BY_BITS: &[(&str, GgmlType, usize, u16)] = &[
    // 2^-11, 2^-13, 2^-9: the integers are about 40, 100, 8.
    ("iq2_xxs", GgmlType::IQ2_XXS, 0, 0x1000),
    ("iq2_xs", GgmlType::IQ2_XS, 0, 0x1000),
    ("iq2_s", GgmlType::IQ2_S, 0, 0x1000),
    ("iq3_xxs", GgmlType::IQ3_XXS, 0, 0x0800),
    ("iq3_s", GgmlType::IQ3_S, 0, 0x0800),
    ("iq1_s", GgmlType::IQ1_S, 0, 0x1800),
    // 0.02: the integers are -1, 0, 1.
    ("tq1_0", GgmlType::TQ1_0, 52, 0x2520),
    ("tq2_0", GgmlType::TQ2_0, 64, 0x2520),
];

/// The model's file, made if it is not there.
pub(crate) fn find(spec: &ModelSpec, directory: &Path, twinfer: &Path) -> Result<ModelOnDisk> {
    std::fs::create_dir_all(directory)?;
    let layers = spec.layers.map_or_else(String::new, |n| format!("-{n}-layers"));
    let path = directory.join(format!("{}{layers}-{}.gguf", spec.shape, spec.ty));
    if !path.exists() {
        eprintln!("making {} ({})", spec.name(), path.display());
        match BY_BITS.iter().find(|row| row.0 == spec.ty) {
            Some(&(_, ty, at, scale)) => {
                let base = ModelSpec {
                    ty: "q4_k_m".into(),
                    ..spec.clone()
                };
                let base = find(&base, directory, twinfer)?;
                by_bits(&base.path, &path, ty, at, scale)?;
            }
            None => run::quietly(
                Command::new(twinfer)
                    .args(["bench", "-q", "-p", "0", "-n", "0", "--shape", &spec.shape])
                    .args(["--type", &spec.ty])
                    .args(spec.layers.map(|n| format!("--layers={n}")))
                    .arg("-o")
                    .arg(&path),
            )?,
        }
    }
    inspect(path, twinfer)
}

/// Writes the model of `base` with its layers' matrices in type `ty`.
fn by_bits(base: &Path, path: &Path, ty: GgmlType, at: usize, scale: u16) -> Result<()> {
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(base)?)])?;
    let mut metadata = Metadata::new();
    for (key, value) in file.metadata().iter() {
        // It would name the other type.
        if key != "general.file_type" {
            metadata.insert(key, value.clone());
        }
    }
    let replaced = |name: &str| name.starts_with("blk.") && !name.ends_with("_norm.weight");
    let tensors: Vec<TensorSpec> = file
        .tensors()
        .map(|t| TensorSpec {
            ty: if replaced(&t.name) { ty } else { t.ty },
            ..TensorSpec::from(t)
        })
        .collect();
    let part = path.with_extension("part");
    let mut writer = Writer::new(BufWriter::new(File::create(&part)?), &metadata, &tensors)?;
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    for tensor in &tensors {
        if !replaced(&tensor.name) {
            writer.write_tensor(&tensor.name, &file.tensor_bytes(&tensor.name)?)?;
            continue;
        }
        let row = ty
            .row_bytes(tensor.shape[0])
            .with_context(|| format!("rows of {} cannot be stored as {}", tensor.shape[0], ty.name()))?;
        let mut data = vec![0u8; row * tensor.shape[1..].iter().product::<usize>()];
        for block in data.chunks_exact_mut(ty.block_bytes()) {
            for bytes in block.chunks_mut(8) {
                // xorshift64
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                bytes.copy_from_slice(&random.to_le_bytes()[..bytes.len()]);
            }
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        writer.write_tensor(&tensor.name, &data)?;
    }
    writer.finish()?.into_inner()?.sync_all()?;
    std::fs::rename(part, path)?;
    Ok(())
}

/// Asks twinfer for the model's tensors and counts. Of experts a token meets those that are used; keys and values are counted
/// as if every layer kept all of them, which is too many where layers have windows or states.
fn inspect(path: PathBuf, twinfer: &Path) -> Result<ModelOnDisk> {
    let report: Value = run::json(Command::new(twinfer).arg("inspect").arg(&path).arg("--json"))?;
    let find = |key: &str| -> Result<&Value> {
        report["metadata"]
            .as_object()
            .and_then(|m| m.iter().find(|(name, _)| name.ends_with(key)))
            .map(|(_, value)| value)
            .with_context(|| format!("{} has no {key}", path.display()))
    };
    let number = |key: &str| -> Result<f64> {
        let value = find(key)?.as_f64();
        value.with_context(|| format!("{key} of {} is no number", path.display()))
    };
    let used = match (number(".expert_used_count"), number(".expert_count")) {
        (Ok(used), Ok(all)) if all > 0.0 => used / all,
        _ => 1.0,
    };
    // What makes vectors has no logits.
    let encoder = !report["vectors"].is_null();
    let tensors = report["tensors"].as_array().context("no tensors")?;
    let untied = encoder || tensors.iter().any(|t| t["name"] == "output.weight");
    let (mut macs, mut bytes) = (0.0, 0.0);
    let mut output = encoder.then_some((0.0, 0.0));
    for tensor in tensors {
        let weights = tensor["shape"].as_array().map_or(0.0, |dims| {
            dims.iter().filter_map(Value::as_f64).fold(1.0, |p, d| p * d)
        });
        let size = tensor["bytes"].as_f64().unwrap_or(0.0);
        match tensor["name"].as_str().unwrap_or_default() {
            "token_embd.weight" if untied => {}
            "position_embd.weight" | "token_types.weight" | "per_layer_token_embd.weight" => {}
            "token_embd.weight" | "output.weight" => output = Some((weights, size)),
            name => {
                let part = name.splitn(3, '.').last().unwrap_or_default();
                let share = if is_of_experts(part) { used } else { 1.0 };
                macs += weights * share;
                bytes += size * share;
            }
        }
    }
    let Some((output_macs, output_bytes)) = output else {
        bail!("{} has no output matrix", path.display());
    };
    let layers = number(".block_count")?;
    let heads = match find(".attention.head_count_kv").or_else(|_| find(".attention.head_count"))? {
        Value::Array(of_layers) => of_layers.iter().filter_map(Value::as_f64).sum(),
        one => one.as_f64().unwrap_or(0.0) * layers,
    };
    let width = number(".embedding_length")? / number(".attention.head_count").unwrap_or(1.0);
    let length = |key: &str| number(key).unwrap_or(width);
    let cache = heads * (length(".attention.key_length") + length(".attention.value_length"));
    Ok(ModelOnDisk {
        path,
        macs,
        output_macs,
        bytes: bytes + output_bytes,
        cache,
    })
}

impl ModelOnDisk {
    #[cfg(test)]
    pub(crate) fn for_test(macs: f64, output_macs: f64, bytes: f64, cache: f64) -> Self {
        ModelOnDisk {
            path: PathBuf::new(),
            macs,
            output_macs,
            bytes,
            cache,
        }
    }

    /// Multiply-adds of the matrices per token of a test (without attention's), in units of 1e9.
    pub(crate) fn gmacs(&self, test: Test) -> f64 {
        let logits = match test.kind {
            Kind::Prompt => 1.0 / test.n as f64,
            Kind::Writing | Kind::Texts => 1.0,
        };
        (self.macs + self.output_macs * logits) * 1e-9
    }

    /// Bytes that a written token must read: its part of the weights, which all sequences of a pass share, and the
    /// cache at the test's mean depth.
    pub(crate) fn gigabytes(&self, test: Test, cache_bytes: f64) -> f64 {
        let positions = test.depth as f64 + test.n as f64 / 2.0;
        (self.bytes / test.sequences as f64 + self.cache * cache_bytes * positions) * 1e-9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_lie_inside_their_blocks() {
        for &(name, ty, at, _) in BY_BITS {
            assert_eq!(ty.name(), name);
            assert!(at + 2 <= ty.block_bytes(), "{name}");
        }
    }

    #[test]
    fn costs_count_what_a_token_meets() {
        let model = ModelOnDisk::for_test(3e9, 1e9, 2e9, 1000.0);
        assert_eq!(model.gmacs("pp4".parse().unwrap()), 3.25);
        assert_eq!(model.gmacs("tg4".parse().unwrap()), 4.0);
        let bytes = model.gigabytes("tg10@d95".parse().unwrap(), 2.0);
        assert!((bytes - 2.0002).abs() < 1e-9, "{bytes}");
        let bytes = model.gigabytes("tg10x4@d95".parse().unwrap(), 2.0);
        assert!((bytes - 0.5002).abs() < 1e-9, "{bytes}");
    }
}
