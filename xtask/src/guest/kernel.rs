//! Debian's small kernel for virtual machines.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{debian, root};

/// The package that depends on the newest one.
const KERNEL: &str = "linux-image-cloud-amd64";

/// The kernel's file, downloaded where it is missing.
///
/// # Errors
/// There is no such package, or it cannot be downloaded.
pub(crate) fn kernel() -> Result<PathBuf> {
    // Unpacked and not installed: a kernel's installation makes an initramfs and a boot menu, which nobody wants here.
    let directory = root().join("target/kernel");
    let find = || {
        let kernels = directory.join("boot").read_dir().ok()?;
        kernels
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().contains("/vmlinuz-"))
    };
    if let Some(kernel) = find() {
        return Ok(kernel);
    }
    debian::unpack(&debian::dependency(KERNEL, "linux-image-")?, &directory)?;
    find().with_context(|| format!("the package behind {KERNEL} holds no vmlinuz"))
}
