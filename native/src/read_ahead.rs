//! Reads of a model's files into the system's cache, ahead of who is to read them through the map: the workers that
//! pack, those that bring weights in, the first pass.
//!
//! ```text
//!   matrices, in the order in      [ given back | being packed | in the cache or on its way |   not asked for   ]
//!   which they will be read                     ^ the workers                               ^ this thread
//!                                               <--------------- window -------------------->
//! ```
//!
//! Left alone, the system reads a window around a page that is missing, as a rule 128 KiB, while the thread that met it
//! waits: one read a worker is far below what a disk does with many at a time. Here a thread asks for what comes next
//! (`POSIX_FADV_WILLNEED`), which begins reads and waits for none. There is no second copy of anything: the pages are
//! those that the map shows, and they are given back once they are packed.
//!
//! Linux reads of one such call no more than the larger of the device's window and its largest request, and drops the
//! rest (`force_page_cache_ra` in mm/readahead.c): so it is called for pieces of that size.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::plan::PlannedMatrix;
use twinfer_engine::team::Team;

use crate::mapped::{self, Entry};
use crate::system;

/// Bytes that are asked for ahead of the workers: what a fast disk reads in some ten milliseconds.
const WINDOW: u64 = 64 << 20;

/// The same for each worker, where there are many: all of them are to be within the window.
const WINDOW_OF_WORKER: u64 = 2 << 20;

/// A smaller window is not worth a thread.
const LEAST_WINDOW: u64 = 4 << 20;

/// Bytes of one call: at least what every system reads of one, at most this.
const LEAST_PIECE: u64 = 128 << 10;
const LARGEST_PIECE: u64 = 2 << 20;

/// How long the thread sleeps where the window is full. The disk has the rest of the window to read meanwhile.
const NAP: Duration = Duration::from_millis(2);

/// How long it waits for a piece to arrive before it gives up: the disk fails, or the system dropped the piece again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a file that its header is expected to have: the vocabulary is most of it.
const HEADER: u64 = 8 << 20;

/// Tensors of so few bytes (norms, biases) are read one by one before anything else.
const SMALL: u64 = 256 << 10;

/// A thread that reads ahead, until all is asked for or this goes.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Lets it go on by itself: it ends when all is asked for.
    pub(crate) fn detach(mut self) {
        self.thread = None;
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.store(true, Ordering::Relaxed);
            // It ends within a nap, or when the device has room for one more request.
            let _ = thread.join();
        }
    }
}

/// Asks for the header of a file that has just been opened.
pub(crate) fn header(file: &File, metadata: &Metadata) {
    let piece = piece_of(metadata);
    for offset in (0..metadata.len().min(HEADER)).step_by(piece as usize) {
        let _ = system::will_need(file, offset, piece);
    }
}

/// Asks for the small tensors of a model, all at once: planning reads them one after the other.
pub(crate) fn small_tensors(model: &ModelFile) {
    let Some(files) = Source::all(model) else { return };
    for (part, tensor) in model.set().tensors().filter(|(_, tensor)| tensor.bytes <= SMALL) {
        let _ = system::will_need(&files[part].file, tensor.offset, tensor.bytes);
    }
}

/// Reads ahead of the workers that pack a model's matrices. `copies`: how often each is read; `spare`: memory that is
/// free beside what the model takes. `None` where there is nothing to pack, too little memory, or no file.
pub(crate) fn of_packing(
    model: &ModelFile,
    matrices: &[PlannedMatrix],
    team: &Team,
    copies: usize,
    spare: u64,
) -> Option<ReadAhead> {
    let sources = Source::all(model)?;
    let packed = matrices.iter().filter(|matrix| matrix.packed);
    let spans = packed
        .filter_map(|matrix| Span::of(model, &matrix.name))
        .collect();
    let window = WINDOW.max(WINDOW_OF_WORKER * team.workers() as u64);
    let position = Position::GivenBack {
        before: given_back(&sources),
        copies: copies.max(1) as u64,
    };
    // Where little is free the system would drop again what was read too early.
    start(sources, spans, team.caches(), window.min(spare / 2), position)
}

/// Reads ahead of those who read mapped weights: the first pass, or `all` of them, tables and experts as well. `None`
/// where it would not all fit into `spare` bytes of memory: the system would drop pages that are still to be used.
/// `nodes` that work are given the pages in turn: those of one alone would have them all, and the others read them from
/// there ever after.
pub(crate) fn of_mapped(
    model: &ModelFile,
    matrices: &[PlannedMatrix],
    all: bool,
    nodes: &[usize],
    spare: u64,
) -> Option<ReadAhead> {
    let sources = Source::all(model)?;
    let mut wanted: Vec<&PlannedMatrix> = matrices
        .iter()
        .filter(|matrix| !matrix.packed && (all || matrix.whole))
        .collect();
    if !all {
        // A pass meets the layers first, and what makes logits last.
        wanted.sort_by_key(|matrix| !matrix.name.starts_with("blk."));
    }
    let wanted = wanted.into_iter();
    let spans: Vec<Span> = wanted
        .filter_map(|matrix| Span::of(model, &matrix.name))
        .collect();
    let bytes: u64 = spans.iter().map(Span::bytes).sum();
    if bytes > spare {
        return None;
    }
    let nodes = if nodes.len() > 1 { nodes } else { &[] };
    start(
        sources,
        spans,
        1,
        WINDOW,
        Position::Arrived { nodes: nodes.into() },
    )
}

/// A file of the model, opened once more.
#[derive(Debug)]
struct Source {
    entry: &'static Entry,
    file: File,
    map: Bytes,
    /// The system tells which of its pages are in the cache.
    tells: bool,
    /// Bytes of one call.
    piece: u64,
}

impl Source {
    /// Those of a model; `None` where it is in no files, or where another one has the name of one of them.
    fn all(model: &ModelFile) -> Option<Vec<Source>> {
        let parts = model.parts().iter();
        let sources = parts.map(|part| {
            let entry = mapped::file_of(part)?;
            let file = File::open(entry.path()).ok()?;
            let metadata = file.metadata().ok().filter(|metadata| entry.is(metadata))?;
            Some(Source {
                entry,
                file,
                map: part.clone(),
                tells: system::tells_of_cache(entry.path(), &metadata),
                piece: piece_of(&metadata),
            })
        });
        let sources: Option<Vec<Source>> = sources.collect();
        sources.filter(|sources| !sources.is_empty())
    }

    /// Whether the first and the last page of a piece are in the system's cache, as far as it tells: looking for all of
    /// them costs more than it saves.
    fn has(&self, piece: &Range<u64>) -> bool {
        let cached = |at: u64| {
            let byte = usize::try_from(at).ok().and_then(|at| self.map.get(at));
            byte.is_some_and(system::is_cached)
        };
        self.tells && cached(piece.start) && cached(piece.end.saturating_sub(1))
    }
}

/// Bytes of those files that were given back so far.
fn given_back(sources: &[Source]) -> u64 {
    sources.iter().map(|source| source.entry.given_back()).sum()
}

/// A matrix' bytes in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    part: usize,
    range: Range<u64>,
}

impl Span {
    fn of(model: &ModelFile, name: &str) -> Option<Self> {
        let (part, tensor) = model.set().tensor(name)?;
        Some(Span {
            part,
            range: tensor.offset..tensor.end(),
        })
    }

    fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// The spans as they will be read: in pieces, of each span those of `streams` equal parts in turn, since as many groups
/// of workers begin at as many places of it.
fn pieces(spans: &[Span], streams: usize, piece_of_part: impl Fn(usize) -> u64) -> Vec<Span> {
    let mut pieces = Vec::new();
    for Span { part, range } in spans {
        let piece = piece_of_part(*part);
        let stream = (range.end - range.start).div_ceil(streams.max(1) as u64).max(1);
        for first in (0..stream).step_by(piece as usize) {
            for start in (range.start..range.end).step_by(stream as usize) {
                let end = range.end.min(start + stream).min(start + first + piece);
                if start + first < end {
                    pieces.push(Span {
                        part: *part,
                        range: start + first..end,
                    });
                }
            }
        }
    }
    pieces
}

/// How far those have come who read.
#[derive(Debug)]
enum Position {
    /// They give back what they have read, each byte so many times; `before`: what was given back before they began.
    GivenBack { before: u64, copies: u64 },
    /// They do not say: what has arrived counts as read, so that at most a window is under way. Where the system does
    /// not tell what has arrived, its queue for the device is the window. The pages stay; if there are nodes, they lie
    /// on them in turn.
    Arrived { nodes: Vec<usize> },
}

fn start(
    sources: Vec<Source>,
    spans: Vec<Span>,
    streams: usize,
    window: u64,
    position: Position,
) -> Option<ReadAhead> {
    if spans.is_empty() || window < LEAST_WINDOW {
        return None;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("twinfer-ahead".into())
        .stack_size(256 << 10)
        .spawn(move || {
            if let Position::Arrived { nodes } = &position
                && !nodes.is_empty()
                && system::interleave_memory_of(nodes).is_err()
            {
                // The workers' own faults place the pages better than this thread alone would.
                return;
            }
            let pieces = pieces(&spans, streams, |part| sources[part].piece);
            read(&sources, pieces, window, &position, &stopped);
        });
    // Without the thread pages come as they are met.
    Some(ReadAhead {
        stop,
        thread: Some(thread.ok()?),
    })
}

/// Asks for one piece after the other, as far as the window goes.
fn read(sources: &[Source], pieces: Vec<Span>, window: u64, position: &Position, stop: &AtomicBool) {
    let mut asked = 0;
    // What may still be under way, and its bytes.
    let (mut under_way, mut bytes_under_way) = (VecDeque::<Span>::new(), 0);
    let mut waiting_since: Option<Instant> = None;
    for piece in pieces {
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let ahead = match position {
                Position::GivenBack { before, copies } => {
                    let done = given_back(sources).saturating_sub(*before) / copies;
                    asked - done.min(asked)
                }
                Position::Arrived { .. } => {
                    while let Some(first) = under_way.front()
                        && sources[first.part].has(&first.range)
                    {
                        bytes_under_way -= first.bytes();
                        under_way.pop_front();
                        waiting_since = None;
                    }
                    bytes_under_way
                }
            };
            if ahead + piece.bytes() <= window {
                break;
            }
            if matches!(position, Position::Arrived { .. })
                && waiting_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE
            {
                return;
            }
            std::thread::sleep(NAP);
        }
        asked += piece.bytes();
        let source = &sources[piece.part];
        if source.has(&piece.range) {
            continue;
        }
        if system::will_need(&source.file, piece.range.start, piece.bytes()).is_err() {
            // A system or a file system that takes no such advice takes none for the next piece.
            return;
        }
        if matches!(position, Position::Arrived { .. }) && source.tells {
            bytes_under_way += piece.bytes();
            under_way.push_back(piece);
        }
    }
}

/// Bytes that one call may ask for on the device that a file is on.
fn piece_of(metadata: &Metadata) -> u64 {
    let device = system::device_of(metadata);
    let most = device.map_or(0, |device| largest_request(Path::new("/"), device));
    most.clamp(LEAST_PIECE, LARGEST_PIECE)
}

/// The larger of a device's window and of its largest request; 0 where the system does not say. Files under a root, so
/// that tests can stand another machine there.
fn largest_request(root: &Path, (major, minor): (u32, u32)) -> u64 {
    let read = |path: String| -> Option<u64> {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        Some(text.trim().parse::<u64>().ok()? << 10)
    };
    let block = format!("sys/dev/block/{major}:{minor}");
    // A partition has no queue: its disk has.
    let of_queue = ["queue", "../queue"].into_iter().find_map(|queue| {
        let window = read(format!("{block}/{queue}/read_ahead_kb"))?;
        let request = read(format!("{block}/{queue}/max_sectors_kb")).unwrap_or(0);
        Some(window.max(request))
    });
    // File systems without a device of their own, as those of a network.
    of_queue
        .or_else(|| read(format!("sys/class/bdi/{major}:{minor}/read_ahead_kb")))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine_files::MachineFiles;

    fn arrived() -> Position {
        Position::Arrived { nodes: Vec::new() }
    }

    fn span(part: usize, range: Range<u64>) -> Span {
        Span { part, range }
    }

    #[test]
    fn pieces_cover_the_spans_once_in_the_order_of_the_streams() {
        let spans = [span(0, 100..1000), span(1, 5..6), span(0, 7..7), span(1, 6..400)];
        for streams in [0, 1, 2, 3, 7, 1000] {
            for size in [1, 64, 100_000] {
                let pieces = pieces(&spans, streams, |_| size);
                let mut sorted = pieces.clone();
                sorted.sort_by_key(|piece| (piece.part, piece.range.start));
                let mut covered: Vec<Span> = Vec::new();
                for piece in sorted {
                    assert!(piece.bytes() <= size && piece.bytes() > 0);
                    match covered.last_mut() {
                        Some(last) if last.part == piece.part && last.range.end == piece.range.start => {
                            last.range.end = piece.range.end;
                        }
                        _ => covered.push(piece),
                    }
                }
                assert_eq!(covered, [span(0, 100..1000), span(1, 5..400)], "{streams} {size}");
            }
        }
        let two = pieces(&[span(0, 0..10)], 2, |_| 3);
        let starts: Vec<u64> = two.iter().map(|piece| piece.range.start).collect();
        assert_eq!(starts, [0, 5, 3, 8]);
    }

    #[test]
    fn a_call_asks_for_what_a_device_reads_of_one() {
        let root = MachineFiles::new(
            "read-ahead",
            &[
                ("sys/devices/disk/queue/read_ahead_kb", "128\n"),
                ("sys/devices/disk/queue/max_sectors_kb", "1280\n"),
                ("sys/devices/disk/part/partition", "1\n"),
                ("sys/dev/block/8:16/queue/read_ahead_kb", "4096\n"),
                ("sys/dev/block/8:16/queue/max_sectors_kb", "512\n"),
                ("sys/class/bdi/0:40/read_ahead_kb", "1024\n"),
            ],
        );
        #[cfg(unix)]
        {
            let link = root.0.join("sys/dev/block/8:1");
            std::os::unix::fs::symlink(root.0.join("sys/devices/disk/part"), link).unwrap();
            assert_eq!(largest_request(&root.0, (8, 1)), 1280 << 10);
        }
        assert_eq!(largest_request(&root.0, (8, 16)), 4096 << 10);
        assert_eq!(largest_request(&root.0, (0, 40)), 1024 << 10);
        assert_eq!(largest_request(&root.0, (1, 1)), 0);
    }

    /// A file of which the system's cache holds nothing; `None` where that cannot be had, as in a file system that lies
    /// in memory.
    #[cfg(target_os = "linux")]
    fn cold(name: &str, bytes: u64) -> Option<(MachineFiles, Source)> {
        let directory = MachineFiles::new(name, &[("made", "")]);
        let path = directory.0.join("cold");
        std::fs::write(&path, vec![7u8; bytes as usize]).unwrap();
        let map = crate::memory::map(&path).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let source = Source {
            entry: mapped::file_of(&map).unwrap(),
            file,
            map,
            tells: true,
            // What every system reads of one call.
            piece: LEAST_PIECE,
        };
        // The header was asked for when the file was mapped: once it has arrived, it can be dropped.
        let begun = Instant::now();
        loop {
            rustix::fs::fadvise(&source.file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            if cached(&source.map).is_empty() {
                return Some((directory, source));
            }
            if begun.elapsed() > Duration::from_secs(5) {
                println!("left out: the system's cache keeps what it was to forget");
                return None;
            }
            std::thread::sleep(NAP);
        }
    }

    /// The pieces of [`LEAST_PIECE`] of a map that are in the system's cache, all of each.
    #[cfg(target_os = "linux")]
    fn cached(map: &[u8]) -> Vec<usize> {
        let pieces = map.chunks(LEAST_PIECE as usize).enumerate();
        let all = |piece: &[u8]| piece.iter().step_by(4096).all(system::is_cached);
        let found = pieces.filter(|(_, piece)| all(piece));
        found.map(|(i, _)| i).collect()
    }

    /// Waits until the cache holds these pieces and no other.
    #[cfg(target_os = "linux")]
    fn wait_for(map: &[u8], expected: impl Iterator<Item = u64>) {
        let expected: Vec<usize> = expected.map(|piece| piece as usize).collect();
        let begun = Instant::now();
        while cached(map) != expected {
            let waited = begun.elapsed() < Duration::from_secs(20);
            assert!(waited, "{:?} and not {expected:?}", cached(map));
            std::thread::sleep(NAP);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_window_follows_what_is_given_back() {
        const WINDOW: u64 = 32;
        let Some((_directory, source)) = cold("ahead-packing", 96 * LEAST_PIECE) else {
            return;
        };
        let map = source.map.clone();
        let give_back = |n: u64| map.release(0..(n * LEAST_PIECE) as usize);
        give_back(5);
        let sources = vec![source];
        let position = Position::GivenBack {
            before: given_back(&sources),
            copies: 2,
        };
        let spans = vec![span(0, 0..96 * LEAST_PIECE)];
        let ahead = start(sources, spans, 1, WINDOW * LEAST_PIECE, position).unwrap();
        wait_for(&map, 0..WINDOW);
        // Both of two readers give back what they have read.
        give_back(8);
        wait_for(&map, 0..WINDOW + 4);
        give_back(8);
        wait_for(&map, 0..WINDOW + 8);
        drop(ahead);
        give_back(96);
        std::thread::sleep(10 * NAP);
        wait_for(&map, 0..WINDOW + 8);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_nobody_follows_is_read_to_its_end() {
        let Some((_directory, source)) = cold("ahead-mapped", 192 * LEAST_PIECE) else {
            return;
        };
        let map = source.map.clone();
        let spans =
            [128..168, 0..64].map(|pieces| span(0, pieces.start * LEAST_PIECE..pieces.end * LEAST_PIECE));
        let ahead = start(vec![source], spans.into(), 1, LEAST_WINDOW, arrived()).unwrap();
        ahead.detach();
        wait_for(&map, (0..64).chain(128..168));
    }

    #[test]
    fn nothing_is_read_ahead_without_room() {
        let few = LEAST_WINDOW - 1;
        assert!(start(Vec::new(), vec![span(0, 0..1)], 1, few, arrived()).is_none());
        assert!(start(Vec::new(), Vec::new(), 1, WINDOW, arrived()).is_none());
    }
}
