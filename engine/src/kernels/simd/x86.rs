//! What the x86 backends choose: blocks written out, memory brought along by prefetches beside the arithmetic, few tokens row by
//! row where a type has no panel layout.

use crate::kernels::MatmulKernel;
use crate::kernels::isa::x86::{Avx2, Avx512, Enter};
use crate::kernels::panel::drivers::NoReads;
use crate::kernels::panel::one_token::FEW;
use crate::kernels::panel::steps_256::{Layout, in_vectors};
use crate::kernels::panel::{Blocks, Drivers, Input, ROWS, ReadAhead};
use crate::kernels::rows::FewTokens;

impl<const VNNI: bool> Drivers for Avx2<VNNI>
where
    Self: Enter,
{
    type Ahead<'a> = NoReads;

    const ONE_BY_ONE: usize = FEW;

    #[inline(always)]
    fn block_of_256<L: Layout, A: ReadAhead<Self>>(
        self,
        blocks: Blocks<'_>,
        ahead: A,
        x: &Input<'_>,
        acc: &mut [f32; ROWS],
    ) {
        in_vectors::<Self, L, A>(self, blocks, ahead, x, acc);
    }

    fn without_layout<K: MatmulKernel>(self, unpacking: K) -> impl MatmulKernel + use<VNNI, K> {
        FewTokens::new(self, unpacking)
    }

    type Floats = Self;

    fn floats(self) -> Option<Self> {
        None
    }
}

impl<const SPLAT: bool> Drivers for Avx512<SPLAT>
where
    Self: Enter,
{
    type Ahead<'a> = NoReads;

    // By the count of instructions: a tile of four saves more here than with AVX2.
    const ONE_BY_ONE: usize = 3;

    #[inline(always)]
    fn block_of_256<L: Layout, A: ReadAhead<Self>>(
        self,
        blocks: Blocks<'_>,
        ahead: A,
        x: &Input<'_>,
        acc: &mut [f32; ROWS],
    ) {
        in_vectors::<Self, L, A>(self, blocks, ahead, x, acc);
    }

    fn without_layout<K: MatmulKernel>(self, unpacking: K) -> impl MatmulKernel + use<SPLAT, K> {
        FewTokens::new(self, unpacking)
    }

    type Floats = Avx512<true>;

    #[inline(always)]
    fn floats(self) -> Option<Avx512<true>> {
        self.with_splats()
    }
}
