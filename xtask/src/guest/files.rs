//! The file system of an emulated machine, which is its initramfs, and the script that the machine runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{command, output, run};

/// The statically linked program behind every command of the script.
pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// What stands before the exit code in the last line that the machine prints.
pub(crate) const EXIT: &str = "emulated machine: exit code ";

/// The file system of the emulated machine.
pub(crate) struct Guest {
    /// Absolute paths, parents before what they hold; a directory has no content.
    entries: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Guest {
    /// A machine that runs `script` (of a shell), prints its exit code after [`EXIT`] and switches itself off.
    pub(crate) fn new(script: &str) -> Result<Guest> {
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
    pub(crate) fn directory(&mut self, path: &Path) {
        for directory in path.ancestors().filter(|directory| directory.parent().is_some()) {
            self.entries.entry(directory.into()).or_insert(None);
        }
    }

    /// A copy of the file `source`, executable.
    pub(crate) fn file(&mut self, path: &Path, source: &Path) -> Result<()> {
        let content = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.content(path, content);
        Ok(())
    }

    /// `program` under this name below `/programs`, with the shared libraries that it needs. `scratch`: a directory for
    /// the copy that goes there.
    pub(crate) fn program(&mut self, name: &str, program: &Path, scratch: &Path) -> Result<()> {
        // Most of a program is names for debuggers, and the emulated machine reads every byte of its image.
        let stripped = scratch.join(name);
        run(command("strip").arg("-o").arg(&stripped).arg(program))?;
        self.file(&Path::new("/programs").join(name), &stripped)?;
        for library in libraries(program)? {
            self.file(&library, &library)?;
        }
        Ok(())
    }

    fn content(&mut self, path: &Path, content: Vec<u8>) {
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        self.entries.insert(path.into(), Some(content));
    }

    /// The archive: cpio's "newc" form (kernel, Documentation/driver-api/early-userspace/buffer-format.rst).
    pub(crate) fn archive(&self) -> Vec<u8> {
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

/// The shared libraries that a program needs, the loader among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // "    libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", "    /lib64/ld-linux-x86-64.so.2 (0x…)"
    Ok(output(command("ldd").arg(program))?
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
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
