//! x86-64: AVX-512 with VNNI, AVX2, AVX2 with VNNI, and AMX. The intrinsics that [`Isa`] is made of, the instructions
//! on tiles, what is chosen by processor, and the loops that measure peak rates; the kernels are elsewhere.
//!
//! All unsafe code of these backends is here. What reads or writes memory says beside it why it stays within a slice.
//! These macros hold the rest:
//!
//! | macro | what is unsafe in it | why it is right |
//! |---|---|---|
//! | [`isa!`] | the call of the function that enables the instruction set | the value it is called with is made by detection alone |
//! | `op!` in `avx2`, `avx512` | intrinsics on registers | they run in methods of such a value, and ask for nothing but the features |
//! | `tile_op!` in `amx` | instructions on tiles, as text; four of them read or write memory, each with its reason beside it | tiles are declared while a value of `Declared` exists, which only detection leads to |
//! | `op!`, `opaque!` in `peak` | intrinsics on registers, functions that enable the instructions; an empty `asm!` | the same; it has no instruction |
#![allow(unsafe_code)]

mod amx;
mod avx2;
mod avx512;
mod peak;
mod processor;

pub(in crate::kernels) use amx::Amx;
pub(in crate::kernels) use avx2::Avx2;
pub(in crate::kernels) use avx512::Avx512;

use super::{Isa, Op, lane_shuffle};

/// [`Isa::factor`]'s shuffles for 32-bit products: the byte at the bottom, or at the top for sign extension.
const fn byte_to_i32(j: usize, sign_extend: bool) -> [u8; 16] {
    if sign_extend {
        lane_shuffle([0x80, 0x80, 0x80, j as u8])
    } else {
        lane_shuffle([j as u8, 0x80, 0x80, 0x80])
    }
}

/// Runs work with an instruction set enabled.
pub(in crate::kernels) trait Enter: Sized {
    /// Runs `op` in a function whose features are those of the instruction set.
    fn enter<O: Op<Self>>(self, op: O) -> O::Output
    where
        Self: Isa;
}

/// A type that stands for an instruction set: one list of features for its detection and for the function that uses it.
/// Others that stand for the same instructions may follow.
macro_rules! isa {
    ($features:tt $name:ty, $enter:ident $(; $same:ty, $enter_same:ident)*) => {
        isa!(@detect $features $name);
        isa!(@enter $features $name, $enter);
        $(isa!(@enter $features $same, $enter_same);)*
    };
    (@detect [$($feature:tt)+] $name:ty) => {
        impl $name {
            /// The value, where this machine has every feature.
            pub(in crate::kernels) fn detect() -> Option<Self> {
                ($(std::arch::is_x86_feature_detected!($feature))&&+).then_some(Self(()))
            }

            /// The features that this machine lacks.
            pub(in crate::kernels) fn lacking() -> Vec<&'static str> {
                let mut lacking = Vec::new();
                $(if !std::arch::is_x86_feature_detected!($feature) {
                    lacking.push($feature);
                })+
                lacking
            }
        }
    };
    (@enter [$($feature:tt)+] $name:ty, $enter:ident) => {
        impl Enter for $name {
            #[inline(always)]
            fn enter<O: Op<Self>>(self, op: O) -> O::Output {
                // SAFETY: `self` proves the features.
                unsafe { $enter(self, op) }
            }
        }

        $(#[target_feature(enable = $feature)])+
        fn $enter<O: Op<$name>>(isa: $name, op: O) -> O::Output {
            op.run(isa)
        }
    };
}
use isa;
