//! What can happen to a program that runs: CPUs are taken away, it is stopped, a worker is, the system refuses memory
//! or threads. Nothing hangs; the text is the one of an undisturbed run, or the error says what is missing.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::support::{Directory, Run, command, twinfer};

/// A text that takes some seconds.
const TEXT: [&str; 10] = [
    "run",
    "-p",
    "Once upon a time",
    "-n",
    "2000",
    "-c",
    "2048",
    "-s",
    "7",
    "--ignore-eos",
];

/// Bytes of it after which things happen.
const BEGUN: usize = 500;

/// Whatever runs longer than this hangs: hundreds of times longer than it takes.
const HANGS: Duration = Duration::from_secs(300);

/// The text of one worker that nobody disturbs.
fn undisturbed() -> &'static [u8] {
    static TEXT_OF_ONE: OnceLock<Vec<u8>> = OnceLock::new();
    TEXT_OF_ONE.get_or_init(|| twinfer(&[&TEXT[..], &["-t", "1"]].concat()).ok().out)
}

/// A program in the middle of its text.
struct Writing {
    child: Child,
    begin: Vec<u8>,
    rest: JoinHandle<Vec<u8>>,
    errors: JoinHandle<String>,
}

impl Writing {
    fn begin(args: &[&str]) -> Self {
        let mut child = command(&[&TEXT[..], args].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut err = child.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            text
        });
        let mut begin = vec![0; BEGUN];
        out.read_exact(&mut begin).unwrap();
        let rest = std::thread::spawn(move || {
            let mut rest = Vec::new();
            out.read_to_end(&mut rest).unwrap();
            rest
        });
        Self {
            child,
            begin,
            rest,
            errors,
        }
    }

    /// Its threads and their names.
    fn threads(&self) -> Vec<(i32, String)> {
        let tasks = format!("/proc/{}/task", self.child.id());
        fs::read_dir(tasks)
            .unwrap()
            .filter_map(|entry| {
                let path = entry.unwrap().path();
                let name = fs::read_to_string(path.join("comm")).ok()?;
                Some((path.file_name()?.to_str()?.parse().ok()?, name.trim().to_owned()))
            })
            .collect()
    }

    /// The thread that is this worker.
    fn worker(&self, number: usize) -> i32 {
        let name = format!("twinfer-{number}");
        let threads = self.threads();
        let found = threads.iter().find(|thread| thread.1 == name);
        found.unwrap_or_else(|| panic!("no {name} in {threads:?}")).0
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, which must be that of an undisturbed text.
    #[track_caller]
    fn ends_well(mut self, what: &str) {
        let end = Instant::now() + HANGS;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                panic!("{what}: it hangs");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let err = self.errors.join().unwrap();
        assert!(status.success(), "{what}: {status}: {err}");
        let text = [self.begin, self.rest.join().unwrap()].concat();
        assert!(text == undisturbed(), "{what}: another text");
    }
}

/// CPUs that this process may use.
fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

#[test]
fn more_workers_than_cores_write_the_same_text() {
    let many = (2 * cpus().len()).to_string();
    for args in [&["-t", &many][..], &["-t", &many, "--pin"]] {
        Writing::begin(args).ends_well(&args.join(" "));
    }
}

#[test]
fn all_cpus_but_one_are_taken_away() {
    let one = cpus()[0];
    let mut set = CpuSet::new();
    set.set(one);
    for args in [&["-t", "2", "--pin"][..], &["-t", "4"]] {
        let writing = Writing::begin(args);
        for (thread, _) in writing.threads() {
            // A thread that has ended meanwhile needs no CPU.
            let _ = sched_setaffinity(Pid::from_raw(thread), &set);
        }
        writing.ends_well(&format!("{} on CPU {one} alone", args.join(" ")));
    }
}

#[test]
fn a_program_that_was_stopped_goes_on() {
    let writing = Writing::begin(&["-t", "2"]);
    writing.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(1));
    writing.signal(Signal::CONT);
    writing.ends_well("stopped for a second");
}

/// One thread alone cannot be stopped by a signal; a debugger can.
#[test]
fn a_worker_that_was_stopped_goes_on() {
    let writing = Writing::begin(&["-t", "3"]);
    let worker = nix::unistd::Pid::from_raw(writing.worker(2));
    if let Err(error) = ptrace::seize(worker, ptrace::Options::empty()) {
        println!("left out: this process may not stop threads of another one: {error}");
        return writing.ends_well("a worker");
    }
    let stop = |time| {
        ptrace::interrupt(worker).unwrap();
        waitpid(worker, Some(WaitPidFlag::__WALL)).unwrap();
        std::thread::sleep(time);
    };
    // In the middle of an operation or between two: each time it is somewhere else.
    for _ in 0..4 {
        stop(Duration::from_millis(25));
        ptrace::cont(worker, None).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    stop(Duration::from_secs(1));
    if ptrace::detach(worker, None).is_err() {
        // The others have written the text meanwhile, and the program has ended. It is gone once its last thread is.
        let _ = waitpid(worker, Some(WaitPidFlag::__WALL));
    }
    writing.ends_well("a worker stopped for a second");
}

/// A thread that the scheduler prefers takes a worker's CPU for a second, and the worker may run nowhere else.
#[test]
fn a_worker_without_a_cpu_delays_the_text_and_no_more() {
    let cpus = cpus();
    let [_, .., last] = cpus[..] else {
        println!("left out: one CPU");
        return;
    };
    let writing = Writing::begin(&["-t", "2"]);
    let mut set = CpuSet::new();
    set.set(last);
    sched_setaffinity(Pid::from_raw(writing.worker(1)), &set).unwrap();
    let busy = "while :; do :; done";
    let starved = Command::new("timeout")
        .args([
            "1",
            "taskset",
            "-c",
            &last.to_string(),
            "chrt",
            "-f",
            "1",
            "sh",
            "-c",
            busy,
        ])
        .stderr(Stdio::null())
        .status();
    // `timeout` says 124 where it had to end the command; otherwise the command had failed before.
    if starved.as_ref().map_or(None, |status| status.code()) != Some(124) {
        println!("left out: no real-time thread can be started here: {starved:?}");
    }
    writing.ends_well("a worker starved for a second");
}

/// A run under a limit, as `prlimit` takes it. Root is held by none of them unless it is another user, or lacks the
/// capability.
fn limited(directory: &Directory, limit: &str, as_nobody: bool, args: &[&str]) -> Run {
    // Others than its owner may run this copy.
    let program = directory.0.join("twinfer");
    if !program.exists() {
        fs::copy(command(&[]).get_program(), &program).unwrap();
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let prefix: &[&str] = match (rustix::process::geteuid().is_root(), as_nobody) {
        (true, true) => &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
        (true, false) => &["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"],
        (false, _) => &[],
    };
    let words = [prefix, &["prlimit", limit, program.to_str().unwrap()], args].concat();
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

const SHORT: [&str; 6] = ["run", "-n", "20", "-s", "1", "Once"];

#[test]
fn a_refused_lock_changes_no_text() {
    let directory = Directory::new("faults-lock");
    let expected = twinfer(&SHORT).ok().out;
    let run = limited(
        &directory,
        "--memlock=0",
        false,
        &[&SHORT[..], &["--mlock"]].concat(),
    )
    .ok();
    assert_eq!(run.out, expected);
    for part in [
        "--mlock: 0 of",
        "RLIMIT_MEMLOCK",
        "is 0 KiB",
        "ulimit -l",
        "going on without",
    ] {
        assert!(run.err.contains(part), "{part}: {}", run.err);
    }
}

#[test]
fn refused_threads_are_an_error() {
    let directory = Directory::new("faults-threads");
    let run = limited(
        &directory,
        "--nproc=1",
        true,
        &[&SHORT[..], &["-t", "8"]].concat(),
    );
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(
        run.err
            .contains("cannot start 8 threads; try a smaller --threads"),
        "{}",
        run.err
    );
    // One worker is the thread that is there.
    let run = limited(
        &directory,
        "--nproc=1",
        true,
        &[&SHORT[..], &["-t", "1"]].concat(),
    )
    .ok();
    assert_eq!(run.out, twinfer(&SHORT).ok().out);
}

#[test]
fn refused_address_space_is_an_error() {
    let directory = Directory::new("faults-space");
    // Packed weights lie in reservations of 256 MiB.
    let run = limited(&directory, "--as=262144000", false, &SHORT);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(
        run.err.starts_with("error: ") && run.err.contains("not enough memory"),
        "{}",
        run.err
    );
    let run = limited(&directory, "--as=4294967296", false, &SHORT).ok();
    assert_eq!(run.out, twinfer(&SHORT).ok().out);
}

/// The number in kibibytes that an error says a limit must be raised to.
#[track_caller]
fn needed_kib(err: &str, limit: &str, name: &str) -> u64 {
    assert!(
        err.contains(&format!("{limit} KiB of {name} and needs at least ")),
        "{err}"
    );
    let (_, rest) = err.split_once(" and needs at least ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_limit_of_address_space_is_named_and_what_is_needed_suffices() {
    let directory = Directory::new("faults-limits");
    let expected = twinfer(&SHORT).ok().out;
    for (option, name) in [
        ("--as", "address space (RLIMIT_AS)"),
        ("--data", "data (RLIMIT_DATA)"),
    ] {
        // Room for the program, and not for a reservation.
        let mut kib = 250_000;
        let mut refusals = 0;
        loop {
            let run = limited(&directory, &format!("{option}={}", kib << 10), false, &SHORT);
            if run.code == 0 {
                assert_eq!(run.out, expected, "{option}");
                break;
            }
            assert_eq!(run.code, 1, "{option}: {}", run.err);
            let needed = needed_kib(&run.err, &kib.to_string(), name);
            println!("{option}: {kib} KiB are too few, {needed} are said to be needed");
            assert!(needed > kib, "{}", run.err);
            kib = needed;
            refusals += 1;
            // One for the weights, others for what is asked for after them.
            assert!(refusals < 8, "{}", run.err);
        }
        assert!(refusals > 0, "{option}: the limit was none");
    }
    // A file that is larger than the address space, most of it a hole.
    let model = directory.file("large.gguf");
    fs::File::create(&model).unwrap().set_len(1 << 40).unwrap();
    let run = limited(&directory, "--as=1073741824", false, &["inspect", "-m", &model]);
    assert_eq!(run.code, 1, "{}", run.err);
    let needed = needed_kib(&run.err, "1048576", "address space (RLIMIT_AS)");
    assert!(needed > 1 << 30, "{}", run.err);
    for part in ["cannot map `", "large.gguf", "1099511627776 bytes", "ulimit -v"] {
        assert!(run.err.contains(part), "{part}: {}", run.err);
    }
}
