//! Limits on what a process may map: its address space (RLIMIT_AS) and its data (RLIMIT_DATA). A request that goes
//! beyond one is refused as if there were no memory: what is said of that names the limit.

use std::fmt::Write as _;
use std::io;

use crate::system;

/// What may be mapped beside what is asked for: an allocator rounds requests up and keeps some pages of its own.
const ROUNDED_UP: u64 = 1 << 20;

/// The stack of a thread, which is mapped when it is started, where the program does not say how large it is to be.
const STACK: u64 = 2 << 20;

/// A limit, and what the process has used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    /// Of what, and the option of `ulimit` and the setting of systemd that raise it.
    what: &'static str,
    name: &'static str,
    option: &'static str,
    setting: &'static str,
    bytes: u64,
    used: u64,
}

/// What is said where a limit does not leave so many bytes more.
pub(crate) fn too_small(more: u64) -> Option<String> {
    describe(&now(Used::Now)?, more)
}

/// What stands behind an error, if it is one of memory that a limit refused: the limit, how much it is, what is needed,
/// and how to raise it. To be asked soon after the request has failed.
pub(crate) fn behind(error: &anyhow::Error) -> Option<String> {
    let refused = error.chain().find_map(refused_bytes)?;
    describe(&now(Used::AtMost)?, refused)
}

/// What of a limit counts as used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Used {
    /// What the process has.
    Now,
    /// What it has had at most: since a request failed, it has given some of it back.
    AtMost,
}

/// The limits on this process.
fn now(used: Used) -> Option<Vec<Limit>> {
    let (space, data) = system::address_space_limits();
    space.or(data)?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(limits(&status, used, space, data))
}

/// Bytes of the request that an error says was refused.
fn refused_bytes(error: &(dyn std::error::Error + 'static)) -> Option<u64> {
    if let Some(twinfer_engine::Error::Memory { bytes, .. }) = error.downcast_ref() {
        return Some(*bytes);
    }
    if let Some(Unmapped { bytes, .. }) = error.downcast_ref() {
        return Some(*bytes);
    }
    // A thread that cannot be started for want of memory is told to try again.
    match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Some(STACK),
        _ => None,
    }
}

/// Memory that the system did not map.
#[derive(Debug)]
pub(crate) struct Unmapped {
    pub(crate) bytes: u64,
    pub(crate) error: io::Error,
}

impl std::fmt::Display for Unmapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes: {}", self.bytes, self.error)
    }
}

impl std::error::Error for Unmapped {}

/// The limits that there are, with what is used of each. `status` is that of `/proc`.
fn limits(status: &str, used: Used, space: Option<u64>, data: Option<u64>) -> Vec<Limit> {
    let field = |name: &str| system::field(status, name).unwrap_or(0);
    let given_back = match used {
        Used::Now => 0,
        Used::AtMost => field("VmPeak").saturating_sub(field("VmSize")),
    };
    let space = space.map(|bytes| Limit {
        what: "address space",
        name: "RLIMIT_AS",
        option: "-v",
        setting: "LimitAS",
        bytes,
        used: field("VmSize").saturating_add(given_back),
    });
    let data = data.map(|bytes| Limit {
        what: "data",
        name: "RLIMIT_DATA",
        option: "-d",
        setting: "LimitDATA",
        bytes,
        used: field("VmData").saturating_add(given_back),
    });
    space.into_iter().chain(data).collect()
}

/// The sentence on the first limit that a request of so many bytes would go beyond.
fn describe(limits: &[Limit], request: u64) -> Option<String> {
    let beyond = |limit: &&Limit| {
        let needed = limit.used.saturating_add(request);
        needed.saturating_add(ROUNDED_UP) > limit.bytes
    };
    let limit = limits.iter().find(beyond)?;
    let needed = limit.used.saturating_add(request).saturating_add(ROUNDED_UP);
    let kib = needed.div_ceil(1024);
    let mut text = format!(
        "this process may have {} KiB of {} ({}) and needs at least {kib} KiB: ",
        limit.bytes >> 10,
        limit.what,
        limit.name,
    );
    let _ = write!(
        text,
        "`ulimit {} {kib}` in the shell raises the limit (as far as its hard limit goes), `{}=infinity` in a systemd \
         unit removes it",
        limit.option, limit.setting,
    );
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    const STATUS: &str = "VmPeak:\t  300000 kB\nVmSize:\t  200000 kB\nVmData:\t   50000 kB\n";

    #[test]
    fn the_limit_that_refused_is_named() {
        let said = |space: Option<u64>, data: Option<u64>, request: u64| {
            let kib = |limit: Option<u64>| limit.map(|limit| limit << 10);
            describe(
                &limits(STATUS, Used::AtMost, kib(space), kib(data)),
                request << 10,
            )
        };
        let space = said(Some(310_000), Some(10_000_000), 20_000).unwrap();
        for part in [
            "310000 KiB of address space (RLIMIT_AS)",
            "at least 321024 KiB",
            "ulimit -v 321024",
            "LimitAS=infinity",
        ] {
            assert!(space.contains(part), "{space}");
        }
        let data = said(Some(10_000_000), Some(160_000), 20_000).unwrap();
        for part in [
            "160000 KiB of data (RLIMIT_DATA)",
            "at least 171024 KiB",
            "-d 171024",
        ] {
            assert!(data.contains(part), "{data}");
        }
        // Neither of them, and none that is finite.
        assert_eq!(said(Some(322_000), Some(172_000), 20_000), None);
        assert_eq!(said(None, None, u64::MAX >> 10), None);
        // Of what was given back nothing counts before a request is made.
        let now = limits(STATUS, Used::Now, Some(1 << 30), Some(1 << 30));
        let used: Vec<u64> = now.iter().map(|limit| limit.used >> 10).collect();
        assert_eq!(used, [200_000, 50_000]);
    }

    #[test]
    fn errors_of_memory_are_known_by_their_kind() {
        let of = |error: anyhow::Error| {
            let error = Err::<(), _>(error).context("while it ran").unwrap_err();
            error.chain().find_map(refused_bytes)
        };
        let memory = twinfer_engine::Error::Memory {
            what: "it".into(),
            bytes: 77,
        };
        assert_eq!(of(memory.into()), Some(77));
        let error = io::Error::from(io::ErrorKind::OutOfMemory);
        assert_eq!(of(Unmapped { bytes: 5, error }.into()), Some(5));
        assert_eq!(of(io::Error::from(io::ErrorKind::WouldBlock).into()), Some(STACK));
        assert_eq!(of(io::Error::from(io::ErrorKind::NotFound).into()), None);
        assert_eq!(of(anyhow::anyhow!("not enough memory")), None);
    }
}
