//! Packages of Debian and its relatives, for machines where neither rustup nor npm is there to ask.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use crate::command::{command, exists, output, run};

/// Installs `packages`. Only root does; anyone else is told the command.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
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
    update()?;
    run(command("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages))
}

/// Installs the packages of those files that are not there.
pub(crate) fn provide(needed: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = needed
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Fetches the lists of packages, once in a run.
fn update() -> Result<()> {
    static UPDATED: AtomicBool = AtomicBool::new(false);

    if UPDATED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    run(command("apt-get").args(["update", "-qq"]))
}

/// The first package whose name begins with `prefix` among those that `package` depends on.
pub(crate) fn dependency(package: &str, prefix: &str) -> Result<String> {
    if output(command("id").arg("-u"))? == "0" {
        update()?;
    }
    output(command("apt-cache").args(["depends", package]))?
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .with_context(|| format!("{package} depends on no package {prefix}*"))
}

/// Downloads a package and unpacks its files below `directory`; nothing is installed, and anyone can do it.
pub(crate) fn unpack(package: &str, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    println!("downloading the Debian package {package}");
    // Its sandbox's user may write to no directory of ours.
    run(command("apt-get").current_dir(directory).args([
        "-qq",
        "-o",
        "APT::Sandbox::User=root",
        "download",
        package,
    ]))?;
    let file = directory
        .read_dir()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no package in {}", directory.display()))?;
    run(command("dpkg-deb").arg("-x").arg(&file).arg(directory))?;
    std::fs::remove_file(&file)?;
    Ok(())
}
