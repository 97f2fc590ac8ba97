//! What a model is, in numbers: every hyperparameter checked, before any weight is touched.

use super::arch;
use super::rope::Rope;
use crate::gguf::{Metadata, ModelFile};
use crate::kernels::{Activation, MAX_HEAD_DIM};
use crate::{Error, Result};

/// Bounds that no real model comes near; they keep products of hyperparameters far from overflow.
const MAX_LAYERS: u32 = 4096;
const MAX_WIDTH: u32 = 1 << 20;

/// A model's configuration. Lengths are in elements.
#[derive(Debug, Clone)]
pub struct Config {
    /// `general.architecture`.
    pub arch: String,
    /// `general.name`, empty where the file has none in UTF-8.
    pub name: String,
    /// Context length that the model was trained for.
    pub n_ctx_train: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Rows of the token embedding.
    pub n_vocab: usize,
    /// Width of a key and query head.
    pub head_dim_k: usize,
    /// Width of a value head.
    pub head_dim_v: usize,
    /// Epsilon of every RMS norm.
    pub norm_eps: f32,
    /// Factor of the token embedding.
    pub embedding_scale: f32,
    /// Factor of an attention score.
    pub attention_scale: f32,
    /// Soft cap of an attention score.
    pub attention_softcap: Option<f32>,
    /// Soft cap of the logits.
    pub logit_softcap: Option<f32>,
    /// Gate function of the feed-forward blocks.
    pub activation: Activation,
    /// Kinds of rotation; each layer names one by index.
    pub ropes: Vec<Rope>,
    /// Per layer.
    pub layers: Vec<LayerConfig>,
    /// Blocks in the file: the layers, and behind them those that predict tokens further ahead, which are not run.
    pub n_blocks: usize,
    /// Which tensors a layer has.
    pub tensors: TensorLayout,
}

/// One layer.
#[derive(Debug, Clone)]
pub struct LayerConfig {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of the feed-forward block.
    pub n_ff: usize,
    /// Sliding window: a position sees itself and the `window - 1` before it.
    pub window: Option<usize>,
    /// Index into [`Config::ropes`].
    pub rope: usize,
}

/// Which tensors a family has beyond those that all have.
#[derive(Debug, Clone, Copy, Default)]
pub struct TensorLayout {
    /// `attn_q_norm` and `attn_k_norm`, per head.
    pub qk_norm: bool,
    /// `post_attention_norm` and `post_ffw_norm`, before the residual is added.
    pub post_norm: bool,
    /// `output.bias` may be there.
    pub output_bias: bool,
}

impl Config {
    /// Reads the configuration that a file's metadata states.
    ///
    /// # Errors
    /// Unsupported architecture, missing keys, values out of range.
    pub fn from_file(file: &ModelFile) -> Result<Self> {
        if let Some(error) = no_model(file.metadata()) {
            return Err(error);
        }
        let name = file.metadata().str("general.architecture")?;
        let family = arch::find(name)?;
        let keys = Keys {
            metadata: file.metadata(),
            arch: name,
        };
        let config = (family.configure)(&keys, file)?;
        config.check_ropes(&keys)?;
        Ok(config)
    }

    /// What every decoder-only family shares; the family's file then changes what differs.
    pub(crate) fn common(keys: &Keys<'_>, file: &ModelFile) -> Result<Self> {
        let metadata = keys.metadata;
        let n_embd = keys.size("embedding_length", MAX_WIDTH)?;
        let n_blocks = keys.size("block_count", MAX_LAYERS)?;
        let n_layers = match keys.opt_u32("nextn_predict_layers")?.unwrap_or(0) as usize {
            n if n < n_blocks => n_blocks - n,
            n => {
                let expected = format!("fewer than block_count, {n_blocks}");
                return Err(keys.wrong("nextn_predict_layers", &expected, &n.to_string()));
            }
        };
        let heads = keys
            .per_layer("attention.head_count", n_blocks)?
            .ok_or_else(|| keys.missing("attention.head_count"))?;
        let kv_heads = keys
            .per_layer("attention.head_count_kv", n_blocks)?
            .unwrap_or_else(|| heads.clone());
        let n_ff = keys
            .per_layer("feed_forward_length", n_blocks)?
            .ok_or_else(|| keys.missing("feed_forward_length"))?;
        if keys.opt_u32("expert_count")?.unwrap_or(0) > 0 {
            return Err(Error::UnsupportedArchitecture {
                found: format!("{} with experts (mixture of experts)", keys.arch),
                supported: arch::names(),
            });
        }
        let head_dim = |key| match keys.opt_u32(key)? {
            Some(v) => Ok(v as usize),
            None if n_embd.is_multiple_of(heads[0]) => Ok(n_embd / heads[0]),
            None => Err(keys.wrong(
                "attention.head_count",
                &format!("a divisor of embedding_length, {n_embd}"),
                &heads[0].to_string(),
            )),
        };
        let (head_dim_k, head_dim_v) = (
            head_dim("attention.key_length")?,
            head_dim("attention.value_length")?,
        );
        let norm_eps = keys.f32("attention.layer_norm_rms_epsilon")?;
        let n_vocab = vocabulary(metadata, keys, file)?;
        let layers = (0..n_layers)
            .map(|i| LayerConfig {
                n_heads: heads[i],
                n_kv_heads: kv_heads[i],
                n_ff: n_ff[i],
                window: None,
                rope: 0,
            })
            .collect();
        let config = Config {
            arch: keys.arch.into(),
            // Nothing depends on it, so a damaged one is no reason to refuse the model.
            name: metadata
                .opt_str("general.name")
                .unwrap_or_default()
                .unwrap_or_default()
                .into(),
            n_ctx_train: keys.u32("context_length")? as usize,
            n_embd,
            n_vocab,
            head_dim_k,
            head_dim_v,
            norm_eps,
            embedding_scale: 1.0,
            attention_scale: 1.0 / (head_dim_k as f32).sqrt(),
            attention_softcap: None,
            logit_softcap: None,
            activation: Activation::Silu,
            ropes: Vec::new(),
            layers,
            n_blocks,
            tensors: TensorLayout::default(),
        };
        config.check(keys)?;
        Ok(config)
    }

    /// Query width of a layer.
    pub fn q_width(&self, layer: usize) -> usize {
        self.layers[layer].n_heads * self.head_dim_k
    }

    /// The numbers that every family has.
    fn check(&self, keys: &Keys<'_>) -> Result<()> {
        let in_range = |key: &str, value: usize, most: usize| {
            if value == 0 || value > most {
                Err(keys.wrong(key, &format!("1 to {most}"), &value.to_string()))
            } else {
                Ok(())
            }
        };
        in_range("context_length", self.n_ctx_train, u32::MAX as usize)?;
        for (key, dim) in [
            ("attention.key_length", self.head_dim_k),
            ("attention.value_length", self.head_dim_v),
        ] {
            if keys.opt_u32(key)?.is_some() {
                in_range(key, dim, MAX_HEAD_DIM)?;
            } else if dim > MAX_HEAD_DIM {
                let expected = format!("enough heads that a head is at most {MAX_HEAD_DIM} wide");
                let found = format!("{} heads for a width of {}", self.n_embd / dim, self.n_embd);
                return Err(keys.wrong("attention.head_count", &expected, &found));
            }
        }
        if !(self.norm_eps >= 0.0 && self.norm_eps < 1.0) {
            return Err(keys.wrong(
                "attention.layer_norm_rms_epsilon",
                "0 to 1",
                &self.norm_eps.to_string(),
            ));
        }
        for (i, layer) in self.layers.iter().enumerate() {
            in_range(
                "attention.head_count",
                layer.n_heads,
                MAX_WIDTH as usize / self.head_dim_k,
            )?;
            in_range("attention.head_count_kv", layer.n_kv_heads, layer.n_heads)?;
            in_range("feed_forward_length", layer.n_ff, MAX_WIDTH as usize)?;
            if !layer.n_heads.is_multiple_of(layer.n_kv_heads) {
                let found = format!("{} of {} heads in layer {i}", layer.n_kv_heads, layer.n_heads);
                return Err(keys.wrong(
                    "attention.head_count_kv",
                    "a divisor of attention.head_count",
                    &found,
                ));
            }
        }
        Ok(())
    }

    /// What the rotations must hold to, once the family has read them.
    fn check_ropes(&self, keys: &Keys<'_>) -> Result<()> {
        for rope in &self.ropes {
            if rope.n_rot() > self.head_dim_k || rope.n_rot() == 0 {
                let expected = format!("an even number up to the head dimension, {}", self.head_dim_k);
                return Err(keys.wrong("rope.dimension_count", &expected, &rope.n_rot().to_string()));
            }
        }
        Ok(())
    }
}

/// Says what a GGUF file is that goes with a model and is none itself.
fn no_model(metadata: &Metadata) -> Option<Error> {
    let text = |key| metadata.opt_str(key).ok().flatten();
    let (key, found) = if text("general.architecture") == Some("clip") {
        (
            "general.architecture",
            "`clip`: this file encodes pictures or sounds for a model (mmproj)",
        )
    } else if text("general.type") == Some("adapter") || text("adapter.type").is_some() {
        (
            "general.type",
            "`adapter`: this file is a LoRA, which changes a model",
        )
    } else if text("general.type") == Some("imatrix") || metadata.get("imatrix.chunk_count").is_some() {
        (
            "general.type",
            "`imatrix`: this file has statistics for quantizing a model",
        )
    } else if text("general.architecture") == Some("controlvector") {
        (
            "general.architecture",
            "`controlvector`: this file steers a model",
        )
    } else {
        return None;
    };
    Some(Error::Metadata {
        key: key.into(),
        expected: "a model that writes text".into(),
        found: found.into(),
    })
}

/// Number of tokens: the vocabulary's length, which the embedding must agree with.
fn vocabulary(metadata: &Metadata, keys: &Keys<'_>, file: &ModelFile) -> Result<usize> {
    if let Some(tokens) = metadata.opt_strings("tokenizer.ggml.tokens")? {
        return Ok(tokens.len());
    }
    if let Some(n) = keys.opt_u32("vocab_size")? {
        return Ok(n as usize);
    }
    match file.tensor("token_embd.weight") {
        Some(info) => Ok(info.n_rows()),
        None => Err(Error::Tensor {
            tensor: "token_embd.weight".into(),
            what: "it is missing from the file, which has no vocabulary either".into(),
        }),
    }
}

/// Metadata keys of one architecture: `ARCH.` is put in front.
pub(crate) struct Keys<'a> {
    pub(crate) metadata: &'a Metadata,
    pub(crate) arch: &'a str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    pub(crate) fn wrong(&self, key: &str, expected: &str, found: &str) -> Error {
        Error::Metadata {
            key: self.key(key),
            expected: expected.into(),
            found: found.into(),
        }
    }

    fn missing(&self, key: &str) -> Error {
        Error::MissingKey {
            key: self.key(key),
            why: "the architecture requires it".into(),
        }
    }

    pub(crate) fn u32(&self, key: &str) -> Result<u32> {
        self.metadata.u32(&self.key(key))
    }

    pub(crate) fn opt_u32(&self, key: &str) -> Result<Option<u32>> {
        self.metadata.opt_u32(&self.key(key))
    }

    pub(crate) fn f32(&self, key: &str) -> Result<f32> {
        self.metadata.f32(&self.key(key))
    }

    pub(crate) fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        self.metadata.opt_f32(&self.key(key))
    }

    pub(crate) fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.metadata.opt_str(&self.key(key))
    }

    /// A size: 1 to `most`.
    fn size(&self, key: &str, most: u32) -> Result<usize> {
        match self.u32(key)? {
            v if v == 0 || v > most => Err(self.wrong(key, &format!("1 to {most}"), &v.to_string())),
            v => Ok(v as usize),
        }
    }

    /// A number for every layer: stated once, or as an array of one per layer.
    fn per_layer(&self, key: &str, n_layers: usize) -> Result<Option<Vec<usize>>> {
        let name = self.key(key);
        match self.metadata.get(&name) {
            None => Ok(None),
            Some(crate::gguf::Value::Array(_)) => {
                let values = self.metadata.opt_ints(&name)?.unwrap_or_default();
                if values.len() != n_layers {
                    let expected = format!("a number, or an array of one for each of {n_layers} layers");
                    return Err(self.wrong(key, &expected, &format!("an array of {}", values.len())));
                }
                let size = |(layer, &value): (usize, &i64)| match usize::try_from(value) {
                    Ok(size) if size > 0 && size <= MAX_WIDTH as usize => Ok(size),
                    _ => {
                        let found = format!("{value} for layer {layer}");
                        Err(self.wrong(key, &format!("1 to {MAX_WIDTH}"), &found))
                    }
                };
                values
                    .iter()
                    .enumerate()
                    .map(size)
                    .collect::<Result<_>>()
                    .map(Some)
            }
            Some(_) => Ok(Some(vec![self.size(key, MAX_WIDTH)?; n_layers])),
        }
    }
}
