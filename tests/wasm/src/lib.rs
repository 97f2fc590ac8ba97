//! The wasm end of the parity tests: bytes in, [`twinfer_tests::answer`], JSON out.
//!
//! A plain module for wasm32-unknown-unknown: no imports, no generated glue. The host (`run.mjs`) asks for room
//! with [`blob`] and [`request`], copies the bytes into the module's memory, calls [`run`], and reads
//! [`output_len`] bytes at the address that it returned. The files of a request are consumed by it.
//! After a trap, [`panic_message`] says what happened (a panic on this platform ends in a trap).
//
// The only unsafe things here are the exported names: nothing else in the module may define the same symbols.
#![allow(unsafe_code)]
#![cfg_attr(not(target_family = "wasm"), allow(missing_docs))]

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

struct State {
    blobs: Vec<Vec<u8>>,
    request: Vec<u8>,
    output: Vec<u8>,
}

static STATE: Mutex<State> = Mutex::new(State {
    blobs: Vec::new(),
    request: Vec::new(),
    output: Vec::new(),
});
static PANIC: Mutex<String> = Mutex::new(String::new());

/// A lock that a panic left behind is as good as any: there is one thread, and it is gone.
fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room for the next file of the coming request: the address of `len` zero bytes.
// SAFETY: no other item exports this name.
#[unsafe(no_mangle)]
pub extern "C" fn blob(len: usize) -> *mut u8 {
    let mut state = lock(&STATE);
    state.blobs.push(vec![0; len]);
    state.blobs.last_mut().expect("it was pushed above").as_mut_ptr()
}

/// Room for the request, as JSON: the address of `len` zero bytes.
// SAFETY: no other item exports this name.
#[unsafe(no_mangle)]
pub extern "C" fn request(len: usize) -> *mut u8 {
    let mut state = lock(&STATE);
    state.request = vec![0; len];
    state.request.as_mut_ptr()
}

/// Answers the request: the address of the answer's JSON.
// SAFETY: no other item exports this name.
#[unsafe(no_mangle)]
pub extern "C" fn run() -> *const u8 {
    std::panic::set_hook(Box::new(|info| *lock(&PANIC) = info.to_string()));
    let (request, blobs) = {
        let mut state = lock(&STATE);
        (
            std::mem::take(&mut state.request),
            std::mem::take(&mut state.blobs),
        )
    };
    let answer = match serde_json::from_slice(&request) {
        Ok(request) => twinfer_tests::answer(&request, blobs),
        Err(error) => json!({ "bad_request": error.to_string() }),
    };
    let mut state = lock(&STATE);
    state.output = answer.to_string().into_bytes();
    state.output.as_ptr()
}

/// Length of the last answer, or of the last panic's message, in bytes.
// SAFETY: no other item exports this name.
#[unsafe(no_mangle)]
pub extern "C" fn output_len() -> usize {
    lock(&STATE).output.len()
}

/// The address of the last panic's message; its length is [`output_len`].
// SAFETY: no other item exports this name.
#[unsafe(no_mangle)]
pub extern "C" fn panic_message() -> *const u8 {
    let mut state = lock(&STATE);
    state.output = lock(&PANIC).clone().into_bytes();
    state.output.as_ptr()
}
