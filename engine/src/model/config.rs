//! What a model is, in numbers: every hyperparameter checked, before any weight is touched.

use super::arch;
use super::ffn::{FfnConfig, GatedConfig};
use super::mixer::{AttentionConfig, MixerConfig};
use super::rope::Rope;
use crate::cache::CacheKind;
use crate::gguf::{Metadata, ModelFile};
use crate::{Error, Result};

/// Bounds that no real model comes near; they keep products of hyperparameters far from overflow.
const MAX_LAYERS: u32 = 4096;
pub(super) const MAX_WIDTH: u32 = 1 << 20;

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
    /// Epsilon of every RMS norm.
    pub norm_eps: f32,
    /// Factor of the token embedding.
    pub embedding_scale: f32,
    /// Soft cap of the logits.
    pub logit_softcap: Option<f32>,
    /// Kinds of rotation; each layer names one by index.
    pub ropes: Vec<Rope>,
    /// Per layer.
    pub layers: Vec<LayerConfig>,
    /// Blocks in the file: the layers, and behind them those that predict tokens further ahead, which are not run.
    pub n_blocks: usize,
    /// Whether the output matrix may have a bias.
    pub output_bias: bool,
}

/// One layer: two parts, each of which adds to the residual stream.
#[derive(Debug, Clone)]
pub struct LayerConfig {
    /// What mixes positions.
    pub mixer: MixerConfig,
    /// What works on each position by itself.
    pub ffn: FfnConfig,
    /// Whether what a part made is normed before it is added: `post_attention_norm` and `post_ffw_norm`.
    pub post_norm: bool,
}

impl LayerConfig {
    /// Layers of these parts.
    pub(crate) fn of(mixers: Vec<AttentionConfig>, ffns: Vec<GatedConfig>) -> Vec<Self> {
        mixers
            .into_iter()
            .zip(ffns)
            .map(|(mixer, ffn)| LayerConfig {
                mixer: MixerConfig::Attention(mixer),
                ffn: FfnConfig::Gated(ffn),
                post_norm: false,
            })
            .collect()
    }
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

    /// What every family shares. It has no layers yet: their parts, and the rotations, are the family's to name.
    pub(crate) fn common(keys: &Keys<'_>, file: &ModelFile) -> Result<Self> {
        let metadata = keys.metadata;
        let n_embd = keys.size("embedding_length", MAX_WIDTH)?;
        if keys.opt_u32("expert_count")?.unwrap_or(0) > 0 {
            return Err(Error::UnsupportedArchitecture {
                found: format!("{} with experts (mixture of experts)", keys.arch),
                supported: arch::names(),
            });
        }
        const EPS: &str = "attention.layer_norm_rms_epsilon";
        let norm_eps = keys.f32(EPS)?;
        if !(0.0..1.0).contains(&norm_eps) {
            return Err(keys.wrong(EPS, "0 to 1", &norm_eps.to_string()));
        }
        Ok(Config {
            arch: keys.arch.into(),
            // Nothing depends on it, so a damaged one is no reason to refuse the model.
            name: metadata
                .opt_str("general.name")
                .unwrap_or_default()
                .unwrap_or_default()
                .into(),
            n_ctx_train: keys.size("context_length", u32::MAX)?,
            n_embd,
            n_vocab: vocabulary(metadata, keys, file)?,
            norm_eps,
            embedding_scale: 1.0,
            logit_softcap: None,
            ropes: Vec::new(),
            layers: Vec::new(),
            n_blocks: keys.n_blocks()?,
            output_bias: false,
        })
    }

    /// What the layers keep of the positions before.
    pub(crate) fn cache_kinds(&self) -> impl Iterator<Item = CacheKind> + Clone {
        self.layers.iter().map(|layer| layer.mixer.cache_kind())
    }

    /// What the rotations must hold to, once the family has read them.
    fn check_ropes(&self, keys: &Keys<'_>) -> Result<()> {
        for layer in &self.layers {
            let MixerConfig::Attention(attention) = &layer.mixer;
            let (n_rot, dim) = (self.ropes[attention.rope].n_rot(), attention.head_dim_k);
            if n_rot > dim || n_rot == 0 {
                let expected = format!("an even number up to the head dimension, {dim}");
                return Err(keys.wrong("rope.dimension_count", &expected, &n_rot.to_string()));
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

    pub(crate) fn missing(&self, key: &str) -> Error {
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
    pub(crate) fn size(&self, key: &str, most: u32) -> Result<usize> {
        match self.u32(key)? {
            v if v == 0 || v > most => Err(self.wrong(key, &format!("1 to {most}"), &v.to_string())),
            v => Ok(v as usize),
        }
    }

    /// Blocks in the file.
    fn n_blocks(&self) -> Result<usize> {
        self.size("block_count", MAX_LAYERS)
    }

    /// Layers: the blocks but for those that predict tokens further ahead.
    fn n_layers(&self) -> Result<usize> {
        const KEY: &str = "nextn_predict_layers";
        let n_blocks = self.n_blocks()?;
        match self.opt_u32(KEY)?.unwrap_or(0) as usize {
            n if n < n_blocks => Ok(n_blocks - n),
            n => Err(self.wrong(
                KEY,
                &format!("fewer than block_count, {n_blocks}"),
                &n.to_string(),
            )),
        }
    }

    /// A number from 1 to `most` for a key.
    pub(crate) fn in_range(&self, key: &str, value: usize, most: usize) -> Result<()> {
        if value == 0 || value > most {
            return Err(self.wrong(key, &format!("1 to {most}"), &value.to_string()));
        }
        Ok(())
    }

    /// A number for every layer: stated once, or as an array of one per block.
    pub(crate) fn per_layer(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let name = self.key(key);
        let (n_blocks, n_layers) = (self.n_blocks()?, self.n_layers()?);
        match self.metadata.get(&name) {
            None => Ok(None),
            Some(crate::gguf::Value::Array(_)) => {
                let values = self.metadata.opt_ints(&name)?.unwrap_or_default();
                if values.len() != n_blocks {
                    let expected = format!("a number, or an array of one for each of {n_blocks} layers");
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
                    .take(n_layers)
                    .enumerate()
                    .map(size)
                    .collect::<Result<_>>()
                    .map(Some)
            }
            Some(_) => Ok(Some(vec![self.size(key, MAX_WIDTH)?; n_layers])),
        }
    }
}
