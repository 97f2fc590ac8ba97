//! Ctrl-C. Where a command can stop in good order it holds a [`Guard`] and asks [`requested`] now and then; anywhere
//! else, and at the second press, the process ends at once.

#[cfg(unix)]
mod unix;

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;

use crate::failure::{self, Interrupted};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static GUARDS: AtomicUsize = AtomicUsize::new(0);
static INSTALL: Once = Once::new();

/// From here on unfinished files are removed before Ctrl-C or the system ends the process.
pub(crate) fn install() {
    INSTALL.call_once(|| {
        // Without a handler Ctrl-C ends the process, which is right as well.
        let _ = ctrlc::set_handler(|| {
            let again = REQUESTED.swap(true, Ordering::SeqCst);
            if again || GUARDS.load(Ordering::SeqCst) == 0 {
                failure::exit_interrupted();
            }
        });
        #[cfg(unix)]
        unix::install();
    });
}

/// While one exists, Ctrl-C is a request, not an end.
#[derive(Debug)]
pub(crate) struct Guard(());

impl Guard {
    pub(crate) fn new() -> Self {
        install();
        REQUESTED.store(false, Ordering::SeqCst);
        GUARDS.fetch_add(1, Ordering::SeqCst);
        Guard(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDS.fetch_sub(1, Ordering::SeqCst);
        REQUESTED.store(false, Ordering::SeqCst);
    }
}

/// Whether Ctrl-C was pressed since the last guard was made.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// An error if it was.
pub(crate) fn check() -> Result<()> {
    if requested() {
        Err(Interrupted.into())
    } else {
        Ok(())
    }
}
