//! Unix: descriptors under names, and whose a file is.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

fn duplicate(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    Ok(descriptor.try_clone_to_owned()?.into())
}

/// This process's stdout, without a buffer between.
pub(super) fn stdout() -> io::Result<File> {
    duplicate(io::stdout().as_fd())
}

/// Whether this is what our stdout writes to.
pub(super) fn is_stdout(metadata: &Metadata) -> bool {
    stdout()
        .and_then(|file| file.metadata())
        .is_ok_and(|stdout| (stdout.dev(), stdout.ino()) == (metadata.dev(), metadata.ino()))
}

/// Where the path is one of `/proc/PID/fd`, to which `/dev/stdout` and `/dev/fd/N` lead: that open file. What the link
/// in there says is not always a path.
pub(super) fn open_descriptor(path: &Path) -> Option<io::Result<File>> {
    let parent = path.parent()?;
    let here = parent.as_os_str().is_empty();
    let directory = fs::canonicalize(if here { Path::new(".") } else { parent }).ok()?;
    if !directory.starts_with("/proc") || directory.file_name()? != "fd" {
        return None;
    }
    let own = directory.starts_with(format!("/proc/{}", std::process::id()));
    Some(match path.file_name()?.to_str() {
        Some("1") if own => stdout(),
        Some("2") if own => duplicate(io::stderr().as_fd()),
        // Opened anew it would begin at the start of what is there.
        _ => OpenOptions::new().append(true).open(path),
    })
}

/// Gives a new file the owner of the old one. Only the superuser may give files away: anyone else keeps them.
pub(super) fn keep_owner(file: &File, existing: &Metadata) {
    let Ok(found) = file.metadata() else { return };
    if (found.uid(), found.gid()) != (existing.uid(), existing.gid()) {
        let _ = std::os::unix::fs::fchown(file, Some(existing.uid()), Some(existing.gid()));
    }
}
