//! What is asked of the operating system beside files: affinity, limits, advice on memory. Linux has all of it; elsewhere
//! each call says that it cannot.

#[cfg(target_os = "linux")]
#[path = "system/linux.rs"]
mod platform;
#[cfg(not(target_os = "linux"))]
#[path = "system/other.rs"]
mod platform;

pub(crate) use platform::{
    affinity, is_mount_point, lock, memlock_limit, populate, set_affinity, use_huge_pages,
};

/// The number in kibibytes of a line like `AnonHugePages:     2048 kB`, in bytes.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// What the system can still give, in bytes; `None` where it does not say.
pub(crate) fn available_memory() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")
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

/// How transparent huge pages are set: `always`, `madvise` or `never`.
pub(crate) fn huge_page_mode() -> Option<String> {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "AnonHugePagesX: 1 kB\nAnonHugePages:     2048 kB\nRss: x kB\n";
        assert_eq!(field(text, "AnonHugePages"), Some(2048 << 10));
        assert_eq!(field(text, "Rss"), None);
        assert_eq!(field(text, "Anon"), None);
    }
}
