//! Booting the image in Bochs, and following what the machine prints to its serial port.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::command;

/// The display that needs no window system; without it Bochs does not start.
pub(super) const DISPLAY: &str = "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so";
/// Bochs' oldest model with VNNI beside AVX-512 F, BW, VL and DQ.
const PROCESSOR: &str = "corei7_icelake_u";

/// Ends the emulator with its owner: it ignores SIGTERM and would run on.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots `image` and returns what it printed once the machine has switched itself off. Each line is shown as it comes.
pub(super) fn run(directory: &Path, image: &Path, limit: Duration) -> Result<String> {
    let [serial, log, configuration, commands] =
        ["serial.txt", "bochs.log", "bochsrc", "commands"].map(|name| directory.join(name));
    // `ips` is how many instructions make an emulated second: a low one has few timer interrupts and short waits.
    std::fs::write(
        &configuration,
        format!(
            "display_library: term\n\
             romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
             vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
             cpu: model={PROCESSOR}, count=1, ips=40000000, reset_on_triple_fault=0\n\
             memory: guest=512, host=512\n\
             clock: sync=none\n\
             ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
             ata0-master: type=cdrom, path={}, status=inserted\n\
             boot: cdrom\n\
             com1: enabled=1, mode=file, dev={}\n\
             log: {}\n\
             panic: action=fatal\n\
             error: action=ignore\n\
             info: action=report\n\
             debug: action=ignore\n",
            image.display(),
            serial.display(),
            log.display()
        ),
    )?;
    // Debian's Bochs has a debugger, which waits for a command before it starts the machine.
    std::fs::write(&commands, "continue\n")?;
    File::create(&serial)?;

    let start = Instant::now();
    let mut bochs = command("bochs");
    bochs
        .args(["-q", "-f"])
        .arg(&configuration)
        .arg("-rc")
        .arg(&commands)
        .env("TERM", "linux")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    println!("booting Bochs ({PROCESSOR}); its log: {}", log.display());
    let mut emulator = Emulator(bochs.spawn().context("`bochs` could not be started")?);
    let mut port = File::open(&serial)?;
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
