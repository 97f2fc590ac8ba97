//! Mixture of experts: a router gives each token to a few of many feed-forward parts, whose outputs are weighed and
//! summed. There may be one more that every token goes to, the shared expert.
//!
//! ```text
//!   one token         each of its experts' gate and up, and the shared one's, in one list of products; each one's down
//!                     in another
//!   more of them      rows are gathered expert by expert; then a product of each expert that has some, over its rows
//!   either way        out = +0.0, then out += weight * y of the token's experts, the best one first
//! ```
//!
//! So no number depends on what else is in the pass.

mod config;
mod shared;
mod work;

pub use config::{ExpertsConfig, Presence, SharedConfig};

use shared::{Shared, SharedBuffers};
use work::Work;

use super::router::{Pick, Router};
use crate::Result;
use crate::cache::Sizes;
use crate::memory::Buffers;
use crate::model::config::Config;
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::{activated, gated_from, product, product_from};
use crate::model::weights::{Binder, Linear, Role};

/// Its weights.
#[derive(Debug)]
pub(crate) struct Experts {
    config: ExpertsConfig,
    router: Linear,
    bias: Option<Vec<f32>>,
    /// Each expert's.
    gate: Option<Vec<Linear>>,
    up: Vec<Linear>,
    down: Vec<Linear>,
    /// The tensors that those are views of.
    tensors: Vec<Linear>,
    /// To the experts' width, and back.
    latent: Option<[Linear; 2]>,
    shared: Option<Shared>,
}

/// Whether to bind something; where it must be there, binding says that it is not.
fn has(binder: &Binder<'_>, name: &str, presence: Presence) -> bool {
    match presence {
        Presence::No => false,
        Presence::Optional => binder.has(name),
        Presence::Required => true,
    }
}

impl Experts {
    /// Gate and up are tensors of their own, or one named `ffn_gate_up_exps`, the gate's rows first. Of each a tensor
    /// has the matrices of all experts, or each expert's is a tensor.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, own: &ExpertsConfig, i: usize) -> Result<Self> {
        let n_embd = config.n_embd;
        let (n, n_ff, width) = (own.n_experts, own.n_ff, own.width(n_embd));
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let router = name("ffn_gate_inp");
        let router = Linear {
            weight: binder.matrices(&format!("{router}.weight"), Role::Dense, (1, n, n_embd))?,
            scale: None,
            bias: binder.bias(&router, n)?,
        };
        let mut tensors = Vec::new();
        let mut stack = |suffix: &str, rows: usize, k: usize| {
            let stack = binder.stack_or_each(&name(suffix), n, rows, k)?;
            tensors.extend(stack.tensors);
            let [part] = stack.parts;
            Result::Ok(part)
        };
        let fused = own.gate != Presence::No && binder.has(&name("ffn_gate_up_exps.weight"));
        let has_gate = match own.gate {
            Presence::No => false,
            Presence::Optional => binder.has_stack_or_each(&name("ffn_gate")),
            Presence::Required => true,
        };
        let (gate, up) = if fused {
            (None, Vec::new())
        } else if has_gate {
            (
                Some(stack("ffn_gate", n_ff, width)?),
                stack("ffn_up", n_ff, width)?,
            )
        } else {
            (None, stack("ffn_up", n_ff, width)?)
        };
        let down = stack("ffn_down", width, n_ff)?;
        let (gate, up) = if fused {
            let stack = binder.stack(&name("ffn_gate_up_exps"), n, [n_ff; 2], width)?;
            tensors.extend(stack.tensors);
            let [gate, up] = stack.parts;
            (Some(gate), up)
        } else {
            (gate, up)
        };
        let bias = has(binder, &name("exp_probs_b.bias"), own.bias)
            .then(|| binder.finite(&name("exp_probs_b.bias"), n))
            .transpose()?;
        let latent = match own.latent {
            None => None,
            Some(width) => Some([
                binder.linear(&name("ffn_latent_down"), width, n_embd)?,
                binder.linear(&name("ffn_latent_up"), n_embd, width)?,
            ]),
        };
        let shared = own
            .shared
            .map(|shared| Shared::bind(binder, n_embd, &shared, &name))
            .transpose()?;
        Ok(Experts {
            config: own.clone(),
            router,
            bias,
            gate,
            up,
            down,
            tensors,
            latent,
            shared,
        })
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        let shared = self.shared.iter().flat_map(Shared::linears);
        let all = std::iter::once(&self.router).chain(&self.tensors);
        all.chain(self.latent.iter().flatten()).chain(shared).collect()
    }

    /// `out` = what it makes of the rows `x`.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        out: &mut [f32],
        buffers: &mut ExpertsBuffers,
    ) -> Result<()> {
        self.forward_routed(run, x, x, out, buffers)
    }

    /// As [`Self::forward`], where the router reads other rows, of the same tokens.
    pub(super) fn forward_routed<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        routed: &[f32],
        x: &[f32],
        out: &mut [f32],
        buffers: &mut ExpertsBuffers,
    ) -> Result<()> {
        let ExpertsBuffers {
            logits,
            picks,
            latent: [latent, latent_sum],
            work,
            shared: shared_buffers,
        } = buffers;
        let n_embd = run.config.n_embd;
        let m = x.len() / n_embd;
        let picks = &mut picks[..m * self.config.n_used];
        self.route(run, routed, logits, picks)?;
        let mut shared = self.shared.as_ref().map(|shared| (shared, shared_buffers));
        // Of one token the shared expert goes with the others.
        let together = m == 1 && self.latent.is_none() && !self.config.weigh_input;
        let beside = shared.as_mut().filter(|_| together);
        let beside = beside.map(|(shared, buffers)| (*shared, &mut **buffers));
        match &self.latent {
            None => self.mix(run, (x, n_embd), picks, beside, out, work)?,
            Some([down, up]) => {
                let width = down.weight.n();
                let (latent, sum) = (&mut latent[..m * width], &mut latent_sum[..m * width]);
                run.products("ffn_latent_down", x, &mut [product(down, &mut *latent)])?;
                self.mix(run, (latent, width), picks, None, sum, work)?;
                run.products("ffn_latent_up", sum, &mut [product(up, &mut *out)])?;
            }
        }
        run.look("ffn_experts", n_embd, out);
        if let Some((shared, buffers)) = shared {
            if !together {
                shared.forward(run, x, &self.config, buffers)?;
            }
            shared.join(run, buffers, out)?;
            run.look("ffn_shared", n_embd, out);
        }
        Ok(())
    }

    /// The experts of each token.
    fn route<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        logits: &mut [f32],
        picks: &mut [Pick],
    ) -> Result<()> {
        let ExpertsConfig {
            n_experts, n_used, ..
        } = self.config;
        let logits = &mut logits[..picks.len() / n_used * n_experts];
        run.products("ffn_router", x, &mut [product(&self.router, &mut *logits)])?;
        run.look("ffn_router", n_experts, logits);
        run.ops
            .check(logits.iter().all(|logit| logit.is_finite()), "ffn_router")?;
        let router = Router {
            gating: self.config.gating,
            groups: self.config.groups,
            bias: self.bias.as_deref(),
            normalise: self.config.normalise,
            scale: self.config.scale,
        };
        // A function of a number takes as long as a few sums.
        let grain = run.ops.grain(8 * n_experts);
        run.ops.team.rows(logits, n_experts, grain, |_, rows| {
            rows.chunks_exact_mut(n_experts).for_each(|row| router.gate(row));
        })?;
        run.ops.team.rows(picks, n_used, grain, |rows, picks| {
            let gated = logits[rows.start * n_experts..].chunks_exact(n_experts);
            for (gated, picks) in gated.zip(picks.chunks_exact_mut(n_used)) {
                router.choose(gated, picks);
            }
        })
    }

    /// `out` = the weighed sum of what each token's experts make of the rows `x`; in the list with one token's, the
    /// shared expert's products.
    fn mix<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        (x, width): (&[f32], usize),
        picks: &[Pick],
        mut beside: Option<(&Shared, &mut SharedBuffers)>,
        out: &mut [f32],
        work: &mut Work,
    ) -> Result<()> {
        let n_used = self.config.n_used;
        let tokens = self.config.tokens_at_once(x.len() / width);
        let parts = x.chunks(tokens * width).zip(picks.chunks(tokens * n_used));
        for ((x, picks), out) in parts.zip(out.chunks_mut(tokens * width)) {
            let beside = beside.as_mut().map(|(shared, buffers)| (*shared, &mut **buffers));
            self.mix_at_once(run, (x, width), picks, beside, out, work)?;
        }
        Ok(())
    }

    fn mix_at_once<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        (x, width): (&[f32], usize),
        picks: &[Pick],
        mut beside: Option<(&Shared, &mut SharedBuffers)>,
        out: &mut [f32],
        work: &mut Work,
    ) -> Result<()> {
        let ExpertsConfig {
            n_used,
            n_ff,
            activation,
            weigh_input,
            ..
        } = self.config;
        let n_rows = picks.len();
        // One token's row is read where it is.
        let in_place = n_rows == n_used && !weigh_input;
        work.group(self.config.n_experts, picks, in_place);
        if !in_place {
            let (sources, rows) = (&work.sources, &mut work.rows[..n_rows * width]);
            run.ops
                .team
                .rows(rows, width, run.ops.grain(width), |range, rows| {
                    for (source, row) in sources[range].iter().zip(rows.chunks_exact_mut(width)) {
                        let source = *source as usize;
                        let token = source / n_used;
                        row.copy_from_slice(&x[token * width..(token + 1) * width]);
                        if weigh_input {
                            let weight = picks[source].weight;
                            row.iter_mut().for_each(|x| *x *= weight);
                        }
                    }
                })?;
        }
        // The shared expert's row may follow the others where it is as wide.
        let joined = beside.as_ref().is_some_and(|(shared, _)| shared.n_ff == n_ff);
        let (gates, shared_gate) = work.gate.split_at_mut(n_rows * n_ff);
        let (ups, shared_up) = work
            .up
            .split_at_mut(if self.gate.is_some() { n_rows * n_ff } else { 0 });
        let mut products = work.list.take();
        let (mut gates, mut ups) = (gates, ups);
        let gate_of_experts = self.config.gated_with(self.config.limit);
        for active in &work.active {
            let (expert, len) = (active.expert as usize, active.rows as usize * n_ff);
            let first = if in_place { 0 } else { active.first as usize };
            let gate = take(&mut gates, len);
            products.push(match &self.gate {
                Some(linears) => {
                    let up = (&self.up[expert], take(&mut ups, len));
                    gated_from((&linears[expert], gate), up, first, gate_of_experts)
                }
                None => activated(&self.up[expert], first, gate, activation),
            });
        }
        if let Some((shared, buffers)) = &mut beside {
            let own = match joined {
                true => (&mut shared_gate[..n_ff], shared_up),
                false => (&mut buffers.gate[..shared.n_ff], &mut buffers.up[..]),
            };
            shared.push_inner(&mut products, own, &self.config, &mut buffers.weights[..1]);
        }
        let input = if in_place { x } else { &work.rows[..n_rows * width] };
        run.products("ffn_gate_up", input, &mut products)?;
        work.list.put_back(products);

        let (rows, shared_row) = work.rows.split_at_mut(n_rows * width);
        let mut products = work.list.take();
        let mut outs = &mut *rows;
        for active in &work.active {
            let out = take(&mut outs, active.rows as usize * width);
            let linear = &self.down[active.expert as usize];
            products.push(product_from(linear, active.first as usize, out));
        }
        let n_inner = n_rows + usize::from(joined);
        if let Some((shared, _)) = beside.as_ref().filter(|_| joined) {
            products.push(product_from(&shared.down, n_rows, &mut shared_row[..width]));
        }
        run.products("ffn_down", &work.gate[..n_inner * n_ff], &mut products)?;
        work.list.put_back(products);
        match beside {
            Some((_, buffers)) if joined => buffers.out[..width].copy_from_slice(&shared_row[..width]),
            Some((shared, buffers)) => shared.push_down(run, 1, buffers)?,
            None => {}
        }

        let (places, backend) = (&work.places, run.ops.backend);
        let grain = run.ops.grain(width * n_used);
        run.ops.team.rows(out, width, grain, |tokens, out| {
            for (token, out) in tokens.zip(out.chunks_exact_mut(width)) {
                out.fill(0.0);
                for pick in token * n_used..(token + 1) * n_used {
                    let row = places[pick] as usize * width;
                    let weight = if weigh_input { 1.0 } else { picks[pick].weight };
                    backend.add_scaled(out, &rows[row..row + width], weight);
                }
            }
        })
    }
}

/// The first `len` of what is left.
fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (first, others) = std::mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}

/// What it computes in.
#[derive(Debug)]
pub(super) struct ExpertsBuffers {
    logits: Vec<f32>,
    picks: Vec<Pick>,
    latent: [Vec<f32>; 2],
    work: Work,
    shared: SharedBuffers,
}

impl ExpertsBuffers {
    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a ExpertsConfig> + Clone,
        n_embd: usize,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let m = sizes.n_batch;
        let most = |f: &dyn Fn(&ExpertsConfig) -> usize| layers.clone().map(f).max().unwrap_or(0);
        let latent = most(&|layer| layer.latent.unwrap_or(0));
        Ok(ExpertsBuffers {
            logits: buffers.outputs("router's logits", m, most(&|layer| layer.n_experts))?,
            picks: buffers.rows("experts of tokens", m, most(&|layer| layer.n_used))?,
            latent: [
                buffers.outputs("experts' latent rows", m, latent)?,
                buffers.outputs("experts' latent rows", m, latent)?,
            ],
            work: Work::make(layers.clone(), n_embd, sizes, buffers)?,
            shared: SharedBuffers::make(layers, n_embd, sizes, buffers)?,
        })
    }
}
