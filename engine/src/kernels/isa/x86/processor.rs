//! What is chosen by processor, where instructions alone do not tell what is faster.

use std::arch::x86_64::__cpuid;
use std::sync::OnceLock;

/// The choices for a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Processor {
    /// A number that goes from memory to all lanes of a register takes a multiplier's or an adder's place: on Zen 4
    /// (AMD's family 25), which computes with 512 bits in two halves.
    pub(super) splats_cost: bool,
    /// Weights that are read once are prefetched to the second-level cache: on Intel's, which keep 48 lines on their
    /// way to that cache but 16 to the first one. A prefetch that finds no place holds up what comes after it. Measured
    /// on a Xeon with AMX, `docs/kernels.md`; other processors of Intel were not at hand.
    pub(super) prefetch_to_l2: bool,
}

impl Processor {
    /// Those for this machine.
    pub(super) fn of_machine() -> Self {
        static MACHINE: OnceLock<Processor> = OnceLock::new();
        *MACHINE.get_or_init(|| {
            let vendor = __cpuid(0);
            let vendor = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
            let family = __cpuid(1).eax >> 8;
            Self::of(vendor.as_flattened(), (family & 0xf) + (family >> 12 & 0xff))
        })
    }

    fn of(vendor: &[u8], family: u32) -> Self {
        Processor {
            splats_cost: vendor == b"AuthenticAMD" && family == 25,
            prefetch_to_l2: vendor == b"GenuineIntel",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices() {
        let choices = |vendor: &[u8], family| {
            let p = Processor::of(vendor, family);
            (p.splats_cost, p.prefetch_to_l2)
        };
        assert_eq!(choices(b"AuthenticAMD", 23), (false, false));
        assert_eq!(choices(b"AuthenticAMD", 25), (true, false));
        assert_eq!(choices(b"AuthenticAMD", 26), (false, false));
        assert_eq!(choices(b"GenuineIntel", 6), (false, true));
        assert_eq!(choices(b"HygonGenuine", 24), (false, false));
        assert_eq!(Processor::of_machine(), Processor::of_machine());
    }
}
