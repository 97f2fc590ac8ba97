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
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

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
    /// Weights are read from the map while the program computes.
    in_use: AtomicBool,
    /// Bytes of it that were given back after they were read: the same ones may be several times.
    given_back: AtomicU64,
    /// The entry added before this one.
    next: AtomicPtr<Entry>,
}

/// The entry added last.
static LAST: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// Takes the map off the list when it goes, which must be before the memory does.
#[derive(Debug)]
pub(crate) struct Listed(&'static Entry);

impl Listed {
    /// Counts bytes that are given back.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.0.given_back.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

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
        in_use: AtomicBool::new(false),
        given_back: AtomicU64::new(0),
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

    /// Bytes of the map that were given back so far.
    pub(crate) fn given_back(&self) -> u64 {
        self.given_back.load(Ordering::Relaxed)
    }

    /// Whether this is the file as it was when it was mapped.
    pub(crate) fn is(&self, metadata: &Metadata) -> bool {
        self.identity == Identity::of(metadata)
    }

    /// An error if the file was written to since it was mapped.
    pub(crate) fn check_loaded(&self) -> Result<()> {
        if self.was_written_to() {
            bail!(
                "`{}` was changed while the model was loaded from it",
                self.path.display()
            );
        }
        Ok(())
    }

    /// From here on [`check`] and [`check_at_times`] look at it: weights are read from the map.
    pub(crate) fn set_in_use(&self) {
        self.in_use.store(true, Ordering::Relaxed);
    }

    /// Where another file has its name meanwhile, or none, the map is still of this one.
    fn was_written_to(&self) -> bool {
        let Ok(metadata) = std::fs::metadata(&self.path) else {
            return false;
        };
        let now = Identity::of(&metadata);
        now.number == self.identity.number && now != self.identity
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

/// An error if a file was written to that weights are read from: they are others since.
pub(crate) fn check() -> Result<()> {
    for entry in entries() {
        let mapped = entry.in_use.load(Ordering::Relaxed) && entry.len.load(Ordering::Acquire) > 0;
        if mapped && entry.was_written_to() {
            bail!(
                "`{}` was written to while weights were read from it (`--weights packed` has a copy of its own)",
                entry.path.display()
            );
        }
    }
    Ok(())
}

/// As [`check`], once a second however often it is called.
pub(crate) fn check_at_times() -> Result<()> {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    static LAST_SECOND: AtomicU64 = AtomicU64::new(0);
    let second = BEGIN.get_or_init(Instant::now).elapsed().as_secs();
    if LAST_SECOND.swap(second, Ordering::Relaxed) == second {
        return Ok(());
    }
    check()
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
    entries().find_map(|entry| {
        let offset = address.wrapping_sub(entry.start.load(Ordering::Relaxed));
        (offset < entry.len.load(Ordering::Acquire)).then_some((entry, offset))
    })
}

/// All that were ever listed, the last ones first.
fn entries() -> impl Iterator<Item = &'static Entry> {
    std::iter::successors(entry(LAST.load(Ordering::Acquire)), |last| {
        entry(last.next.load(Ordering::Relaxed))
    })
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
        assert!(entry.check_loaded().is_ok());
        std::fs::write(&path, [7; 100]).unwrap();
        let why = entry.why(4096);
        assert!(why.contains("5000") && why.contains("100"), "{why}");
        assert!(entry.check_loaded().is_err());
        assert!(check().is_ok(), "nothing is read from it");
        entry.set_in_use();
        let error = check().unwrap_err().to_string();
        assert!(error.contains("was written to"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(entry.why(0).contains("No such file") || !cfg!(unix));
        drop(other);
        drop(listed);
        assert!(check().is_ok());
        assert!(find(at).is_none());
    }
}
