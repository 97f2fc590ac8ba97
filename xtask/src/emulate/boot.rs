//! Booting the image in Bochs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;

use crate::command::command;
use crate::guest::follow;

/// The display that needs no window system; without it Bochs does not start.
pub(super) const DISPLAY: &str = "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so";
/// Bochs' oldest model with VNNI beside AVX-512 F, BW, VL and DQ.
const PROCESSOR: &str = "corei7_icelake_u";

/// Boots `image` and returns what it printed once the machine has switched itself off.
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
    follow(&mut bochs, &serial, limit)
}
