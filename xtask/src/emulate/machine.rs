//! The machines that are emulated.

use clap::ValueEnum;

/// An emulated machine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Machine {
    /// AVX2 with VNNI, no AVX-512.
    ArrowLake,
    /// AVX-512 with VNNI, no AMX.
    IceLake,
    /// AVX-512, and AMX with tiles of bytes.
    SapphireRapids,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Machine::ArrowLake => "Arrow Lake",
            Machine::IceLake => "Ice Lake",
            Machine::SapphireRapids => "Sapphire Rapids",
        })
    }
}

impl Machine {
    /// The backend that is tested: the machine's best one. It must be compared, or the run has failed.
    pub(super) fn backend(self) -> &'static str {
        match self {
            Machine::ArrowLake => "avx-vnni",
            Machine::IceLake => "avx512",
            Machine::SapphireRapids => "amx",
        }
    }

    /// Bochs' word for the processor, without what it does not emulate well enough for Linux: the compacted forms of
    /// XSAVE restore what belongs to other registers.
    pub(super) fn processor(self) -> String {
        let model = match self {
            Machine::ArrowLake => "arrow_lake",
            // The oldest model with VNNI beside AVX-512 F, BW, VL and DQ.
            Machine::IceLake => "corei7_icelake_u",
            Machine::SapphireRapids => "sapphire_rapids",
        };
        format!("model={model}, exclude_features=\"xsaves,xsavec\"")
    }
}
