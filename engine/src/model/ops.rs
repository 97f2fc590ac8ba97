//! What the parts of a model compute with: the operations over all rows of a pass, each split between the team's
//! workers.

use std::sync::atomic::{AtomicBool, Ordering};

use super::config::Config;
use super::forward::Pass;
use super::norm::Norm;
use super::probe::Probe;
use super::product::Product;
use super::weights::PartNorms;
use crate::kernels::functions::tanh;
use crate::kernels::{ActBuffer, Backend};
use crate::team::Team;
use crate::{Error, Result};

/// Numbers of an elementwise operation below which the caller does it alone: a hand-over to other workers takes as
/// long.
const SMALL: usize = 1 << 14;

/// Who computes, on what, and where in the model it stands.
pub(super) struct Ops<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) team: &'a Team,
    pub(super) layer: usize,
}

impl Ops<'_> {
    /// x += y, rows of n.
    pub(super) fn add(&self, x: &mut [f32], y: &[f32], n: usize) -> Result<()> {
        self.team.rows(x, n, self.grain(n), |rows, x| {
            self.backend.add(x, &y[rows.start * n..rows.end * n])
        })
    }

    /// x *= factor, rows of n.
    pub(super) fn scale(&self, x: &mut [f32], factor: f32, n: usize) -> Result<()> {
        self.team.rows(x, n, self.grain(n), |_, rows| {
            rows.iter_mut().for_each(|x| *x *= factor);
        })
    }

    /// Logits as the model means them: each times `scale`, and kept within `cap`. Whether all of them were finite before.
    pub(super) fn finish_logits(&self, logits: &mut [f32], scale: f32, cap: Option<f32>) -> Result<bool> {
        let finite = AtomicBool::new(true);
        self.team.rows(logits, 1, self.grain(1), |_, part| {
            // Before the cap, which would make a finite number of an infinite one.
            if !part.iter().all(|value| value.is_finite()) {
                finite.store(false, Ordering::Relaxed);
            }
            if scale != 1.0 {
                part.iter_mut().for_each(|l| *l *= scale);
            }
            if let Some(cap) = cap {
                part.iter_mut().for_each(|l| *l = cap * tanh(*l / cap));
            }
        })?;
        Ok(finite.into_inner())
    }

    /// Rows of `width` numbers that one worker takes at least.
    pub(super) fn grain(&self, width: usize) -> usize {
        (SMALL / width.max(1)).max(1)
    }

    /// An error that says where, unless all numbers were finite.
    pub(super) fn check(&self, finite: bool, op: &'static str) -> Result<()> {
        if finite {
            return Ok(());
        }
        Err(Error::NonFinite {
            layer: self.layer,
            op,
        })
    }
}

/// Under which names a probe sees what adds a part to the residual stream.
pub(super) struct JoinNames {
    pub(super) after: &'static str,
    pub(super) residual: &'static str,
    pub(super) sum: &'static str,
    pub(super) sum_again: &'static str,
}

/// Of a mixer.
pub(super) const MIXER: JoinNames = JoinNames {
    after: "post_attn_norm",
    residual: "attn_residual",
    sum: "attn_sum_norm",
    sum_again: "attn_sum_norm_2",
};

/// Of a feed-forward part.
pub(super) const FFN: JoinNames = JoinNames {
    after: "post_ffn_norm",
    residual: "ffn_residual",
    sum: "ffn_sum_norm",
    sum_again: "ffn_sum_norm_2",
};

/// Of the embeddings per layer.
pub(super) const PER_LAYER: JoinNames = JoinNames {
    after: "per_layer_norm",
    residual: "per_layer_residual",
    sum: "per_layer_sum_norm",
    sum_again: "per_layer_sum_norm_2",
};

/// A pass under way: what its parts share.
pub(super) struct Run<'a, P> {
    pub(super) ops: Ops<'a>,
    pub(super) config: &'a Config,
    pub(super) pass: &'a Pass<'a>,
    /// Per kind of rotation: cosines and sines, one row per token.
    pub(super) angles: &'a [(Vec<f32>, Vec<f32>)],
    pub(super) acts: &'a mut ActBuffer,
    pub(super) probe: &'a mut P,
}

impl<P: Probe> Run<'_, P> {
    /// `out` = rows of the residual stream `x`, normed: what a part is given.
    pub(super) fn norm(&mut self, op: &'static str, x: &[f32], norm: &Norm, out: &mut [f32]) -> Result<()> {
        norm.apply(&self.ops, x, out)?;
        self.look(op, norm.width(), out);
        Ok(())
    }

    /// What a part reads: the residual stream `x`, normed where the family does.
    pub(super) fn read(
        &mut self,
        op: &'static str,
        x: &[f32],
        norm: Option<&Norm>,
        out: &mut [f32],
    ) -> Result<()> {
        match norm {
            Some(norm) => self.norm(op, x, norm, out),
            None => {
                out.copy_from_slice(x);
                Ok(())
            }
        }
    }

    /// x += what a part made, normed and scaled first where the family does; then x normed where it does that.
    pub(super) fn join(
        &mut self,
        names: &JoinNames,
        norms: &PartNorms,
        scale: f32,
        x: &mut [f32],
        delta: &mut [f32],
        normed: &mut [f32],
    ) -> Result<()> {
        let n_embd = self.config.n_embd;
        let (delta, room) = match &norms.after {
            Some(norm) => {
                self.norm(names.after, delta, norm, normed)?;
                (normed, delta)
            }
            None => (delta, normed),
        };
        if scale != 1.0 {
            self.ops.scale(delta, scale, n_embd)?;
        }
        let Some(norm) = &norms.sum else {
            self.ops.add(x, delta, n_embd)?;
            self.look(names.residual, n_embd, x);
            return Ok(());
        };
        // What was there may be added twice: delta = x + delta has the same bits as x += delta.
        self.ops.add(delta, x, n_embd)?;
        self.look(names.residual, n_embd, delta);
        let Some(again) = &norms.sum_again else {
            return self.norm(names.sum, delta, norm, x);
        };
        let normed = &mut room[..x.len()];
        self.norm(names.sum, delta, norm, normed)?;
        self.ops.add(x, normed, n_embd)?;
        delta.copy_from_slice(x);
        self.norm(names.sum_again, delta, again, x)
    }

    /// Products of the rows `x` with some matrices: one operation of the team for all of them.
    pub(super) fn products(
        &mut self,
        op: &'static str,
        x: &[f32],
        products: &mut [Product<'_>],
    ) -> Result<()> {
        let Some(first) = products.first().and_then(|product| product.by.linears().next()) else {
            return Ok(());
        };
        let (ops, k) = (&self.ops, first.weight.k());
        self.acts.invalidate();
        for product in &*products {
            for linear in product.by.linears() {
                let format = linear.weight.format();
                self.acts
                    .prepare(format, ops.backend, ops.team, x, k, (ops.layer, op))?;
            }
        }
        let x = self.acts.view(x, k);
        ops.team.products(products, |task, node, out, second| {
            task.run(ops.backend, &x, node, out, second);
        })
    }

    /// Shows the probe what an operation made.
    pub(super) fn look(&mut self, op: &'static str, width: usize, values: &[f32]) {
        if !values.is_empty() {
            self.probe.op(self.ops.layer, op, width, values);
        }
    }
}
