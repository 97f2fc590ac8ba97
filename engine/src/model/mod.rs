//! A model: configuration from metadata, weights bound by name, and the forward pass.
//!
//! Reading order: [`config`] (what a model is), [`arch`] (one file per family: which parts its layers have, and what
//! its metadata says of them), [`weights`] (binding with shape checks), `unused` (what no part asked for), [`plan`]
//! (what it will take), [`loader`] (the same from a stream), [`rope`], then `forward`, the whole pass in one file, with
//! the two parts of a layer, [`mixer`] and [`ffn`], with what an [`encoder`] has before them and [`pooling`] makes of a
//! text behind them, and what they compute with: [`norm`], `ops`, and `product` for everything that reads a matrix.

pub mod arch;
pub mod config;
pub mod encoder;
pub mod ffn;
mod forward;
pub mod loader;
pub mod mixer;
pub mod norm;
mod ops;
pub mod per_layer;
pub mod plan;
pub mod pooling;
pub mod probe;
mod product;
pub mod rope;
mod stack;
mod unused;
pub mod weights;

pub(crate) use forward::{InTurn, Pass, Sink, Workspace, no_logits};

use std::sync::Arc;

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::{Backend, PackedMatrix, Packing, Placement, Storage, select};
use crate::memory::{Bytes, Heap, Memory};
use crate::team::Team;
use config::Config;
use weights::{FromFile, Weights};

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// A backend's name; `None` or `auto` takes the best one.
    pub backend: Option<String>,
    /// Where the weights lie.
    pub storage: Storage,
    /// Where the weights of experts lie, of which a token needs a few; `None` for as all others.
    pub experts: Option<Storage>,
    /// On which nodes packed weights lie, where the team is on several.
    pub placement: Placement,
    /// Who packs the weights; `None` for the calling thread alone.
    pub team: Option<Team>,
    /// Where packed weights lie; `None` for the heap.
    pub memory: Option<Arc<dyn Memory>>,
}

impl LoadOptions {
    pub(crate) fn team(&self) -> Team {
        self.team.clone().unwrap_or_else(Team::single)
    }

    /// Where matrices lie, and experts.
    pub(crate) fn storages(&self) -> (Storage, Storage) {
        (self.storage, self.experts.unwrap_or(self.storage))
    }

    pub(crate) fn memory(&self) -> Arc<dyn Memory> {
        self.memory.clone().unwrap_or_else(|| Arc::new(Heap))
    }
}

/// A loaded model: immutable, shared between contexts.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) weights: Weights,
    pub(crate) backend: &'static dyn Backend,
    /// The platform's, for large memory of those who run the model.
    pub(crate) memory: Arc<dyn Memory>,
}

impl Model {
    /// Loads a model from parsed files. `progress(done, total)` counts bytes of tensors.
    ///
    /// # Errors
    /// Unsupported architecture or tensor type, missing or unusable metadata, missing tensors, shapes that differ from
    /// the hyperparameters, tensors that the architecture has no use for.
    pub fn load(file: &ModelFile, options: &LoadOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        Self::load_for(
            select::choose(options.backend.as_deref())?,
            file,
            options,
            progress,
        )
    }

    /// As [`Self::load`], for a backend that need not be one of [`select::known`]: `options.backend` is not looked at.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_for(
        backend: &'static dyn Backend,
        file: &ModelFile,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let config = Config::from_file(file)?;
        let (team, memory) = (options.team(), options.memory());
        let matrices = FromFile {
            file,
            backend,
            storages: options.storages(),
            packing: Packing {
                storage: options.storage,
                placement: options.placement,
                piece: None,
                matrix_rows: 0,
                team: &team,
                memory: &*memory,
            },
        };
        let weights = Weights::bind(file, &config, &matrices, progress)?;
        Ok(Model {
            config,
            weights,
            backend,
            memory,
        })
    }

    /// What of the file was left out because no logit depends on it, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.weights.notes
    }

    /// What the model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether layers of it keep a state, which cannot be taken back to any earlier position, as keys and values can.
    pub fn has_state(&self) -> bool {
        self.config.has_state()
    }

    /// The backend that its weights were made ready for.
    pub fn backend(&self) -> &'static dyn Backend {
        self.backend
    }

    /// Bytes of all bound weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// The memory of all bound matrices, as large pieces: what decoding a token reads.
    pub fn weight_data(&self) -> Vec<Bytes> {
        self.weights.matrices().flat_map(PackedMatrix::data).collect()
    }

    /// Of that memory, what is placed on a node of the team, with the node.
    pub fn placed_weights(&self) -> Vec<(usize, Bytes)> {
        self.weights.matrices().flat_map(PackedMatrix::placed).collect()
    }

    /// Number of weights in all bound matrices.
    pub fn parameters(&self) -> usize {
        self.weights.parameters()
    }
}
