//! What an encoder has before its layers: the positions' and the segment's embeddings, added to the token's, and a norm
//! of the sum. Its layers are those of any model, with attention that is not causal: all positions of a text see one
//! another, so a text is whole in one pass, and nothing of it is kept for another one.

use super::config::Config;
use super::norm::Norm;
use super::ops::Ops;
use super::weights::Binder;
use crate::Result;
use crate::batch::Row;
use crate::gguf::{ModelFile, TensorInfo};
use crate::kernels::PackedMatrix;

/// What is before the layers, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncoderConfig {
    /// Whether each position has an embedding of its own (`position_embd`): as many as the model's context is long.
    pub positions: bool,
    /// Segments that have an embedding (`token_types`), of which every token is of the first; 0 where there are none.
    pub n_types: usize,
}

impl EncoderConfig {
    /// With as many types as the file has; without embeddings of positions.
    pub(crate) fn read(file: &ModelFile) -> Self {
        EncoderConfig {
            positions: false,
            n_types: file.tensor("token_types.weight").map_or(0, TensorInfo::n_rows),
        }
    }
}

/// Its weights.
#[derive(Debug)]
pub(crate) struct Encoder {
    positions: Option<PackedMatrix>,
    types: Option<PackedMatrix>,
    norm: Norm,
}

impl Encoder {
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, own: &EncoderConfig) -> Result<Self> {
        let table = |name: &str, n: usize| (n > 0).then(|| binder.table(name, n, config.n_embd)).transpose();
        let n_positions = if own.positions { config.n_ctx_train } else { 0 };
        Ok(Encoder {
            positions: table("position_embd.weight", n_positions)?,
            types: table("token_types.weight", own.n_types)?,
            norm: binder.norm("token_embd_norm", config)?,
        })
    }

    pub(super) fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        self.positions.iter().chain(&self.types)
    }

    /// `x` = what the layers are given: the rows' token embeddings, to which the others are added. `room` is as long as
    /// `x`.
    pub(super) fn embed(&self, ops: &Ops<'_>, rows: &[Row], x: &mut [f32], room: &mut [f32]) -> Result<()> {
        let n = self.norm.width();
        if let Some(types) = &self.types {
            let first = &mut room[..n];
            types.decode_row(0, first)?;
            for x in x.chunks_exact_mut(n) {
                ops.backend.add(x, first);
            }
        }
        if let Some(positions) = &self.positions {
            for (row, room) in rows.iter().zip(room.chunks_exact_mut(n)) {
                positions.decode_row(row.position, room)?;
            }
            ops.add(x, room, n)?;
        }
        self.norm.apply_in_place(ops, x, room)
    }
}
