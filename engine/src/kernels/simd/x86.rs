//! What the x86 backends choose: blocks written out, weights prefetched beside the arithmetic, few tokens row by row
//! where a type has no panel layout.

use crate::kernels::MatmulKernel;
use crate::kernels::isa::x86::{Avx2, Avx512, Enter};
use crate::kernels::panel::drivers::NoReads;
use crate::kernels::panel::one_token::FEW;
use crate::kernels::panel::steps_256::{Layout, in_vectors};
use crate::kernels::panel::{Blocks, Drivers, Input, ROWS, ReadAhead};
use crate::kernels::rows::FewTokens;

impl<const VNNI: bool, const L2: bool> Drivers for Avx2<VNNI, L2>
where
    Self: Enter,
    Avx2<VNNI, true>: Enter,
{
    type Ahead<'a> = NoReads;

    const ONE_BY_ONE: usize = FEW;
    const BY_FOURS: bool = false;

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

    fn without_layout<K: MatmulKernel>(self, unpacking: K) -> impl MatmulKernel + use<VNNI, L2, K> {
        FewTokens::new(self, unpacking)
    }

    type Floats = Self;

    fn floats(self) -> Option<Self> {
        None
    }

    type IntoL2 = Avx2<VNNI, true>;

    #[inline(always)]
    fn into_l2(self) -> Option<Avx2<VNNI, true>> {
        self.into_l2()
    }
}

impl<const SPLAT: bool, const L2: bool> Drivers for Avx512<SPLAT, L2>
where
    Self: Enter,
    Avx512<SPLAT, true>: Enter,
    Avx512<true, L2>: Enter,
{
    type Ahead<'a> = NoReads;

    // By the count of instructions: a tile of four saves more here than with AVX2.
    const ONE_BY_ONE: usize = 3;
    const BY_FOURS: bool = true;

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

    fn without_layout<K: MatmulKernel>(self, unpacking: K) -> impl MatmulKernel + use<SPLAT, L2, K> {
        FewTokens::new(self, unpacking)
    }

    type Floats = Avx512<true, L2>;

    #[inline(always)]
    fn floats(self) -> Option<Avx512<true, L2>> {
        self.with_splats()
    }

    type IntoL2 = Avx512<SPLAT, true>;

    #[inline(always)]
    fn into_l2(self) -> Option<Avx512<SPLAT, true>> {
        self.into_l2()
    }
}
