//! Which backends exist, which of them this machine can run, and which one is taken. The only file that names them all.

use std::sync::OnceLock;

use super::Backend;
use super::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use super::{
    shared::{backend::backend, isa::Isa},
    x86,
};
use crate::{Error, Result};

/// Every backend that this build knows, best first: its name, and the backend where this machine can run it.
fn known() -> &'static [(&'static str, Option<&'static dyn Backend>)] {
    static KNOWN: OnceLock<Vec<(&'static str, Option<&'static dyn Backend>)>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let mut all: Vec<(&'static str, Option<&'static dyn Backend>)> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.push((x86::Avx512::NAME, x86::Avx512::detect().map(backend)));
            all.push((x86::Avx2::NAME, x86::Avx2::detect().map(backend)));
        }
        all.push((Scalar.name(), Some(&Scalar)));
        all
    })
}

/// Every backend that this build knows and this machine can run, best first.
pub fn available() -> &'static [&'static dyn Backend] {
    static AVAILABLE: OnceLock<Vec<&'static dyn Backend>> = OnceLock::new();
    AVAILABLE.get_or_init(|| known().iter().filter_map(|(_, backend)| *backend).collect())
}

/// Names of the backends that this build knows and this machine lacks the instructions for.
pub fn missing() -> impl Iterator<Item = &'static str> {
    known()
        .iter()
        .filter(|(_, backend)| backend.is_none())
        .map(|(name, _)| *name)
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
