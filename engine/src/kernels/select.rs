//! Which backends exist, which of them this machine can run, and which one is taken. The only file that names them all.

use std::sync::OnceLock;

use super::Backend;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::isa::wasm::Wasm;
#[cfg(target_arch = "x86_64")]
use super::isa::x86;
use super::scalar::Scalar;
#[cfg(any(target_arch = "x86_64", target_feature = "simd128"))]
use super::{isa::Isa, simd::backend};
use crate::{Error, Result};

/// A backend that this build knows.
#[derive(Debug)]
pub struct Known {
    /// The name that `--backend` takes.
    pub name: &'static str,
    /// The backend, where this machine can run it.
    pub backend: Option<&'static dyn Backend>,
    /// The CPU features that it needs and this machine lacks.
    pub lacking: Vec<&'static str>,
}

/// Every backend that this build knows, best first.
pub fn known() -> &'static [Known] {
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.push(Known {
                name: x86::Avx512::<false>::NAME,
                backend: x86::Avx512::<false>::detect().map(backend),
                lacking: x86::Avx512::<false>::lacking(),
            });
            all.push(Known {
                name: x86::Avx2::<true>::NAME,
                backend: x86::Avx2::<true>::detect().map(backend),
                lacking: x86::Avx2::<true>::lacking(),
            });
            all.push(Known {
                name: x86::Avx2::<false>::NAME,
                backend: x86::Avx2::<false>::detect().map(backend),
                lacking: x86::Avx2::<false>::lacking(),
            });
        }
        // What the module holds its engine can run.
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        {
            #[cfg(feature = "relaxed-simd")]
            all.push(Known {
                name: Wasm::<true>::NAME,
                backend: Some(backend(Wasm::<true>)),
                lacking: Vec::new(),
            });
            all.push(Known {
                name: Wasm::<false>::NAME,
                backend: Some(backend(Wasm::<false>)),
                lacking: Vec::new(),
            });
        }
        all.push(Known {
            name: Scalar.name(),
            backend: Some(&Scalar),
            lacking: Vec::new(),
        });
        all
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
        Some(name) => all.iter().copied().find(|b| b.name() == name).ok_or_else(|| {
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
