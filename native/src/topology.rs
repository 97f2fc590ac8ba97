//! Which CPUs there are, which this process may use, and where workers go: one per physical core, for SMT siblings share
//! the units that kernels keep busy.
//!
//! All is read from files under a root, so that tests can stand another machine there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{control_group, system};

/// The machine as this process sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    /// CPUs that are online, ascending; empty where the system does not say.
    pub(crate) cpus: Vec<Cpu>,
    /// Those of them that the affinity mask leaves this process.
    pub(crate) allowed: Vec<usize>,
    /// CPUs' worth of time that the control group may use, where it is limited.
    pub(crate) quota: Option<f64>,
}

/// A logical CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) id: usize,
    /// Package, die and core: the same for SMT siblings.
    pub(crate) core: (i64, i64, i64),
    pub(crate) node: usize,
}

impl Machine {
    /// This machine.
    pub(crate) fn read() -> Self {
        Self::under(Path::new("/"), system::affinity())
    }

    /// The machine under a root; `allowed` is the affinity mask, `None` for all CPUs.
    fn under(root: &Path, allowed: Option<Vec<usize>>) -> Self {
        let cpus = read_cpus(&root.join("sys/devices/system"));
        let allowed = match allowed {
            Some(allowed) => allowed,
            None => cpus.iter().map(|cpu| cpu.id).collect(),
        };
        Machine {
            cpus,
            allowed,
            quota: control_group::cpu_quota(root),
        }
    }

    /// The first CPU of each physical core that this process may use, node by node; then the SMT siblings.
    fn places(&self) -> (Vec<usize>, Vec<usize>) {
        let mut cpus: Vec<&Cpu> = self
            .cpus
            .iter()
            .filter(|cpu| self.allowed.contains(&cpu.id))
            .collect();
        cpus.sort_by_key(|cpu| (cpu.node, cpu.id));
        let mut cores = BTreeSet::new();
        let (first, siblings): (Vec<&Cpu>, Vec<&Cpu>) =
            cpus.into_iter().partition(|cpu| cores.insert(cpu.core));
        let ids = |cpus: Vec<&Cpu>| cpus.iter().map(|cpu| cpu.id).collect();
        (ids(first), ids(siblings))
    }

    /// Physical cores of the whole machine.
    pub(crate) fn cores(&self) -> usize {
        self.cpus
            .iter()
            .map(|cpu| cpu.core)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// NUMA nodes.
    pub(crate) fn nodes(&self) -> usize {
        self.cpus
            .iter()
            .map(|cpu| cpu.node)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Physical cores that this process may use; 0 where the system does not say.
    pub(crate) fn usable_cores(&self) -> usize {
        self.places().0.len()
    }

    /// The number of workers when nobody said: the physical cores that the affinity mask leaves, as far as the control
    /// group's time goes; at least 1.
    pub(crate) fn default_threads(&self) -> usize {
        let cores = match self.usable_cores() {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            cores => cores,
        };
        let quota = self.quota.map_or(usize::MAX, |quota| quota as usize);
        cores.min(quota).clamp(1, 1024)
    }

    /// The CPU of each of `n` workers, or why they are left to the scheduler. `asked`: --pin or --no-pin.
    ///
    /// Unasked, workers are pinned where they take every core that this process may use. With fewer, two programs that
    /// pin would sit on the same cores; with a limited share of time, others use the cores meanwhile.
    pub(crate) fn pins(&self, n: usize, asked: Option<bool>) -> Result<Vec<usize>, &'static str> {
        let (mut cores, siblings) = self.places();
        if asked == Some(false) {
            return Err("--no-pin");
        }
        if cores.is_empty() {
            return Err("the system does not say which cores there are");
        }
        if asked.is_none() {
            if n < cores.len() {
                return Err("there are more cores than workers; --pin does it all the same");
            }
            if self.quota.is_some_and(|quota| quota < cores.len() as f64) {
                return Err("the control group's time is limited; --pin does it all the same");
            }
            if n > cores.len() {
                return Err("there are more workers than cores");
            }
        }
        cores.extend(siblings);
        if n > cores.len() {
            return Err("there are more workers than CPUs");
        }
        cores.truncate(n);
        Ok(cores)
    }
}

/// A list as the kernel writes it: `0-3,8,10-11`.
pub(crate) fn parse_list(text: &str) -> Option<Vec<usize>> {
    /// Far more than Linux knows.
    const MOST: usize = 1 << 16;
    let mut out = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST {
            return None;
        }
        out.extend(first..=last);
    }
    Some(out)
}

/// The same, written: for reports.
pub(crate) fn write_list(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let runs = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    runs.collect::<Vec<_>>().join(",")
}

fn read_cpus(root: &Path) -> Vec<Cpu> {
    let text = |path: PathBuf| std::fs::read_to_string(path).ok();
    let Some(online) = text(root.join("cpu/online")).and_then(|text| parse_list(&text)) else {
        return Vec::new();
    };
    let nodes: Vec<(usize, Vec<usize>)> = text(root.join("node/online"))
        .and_then(|text| parse_list(&text))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|node| {
            let list = text(root.join(format!("node/node{node}/cpulist")))?;
            Some((node, parse_list(&list)?))
        })
        .collect();
    let cpu = |id: usize| {
        let topology = root.join(format!("cpu/cpu{id}/topology"));
        let number = |file: &str| -> Option<i64> { text(topology.join(file))?.trim().parse().ok() };
        Some(Cpu {
            id,
            core: (
                number("physical_package_id")?,
                number("die_id").unwrap_or(0),
                number("core_id")?,
            ),
            node: nodes
                .iter()
                .find(|(_, cpus)| cpus.contains(&id))
                .map_or(0, |(node, _)| *node),
        })
    };
    // All or nothing: half a topology would put two workers on one core.
    online
        .into_iter()
        .map(cpu)
        .collect::<Option<Vec<_>>>()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of files, removed at the end.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("twinfer-topology-{name}-{}", std::process::id()));
            Files(root)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        /// Two packages (and nodes) of two cores with two threads each, numbered as Linux does: siblings are 4 apart.
        fn two_nodes(name: &str) -> Self {
            let files = Files::new(name);
            files.write("sys/devices/system/cpu/online", "0-7\n");
            files.write("sys/devices/system/node/online", "0-1\n");
            files.write("sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
            files.write("sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
            for cpu in 0..8 {
                let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
                files.write(&format!("{topology}/core_id"), &format!("{}\n", cpu % 2));
                files.write(
                    &format!("{topology}/physical_package_id"),
                    &format!("{}\n", cpu % 4 / 2),
                );
            }
            files
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn workers_go_to_cores_and_to_siblings_only_when_asked() {
        let files = Files::two_nodes("cores");
        let machine = Machine::under(&files.0, None);
        assert_eq!((machine.cores(), machine.nodes()), (4, 2));
        assert_eq!(machine.default_threads(), 4);
        assert_eq!(machine.pins(4, None), Ok(vec![0, 1, 2, 3]));
        assert!(machine.pins(4, Some(false)).is_err());
        // Two programs of two workers each must not meet on cores 0 and 1 unasked.
        assert!(machine.pins(2, None).is_err());
        assert_eq!(machine.pins(2, Some(true)), Ok(vec![0, 1]));
        assert!(machine.pins(5, None).is_err());
        assert_eq!(machine.pins(5, Some(true)), Ok(vec![0, 1, 2, 3, 4]));
        assert!(machine.pins(9, Some(true)).is_err());
    }

    #[test]
    fn the_mask_and_the_control_group_are_respected() {
        let files = Files::two_nodes("mask");
        // Both threads of core 1, one of core 2, whose first thread is taken away.
        let machine = Machine::under(&files.0, Some(vec![1, 5, 6]));
        assert_eq!(machine.default_threads(), 2);
        assert_eq!(machine.pins(2, None), Ok(vec![1, 6]));

        files.write("proc/self/cgroup", "0::/a/b\n");
        files.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        files.write("sys/fs/cgroup/a/cpu.max", "250000 100000\n");
        let machine = Machine::under(&files.0, None);
        assert_eq!(machine.quota, Some(2.5));
        assert_eq!(machine.default_threads(), 2);
        assert!(machine.pins(4, None).is_err());
        assert!(machine.pins(4, Some(true)).is_ok());

        files.write("proc/self/cgroup", "3:memory:/x\n2:cpu,cpuacct:/y\n");
        files.write("sys/fs/cgroup/cpu,cpuacct/y/cpu.cfs_quota_us", "-1\n");
        files.write("sys/fs/cgroup/cpu,cpuacct/y/cpu.cfs_period_us", "100000\n");
        assert_eq!(Machine::under(&files.0, None).quota, None);
        files.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
        files.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
        let machine = Machine::under(&files.0, None);
        assert_eq!((machine.quota, machine.default_threads()), (Some(0.5), 1));
    }

    #[test]
    fn without_a_topology_nothing_is_pinned() {
        let machine = Machine::under(Path::new("/nowhere"), None);
        assert!(machine.default_threads() >= 1);
        assert!(machine.pins(1, Some(true)).is_err());
        // An online CPU without topology.
        let files = Files::two_nodes("half");
        files.write("sys/devices/system/cpu/online", "0-8\n");
        assert_eq!(Machine::under(&files.0, None).cores(), 0);
    }

    #[test]
    fn lists_are_read_and_written() {
        assert_eq!(parse_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list(""), Some(vec![]));
        assert_eq!(parse_list("0-99999999999"), None);
        assert_eq!(parse_list("x"), None);
        assert_eq!(write_list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
