//! The machines that are emulated.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use super::bochs;
use crate::debian;

/// Files of Debian's own Bochs, with their packages.
const PACKAGED: [(&str, &str); 2] = [
    ("/usr/bin/bochs", "bochs"),
    (
        "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so",
        "bochs-term",
    ),
];

/// An emulated machine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Machine {
    /// AVX-512 with VNNI, no AMX.
    IceLake,
    /// AVX-512, and AMX with tiles of bytes.
    SapphireRapids,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Machine::IceLake => "Ice Lake",
            Machine::SapphireRapids => "Sapphire Rapids",
        })
    }
}

impl Machine {
    /// The backend that is tested: the machine's best one. It must be compared, or the run has failed.
    pub(super) fn backend(self) -> &'static str {
        match self {
            Machine::IceLake => "avx512",
            Machine::SapphireRapids => "amx",
        }
    }

    /// Bochs' word for the processor, with what is left out of it.
    pub(super) fn processor(self) -> &'static str {
        match self {
            // The oldest model with VNNI beside AVX-512 F, BW, VL and DQ.
            Machine::IceLake => "model=corei7_icelake_u",
            // The compacted forms of XSAVE restore what belongs to other registers.
            Machine::SapphireRapids => "model=sapphire_rapids, exclude_features=\"xsaves,xsavec\"",
        }
    }

    /// The kernel's arguments that this machine needs beside those of all.
    pub(super) fn arguments(self) -> &'static str {
        match self {
            // Bochs 2.7 states wrong sizes for the compacted form of XSAVE and for the keys of memory protection, on
            // which the kernel gives up AVX altogether, and one of the rest breaks the kernel's entry code once it is
            // patched in.
            Machine::IceLake => {
                "clearcpuid=pku,ospke,xsaves,xsavec,xsaveopt,fsgsbase,erms,fsrm,invpcid,pcid,umip,rdpid,smap,smep,la57,mwait \
                 nofsgsbase nosmap nosmep nopcid"
            }
            // Fast string operations copy instructions that are then not noticed as modified. Page tables of five
            // levels are switched off by name: Debian's kernel does not boot with them here.
            Machine::SapphireRapids => "clearcpuid=erms,fsrm no5lvl",
        }
    }

    /// The emulator, installed or built where it is missing.
    ///
    /// # Errors
    /// It cannot be had.
    pub(super) fn emulator(self) -> Result<Emulator> {
        match self {
            Machine::IceLake => {
                debian::provide(&PACKAGED)?;
                Ok(Emulator {
                    program: "bochs".into(),
                    display: "term",
                    debugger: true,
                })
            }
            Machine::SapphireRapids => Ok(Emulator {
                program: bochs::program()?,
                display: "nogui",
                debugger: false,
            }),
        }
    }
}

/// A Bochs.
pub(super) struct Emulator {
    pub(super) program: PathBuf,
    /// A display that needs no window system; without one Bochs does not start.
    pub(super) display: &'static str,
    /// Whether it has a debugger, which waits for a command before it starts the machine.
    pub(super) debugger: bool,
}
