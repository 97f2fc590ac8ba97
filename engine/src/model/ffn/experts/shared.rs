//! The expert that every token goes to.

use super::config::{ExpertsConfig, SharedConfig};
use super::has;
use crate::Result;
use crate::cache::Sizes;
use crate::kernels::functions::sigmoid;
use crate::memory::Buffers;
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::{ListMemory, Product, activated, gated_from, product};
use crate::model::weights::{Binder, Linear};

/// Its weights.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) n_ff: usize,
    gate: Option<Linear>,
    up: Linear,
    pub(super) down: Linear,
    /// One output: its weight's logit.
    weight: Option<Linear>,
}

impl Shared {
    pub(super) fn bind(
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

    /// Its matrices.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let optional = self.gate.iter().chain(&self.weight);
        optional.chain([&self.up, &self.down])
    }

    /// Adds what reads the part's rows to a list of products.
    pub(super) fn push_inner<'a>(
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
    pub(super) fn forward<P: Probe>(
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

    pub(super) fn push_down<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        m: usize,
        buffers: &mut SharedBuffers,
    ) -> Result<()> {
        let out = &mut buffers.out[..m * run.config.n_embd];
        let gate = &buffers.gate[..m * self.n_ff];
        run.products("ffn_shared_down", gate, &mut [product(&self.down, out)])
    }

    /// out += what it made, weighed.
    pub(super) fn join<P: Probe>(
        &self,
        run: &Run<'_, P>,
        buffers: &SharedBuffers,
        out: &mut [f32],
    ) -> Result<()> {
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

/// What it computes in.
#[derive(Debug)]
pub(super) struct SharedBuffers {
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    /// Logits of its weights.
    pub(super) weights: Vec<f32>,
    pub(super) out: Vec<f32>,
    list: ListMemory,
}

impl SharedBuffers {
    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a ExpertsConfig> + Clone,
        n_embd: usize,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let shared = || layers.clone().filter_map(|layer| layer.shared);
        let n_ff = shared().map(|shared| shared.n_ff).max().unwrap_or(0);
        let (rows, products) = match shared().next() {
            Some(_) => (sizes.n_batch, 2),
            None => (0, 0),
        };
        Ok(SharedBuffers {
            gate: buffers.outputs("shared expert's gate", rows, n_ff)?,
            up: buffers.outputs("shared expert's up", rows, n_ff)?,
            weights: buffers.rows("shared expert's weights", rows, 1)?,
            out: buffers.outputs("shared expert's output", rows, n_embd)?,
            list: ListMemory::make(products, buffers)?,
        })
    }
}
