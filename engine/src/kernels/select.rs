//! Which backends exist, which of them this machine can run, and which one is taken. The only file that names them all.

use super::Backend;
use super::scalar::Scalar;
use crate::{Error, Result};

/// Every backend that this build knows and this machine can run, best first.
pub fn available() -> &'static [&'static dyn Backend] {
    &[&Scalar]
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
