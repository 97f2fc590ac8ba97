//! The forward pass of every decoder family, whole. A step is some rows (tokens of one or more sequences); it reads and
//! extends the cache and gives the wanted rows' hidden states or logits.
//!
//! Read [`Model::forward`] from top to bottom: embedding, layers (attention, feed-forward), output head. What a family
//! does not have (norms on q and k, norms after a block, biases, caps) its configuration leaves out.

use super::Model;
use super::attention::{Attention, Buffers};
use super::cache::{CachePool, CacheType, LayerCache, Sequence};
use super::config::Config;
use super::probe::Probe;
use super::weights::{Layer, Linear};
use crate::context::{Mask, Output, Row, Value};
use crate::kernels::functions::tanh;
use crate::kernels::{ActBuffer, ActFormat, Activation, Activations, Backend};
use crate::memory::{self, Memory};
use crate::team::{Team, Tile};
use crate::{Error, Result};

/// Rows of logits that are computed at once.
const HEAD_ROWS: usize = 16;

/// Numbers of an elementwise operation below which the caller does it alone: a hand-over to other workers takes as long.
const SMALL: usize = 1 << 14;

/// One step's input: rows with their positions already given.
pub(crate) struct Step<'a, 'b> {
    pub(crate) rows: &'a [Row],
    /// Embedding rows for inputs that are not tokens.
    pub(crate) embeddings: &'a [f32],
    pub(crate) mask: Mask,
    pub(crate) sequences: &'a [&'b mut Sequence],
    /// Length of the context: longrope chooses by it.
    pub(crate) n_ctx: usize,
}

/// Every buffer of a step, made once for the largest one.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Residual stream, n_embd wide.
    x: Vec<f32>,
    /// Normed input of a block.
    h: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Attention's output, heads side by side.
    attended: Vec<f32>,
    attention: Buffers,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// Output of a block, before it is added to the residual stream.
    delta: Vec<f32>,
    acts: ActBuffer,
    /// Per kind of rotation: cosines and sines, one row per token.
    angles: Vec<(Vec<f32>, Vec<f32>)>,
    logits: Vec<f32>,
}

impl Workspace {
    /// Buffers for steps of at most `m` rows over `n_ctx` positions, computed by some workers.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(crate) fn new(
        model: &Model,
        (m, n_ctx, workers): (usize, usize, usize),
        cache_type_k: CacheType,
        memory: &dyn Memory,
    ) -> Result<Self> {
        const WHAT: &str = "the buffers of a step (a smaller batch needs less)";
        let config = &model.config;
        // A matrix' tile of outputs is a few numbers of many rows: with small pages each row is a miss of address translation.
        let rows = |width: usize| {
            let rows: Vec<f32> = memory::zero_rows(WHAT, m, width)?;
            memory.advise(bytemuck::cast_slice(&rows));
            Ok::<_, Error>(rows)
        };
        let widest =
            |f: &dyn Fn(&super::config::LayerConfig) -> usize| config.layers.iter().map(f).max().unwrap_or(0);
        let attended = widest(&|l| l.n_heads * config.head_dim_v);
        let n_ff = widest(&|l| l.n_ff);
        let mut angles = Vec::new();
        for rope in &config.ropes {
            angles.push((rows(rope.n_rot() / 2)?, rows(rope.n_rot() / 2)?));
        }
        Ok(Workspace {
            x: rows(config.n_embd)?,
            h: rows(config.n_embd)?,
            q: rows(widest(&|l| l.n_heads * config.head_dim_k))?,
            k: rows(widest(&|l| l.n_kv_heads * config.head_dim_k))?,
            v: rows(widest(&|l| l.n_kv_heads * config.head_dim_v))?,
            attended: rows(attended)?,
            attention: Buffers::new(config, (m, n_ctx, workers), cache_type_k)?,
            gate: rows(n_ff)?,
            up: rows(n_ff)?,
            delta: rows(config.n_embd)?,
            acts: ActBuffer::new(m, config.n_embd.max(attended).max(n_ff), &model.weights.formats())?,
            angles,
            logits: memory::zero_rows(WHAT, HEAD_ROWS.min(m), config.n_vocab)?,
        })
    }
}

/// What every operation needs: who computes, on what, and where in the model it stands.
pub(super) struct Ops<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) team: &'a Team,
    pub(super) layer: usize,
}

impl Model {
    /// One step. `sink(row, value)` gets each row that wants an output, in order.
    pub(crate) fn forward<P: Probe>(
        &self,
        step: &Step<'_, '_>,
        ws: &mut Workspace,
        cache: &mut CachePool,
        team: &Team,
        probe: &mut P,
        sink: &mut dyn FnMut(usize, Value<'_>),
    ) -> Result<()> {
        let config = &self.config;
        let (m, n_embd) = (step.rows.len(), config.n_embd);
        let mut ops = Ops {
            backend: self.backend,
            team,
            layer: 0,
        };

        // Embedding: decoded rows of the token matrix, scaled where the family does.
        let x = &mut ws.x[..m * n_embd];
        for (row, x) in step.rows.iter().zip(x.chunks_exact_mut(n_embd)) {
            match row.input {
                crate::context::Input::Token(id) => {
                    self.weights.embedding.decode_row(id as usize, x)?;
                    if config.embedding_scale != 1.0 {
                        x.iter_mut().for_each(|x| *x *= config.embedding_scale);
                    }
                }
                crate::context::Input::Embedding(i) => {
                    x.copy_from_slice(&step.embeddings[i * n_embd..(i + 1) * n_embd]);
                }
            }
        }
        probe.op(0, "embedding", n_embd, x);
        for (rope, (cos, sin)) in config.ropes.iter().zip(&mut ws.angles) {
            let half = rope.n_rot() / 2;
            for (i, row) in step.rows.iter().enumerate() {
                let part = i * half..(i + 1) * half;
                rope.angles(row.position, step.n_ctx, &mut cos[part.clone()], &mut sin[part]);
            }
        }

        for (i, weights) in self.weights.layers.iter().enumerate() {
            ops.layer = i;
            attention_block(&ops, config, weights, step, ws, &mut cache.layers[i], probe)?;
            feed_forward_block(&ops, config, weights, ws, m, probe)?;
        }

        // Output head: only for the rows that want one, some at a time.
        ops.layer = config.layers.len();
        let wanted = |row: &Row| row.output != Output::None;
        let mut next = 0;
        while next < m {
            let (mut n, first) = (0, next);
            while next < m && n < ws.logits.len() / config.n_vocab {
                if wanted(&step.rows[next]) {
                    ops.backend.rms_norm(
                        &ws.x[next * n_embd..(next + 1) * n_embd],
                        &self.weights.output_norm,
                        config.norm_eps,
                        &mut ws.h[n * n_embd..(n + 1) * n_embd],
                    );
                    n += 1;
                }
                next += 1;
            }
            if n == 0 {
                break;
            }
            let h = &ws.h[..n * n_embd];
            probe.op(ops.layer, "output_norm", n_embd, h);
            let logits = &mut ws.logits[..n * config.n_vocab];
            ops.project(
                "output",
                h,
                n_embd,
                &mut ws.acts,
                [(&self.weights.output, logits)],
            )?;
            // Before the cap, which would make a finite number of an infinite one.
            if !logits.iter().chain(h).all(|value| value.is_finite()) {
                return Err(Error::NonFinite {
                    layer: ops.layer,
                    op: "output",
                });
            }
            if let Some(cap) = config.logit_softcap {
                logits.iter_mut().for_each(|l| *l = cap * tanh(*l / cap));
            }
            probe.op(ops.layer, "logits", config.n_vocab, logits);
            let rows = (first..next).filter(|row| wanted(&step.rows[*row]));
            for ((row, logits), h) in rows
                .zip(logits.chunks_exact(config.n_vocab))
                .zip(h.chunks_exact(n_embd))
            {
                match step.rows[row].output {
                    Output::Hidden => sink(row, Value::Hidden(h)),
                    _ => sink(row, Value::Logits(logits)),
                }
            }
        }
        Ok(())
    }
}

/// x += Wo attention(norm(x)).
fn attention_block<P: Probe>(
    ops: &Ops<'_>,
    config: &Config,
    weights: &Layer,
    step: &Step<'_, '_>,
    ws: &mut Workspace,
    cache: &mut LayerCache,
    probe: &mut P,
) -> Result<()> {
    let (i, m, n_embd) = (ops.layer, step.rows.len(), config.n_embd);
    let layer = &config.layers[i];
    let (dim_k, dim_v) = (config.head_dim_k, config.head_dim_v);
    let x = &mut ws.x[..m * n_embd];
    let h = &mut ws.h[..m * n_embd];
    let q = &mut ws.q[..m * layer.n_heads * dim_k];
    let k = &mut ws.k[..m * layer.n_kv_heads * dim_k];
    let v = &mut ws.v[..m * layer.n_kv_heads * dim_v];

    ops.norm(x, &weights.attn_norm, config.norm_eps, h)?;
    probe.op(i, "attn_norm", n_embd, h);
    ops.project(
        "attn_qkv",
        h,
        n_embd,
        &mut ws.acts,
        [
            (&weights.q, &mut *q),
            (&weights.k, &mut *k),
            (&weights.v, &mut *v),
        ],
    )?;
    let (width_q, width_k, width_v) = (weights.q.weight.n(), weights.k.weight.n(), weights.v.weight.n());
    probe.op(i, "q", width_q, q);
    probe.op(i, "k", width_k, k);
    probe.op(i, "v", width_v, v);
    let (cos, sin) = &ws.angles[layer.rope];
    let rope = &config.ropes[layer.rope];
    let half = rope.n_rot() / 2;
    let (q_norm, k_norm) = match &weights.qk_norm {
        Some((q, k)) => (Some(q), Some(k)),
        None => (None, None),
    };
    for (heads, n_heads, norm) in [
        (&mut *q, layer.n_heads, q_norm),
        (&mut *k, layer.n_kv_heads, k_norm),
    ] {
        let grain = ops.grain(dim_k).next_multiple_of(n_heads);
        ops.team.rows(heads, dim_k, grain, |range, part| {
            let mut normed = [0.0f32; crate::kernels::MAX_HEAD_DIM];
            for (index, head) in range.zip(part.chunks_exact_mut(dim_k)) {
                if let Some(weight) = norm {
                    ops.backend
                        .rms_norm(head, weight, config.norm_eps, &mut normed[..dim_k]);
                    head.copy_from_slice(&normed[..dim_k]);
                }
                let angles = index / n_heads * half..(index / n_heads + 1) * half;
                ops.backend
                    .rotate(rope.kind(), head, &cos[angles.clone()], &sin[angles]);
            }
        })?;
    }
    probe.op(i, "q_rope", width_q, q);
    probe.op(i, "k_rope", width_k, k);

    let attention = Attention { ops, config, step };
    attention.store(cache, k, v)?;
    let attended = &mut ws.attended[..m * layer.n_heads * dim_v];
    attention.attend(cache, q, attended, &mut ws.attention)?;
    probe.op(i, "attention", layer.n_heads * dim_v, attended);

    let delta = &mut ws.delta[..m * n_embd];
    ops.project(
        "attn_output",
        attended,
        layer.n_heads * dim_v,
        &mut ws.acts,
        [(&weights.attn_output, &mut *delta)],
    )?;
    probe.op(i, "attn_output", n_embd, delta);
    if let Some(norm) = &weights.post_attn_norm {
        ops.norm(delta, norm, config.norm_eps, h)?;
        probe.op(i, "post_attn_norm", n_embd, h);
        ops.add(x, h, n_embd)?;
    } else {
        ops.add(x, delta, n_embd)?;
    }
    probe.op(i, "attn_residual", n_embd, x);
    Ok(())
}

/// x += Wdown (f(Wgate norm(x)) * (Wup norm(x))).
fn feed_forward_block<P: Probe>(
    ops: &Ops<'_>,
    config: &Config,
    weights: &Layer,
    ws: &mut Workspace,
    m: usize,
    probe: &mut P,
) -> Result<()> {
    let (i, n_embd, n_ff) = (ops.layer, config.n_embd, config.layers[ops.layer].n_ff);
    let x = &mut ws.x[..m * n_embd];
    let h = &mut ws.h[..m * n_embd];
    let (gate, up) = (&mut ws.gate[..m * n_ff], &mut ws.up[..m * n_ff]);

    ops.norm(x, &weights.ffn_norm, config.norm_eps, h)?;
    probe.op(i, "ffn_norm", n_embd, h);
    ops.project_gated(
        "ffn_gate_up",
        h,
        n_embd,
        &mut ws.acts,
        [(&weights.gate, &mut *gate), (&weights.up, up)],
        config.activation,
    )?;
    probe.op(i, "ffn_act", n_ff, gate);
    let delta = &mut ws.delta[..m * n_embd];
    ops.project(
        "ffn_down",
        gate,
        n_ff,
        &mut ws.acts,
        [(&weights.down, &mut *delta)],
    )?;
    probe.op(i, "ffn_down", n_embd, delta);
    if let Some(norm) = &weights.post_ffn_norm {
        ops.norm(delta, norm, config.norm_eps, h)?;
        probe.op(i, "post_ffn_norm", n_embd, h);
        ops.add(x, h, n_embd)?;
    } else {
        ops.add(x, delta, n_embd)?;
    }
    probe.op(i, "ffn_residual", n_embd, x);
    Ok(())
}

impl Ops<'_> {
    /// Rows of `x` normed into `out`.
    fn norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Result<()> {
        let n = weight.len();
        self.team.rows(out, n, self.grain(n), |rows, out| {
            self.backend
                .rms_norm(&x[rows.start * n..rows.end * n], weight, eps, out);
        })
    }

    /// x += y, rows of n.
    fn add(&self, x: &mut [f32], y: &[f32], n: usize) -> Result<()> {
        self.team.rows(x, n, self.grain(n), |rows, x| {
            self.backend.add(x, &y[rows.start * n..rows.end * n])
        })
    }

    /// Rows of `width` numbers that one worker takes at least.
    fn grain(&self, width: usize) -> usize {
        (SMALL / width.max(1)).max(1)
    }

    /// Each output = rows of `x` (k wide) times a matrix, plus its bias: one operation of the team for all of them.
    fn project<const N: usize>(
        &self,
        op: &'static str,
        x: &[f32],
        k: usize,
        acts: &mut ActBuffer,
        outs: [(&Linear, &mut [f32]); N],
    ) -> Result<()> {
        let linears = outs.each_ref().map(|(linear, _)| *linear);
        let (x, grain) = self.quantized(op, x, k, acts, &linears)?;
        let outs = outs.map(|(linear, out)| (out, linear.weight.n()));
        self.team
            .columns(outs, grain, |i, mut tile| linears[i].apply(&x, &mut tile))
    }

    /// As [`Self::project`] of two matrices of one shape, and `gate = f(gate) * up` by the worker that made both.
    fn project_gated(
        &self,
        op: &'static str,
        x: &[f32],
        k: usize,
        acts: &mut ActBuffer,
        [(gate, gate_out), (up, up_out)]: [(&Linear, &mut [f32]); 2],
        activation: Activation,
    ) -> Result<()> {
        let (x, grain) = self.quantized(op, x, k, acts, &[gate, up])?;
        let n = gate.weight.n();
        self.team
            .column_pairs(gate_out, up_out, n, grain, |mut gates, mut ups| {
                gate.apply(&x, &mut gates);
                up.apply(&x, &mut ups);
                for row in 0..gates.rows() {
                    self.backend.gate(activation, gates.row(row), ups.row(row));
                }
            })
    }

    /// The rows in every form that the matrices multiply with, and the largest of their grains.
    fn quantized<'x>(
        &self,
        op: &'static str,
        x: &'x [f32],
        k: usize,
        acts: &'x mut ActBuffer,
        linears: &[&Linear],
    ) -> Result<(Activations<'x>, usize)> {
        acts.invalidate();
        let mut grain = 1;
        for linear in linears {
            let format = linear.weight.format();
            acts.prepare(format, self.backend, self.team, x, k, (self.layer, op))?;
            grain = grain.max(linear.weight.grain());
        }
        Ok((acts.view(x, k), grain))
    }
}

impl Linear {
    /// A tile of the product, scaled, and its part of the bias.
    fn apply(&self, x: &Activations<'_>, tile: &mut Tile<'_>) {
        self.weight.matmul(x, tile);
        if let Some(scale) = self.scale {
            for row in 0..tile.rows() {
                tile.row(row).iter_mut().for_each(|y| *y *= scale);
            }
        }
        if let Some(bias) = &self.bias {
            let bias = &bias[tile.columns()];
            for row in 0..tile.rows() {
                tile.row(row).iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }
}

impl super::weights::Weights {
    /// The activation formats that the model's matrices ask for.
    fn formats(&self) -> Vec<ActFormat> {
        let mut formats: Vec<ActFormat> = Vec::new();
        for matrix in self.matrices() {
            if !formats.contains(&matrix.format()) {
                formats.push(matrix.format());
            }
        }
        formats
    }
}
