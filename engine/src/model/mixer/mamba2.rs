//! Mamba2, a selective state space: input and two vectors per group of heads through a short convolution, then per head a matrix
//! that decays at each position and takes the input in, and answers along the second vector.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::conv::Conv;
use crate::Result;
use crate::cache::{CacheKind, Sizes, StateCache, StatePart, StateShape};
use crate::kernels::functions::{exp, softplus};
use crate::kernels::{Activation, state_columns};
use crate::memory::Buffers;
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

    pub(super) fn cache_kind(&self) -> CacheKind {
        let columns = state_columns(self.head_dim);
        CacheKind::State(StateShape {
            recent: Conv::state(self.channels(), self.kernel),
            memory: StatePart {
                items: self.inner_width() / columns,
                len: self.n_state * columns,
            },
        })
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
        buffers: &mut Mamba2Buffers,
        cache: &mut StateCache,
    ) -> Result<()> {
        let (config, m) = (&self.config, run.pass.rows.len());
        let (channels, inner, heads) = (config.channels(), config.inner_width(), config.n_heads);
        let z = &mut buffers.z[..rows.len() * inner];
        let xbc = &mut buffers.xbc[..m * channels];
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
        let xbc = &*xbc;
        self.conv.forward(
            run,
            &mut cache.recent,
            mixed,
            |row, part, x| x.copy_from_slice(&xbc[row * channels..][part]),
            |_, _, out| run.ops.backend.activate(Activation::Silu, out),
        )?;
        run.look("conv", channels, mixed);
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

    /// Per row and head the decay and the step, side by side.
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
        let (ops, pass, config) = (&run.ops, run.pass, &self.config);
        let (channels, inner, n) = (config.channels(), config.inner_width(), config.n_state);
        let columns = state_columns(config.head_dim);
        let len = n * columns;
        let finite = AtomicBool::new(true);
        let grain = ops.grain(pass.rows.len() * len);
        ops.team
            .items((answers, inner, columns), memory, grain, |_, mut tile, memory| {
                let part = tile.columns();
                let head = part.start / config.head_dim;
                let group = head / (config.n_heads / config.n_groups);
                let b = inner + group * n;
                let c = b + config.vectors();
                for (i, row) in pass.rows.iter().enumerate() {
                    let step = pass.sequences.at(row.slot).step(row.position);
                    let mixed = &mixed[i * channels..(i + 1) * channels];
                    let gates = &gates[(i * config.n_heads + head) * 2..][..2];
                    let out = tile.row(i);
                    ops.backend.scan_step(
                        step.enter(memory, len),
                        (&mixed[b..b + n], &mixed[c..c + n], &mixed[part.clone()]),
                        (gates[0], gates[1], self.d[head]),
                        out,
                    );
                    if !out.iter().all(|value| value.is_finite()) {
                        finite.store(false, Ordering::Relaxed);
                    }
                    step.leave(memory, len);
                }
            })?;
        ops.check(finite.into_inner(), "scan")
    }
}

/// What it computes in.
#[derive(Debug)]
pub(super) struct Mamba2Buffers {
    z: Vec<f32>,
    xbc: Vec<f32>,
    logits: Vec<f32>,
    gates: Vec<f32>,
    /// The input, B and C after the convolution.
    mixed: Vec<f32>,
    answers: Vec<f32>,
}

impl Mamba2Buffers {
    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a Mamba2Config> + Clone,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let m = sizes.n_batch;
        let widest = |width: fn(&Mamba2Config) -> usize| layers.clone().map(width).max().unwrap_or(0);
        let (channels, inner) = (widest(Mamba2Config::channels), widest(Mamba2Config::inner_width));
        let heads = widest(|layer| layer.n_heads);
        Ok(Mamba2Buffers {
            z: buffers.outputs("Mamba's output gate", m, inner)?,
            xbc: buffers.outputs("Mamba's input and vectors", m, channels)?,
            logits: buffers.outputs("Mamba's gates", m, heads)?,
            gates: buffers.rows("Mamba's gates", m, heads.saturating_mul(2))?,
            mixed: buffers.outputs("Mamba's input and vectors", m, channels)?,
            answers: buffers.outputs("Mamba's answers", m, inner)?,
        })
    }
}
