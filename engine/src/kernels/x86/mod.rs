//! x86-64: AVX-512 with VNNI, and AVX2. The intrinsics that [`Isa`](super::shared::isa::Isa) is made of, and nothing else:
//! the kernels are in `shared`.
//!
//! All unsafe code of these backends is here: an intrinsic may run only where the machine has it, which the value of the
//! type proves ([`isa!`]: detection alone makes one), and loads and stores stay inside the slice that is checked first.
#![allow(unsafe_code)]

mod avx2;
mod avx512;
mod peak;

pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;

/// The type that stands for an instruction set: one list of features for its detection and for the functions that use it.
macro_rules! isa {
    ($(#[$doc:meta])* $name:ident: $($feature:tt)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(in crate::kernels) struct $name(());

        impl $name {
            /// The value, where this machine has every feature.
            pub(in crate::kernels) fn detect() -> Option<Self> {
                ($(std::arch::is_x86_feature_detected!($feature))&&+).then_some($name(()))
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

        $(#[target_feature(enable = $feature)])+
        fn enter<O: Op<$name>>(isa: $name, op: O) -> O::Output {
            op.run(isa)
        }
    };
}
use isa;
