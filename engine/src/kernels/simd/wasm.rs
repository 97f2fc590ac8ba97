//! What the WebAssembly backends choose: blocks of 256 weights line by line where their layout allows it, weights
//! prefetched by reading a byte of each line, rows of types without a layout always unpacked.

use crate::kernels::MatmulKernel;
use crate::kernels::isa::wasm::{Run, Wasm};
use crate::kernels::panel::lines_256::in_lines;
use crate::kernels::panel::reads::ByReading;
use crate::kernels::panel::steps_256::{Layout, in_vectors};
use crate::kernels::panel::{Blocks, Drivers, Input, ROWS, ReadAhead};
use crate::quant::GgmlType;

/// Whether the bits of all quads that are a multiple of `SHARED * RUN` apart are taken from their words in the same way, so that one
/// piece of code does them in a loop. Of a word with fifth bits (q5_k) or top bits (q3_k) each quad takes another.
const fn takes_loops(ty: GgmlType) -> bool {
    !matches!(ty, GgmlType::Q5_K | GgmlType::Q3_K)
}

impl<const RELAXED: bool> Drivers for Wasm<RELAXED>
where
    Self: Run,
{
    type Ahead<'a> = ByReading<'a>;

    const ONE_BY_ONE: usize = 1;
    const BY_FOURS: bool = false;

    #[inline(always)]
    fn block_of_256<L: Layout, A: ReadAhead<Self>>(
        self,
        blocks: Blocks<'_>,
        ahead: A,
        x: &Input<'_>,
        acc: &mut [f32; ROWS],
    ) {
        if takes_loops(L::TYPE) {
            in_lines::<Self, L, A>(self, blocks, ahead, x, acc);
        } else {
            in_vectors::<Self, L, A>(self, blocks, ahead, x, acc);
        }
    }

    fn without_layout<K: MatmulKernel>(self, unpacking: K) -> impl MatmulKernel + use<RELAXED, K> {
        unpacking
    }

    type Floats = Self;

    fn floats(self) -> Option<Self> {
        None
    }

    type IntoL2 = Self;

    fn into_l2(self) -> Option<Self> {
        None
    }
}
