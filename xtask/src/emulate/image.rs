//! The image that Bochs boots from: an ISO of ISOLINUX, a kernel and an initramfs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command::{command, run};
use crate::guest::Guest;

pub(super) const ISOLINUX: &str = "/usr/lib/ISOLINUX/isolinux.bin";
pub(super) const LDLINUX: &str = "/usr/lib/syslinux/modules/bios/ldlinux.c32";

/// The kernel's arguments. Most leave out what takes emulated time and changes nothing for a program: mitigations, random
/// addresses, checks of the page tables, certificates, tests of the kernel's own cryptography. Two are for what Bochs
/// gets wrong: fast string operations copy instructions that are then not noticed as modified, and Debian's kernel does
/// not boot with page tables of five levels.
const ARGUMENTS: &str = "console=ttyS0 panic=-1 rdinit=/init loglevel=4 \
    nokaslr nopti mitigations=off rodata=off cryptomgr.notests lpj=1000000 no_timer_check tsc=reliable \
    initcall_blacklist=load_system_certificate_list,init_evm,init_ima clearcpuid=erms,fsrm no5lvl";

/// Writes the image into `directory` and returns its path.
pub(super) fn write(directory: &Path, kernel: &Path, guest: &Guest) -> Result<PathBuf> {
    let (tree, image) = (directory.join("image"), directory.join("boot.iso"));
    if tree.exists() {
        std::fs::remove_dir_all(&tree)?;
    }
    let boot = tree.join("isolinux");
    std::fs::create_dir_all(&boot)?;
    std::fs::copy(ISOLINUX, boot.join("isolinux.bin"))?;
    std::fs::copy(LDLINUX, boot.join("ldlinux.c32"))?;
    std::fs::write(
        boot.join("isolinux.cfg"),
        format!("DEFAULT linux\nLABEL linux\n  LINUX /kernel\n  INITRD /initrd\n  APPEND {ARGUMENTS}\n"),
    )?;
    symlink(kernel, tree.join("kernel"))?;
    std::fs::write(tree.join("initrd"), guest.archive())?;
    run(command("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-f", "-o"])
        .arg(&image)
        .args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"])
        .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .arg(&tree))?;
    Ok(image)
}
