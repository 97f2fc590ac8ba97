//! Embeddings per layer: beside the row of the residual stream a token has a short row for each layer, which is added
//! to what the layer made of it, through a gate of two small matrices.
//!
//! Those of a pass are made once, before its first layer, from the rows of a table and from the embedded rows
//! themselves. The table is larger than all matrices of the model; of it a pass reads a row per token, so it stays as
//! it is in the file.

use std::sync::atomic::{AtomicBool, Ordering};

use super::config::{Config, Keys, MAX_WIDTH, PartNorms as Names};
use super::forward::Pass;
use super::norm::{Norm, NormKind};
use super::ops::Run;
use super::probe::Probe;
use super::product::product;
use super::weights::{Binder, Linear, PartNorms};
use crate::batch::Input;
use crate::kernels::{Activation, PackedMatrix};
use crate::memory::Buffers;
use crate::{Error, Result};

/// Whose row of the table stands for an input that is not a token: padding.
const PADDING: u32 = 0;

/// What a layer is given of a token, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerLayerConfig {
    /// Width of a layer's row.
    pub width: usize,
    /// Width of all layers' rows, one after the other.
    pub all: usize,
}

impl PerLayerConfig {
    /// From `embedding_length_per_layer_input`, which is there; `None` where it is 0.
    pub(crate) fn read(keys: &Keys<'_>, n_layers: usize) -> Result<Option<Self>> {
        const KEY: &str = "embedding_length_per_layer_input";
        let (width, most) = (keys.u32(KEY)? as usize, MAX_WIDTH as usize / n_layers);
        if width > most {
            let expected = format!("0 to {most}, for {n_layers} layers");
            return Err(keys.wrong(KEY, &expected, &width.to_string()));
        }
        Ok((width > 0).then_some(PerLayerConfig {
            width,
            all: width * n_layers,
        }))
    }
}

/// The weights that all layers share.
#[derive(Debug)]
pub(crate) struct PerLayer {
    config: PerLayerConfig,
    table: PackedMatrix,
    projection: Linear,
    norm: Norm,
}

impl PerLayer {
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, own: &PerLayerConfig) -> Result<Self> {
        Ok(PerLayer {
            config: *own,
            table: binder.table("per_layer_token_embd.weight", config.n_vocab, own.all)?,
            projection: binder.linear("per_layer_model_proj", own.all, config.n_embd)?,
            norm: binder.norm_of("per_layer_proj_norm", own.width, NormKind::Rms, config.norm_eps)?,
        })
    }

    /// The matrix of which rows are looked up.
    pub(super) fn table(&self) -> &PackedMatrix {
        &self.table
    }

    /// The matrix that it multiplies with.
    pub(super) fn linear(&self) -> &Linear {
        &self.projection
    }

    /// Makes the rows of a pass: `(norm(projection(x) / sqrt(n_embd)) + sqrt(width) * table's) / sqrt(2)`, of the
    /// embedded rows `x`.
    pub(super) fn embed<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        buffers: &mut PerLayerBuffers,
    ) -> Result<()> {
        let (PerLayerConfig { width, all }, m) = (self.config, run.pass.rows.len());
        let made = &mut buffers.made[..m * all];
        let found = &mut buffers.found[..m * all];
        run.products("per_layer_proj", x, &mut [product(&self.projection, &mut *found)])?;
        run.ops
            .scale(found, 1.0 / (run.config.n_embd as f32).sqrt(), all)?;
        self.norm.apply(&run.ops, found, made)?;
        run.look("per_layer_proj_norm", all, made);
        self.look_up(run, found)?;
        run.look("per_layer_token", all, found);
        let (factor, half) = ((width as f32).sqrt(), 1.0 / 2.0f32.sqrt());
        run.ops.team.rows(made, all, run.ops.grain(all), |rows, made| {
            let found = &found[rows.start * all..rows.end * all];
            for (made, found) in made.iter_mut().zip(found) {
                *made = (*made + found * factor) * half;
            }
        })?;
        run.look("per_layer", all, made);
        run.ops
            .check(made.iter().all(|value| value.is_finite()), "per_layer")
    }

    /// The table's rows of a pass.
    fn look_up<P: Probe>(&self, run: &Run<'_, P>, out: &mut [f32]) -> Result<()> {
        let (all, pass): (usize, &Pass<'_>) = (self.config.all, run.pass);
        let found = AtomicBool::new(true);
        run.ops.team.rows(out, all, 1, |rows, out| {
            for (row, out) in pass.rows[rows].iter().zip(out.chunks_exact_mut(all)) {
                let token = match row.input {
                    Input::Token(token) => token,
                    Input::Embedding(_) => PADDING,
                };
                if self.table.decode_row(token as usize, out).is_err() {
                    found.store(false, Ordering::Relaxed);
                }
            }
        })?;
        match found.into_inner() {
            true => Ok(()),
            false => Err(Error::Internal {
                what: "a token has no row of embeddings per layer".into(),
            }),
        }
    }
}

/// A layer's own weights.
#[derive(Debug)]
pub(crate) struct LayerPart {
    config: PerLayerConfig,
    layer: usize,
    gate: Linear,
    projection: Linear,
    pub(super) norms: PartNorms,
}

impl LayerPart {
    /// The tensors of layer `i`.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, own: &PerLayerConfig, i: usize) -> Result<Self> {
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        Ok(LayerPart {
            config: *own,
            layer: i,
            gate: binder.linear(&name("inp_gate"), own.width, config.n_embd)?,
            projection: binder.linear(&name("proj"), config.n_embd, own.width)?,
            norms: binder.norms(&name(""), &Names::after("post_norm"), config)?,
        })
    }

    pub(super) fn linears(&self) -> [&Linear; 2] {
        [&self.gate, &self.projection]
    }

    /// `out` = projection(gelu(gate(x)) * the layer's rows), of the residual stream `x`.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        out: &mut [f32],
        buffers: &mut PerLayerBuffers,
    ) -> Result<()> {
        let PerLayerConfig { width, all } = self.config;
        let (m, first) = (x.len() / run.config.n_embd, self.layer * width);
        let gate = &mut buffers.gate[..m * width];
        let made = &buffers.made[..m * all];
        run.products("per_layer_gate", x, &mut [product(&self.gate, &mut *gate)])?;
        run.look("per_layer_gate", width, gate);
        let ops = &run.ops;
        ops.team.rows(gate, width, ops.grain(width), |rows, gate| {
            for (row, gate) in rows.zip(gate.chunks_exact_mut(width)) {
                let own = row * all + first;
                ops.backend.gate(Activation::Gelu, gate, &made[own..own + width]);
            }
        })?;
        run.look("per_layer_act", width, gate);
        run.products("per_layer_out", gate, &mut [product(&self.projection, &mut *out)])?;
        run.look("per_layer_out", run.config.n_embd, out);
        Ok(())
    }
}

/// What they are computed in; empty where a model has none.
#[derive(Debug)]
pub(super) struct PerLayerBuffers {
    /// The rows of a pass, all layers' side by side.
    pub(super) made: Vec<f32>,
    /// What they are made of.
    found: Vec<f32>,
    gate: Vec<f32>,
}

impl PerLayerBuffers {
    /// For passes of `m` rows.
    pub(super) fn make(config: &Config, m: usize, buffers: &mut Buffers<'_>) -> Result<Self> {
        let (width, all) = config.per_layer.map_or((0, 0), |own| (own.width, own.all));
        Ok(PerLayerBuffers {
            made: buffers.outputs("embeddings per layer", m, all)?,
            found: buffers.outputs("embeddings per layer, looked up", m, all)?,
            gate: buffers.outputs("gate of embeddings per layer", m, width)?,
        })
    }
}
