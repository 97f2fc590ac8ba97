//! How large a context is: what one is asked for, and what it takes.

use super::Parts;
use crate::cache::{Cache, CacheType, KEYS, Pool, STATES, Sizes, VALUES};
use crate::kernels::ActFormat;
use crate::memory::{Buffers, Planned};
use crate::model::Model;
use crate::model::config::Config;
use crate::model::loader::Loader;
use crate::model::plan::ModelPlan;
use crate::team::Team;
use crate::{Error, Result};

/// Sizes of a context.
#[derive(Debug, Clone)]
pub struct ContextOptions {
    /// Positions per sequence.
    pub n_ctx: usize,
    /// Rows of the largest pass.
    pub n_batch: usize,
    /// Sequences at a time. A handle costs little; what they hold is bounded by the pool.
    pub n_sequences: usize,
    /// How much all sequences and the prefix index can hold together.
    pub pool: Pool,
    /// States of sequences that can be held at a time, by models with layers that keep one; at least 2. A sequence
    /// holds one, one more during a pass, and some of earlier lengths to which it can be cut; a checkpoint holds one.
    /// `None`: two for each sequence, and 6.
    pub n_states: Option<usize>,
    /// Format of cached keys.
    pub cache_type_k: CacheType,
    /// Format of cached values.
    pub cache_type_v: CacheType,
}

impl Default for ContextOptions {
    fn default() -> Self {
        ContextOptions {
            n_ctx: 4096,
            n_batch: 512,
            n_sequences: 1,
            pool: Pool::Whole,
            n_states: None,
            cache_type_k: CacheType::default(),
            cache_type_v: CacheType::default(),
        }
    }
}

impl ContextOptions {
    /// States of sequences that are held at a time, by models with layers that keep one.
    pub fn states(&self) -> usize {
        const MORE: usize = 6;
        let unasked = || self.n_sequences.saturating_mul(2).saturating_add(MORE);
        self.n_states.unwrap_or_else(unasked)
    }

    /// As they are used: a batch is never larger than what the sequences can take.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        for (name, value) in [
            ("n_ctx", self.n_ctx),
            ("n_batch", self.n_batch),
            ("n_sequences", self.n_sequences),
        ] {
            if value == 0 {
                return Err(Error::InvalidInput {
                    what: format!("{name} must be at least 1"),
                });
            }
        }
        let n_states = self.states();
        if n_states < 2 {
            return Err(Error::InvalidInput {
                what: format!("n_states must be at least 2; it is {n_states}"),
            });
        }
        Ok(Sizes {
            n_ctx: self.n_ctx,
            n_batch: self.n_batch.min(self.n_ctx.saturating_mul(self.n_sequences)),
            n_sequences: self.n_sequences,
            pool: self.pool,
            n_states,
            type_k: self.cache_type_k,
            type_v: self.cache_type_v,
        })
    }
}

/// Memory that a context takes, buffer by buffer: what [`Context::new`](super::Context::new) allocates for these sizes,
/// counted by the functions that allocate it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextPlan {
    /// The cache.
    pub cache: Vec<Planned>,
    /// What a pass computes in.
    pub workspace: Vec<Planned>,
    /// Bytes of keys, values and states in each of the team's nodes, which is where [`Context::placed_cache`] will find
    /// them; each saturates. The rest of the cache, lists of what is free, lies where the caller is.
    ///
    /// [`Context::placed_cache`]: super::Context::placed_cache
    pub cache_of_nodes: Vec<u64>,
}

impl ContextPlan {
    /// Of a model that is loaded.
    ///
    /// # Errors
    /// As [`Context::new`](super::Context::new), but for memory that is not there.
    pub fn of(model: &Model, team: &Team, options: &ContextOptions) -> Result<Self> {
        Self::new(&model.config, &model.weights.formats(), team, options)
    }

    /// Of a model that is to come.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn of_loader(loader: &Loader, options: &ContextOptions) -> Result<Self> {
        Self::of_plan(loader.plan(), loader.team(), options)
    }

    /// Of a model that is planned itself.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn of_plan(plan: &ModelPlan, team: &Team, options: &ContextOptions) -> Result<Self> {
        Self::new(plan.config(), plan.formats(), team, options)
    }

    fn new(config: &Config, formats: &[ActFormat], team: &Team, options: &ContextOptions) -> Result<Self> {
        let (mut cache, mut workspace) = (Buffers::counted(), Buffers::counted());
        let parts = Parts::make(
            config,
            formats,
            team,
            &options.sizes()?,
            (&mut cache, &mut workspace),
        )?;
        Ok(ContextPlan {
            cache: cache.planned(),
            workspace: workspace.planned(),
            cache_of_nodes: parts.cache.planned(team),
        })
    }

    /// Bytes of the cache; saturates.
    pub fn cache_bytes(&self) -> u64 {
        sum(&self.cache)
    }

    /// Bytes of the workspace; saturates.
    pub fn workspace_bytes(&self) -> u64 {
        sum(&self.workspace)
    }
}

fn sum(planned: &[Planned]) -> u64 {
    planned
        .iter()
        .fold(0, |sum, buffer| buffer.bytes.saturating_add(sum))
}

/// Bytes of the numbers that a context's cache has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldBytes {
    /// Keys and values, which grow with its positions.
    pub keys_and_values: u64,
    /// States, which grow with [`ContextOptions::n_states`].
    pub states: u64,
}

/// Bytes of the numbers that the cache of a context of these sizes has room for; each saturates.
///
/// # Errors
/// Sizes of zero, or a type that does not fit the model's heads.
pub fn held_bytes(config: &Config, options: &ContextOptions) -> Result<HeldBytes> {
    let mut buffers = Buffers::counted();
    Cache::make(config.cache_kinds(), &options.sizes()?, &mut buffers)?;
    let planned = buffers.planned();
    let of = |names: &[&str]| {
        let named = planned.iter().filter(|buffer| names.contains(&buffer.name));
        named.fold(0, |sum, buffer| buffer.bytes.saturating_add(sum))
    };
    Ok(HeldBytes {
        keys_and_values: of(&[KEYS, VALUES]),
        states: of(&[STATES]),
    })
}
