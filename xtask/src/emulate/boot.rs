//! Booting the image in Bochs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;

use super::machine::Machine;
use crate::command::command;
use crate::guest::follow;

/// Boots `image` and returns what it printed once the machine has switched itself off.
pub(super) fn run(
    directory: &Path,
    bochs: &Path,
    machine: Machine,
    image: &Path,
    limit: Duration,
) -> Result<String> {
    let [serial, log, configuration] =
        ["serial.txt", "bochs.log", "bochsrc"].map(|name| directory.join(name));
    // `ips` is how many instructions make an emulated second: a low one has few timer interrupts and short waits.
    std::fs::write(
        &configuration,
        format!(
            "display_library: nogui\n\
             romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
             vgaromimage: file=/usr/share/vgabios/vgabios.bin\n\
             cpu: {}, count=1, ips=40000000, reset_on_triple_fault=0\n\
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
            machine.processor(),
            image.display(),
            serial.display(),
            log.display()
        ),
    )?;
    let mut bochs = command(bochs);
    bochs
        .args(["-q", "-f"])
        .arg(&configuration)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    println!("booting Bochs ({machine}); its log: {}", log.display());
    follow(&mut bochs, &serial, limit)
}
