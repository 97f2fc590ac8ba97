//! What a model will take, known from its headers before any data is read.
//!
//! The weights are bound as they are when the model is loaded, by the same functions, with matrices of which no row is
//! there: the backend says where each would lie, and the kernel's layout how many bytes it would have. So what is
//! planned is what loading allocates.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::LoadOptions;
use super::config::Config;
use super::weights::{EMBEDDING, Matrices, Role, Weights};
use crate::Result;
use crate::gguf::{ModelFile, TensorInfo};
use crate::kernels::{ActFormat, Backend, PackedMatrix, Packing, Placement, Storage, matrix_rows, select};
use crate::memory::Bytes;
use crate::team::Team;

/// Memory that weights take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightBytes {
    /// Matrices in the backend's layout, in memory of their own.
    pub packed: u64,
    /// Matrices that stay as they are in the file: no memory of their own where the file is mapped, as much where it
    /// comes from a stream ([`super::loader`]).
    pub mapped: u64,
    /// Norms, biases and scales, as f32.
    pub vectors: u64,
}

impl WeightBytes {
    /// What they take where nothing is mapped from a file: all of it. Saturates.
    pub fn total(&self) -> u64 {
        self.packed
            .saturating_add(self.mapped)
            .saturating_add(self.vectors)
    }
}

/// The tensors that a model uses, by name.
#[derive(Debug, Default)]
pub(super) struct Used {
    pub(super) matrices: HashMap<String, Role>,
    pub(super) vectors: HashSet<String>,
}

/// A matrix of the file, and what is read of it when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMatrix {
    /// Its tensor.
    pub name: String,
    /// All of it is read when the model is loaded, and never again: it will be packed.
    pub packed: bool,
    /// Where it is not packed, every pass reads all of it: not only rows that are looked up, or some of the experts.
    pub whole: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    config: Config,
    formats: Vec<ActFormat>,
    nodes: Vec<WeightBytes>,
    matrices: Vec<PlannedMatrix>,
}

impl ModelPlan {
    /// The plan of a model that is to be loaded with these options. Of the data, the vectors alone are read.
    ///
    /// # Errors
    /// As [`super::Model::load`].
    pub fn of(file: &ModelFile, options: &LoadOptions) -> Result<Self> {
        let backend = select::choose(options.backend.as_deref())?;
        Ok(Self::with_matrices(file, backend, options)?.0)
    }

    /// The plan, and the tensors that the model uses.
    pub(super) fn with_matrices(
        file: &ModelFile,
        backend: &'static dyn Backend,
        options: &LoadOptions,
    ) -> Result<(Self, Used)> {
        let config = Config::from_file(file)?;
        let team = options.team();
        let nodes = match options.placement {
            Placement::Anywhere => 1,
            Placement::Distribute | Placement::Mirror => team.nodes(),
        };
        let shapes = Shapes {
            backend,
            options,
            team,
            used: RefCell::default(),
            nodes: RefCell::new(vec![WeightBytes::default(); nodes]),
            matrices: RefCell::default(),
        };
        let weights = Weights::bind(file, &config, &shapes, &mut |_, _| ())?;
        let mut nodes = shapes.nodes.into_inner();
        if let Some(first) = nodes.first_mut() {
            first.vectors = weights.vector_bytes;
        }
        let mut matrices = shapes.matrices.into_inner();
        for matrix in matrices.iter_mut().filter(|matrix| matrix.name == EMBEDDING) {
            matrix.whole = weights.tied;
        }
        let plan = ModelPlan {
            config,
            formats: weights.formats(),
            nodes,
            matrices,
        };
        Ok((plan, shapes.used.into_inner()))
    }

    /// What the model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What its weights take of each node's memory. One entry stands for memory that is not divided.
    pub fn nodes(&self) -> &[WeightBytes] {
        &self.nodes
    }

    /// What its weights take in all; saturates.
    pub fn weights(&self) -> WeightBytes {
        let add = u64::saturating_add;
        self.nodes
            .iter()
            .fold(WeightBytes::default(), |sum, node| WeightBytes {
                packed: add(sum.packed, node.packed),
                mapped: add(sum.mapped, node.mapped),
                vectors: add(sum.vectors, node.vectors),
            })
    }

    /// Its matrices, in the order in which loading reads them.
    pub fn matrices(&self) -> &[PlannedMatrix] {
        &self.matrices
    }

    /// The forms of activations that its matrices will multiply with.
    pub(crate) fn formats(&self) -> &[ActFormat] {
        &self.formats
    }
}

/// Matrices whose shape is known and whose bytes are to come: which were asked for, and what they will take.
struct Shapes<'a> {
    backend: &'static dyn Backend,
    options: &'a LoadOptions,
    team: Team,
    used: RefCell<Used>,
    nodes: RefCell<Vec<WeightBytes>>,
    matrices: RefCell<Vec<PlannedMatrix>>,
}

impl Matrices for Shapes<'_> {
    fn matrix(&self, info: &TensorInfo, role: Role) -> Result<PackedMatrix> {
        let empty = Bytes::from_static(&[]);
        let team = Team::single();
        let packing = Packing::on_heap(role.storage(self.options.storages()), &team);
        let none = self.backend.pack(info.ty, 0, info.row_len(), empty, &packing)?;
        if self
            .used
            .borrow_mut()
            .matrices
            .insert(info.name.clone(), role)
            .is_none()
        {
            self.matrices.borrow_mut().push(PlannedMatrix {
                name: info.name.clone(),
                packed: none.is_packed(),
                whole: role == Role::Dense,
            });
            let n = info.n_rows();
            let each = matrix_rows(role.matrix_rows(info), n, none.grain());
            let shares = self.team.shares(each, none.grain());
            for (node, sum) in self.nodes.borrow_mut().iter_mut().enumerate() {
                let rows = match (none.is_packed(), self.options.placement) {
                    // A stack is divided matrix by matrix, each of whole units of work.
                    (true, Placement::Distribute) if self.team.nodes() > 1 => {
                        shares.of(node).len() * (n / each)
                    }
                    (true, Placement::Mirror) => n,
                    _ if node == 0 => n,
                    _ => 0,
                };
                let (storage, bytes) = none.planned(rows)?;
                let place = match storage {
                    Storage::Packed => &mut sum.packed,
                    Storage::Auto | Storage::Mapped => &mut sum.mapped,
                };
                *place = place.saturating_add(bytes);
            }
        }
        Ok(none.shape_only(info.n_rows()))
    }

    fn vector(&self, name: &str) {
        self.used.borrow_mut().vectors.insert(name.into());
    }
}
