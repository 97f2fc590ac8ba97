//! Signals beside Ctrl-C that would end the process in the middle of a file or of a line that is being edited.

use signal_hook::consts::{SIGHUP, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::output_file::remove_unfinished;
use crate::system;
#[cfg(target_os = "linux")]
use crate::terminal;

/// SIGTERM, and SIGHUP of a terminal that is closed, end the process as they always do, but unfinished files are
/// removed first and the terminal is put back in order. A file that grows over its limit (`ulimit -f`) makes its write
/// fail, where the signal for it would end the process.
pub(super) fn install() {
    let mut handled = vec![SIGTERM, SIGXFSZ];
    // Under nohup it is ignored, and stays so.
    if system::ignores_signal(SIGHUP) == Some(false) {
        handled.push(SIGHUP);
    }
    // Without handlers they end the process, which is right as well.
    let Ok(mut signals) = Signals::new(handled) else {
        return;
    };
    let _ = std::thread::Builder::new()
        .name("twinfer-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if signal == SIGTERM || signal == SIGHUP {
                    #[cfg(target_os = "linux")]
                    terminal::restore();
                    let _held = remove_unfinished();
                    let _ = emulate_default_handler(signal);
                }
            }
        });
}
