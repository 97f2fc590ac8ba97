//! Mamba2, a selective state space: input and two vectors per group of heads through a short convolution, then per head
//! a matrix that decays at each position and takes the input in, and answers along the second vector.

use std::ops::Range;

use super::conv::Conv;
use super::recurrent::{RecurrentBuffers, Widths, convolve, go_on};
use crate::Result;
use crate::cache::{CacheKind, StateCache};
use crate::kernels::Activation;
use crate::kernels::functions::{exp, softplus};
use crate::model::config::{Config, Keys, MAX_WIDTH};
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::{product, product_from};
use crate::model::weights::{Binder, Linear};

/// The largest state of a column.
const MAX_STATE: u32 = 1 << 12;

/// One layer's, in numbers.
#[derive(Debug, Clone)]
pub struct Mamba2Config {
    /// Heads.
    pub n_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Groups of heads that share the vectors B and C; divides `n_heads`.
    pub n_groups: usize,
    /// Length of these vectors: rows of a head's state.
    pub n_state: usize,
    /// Positions that the convolution sees.
    pub kernel: usize,
}

impl Mamba2Config {
    /// As the metadata states it, the same for every layer.
    pub(crate) fn read(keys: &Keys<'_>) -> Result<Self> {
        const INNER: &str = "ssm.inner_size";
        const GROUPS: &str = "ssm.group_count";
        let inner = keys.size(INNER, MAX_WIDTH)?;
        let n_heads = keys.size("ssm.time_step_rank", MAX_WIDTH)?;
        let n_state = keys.size("ssm.state_size", MAX_STATE)?;
        let n_groups = keys.size(GROUPS, MAX_WIDTH / n_state as u32)?;
        if !inner.is_multiple_of(n_heads) {
            let expected = format!("a multiple of ssm.time_step_rank, {n_heads}");
            return Err(keys.wrong(INNER, &expected, &inner.to_string()));
        }
        if !n_heads.is_multiple_of(n_groups) {
            let expected = format!("a divisor of ssm.time_step_rank, {n_heads}");
            return Err(keys.wrong(GROUPS, &expected, &n_groups.to_string()));
        }
        Ok(Mamba2Config {
            n_heads,
            head_dim: inner / n_heads,
            n_groups,
            n_state,
            kernel: Conv::kernel(keys, "ssm.conv_kernel")?,
        })
    }

    /// The products of the input; the states; the output.
    pub(super) const OPERATIONS: usize = 3;

    /// Of states: they decay, take the input in, and answer.
    pub(super) fn multiplications(&self) -> f64 {
        3.0 * (self.inner_width() * self.n_state) as f64
    }

    pub(super) fn cache_kind(&self) -> CacheKind {
        self.widths().cache_kind(self.kernel, self.n_state)
    }

    pub(super) fn widths(&self) -> Widths {
        Widths {
            channels: self.channels(),
            inner: self.inner_width(),
            heads: self.n_heads,
            logits: self.n_heads,
            fused: 0,
        }
    }

    /// Width of all heads.
    pub(super) fn inner_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of B, and of C.
    fn vectors(&self) -> usize {
        self.n_groups * self.n_state
    }

    /// Width of the input, B and C.
    fn channels(&self) -> usize {
        self.inner_width() + 2 * self.vectors()
    }
}

/// Its weights.
#[derive(Debug)]
pub(crate) struct Mamba2 {
    config: Mamba2Config,
    z: Linear,
    xbc: Linear,
    dt: Linear,
    conv: Conv,
    dt_bias: Vec<f32>,
    a: Vec<f32>,
    d: Vec<f32>,
    /// One group's weights after the other's.
    norm: Vec<f32>,
    output: Linear,
}

impl Mamba2 {
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, own: &Mamba2Config, i: usize) -> Result<Self> {
        let n_embd = config.n_embd;
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let (inner, channels, heads) = (own.inner_width(), own.channels(), own.n_heads);
        let [z, xbc, dt] = binder.fused(&name("ssm_in"), [inner, channels, heads], n_embd)?;
        Ok(Mamba2 {
            config: own.clone(),
            z,
            xbc,
            dt,
            conv: Conv::bind(binder, &name("ssm_conv1d"), channels, own.kernel)?,
            dt_bias: binder.vector(&name("ssm_dt.bias"), heads)?,
            a: binder.vectors(&name("ssm_a"), heads, 1)?,
            d: binder.vectors(&name("ssm_d"), heads, 1)?,
            norm: binder.vectors(&name("ssm_norm.weight"), own.n_groups, inner / own.n_groups)?,
            output: binder.linear(&name("ssm_out"), n_embd, inner)?,
        })
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        vec![&self.z, &self.xbc, &self.dt, &self.output]
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
        let (channels, inner, heads) = (config.channels(), config.inner_width(), config.n_heads);
        let z = &mut buffers.z[..rows.len() * inner];
        let xbc = &mut buffers.input[..m * channels];
        let logits = &mut buffers.logits[..m * heads];
        let skipped = usize::from(rows.is_empty());
        let products = &mut [
            product_from(&self.z, rows.start, &mut *z),
            product(&self.xbc, &mut *xbc),
            product(&self.dt, &mut *logits),
        ];
        run.products("ssm_in", x, &mut products[skipped..])?;
        run.look("z", inner, z);
        run.look("xbc", channels, xbc);
        run.look("dt", heads, logits);

        let mixed = &mut buffers.mixed[..m * channels];
        let through = (&*xbc, &mut *mixed);
        convolve(run, &self.conv, &mut cache.recent, through, channels)?;
        let gates = &mut buffers.gates[..m * 2 * heads];
        self.gates(run, logits, gates)?;
        run.look("decay_dt", 2 * heads, gates);

        let answers = &mut buffers.answers[..m * inner];
        self.scan(run, (mixed, gates), answers, &mut cache.memory)?;
        run.look("scan", inner, answers);
        if rows.is_empty() {
            return Ok(());
        }
        let normed = &mut answers[rows.start * inner..rows.end * inner];
        let (ops, group) = (&run.ops, inner / config.n_groups);
        let grain = ops.grain(inner);
        let answers = &*normed;
        ops.team.rows(z, inner, grain, |rows, z| {
            let answers = &answers[rows.start * inner..rows.end * inner];
            ops.backend.gate(Activation::Silu, z, answers);
        })?;
        let gated = &*z;
        ops.team.rows(normed, inner, grain, |rows, out| {
            let gated = &gated[rows.start * inner..rows.end * inner];
            let weights = self.norm.chunks_exact(group).cycle();
            let groups = gated.chunks_exact(group).zip(out.chunks_exact_mut(group));
            for ((gated, out), weight) in groups.zip(weights) {
                ops.backend.rms_norm(gated, weight, run.config.norm_eps, out);
            }
        })?;
        run.look("gated_norm", inner, normed);
        run.products("ssm_out", normed, &mut [product(&self.output, &mut *out)])?;
        run.look("ssm_out", run.config.n_embd, out);
        Ok(())
    }

    /// Per row and head the decay and dt, side by side.
    fn gates<P>(&self, run: &Run<'_, P>, logits: &[f32], gates: &mut [f32]) -> Result<()> {
        // The logarithms among them take as long as so many numbers of other operations.
        const COST: usize = 32;
        let (ops, heads) = (&run.ops, self.config.n_heads);
        ops.team
            .rows(gates, 2 * heads, ops.grain(heads * COST), |rows, part| {
                for (row, part) in rows.zip(part.chunks_exact_mut(2 * heads)) {
                    for (head, gates) in part.chunks_exact_mut(2).enumerate() {
                        let dt = softplus(logits[row * heads + head] + self.dt_bias[head]);
                        gates[0] = exp(self.a[head] * dt);
                        gates[1] = dt;
                    }
                }
            })
    }

    /// The state space, row by row: what the states answer.
    fn scan<P>(
        &self,
        run: &Run<'_, P>,
        (mixed, gates): (&[f32], &[f32]),
        answers: &mut [f32],
        memory: &mut [f32],
    ) -> Result<()> {
        let (config, backend) = (&self.config, run.ops.backend);
        let (channels, inner, n) = (config.channels(), config.inner_width(), config.n_state);
        go_on(
            run,
            "scan",
            (answers, inner),
            (memory, config.head_dim, n),
            |columns| {
                let head = columns.start / config.head_dim;
                let group = head / (config.n_heads / config.n_groups);
                (columns, head, inner + group * n)
            },
            |(columns, head, b), row, state, out| {
                let mixed = &mixed[row * channels..(row + 1) * channels];
                let (b, c) = (&mixed[*b..], &mixed[b + config.vectors()..]);
                let x = &mixed[columns.clone()];
                let gates = &gates[(row * config.n_heads + head) * 2..][..2];
                let (decay, dt, skip) = (gates[0], gates[1], self.d[*head]);
                backend.scan_row(state, (&b[..n], &c[..n], x), (decay, dt, skip), out);
            },
        )
    }
}
