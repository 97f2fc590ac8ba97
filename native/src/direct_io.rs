//! Reads of a model's files past the system's cache (`--direct-io`), for files that are larger than the cache or are
//! read once: the disk writes into this process's memory, and nothing else is pushed out of the cache.
//!
//! ```text
//!   file      [ chunk 0 | chunk 1 | chunk 2 | chunk 3 | ... ]      chunks of 2 MiB, at multiples of 4 KiB
//!   reader    0         1         2         3         0 ...        each has one buffer with the disk, one that waits
//!                                                                  to be taken
//!   loader    takes the chunks in their order, and packs a tensor's rows when they are there
//! ```
//!
//! Beside the weights there are these buffers, and the rows that are being packed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context as _, Result, anyhow};
use memmap2::MmapMut;
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::model::loader::Loader;

use crate::{mapped, system};

/// Bytes of one read.
const CHUNK: usize = 2 << 20;

/// Reads at a time: enough for disks that are fastest with several, such as those behind a network.
const READERS: usize = 8;

/// What every disk's blocks divide.
const ALIGNMENT: u64 = 4096;

/// Bytes of all buffers.
pub(crate) const BUFFERS: u64 = (2 * READERS * CHUNK) as u64;

/// A file that can be read past the cache.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    path: &'static Path,
    len: u64,
}

/// The files of a model, opened for such reads; an error that says why they cannot be.
pub(crate) fn open(model: &ModelFile) -> Result<Vec<Source>> {
    if model.parts().is_empty() {
        return Err(anyhow!("the model is not read from files"));
    }
    model
        .parts()
        .iter()
        .map(|part| {
            let entry = mapped::file_of(part).ok_or_else(|| anyhow!("the model is not in a file"))?;
            let path = entry.path();
            let opened = system::open_direct(path).and_then(|file| Ok((file.metadata()?, file)));
            let named = || format!("`{}`", path.display());
            let (metadata, file) = opened.with_context(named)?;
            if !entry.is(&metadata) {
                return Err(anyhow!("{} was changed after it was opened", named()));
            }
            let source = Source {
                file,
                path,
                len: entry.file_len(),
            };
            // Some file systems refuse only when they are to read.
            source.probe().with_context(named)?;
            Ok(source)
        })
        .collect()
}

impl Source {
    fn probe(&self) -> io::Result<()> {
        let mut block = MmapMut::map_anon(ALIGNMENT as usize)?;
        retried(&self.file, &mut block, 0).map(drop)
    }

    /// Reads a chunk, up to the end of the file; its bytes.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.len - offset).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let rest = &mut buffer[done..];
            match retried(&self.file, rest, at) {
                // A read that ends between two blocks has met the end of the file.
                Ok(n) if n > 0 && (done + n >= wanted || (n as u64).is_multiple_of(ALIGNMENT)) => done += n,
                Ok(n) => {
                    return Err(anyhow!(
                        "`{}` ends after {} bytes; it had {} when it was opened",
                        self.path.display(),
                        at + n as u64,
                        self.len
                    ));
                }
                Err(error) => {
                    let what = format!("cannot read `{}` at byte {at}", self.path.display());
                    return Err(anyhow::Error::new(error).context(what));
                }
            }
        }
        Ok(wanted)
    }
}

fn retried(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match system::read_at(file, buffer, offset) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Bytes of a file that one read brings.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    part: usize,
    offset: u64,
}

/// The chunks that hold the tensors' data, in order.
fn chunks(loader: &Loader, sources: &[Source]) -> Vec<Chunk> {
    let headers = loader.set().parts().iter().zip(sources).enumerate();
    headers
        .flat_map(|(part, (header, source))| {
            let start = header.data_offset() / ALIGNMENT * ALIGNMENT;
            let end = header.data_end().min(source.len);
            let offsets = (start..end).step_by(CHUNK);
            offsets.map(move |offset| Chunk { part, offset })
        })
        .collect()
}

/// A chunk's bytes, or why they could not be read.
type Answer = Result<(MmapMut, usize)>;

/// Brings the loader all that it wants. `begun` is called in this thread when the readers are there; what it gives
/// lives as long as they do. `progress(done, total)` counts bytes.
pub(crate) fn load<T>(
    loader: &mut Loader,
    sources: &[Source],
    begun: impl FnOnce() -> T,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let chunks = chunks(loader, sources);
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for first in 0..READERS.min(chunks.len()) {
            let (send, answers) = sync_channel::<Answer>(1);
            let (give_back, free) = sync_channel(2);
            for _ in 0..2 {
                // The channel has room for both.
                let _ = give_back.send(MmapMut::map_anon(CHUNK).context("no memory for reads")?);
            }
            let own = chunks.iter().copied().skip(first).step_by(READERS);
            std::thread::Builder::new()
                .name(format!("twinfer-read-{first}"))
                .spawn_scoped(scope, move || read_all(own, sources, &free, &send))
                .context("cannot start a thread that reads")?;
            readers.push((answers, give_back));
        }
        let _held = begun();
        for (i, chunk) in chunks.iter().enumerate() {
            let (answers, give_back) = &readers[i % READERS];
            let (buffer, len) = answers.recv().context("a thread that reads ended")??;
            loader.push(chunk.part, chunk.offset, &buffer[..len])?;
            // After its last chunk a reader is gone.
            let _ = give_back.send(buffer);
            progress(loader.bytes_done(), loader.bytes_total());
        }
        Ok(())
    })
}

/// Reads one chunk after the other, until all are read, one cannot be, or nobody takes them any more.
fn read_all(
    chunks: impl Iterator<Item = Chunk>,
    sources: &[Source],
    free: &Receiver<MmapMut>,
    send: &SyncSender<Answer>,
) {
    for chunk in chunks {
        let Ok(mut buffer) = free.recv() else { return };
        let read = sources[chunk.part].read(chunk.offset, &mut buffer);
        let failed = read.is_err();
        if send.send(read.map(|len| (buffer, len))).is_err() || failed {
            return;
        }
    }
}
