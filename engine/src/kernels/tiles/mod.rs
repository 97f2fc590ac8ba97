//! Products by units that multiply whole tiles (AMX), for 16 tokens and more: the way beside the register tiles of
//! [`panel`](super::panel), over the same panels in memory.
//!
//! ```text
//!   tile        what                         shape, bytes
//!   4           tokens: int8                 16 tokens x K
//!   6, 7        weights                      K / 4 quads x 16 rows x 4: as a panel is interleaved
//!   0 .. 3      sums: i32                    16 tokens x 16 rows x 4
//! ```
//!
//! Sums of a tile are exact integers, so the contract holds without a change. What they are made of differs by the
//! length of a step:
//!
//! - Steps of 256 (`steps_256`): the weight `s_g * q` as one or two digits that fit int8, so that a step is a few tile
//!   products without a scale inside.
//! - Steps of 32 and 16 (`steps_32`): a tile as deep as the step.
//!
//! `driver` has the loops, `plain` a unit in plain Rust with the same shapes and layouts, so that all of it is tested
//! on machines without such a unit.

mod driver;
mod plain;
mod steps_256;
mod steps_32;

pub(super) use plain::Plain;

use super::QuantizedBlock;
use super::isa::TileIsa;
use super::panel::Blocks;
use super::panel::floats::{Float, Floats};
use super::panel::token_tiles::Coming;

/// Rows of a tile: tokens of a tile of activations and of sums.
pub(super) const TILE_ROWS: usize = 16;

/// Bytes of a row of sums or weights: 16 lanes of 32 bits.
const ROW_BYTES: usize = 64;

/// Bytes from one token's activations to the next one's.
const STRIDE: usize = size_of::<QuantizedBlock>();

/// A unit that multiplies whole tiles. A value proves that it is there.
pub(super) trait TileUnit: Copy + Send + Sync + std::fmt::Debug + 'static {
    /// The name of the backend that has it.
    const NAME: &'static str;

    /// Its tiles, declared for a depth of K bytes.
    type Tiles<const K: usize>: Tiles;

    /// Declares them for the calling thread, until the value is dropped. No others are declared meanwhile.
    fn tiles<const K: usize>(self) -> Self::Tiles<K>;
}

/// Eight tiles: 4 for tokens, 6 and 7 for weights, the others for sums. `C` is the number of a tile of sums, `B` of one
/// of weights.
pub(super) trait Tiles {
    /// Sums begin.
    fn zero<const C: usize>(&mut self);
    /// K bytes of each of 16 tokens, a stride apart.
    fn load_tokens<const STRIDE: usize>(&mut self, x: &[u8]);
    /// K / 4 quads of 16 rows.
    fn load_weights<const B: usize>(&mut self, w: &[u8]);
    /// Writes sums.
    fn store<const C: usize>(&mut self, out: &mut TileSums);
    /// Adds the products of the tokens' bytes with the weights', both signed.
    fn dot_signed<const C: usize, const B: usize>(&mut self);
    /// The same with unsigned weights.
    fn dot_unsigned<const C: usize, const B: usize>(&mut self);
}

/// A tile of sums as it lies in memory: `[token][row]`, 32 bits each.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct TileSums(pub(super) [[u8; ROW_BYTES]; TILE_ROWS]);

impl TileSums {
    pub(super) const ZERO: TileSums = TileSums([[0; ROW_BYTES]; TILE_ROWS]);
}

/// A fill of one panel as tiles multiply it: 256 weights of 16 rows.
#[repr(C, align(64))]
pub(super) struct Weights {
    /// The weights by quads, `[quad][row]`; of steps with two digits the high ones.
    high: [[u8; ROW_BYTES]; 64],
    /// The low digits.
    low: [[u8; ROW_BYTES]; 64],
    /// The minima of two groups as 16-bit numbers, `[pair of groups][row]`.
    mins: [[u8; ROW_BYTES]; 8],
    /// The float factor, `[step][row]`.
    d: [[f32; 16]; 16],
    /// The same of the minima.
    dmin: [[f32; 16]; 16],
}

impl Weights {
    const fn new() -> Self {
        Weights {
            high: [[0; ROW_BYTES]; 64],
            low: [[0; ROW_BYTES]; 64],
            mins: [[0; ROW_BYTES]; 8],
            d: [[0.0; 16]; 16],
            dmin: [[0.0; 16]; 16],
        }
    }
}

/// Sixteen tokens: their activations of a fill, and where the sums of the two panels' rows wait.
pub(super) struct Sixteen<'a> {
    x: &'a [QuantizedBlock; TILE_ROWS],
    /// `[token][row of two panels]`.
    sums: &'a mut [[f32; 32]; TILE_ROWS],
}

/// What products of 16 tokens leave for the vector instructions: the sums of each digit and panel, or of each step.
struct Products([TileSums; 16]);

/// Products that wait: those of each panel, or those of the last 16 tokens and of the 16 before them.
pub(super) struct Waiting {
    products: [Products; 2],
    /// The place of the last 16 tokens' products, where they are both panels'.
    last: usize,
}

impl Waiting {
    const fn new() -> Self {
        Waiting {
            products: [const { Products([const { TileSums::ZERO }; 16]) }; 2],
            last: 0,
        }
    }

    /// The products of the last 16 tokens.
    fn last(&self) -> &Products {
        &self.products[self.last % 2]
    }

    /// The products of the last 16 tokens, and room for those of the next 16, which are the last ones from now on.
    #[inline(always)]
    fn next(&mut self) -> (&Products, &mut Products) {
        let [first, second] = &mut self.products;
        self.last ^= 1;
        match self.last {
            0 => (second, first),
            _ => (first, second),
        }
    }
}

/// A format, with how its products by whole tiles are made.
pub(super) trait Tiled {
    /// [`NoTiles`] where they are not.
    type ByTiles: Arithmetic;
}

impl<T: Float> Tiled for Floats<T> {
    type ByTiles = NoTiles;
}

/// The arithmetic of a format: how its weights become tiles and what is made of their products.
pub(super) trait Arithmetic {
    /// Bytes that a tile is deep; 0 where there is no way by tiles.
    const DEPTH: usize;

    /// Unpacks one fill of `n` blocks of a panel. `coming` is asked for what comes next, in
    /// [`SHARES`](super::panel::token_tiles::SHARES) for each vector of rows.
    fn unpack<I: TileIsa>(
        isa: I,
        blocks: Blocks<'_>,
        n: usize,
        weights: &mut Weights,
        coming: &mut Coming<'_>,
    );

    /// Multiplies `now` with the fill of `n` blocks of two panels. The sums of `before`, the last `now`, are complete
    /// then; those of `now` need not be.
    fn token_tile<I: TileIsa, T: Tiles>(
        isa: I,
        tiles: &mut T,
        weights: &[Weights; 2],
        n: usize,
        waiting: &mut Waiting,
        now: &[QuantizedBlock; TILE_ROWS],
        before: Option<Sixteen<'_>>,
    );

    /// Completes the sums of the last `now`, but for the first `skip` tokens, which are in the tile before as well.
    fn last_rows<I: TileIsa, T: Tiles>(
        isa: I,
        tiles: &mut T,
        weights: &[Weights; 2],
        n: usize,
        waiting: &mut Waiting,
        last: Sixteen<'_>,
        skip: usize,
    );
}

/// No way by tiles: float weights.
pub(super) struct NoTiles;

impl Arithmetic for NoTiles {
    const DEPTH: usize = 0;

    fn unpack<I: TileIsa>(_: I, _: Blocks<'_>, _: usize, _: &mut Weights, _: &mut Coming<'_>) {}

    fn token_tile<I: TileIsa, T: Tiles>(
        _: I,
        _: &mut T,
        _: &[Weights; 2],
        _: usize,
        _: &mut Waiting,
        _: &[QuantizedBlock; TILE_ROWS],
        _: Option<Sixteen<'_>>,
    ) {
    }

    fn last_rows<I: TileIsa, T: Tiles>(
        _: I,
        _: &mut T,
        _: &[Weights; 2],
        _: usize,
        _: &mut Waiting,
        _: Sixteen<'_>,
        _: usize,
    ) {
    }
}
