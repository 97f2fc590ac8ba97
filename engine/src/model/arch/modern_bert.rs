//! modern-bert (ModernBERT, granite-embedding R2, gte-modern): an encoder with layer norms without biases before each
//! part but the first, rotation, a gate (GELU, or as the file says), and windows to both sides in all layers but every
//! third.
//!
//! Source: ModernBERT (arXiv 2412.13663), and llama.cpp for what the keys mean.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::{Activation, RopeKind};
use crate::model::config::{Config, Keys, LayerConfig, OutputConfig, OutputMatrix};
use crate::model::encoder::EncoderConfig;
use crate::model::ffn::GatedConfig;
use crate::model::mixer::{AttentionConfig, Window};
use crate::model::pooling::{Pooling, PoolingConfig};
use crate::model::rope::{Rope, Scaling};

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::with_layer_norm(keys, file)?;
    config.output = OutputConfig {
        norm: Some("output_norm"),
        matrix: OutputMatrix::None,
        bias: false,
    };
    config.encoder = Some(EncoderConfig::read(file));
    let mut attention = AttentionConfig::read(keys, &config)?;
    let causal = keys.opt_bool("attention.causal")?.unwrap_or(false);
    attention.iter_mut().for_each(|layer| layer.causal = causal);
    let global = Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?;
    const LOCAL_BASE: &str = "rope.freq_base_swa";
    let base = keys.opt_f32(LOCAL_BASE)?.unwrap_or(10_000.0);
    let scaling = Scaling::read(keys)?.unscaled();
    let local = Rope::new(
        keys,
        RopeKind::Halves,
        global.n_rot(),
        (LOCAL_BASE, base),
        &scaling,
        None,
    )?;
    config.ropes = vec![global, local];
    let window = keys.opt_u32("attention.sliding_window")?.filter(|w| *w > 0);
    if let Some(window) = window {
        // Of each period the first layer is global.
        let local = |layer: usize, n: usize| n == 0 || !layer.is_multiple_of(n);
        let flags = keys.flags("attention.sliding_window_pattern", 3, local)?;
        for (layer, _) in attention.iter_mut().zip(flags).filter(|(_, local)| *local) {
            layer.window = Some(Window::Symmetric(window as usize));
            layer.rope = Some(1);
        }
    }
    const ACTIVATION: &str = "hidden_activation";
    let activation = match keys.opt_str(ACTIVATION)? {
        None | Some("gelu") => Activation::Gelu,
        Some("silu") => Activation::Silu,
        Some(other) => return Err(keys.wrong(ACTIVATION, "gelu or silu", other)),
    };
    let mut ffn = GatedConfig::read(keys)?;
    ffn.iter_mut().for_each(|layer| layer.activation = activation);
    if let Some(rank) = &mut config.pooling.rank {
        rank.of = PoolingConfig::classifier(keys, Pooling::Mean)?;
        (rank.gelu, rank.norm) = (true, true);
    }
    config.layers = LayerConfig::of(attention, ffn);
    // The first layer reads what the norm of the embeddings made.
    if file.tensor("blk.0.attn_norm.weight").is_none()
        && let Some(first) = config.layers.first_mut()
    {
        first.mixer_norms.before = None;
    }
    Ok(config)
}
