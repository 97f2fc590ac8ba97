//! How many workers this machine should get when nobody said: its physical cores, since SMT siblings share the units
//! that kernels keep busy, within what the process may use (affinity mask, cgroup quota).

use std::collections::BTreeSet;
use std::path::Path;

/// The default number of threads; at least 1.
pub(crate) fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, |n| n.get());
    match physical_cores(Path::new("/sys/devices/system/cpu")) {
        Some(cores) => allowed.min(cores),
        None => allowed,
    }
}

/// Physical cores under a sysfs root; `None` where it does not say.
fn physical_cores(root: &Path) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for entry in std::fs::read_dir(root).ok()? {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        let is_cpu = name.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok());
        if !is_cpu {
            continue;
        }
        let read = |file: &str| -> Option<i64> {
            std::fs::read_to_string(path.join("topology").join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        // A CPU that is offline has no topology.
        if let (Some(package), Some(core)) = (read("physical_package_id"), read("core_id")) {
            cores.insert((package, core));
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_count_once() {
        let root = std::env::temp_dir().join(format!("twinfer-topology-{}", std::process::id()));
        for (cpu, core) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
            let dir = root.join(format!("cpu{cpu}/topology"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("core_id"), format!("{core}\n")).unwrap();
            std::fs::write(dir.join("physical_package_id"), "0\n").unwrap();
        }
        std::fs::create_dir_all(root.join("cpu4")).unwrap();
        std::fs::create_dir_all(root.join("cpufreq")).unwrap();
        assert_eq!(physical_cores(&root), Some(2));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(physical_cores(&root), None);
        assert!(default_threads() >= 1);
    }
}
