//! Signals beside Ctrl-C that would end the process in the middle of a file.

use signal_hook::consts::{SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::output_file::remove_unfinished;

/// SIGTERM ends the process as it always does, but unfinished files are removed first. A file that grows over its limit
/// (`ulimit -f`) makes its write fail, where the signal for it would end the process.
pub(super) fn install() {
    // Without handlers they end the process, which is right as well.
    let Ok(mut signals) = Signals::new([SIGTERM, SIGXFSZ]) else {
        return;
    };
    let _ = std::thread::Builder::new()
        .name("twinfer-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if signal == SIGTERM {
                    let _held = remove_unfinished();
                    let _ = emulate_default_handler(SIGTERM);
                }
            }
        });
}
