//! Packages of Debian and its relatives, for machines where neither rustup nor npm is there to ask.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use crate::command::{command, exists, output, run};

/// The keys of Debian's archives.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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

/// Downloads what a package of another release of Debian is made of, as its authors published it, into `directory`, and
/// returns the archive. `apt` keeps what it knows of that release there too; the system's own lists stay as they are.
///
/// # Errors
/// `apt` is configured with no archive of Debian's, or that one does not hold the package.
pub(crate) fn source(package: &str, release: &str, directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory.join("lists/partial"))?;
    let (sources, status) = (directory.join("sources.list"), directory.join("status"));
    std::fs::write(
        &sources,
        format!("deb-src [signed-by={KEYRING}] {} {release} main\n", archive()?),
    )?;
    std::fs::write(&status, "")?;
    let apt = || {
        let mut apt = command("apt-get");
        for (option, value) in [
            ("Dir::State", directory),
            ("Dir::State::status", &status),
            ("Dir::Cache", directory),
            ("Dir::Etc::sourcelist", &sources),
            ("Dir::Etc::sourceparts", Path::new("/dev/null")),
            ("APT::Sandbox::User", Path::new("root")),
        ] {
            apt.arg("-o").arg(format!("{option}={}", value.display()));
        }
        apt
    };
    println!("downloading the sources of {package} in Debian's {release}");
    run(apt().args(["-qq", "update"]))?;
    // 'address' name size hash
    let files = output(apt().args(["-qq", "--print-uris", "source", package]))?;
    let [address, name, _, hash] = files
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find_map(|words| {
            <[&str; 4]>::try_from(words)
                .ok()
                .filter(|words| words[1].contains(".orig.tar."))
        })
        .with_context(|| format!("Debian's {release} names no sources of {package}"))?;
    let file = directory.join(name);
    run(command("/usr/lib/apt/apt-helper")
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download-file"])
        .args([address.trim_matches('\'')])
        .arg(&file)
        .arg(hash))?;
    Ok(file)
}

/// The address of the archive of Debian's that `apt` is configured with.
fn archive() -> Result<String> {
    if !exists("apt-get") {
        bail!("this machine has no apt-get to ask an archive of Debian's with");
    }
    let address = || {
        let targets = [
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Label: Debian",
        ];
        Ok::<_, anyhow::Error>(
            output(command("apt-get").args(targets))?
                .lines()
                .next()
                .map(str::to_owned),
        )
    };
    if let Some(address) = address()? {
        return Ok(address);
    }
    // `apt` says whose an archive is once it has seen its lists.
    if output(command("id").arg("-u"))? == "0" {
        update()?;
    }
    address()?.context("apt is configured with no archive of Debian's")
}
