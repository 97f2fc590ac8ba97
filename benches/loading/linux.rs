//! See `main.rs`.
#![allow(unsafe_code)] // three calls of the system

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use twinfer_benches::document::{paragraph, write_block};
use twinfer_benches::machine::{Machine, root};
use twinfer_benches::statistics::median;
use twinfer_benches::{program, run};

/// How a model is loaded.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// What the table calls it.
    name: &'static str,
    options: &'static [&'static str],
    /// What it cannot be faster than when the file is in the system's cache.
    warm: Limit,
}

/// Rates of the machine that loading is held against: the bytes of the file over one of them are the least time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// The disk.
    Disk,
    /// Memory is read.
    Read,
    /// Memory is read and as much is written.
    Copy,
}

const fn way(name: &'static str, options: &'static [&'static str], warm: Limit) -> Way {
    Way { name, options, warm }
}

const WAYS: &[Way] = &[
    way("packed", &[], Limit::Copy),
    way("packed, no huge pages", &["--huge-pages=off"], Limit::Copy),
    way("packed, mlock", &["--mlock"], Limit::Copy),
    way("packed, direct-io", &["--direct-io"], Limit::Disk),
    way("mapped", &["--weights", "mapped"], Limit::Read),
    way(
        "mapped, populate",
        &["--weights", "mapped", "--populate"],
        Limit::Read,
    ),
    way("mapped, mlock", &["--weights", "mapped", "--mlock"], Limit::Read),
    way(
        "mapped, huge pages",
        &["--weights", "mapped", "--huge-pages"],
        Limit::Read,
    ),
    way(
        "mapped, direct-io",
        &["--weights", "mapped", "--direct-io"],
        Limit::Disk,
    ),
];

/// Bytes of a read of the disk.
const READ: usize = 2 << 20;
/// Reads at a time, when the disk's rate is measured.
const READERS: usize = 8;

/// Times the ways of loading a model.
#[derive(Parser)]
struct Args {
    /// The model's file. Default: a 3B q4_k_m of random weights, 2 GB, in target/loading.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Starts of each way; the medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only the ways whose name has this text in it.
    #[arg(long, default_value = "")]
    ways: String,
    /// Puts the table into docs/machine.md.
    #[arg(long, conflicts_with = "ways")]
    docs: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one start came to.
#[derive(Debug, Clone, Copy)]
struct Start {
    seconds: f64,
    major: f64,
    minor: f64,
    /// The most resident memory, in MiB; mapped pages of the file count.
    peak: f64,
}

/// The machine's rates in bytes per second, each the better of two measurements: before the starts and after them.
#[derive(Debug, Clone, Copy)]
struct Rates {
    disk: f64,
    /// One read of the disk at a time.
    disk_alone: f64,
    read: f64,
    copy: f64,
}

impl Rates {
    fn measure(model: &Path) -> Result<Self> {
        Ok(Rates {
            disk: disk_rate(model, READERS)?,
            disk_alone: disk_rate(model, 1)?,
            read: memory_rate(false),
            copy: memory_rate(true),
        })
    }

    fn best(self, other: Self) -> Self {
        let max = |a: f64, b: f64| if a < b { b } else { a };
        Rates {
            disk: max(self.disk, other.disk),
            disk_alone: max(self.disk_alone, other.disk_alone),
            read: max(self.read, other.read),
            copy: max(self.copy, other.copy),
        }
    }

    fn of(&self, limit: Limit) -> f64 {
        match limit {
            Limit::Disk => self.disk,
            Limit::Read => self.read,
            Limit::Copy => self.copy,
        }
    }
}

pub(super) fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let ways: Vec<Way> = WAYS
        .iter()
        .filter(|way| way.name.contains(&args.ways))
        .copied()
        .collect();
    let program = program::build()?;
    let model = match args.model {
        Some(path) => path,
        None => made(&program)?,
    };
    let bytes = std::fs::metadata(&model)?.len() as f64;
    let before = Rates::measure(&model)?;
    let mut rows = Vec::new();
    for way in ways {
        let [cold, warm] = [true, false].map(|cold| -> Result<Start> {
            let starts: Result<Vec<Start>> = (0..args.rounds)
                .map(|_| {
                    if cold {
                        forget(&model)?;
                    } else {
                        read_whole(&model)?;
                    }
                    start(&program, &model, way.options)
                })
                .collect();
            Ok(medians(&starts?))
        });
        let (cold, warm) = (cold?, warm?);
        eprintln!(
            "{}: {:.2} s cold, {:.2} s warm",
            way.name, cold.seconds, warm.seconds
        );
        rows.push((way, cold, warm));
    }
    let rates = before.best(Rates::measure(&model)?);
    let mut text = paragraph(&Machine::describe().line());
    text += &paragraph(&format!(
        "{:.2} GB of model; the disk reads {:.2} GB/s ({:.2} one read at a time); memory: {:.1} GB/s read, {:.1} GB/s \
         copied. Shares are those of the file's bytes in the time to the first token: cold of the disk's rate, warm of \
         what is copied (packed), read (mapped), or read from the disk (direct-io). Medians of {} starts.",
        bytes / 1e9,
        rates.disk / 1e9,
        rates.disk_alone / 1e9,
        rates.read / 1e9,
        rates.copy / 1e9,
        args.rounds,
    ));
    text += &table(&rows, bytes, &rates);
    print!("{text}");
    if args.docs {
        write_block(&root().join("docs/machine.md"), "loading", &format!("\n{text}\n"))?;
    }
    Ok(())
}

/// Cold and warm, a row for each way.
fn table(rows: &[(Way, Start, Start)], bytes: f64, rates: &Rates) -> String {
    let mut text = String::from(
        "| way | cold, s | of the limit | warm, s | of the limit | major faults, cold / warm \
         | minor faults, cold / warm | peak, MiB |\n|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (way, cold, warm) in rows {
        let share = |start: &Start, limit: Limit| 100.0 * bytes / rates.of(limit) / start.seconds;
        let peak = if cold.peak < warm.peak {
            warm.peak
        } else {
            cold.peak
        };
        text += &format!(
            "| {} | {:.2} | {:.0} % | {:.2} | {:.0} % | {:.0} / {:.0} | {:.0} / {:.0} | {peak:.0} |\n",
            way.name,
            cold.seconds,
            share(cold, Limit::Disk),
            warm.seconds,
            share(warm, way.warm),
            cold.major,
            warm.major,
            cold.minor,
            warm.minor,
        );
    }
    text
}

fn medians(starts: &[Start]) -> Start {
    let of = |value: fn(&Start) -> f64| {
        let values: Vec<f64> = starts.iter().map(value).collect();
        median(&values).unwrap_or(f64::NAN)
    };
    Start {
        seconds: of(|start| start.seconds),
        major: of(|start| start.major),
        minor: of(|start| start.minor),
        peak: of(|start| start.peak),
    }
}

/// A model of random weights, made once.
fn made(program: &Path) -> Result<PathBuf> {
    let directory = root().join("target/loading");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("llama-3.2-3b-q4_k_m.gguf");
    if !path.exists() {
        eprintln!("making a model of 2 GB");
        let mut make = Command::new(program);
        make.args([
            "bench",
            "--shape",
            "llama-3.2-3b",
            "--type",
            "q4_k_m",
            "-p",
            "0",
            "-n",
            "0",
            "-o",
        ]);
        run::quietly(make.arg(&path))?;
    }
    Ok(path)
}

/// Starts the program and waits for the first byte of its text.
fn start(program: &Path, model: &Path, options: &[&str]) -> Result<Start> {
    let mut command = Command::new(program);
    command
        .args([
            "run",
            "Once",
            "--no-display-prompt",
            "-n",
            "1",
            "-c",
            "512",
            "-q",
            "-m",
        ])
        .arg(model)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let begun = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("`{}` could not be started", run::line(&command)))?;
    let mut out = child.stdout.take().context("the child has a pipe")?;
    let first = out.read(&mut [0])?;
    let seconds = begun.elapsed().as_secs_f64();
    out.read_to_end(&mut Vec::new())?;
    let mut status = 0;
    // SAFETY: counts of zero are valid ones.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live; the child is this process's and nobody else waits for it.
    let found = unsafe { libc::wait4(child.id().cast_signed(), &mut status, 0, &mut used) };
    if found < 0 || status != 0 || first == 0 {
        bail!("`{}` failed", run::line(&command));
    }
    Ok(Start {
        seconds,
        major: used.ru_majflt as f64,
        minor: used.ru_minflt as f64,
        peak: used.ru_maxrss as f64 / 1024.0,
    })
}

/// Makes the system's cache hold nothing of the file.
fn forget(model: &Path) -> Result<()> {
    let file = File::open(model)?;
    file.sync_all()?;
    if std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
        return Ok(());
    }
    // SAFETY: the descriptor is open; the call changes no data.
    let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    ensure!(refused == 0, "the system does not forget the file");
    Ok(())
}

/// Brings the file into the system's cache.
fn read_whole(model: &Path) -> Result<()> {
    let mut file = File::open(model)?;
    let mut buffer = vec![0; READ];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Bytes per second of reads past the cache, so many at a time.
fn disk_rate(model: &Path, readers: usize) -> Result<f64> {
    const BLOCK: usize = 4096;
    forget(model)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(model)
        .context("this file system has no direct reads; give a model on one that has")?;
    let len = file.metadata()?.len();
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..readers)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut memory = vec![0u8; READ + BLOCK];
                    let at = memory.as_ptr().align_offset(BLOCK);
                    let buffer = &mut memory[at..at + READ];
                    loop {
                        let offset = next.fetch_add(READ as u64, Ordering::Relaxed);
                        if offset >= len {
                            return Ok(());
                        }
                        file.read_at(buffer, offset)?;
                    }
                })
            })
            .collect();
        all.into_iter()
            .try_for_each(|one| one.join().expect("it does not panic"))
    })?;
    Ok(len as f64 / begun.elapsed().as_secs_f64())
}

/// Bytes per second that all CPUs read of memory, or copy from memory to memory.
fn memory_rate(copied: bool) -> f64 {
    const BYTES: usize = 256 << 20;
    const RUNS: usize = 3;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let barrier = std::sync::Barrier::new(cpus);
    let run = || {
        let (from, mut to) = (
            vec![1u64; BYTES / 8],
            vec![2u64; if copied { BYTES / 8 } else { 0 }],
        );
        // What the vector holds is no secret of the compiler's.
        let from = std::hint::black_box(from);
        let mut seconds = [0.0; RUNS];
        for seconds in &mut seconds {
            barrier.wait();
            let begun = Instant::now();
            if copied {
                to.copy_from_slice(&from);
                std::hint::black_box(&to);
            } else {
                let sum = from.iter().fold(0u64, |sum, value| sum.wrapping_add(*value));
                std::hint::black_box(sum);
            }
            *seconds = begun.elapsed().as_secs_f64();
        }
        seconds
    };
    let all: Vec<[f64; RUNS]> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..cpus).map(|_| scope.spawn(run)).collect();
        let all = all.into_iter();
        all.map(|one| one.join().expect("it does not panic")).collect()
    });
    // Of a run the slowest thread counts, of the runs the middle one.
    let slowest = |run: usize| {
        all.iter()
            .map(|one| one[run])
            .fold(0.0, |most, s| if most < s { s } else { most })
    };
    let runs: Vec<f64> = (0..RUNS).map(slowest).collect();
    (cpus * BYTES) as f64 / median(&runs).unwrap_or(f64::NAN)
}
