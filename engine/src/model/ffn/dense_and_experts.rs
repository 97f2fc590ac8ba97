//! A gated part and experts beside it: each reads rows normed its own way, and what both make is normed and summed.
//!
//! ```text
//!   a = norm_1(dense(h))                                     h: normed by the frame, as any part's rows
//!   m = norm_2(experts(pre_norm_2(x))), routed by rms(x) * (scale / sqrt(n_embd))
//!   out = a + m
//! ```

use super::experts::{Experts, ExpertsBuffers, ExpertsConfig};
use super::gated::{Gated, GatedBuffers, GatedConfig};
use crate::Result;
use crate::cache::Sizes;
use crate::memory::Buffers;
use crate::model::config::Config;
use crate::model::norm::{Norm, NormKind};
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::weights::{Binder, Linear};

/// One layer's, in numbers.
#[derive(Debug, Clone)]
pub struct DenseAndExpertsConfig {
    /// What every token goes to.
    pub dense: GatedConfig,
    /// What is beside it.
    pub experts: ExpertsConfig,
}

/// Its weights.
#[derive(Debug)]
pub(crate) struct DenseAndExperts {
    dense: Gated,
    experts: Experts,
    /// Of what the dense part made, of what experts read, and of what they made.
    after_dense: Norm,
    before_experts: Norm,
    after_experts: Norm,
    /// Of what the router reads.
    before_router: Norm,
}

impl DenseAndExperts {
    pub(super) fn bind(
        binder: &Binder<'_>,
        config: &Config,
        own: &DenseAndExpertsConfig,
        i: usize,
    ) -> Result<Self> {
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let norm = |suffix: &str| binder.norm(&name(suffix), config);
        let factor = 1.0 / (config.n_embd as f32).sqrt();
        let mut scale = binder.finite(&name("ffn_gate_inp.scale"), config.n_embd)?;
        scale.iter_mut().for_each(|scale| *scale *= factor);
        Ok(DenseAndExperts {
            dense: Gated::bind(binder, config, &own.dense, i)?,
            experts: Experts::bind(binder, config, &own.experts, i)?,
            after_dense: norm("post_ffw_norm_1")?,
            before_experts: norm("pre_ffw_norm_2")?,
            after_experts: norm("post_ffw_norm_2")?,
            before_router: Norm {
                kind: NormKind::Rms,
                weight: scale,
                bias: None,
                eps: config.norm_eps,
            },
        })
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        let mut linears = self.dense.linears();
        linears.extend(self.experts.linears());
        linears
    }

    /// `out` = what it makes of `h`, and of `x`, the rows of the residual stream that those are of.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        (x, h): (&[f32], &[f32]),
        out: &mut [f32],
        (dense, experts): (&mut GatedBuffers, &mut ExpertsBuffers),
        buffers: &mut DenseAndExpertsBuffers,
    ) -> Result<()> {
        let (a, b) = (&mut buffers.a[..x.len()], &mut buffers.b[..x.len()]);
        run.norm("router_norm", x, &self.before_router, a)?;
        run.norm("experts_norm", x, &self.before_experts, b)?;
        self.experts.forward_routed(run, a, b, out, experts)?;
        run.norm("post_experts_norm", out, &self.after_experts, a)?;
        self.dense.forward(run, h, out, dense)?;
        run.norm("post_dense_norm", out, &self.after_dense, b)?;
        out.copy_from_slice(b);
        run.ops.add(out, a, run.config.n_embd)?;
        run.look("ffn_sum", run.config.n_embd, out);
        Ok(())
    }
}

/// What it computes in, beside what its two parts do.
#[derive(Debug)]
pub(super) struct DenseAndExpertsBuffers {
    a: Vec<f32>,
    b: Vec<f32>,
}

impl DenseAndExpertsBuffers {
    /// For layers of which there are `any`.
    pub(super) fn make(any: bool, n_embd: usize, sizes: &Sizes, buffers: &mut Buffers<'_>) -> Result<Self> {
        const NAME: &str = "rows of experts beside a dense part";
        let m = if any { sizes.n_batch } else { 0 };
        Ok(DenseAndExpertsBuffers {
            a: buffers.outputs(NAME, m, n_embd)?,
            b: buffers.outputs(NAME, m, n_embd)?,
        })
    }
}
