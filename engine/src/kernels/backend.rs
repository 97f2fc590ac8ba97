//! What a backend provides: the operations of a forward pass, and the matrix kernel that a packed weight carries.

use std::ops::Range;

use super::{ActFormat, Activations, KvBlock, PackedMatrix, Partials, Queries, matrix};
use crate::Result;
use crate::memory::{Bytes, Heap, Memory};
use crate::quant::GgmlType;
use crate::team::{Team, Tile};

/// One way to compute. All methods give the same bits on every backend.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// The name `--backend` takes.
    fn name(&self) -> &'static str;

    /// Makes a weight matrix of `n` rows of `k` ready to compute with, from GGUF bytes.
    ///
    /// `packing` says whether it is copied, by whom and into which memory.
    ///
    /// # Errors
    /// If the type is not a weight type or the bytes do not fit the shape.
    fn pack(
        &self,
        ty: GgmlType,
        n: usize,
        k: usize,
        bytes: Bytes,
        packing: &Packing<'_>,
    ) -> Result<PackedMatrix>;

    /// Quantizes one row to int8: `q` (k), `d` (one per step), `sums` (one per 16 values). False if a value is not
    /// finite.
    fn quantize(&self, step: usize, x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) -> bool;

    /// `out = x / rms(x) * weight`, over one row of the weight's length or several.
    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);

    /// `out = (x - mean(x)) / deviation(x) * weight`, and `+ bias` where there is one, over one row of the weight's
    /// length or several.
    fn layer_norm(&self, x: &[f32], weights: (&[f32], Option<&[f32]>), eps: f32, out: &mut [f32]);

    /// `x += y`.
    fn add(&self, x: &mut [f32], y: &[f32]);

    /// `x += scale * y`: a product, then a sum.
    fn add_scaled(&self, x: &mut [f32], y: &[f32], scale: f32);

    /// `gate = f(gate) * up`; see [`Activation`] for those that do something else with `up`.
    fn gate(&self, f: Activation, gate: &mut [f32], up: &[f32]);

    /// `x = f(x)`: what [`Self::gate`] makes with ones for `up`.
    fn activate(&self, f: Activation, x: &mut [f32]);

    /// Rotates the first `2 * cos.len()` values of `head` by the angles given as cosines and sines.
    fn rotate(&self, kind: RopeKind, head: &mut [f32], cos: &[f32], sin: &[f32]);

    /// One position of a depthwise convolution, for at most [`CONV_WIDTH`](super::CONV_WIDTH) channels: `out` = the
    /// products of the inputs before, the oldest first, and of `x` with their `taps`, summed, then `+ bias`. `recent`
    /// has the inputs before in rows of `CONV_WIDTH` and becomes what the next position finds; `taps` is a row longer.
    fn conv_row(&self, recent: &mut [f32], x: &[f32], taps: &[f32], bias: Option<&[f32]>, out: &mut [f32]);

    /// One position of the gated delta rule, for some columns of a head's state (a row per number of `q` and `k`): the
    /// state decays, gives up what it answers to `k`, and takes `v` for it, by a share of beta; `out` = what it then
    /// answers to `q`. The gates are the decay and beta.
    fn delta_row(&self, state: &mut [f32], qkv: (&[f32], &[f32], &[f32]), gates: (f32, f32), out: &mut [f32]);

    /// One position of a selective state space, for some columns of a head's state (a row per number of `b` and `c`):
    /// the state decays and takes `b` times `x * dt`; `out` = what it answers to `c`, and `+ skip * x`. The gates are
    /// the decay, dt and skip.
    fn scan_row(
        &self,
        state: &mut [f32],
        bcx: (&[f32], &[f32], &[f32]),
        gates: (f32, f32, f32),
        out: &mut [f32],
    );

    /// A tile of queries against one block of the cache: each block's softmax state is made from zero and joined to
    /// `sum`, which covers earlier positions. `visible` has per token the range of positions within the block that it
    /// sees; a token with an empty one takes no part. `scratch` is [`attend_scratch`](super::attend_scratch) long.
    fn attend(
        &self,
        queries: &Queries<'_>,
        visible: &[Range<usize>],
        block: &KvBlock<'_>,
        sum: &mut Partials<'_>,
        scratch: &mut [f32],
    );

    /// Joins `later`, which is not changed, to `sum`, which covers earlier positions.
    fn merge(&self, sum: &mut Partials<'_>, later: &Partials<'_>);

    /// Rounds to half precision, to nearest even. False if a number is not finite then.
    fn to_halves(&self, x: &[f32], out: &mut [u16]) -> bool;
}

/// Where weights lie. The numbers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// What is fastest to compute with: packed where the backend has a layout for the type.
    #[default]
    Auto,
    /// Copied once into the backend's layout. Types without one, and the scalar backend, stay mapped.
    Packed,
    /// The file's bytes as they are: nothing is copied, kernels unpack as they go.
    Mapped,
}

/// On which nodes' memory packed weights lie, for a team on several nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// On any: where the workers that happen to pack them are.
    #[default]
    Anywhere,
    /// Each node has the rows that its workers multiply with.
    Distribute,
    /// Each node has all of them.
    Mirror,
}

/// How weights are made ready: whether they are copied, by whom, and into which memory.
#[derive(Debug, Clone, Copy)]
pub struct Packing<'a> {
    /// Whether.
    pub storage: Storage,
    /// On which nodes.
    pub placement: Placement,
    /// The rows before these, and the rows of the whole matrix, where it comes in pieces.
    pub piece: Option<(usize, usize)>,
    /// Rows that are multiplied with at a time: of each of the matrices that lie one after the other in a stack, 0
    /// where they are one matrix. Each node has a part of those.
    pub matrix_rows: usize,
    /// By whom: its workers share the rows, and whoever writes to a page first places it.
    pub team: &'a Team,
    /// Into which memory.
    pub memory: &'a dyn Memory,
}

impl<'a> Packing<'a> {
    /// Into memory of the heap.
    pub fn on_heap(storage: Storage, team: &'a Team) -> Self {
        Packing {
            storage,
            placement: Placement::Anywhere,
            piece: None,
            matrix_rows: 0,
            team,
            memory: &Heap,
        }
    }
}

/// A matrix kernel: what a [`PackedMatrix`] carries.
pub(crate) trait MatmulKernel: Send + Sync + std::fmt::Debug {
    /// The form of the activations that it multiplies with.
    fn format(&self) -> ActFormat;

    /// Rows of the weight per indivisible unit of work.
    fn grain(&self) -> usize;

    /// Computes the tile: for each of its rows (tokens) and columns (outputs) one dot product over k.
    /// `first_row` is the weight row of the tile's first column, counted over the whole matrix.
    fn matmul(&self, weight: &matrix::Shard, first_row: usize, x: &Activations<'_>, out: &mut Tile<'_>);

    /// Bytes that `n` rows of `k` take in this kernel's own layout, as [`Self::pack`] allocates them; `None` where it
    /// has none.
    fn packed_bytes(&self, _n: usize, _k: usize) -> Result<Option<usize>> {
        Ok(None)
    }

    /// The rows of mapped shards of one matrix in this kernel's own layout, a shard of each, those of an inner list in
    /// one piece of memory; `None` where it has none. There is one list of shards on no node, or one of each node that
    /// has some, and the nodes work at the same time.
    fn pack(
        &self,
        _mapped: &[Vec<matrix::Shard>],
        _: &Packing<'_>,
    ) -> Result<Option<Vec<Vec<matrix::Shard>>>> {
        Ok(None)
    }

    /// The canonical decode of one row.
    fn decode_row(&self, weight: &matrix::Shard, row: usize, out: &mut [f32]) -> Result<()>;
}

/// The function of a gate, or of a feed-forward part without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// The tanh form of GELU.
    Gelu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The square of what is positive; 0 elsewhere.
    SquaredRelu,
    /// gpt-oss's: `g * sigmoid(1.702 g) * (u + 1)` with `g` at most 7 and `u` within -7..=7.
    SwigluOai,
}

/// How the rotated pairs lie in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeKind {
    /// Pairs (2i, 2i + 1): GGUF's llama family, whose q and k rows are permuted for it.
    Interleaved,
    /// Pairs (i, i + d/2): "neox".
    Halves,
}
