//! The limits of the control group that this process is in: its share of time, its memory, the CPUs and nodes that it
//! may use. A group is limited by those above it as well, so that the least counts.
//!
//! All is read from files under a root, so that tests can stand another machine there.

use std::fs::read_to_string;
use std::path::Path;

use crate::cpu_list::parse_list;

/// CPUs, and nodes whose memory may be used, ascending; `None` where no group says anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CpuSet {
    pub(crate) cpus: Option<Vec<usize>>,
    pub(crate) nodes: Option<Vec<usize>>,
}

/// What the control group and those above it leave of the machine.
pub(crate) fn cpu_set(root: &Path) -> CpuSet {
    CpuSet {
        cpus: common(
            root,
            [
                |group| listed(group, &["cpuset.cpus.effective"]),
                |group| listed(group, &["cpuset.effective_cpus", "cpuset.cpus"]),
            ],
        ),
        nodes: common(
            root,
            [
                |group| listed(group, &["cpuset.mems.effective"]),
                |group| listed(group, &["cpuset.effective_mems", "cpuset.mems"]),
            ],
        ),
    }
}

/// Reads a list from files below a directory.
type ReadList = fn(&Path) -> Option<Vec<usize>>;

/// What is in the lists of all groups.
fn common(root: &Path, read: [ReadList; 2]) -> Option<Vec<usize>> {
    let found = each_group(root, "cpuset", &["cpuset"], read);
    let both = |a: Vec<usize>, b: Vec<usize>| a.into_iter().filter(|x| b.contains(x)).collect();
    found.into_iter().reduce(both)
}

/// The list in the first of some files that is there. An empty one says nothing: nobody has set it.
fn listed(group: &Path, files: &[&str]) -> Option<Vec<usize>> {
    let list = |file: &&str| parse_list(&read_to_string(group.join(file)).ok()?);
    files.iter().find_map(list).filter(|list| !list.is_empty())
}

/// The least share of time that a control group or one above it is limited to, in CPUs.
pub(crate) fn cpu_quota(root: &Path) -> Option<f64> {
    let found = each_group(root, "cpu", &["cpu", "cpu,cpuacct"], [cpu_max, cfs_quota]);
    found.into_iter().min_by(f64::total_cmp)
}

/// Memory that a control group and those above it leave, in bytes.
pub(crate) fn free_memory(root: &Path) -> Option<u64> {
    let found = each_group(root, "memory", &["memory"], [memory_of_2, memory_of_1]);
    found.into_iter().min()
}

/// What `read` finds in the group of a controller and in those above it: the first for version 2, the second for
/// version 1, which has a hierarchy for each controller.
fn each_group<T>(
    root: &Path,
    controller: &str,
    hierarchies: &[&str],
    read: [fn(&Path) -> Option<T>; 2],
) -> Vec<T> {
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let relative = Path::new(path.trim_start_matches('/'));
        let (hierarchies, read): (&[&str], _) = if controllers.is_empty() {
            // Beside hierarchies of version 1 that of version 2 has a directory of its own.
            (&["", "unified"], read[0])
        } else if controllers.split(',').any(|name| name == controller) {
            (hierarchies, read[1])
        } else {
            continue;
        };
        for hierarchy in hierarchies {
            let hierarchy = root.join("sys/fs/cgroup").join(hierarchy);
            // In a container the path is often one outside of it: then the root alone is there.
            found.extend(
                relative
                    .ancestors()
                    .filter_map(|group| read(&hierarchy.join(group))),
            );
        }
    }
    found
}

/// Version 2: `cpu.max` is "quota period", or "max period".
fn cpu_max(group: &Path) -> Option<f64> {
    let text = read_to_string(group.join("cpu.max")).ok()?;
    let mut fields = text.split_whitespace();
    share(fields.next()?, fields.next()?)
}

/// Version 1: a quota of -1 is none.
fn cfs_quota(group: &Path) -> Option<f64> {
    let read = |file: &str| read_to_string(group.join(file)).ok();
    share(
        read("cpu.cfs_quota_us")?.trim(),
        read("cpu.cfs_period_us")?.trim(),
    )
}

fn share(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// Version 2: the limit is a number, or "max".
fn memory_of_2(group: &Path) -> Option<u64> {
    left(
        group,
        "memory.max",
        "memory.current",
        ["inactive_file", "active_file"],
    )
}

/// Version 1: no limit is a number beyond any memory.
fn memory_of_1(group: &Path) -> Option<u64> {
    let files = ["total_inactive_file", "total_active_file"];
    left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", files)
}

/// Bytes that no machine has.
const BEYOND_MEMORY: u64 = 1 << 60;

/// The limit less what is used of it. Pages of files count as used, and yet the system drops them when memory is asked
/// for, as it does outside of groups.
fn left(group: &Path, limit: &str, used: &str, files: [&str; 2]) -> Option<u64> {
    let number = |file: &str| -> Option<u64> { read_to_string(group.join(file)).ok()?.trim().parse().ok() };
    let limit = number(limit).filter(|&limit| limit < BEYOND_MEMORY)?;
    let stat = read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cached: u64 = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| files.contains(name))
        .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
        .sum();
    let used = number(used).unwrap_or(0).saturating_sub(cached);
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine_files::MachineFiles;

    #[test]
    fn memory_of_the_second_version() {
        let mut files = vec![
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "5000\n"),
        ];
        let root = MachineFiles::new("group-v2", &files);
        assert_eq!(free_memory(&root.0), None);
        // The group above is limited.
        files.extend([
            ("sys/fs/cgroup/a/memory.max", "10000\n"),
            ("sys/fs/cgroup/a/memory.current", "6000\n"),
        ]);
        let root = MachineFiles::new("group-v2-above", &files);
        assert_eq!(free_memory(&root.0), Some(4000));
        // Pages of files are given back.
        let stat = "anon 3000\nfile 3000\ninactive_file 1000\nactive_file 1500\nslab 5\n";
        files.push(("sys/fs/cgroup/a/memory.stat", stat));
        let root = MachineFiles::new("group-v2-files", &files);
        assert_eq!(free_memory(&root.0), Some(6500));
        // Over the limit nothing is left.
        files.push(("sys/fs/cgroup/a/b/memory.max", "4096\n"));
        let root = MachineFiles::new("group-v2-full", &files);
        assert_eq!(free_memory(&root.0), Some(0));
    }

    #[test]
    fn memory_of_the_first_version() {
        let root = MachineFiles::new(
            "group-v1",
            &[
                ("proc/self/cgroup", "4:cpu:/x\n3:memory:/x/y\n"),
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "70000\n"),
                ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "20000\n"),
                ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "9000\n"),
                (
                    "sys/fs/cgroup/memory/x/memory.stat",
                    "inactive_file 1\ntotal_inactive_file 400\ntotal_active_file 600\n",
                ),
            ],
        );
        assert_eq!(free_memory(&root.0), Some(12000));
        assert_eq!(free_memory(Path::new("/nowhere")), None);
    }
}
