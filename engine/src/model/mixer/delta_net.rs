//! The gated delta net: queries, keys and values through a short convolution, then per head a matrix that remembers
//! which value belongs to which key. At each position it decays, and what it answers to the position's key is moved
//! towards the value.

use std::ops::Range;

use super::conv::Conv;
use super::recurrent::{RecurrentBuffers, Widths, convolve, go_on};
use crate::Result;
use crate::cache::{CacheKind, StateCache};
use crate::kernels::functions::{exp, sigmoid, softplus};
use crate::kernels::{Activation, MAX_HEAD_DIM};
use crate::model::config::{Config, Keys, MAX_WIDTH};
use crate::model::ops::{Ops, Run};
use crate::model::probe::Probe;
use crate::model::product::{product, product_from};
use crate::model::weights::{Binder, Linear};

/// One layer's, in numbers.
#[derive(Debug, Clone)]
pub struct DeltaNetConfig {
    /// Heads of queries and keys; divides `n_v_heads`.
    pub n_k_heads: usize,
    /// Heads of values, each with a state of its own.
    pub n_v_heads: usize,
    /// Width of a query and key head.
    pub head_dim_k: usize,
    /// Width of a value head.
    pub head_dim_v: usize,
    /// Positions that the convolution sees.
    pub kernel: usize,
    /// Whether value heads that share a key head stand side by side; else every `n_k_heads`-th one shares it.
    pub grouped: bool,
    /// Whether one matrix, `ssm_in`, makes queries, keys, values and the output's gate, key head by key head.
    pub fused: bool,
}

impl DeltaNetConfig {
    /// As the metadata states it, the same for every layer.
    pub(crate) fn read(keys: &Keys<'_>) -> Result<Self> {
        const INNER: &str = "ssm.inner_size";
        const GROUPS: &str = "ssm.group_count";
        let head_dim_k = keys.size("ssm.state_size", MAX_HEAD_DIM as u32)?;
        let inner = keys.size(INNER, MAX_WIDTH)?;
        let n_v_heads = keys.size("ssm.time_step_rank", MAX_WIDTH)?;
        let n_k_heads = keys.size(GROUPS, MAX_WIDTH / head_dim_k as u32)?;
        if !inner.is_multiple_of(n_v_heads) || inner / n_v_heads > MAX_HEAD_DIM {
            let expected =
                format!("a multiple of ssm.time_step_rank, {n_v_heads}, at most {MAX_HEAD_DIM} times it");
            return Err(keys.wrong(INNER, &expected, &inner.to_string()));
        }
        if !n_v_heads.is_multiple_of(n_k_heads) {
            let expected = format!("a divisor of ssm.time_step_rank, {n_v_heads}");
            return Err(keys.wrong(GROUPS, &expected, &n_k_heads.to_string()));
        }
        Ok(DeltaNetConfig {
            n_k_heads,
            n_v_heads,
            head_dim_k,
            head_dim_v: inner / n_v_heads,
            kernel: Conv::kernel(keys, "ssm.conv_kernel")?,
            grouped: false,
            fused: false,
        })
    }

    /// The products of the input; the states; the output.
    pub(super) const OPERATIONS: usize = 3;

    /// Of states: they decay, are asked for what they hold of the key, learn, and answer.
    pub(super) fn multiplications(&self) -> f64 {
        4.0 * (self.inner_width() * self.head_dim_k) as f64
    }

    pub(super) fn cache_kind(&self) -> CacheKind {
        self.widths().cache_kind(self.kernel, self.head_dim_k)
    }

    pub(super) fn widths(&self) -> Widths {
        Widths {
            channels: self.channels(),
            inner: self.inner_width(),
            heads: self.n_v_heads,
            logits: 2 * self.n_v_heads,
            fused: self.width_fused(),
        }
    }

    /// Width of all values.
    pub(super) fn inner_width(&self) -> usize {
        self.n_v_heads * self.head_dim_v
    }

    /// Width of all queries, and of all keys.
    fn key_width(&self) -> usize {
        self.n_k_heads * self.head_dim_k
    }

    /// Width of queries, keys and values.
    fn channels(&self) -> usize {
        2 * self.key_width() + self.inner_width()
    }

    /// Width of what `ssm_in` makes, where there is one.
    fn width_fused(&self) -> usize {
        match self.fused {
            true => self.channels() + self.inner_width(),
            false => 0,
        }
    }

    /// The key head of a value head.
    fn key_head(&self, head: usize) -> usize {
        if self.grouped {
            head / (self.n_v_heads / self.n_k_heads)
        } else {
            head % self.n_k_heads
        }
    }
}

/// The matrices that read the layer's input.
#[derive(Debug)]
enum Input {
    Apart {
        qkv: Linear,
        z: Linear,
        beta: Linear,
        alpha: Linear,
    },
    /// Beta and the decay come of one: rows by key head, beta of its value heads, then the decay of its value heads.
    Gates { qkv: Linear, z: Linear, gates: Linear },
    /// And the others of one as well: rows by key head, its query, its key, its value heads, their gates.
    Fused { all: Linear, gates: Linear },
}

/// Of a key head's parts of a fused row, those that are wanted.
type Part = dyn for<'a> Fn(&'a [f32], &'a [f32], &'a [f32], &'a [f32]) -> [&'a [f32]; 3] + Sync;

/// Its weights.
#[derive(Debug)]
pub(crate) struct DeltaNet {
    config: DeltaNetConfig,
    input: Input,
    conv: Conv,
    /// Added to the decay's logit, and what it is multiplied with.
    dt: Vec<f32>,
    a: Vec<f32>,
    /// Weights of the norms of a query and of a key.
    q_norm: Vec<f32>,
    k_norm: Vec<f32>,
    norm: Vec<f32>,
    output: Linear,
}

impl DeltaNet {
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, own: &DeltaNetConfig, i: usize) -> Result<Self> {
        let n_embd = config.n_embd;
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let (heads, inner) = (own.n_v_heads, own.inner_width());
        let qkv = || binder.linear(&name("attn_qkv"), own.channels(), n_embd);
        let z = || binder.linear(&name("attn_gate"), inner, n_embd);
        let gates = || binder.linear(&name("ssm_ba"), 2 * heads, n_embd);
        let input = if own.fused {
            Input::Fused {
                all: binder.linear(&name("ssm_in"), own.width_fused(), n_embd)?,
                gates: gates()?,
            }
        } else if binder.has(&name("ssm_ba.weight")) {
            Input::Gates {
                qkv: qkv()?,
                z: z()?,
                gates: gates()?,
            }
        } else {
            Input::Apart {
                qkv: qkv()?,
                z: z()?,
                beta: binder.linear(&name("ssm_beta"), heads, n_embd)?,
                alpha: binder.linear(&name("ssm_alpha"), heads, n_embd)?,
            }
        };
        let dim = own.head_dim_k as f32;
        Ok(DeltaNet {
            config: own.clone(),
            input,
            conv: Conv::bind(binder, &name("ssm_conv1d"), own.channels(), own.kernel)?,
            dt: binder.vector(&name("ssm_dt.bias"), heads)?,
            a: binder.vector(&name("ssm_a"), heads)?,
            q_norm: vec![1.0 / dim; own.head_dim_k],
            k_norm: vec![1.0 / dim.sqrt(); own.head_dim_k],
            norm: binder.vector(&name("ssm_norm.weight"), own.head_dim_v)?,
            output: binder.linear(&name("ssm_out"), n_embd, inner)?,
        })
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        let mut all = vec![&self.output];
        match &self.input {
            Input::Apart { qkv, z, beta, alpha } => all.extend([qkv, z, beta, alpha]),
            Input::Gates { qkv, z, gates } => all.extend([qkv, z, gates]),
            Input::Fused { all: input, gates } => all.extend([input, gates]),
        }
        all
    }

    /// `out` = what it makes of some rows of the pass; states go on over all of them.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        rows: Range<usize>,
        out: &mut [f32],
        buffers: &mut RecurrentBuffers,
        cache: &mut StateCache,
    ) -> Result<()> {
        let (config, m) = (&self.config, run.pass.rows.len());
        let (channels, inner, heads) = (config.channels(), config.inner_width(), config.n_v_heads);
        let z = &mut buffers.z[..rows.len() * inner];
        let qkv = &mut buffers.input[..m * channels];
        let logits = &mut buffers.logits[..m * 2 * heads];
        let fused = &mut buffers.fused[..m * config.width_fused()];
        self.products(run, x, rows.start, (&mut *z, &mut *qkv, fused, &mut *logits))?;
        run.look("qkv", channels, qkv);
        run.look("z", inner, z);

        let mixed = &mut buffers.mixed[..m * channels];
        let through = (&*qkv, &mut *mixed);
        convolve(run, &self.conv, &mut cache.recent, through, channels)?;
        self.norm_heads(run, mixed)?;
        run.look("qk_norm", channels, mixed);
        let gates = &mut buffers.gates[..m * 2 * heads];
        self.gates(run, logits, gates)?;
        run.look("decay_beta", 2 * heads, gates);

        let answers = &mut buffers.answers[..m * inner];
        self.remember(run, (mixed, gates), answers, &mut cache.memory)?;
        run.look("delta", inner, answers);
        if rows.is_empty() {
            return Ok(());
        }
        let answers = &answers[rows.start * inner..rows.end * inner];
        let (ops, dim) = (&run.ops, config.head_dim_v);
        ops.team.rows(z, inner, ops.grain(inner), |rows, z| {
            let mut normed = [0.0f32; MAX_HEAD_DIM];
            let normed = &mut normed[..dim];
            let answers = &answers[rows.start * inner..rows.end * inner];
            for (z, answer) in z.chunks_exact_mut(dim).zip(answers.chunks_exact(dim)) {
                ops.backend
                    .rms_norm(answer, &self.norm, run.config.norm_eps, normed);
                ops.backend.gate(Activation::Silu, z, normed);
            }
        })?;
        run.look("gated_norm", inner, z);
        run.products("ssm_out", z, &mut [product(&self.output, &mut *out)])?;
        run.look("ssm_out", run.config.n_embd, out);
        Ok(())
    }

    /// All products of the layer's input: `z` from row `first` on, as many as it has rows.
    fn products<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        first: usize,
        (of_z, of_qkv, fused, logits): (&mut [f32], &mut [f32], &mut [f32], &mut [f32]),
    ) -> Result<()> {
        const OP: &str = "ssm_in";
        let skipped = usize::from(of_z.is_empty());
        match &self.input {
            Input::Apart { qkv, z, beta, alpha } => {
                let (of_beta, of_alpha) = logits.split_at_mut(logits.len() / 2);
                let products = &mut [
                    product_from(z, first, of_z),
                    product(qkv, of_qkv),
                    product(beta, of_beta),
                    product(alpha, of_alpha),
                ];
                run.products(OP, x, &mut products[skipped..])
            }
            Input::Gates { qkv, z, gates } => {
                let products = &mut [
                    product_from(z, first, of_z),
                    product(qkv, of_qkv),
                    product(gates, logits),
                ];
                run.products(OP, x, &mut products[skipped..])
            }
            Input::Fused { all, gates } => {
                run.products(OP, x, &mut [product(all, &mut *fused), product(gates, logits)])?;
                let (channels, inner) = (self.config.channels(), self.config.inner_width());
                self.take_apart(&run.ops, fused, (of_qkv, channels), &|q, k, v, _| [q, k, v])?;
                let fused = &fused[first * self.config.width_fused()..];
                self.take_apart(&run.ops, fused, (of_z, inner), &|_, _, _, z| [&[], &[], z])
            }
        }
    }

    /// Rows of `n`, queries, keys and values or gates, from rows that have them by key head: `part` says which of a key
    /// head's go where queries, keys and the others are.
    fn take_apart(
        &self,
        ops: &Ops<'_>,
        fused: &[f32],
        (out, n): (&mut [f32], usize),
        part: &Part,
    ) -> Result<()> {
        let config = &self.config;
        let (dim, heads) = (config.head_dim_k, config.n_k_heads);
        let (width, values) = (config.width_fused(), config.inner_width() / heads);
        let of_head = |row: usize, head: usize| {
            let own = &fused[row * width + head * (width / heads)..][..width / heads];
            let (q, rest) = own.split_at(dim);
            let (k, rest) = rest.split_at(dim);
            let (v, z) = rest.split_at(values);
            part(q, k, v, z)
        };
        ops.team.rows(out, n, ops.grain(n), |rows, out| {
            for (row, out) in rows.zip(out.chunks_exact_mut(n)) {
                let mut rest = out;
                for i in 0..3 {
                    for head in 0..heads {
                        let own = of_head(row, head)[i];
                        let (to, after) = rest.split_at_mut(own.len());
                        to.copy_from_slice(own);
                        rest = after;
                    }
                }
            }
        })
    }

    /// Norms the heads of queries and keys.
    fn norm_heads<P>(&self, run: &Run<'_, P>, mixed: &mut [f32]) -> Result<()> {
        let (ops, config) = (&run.ops, &self.config);
        let (channels, width, dim) = (config.channels(), config.key_width(), config.head_dim_k);
        let eps = run.config.norm_eps / dim as f32;
        ops.team.rows(mixed, channels, ops.grain(2 * width), |_, part| {
            let mut normed = [0.0f32; MAX_HEAD_DIM];
            let normed = &mut normed[..dim];
            for row in part.chunks_exact_mut(channels) {
                for (i, head) in row[..2 * width].chunks_exact_mut(dim).enumerate() {
                    let weight = if i < config.n_k_heads {
                        &self.q_norm
                    } else {
                        &self.k_norm
                    };
                    ops.backend.rms_norm(head, weight, eps, normed);
                    head.copy_from_slice(normed);
                }
            }
        })
    }

    /// Per row and value head the decay and beta, side by side.
    fn gates<P>(&self, run: &Run<'_, P>, logits: &[f32], gates: &mut [f32]) -> Result<()> {
        // The logarithms among them take as long as so many numbers of other operations.
        const COST: usize = 32;
        let (ops, heads) = (&run.ops, self.config.n_v_heads);
        let m = run.pass.rows.len();
        let group = heads / self.config.n_k_heads;
        ops.team
            .rows(gates, 2 * heads, ops.grain(heads * COST), |rows, part| {
                for (row, part) in rows.zip(part.chunks_exact_mut(2 * heads)) {
                    for (head, gates) in part.chunks_exact_mut(2).enumerate() {
                        let (beta, alpha) = match self.input {
                            Input::Apart { .. } => (row * heads + head, (m + row) * heads + head),
                            Input::Gates { .. } | Input::Fused { .. } => {
                                let first = row * 2 * heads + head / group * 2 * group + head % group;
                                (first, first + group)
                            }
                        };
                        let dt = softplus(logits[alpha] + self.dt[head]);
                        gates[0] = exp(self.a[head] * dt);
                        gates[1] = sigmoid(logits[beta]);
                    }
                }
            })
    }

    /// The delta rule, row by row: what the states answer.
    fn remember<P>(
        &self,
        run: &Run<'_, P>,
        (mixed, gates): (&[f32], &[f32]),
        answers: &mut [f32],
        memory: &mut [f32],
    ) -> Result<()> {
        let (config, backend) = (&self.config, run.ops.backend);
        let (channels, width, dim) = (config.channels(), config.key_width(), config.head_dim_k);
        go_on(
            run,
            "delta",
            (answers, config.inner_width()),
            (memory, config.head_dim_v, dim),
            |columns| {
                let head = columns.start / config.head_dim_v;
                (columns, head, config.key_head(head) * dim)
            },
            |(columns, head, first), row, state, out| {
                let mixed = &mixed[row * channels..(row + 1) * channels];
                let (q, k) = (&mixed[*first..], &mixed[width + first..]);
                let v = &mixed[2 * width..][columns.clone()];
                let gates = &gates[(row * config.n_v_heads + head) * 2..][..2];
                backend.delta_row(state, (&q[..dim], &k[..dim], v), (gates[0], gates[1]), out);
            },
        )
    }
}
