//! What is asked of the operating system beside files: affinity, limits, advice on memory. Linux has all of it;
//! elsewhere each call says that it cannot.

#[cfg(target_os = "linux")]
#[path = "system/linux.rs"]
mod platform;
#[cfg(not(target_os = "linux"))]
#[path = "system/other.rs"]
mod platform;

use std::path::Path;

pub(crate) use platform::{
    address_space_limits, affinity, device_of, interleave_memory_of, is_cached, is_mount_point, lock,
    memlock_limit, memory_file, nodes_of, open_direct, populate, populate_for_writing, prefer_memory_of,
    read_at, set_affinity, tells_of_cache, use_huge_pages, will_need, zero_anew,
};

/// The number in kibibytes of a line like `AnonHugePages:     2048 kB`, in bytes.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// What the system can still give and this process's control group may still take, in bytes; `None` where the system
/// does not say.
pub(crate) fn available_memory() -> Option<u64> {
    let system = field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")?;
    let group = crate::control_group::free_memory(Path::new("/"));
    Some(group.map_or(system, |group| system.min(group)))
}

/// Whether a signal is ignored in this process, as `nohup` asks; `None` where the system does not say.
#[cfg(unix)]
pub(crate) fn ignores_signal(signal: i32) -> Option<bool> {
    ignored_in(&std::fs::read_to_string("/proc/self/status").ok()?, signal)
}

/// The line is a mask in hexadecimal; signals are counted from 1.
#[cfg(unix)]
fn ignored_in(status: &str, signal: i32) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (signal - 1) & 1 == 1)
}

/// Bytes of this process that lie in huge pages: anonymous ones, and of mapped files.
pub(crate) fn huge_bytes() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let file = field(&text, "FilePmdMapped").unwrap_or(0) + field(&text, "ShmemPmdMapped").unwrap_or(0);
    Some((field(&text, "AnonHugePages")?, file))
}

/// The most memory that this process has had at a time, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// The memory that this process has now, in bytes, shared files included.
pub(crate) fn resident_memory() -> Option<u64> {
    // What `status` says is put together from counters of each CPU, which lag behind by some pages.
    let exact = std::fs::read_to_string("/proc/self/smaps_rollup")
        .ok()
        .and_then(|text| field(&text, "Rss"));
    exact.or_else(|| field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS"))
}

/// The memory that this process has locked, in bytes.
pub(crate) fn locked_memory() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmLck")
}

/// How transparent huge pages are set: `always`, `madvise` or `never`.
pub(crate) fn huge_page_mode() -> Option<String> {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn ignored_signals_are_bits_of_a_mask() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        let found = [1, 2, 13, 15].map(|signal| ignored_in(status, signal));
        assert_eq!(found, [Some(true), Some(false), Some(true), Some(false)]);
        assert_eq!(ignored_in("", 1), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "AnonHugePagesX: 1 kB\nAnonHugePages:     2048 kB\nRss: x kB\n";
        assert_eq!(field(text, "AnonHugePages"), Some(2048 << 10));
        assert_eq!(field(text, "Rss"), None);
        assert_eq!(field(text, "Anon"), None);
    }
}
