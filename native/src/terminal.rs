//! The terminal's settings, for a process that a signal ends while a line is being edited: the editor has no chance to
//! put them back then, and the shell would not show what is typed.

use std::io::{stdin, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The settings from before the line, while one is being edited.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Switches off what editors switch on beside the settings: pasted text comes between marks.
const NO_BRACKETED_PASTE: &[u8] = b"\x1b[?2004l";

/// While one exists, [`restore`] puts the terminal back as it was when it was made.
#[derive(Debug)]
pub(crate) struct Editing(());

impl Editing {
    pub(crate) fn new() -> Self {
        *before() = tcgetattr(stdin()).ok();
        Self(())
    }
}

impl Drop for Editing {
    fn drop(&mut self) {
        *before() = None;
    }
}

fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts the terminal back where a line is being edited. A terminal that is gone needs nothing.
pub(crate) fn restore() {
    let Some(settings) = before().take() else { return };
    let _ = rustix::io::write(stdout(), NO_BRACKETED_PASTE);
    let _ = tcsetattr(stdin(), OptionalActions::Now, &settings);
}
