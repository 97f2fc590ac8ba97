//! The detection of backends on processors that lack them, under QEMU's emulation of single programs: the next best
//! backend is taken, and the digest stays. What no QEMU emulates, AVX-512, is `cargo xtask emulate`'s.

use anyhow::{Result, bail};

use crate::command::{command, exists};
use crate::{debian, eval};

const QEMU: &str = "qemu-x86_64";
/// Processors of QEMU's, and the backend that each of them must get.
const PROCESSORS: [(&str, &str); 3] = [
    // AVX2 without AVX-512.
    ("EPYC-Milan", "avx2"),
    ("Haswell", "avx2"),
    // SSE 4.2, no AVX.
    ("Nehalem", "scalar"),
];

/// Makes sure that the emulator is there.
pub(crate) fn find() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("it runs what is built for x86-64 Linux");
    }
    if !exists(QEMU) {
        debian::install(&["qemu-user"])?;
    }
    Ok(())
}

/// Evaluates a few tokens on each processor.
pub(crate) fn run() -> Result<()> {
    let program = eval::program()?;
    let want = eval::natively(&program, "scalar")?;
    for (processor, backend) in PROCESSORS {
        let (taken, digest) = eval::eval(command(QEMU).args(["-cpu", processor]).arg(&program), &[])?;
        println!("{processor}: backend {taken}, sha256 {digest}");
        if taken != backend {
            bail!("{processor} got the backend {taken}; {backend} is the best that it can run");
        }
        if digest != want {
            bail!("{processor} with {backend} gives the digest {digest}; scalar gives {want} natively");
        }
    }
    Ok(())
}
