//! Following what an emulated machine prints to its serial port, until it has switched itself off.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::line;

/// Ends the emulator with its owner: Bochs ignores SIGTERM and would run on.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the emulator, which writes its machine's serial port to the file `serial`, and returns what was printed there
/// once it has ended. Each line is shown as it comes.
///
/// # Errors
/// The emulator cannot be started, or runs longer than `limit`.
pub(crate) fn follow(emulator: &mut Command, serial: &Path, limit: Duration) -> Result<String> {
    // An earlier run's.
    File::create(serial).with_context(|| format!("cannot write {}", serial.display()))?;
    let start = Instant::now();
    let child = emulator
        .spawn()
        .with_context(|| format!("`{}` could not be started", line(emulator)))?;
    let mut emulator = Emulator(child);
    let mut port = File::open(serial)?;
    let (mut bytes, mut shown) = (Vec::new(), 0);
    loop {
        // The state first: what was printed before the end is then read after it.
        let ended = emulator.0.try_wait()?.is_some();
        port.read_to_end(&mut bytes)?;
        while let Some(len) = bytes[shown..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[shown..shown + len]);
            println!("{:>6.1} s  {}", start.elapsed().as_secs_f64(), line.trim_end());
            shown += len + 1;
        }
        if ended {
            return Ok(String::from_utf8_lossy(&bytes).replace('\r', ""));
        }
        if start.elapsed() > limit {
            bail!("the emulated machine was not done after {} s", limit.as_secs());
        }
        sleep(Duration::from_millis(200));
    }
}
