//! Files that are mapped at present, and what happens when a page of one cannot be had: the file became shorter, or its
//! disk fails.
//!
//! Reading such a page raises SIGBUS, which by itself ends the process without a word. Here it ends with one line that
//! names the file, and with the exit code of other failures. Files are listed so that a signal handler can read the
//! list: entries are only ever added, never freed, and all that changes in one is atomic.

#[cfg(target_os = "linux")]
mod linux;

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::SystemTime;

use anyhow::{Result, bail};
use twinfer_engine::memory::Bytes;

/// A file that is or was mapped. It takes some hundred bytes until the process ends.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where the map begins, and its bytes; 0 bytes once it is gone.
    start: AtomicUsize,
    len: AtomicUsize,
    path: PathBuf,
    /// What the file was when it was mapped.
    identity: Identity,
    /// The entry added before this one.
    next: AtomicPtr<Entry>,
}

/// The entry added last.
static LAST: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// Takes the map off the list when it goes, which must be before the memory does.
#[derive(Debug)]
pub(crate) struct Listed(&'static Entry);

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.len.store(0, Ordering::Release);
    }
}

/// Lists a map of a file. `metadata` is the open file's.
pub(crate) fn list(map: &[u8], path: &Path, metadata: &Metadata) -> Listed {
    #[cfg(target_os = "linux")]
    linux::install();
    let entry: &'static mut Entry = Box::leak(Box::new(Entry {
        start: AtomicUsize::new(map.as_ptr().addr()),
        len: AtomicUsize::new(map.len()),
        path: path.into(),
        identity: Identity::of(metadata),
        next: AtomicPtr::new(LAST.load(Ordering::Acquire)),
    }));
    let mut last = entry.next.load(Ordering::Relaxed);
    while let Err(found) =
        LAST.compare_exchange_weak(last, ptr::from_mut(entry), Ordering::AcqRel, Ordering::Acquire)
    {
        entry.next.store(found, Ordering::Relaxed);
        last = found;
    }
    Listed(entry)
}

/// The file that some bytes are mapped from; `None` for other memory.
pub(crate) fn file_of(bytes: &Bytes) -> Option<&'static Entry> {
    find(bytes.as_ptr().addr()).map(|(entry, _)| entry)
}

impl Entry {
    /// The name under which the file was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file when it was mapped.
    pub(crate) fn file_len(&self) -> u64 {
        self.identity.len
    }

    /// Whether this is the file as it was when it was mapped.
    pub(crate) fn is(&self, metadata: &Metadata) -> bool {
        self.identity == Identity::of(metadata)
    }

    /// An error if the file was written to since it was mapped. Where another file has its name meanwhile, or none, the
    /// map is still of this one.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let path = &self.path;
        let Ok(metadata) = std::fs::metadata(path) else {
            return Ok(());
        };
        let now = Identity::of(&metadata);
        if now.number == self.identity.number && now != self.identity {
            bail!(
                "`{}` was changed while the model was loaded from it",
                path.display()
            );
        }
        Ok(())
    }

    /// Why the page at byte `offset` could not be had, as far as can be told.
    fn why(&self, offset: u64) -> String {
        let was = self.identity.len;
        match std::fs::metadata(&self.path) {
            Err(error) => error.to_string(),
            Ok(now) if now.len() < was => {
                format!(
                    "it was {was} bytes when it was opened, and is {} bytes now",
                    now.len()
                )
            }
            Ok(now) if !self.is(&now) => "it was changed after it was opened".into(),
            Ok(_) => match read_at(&self.path, offset) {
                Err(error) => error.to_string(),
                Ok(()) => "the system could not read it from the disk".into(),
            },
        }
    }
}

/// What tells a file from another one, and from itself after it was written to.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    len: u64,
    modified: Option<SystemTime>,
    number: Option<(u64, u64)>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let number = {
            use std::os::unix::fs::MetadataExt as _;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let number = None;
        Identity {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            number,
        }
    }
}

/// Reads a byte: the error says what a signal did not.
fn read_at(path: &Path, offset: u64) -> io::Result<()> {
    use std::io::{Read as _, Seek as _};
    let mut file = std::fs::File::open(path)?;
    file.seek(io::SeekFrom::Start(offset))?;
    file.read_exact(&mut [0])
}

/// The map that an address lies in, and where in it. It takes no lock and allocates nothing: a signal handler may ask.
fn find(address: usize) -> Option<(&'static Entry, usize)> {
    let mut at = LAST.load(Ordering::Acquire);
    while let Some(entry) = entry(at) {
        let offset = address.wrapping_sub(entry.start.load(Ordering::Relaxed));
        if offset < entry.len.load(Ordering::Acquire) {
            return Some((entry, offset));
        }
        at = entry.next.load(Ordering::Relaxed);
    }
    None
}

#[allow(unsafe_code)] // entries of the list, which are never freed
fn entry(at: *const Entry) -> Option<&'static Entry> {
    // SAFETY: the pointers of the list are null or come from `Box::leak`, and were published with release ordering
    // after the entry was written; from then on only atomics in it change.
    unsafe { at.as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_map_is_found_until_it_goes() {
        let path = std::env::temp_dir().join(format!("twinfer-listed-{}", std::process::id()));
        std::fs::write(&path, [7; 5000]).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let memory = vec![0u8; 5000];
        let at = memory.as_ptr().addr();
        let listed = list(&memory, &path, &metadata);
        let other = list(&[1, 2, 3], Path::new("other"), &metadata);
        for offset in [0, 1, 4999] {
            let (entry, found) = find(at + offset).unwrap();
            assert_eq!((entry.path(), found), (path.as_path(), offset));
        }
        let (entry, _) = find(at).unwrap();
        assert!(entry.check_unchanged().is_ok());
        std::fs::write(&path, [7; 100]).unwrap();
        let why = entry.why(4096);
        assert!(why.contains("5000") && why.contains("100"), "{why}");
        assert!(entry.check_unchanged().is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(entry.why(0).contains("No such file") || !cfg!(unix));
        drop(other);
        drop(listed);
        assert!(find(at).is_none());
    }
}
