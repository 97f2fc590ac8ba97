//! The signal of a page that cannot be had.
//!
//! The handler may do very little, so it hands the address to a thread that waits for it, and holds the thread that it
//! interrupted: there is nothing that it could go on with. The other thread ends the process in good order.
#![allow(unsafe_code)] // a signal handler

use std::io::{PipeReader, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::IntoRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Once, OnceLock};
use std::{io, ptr};

use anyhow::anyhow;
use libc::{SIGBUS, c_int, c_void, siginfo_t};

use super::{Entry, find};
use crate::failure;

/// Where the handler writes an address; -1 where nobody waits for one.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// What was done at this signal before: the standard library looks for overflows of the stack.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// How long the handler waits for the process to end, in tenths of a second.
const PATIENCE: usize = 30;

/// Sets the handler, once. Where it cannot be set, the signal does what it always does.
pub(super) fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        if let Ok((reader, writer)) = io::pipe() {
            let waiting = std::thread::Builder::new()
                .name("twinfer-mapped".into())
                .stack_size(256 << 10)
                .spawn(move || wait(reader));
            if waiting.is_ok() {
                PIPE.store(writer.into_raw_fd(), Ordering::Release);
            }
        }
        // SAFETY: an action of zeros is a valid one: no flags, no mask, and the handler is set below.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_signal;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before = MaybeUninit::uninit();
        // SAFETY: both pointers are to actions; `before` is written where the call succeeds. The handler comes into
        // force only with the second call, when what was before is known.
        unsafe {
            if libc::sigaction(SIGBUS, ptr::null(), before.as_mut_ptr()) == 0 {
                let _ = BEFORE.set(before.assume_init());
                libc::sigaction(SIGBUS, &action, ptr::null_mut());
            }
        }
    });
}

/// Only calls that are safe in a signal handler (signal-safety(7)) and reads of atomics.
extern "C" fn on_signal(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the system gives a valid pointer, and of this signal the information has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    let Some((entry, _)) = find(address) else {
        // Not of a map: what was done before is done, when the instruction is tried again.
        if let Some(before) = BEFORE.get() {
            // SAFETY: the action is the one that the system gave.
            unsafe { libc::sigaction(SIGBUS, before, ptr::null_mut()) };
        }
        return;
    };
    let pipe = PIPE.load(Ordering::Acquire);
    let message = address.to_ne_bytes();
    // SAFETY: the buffer is as long as is said; a descriptor that is -1 is an error.
    let written = unsafe { libc::write(pipe, message.as_ptr().cast(), message.len()) };
    if written == message.len() as isize {
        for _ in 0..PATIENCE {
            let tenth = libc::timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            // SAFETY: the time is valid, and the rest of it is not asked for.
            unsafe { libc::nanosleep(&tenth, ptr::null_mut()) };
        }
    }
    // Nobody waits, or who waits is held by something that this thread holds.
    for part in [
        b"error: `".as_slice(),
        entry.path.as_os_str().as_bytes(),
        b"` can no longer be read\n",
    ] {
        // SAFETY: the buffer is as long as is said.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: ends the process.
    unsafe { libc::_exit(c_int::from(failure::FAILED)) }
}

/// Waits for an address and ends the process. The interrupted thread still holds the map.
fn wait(mut pipe: PipeReader) {
    let mut address = [0; size_of::<usize>()];
    if pipe.read_exact(&mut address).is_err() {
        return;
    }
    if let Some((entry, offset)) = find(usize::from_ne_bytes(address)) {
        failure::exit_failed(&error(entry, offset));
    }
}

fn error(entry: &Entry, offset: usize) -> anyhow::Error {
    anyhow!(
        "`{}` can no longer be read at byte {offset}: {}; the file of a model must stay as it is while the model runs \
         (with --weights packed only until it is loaded)",
        entry.path.display(),
        entry.why(offset as u64)
    )
}
