//! What this process has used, as the system counts it. Differences say what a pass met beside its work.

/// Counts since the process began, of all its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Times that a thread was taken off its CPU while it had work.
    pub(crate) preempted: u64,
    /// Pages that came without the disk: touched for the first time, or in the system's cache of a file.
    pub(crate) minor_faults: u64,
    /// Pages that came from the disk.
    pub(crate) major_faults: u64,
}

impl Usage {
    /// Until now; `None` where the system does not count.
    #[cfg(unix)]
    pub(crate) fn now() -> Option<Self> {
        use nix::sys::resource::{UsageWho, getrusage};
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        // The C type is signed; counts are not.
        let count = |n: nix::libc::c_long| u64::try_from(n).unwrap_or(0);
        Some(Usage {
            preempted: count(usage.involuntary_context_switches()),
            minor_faults: count(usage.minor_page_faults()),
            major_faults: count(usage.major_page_faults()),
        })
    }

    /// `None`: the system does not count.
    #[cfg(not(unix))]
    pub(crate) fn now() -> Option<Self> {
        None
    }

    /// What was added since an earlier time.
    pub(crate) fn since(self, before: Usage) -> Usage {
        Usage {
            preempted: self.preempted.saturating_sub(before.preempted),
            minor_faults: self.minor_faults.saturating_sub(before.minor_faults),
            major_faults: self.major_faults.saturating_sub(before.major_faults),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_touched_are_counted() {
        let before = Usage::now().unwrap();
        // Larger than what allocators keep, so that its pages are new.
        let pages = vec![1u8; 64 << 20];
        let met = Usage::now().unwrap().since(before);
        assert_eq!(pages[pages.len() / 2], 1);
        // Huge pages would be 32 of them, small ones are 16384.
        assert!(met.minor_faults >= 16, "{met:?}");
    }
}
