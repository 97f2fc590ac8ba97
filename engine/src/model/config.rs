//! What a model is, in numbers: every hyperparameter checked, before any weight is touched.

use super::arch;
use super::encoder::EncoderConfig;
use super::ffn::FfnConfig;
use super::mixer::MixerConfig;
use super::norm::NormKind;
use super::per_layer::PerLayerConfig;
use super::pooling::PoolingConfig;
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
    /// What every norm over the residual stream is.
    pub norm: NormKind,
    /// Epsilon of every norm.
    pub norm_eps: f32,
    /// Factor of the token embedding.
    pub embedding_scale: f32,
    /// Factor of the logits, before the cap.
    pub logit_scale: f32,
    /// Soft cap of the logits.
    pub logit_softcap: Option<f32>,
    /// Kinds of rotation; each layer names one by index.
    pub ropes: Vec<Rope>,
    /// Per layer.
    pub layers: Vec<LayerConfig>,
    /// Embeddings that each layer is given of a token.
    pub per_layer: Option<PerLayerConfig>,
    /// Blocks in the file: the layers, and behind them those that predict tokens further ahead, which are not run.
    pub n_blocks: usize,
    /// What is before the layers of an encoder.
    pub encoder: Option<EncoderConfig>,
    /// What makes vectors of hidden states.
    pub pooling: PoolingConfig,
    /// What makes logits of the residual stream.
    pub output: OutputConfig,
}

/// The output head, in numbers.
#[derive(Debug, Clone, Copy)]
pub struct OutputConfig {
    /// The tensor of the norm before it, without `.weight`; without it hidden states are what the last layer left.
    pub norm: Option<&'static str>,
    /// Where its matrix comes from.
    pub matrix: OutputMatrix,
    /// Whether the matrix may have a bias.
    pub bias: bool,
}

/// Where the output matrix comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputMatrix {
    /// `output.weight`, or the token embedding where the file has none.
    OwnOrEmbedding,
    /// `output.weight`.
    Own,
    /// The token embedding.
    Embedding,
    /// There is none: the model makes no logits.
    None,
}

/// One layer: two parts, each of which adds to the residual stream.
#[derive(Debug, Clone)]
pub struct LayerConfig {
    /// What mixes positions.
    pub mixer: MixerConfig,
    /// What works on each position by itself.
    pub ffn: FfnConfig,
    /// The norms around the mixer.
    pub mixer_norms: PartNorms,
    /// The norms around the feed-forward part.
    pub ffn_norms: PartNorms,
    /// Factor of what a part made, before it is added to the residual stream.
    pub residual_scale: f32,
    /// Whether the feed-forward part reads what the mixer read, and not what the mixer left.
    pub parallel: bool,
    /// Whether the file may have a factor of what the layer leaves, `layer_output_scale`.
    pub output_scale: bool,
}

/// The norms around a part, by the names of their tensors, without `.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartNorms {
    /// Of what the part reads.
    pub before: Option<&'static str>,
    /// Of what it made, before that is added to the residual stream.
    pub after: Option<&'static str>,
    /// Of the residual stream once that is added.
    pub sum: Option<&'static str>,
    /// Of that, once what was there before the part is added to it another time.
    pub sum_again: Option<&'static str>,
}

impl PartNorms {
    /// One before the part.
    pub(crate) const fn before(name: &'static str) -> Self {
        PartNorms {
            before: Some(name),
            after: None,
            sum: None,
            sum_again: None,
        }
    }

    /// One of what it made.
    pub(crate) const fn after(name: &'static str) -> Self {
        PartNorms {
            before: None,
            after: Some(name),
            sum: None,
            sum_again: None,
        }
    }

    /// One before the part and one of what it made.
    pub(crate) const fn around(before: &'static str, after: &'static str) -> Self {
        PartNorms {
            before: Some(before),
            after: Some(after),
            sum: None,
            sum_again: None,
        }
    }

    /// One of the residual stream once the part is added.
    pub(crate) const fn of_sum(name: &'static str) -> Self {
        PartNorms {
            before: None,
            after: None,
            sum: Some(name),
            sum_again: None,
        }
    }
}

impl LayerConfig {
    /// A layer of two parts with a norm before each: `attn_norm`, `ffn_norm`.
    pub(crate) fn new(mixer: MixerConfig, ffn: FfnConfig) -> Self {
        LayerConfig {
            mixer,
            ffn,
            mixer_norms: PartNorms::before("attn_norm"),
            ffn_norms: PartNorms::before("ffn_norm"),
            residual_scale: 1.0,
            parallel: false,
            output_scale: false,
        }
    }

    /// Layers of these parts.
    pub(crate) fn of(mixers: Vec<impl Into<MixerConfig>>, ffns: Vec<impl Into<FfnConfig>>) -> Vec<Self> {
        mixers
            .into_iter()
            .zip(ffns)
            .map(|(mixer, ffn)| Self::new(mixer.into(), ffn.into()))
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
        config.check_experts(&keys)?;
        Ok(config)
    }

    /// What every family shares. It has no layers yet: their parts, and the rotations, are the family's to name.
    pub(crate) fn common(keys: &Keys<'_>, file: &ModelFile) -> Result<Self> {
        let norm_eps = keys.epsilon("attention.layer_norm_rms_epsilon")?;
        Self::with_norm(keys, file, NormKind::Rms, norm_eps)
    }

    /// As [`Self::common`], with layer norms over the residual stream.
    pub(crate) fn with_layer_norm(keys: &Keys<'_>, file: &ModelFile) -> Result<Self> {
        let norm_eps = keys.epsilon("attention.layer_norm_epsilon")?;
        Self::with_norm(keys, file, NormKind::Layer, norm_eps)
    }

    /// As [`Self::common`], with the norm that the caller has read.
    pub(crate) fn with_norm(
        keys: &Keys<'_>,
        file: &ModelFile,
        norm: NormKind,
        norm_eps: f32,
    ) -> Result<Self> {
        let metadata = keys.metadata;
        let n_embd = keys.size("embedding_length", MAX_WIDTH)?;
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
            norm,
            norm_eps,
            embedding_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            ropes: Vec::new(),
            layers: Vec::new(),
            per_layer: None,
            n_blocks: keys.n_blocks()?,
            encoder: None,
            pooling: PoolingConfig::read(keys, n_embd)?,
            output: OutputConfig {
                norm: Some("output_norm"),
                matrix: OutputMatrix::OwnOrEmbedding,
                bias: false,
            },
        })
    }

    /// Operations that a team of workers does for a token, each with a hand-over: those of the layers; the embedding,
    /// the last norm, the output matrix and what is done with its logits. An embedding for each layer is one more, and
    /// two in each layer.
    pub fn operations(&self) -> usize {
        let of_layer = |layer: &LayerConfig| layer.mixer.operations() + layer.ffn.operations();
        let of_embeddings = self.per_layer.as_ref().map_or(0, |_| 1 + 2 * self.layers.len());
        self.layers.iter().map(of_layer).sum::<usize>() + of_embeddings + 4
    }

    /// Bytes of the states that layers keep of a sequence; saturates.
    pub fn state_bytes(&self) -> usize {
        let bytes = |kind| match kind {
            CacheKind::State(shape) => shape.bytes(),
            CacheKind::None | CacheKind::Kv(_) | CacheKind::Pass(_) | CacheKind::SharedWith(_) => 0,
        };
        self.cache_kinds().map(bytes).fold(0, usize::saturating_add)
    }

    /// Whether it writes text: it makes logits, and no position sees those behind it.
    pub fn writes_text(&self) -> bool {
        self.output.matrix != OutputMatrix::None && self.is_causal()
    }

    /// Whether no position sees those behind it. Where some do, a text is whole in one pass.
    pub fn is_causal(&self) -> bool {
        let mut attention = self.layers.iter().filter_map(|layer| layer.mixer.attention());
        attention.all(|layer| layer.causal)
    }

    /// Positions that a sequence of a context of `n_ctx` can have.
    pub fn max_positions(&self, n_ctx: usize) -> usize {
        match &self.encoder {
            Some(encoder) if encoder.positions => n_ctx.min(self.n_ctx_train),
            _ => n_ctx,
        }
    }

    /// Whether layers keep a state, which cannot be taken back to any earlier position, as keys and values can.
    pub fn has_state(&self) -> bool {
        self.cache_kinds().any(|kind| matches!(kind, CacheKind::State(_)))
    }

    /// Whether a token needs some of the weights only.
    pub fn has_experts(&self) -> bool {
        self.layers.iter().any(|layer| layer.ffn.has_experts())
    }

    /// What the layers keep of the positions before.
    pub(crate) fn cache_kinds(&self) -> impl Iterator<Item = CacheKind> + Clone {
        self.layers.iter().map(|layer| layer.mixer.cache_kind())
    }

    /// A file that says that it has experts is not run without them.
    fn check_experts(&self, keys: &Keys<'_>) -> Result<()> {
        const KEY: &str = "expert_count";
        match keys.opt_u32(KEY)?.unwrap_or(0) {
            count if count > 0 && !self.has_experts() => {
                let expected = "0, as no layer of this architecture has experts";
                Err(keys.wrong(KEY, expected, &count.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// What the rotations must hold to, once the family has read them.
    fn check_ropes(&self, keys: &Keys<'_>) -> Result<()> {
        for (rope, dim) in self.layers.iter().filter_map(|layer| layer.mixer.rotates()) {
            let n_rot = self.ropes[rope].n_rot();
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

    pub(crate) fn has(&self, key: &str) -> bool {
        self.metadata.get(&self.key(key)).is_some()
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

    pub(crate) fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.metadata.opt_bool(&self.key(key))
    }

    /// The epsilon of a norm.
    pub(crate) fn epsilon(&self, key: &str) -> Result<f32> {
        match self.f32(key)? {
            eps if (0.0..1.0).contains(&eps) => Ok(eps),
            eps => Err(self.wrong(key, "0 to 1", &eps.to_string())),
        }
    }

    /// A factor, finite; 1 where the key is missing or 0.
    pub(crate) fn factor(&self, key: &str) -> Result<f32> {
        match self.opt_f32(key)?.unwrap_or(1.0) {
            0.0 => Ok(1.0),
            factor if factor.is_finite() => Ok(factor),
            factor => Err(self.wrong(key, "a finite number", &factor.to_string())),
        }
    }

    /// A size that may be 0 or missing, at most `most`.
    pub(crate) fn opt_size(&self, key: &str, most: u32) -> Result<usize> {
        match self.opt_u32(key)?.unwrap_or(0) {
            v if v > most => Err(self.wrong(key, &format!("0 to {most}"), &v.to_string())),
            v => Ok(v as usize),
        }
    }

    /// The length of an array of texts.
    pub(crate) fn opt_len(&self, key: &str) -> Result<Option<usize>> {
        let texts = self.metadata.opt_strings(&self.key(key))?;
        Ok(texts.map(|texts| texts.len()))
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
    pub(crate) fn n_layers(&self) -> Result<usize> {
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

    /// A number from 1 on for every layer: stated once, or as an array of one per block.
    pub(crate) fn per_layer(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.per_layer_from(key, 1)
    }

    /// As [`Self::per_layer`], from 0 on: for keys whose 0 says what a layer is.
    pub(crate) fn per_layer_or_none(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.per_layer_from(key, 0)
    }

    fn per_layer_from(&self, key: &str, least: usize) -> Result<Option<Vec<usize>>> {
        let name = self.key(key);
        let (n_blocks, n_layers) = (self.n_blocks()?, self.n_layers()?);
        let checked = |layer: usize, value: i64| match usize::try_from(value) {
            Ok(size) if size >= least && size <= MAX_WIDTH as usize => Ok(size),
            _ => {
                let found = format!("{value} for layer {layer}");
                Err(self.wrong(key, &format!("{least} to {MAX_WIDTH}"), &found))
            }
        };
        match self.metadata.get(&name) {
            None => Ok(None),
            Some(crate::gguf::Value::Array(_)) => {
                let values = self.metadata.opt_ints(&name)?.unwrap_or_default();
                if values.len() != n_blocks {
                    let expected = format!("a number, or an array of one for each of {n_blocks} layers");
                    return Err(self.wrong(key, &expected, &format!("an array of {}", values.len())));
                }
                let layers = values.iter().take(n_layers).enumerate();
                layers
                    .map(|(layer, value)| checked(layer, *value))
                    .collect::<Result<_>>()
                    .map(Some)
            }
            Some(_) if least == 0 => Ok(Some(vec![self.opt_size(key, MAX_WIDTH)?; n_layers])),
            Some(_) => Ok(Some(vec![self.size(key, MAX_WIDTH)?; n_layers])),
        }
    }

    /// Limits of `n_layers` layers, each a positive number: stated once, or as an array of one per block. `None` where
    /// that is nothing, or so small that it stands for nothing.
    pub(crate) fn limits(&self, key: &str, n_layers: usize) -> Result<Vec<Option<f32>>> {
        const NOTHING: f32 = 1e-6;
        let (name, n_blocks) = (self.key(key), self.n_blocks()?);
        let mut limits = match self.metadata.get(&name) {
            None => return Ok(vec![None; n_layers]),
            Some(crate::gguf::Value::Array(_)) => {
                let limits = self.metadata.opt_f32s(&name)?.unwrap_or_default();
                if limits.len() != n_blocks {
                    let expected = format!("a number, or an array of one for each of {n_blocks} layers");
                    return Err(self.wrong(key, &expected, &format!("an array of {}", limits.len())));
                }
                limits.to_vec()
            }
            Some(_) => vec![self.f32(key)?; n_blocks],
        };
        limits.resize(n_layers, 0.0);
        match limits.iter().find(|limit| !(0.0..f32::INFINITY).contains(*limit)) {
            Some(limit) => Err(self.wrong(key, "finite numbers from 0 on", &limit.to_string())),
            None => Ok(limits
                .into_iter()
                .map(|limit| Some(limit).filter(|limit| *limit > NOTHING))
                .collect()),
        }
    }

    /// Flags of the layers: an array of one per block (true, or a number other than 0), or a period `n`, for which
    /// `periodic(layer, n)` says them; `default` is the period where the key is missing.
    pub(crate) fn flags(
        &self,
        key: &str,
        default: u32,
        periodic: impl Fn(usize, usize) -> bool,
    ) -> Result<Vec<bool>> {
        use crate::gguf::{Array, Value};
        let (name, n_layers) = (self.key(key), self.n_layers()?);
        let period = match self.metadata.get(&name) {
            None => default,
            Some(Value::Array(array)) => {
                let pattern = match array {
                    Array::Bool(pattern) => pattern.clone(),
                    _ => {
                        let values = self.metadata.opt_ints(&name)?.unwrap_or_default();
                        values.iter().map(|value| *value != 0).collect()
                    }
                };
                if pattern.len() < n_layers {
                    let found = format!("array of {} {}", array.len(), array.type_name());
                    let expected = format!("a number, or one flag for each of {n_layers} layers");
                    return Err(self.wrong(key, &expected, &found));
                }
                return Ok(pattern[..n_layers].to_vec());
            }
            Some(_) => self.u32(key)?,
        };
        Ok((0..n_layers)
            .map(|layer| periodic(layer, period as usize))
            .collect())
    }
}

/// Whether a layer is local where `n - 1` local layers are followed by a global one. A period of 0 makes every layer
/// local, of 1 every layer global.
pub(crate) fn last_of_period_is_global(layer: usize, n: usize) -> bool {
    n == 0 || layer % n < n - 1
}
