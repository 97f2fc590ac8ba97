//! The image that the emulated machine boots from: an ISO of ISOLINUX, a kernel and an initramfs.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{command, run};

pub(super) const ISOLINUX: &str = "/usr/lib/ISOLINUX/isolinux.bin";
pub(super) const LDLINUX: &str = "/usr/lib/syslinux/modules/bios/ldlinux.c32";
pub(super) const BUSYBOX: &str = "/bin/busybox";
/// What stands before the exit code in the last line that the machine prints.
pub(super) const EXIT: &str = "emulated machine: exit code ";

/// The kernel's arguments.
///
/// - `clearcpuid`: Bochs 2.7 states wrong sizes for the compacted form of XSAVE and for the keys of memory protection, on
///   which the kernel gives up AVX altogether, and one of the rest breaks the kernel's entry code once it is patched in.
/// - The others leave out what takes emulated time and changes nothing for a program: mitigations, random addresses,
///   checks of the page tables, certificates, tests of the kernel's own cryptography.
const ARGUMENTS: &str = "console=ttyS0 panic=-1 rdinit=/init loglevel=4 \
    clearcpuid=pku,ospke,xsaves,xsavec,xsaveopt,fsgsbase,erms,fsrm,invpcid,pcid,umip,rdpid,smap,smep,la57,mwait \
    nofsgsbase nosmap nosmep nopcid nokaslr nopti mitigations=off rodata=off cryptomgr.notests lpj=1000000 no_timer_check tsc=reliable \
    initcall_blacklist=load_system_certificate_list,init_evm,init_ima";

/// The file system of the emulated machine.
pub(super) struct Guest {
    /// Absolute paths, parents before what they hold; a directory has no content.
    entries: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Guest {
    /// A machine that runs `script` (of a shell), prints its exit code after [`EXIT`] and switches itself off.
    pub(super) fn new(script: &str) -> Result<Guest> {
        let mut guest = Guest {
            entries: BTreeMap::new(),
        };
        for directory in ["/proc", "/sys", "/dev", "/tmp"] {
            guest.directory(Path::new(directory));
        }
        let init = format!(
            "#!{BUSYBOX} sh\n\
             {BUSYBOX} mount -t proc proc /proc\n\
             {BUSYBOX} mount -t sysfs sysfs /sys\n\
             {BUSYBOX} mount -t devtmpfs devtmpfs /dev\n\
             export HOME=/tmp\n\
             {BUSYBOX} grep -m 1 'model name' /proc/cpuinfo\n\
             {{\n{script}}} 2>&1\n\
             echo \"{EXIT}$?\"\n\
             # What is still in the serial port's buffer.\n\
             {BUSYBOX} sleep 1\n\
             {BUSYBOX} poweroff -f\n"
        );
        guest.content(Path::new("/init"), init.into_bytes());
        guest.file(Path::new(BUSYBOX), Path::new(BUSYBOX))?;
        Ok(guest)
    }

    /// A directory and those above it.
    pub(super) fn directory(&mut self, path: &Path) {
        for directory in path.ancestors().filter(|directory| directory.parent().is_some()) {
            self.entries.entry(directory.into()).or_insert(None);
        }
    }

    /// A copy of the file `source`, executable.
    pub(super) fn file(&mut self, path: &Path, source: &Path) -> Result<()> {
        let content = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.content(path, content);
        Ok(())
    }

    fn content(&mut self, path: &Path, content: Vec<u8>) {
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        self.entries.insert(path.into(), Some(content));
    }

    /// The archive: cpio's "newc" form (kernel, Documentation/driver-api/early-userspace/buffer-format.rst).
    fn archive(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (path, content)) in (1..).zip(&self.entries) {
            let name = path.to_string_lossy();
            let mode = if content.is_some() { 0o100_755 } else { 0o040_755 };
            record(
                &mut out,
                inode,
                mode,
                name.trim_start_matches('/'),
                content.as_deref().unwrap_or(&[]),
            );
        }
        record(&mut out, 0, 0, "TRAILER!!!", &[]);
        out
    }
}

fn record(out: &mut Vec<u8>, inode: usize, mode: u32, name: &str, content: &[u8]) {
    let (name_len, len) = (name.len() + 1, content.len());
    // magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    let header = format!(
        "070701{inode:08X}{mode:08X}{0:08X}{0:08X}{1:08X}{0:08X}{len:08X}{0:08X}{0:08X}{0:08X}{0:08X}{name_len:08X}{0:08X}",
        0, 1
    );
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(4), 0);
}

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::Guest;

    #[test]
    fn archives_have_parents_first_and_records_at_multiples_of_four() {
        let mut guest = Guest {
            entries: BTreeMap::new(),
        };
        guest.content(Path::new("/a/b/c"), b"12345".to_vec());
        let archive = guest.archive();
        let at = |name: &str| {
            let name = format!("{name}\0");
            archive
                .windows(name.len())
                .position(|bytes| bytes == name.as_bytes())
                .unwrap_or_else(|| panic!("no {name}"))
        };
        let (a, b, c) = (at("a"), at("a/b"), at("a/b/c"));
        assert!(a < b && b < c);
        // A header of 110 bytes stands before each name.
        assert!([a, b, c].iter().all(|at| (at - 110) % 4 == 0));
        assert_eq!(&archive[c - 110..c - 104], b"070701");
        assert_eq!(&archive[c - 110 + 54..c - 110 + 62], b"00000005");
        assert_eq!(archive.len() % 4, 0);
    }
}
