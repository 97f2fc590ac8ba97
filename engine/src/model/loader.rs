//! A model from a stream: each tensor is made ready to compute with as its bytes arrive, so no copy of the file is ever
//! held.
//!
//! The caller parses the headers ([`crate::gguf::Parser`]) and gives them to [`Loader::new`], which checks the
//! hyperparameters and every shape before any data has come, and says what the weights will take. Then, until
//! [`Loader::next`] gives nothing: bring the bytes that it names into [`Loader::space`] and say so with
//! [`Loader::filled`]. Bytes that it does not name (padding, tensors that the model does not use) are skipped. What is
//! wanted comes in the order of the files, so that one pass over each suffices.
//!
//! A large matrix comes in pieces of rows: a piece's raw bytes are released when it is packed, so raw and packed bytes
//! of a whole tensor are never there at the same time, and no allocation comes near wasm32's cap of 2 GiB.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::config::Config;
use super::plan::ModelPlan;
use super::weights::{Matrices, Role, Weights, in_tensor};
use super::{LoadOptions, Model};
use crate::gguf::{GgufSet, ModelFile, TensorInfo};
use crate::kernels::{Backend, PackedMatrix, Packing, Placement, Storage, select};
use crate::memory::{self, Bytes, Memory};
use crate::quant::GgmlType;
use crate::team::Team;
use crate::{Error, Result};

/// Raw bytes of a matrix that are held at a time.
const PIECE: usize = 16 << 20;

/// A piece has a multiple of so many rows: of every kernel's grain.
const PIECE_ROWS: usize = 64;

/// Bytes that are wanted next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which of the model's files.
    pub part: usize,
    /// Bytes of that file. The rest of what [`Loader::space`] gives.
    pub range: Range<u64>,
}

/// A tensor that the model uses.
#[derive(Debug)]
struct Wanted {
    part: usize,
    info: TensorInfo,
    /// What matrix it is, if it is one.
    matrix: Option<Role>,
    row_bytes: usize,
    /// Rows of a piece; the last one may have fewer.
    piece_rows: usize,
}

impl Wanted {
    fn new(part: usize, info: &TensorInfo, matrix: Option<Role>) -> Result<Self> {
        let too_large = || Error::Tensor {
            tensor: info.name.clone(),
            what: "it is too large for this platform".into(),
        };
        let row_bytes = info.ty.row_bytes(info.row_len()).ok_or_else(too_large)?;
        let n = info.n_rows();
        let piece_rows = (PIECE / row_bytes.clamp(1, PIECE) / PIECE_ROWS * PIECE_ROWS).max(PIECE_ROWS);
        row_bytes.checked_mul(piece_rows.min(n)).ok_or_else(too_large)?;
        Ok(Wanted {
            part,
            info: info.clone(),
            matrix,
            row_bytes,
            piece_rows,
        })
    }

    /// Rows of the piece that begins at `row`.
    fn rows_at(&self, row: usize) -> usize {
        self.piece_rows.min(self.info.n_rows() - row)
    }

    /// Bytes of the first piece, the largest one.
    fn piece_bytes(&self) -> usize {
        self.rows_at(0) * self.row_bytes
    }
}

/// See the module.
#[derive(Debug)]
pub struct Loader {
    backend: &'static dyn Backend,
    /// Where matrices lie, and experts.
    storages: (Storage, Storage),
    placement: Placement,
    team: Team,
    memory: Arc<dyn Memory>,
    set: GgufSet,
    /// Its configuration is without the frequencies of rotations that come from tensors.
    plan: ModelPlan,
    wanted: Vec<Wanted>,
    /// The tensor under way, its rows that are done, and the piece that is being filled.
    at: usize,
    rows_done: usize,
    piece: Vec<u8>,
    filled: usize,
    pieces: Vec<PackedMatrix>,
    matrices: HashMap<String, PackedMatrix>,
    vectors: HashMap<String, Bytes>,
    bytes_done: u64,
    /// A packing that failed leaves nothing to go on with.
    failed: Option<Error>,
}

impl Loader {
    /// Bytes of a piece at most, but for rows of more than a part in [`PIECE_ROWS`] of it.
    pub const LARGEST_PIECE: u64 = PIECE as u64;

    /// Checks what can be checked before the data comes: architecture, hyperparameters, names, types and shapes.
    ///
    /// # Errors
    /// As [`Model::load`], but for those that the data itself brings.
    pub fn new(set: GgufSet, options: &LoadOptions) -> Result<Self> {
        let backend = select::choose(options.backend.as_deref())?;
        let file = ModelFile::from_tensors(set, HashMap::new());
        let stand_ins = stand_ins(&file);
        let file = ModelFile::from_tensors(file.into_set(), stand_ins);
        let (plan, used) = ModelPlan::with_matrices(&file, backend, options)?;
        let mut wanted = Vec::new();
        for (part, info) in file.set().tensors() {
            let matrix = used.matrices.get(&info.name).copied();
            if matrix.is_some() || is_vector(info) || used.vectors.contains(&info.name) {
                wanted.push(Wanted::new(part, info, matrix)?);
            }
        }
        wanted.sort_by_key(|w| (w.part, w.info.offset));
        let mut loader = Loader {
            backend,
            storages: options.storages(),
            placement: options.placement,
            team: options.team(),
            memory: options.memory(),
            set: file.into_set(),
            plan,
            wanted,
            at: 0,
            rows_done: 0,
            piece: Vec::new(),
            filled: 0,
            pieces: Vec::new(),
            matrices: HashMap::new(),
            vectors: HashMap::new(),
            bytes_done: 0,
            failed: None,
        };
        loader.make_room()?;
        Ok(loader)
    }

    /// The model's headers.
    pub fn set(&self) -> &GgufSet {
        &self.set
    }

    /// What the model is. Frequencies of rotations that tensors state are not in it yet.
    pub fn config(&self) -> &Config {
        self.plan.config()
    }

    /// What the model will take.
    pub fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// The backend that the weights are made ready for.
    pub fn backend(&self) -> &'static dyn Backend {
        self.backend
    }

    /// Who makes the weights ready.
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// Raw bytes that are held at most beside what is ready: the largest piece, and all vectors, which are read last.
    pub fn bytes_staged(&self) -> u64 {
        let piece = self.wanted.iter().map(Wanted::piece_bytes).max().unwrap_or(0) as u64;
        let vectors = self.wanted.iter().filter(|w| w.matrix.is_none());
        vectors.map(|w| w.info.bytes).fold(piece, u64::saturating_add)
    }

    /// Bytes of all tensors that the model uses.
    pub fn bytes_total(&self) -> u64 {
        self.wanted.iter().map(|w| w.info.bytes).sum()
    }

    /// Bytes of those that have come.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done
    }

    /// What to bring next; `None` when everything is there.
    pub fn next(&self) -> Option<Span> {
        let wanted = self.wanted.get(self.at)?;
        let row = |row: usize| wanted.info.offset + row as u64 * wanted.row_bytes as u64;
        let start = row(self.rows_done) + self.filled as u64;
        Some(Span {
            part: wanted.part,
            range: start..row(self.rows_done + wanted.rows_at(self.rows_done)),
        })
    }

    /// Where those bytes go, the first of them first; empty when everything is there. Fewer than fit may be brought at
    /// a time.
    pub fn space(&mut self) -> &mut [u8] {
        self.piece.get_mut(self.filled..).unwrap_or_default()
    }

    /// The first `n` bytes of [`Self::space`] have been written.
    ///
    /// # Errors
    /// If there was no such space; if the tensor cannot be made ready: no memory, a type that is not a weight's. The
    /// loader is of no more use then and gives the same error again.
    pub fn filled(&mut self, n: usize) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let space = self.space().len();
        if n > space {
            return Err(Error::InvalidInput {
                what: format!("{n} bytes were brought where {space} are wanted"),
            });
        }
        self.filled += n;
        self.bytes_done += n as u64;
        if self.filled < self.piece.len() || self.piece.is_empty() {
            return Ok(());
        }
        self.complete_piece()
            .inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// As [`Self::space`] and [`Self::filled`] for bytes of part `part` that begin at byte `offset` of it: takes what
    /// is wanted of them. Bytes must come in order.
    ///
    /// # Errors
    /// As [`Self::filled`]; if wanted bytes before these were left out.
    pub fn push(&mut self, part: usize, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while let Some(span) = self.next() {
            if span.part < part || (span.part == part && span.range.start < offset) {
                return Err(Error::InvalidInput {
                    what: format!(
                        "byte {} of file {} is expected, byte {offset} of file {} came",
                        span.range.start,
                        span.part + 1,
                        part + 1
                    ),
                });
            }
            let skip = usize::try_from(span.range.start - offset).unwrap_or(usize::MAX);
            if span.part > part || skip >= bytes.len() {
                break;
            }
            bytes = &bytes[skip..];
            offset = span.range.start;
            let space = self.space();
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            self.filled(n)?;
            bytes = &bytes[n..];
            offset += n as u64;
        }
        Ok(())
    }

    /// The model.
    ///
    /// # Errors
    /// If bytes are missing; values that the model cannot use, such as a factor of a rotation that is zero.
    pub fn finish(self) -> Result<Model> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(wanted) = self.wanted.get(self.at) {
            let have = (self.rows_done * wanted.row_bytes) as u64 + self.filled as u64;
            return Err(Error::Tensor {
                tensor: wanted.info.name.clone(),
                what: format!("the data ends after {have} of its {} bytes", wanted.info.bytes),
            });
        }
        let file = ModelFile::from_tensors(self.set, self.vectors);
        let config = Config::from_file(&file)?;
        let weights = Weights::bind(&file, &config, &Ready(&self.matrices), &mut |_, _| ())?;
        Ok(Model {
            config,
            weights,
            backend: self.backend,
            memory: self.memory,
        })
    }

    /// Makes the filled piece ready and room for the next one.
    fn complete_piece(&mut self) -> Result<()> {
        let Some(wanted) = self.wanted.get(self.at) else {
            return Ok(());
        };
        let name = &wanted.info.name;
        let bytes = Bytes::from_vec(std::mem::take(&mut self.piece));
        let rows = wanted.rows_at(self.rows_done);
        self.filled = 0;
        self.rows_done += rows;
        let whole = self.rows_done == wanted.info.n_rows();
        if let Some(role) = wanted.matrix {
            let (ty, k) = (wanted.info.ty, wanted.info.row_len());
            let before = self.rows_done - rows;
            let packing = Packing {
                storage: role.storage(self.storages),
                placement: self.placement,
                piece: Some((before, wanted.info.n_rows())),
                matrix_rows: role.matrix_rows(&wanted.info),
                team: &self.team,
                memory: &*self.memory,
            };
            let piece = self
                .backend
                .pack(ty, rows, k, bytes, &packing)
                .map_err(|error| in_tensor(name, error))?;
            self.pieces.push(piece);
            if whole {
                let matrix = PackedMatrix::join(std::mem::take(&mut self.pieces))?;
                self.matrices.insert(name.clone(), matrix);
            }
        } else {
            self.vectors.insert(name.clone(), bytes);
        }
        if whole {
            self.at += 1;
            self.rows_done = 0;
        }
        self.make_room()
    }

    fn make_room(&mut self) -> Result<()> {
        if let Some(wanted) = self.wanted.get(self.at) {
            let n = wanted.rows_at(self.rows_done) * wanted.row_bytes;
            self.piece = memory::zeros(&format!("tensor `{}`", wanted.info.name), n)?;
        }
        Ok(())
    }
}

/// The largest vector that a model may have, in elements: the bound on every width. Of several in one tensor, such as
/// the biases of experts, all of them together.
const MAX_VECTOR: usize = 1 << 20;

/// Norms, biases and factors of rotations; they are few and small, so all of them are kept.
fn is_vector(info: &TensorInfo) -> bool {
    info.n_rows() == 1 && info.row_len() <= MAX_VECTOR && info.ty.is_float()
}

/// What may be several vectors: binding says whether it is.
fn may_be_vectors(info: &TensorInfo) -> bool {
    is_vector(info) || info.shape.len() == 2 && info.n_elements() <= MAX_VECTOR && info.ty.is_float()
}

/// Ones in place of every vector's data, so that shapes can be checked before it is there.
fn stand_ins(file: &ModelFile) -> HashMap<String, Bytes> {
    let mut ones: HashMap<GgmlType, Bytes> = HashMap::new();
    let mut out = HashMap::new();
    for info in file.tensors().filter(|info| may_be_vectors(info)) {
        let ones = ones.entry(info.ty).or_insert_with(|| {
            let same_type = |other: &&TensorInfo| may_be_vectors(other) && other.ty == info.ty;
            let n = file.tensors().filter(same_type).map(TensorInfo::n_elements).max();
            Bytes::from_vec(one(info.ty).repeat(n.unwrap_or(0)))
        });
        if let Ok(bytes) = ones.slice(0..usize::try_from(info.bytes).unwrap_or(usize::MAX)) {
            out.insert(info.name.clone(), bytes);
        }
    }
    out
}

/// 1.0 as stored.
fn one(ty: GgmlType) -> Vec<u8> {
    match ty {
        GgmlType::F16 => 0x3c00u16.to_le_bytes().into(),
        GgmlType::BF16 => 0x3f80u16.to_le_bytes().into(),
        _ => 1.0f32.to_le_bytes().into(),
    }
}

/// Matrices that are there.
struct Ready<'a>(&'a HashMap<String, PackedMatrix>);

impl Matrices for Ready<'_> {
    fn matrix(&self, info: &TensorInfo, _: Role) -> Result<PackedMatrix> {
        self.0.get(&info.name).cloned().ok_or_else(|| Error::Tensor {
            tensor: info.name.clone(),
            what: "its data was not kept".into(),
        })
    }
}
