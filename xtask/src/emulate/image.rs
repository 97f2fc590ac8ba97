//! The image that Bochs boots from: an ISO of ISOLINUX, a kernel and an initramfs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command::{command, run};
use crate::guest::Guest;

pub(super) const ISOLINUX: &str = "/usr/lib/ISOLINUX/isolinux.bin";
pub(super) const LDLINUX: &str = "/usr/lib/syslinux/modules/bios/ldlinux.c32";

/// The kernel's arguments on every machine. Most leave out what takes emulated time and changes nothing for a program:
/// mitigations, random addresses, checks of the page tables, certificates, tests of the kernel's own cryptography.
const ARGUMENTS: &str = "console=ttyS0 panic=-1 rdinit=/init loglevel=4 \
    nokaslr nopti mitigations=off rodata=off cryptomgr.notests lpj=1000000 no_timer_check tsc=reliable \
    initcall_blacklist=load_system_certificate_list,init_evm,init_ima";

/// Writes the image into `directory` and returns its path. `arguments`: the kernel's, beside those of every machine.
pub(super) fn write(directory: &Path, kernel: &Path, arguments: &str, guest: &Guest) -> Result<PathBuf> {
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
        format!(
            "DEFAULT linux\nLABEL linux\n  LINUX /kernel\n  INITRD /initrd\n  APPEND {ARGUMENTS} {arguments}\n"
        ),
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
