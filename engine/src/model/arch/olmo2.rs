//! olmo2 (OLMo 2 and 3): parts read the residual stream as it is, and what they make is normed; one norm over all heads
//! of q and one over all of k. OLMo 3 has a sliding window: three local layers, whose rotation is not scaled, to each
//! global one.

use super::exaone4;
use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, OutputMatrix, last_of_period_is_global};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::{AttentionConfig, QkNorm, Window};
use crate::model::rope::{Rope, Scaling};

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    config.output.matrix = OutputMatrix::Own;
    let mut attention = AttentionConfig::read(keys, &config)?;
    attention
        .iter_mut()
        .for_each(|layer| layer.qk_norm = QkNorm::Whole);
    let global = Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?;
    let window = keys.opt_size("attention.sliding_window", u32::MAX)?;
    if window > 0 {
        const BASE: &str = "rope.freq_base";
        let base = keys.opt_f32(BASE)?.unwrap_or(10_000.0);
        let scaling = Scaling::read(keys)?.none();
        let local = Rope::new(
            keys,
            RopeKind::Halves,
            global.n_rot(),
            (BASE, base),
            &scaling,
            None,
        )?;
        let local_layers = keys.flags("attention.sliding_window_pattern", 4, last_of_period_is_global)?;
        for (layer, is_local) in attention.iter_mut().zip(local_layers) {
            if is_local {
                layer.window = Some(Window::Sliding(window));
                layer.rope = Some(1);
            }
        }
        config.ropes = vec![global, local];
    } else {
        config.ropes = vec![global];
    }
    config.layers = exaone4::normed_after(attention, GatedConfig::read(keys)?);
    Ok(config)
}
