//! The packed weight: a matrix that owns its kernel, so that a mismatch of data and code cannot be written.

use std::ops::Range;

use super::{ActFormat, Activations, MatmulKernel, Packing, Placement, Storage};
use crate::memory::Bytes;
use crate::quant::GgmlType;
use crate::team::{Shares, Tile};
use crate::{Error, Result};

/// A weight matrix of n rows (outputs) of k, ready to compute with.
///
/// It is a list of row-range shards: wasm32 caps one allocation at 2 GiB, and NUMA wants one per node, or all of them
/// on each. A view of some of its rows (a fused tensor's part) shares the bytes.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    ty: GgmlType,
    k: usize,
    /// Rows of the underlying shards that this view shows.
    rows: Range<usize>,
    shards: Vec<Shard>,
    /// The same on the nodes after the first, where each has a copy.
    mirrors: Vec<Vec<Shard>>,
    kernel: &'static dyn MatmulKernel,
}

/// Consecutive rows of a matrix in one piece of memory.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    /// The rows, as counted over the whole matrix.
    pub(crate) rows: Range<usize>,
    /// The node on whose memory they are placed.
    pub(crate) node: Option<usize>,
    pub(crate) ty: GgmlType,
    /// Bytes per row in `data`.
    pub(crate) row_bytes: usize,
    pub(crate) k: usize,
    pub(crate) data: Bytes,
    /// `data` is in the kernel's layout (that of the SIMD backends: panels of 16 rows, the last one padded); else rows
    /// as in the file.
    pub(crate) packed: bool,
}

impl Shard {
    /// GGUF bytes of one row, `row` counted over the whole matrix; only where the shard is not packed, or packed row by
    /// row.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        let start = (row - self.rows.start) * self.row_bytes;
        &self.data[start..start + self.row_bytes]
    }

    /// Some rows of a shard that is not packed, counted over the whole matrix, for a node.
    fn part(&self, rows: Range<usize>, node: usize) -> Result<Shard> {
        let at = |row: usize| (row - self.rows.start) * self.row_bytes;
        Ok(Shard {
            data: self.data.slice(at(rows.start)..at(rows.end))?,
            rows,
            node: Some(node),
            ..self.clone()
        })
    }
}

impl PackedMatrix {
    /// A matrix over GGUF bytes as they are: zero copy ("mapped" storage).
    pub(crate) fn mapped(
        ty: GgmlType,
        n: usize,
        k: usize,
        data: Bytes,
        kernel: &'static dyn MatmulKernel,
    ) -> Result<Self> {
        let row_bytes = ty
            .row_bytes(k)
            .filter(|_| ty.is_weight() && k > 0)
            .ok_or_else(|| Error::InvalidInput {
                what: format!("a row of {k} weights cannot be stored as {}", ty.name()),
            })?;
        let needed = row_bytes.checked_mul(n);
        if needed != Some(data.len()) {
            return Err(Error::InvalidInput {
                what: format!(
                    "a {n} x {k} matrix of {} needs {needed:?} bytes, found {}",
                    ty.name(),
                    data.len()
                ),
            });
        }
        let shard = Shard {
            rows: 0..n,
            node: None,
            ty,
            row_bytes,
            k,
            data,
            packed: false,
        };
        Ok(PackedMatrix {
            ty,
            k,
            rows: 0..n,
            shards: vec![shard],
            mirrors: Vec::new(),
            kernel,
        })
    }

    /// The same matrix in the layout that its kernel is fastest with, where it has one; else unchanged. The rows are
    /// split between the team's workers, and lie on the nodes that `packing` says.
    pub(crate) fn packed(mut self, packing: &Packing<'_>) -> Result<Self> {
        let nodes = packing.team.nodes();
        let placement = match nodes {
            1 => Placement::Anywhere,
            _ => packing.placement,
        };
        let copies = match placement {
            Placement::Mirror => nodes,
            _ => 1,
        };
        let mut packed = vec![Vec::new(); copies];
        for shard in &self.shards {
            // What goes into one piece of memory: the rows of a node. All nodes pack at the same time.
            let pieces = match placement {
                Placement::Anywhere => vec![vec![shard.clone()]],
                Placement::Distribute => self.cut(shard, packing)?,
                Placement::Mirror => (0..nodes)
                    .map(|node| Ok(vec![shard.part(shard.rows.clone(), node)?]))
                    .collect::<Result<_>>()?,
            };
            let Some(pieces) = self.kernel.pack(&pieces, packing)? else {
                return Ok(self);
            };
            for (i, mut shards) in pieces.into_iter().enumerate() {
                packed[i % copies].append(&mut shards);
            }
        }
        for shards in &mut packed {
            shards.sort_by_key(|shard| shard.rows.start);
        }
        let mut packed = packed.into_iter();
        self.shards = packed.next().unwrap_or_default();
        self.mirrors = packed.collect();
        Ok(self)
    }

    /// A shard's rows, node by node: each node's as many as its workers are, of every matrix of a stack.
    fn cut(&self, shard: &Shard, packing: &Packing<'_>) -> Result<Vec<Vec<Shard>>> {
        let (before, all) = packing.piece.unwrap_or((0, self.n()));
        let each = matrix_rows(packing.matrix_rows, all, self.grain());
        let shares = packing.team.shares(each, self.grain());
        let mut pieces = Vec::new();
        for node in 0..packing.team.nodes() {
            let share = shares.of(node);
            let mut parts = Vec::new();
            for matrix in (before / each..)
                .map(|i| i * each)
                .take_while(|first| *first < all)
            {
                let own = (matrix + share.start).saturating_sub(before)
                    ..(matrix + share.end).saturating_sub(before);
                let rows = overlap(&shard.rows, &own);
                if !rows.is_empty() {
                    parts.push(shard.part(rows, node)?);
                } else if own.start >= shard.rows.end {
                    break;
                }
            }
            if !parts.is_empty() {
                pieces.push(parts);
            }
        }
        Ok(pieces)
    }

    /// Matrices of one backend, type and depth as one: their rows one after the other. What a stream delivers in
    /// pieces. All but the last have a multiple of the kernel's grain of rows.
    ///
    /// # Errors
    /// If there are none, or they do not go together.
    pub(crate) fn join(parts: Vec<Self>) -> Result<Self> {
        let invalid = |what: String| Error::Internal { what };
        let mut parts = parts.into_iter();
        let mut whole = parts
            .next()
            .ok_or_else(|| invalid("a matrix of no parts".into()))?;
        for part in parts {
            let n = whole.n();
            if (part.ty, part.k, part.rows.start, whole.rows.start) != (whole.ty, whole.k, 0, 0)
                || !n.is_multiple_of(whole.grain())
            {
                return Err(invalid(format!(
                    "rows of {} x {} cannot follow {n} rows of {} x {}",
                    part.ty.name(),
                    part.k,
                    whole.ty.name(),
                    whole.k
                )));
            }
            whole.rows.end += part.n();
            let moved = |mut shard: Shard| {
                shard.rows = shard.rows.start + n..shard.rows.end + n;
                shard
            };
            whole.shards.extend(part.shards.into_iter().map(moved));
            for (whole, part) in whole.mirrors.iter_mut().zip(part.mirrors) {
                whole.extend(part.into_iter().map(moved));
            }
        }
        Ok(whole)
    }

    /// `n` rows of the same kind of which none is there: their shape can be bound before their bytes have come. It is
    /// not for computing, which would leave outputs as they are.
    pub(crate) fn shape_only(mut self, n: usize) -> Self {
        self.shards.clear();
        self.mirrors.clear();
        self.rows = 0..n;
        self
    }

    /// Where `n` rows of this kind would lie, and their bytes: of a matrix that was made of no rows, so that its
    /// backend has chosen.
    ///
    /// # Errors
    /// `ModelLimit` where they are more than can be addressed.
    pub(crate) fn planned(&self, n: usize) -> Result<(Storage, u64)> {
        let as_in_file = || self.ty.row_bytes(self.k).and_then(|row| row.checked_mul(n));
        let (storage, bytes) = match self.is_packed() {
            true => (Storage::Packed, self.kernel.packed_bytes(n, self.k)?),
            false => (Storage::Mapped, as_in_file()),
        };
        let bytes = bytes.ok_or_else(|| Error::ModelLimit {
            what: format!("bytes of a {n} x {} matrix", self.k),
            found: u64::MAX,
            limit: isize::MAX as u64,
        })?;
        Ok((storage, bytes as u64))
    }

    /// Whether its bytes are its own, in a kernel's layout, and not the file's.
    pub fn is_packed(&self) -> bool {
        self.shards.iter().any(|s| s.packed)
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.rows.len()
    }

    /// Depth.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Type in the file.
    pub fn ty(&self) -> GgmlType {
        self.ty
    }

    /// Bytes of the rows that this view shows, counted once where there are copies.
    pub fn bytes(&self) -> usize {
        self.shards
            .iter()
            .map(|s| overlap(&s.rows, &self.rows).len() * s.row_bytes)
            .sum()
    }

    /// The rows' memory, as it lies: in the file's layout or in panels. Of a view, that of the shards that it is in.
    pub fn data(&self) -> impl Iterator<Item = Bytes> {
        self.all_shards().map(|shard| shard.data.clone())
    }

    /// As [`Self::data`], of what is placed on a node, with that node.
    pub fn placed(&self) -> impl Iterator<Item = (usize, Bytes)> {
        self.all_shards()
            .filter_map(|shard| Some((shard.node?, shard.data.clone())))
    }

    fn all_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().chain(self.mirrors.iter().flatten())
    }

    /// Which of its outputs are computed on which node; `None` for any. The last node's end with the last output.
    pub(crate) fn shares(&self) -> Option<Shares> {
        if !self.mirrors.is_empty() {
            return None;
        }
        let last = self.shards.last()?.node?;
        let start = |node: usize| {
            let first = self.shards.iter().find(|shard| shard.node >= Some(node));
            first.map_or(self.n(), |shard| {
                shard.rows.start.max(self.rows.start) - self.rows.start
            })
        };
        Some(Shares::at(
            (0..=last).map(|node| if node == 0 { 0 } else { start(node) }),
            self.n(),
        ))
    }

    /// The form of the activations that it multiplies with.
    pub fn format(&self) -> ActFormat {
        self.kernel.format()
    }

    /// Rows per indivisible unit of work.
    pub(crate) fn grain(&self) -> usize {
        self.kernel.grain()
    }

    /// A view of some rows.
    ///
    /// # Errors
    /// If the range is not inside the matrix.
    pub fn view(&self, rows: Range<usize>) -> Result<Self> {
        if rows.start > rows.end || rows.end > self.n() {
            return Err(Error::InvalidInput {
                what: format!("rows {}..{} of a matrix of {}", rows.start, rows.end, self.n()),
            });
        }
        let rows = self.rows.start + rows.start..self.rows.start + rows.end;
        let of = |shards: &Vec<Shard>| {
            let seen = shards.iter().filter(|s| !overlap(&s.rows, &rows).is_empty());
            seen.cloned().collect()
        };
        Ok(PackedMatrix {
            ty: self.ty,
            k: self.k,
            shards: of(&self.shards),
            mirrors: self.mirrors.iter().map(of).collect(),
            rows,
            kernel: self.kernel,
        })
    }

    /// The canonical decode of one row into `out` (k long): equal to [`crate::quant::decode`] of the file's bytes.
    ///
    /// # Errors
    /// If there is no such row or `out` has another length.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        if row >= self.n() || out.len() != self.k {
            return Err(Error::InvalidInput {
                what: format!(
                    "row {row} into {} values, from a {} x {} matrix",
                    out.len(),
                    self.n(),
                    self.k
                ),
            });
        }
        let row = self.rows.start + row;
        match self.shards.iter().find(|s| s.rows.contains(&row)) {
            Some(shard) => self.kernel.decode_row(shard, row, out),
            None => Err(Error::Internal {
                what: format!("row {row} is in no shard"),
            }),
        }
    }

    /// Computes a tile of `x * self^T` by a worker of a node; the tile's columns are rows of this view.
    pub(crate) fn matmul(&self, x: &Activations<'_>, node: usize, out: &mut Tile<'_>) {
        let columns = out.columns();
        let rows = self.rows.start + columns.start..self.rows.start + columns.end;
        let mirror = node.checked_sub(1).and_then(|node| self.mirrors.get(node));
        for shard in mirror.unwrap_or(&self.shards) {
            let part = overlap(&shard.rows, &rows);
            if !part.is_empty() {
                let mut tile = out.part(part.start - rows.start..part.end - rows.start);
                self.kernel.matmul(shard, part.start, x, &mut tile);
            }
        }
    }
}

/// Rows of one matrix of a stack of `all` rows, of which each node has a part. Where they do not go into units of work
/// the stack is divided as if it were one matrix.
pub(crate) fn matrix_rows(asked: usize, all: usize, grain: usize) -> usize {
    if asked > 0 && asked < all && asked.is_multiple_of(grain) {
        asked
    } else {
        all.max(1)
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}
