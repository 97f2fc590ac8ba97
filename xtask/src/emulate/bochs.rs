//! Bochs 3.0 with tiles that compute right, built from Debian's sources: for all machines.
//!
//! It is the oldest Bochs that has a processor with AMX, and neither it nor a later one (3.1 of August 2026) can be
//! taken as it is: signed bytes are multiplied as unsigned ones, a tile's last eight rows are lost when its thread has
//! to wait, modified instructions are not noticed any more once there are tiles, and Linux gives tiles to nobody
//! without XFD. `bochs.patch` tells what is changed. The older 2.7 does not round all ties to half precision to even, as
//! version 3.0 and real processors do.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::command::{command, run};
use crate::{debian, root};

const PATCH: &str = include_str!("bochs.patch");
/// The release of Debian that has this version.
const RELEASE: &str = "trixie";
const VERSION: &str = "3.0";
/// How many files of source code there are to compile, about.
const FILES: usize = 470;
/// Files of the packages that building takes, with the packages.
const NEEDED: [(&str, &str); 4] = [
    ("/usr/bin/g++", "g++"),
    ("/usr/bin/make", "make"),
    ("/usr/bin/patch", "patch"),
    ("/usr/bin/xz", "xz-utils"),
];
/// What is built: the processor, a disk drive and a serial port, and no display.
const OPTIONS: [&str; 13] = [
    "--with-nogui",
    "--enable-cpu-level=6",
    "--enable-x86-64",
    "--enable-fpu",
    "--enable-avx",
    "--enable-evex",
    "--enable-amx",
    "--enable-pci",
    "--enable-cdrom",
    "--enable-all-optimizations",
    "--disable-docbook",
    "--disable-debugger",
    "--disable-readline",
];

/// The program, built where it is missing or of another patch.
///
/// # Errors
/// Debian's archive has other sources, or they do not build.
pub(super) fn program() -> Result<PathBuf> {
    let directory = root().join("target/tools/bochs");
    // Written when all is done.
    let (program, built) = (directory.join("tree/bochs"), directory.join("built.patch"));
    if program.exists() && std::fs::read_to_string(&built).is_ok_and(|patch| patch == PATCH) {
        return Ok(program);
    }
    debian::provide(&NEEDED)?;
    let archive = debian::source("bochs", RELEASE, &directory)?;
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with(&format!("bochs_{VERSION}")) {
        bail!("Debian's {RELEASE} has {name}; Bochs {VERSION} is the one that is known here");
    }
    let tree = directory.join("tree");
    if tree.exists() {
        std::fs::remove_dir_all(&tree)?;
    }
    std::fs::create_dir_all(&tree)?;
    run(command("tar")
        .args(["--strip-components=1", "-xf"])
        .arg(&archive)
        .arg("-C")
        .arg(&tree))?;
    let patch = directory.join("bochs.patch");
    std::fs::write(&patch, PATCH)?;
    run(command("patch")
        .args(["--silent", "-p1", "-i"])
        .arg(&patch)
        .arg("-d")
        .arg(&tree))?;
    build(&tree)?;
    std::fs::write(&built, PATCH)?;
    Ok(program)
}

fn build(tree: &Path) -> Result<()> {
    println!("configuring Bochs {VERSION}");
    run(command("./configure")
        .current_dir(tree)
        .args(["--quiet"])
        .args(OPTIONS)
        .envs([("CFLAGS", "-O2"), ("CXXFLAGS", "-O2")])
        .stdout(Stdio::null())
        .stderr(Stdio::null()))?;
    let log = tree.join("make.log");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "building Bochs {VERSION}, which takes minutes; its log: {}",
        log.display()
    );
    let mut make = command("make");
    make.current_dir(tree).arg(format!("-j{jobs}"));
    let mut child = make
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?)
        .spawn()
        .context("`make` could not be started")?;
    let mut files = 0;
    for line in BufReader::new(child.stdout.take().context("no output of make")?).lines() {
        if line?.starts_with("g++ -c") {
            files += 1;
            if files % 40 == 0 {
                println!("{files:>6} of some {FILES} files");
            }
        }
    }
    if !child.wait()?.success() {
        bail!("Bochs {VERSION} does not build: {}", log.display());
    }
    Ok(())
}
