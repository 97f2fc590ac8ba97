//! Packages of Debian and its relatives, for machines where neither rustup nor npm is there to ask.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

use crate::command::{command, exists, output, run};

/// Installs `packages`. Only root does; anyone else is told the command.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    static UPDATED: AtomicBool = AtomicBool::new(false);

    let wanted = packages.join(" ");
    if !exists("apt-get") {
        bail!("this machine lacks {wanted} (Debian's names) and has no apt-get to install them with");
    }
    if output(command("id").arg("-u"))? != "0" {
        bail!(
            "packages are missing; install them with: sudo apt-get install --no-install-recommends {wanted}"
        );
    }
    println!("installing Debian packages: {wanted}");
    if !UPDATED.swap(true, Ordering::Relaxed) {
        run(command("apt-get").args(["update", "-qq"]))?;
    }
    run(command("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages))
}
