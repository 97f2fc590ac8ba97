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
use twinfer_benches::machine::{Machine, root};
use twinfer_benches::statistics::median;
use twinfer_benches::{program, run};

/// How a model is loaded: what the table calls it, and the options.
type Way = (&'static str, &'static [&'static str]);

const WAYS: &[Way] = &[
    ("packed (auto)", &[]),
    ("packed, no huge pages", &["--huge-pages=off"]),
    ("packed, mlock", &["--mlock"]),
    ("packed, direct-io", &["--direct-io"]),
    ("mapped", &["--weights", "mapped"]),
    ("mapped, populate", &["--weights", "mapped", "--populate"]),
    ("mapped, mlock", &["--weights", "mapped", "--mlock"]),
    ("mapped, huge pages", &["--weights", "mapped", "--huge-pages"]),
    ("mapped, direct-io", &["--weights", "mapped", "--direct-io"]),
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

pub(super) fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let program = program::build()?;
    let model = match args.model {
        Some(path) => path,
        None => made(&program)?,
    };
    let bytes = std::fs::metadata(&model)?.len() as f64;
    println!("{}\n", Machine::describe().line());
    println!(
        "{:.2} GB of model; disk {:.2} GB/s (one read at a time {:.2}); copying memory {:.1} GB/s\n",
        bytes / 1e9,
        disk_rate(&model, READERS)? / 1e9,
        disk_rate(&model, 1)? / 1e9,
        copy_rate() / 1e9,
    );
    println!(
        "| way | cache | to the first token, s | GB/s | major faults | minor faults | peak memory, MiB |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|");
    for cold in [true, false] {
        for (name, options) in WAYS {
            let mut starts = Vec::new();
            for _ in 0..args.rounds {
                if cold {
                    forget(&model)?
                } else {
                    read_whole(&model)?
                }
                starts.push(start(&program, &model, options)?);
            }
            let of = |value: fn(&Start) -> f64| {
                let values: Vec<f64> = starts.iter().map(value).collect();
                median(&values).unwrap_or(f64::NAN)
            };
            let seconds = of(|start| start.seconds);
            println!(
                "| {name} | {} | {seconds:.2} | {:.2} | {:.0} | {:.0} | {:.0} |",
                if cold { "cold" } else { "warm" },
                bytes / seconds / 1e9,
                of(|start| start.major),
                of(|start| start.minor),
                of(|start| start.peak),
            );
        }
    }
    Ok(())
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

/// Bytes per second that all CPUs copy from memory to memory.
fn copy_rate() -> f64 {
    const BYTES: usize = 256 << 20;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let barrier = std::sync::Barrier::new(cpus);
    let seconds = std::thread::scope(|scope| {
        let copy = || {
            let (from, mut to) = (vec![1u8; BYTES], vec![2u8; BYTES]);
            barrier.wait();
            let begun = Instant::now();
            to.copy_from_slice(&from);
            std::hint::black_box(&to);
            begun.elapsed().as_secs_f64()
        };
        let all: Vec<_> = (0..cpus).map(|_| scope.spawn(copy)).collect();
        all.into_iter()
            .map(|one| one.join().expect("it does not panic"))
            .fold(0.0, |most, seconds| if most < seconds { seconds } else { most })
    });
    (cpus * BYTES) as f64 / seconds
}
