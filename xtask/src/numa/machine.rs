//! The machines, and booting one in QEMU.

use std::ops::Range;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;

use crate::command::command;
use crate::guest::{Guest, follow};

pub(super) const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// Distances between nodes as the firmware's table states them: from a node to itself, and to any other.
const DISTANCES: [u64; 2] = [10, 21];
/// Memory of a machine, in MiB: the kernel, the initramfs twice (as it comes, and unpacked), and on every node a model
/// with the room that is planned beside it.
const MEMORY: usize = 2048;

/// The kernel's arguments. It does not move pages after those who read them: the program must have put them there. The
/// others leave out what takes emulated time and changes nothing for a program.
const ARGUMENTS: &str = "console=ttyS0 panic=-1 rdinit=/init loglevel=4 numa_balancing=disable \
    mitigations=off nokaslr tsc=reliable cryptomgr.notests";

/// A machine's nodes, each a package. CPUs are numbered node by node, and the threads of a core stand side by side.
pub(super) struct Machine {
    pub(super) nodes: usize,
    /// Cores of a node.
    pub(super) cores: usize,
    /// Threads of a core.
    pub(super) threads: usize,
}

pub(super) const MACHINES: [Machine; 2] = [
    Machine {
        nodes: 2,
        cores: 2,
        threads: 2,
    },
    Machine {
        nodes: 4,
        cores: 1,
        threads: 1,
    },
];

impl Machine {
    pub(super) fn name(&self) -> String {
        let Machine {
            nodes,
            cores,
            threads,
        } = self;
        format!("{nodes} nodes x {cores} cores x {threads} threads")
    }

    pub(super) fn cpus(&self) -> usize {
        self.nodes * self.cores * self.threads
    }

    /// The CPUs of a node.
    pub(super) fn cpus_of(&self, node: usize) -> Range<usize> {
        let n = self.cores * self.threads;
        node * n..(node + 1) * n
    }

    /// The CPUs of a node that get a worker: one of each core.
    pub(super) fn workers_of(&self, node: usize) -> impl Iterator<Item = usize> {
        self.cpus_of(node).step_by(self.threads)
    }

    pub(super) fn distance(from: usize, to: usize) -> u64 {
        DISTANCES[usize::from(from != to)]
    }

    /// Boots it with `kernel` and the files and the script of `guest`, and returns what it printed.
    ///
    /// # Errors
    /// QEMU could not be started, or takes longer than `limit`.
    pub(super) fn boot(
        &self,
        directory: &Path,
        kernel: &Path,
        guest: &Guest,
        limit: Duration,
    ) -> Result<String> {
        let (initramfs, serial) = (directory.join("initramfs"), directory.join("serial.txt"));
        std::fs::write(&initramfs, guest.archive())?;
        let mut qemu = command(QEMU);
        // Emulated even where the processor could do it: the machine is the same everywhere then, also where there is
        // no virtualisation. The vendor is one whose threads of a core QEMU's processor reports.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max,vendor=GenuineIntel"])
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-m"])
            .arg(format!("{MEMORY}M"))
            .arg("-smp")
            .arg(format!(
                "{},sockets={},cores={},threads={}",
                self.cpus(),
                self.nodes,
                self.cores,
                self.threads
            ));
        for node in 0..self.nodes {
            let (cpus, mib) = (self.cpus_of(node), MEMORY / self.nodes);
            qemu.arg("-object")
                .arg(format!("memory-backend-ram,id=memory{node},size={mib}M"))
                .arg("-numa")
                .arg(format!(
                    "node,nodeid={node},cpus={}-{},memdev=memory{node}",
                    cpus.start,
                    cpus.end - 1
                ));
        }
        for to in 0..self.nodes {
            for from in 0..to {
                let distance = Self::distance(from, to);
                qemu.arg("-numa")
                    .arg(format!("dist,src={from},dst={to},val={distance}"));
            }
        }
        qemu.arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", ARGUMENTS, "-serial"])
            .arg(format!("file:{}", serial.display()))
            .stdout(Stdio::null());
        println!("booting QEMU: {}", self.name());
        follow(&mut qemu, &serial, limit)
    }
}
