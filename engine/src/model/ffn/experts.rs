//! Mixture of experts: a router gives each token to a few of many feed-forward parts, whose outputs are weighed and summed.
//! There may be one more that every token goes to, the shared expert.
//!
//! ```text
//!   one token         each of its experts' gate and up, and the shared one's, in one list of products; each one's down in another
//!   more of them      rows are gathered expert by expert; then a product of each expert that has some, over its rows
//!   either way        out = +0.0, then out += weight * y of the token's experts, the best one first
//! ```
//!
//! So no number depends on what else is in the pass.

use bytemuck::Zeroable;

use super::router::{Gating, MAX_GROUPS, Pick, Router};
use crate::Result;
use crate::cache::Sizes;
use crate::kernels::Activation;
use crate::kernels::functions::sigmoid;
use crate::memory::Buffers;
use crate::model::config::{Config, Keys, MAX_WIDTH};
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::{Gate, ListMemory, Product, activated, gated_from, product, product_from};
use crate::model::weights::{Binder, Linear, Role};

/// Experts of a layer at most.
const MAX_EXPERTS: u32 = 4096;

/// Rows that are gathered at a time, at least those of one token: more of them would be much memory and save nothing, as each
/// expert has many.
const ROWS: usize = 8192;

/// Whether a part has some tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Never.
    No,
    /// Where the file has it.
    Optional,
    /// Always.
    Required,
}

/// One layer's, in numbers.
#[derive(Debug, Clone)]
pub struct ExpertsConfig {
    /// Experts.
    pub n_experts: usize,
    /// Of those, how many a token goes to.
    pub n_used: usize,
    /// Width of one of them.
    pub n_ff: usize,
    /// Whether they have a gate; without one they are f(up).
    pub gate: Presence,
    /// The function of the gate, or of what there is instead.
    pub activation: Activation,
    /// Where the gate is silu'd, the most that it can be then; what it gates is kept within that on both sides.
    pub limit: Option<f32>,
    /// The same of the shared expert.
    pub shared_limit: Option<f32>,
    /// What the router's logits become.
    pub gating: Gating,
    /// Whether something is added to what experts are chosen by: `exp_probs_b`.
    pub bias: Presence,
    /// Groups of experts of one size, and of how many of them a token's experts are.
    pub groups: Option<(usize, usize)>,
    /// Whether weights are divided by their sum.
    pub normalise: bool,
    /// Factor of the weights.
    pub scale: f32,
    /// The weights are of what experts read, not of what they make.
    pub weigh_input: bool,
    /// Experts work on rows of this width, which a matrix makes of the part's and another one makes the part's again.
    pub latent: Option<usize>,
    /// The expert that every token goes to.
    pub shared: Option<SharedConfig>,
}

/// The shared expert, in numbers.
#[derive(Debug, Clone, Copy)]
pub struct SharedConfig {
    /// Width.
    pub n_ff: usize,
    /// Whether it has a gate.
    pub gate: Presence,
    /// Whether a sigmoid of a product weighs it.
    pub weighed: Presence,
}

impl SharedConfig {
    /// With a gate, of the width that `expert_shared_feed_forward_length` states; none where it is 0 or missing.
    pub(crate) fn read(keys: &Keys<'_>) -> Result<Option<Self>> {
        Ok(Self::gated(
            keys.opt_size("expert_shared_feed_forward_length", MAX_WIDTH)?,
        ))
    }

    /// With a gate, and not weighed; none where the width is 0.
    pub(crate) fn gated(n_ff: usize) -> Option<Self> {
        (n_ff > 0).then_some(SharedConfig {
            n_ff,
            gate: Presence::Required,
            weighed: Presence::No,
        })
    }
}

impl ExpertsConfig {
    /// Every layer's, of these widths, with silu and a softmax over all experts whose weights are divided by their sum; a family's
    /// file then changes what differs. Layers of width 0 have no experts: what is made for them means nothing.
    pub(crate) fn read(keys: &Keys<'_>, widths: &[usize]) -> Result<Vec<Self>> {
        const COUNT: &str = "expert_count";
        const USED: &str = "expert_used_count";
        let n_experts = keys.size(COUNT, MAX_EXPERTS)?;
        let groups = Self::groups(keys, n_experts)?;
        let used = keys.per_layer_or_none(USED)?.ok_or_else(|| keys.missing(USED))?;
        let (limits, shared_limits) = (
            keys.limits("swiglu_clamp_exp", widths.len())?,
            keys.limits("swiglu_clamp_shexp", widths.len())?,
        );
        let layer = |(i, (&n_ff, &n_used)): (usize, (&usize, &usize))| {
            let open = groups.map_or(n_experts, |(count, used)| n_experts / count * used);
            if n_ff > 0 && !(1..=open).contains(&n_used) {
                let expected = format!("1 to {open}, the experts that there are to choose from");
                return Err(keys.wrong(USED, &expected, &format!("{n_used} for layer {i}")));
            }
            Ok(ExpertsConfig {
                n_experts,
                n_used,
                n_ff,
                gate: Presence::Required,
                activation: Activation::Silu,
                limit: limits[i],
                shared_limit: shared_limits[i],
                gating: Gating::Softmax,
                bias: Presence::No,
                groups,
                normalise: true,
                scale: 1.0,
                weigh_input: false,
                latent: None,
                shared: None,
            })
        };
        widths.iter().zip(&used).enumerate().map(layer).collect()
    }

    fn groups(keys: &Keys<'_>, n_experts: usize) -> Result<Option<(usize, usize)>> {
        const COUNT: &str = "expert_group_count";
        let count = keys.opt_size(COUNT, MAX_GROUPS as u32)?;
        if count < 2 {
            return Ok(None);
        }
        if !n_experts.is_multiple_of(count) || n_experts / count < 2 {
            let expected =
                format!("a divisor of expert_count, {n_experts}, that leaves two or more for each");
            return Err(keys.wrong(COUNT, &expected, &count.to_string()));
        }
        let used = keys.size("expert_group_used_count", count as u32)?;
        Ok(Some((count, used)))
    }

    /// The width of experts, every layer's: that of the other layers' parts, or of all.
    pub(crate) fn dense_widths(keys: &Keys<'_>) -> Result<Vec<usize>> {
        const KEY: &str = "feed_forward_length";
        keys.per_layer(KEY)?.ok_or_else(|| keys.missing(KEY))
    }

    /// The width of experts, every layer's: their own key.
    pub(crate) fn own_widths(keys: &Keys<'_>) -> Result<Vec<usize>> {
        const KEY: &str = "expert_feed_forward_length";
        keys.per_layer(KEY)?.ok_or_else(|| keys.missing(KEY))
    }

    /// The width of experts, every layer's: their own key, or `feed_forward_length` divided by how many are used.
    pub(crate) fn widths(keys: &Keys<'_>) -> Result<Vec<usize>> {
        const OWN: &str = "expert_feed_forward_length";
        const ALL: &str = "feed_forward_length";
        const USED: &str = "expert_used_count";
        if let Some(widths) = keys.per_layer_or_none(OWN)?
            && widths.iter().any(|width| *width > 0)
        {
            return Ok(widths);
        }
        let all = keys.per_layer(ALL)?.ok_or_else(|| keys.missing(OWN))?;
        let used = keys.per_layer(USED)?.ok_or_else(|| keys.missing(USED))?;
        let width = |(all, used): (&usize, &usize)| match all / used {
            0 => {
                let expected = format!("at least {USED}, {used}, where there is no {OWN}");
                Err(keys.wrong(ALL, &expected, &all.to_string()))
            }
            width => Ok(width),
        };
        all.iter().zip(&used).map(width).collect()
    }

    /// `expert_gating_func`, one of those that files name.
    pub(crate) fn gating(keys: &Keys<'_>, default: Option<Gating>) -> Result<Gating> {
        const KEY: &str = "expert_gating_func";
        match (keys.opt_u32(KEY)?.filter(|func| *func != 0), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(keys.missing(KEY)),
            (Some(1), _) => Ok(Gating::Softmax),
            (Some(2), _) => Ok(Gating::Sigmoid),
            (Some(4), _) => Ok(Gating::SqrtSoftplus),
            (Some(other), _) => Err(keys.wrong(
                KEY,
                "1 (softmax), 2 (sigmoid) or 4 (square root of softplus)",
                &other.to_string(),
            )),
        }
    }

    /// A number of shared experts, which are one of that many widths.
    pub(crate) fn shared_count(keys: &Keys<'_>, n_ff: usize) -> Result<usize> {
        const KEY: &str = "expert_shared_count";
        let most = MAX_WIDTH / u32::try_from(n_ff.max(1)).unwrap_or(MAX_WIDTH);
        match keys.u32(KEY)? {
            count if count > most => Err(keys.wrong(KEY, &format!("0 to {most}"), &count.to_string())),
            count => Ok(count as usize * n_ff),
        }
    }

    /// The part of its experts' weights that a token is multiplied with.
    pub fn used_share(&self) -> f64 {
        self.n_used as f64 / self.n_experts as f64
    }

    /// What is made of the gate, with the limit that families with another function than silu do not have.
    fn gated_with(&self, limit: Option<f32>) -> Gate {
        Gate::limited(
            self.activation,
            limit.filter(|_| self.activation == Activation::Silu),
        )
    }

    /// The router; gate and up; down, with the shared expert's where its row fits among the others.
    pub(super) fn operations(&self) -> usize {
        let apart = |shared: SharedConfig| {
            if self.latent.is_some() || self.weigh_input {
                2
            } else {
                usize::from(shared.n_ff != self.n_ff)
            }
        };
        let latent = if self.latent.is_some() { 2 } else { 0 };
        3 + latent + self.shared.map_or(0, apart)
    }

    /// The widest rows of a pass that its matrices multiply with, beside the residual stream's and those of [`Self::more_rows`].
    pub(super) fn inner_width(&self) -> usize {
        let shared = self.shared.map_or(0, |shared| shared.n_ff);
        shared.max(self.latent.unwrap_or(0))
    }

    /// Rows that its matrices multiply with at a time, which may be more than the pass has, and the widest of them.
    pub(super) fn more_rows(&self, n_embd: usize, m: usize) -> (usize, usize) {
        (self.rows_at_once(m) + 1, self.width(n_embd).max(self.n_ff))
    }

    /// The width of what experts read and make.
    fn width(&self, n_embd: usize) -> usize {
        self.latent.unwrap_or(n_embd)
    }

    /// Tokens of a pass of `m` whose experts are computed at once.
    fn tokens_at_once(&self, m: usize) -> usize {
        (ROWS / self.n_used.max(1)).min(m).max(1)
    }

    fn rows_at_once(&self, m: usize) -> usize {
        self.tokens_at_once(m).saturating_mul(self.n_used)
    }
}

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

/// The shared expert.
#[derive(Debug)]
struct Shared {
    n_ff: usize,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    /// One output: its weight's logit.
    weight: Option<Linear>,
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
    /// Gate and up are tensors of their own, or one named `ffn_gate_up_exps`, the gate's rows first. Of each a tensor has the
    /// matrices of all experts, or each expert's is a tensor.
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
        let shared = self.shared.iter().flat_map(|shared| {
            let optional = shared.gate.iter().chain(&shared.weight);
            optional.chain([&shared.up, &shared.down])
        });
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

    /// `out` = the weighed sum of what each token's experts make of the rows `x`; in the list with one token's, the shared expert's
    /// products.
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

impl Shared {
    fn bind(
        binder: &Binder<'_>,
        n_embd: usize,
        own: &SharedConfig,
        name: &impl Fn(&str) -> String,
    ) -> Result<Self> {
        let optional = |suffix: &str, presence, n| {
            has(binder, &name(&format!("{suffix}.weight")), presence)
                .then(|| binder.linear(&name(suffix), n, n_embd))
                .transpose()
        };
        Ok(Shared {
            n_ff: own.n_ff,
            gate: optional("ffn_gate_shexp", own.gate, own.n_ff)?,
            up: binder.linear(&name("ffn_up_shexp"), own.n_ff, n_embd)?,
            down: binder.linear(&name("ffn_down_shexp"), n_embd, own.n_ff)?,
            weight: optional("ffn_gate_inp_shexp", own.weighed, 1)?,
        })
    }

    /// Adds what reads the part's rows to a list of products.
    fn push_inner<'a>(
        &'a self,
        products: &mut Vec<Product<'a>>,
        (gate, up): (&'a mut [f32], &'a mut [f32]),
        config: &ExpertsConfig,
        weights: &'a mut [f32],
    ) {
        products.push(match &self.gate {
            Some(linear) => {
                let up = &mut up[..gate.len()];
                let how = config.gated_with(config.shared_limit);
                gated_from((linear, gate), (&self.up, up), 0, how)
            }
            None => activated(&self.up, 0, gate, config.activation),
        });
        if let Some(linear) = &self.weight {
            products.push(product(linear, weights));
        }
    }

    /// What it makes of the rows `x`, left in the buffers.
    fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        config: &ExpertsConfig,
        buffers: &mut SharedBuffers,
    ) -> Result<()> {
        let m = x.len() / run.config.n_embd;
        let SharedBuffers {
            gate,
            up,
            weights,
            list,
            ..
        } = buffers;
        let mut products = list.take();
        let own = (&mut gate[..m * self.n_ff], &mut up[..]);
        self.push_inner(&mut products, own, config, &mut weights[..m]);
        run.products("ffn_shared_gate_up", x, &mut products)?;
        list.put_back(products);
        self.push_down(run, m, buffers)
    }

    fn push_down<P: Probe>(&self, run: &mut Run<'_, P>, m: usize, buffers: &mut SharedBuffers) -> Result<()> {
        let out = &mut buffers.out[..m * run.config.n_embd];
        let gate = &buffers.gate[..m * self.n_ff];
        run.products("ffn_shared_down", gate, &mut [product(&self.down, out)])
    }

    /// out += what it made, weighed.
    fn join<P: Probe>(&self, run: &Run<'_, P>, buffers: &SharedBuffers, out: &mut [f32]) -> Result<()> {
        let n = run.config.n_embd;
        let SharedBuffers {
            out: own, weights, ..
        } = buffers;
        if self.weight.is_none() {
            return run.ops.add(out, own, n);
        }
        let backend = run.ops.backend;
        run.ops.team.rows(out, n, run.ops.grain(n), |tokens, out| {
            for (token, out) in tokens.zip(out.chunks_exact_mut(n)) {
                let weight = sigmoid(weights[token]);
                backend.add_scaled(out, &own[token * n..(token + 1) * n], weight);
            }
        })
    }
}

/// Rows of one expert.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
struct Active {
    expert: u32,
    first: u32,
    rows: u32,
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

/// What experts compute in.
#[derive(Debug)]
struct Work {
    /// Per expert the row behind its last one.
    ends: Vec<u32>,
    /// The row of each pick.
    places: Vec<u32>,
    /// The pick of each row.
    sources: Vec<u32>,
    /// The experts that have rows.
    active: Vec<Active>,
    /// What experts read, then what they made; behind it the shared one's.
    rows: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    list: ListMemory,
}

/// What the shared expert computes in.
#[derive(Debug)]
struct SharedBuffers {
    gate: Vec<f32>,
    up: Vec<f32>,
    /// Logits of its weights.
    weights: Vec<f32>,
    out: Vec<f32>,
    list: ListMemory,
}

impl Work {
    /// Gives each pick a row, expert by expert; in place the picks' own order, each a row of its own.
    fn group(&mut self, n_experts: usize, picks: &[Pick], in_place: bool) {
        self.active.clear();
        if in_place {
            for (i, (pick, place)) in picks.iter().zip(&mut self.places).enumerate() {
                *place = i as u32;
                self.active.push(Active {
                    expert: pick.expert,
                    first: i as u32,
                    rows: 1,
                });
            }
            return;
        }
        let ends = &mut self.ends[..n_experts];
        ends.fill(0);
        picks.iter().for_each(|pick| ends[pick.expert as usize] += 1);
        let mut first = 0;
        for (expert, end) in ends.iter_mut().enumerate() {
            let rows = *end;
            if rows > 0 {
                self.active.push(Active {
                    expert: expert as u32,
                    first,
                    rows,
                });
            }
            // For now where its next row is.
            *end = first;
            first += rows;
        }
        for (i, (pick, place)) in picks.iter().zip(&mut self.places).enumerate() {
            let next = &mut ends[pick.expert as usize];
            *place = *next;
            self.sources[*next as usize] = i as u32;
            *next += 1;
        }
    }
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
        let n_experts = most(&|layer| layer.n_experts);
        // Behind the rows of experts one of the shared one's.
        let rows = most(&|layer| layer.rows_at_once(m) + 1);
        let n_ff = most(&|layer| layer.n_ff);
        let gated = layers.clone().any(|layer| layer.gate != Presence::No);
        let latent = most(&|layer| layer.latent.unwrap_or(0));
        let shared = |layer: &ExpertsConfig| layer.shared.map_or(0, |shared| shared.n_ff);
        let (shared_ff, any_shared) = (most(&shared), layers.clone().any(|layer| layer.shared.is_some()));
        let shared_rows = if any_shared { m } else { 0 };
        Ok(ExpertsBuffers {
            logits: buffers.outputs("router's logits", m, n_experts)?,
            picks: buffers.rows("experts of tokens", m, most(&|layer| layer.n_used))?,
            latent: [
                buffers.outputs("experts' latent rows", m, latent)?,
                buffers.outputs("experts' latent rows", m, latent)?,
            ],
            work: Work {
                ends: buffers.rows("rows by expert", n_experts, 1)?,
                places: buffers.rows("rows by expert", rows, 1)?,
                sources: buffers.rows("rows by expert", rows, 1)?,
                active: buffers.room("rows by expert", n_experts)?,
                rows: buffers.outputs("rows of experts", rows, most(&|layer| layer.width(n_embd)))?,
                gate: buffers.outputs("experts' gate", rows, n_ff)?,
                up: buffers.outputs("experts' up", if gated { rows } else { 0 }, n_ff)?,
                // All experts, and two of the shared one's.
                list: ListMemory::make(if n_experts > 0 { n_experts + 2 } else { 0 }, buffers)?,
            },
            shared: SharedBuffers {
                gate: buffers.outputs("shared expert's gate", shared_rows, shared_ff)?,
                up: buffers.outputs("shared expert's up", shared_rows, shared_ff)?,
                weights: buffers.rows("shared expert's weights", shared_rows, 1)?,
                out: buffers.outputs("shared expert's output", shared_rows, n_embd)?,
                list: ListMemory::make(if any_shared { 2 } else { 0 }, buffers)?,
            },
        })
    }
}
