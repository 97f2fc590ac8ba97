//! Which backends exist, which of them this machine can run, and which one is taken. The only file that names them all.

use std::sync::OnceLock;

use super::Backend;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::isa::wasm::Wasm;
#[cfg(target_arch = "x86_64")]
use super::isa::x86::{Amx, Avx2, Avx512};
#[cfg(any(target_arch = "x86_64", target_feature = "simd128"))]
use super::panel::token_tiles::InRegisters;
use super::peak::{self, Exercise};
use super::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use super::tiles::Plain;
use crate::{Error, Result};

/// A backend that this build knows.
#[derive(Debug)]
pub struct Known {
    /// The name that `--backend` takes.
    pub name: &'static str,
    /// The backend, where this machine can run it.
    pub backend: Option<&'static dyn Backend>,
    /// Work at its instructions' peak rate, where this machine can run it.
    pub peak: Option<&'static dyn Exercise>,
    /// The CPU features that it needs and this machine lacks.
    pub lacking: Vec<&'static str>,
}

#[cfg(any(target_arch = "x86_64", target_feature = "simd128"))]
impl Known {
    /// The backend of an instruction set, which is there if there is a value of it.
    fn new<I: super::panel::Drivers + super::peak::simd::Peak>(
        isa: Option<I>,
        lacking: Vec<&'static str>,
    ) -> Self {
        Known {
            name: I::NAME,
            backend: isa.map(|isa| super::simd::backend(isa, InRegisters)),
            peak: isa.map(super::peak::simd::exercise),
            lacking,
        }
    }
}

/// AVX-512, and the tiles of AMX for many tokens.
#[cfg(target_arch = "x86_64")]
fn amx() -> Known {
    let isa = Avx512::<false>::detect();
    let mut lacking = Avx512::<false>::lacking();
    // Without AVX-512 the system is not asked for tiles.
    let unit = isa.and_then(|_| Amx::detect());
    lacking.extend(isa.map_or_else(Vec::new, |_| Amx::lacking()));
    Known {
        name: "amx",
        backend: isa.zip(unit).map(|(isa, unit)| super::simd::backend(isa, unit)),
        peak: isa
            .zip(unit)
            .map(|(isa, unit)| peak::tiles::exercise(peak::simd::exercise(isa), unit)),
        lacking,
    }
}

/// The driver of whole tiles with the unit in plain Rust, on AVX2: to test it where there is no such unit. It is not
/// among the [`known`] ones, since it is slow: [`choose`] returns it for its name only, never for `auto`.
#[cfg(target_arch = "x86_64")]
pub fn plain_tiles() -> Option<&'static dyn Backend> {
    static PLAIN: OnceLock<Option<&'static dyn Backend>> = OnceLock::new();
    *PLAIN.get_or_init(|| Some(super::simd::backend(Avx2::<false>::detect()?, Plain)))
}

/// There is none elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub fn plain_tiles() -> Option<&'static dyn Backend> {
    None
}

/// Every backend that this build knows, best first.
pub fn known() -> &'static [Known] {
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        vec![
            #[cfg(target_arch = "x86_64")]
            amx(),
            #[cfg(target_arch = "x86_64")]
            Known::new(Avx512::<false>::detect(), Avx512::<false>::lacking()),
            #[cfg(target_arch = "x86_64")]
            Known::new(Avx2::<true>::detect(), Avx2::<true>::lacking()),
            #[cfg(target_arch = "x86_64")]
            Known::new(Avx2::<false>::detect(), Avx2::<false>::lacking()),
            // What the module holds its engine can run.
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128", feature = "relaxed-simd"))]
            Known::new(Some(Wasm::<true>), Vec::new()),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Known::new(Some(Wasm::<false>), Vec::new()),
            Known {
                name: Scalar.name(),
                backend: Some(&Scalar),
                peak: Some(&peak::Plain),
                lacking: Vec::new(),
            },
        ]
    })
}

/// Every backend that this build knows and this machine can run, best first.
pub fn available() -> &'static [&'static dyn Backend] {
    static AVAILABLE: OnceLock<Vec<&'static dyn Backend>> = OnceLock::new();
    AVAILABLE.get_or_init(|| known().iter().filter_map(|known| known.backend).collect())
}

/// Names of the backends that this build knows and this machine lacks the instructions for.
pub fn missing() -> impl Iterator<Item = &'static str> {
    known()
        .iter()
        .filter(|known| known.backend.is_none())
        .map(|known| known.name)
}

/// The backend of that name, or the best one where no name is given.
///
/// # Errors
/// [`Error::InvalidInput`] that lists the available names.
pub fn choose(name: Option<&str>) -> Result<&'static dyn Backend> {
    let all = available();
    match name {
        None | Some("auto") => Ok(all[0]),
        Some(name) => all
            .iter()
            .copied()
            .chain(plain_tiles())
            .find(|b| b.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = all.iter().map(|b| b.name()).collect();
                Error::InvalidInput {
                    what: format!(
                        "backend `{name}` is not available here; available: auto, {}",
                        names.join(", ")
                    ),
                }
            }),
    }
}

/// Work at the peak rate of a backend's instructions; plain loops for one that is not listed here.
pub fn peak(backend: &dyn Backend) -> &'static dyn Exercise {
    let of_it = known().iter().find(|known| known.name == backend.name());
    of_it.and_then(|known| known.peak).unwrap_or(&peak::Plain)
}
