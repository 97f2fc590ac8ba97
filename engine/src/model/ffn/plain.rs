//! The feed-forward part without a gate: Wdown f(Wup x).

use crate::Result;
use crate::cache::Sizes;
use crate::kernels::Activation;
use crate::memory::Buffers;
use crate::model::config::Config;
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::{activated, product};
use crate::model::weights::{Binder, Linear};

/// One layer's, in numbers.
#[derive(Debug, Clone)]
pub struct PlainConfig {
    /// Width between the two matrices.
    pub n_ff: usize,
    /// The function between them.
    pub activation: Activation,
}

/// Its weights.
#[derive(Debug)]
pub(crate) struct Plain {
    config: PlainConfig,
    up: Linear,
    down: Linear,
}

impl Plain {
    /// `ffn_up` and `ffn_down`, with biases where the file has them.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, own: &PlainConfig, i: usize) -> Result<Self> {
        let (n_embd, n_ff) = (config.n_embd, own.n_ff);
        Ok(Plain {
            config: own.clone(),
            up: binder.linear(&format!("blk.{i}.ffn_up"), n_ff, n_embd)?,
            down: binder.linear(&format!("blk.{i}.ffn_down"), n_embd, n_ff)?,
        })
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        vec![&self.up, &self.down]
    }

    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        out: &mut [f32],
        buffers: &mut PlainBuffers,
    ) -> Result<()> {
        let PlainConfig { n_ff, activation } = self.config;
        let up = &mut buffers.up[..x.len() / run.config.n_embd * n_ff];
        run.products("ffn_up", x, &mut [activated(&self.up, 0, &mut *up, activation)])?;
        run.look("ffn_act", n_ff, up);
        run.products("ffn_down", up, &mut [product(&self.down, &mut *out)])?;
        run.look("ffn_down", run.config.n_embd, out);
        Ok(())
    }
}

/// What it computes in.
#[derive(Debug)]
pub(super) struct PlainBuffers {
    up: Vec<f32>,
}

impl PlainBuffers {
    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a PlainConfig>,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let n_ff = layers.map(|layer| layer.n_ff).max().unwrap_or(0);
        Ok(PlainBuffers {
            up: buffers.outputs("feed-forward up", sizes.n_batch, n_ff)?,
        })
    }
}
