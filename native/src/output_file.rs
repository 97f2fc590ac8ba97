//! The files that commands write: what a name means, what may be replaced, and what is left when something fails. Every
//! command that writes a file does it through [`OutputFile`]:
//!
//! - `-` is stdout, and so is any name of it (`/dev/stdout`, the file that it is redirected to).
//! - What is not a regular file (a device, a FIFO, an open descriptor in `/dev/fd`) is written to as it is. It is never
//!   replaced, renamed or removed.
//! - A symbolic link is followed: the link stays, and what it points to is written.
//! - A regular file is replaced when all bytes are on the disk, by a temporary file beside it that takes its name at
//!   once. Whatever fails before that (the disk is full, Ctrl-C, an error of the command itself) leaves the old file as
//!   it was and no temporary one. Permissions and owner are those of the old file; a hard link to it keeps the old
//!   bytes.
//! - A file of the model that is read is refused. Another hard link to it is another file: the model keeps its bytes.
//! - A file that is read-only is refused, unless [`ReadOnly::Replace`] says otherwise.
//!
//! One that grows piece by piece and is gone on with after an interruption is a [`GrowingFile`]: there each piece is in
//! the file at once, and nothing is replaced.

#[cfg(not(unix))]
#[path = "output_file/other.rs"]
mod platform;
#[cfg(unix)]
#[path = "output_file/unix.rs"]
mod platform;

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};

use crate::{interrupt, system};

/// Links that are followed one after the other; as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Characters of the target's name that its temporary file keeps: in UTF-8 at most four bytes each, so that the whole
/// name stays under the 255 bytes that file systems allow.
const NAME_KEPT: usize = 50;

/// What happens to a target that is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadOnly {
    /// It is replaced as any other: `--force`.
    Replace,
    /// It is refused, and the message names `--force`.
    Refuse,
    /// It is refused; there is no `--force` here.
    RefuseAlways,
}

/// What the name of an output stands for.
#[derive(Debug)]
enum Destination {
    Stdout,
    /// Written to as it is.
    Through(File),
    /// A regular file that is there already, or one that is not there yet.
    Regular(PathBuf, Option<Metadata>),
}

/// An output that is being written. Nothing of a regular file is seen under its name before [`OutputFile::commit`].
#[derive(Debug)]
pub(crate) struct OutputFile {
    // Closed before the temporary file is removed: some systems remove no open file.
    out: BufWriter<File>,
    replaces: Option<(Temporary, PathBuf)>,
    shown: String,
    is_stdout: bool,
}

impl OutputFile {
    /// Opens the output. A FIFO is waited for until somebody reads it.
    pub(crate) fn create(path: &Path, read_only: ReadOnly) -> Result<Self> {
        let shown = if path == Path::new("-") {
            "stdout".to_string()
        } else {
            format!("`{}`", path.display())
        };
        Self::open(path, read_only, &shown).with_context(|| format!("cannot write {shown}"))
    }

    fn open(path: &Path, read_only: ReadOnly, shown: &str) -> Result<Self> {
        // From here on Ctrl-C has something to remove. It ends the wait for a FIFO's reader as well, which a program
        // that was started in the background would ignore.
        interrupt::install();
        let destination = destination(path)?;
        let is_stdout = matches!(destination, Destination::Stdout);
        let (file, replaces) = match destination {
            Destination::Stdout => (platform::stdout()?, None),
            Destination::Through(file) => (file, None),
            Destination::Regular(target, existing) => {
                if is_input(&target) {
                    bail!("it is the same file as the model that is read; write to another name");
                }
                if let Some(existing) = &existing
                    && read_only != ReadOnly::Replace
                    && is_read_only(&target, existing)
                {
                    bail!(
                        "it is read-only; {}",
                        match read_only {
                            ReadOnly::RefuseAlways => "choose another name",
                            _ => "--force replaces it",
                        }
                    );
                }
                if existing.is_some() && system::is_mount_point(&target) {
                    // As containers have single files of the host. Said now: else the last thing done would fail.
                    bail!("a file is mounted there, and no other can take its place; write to another name");
                }
                let (temporary, file) = Temporary::create(&target, existing.as_ref())?;
                (file, Some((temporary, target)))
            }
        };
        Ok(Self {
            out: BufWriter::with_capacity(1 << 20, file),
            replaces,
            shown: shown.to_string(),
            is_stdout,
        })
    }

    /// Whether the bytes go to stdout, where nothing else should go then.
    pub(crate) fn is_stdout(&self) -> bool {
        self.is_stdout
    }

    /// Whether the output will be a file that can be read again under its name.
    pub(crate) fn is_regular(&self) -> bool {
        self.replaces.is_some()
    }

    /// Who closes our stdout has what they wanted, and that is no failure; another pipe was named to get all of it.
    fn explained(&self, error: io::Error) -> io::Error {
        if error.kind() == ErrorKind::BrokenPipe && !self.is_stdout {
            return io::Error::other("its reader closed it before the end");
        }
        error
    }

    /// Ends the output: all of it is written, and a regular file has its name.
    pub(crate) fn commit(mut self) -> Result<()> {
        let done = self.finish();
        done.with_context(|| format!("cannot write {}", self.shown))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        let Some((temporary, target)) = self.replaces.take() else {
            return Ok(());
        };
        // Some file systems report a full disk or a lost server only here.
        self.out.get_ref().sync_all()?;
        temporary.replace(&target)
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        written.map_err(|error| self.explained(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        flushed.map_err(|error| self.explained(error))
    }
}

/// An output that a later run goes on with.
#[derive(Debug)]
pub(crate) enum Growing {
    /// Nothing of it can be read again.
    Stream(OutputFile),
    File(GrowingFile),
}

/// A regular file that grows at its end; whoever ends the process, what was written stays. No two processes have it at
/// a time, where the system knows locks. One that was made here and got nothing is removed.
#[derive(Debug)]
pub(crate) struct GrowingFile {
    pub(crate) file: File,
    /// The file that was made.
    made: Option<PathBuf>,
}

impl Growing {
    /// Opens the output, with what is there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let target = destination(path).with_context(|| format!("cannot write `{}`", path.display()))?;
        let Destination::Regular(target, existing) = target else {
            return OutputFile::create(path, ReadOnly::RefuseAlways).map(Growing::Stream);
        };
        GrowingFile::open(target, existing.as_ref())
            .with_context(|| format!("cannot write `{}`", path.display()))
            .map(Growing::File)
    }
}

impl GrowingFile {
    fn open(target: PathBuf, existing: Option<&Metadata>) -> Result<Self> {
        if is_input(&target) {
            bail!("it is the same file as the model that is read; write to another name");
        }
        if existing.is_some_and(|existing| is_read_only(&target, existing)) {
            bail!("it is read-only; choose another name");
        }
        if let Some(directory) = target.parent()
            && !directory.as_os_str().is_empty()
            && !fs::exists(directory)?
        {
            bail!("the directory `{}` does not exist", directory.display());
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(&target)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => bail!("another process is writing to it"),
            // Some file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let made = existing.is_none().then_some(target);
        Ok(GrowingFile { file, made })
    }
}

impl Drop for GrowingFile {
    fn drop(&mut self) {
        if let Some(path) = &self.made
            && self.file.metadata().is_ok_and(|found| found.len() == 0)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Writes an output in one piece.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], read_only: ReadOnly) -> Result<()> {
    let mut out = OutputFile::create(path, read_only)?;
    out.write_all(bytes)
        .with_context(|| format!("cannot write {}", out.shown))?;
    out.commit()
}

/// Whether two names lead to the same file, which need not be there yet.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| match path.canonicalize() {
        Ok(place) => Some(place),
        Err(_) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new(".")).canonicalize().ok()?;
            Some(parent.join(path.file_name()?))
        }
    };
    a == b || place(a).is_some_and(|a| place(b) == Some(a))
}

/// The files that models were mapped from, all links followed.
static INPUTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn inputs() -> MutexGuard<'static, Vec<PathBuf>> {
    INPUTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on no output takes the name of this file.
pub(crate) fn protect(input: &Path) {
    inputs().extend(input.canonicalize());
}

fn is_input(target: &Path) -> bool {
    target
        .canonicalize()
        .is_ok_and(|target| inputs().contains(&target))
}

/// Follows links to what a name stands for.
fn destination(path: &Path) -> Result<Destination> {
    if path == Path::new("-") {
        return Ok(Destination::Stdout);
    }
    if path.as_os_str().is_empty() {
        bail!("the name is empty");
    }
    let mut path = path.to_path_buf();
    for _ in 0..=MAX_LINKS {
        if let Some(opened) = platform::open_descriptor(&path) {
            return through(opened?);
        }
        if ends_with_separator(&path) {
            bail!("this names a directory; add a file's name");
        }
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Destination::Regular(path, None));
            }
            other => other?,
        };
        if metadata.is_symlink() {
            let to = fs::read_link(&path)?;
            path.pop();
            path.push(to);
        } else if metadata.is_dir() {
            bail!("it is a directory");
        } else if !metadata.is_file() {
            return through(OpenOptions::new().write(true).open(&path)?);
        } else if platform::is_stdout(&metadata) {
            // A second file under this name would lose what is printed.
            return Ok(Destination::Stdout);
        } else {
            return Ok(Destination::Regular(path, Some(metadata)));
        }
    }
    bail!("there are too many links, or they lead in a circle")
}

fn through(file: File) -> Result<Destination> {
    Ok(if platform::is_stdout(&file.metadata()?) {
        Destination::Stdout
    } else {
        Destination::Through(file)
    })
}

fn ends_with_separator(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.last().is_some_and(|&b| std::path::is_separator(b.into()))
}

/// Whether the file's mode or the system forbids writing. The superuser may write to anything, so that the mode is
/// asked as well.
fn is_read_only(path: &Path, metadata: &Metadata) -> bool {
    let refused = || {
        let opened = OpenOptions::new().write(true).open(path);
        opened.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    metadata.permissions().readonly() || refused()
}

/// The temporary files of outputs that are not complete, for a process that ends without running destructors.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes them. While the guard is held no other is made and none gets its final name, so that a process that ends
/// meanwhile leaves nothing behind.
pub(crate) fn remove_unfinished() -> impl Drop {
    let mut paths = unfinished();
    for path in paths.drain(..) {
        let _ = fs::remove_file(path);
    }
    paths
}

/// A file beside the target, removed unless it took the target's place.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Temporary {
    fn create(target: &Path, existing: Option<&Metadata>) -> Result<(Self, File)> {
        let (Some(name), Some(directory)) = (target.file_name(), target.parent()) else {
            bail!("this names a directory; add a file's name");
        };
        if !directory.as_os_str().is_empty() && !fs::exists(directory)? {
            bail!("the directory `{}` does not exist", directory.display());
        }
        let name: String = name.to_string_lossy().chars().take(NAME_KEPT).collect();
        let mut paths = unfinished();
        for attempt in 0u32.. {
            let path = target.with_file_name(format!("{name}.{}-{attempt}.partial", std::process::id()));
            // Never a file that is there already: it is somebody's, or a link to somewhere else.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    paths.push(path.clone());
                    drop(paths);
                    let temporary = Self(path);
                    if let Some(existing) = existing {
                        platform::keep_owner(&file, existing);
                        if file.metadata()?.permissions() != existing.permissions() {
                            file.set_permissions(existing.permissions())?;
                        }
                    }
                    return Ok((temporary, file));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("no new file can be made at `{}`", path.display()));
                }
            }
        }
        bail!("there is no free name for a temporary file beside it")
    }

    /// Gives the file the target's name.
    fn replace(self, target: &Path) -> io::Result<()> {
        let mut paths = unfinished();
        fs::rename(&self.0, target)?;
        // There is nothing left to remove: `drop` looks here.
        paths.retain(|path| *path != self.0);
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut paths = unfinished();
        if let Some(at) = paths.iter().position(|path| *path == self.0) {
            let _ = fs::remove_file(paths.swap_remove(at));
        }
    }
}
