//! Progress bars: on stderr, only where a person is looking, and only for work that has already taken a moment.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;
use crate::settings::Verbosity;

/// Work that ends before this shows nothing.
const DELAY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    /// `None` once shown, or where nothing is ever shown.
    show_at: Option<Duration>,
}

impl Progress {
    /// A bar for `total` units, hidden at first. `what` stands before it.
    pub(crate) fn new(what: &str, total: u64, verbosity: Verbosity) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{msg} {wide_bar:.cyan/dim} {percent:>3}% {eta:>4}    ")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what.to_string());
        let visible =
            !verbosity.is_quiet() && std::io::stderr().is_terminal() && !output::terminal_is_unknown();
        Self {
            bar,
            started: Instant::now(),
            show_at: visible.then_some(DELAY),
        }
    }

    /// Units done so far, of the total given at first or a new one.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.show_at.is_some_and(|delay| self.started.elapsed() >= delay) {
            self.show_at = None;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.tick();
        }
    }

    pub(crate) fn add(&mut self, units: u64) {
        let total = self.bar.length().unwrap_or(0);
        self.set(self.bar.position() + units, total);
    }

    /// Changes what stands before the bar.
    pub(crate) fn message(&self, what: &str) {
        self.bar.set_message(what.to_string());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
