//! Norms: of the residual stream, and of what a part computes in between.

use super::ops::Ops;
use crate::Result;

/// What a norm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / rms(x) * weight`.
    Rms,
    /// `(x - mean(x)) / deviation(x) * weight`, and `+ bias` where there is one.
    Layer,
}

/// A norm's weights.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(super) kind: NormKind,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Option<Vec<f32>>,
    pub(super) eps: f32,
}

impl Norm {
    /// Values of a row.
    pub(super) fn width(&self) -> usize {
        self.weight.len()
    }

    /// Rows of `x` normed into `out`, split between the workers.
    pub(super) fn apply(&self, ops: &Ops<'_>, x: &[f32], out: &mut [f32]) -> Result<()> {
        let n = self.width();
        ops.team.rows(out, n, ops.grain(n), |rows, out| {
            self.rows(ops, &x[rows.start * n..rows.end * n], out);
        })
    }

    /// As [`Self::apply`], with a place for the rows meanwhile.
    pub(super) fn apply_in_place(&self, ops: &Ops<'_>, x: &mut [f32], room: &mut [f32]) -> Result<()> {
        let room = &mut room[..x.len()];
        room.copy_from_slice(x);
        self.apply(ops, room, x)
    }

    /// Some rows, by the calling worker alone.
    pub(super) fn rows(&self, ops: &Ops<'_>, x: &[f32], out: &mut [f32]) {
        match self.kind {
            NormKind::Rms => ops.backend.rms_norm(x, &self.weight, self.eps, out),
            NormKind::Layer => ops
                .backend
                .layer_norm(x, (&self.weight, self.bias.as_deref()), self.eps, out),
        }
    }
}
