//! The peak rates of WebAssembly's vectors.

use std::arch::wasm32::*;

use super::{F, Wasm, lanes, load};
use crate::kernels::functions::Lanes;
use crate::kernels::isa::Isa;
use crate::kernels::peak::simd::Peak;
use crate::kernels::peak::{Done, LINE};

impl<const RELAXED: bool> Peak for Wasm<RELAXED>
where
    Self: Isa<V = v128, F = F>,
{
    type Sums = [v128; 4];

    #[inline(always)]
    fn sums(self) -> Self::Sums {
        [u32x4_splat(0); 4]
    }

    #[inline(always)]
    fn add_line<const NARROW: bool>(self, sums: &mut Self::Sums, line: &[u8; LINE]) {
        for (sum, part) in sums.iter_mut().zip(line.as_chunks::<16>().0) {
            *sum = i32x4_add(*sum, load(part));
        }
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> u32 {
        sums.into_iter()
            .flat_map(lanes)
            .fold(0, |total, lane| total.wrapping_add(lane))
    }

    #[inline(always)]
    fn dots(self, rounds: usize) -> Done {
        let mut sums = [u32x4_splat(0); 4];
        for _ in 0..rounds {
            // Looked at anew in each round, so that nothing is computed in advance.
            let w = std::hint::black_box(u8x16_splat(3));
            for sum in &mut sums {
                let mut group = u32x4_splat(0);
                for _ in 0..8 {
                    group = self.dot(group, w, self.activations(&[[5; 4]; 4], 0));
                }
                *sum = self.add_group(*sum, group, false);
            }
        }
        Done {
            operations: (rounds * 4 * 8 * 16) as u64,
            checksum: self.total(sums).into(),
        }
    }

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> Done {
        let mut sums = [F(f32x4_splat(0.0)); 8];
        for _ in 0..rounds {
            let a = F(std::hint::black_box(f32x4_splat(0.5)));
            for sum in &mut sums {
                *sum = sum.add(a.mul(F(f32x4_splat(2.0))));
            }
        }
        Done {
            operations: (rounds * 8 * 4) as u64,
            checksum: sums
                .iter()
                .flat_map(|sum| lanes(sum.0))
                .fold(0, |total, lane| total + f32::from_bits(lane) as u64),
        }
    }
}
