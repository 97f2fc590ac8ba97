//! Experts in numbers: what the metadata says of them.

use crate::Result;
use crate::kernels::Activation;
use crate::model::config::{Keys, MAX_WIDTH};
use crate::model::ffn::router::{Gating, MAX_GROUPS};
use crate::model::product::Gate;

/// Experts of a layer at most.
const MAX_EXPERTS: u32 = 4096;

/// Rows that are gathered at a time, at least those of one token: more of them would be much memory and save nothing,
/// as each expert has many.
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
    /// Every layer's, of these widths, with silu and a softmax over all experts whose weights are divided by their sum;
    /// a family's file then changes what differs. Layers of width 0 have no experts: what is made for them means
    /// nothing.
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
    pub(super) fn gated_with(&self, limit: Option<f32>) -> Gate {
        Gate::limited(
            self.activation,
            limit.filter(|_| self.activation == Activation::Silu),
        )
    }

    /// The router; gate and up; down, with the shared expert's where its row fits among the others.
    pub(in crate::model::ffn) fn operations(&self) -> usize {
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

    /// The widest rows of a pass that its matrices multiply with, beside the residual stream's and those of
    /// [`Self::more_rows`].
    pub(in crate::model::ffn) fn inner_width(&self) -> usize {
        let shared = self.shared.map_or(0, |shared| shared.n_ff);
        shared.max(self.latent.unwrap_or(0))
    }

    /// Rows that its matrices multiply with at a time, which may be more than the pass has, and the widest of them.
    pub(in crate::model::ffn) fn more_rows(&self, n_embd: usize, m: usize) -> (usize, usize) {
        (self.rows_at_once(m) + 1, self.width(n_embd).max(self.n_ff))
    }

    /// The width of what experts read and make.
    pub(super) fn width(&self, n_embd: usize) -> usize {
        self.latent.unwrap_or(n_embd)
    }

    /// Tokens of a pass of `m` whose experts are computed at once.
    pub(super) fn tokens_at_once(&self, m: usize) -> usize {
        (ROWS / self.n_used.max(1)).min(m).max(1)
    }

    pub(super) fn rows_at_once(&self, m: usize) -> usize {
        self.tokens_at_once(m).saturating_mul(self.n_used)
    }
}
