//! The gated feed-forward part: Wdown (f(Wgate x) * (Wup x)), SwiGLU where f is silu.

use crate::Result;
use crate::cache::Sizes;
use crate::kernels::Activation;
use crate::memory::Buffers;
use crate::model::config::{Config, Keys};
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::{gated, product};
use crate::model::weights::{Binder, Linear};

/// One layer's, in numbers.
#[derive(Debug, Clone)]
pub struct GatedConfig {
    /// Width of the gate.
    pub n_ff: usize,
    /// The gate's function.
    pub activation: Activation,
    /// Whether biases count; else those that a file has do nothing.
    pub biases: bool,
}

impl GatedConfig {
    /// Every layer's, with silu; a family's file then changes what differs.
    pub(crate) fn read(keys: &Keys<'_>) -> Result<Vec<Self>> {
        const KEY: &str = "feed_forward_length";
        let widths = keys.per_layer(KEY)?.ok_or_else(|| keys.missing(KEY))?;
        let layer = |n_ff| GatedConfig {
            n_ff,
            activation: Activation::Silu,
            biases: true,
        };
        Ok(widths.into_iter().map(layer).collect())
    }
}

/// Its weights.
#[derive(Debug)]
pub(crate) struct Gated {
    config: GatedConfig,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Gated {
    /// Gate and up are tensors of their own, or one named `ffn_up`.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, own: &GatedConfig, i: usize) -> Result<Self> {
        let (n_embd, n_ff) = (config.n_embd, own.n_ff);
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let fused = !binder.has(&name("ffn_gate.weight")) && binder.rows(&name("ffn_up.weight")) != n_ff;
        let [gate, up] = if fused {
            binder.fused(&name("ffn_up"), [n_ff; 2], n_embd)?
        } else {
            [
                binder.linear(&name("ffn_gate"), n_ff, n_embd)?,
                binder.linear(&name("ffn_up"), n_ff, n_embd)?,
            ]
        };
        let mut gated = Gated {
            config: own.clone(),
            gate,
            up,
            down: binder.linear(&name("ffn_down"), n_embd, n_ff)?,
        };
        if !own.biases {
            for linear in [&mut gated.gate, &mut gated.up, &mut gated.down] {
                linear.bias = None;
            }
        }
        Ok(gated)
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        vec![&self.gate, &self.up, &self.down]
    }

    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        out: &mut [f32],
        buffers: &mut GatedBuffers,
    ) -> Result<()> {
        let (m, n_ff) = (x.len() / run.config.n_embd, self.config.n_ff);
        let gate = &mut buffers.gate[..m * n_ff];
        let up = &mut buffers.up[..m * n_ff];
        run.products(
            "ffn_gate_up",
            x,
            &mut [gated(
                (&self.gate, &mut *gate),
                (&self.up, up),
                self.config.activation,
            )],
        )?;
        run.look("ffn_act", n_ff, gate);
        run.products("ffn_down", gate, &mut [product(&self.down, &mut *out)])?;
        run.look("ffn_down", run.config.n_embd, out);
        Ok(())
    }
}

/// What it computes in.
#[derive(Debug)]
pub(super) struct GatedBuffers {
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl GatedBuffers {
    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a GatedConfig>,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let n_ff = layers.map(|layer| layer.n_ff).max().unwrap_or(0);
        Ok(GatedBuffers {
            gate: buffers.outputs("feed-forward gate", sizes.n_batch, n_ff)?,
            up: buffers.outputs("feed-forward up", sizes.n_batch, n_ff)?,
        })
    }
}
