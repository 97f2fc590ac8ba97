//! Machines that are not at hand, from the files by which Linux describes them.

use super::fixtures::{Described, Files, MACHINE, Numbering};
use super::*;

/// 8 dies of 8 cores, each with a third-level cache of its own.
const EPYC_7763: Described = Described {
    packages: 2,
    nodes: &[64],
    l3: 8,
    ..MACHINE
};

/// 12 dies of 8 cores.
const EPYC_9654: Described = Described {
    packages: 2,
    nodes: &[96],
    l3: 8,
    ..MACHINE
};

fn machine(described: &Described) -> Machine {
    Files::of(described).machine(None)
}

/// The common part: `cores` on each of `nodes` nodes in `groups` groups of `cpus` CPUs; a worker on each core, those of
/// a node and those of a group side by side, the siblings behind them all.
fn check(machine: &Machine, nodes: usize, cores: &[usize], groups: usize, cpus: usize) {
    let total: usize = cores.iter().sum();
    assert_eq!(machine.nodes.len(), nodes);
    assert_eq!(machine.cores(), total);
    assert_eq!(machine.usable_nodes(), (0..nodes).collect::<Vec<_>>());
    let l3 = machine.l3_groups();
    assert_eq!(l3.len(), groups);
    assert!(l3.iter().all(|group| group.len() == cpus), "{l3:?}");
    assert_eq!(machine.default_threads(Nodes::All), total);
    let pins = machine.pins(total, Nodes::All, None).unwrap();
    let of = |cpu: &usize| *machine.cpu(*cpu).unwrap();
    let seen: BTreeSet<usize> = pins.iter().map(|cpu| of(cpu).core).collect();
    assert_eq!(seen.len(), total, "two workers on a core");
    assert!(pins.iter().map(|cpu| (of(cpu).node, of(cpu).l3)).is_sorted());
    for (node, &cores) in cores.iter().enumerate() {
        let on = pins.iter().filter(|cpu| of(cpu).node == node).count();
        assert_eq!(on, cores);
        let one = [node];
        assert_eq!(machine.default_threads(Nodes::These(&one)), cores);
        let own = machine.pins(cores, Nodes::These(&one), None).unwrap();
        assert!(own.iter().all(|cpu| of(cpu).node == node));
    }
    // More than the cores: siblings come after all of them, and only who asks gets them.
    if machine.cpus.len() > total {
        assert!(machine.pins(total + 1, Nodes::All, None).is_err());
        let more = machine.pins(total + 1, Nodes::All, Some(true)).unwrap();
        assert_eq!(of(&more[total]).core, of(&more[0]).core);
    }
    // Two programs of fewer workers must not meet on the same cores unasked.
    if total > 1 {
        assert!(machine.pins(total - 1, Nodes::All, None).is_err());
        assert_eq!(
            machine.pins(total - 1, Nodes::All, Some(true)).unwrap(),
            pins[..total - 1]
        );
    }
}

#[test]
fn two_epyc_7763_as_two_nodes_and_as_eight() {
    let found = machine(&EPYC_7763);
    check(&found, 2, &[64, 64], 16, 16);
    assert_eq!(
        found.pins(128, Nodes::All, None),
        Ok((0..128).collect::<Vec<_>>())
    );
    assert_eq!(write_list(&found.nodes[1].cpus), "64-127,192-255");
    assert_eq!(found.nodes[1].distances, [32, 10]);
    assert_eq!(found.nodes[1].memory, Some((48 << 30, 64 << 30)));
    assert_eq!(write_list(&found.l3_groups()[1]), "8-15,136-143");

    let found = machine(&Described {
        nodes: &[16; 4],
        ..EPYC_7763
    });
    check(&found, 8, &[16; 8], 16, 16);
    assert_eq!(write_list(&found.nodes[5].cpus), "80-95,208-223");
    assert_eq!(found.nodes[5].distances, [32, 32, 32, 32, 12, 10, 12, 12]);
    assert_eq!(
        found.pins(32, Nodes::These(&[5, 6]), None),
        Ok((80..112).collect::<Vec<_>>())
    );
}

#[test]
fn two_epyc_9654_however_their_cpus_are_numbered() {
    let found = machine(&EPYC_9654);
    check(&found, 2, &[96, 96], 24, 16);
    assert_eq!(
        found.pins(192, Nodes::All, None),
        Ok((0..192).collect::<Vec<_>>())
    );
    assert_eq!(write_list(&found.nodes[0].cpus), "0-95,192-287");

    // The CPU after the first one is its sibling here: the first 192 are 96 cores.
    let found = machine(&Described {
        numbering: Numbering::SiblingsAdjacent,
        ..EPYC_9654
    });
    check(&found, 2, &[96, 96], 24, 16);
    let pins = found.pins(192, Nodes::All, None).unwrap();
    assert_eq!(pins, (0..192).map(|core| 2 * core).collect::<Vec<_>>());
    assert_eq!(write_list(&found.nodes[1].cpus), "192-383");

    // Every other CPU is on the other package.
    let found = machine(&Described {
        numbering: Numbering::PackagesAlternate,
        ..EPYC_9654
    });
    check(&found, 2, &[96, 96], 24, 16);
    let pins = found.pins(192, Nodes::All, None).unwrap();
    assert_eq!(pins[..3], [0, 2, 4]);
    assert_eq!(pins[96..99], [1, 3, 5]);
}

#[test]
fn two_epyc_9965() {
    // 12 dies of 16 cores, each with one third-level cache.
    let found = machine(&Described {
        packages: 2,
        nodes: &[192],
        l3: 16,
        ..MACHINE
    });
    check(&found, 2, &[192, 192], 24, 32);
    assert_eq!(write_list(&found.l3_groups()[12]), "192-207,576-591");
}

#[test]
fn two_xeon_6_whose_nodes_share_a_cache() {
    // 128 cores on three dies of 43, 43 and 42; the system says that a package's nodes share its third-level cache.
    let found = machine(&Described {
        packages: 2,
        nodes: &[43, 43, 42],
        l3: 128,
        distances: (12, 21),
        ..MACHINE
    });
    assert_eq!(found.sets(|cpu| cpu.l3).len(), 2);
    assert_eq!(found.l3_groups().len(), 6);
    assert_eq!(found.default_threads(Nodes::All), 256);
    assert_eq!(found.default_threads(Nodes::These(&[2])), 42);
    assert_eq!(write_list(&found.nodes[2].cpus), "86-127,342-383");
    let pins = found.pins(256, Nodes::All, None).unwrap();
    assert_eq!(pins, (0..256).collect::<Vec<_>>());
    let nodes: Vec<usize> = pins.iter().map(|&cpu| found.node_of(cpu).unwrap()).collect();
    assert!(nodes.is_sorted());
    assert_eq!(nodes.iter().filter(|&&node| node == 5).count(), 42);
}

/// 8 fast cores of two threads, 16 efficient ones of one.
const HYBRID: Described = Described {
    nodes: &[24],
    l3: 24,
    efficient: 16,
    numbering: Numbering::SiblingsAdjacent,
    ..MACHINE
};

#[test]
fn a_hybrid_desktop_works_with_its_fast_cores() {
    let files = Files::of(&HYBRID);
    let fast: Vec<usize> = (0..16).step_by(2).collect();
    let found = files.machine(None);
    assert_eq!((found.cores(), found.cpus.len()), (24, 32));
    assert_eq!(found.default_threads(Nodes::All), 8);
    assert_eq!(found.pins(8, Nodes::All, None), Ok(fast.clone()));
    // All cores, if somebody asks for as many: the efficient ones come before siblings.
    let all = found.pins(24, Nodes::All, None).unwrap();
    assert_eq!(all, [fast.clone(), (16..32).collect()].concat());
    assert!(found.pins(12, Nodes::All, None).is_err());
    // A process that has nothing else works with the efficient ones.
    let found = files.machine(Some((16..32).collect()));
    assert_eq!(found.default_threads(Nodes::All), 16);
    assert_eq!(found.pins(16, Nodes::All, None), Ok((16..32).collect()));

    // Where no devices tell, capacities do. Cores that merely clock a little lower are no other kind.
    let files = Files::of(&Described {
        efficient: 0,
        nodes: &[4],
        ..HYBRID
    });
    for (cpu, capacity) in [1024, 1024, 980, 980, 620, 620, 600, 600].into_iter().enumerate() {
        let path = format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity");
        files.write(&path, &format!("{capacity}\n"));
    }
    let found = files.machine(None);
    assert_eq!(found.pins(2, Nodes::All, None), Ok(vec![0, 2]));
}

#[test]
fn a_small_virtual_machine() {
    let files = Files::of(&Described {
        nodes: &[2],
        smt: 1,
        ..MACHINE
    });
    files.write("proc/meminfo", "MemTotal:  1000 kB\nMemAvailable:  500 kB\n");
    let found = files.machine_on_disk();
    // The system's figures are the only node's, whatever the node's own file says.
    assert_eq!(found.nodes[0].memory, Some((500 << 10, 1000 << 10)));
    assert_eq!(found, files.machine(None));
    // Without caches in the files the package is the group.
    check(&found, 1, &[2], 1, 2);
    assert_eq!(found.pins(2, Nodes::All, None), Ok(vec![0, 1]));
}

#[test]
fn a_machine_without_numa_files_is_one_node() {
    let files = Files::of(&Described {
        cores: 4,
        l3: 4,
        ..MACHINE
    });
    files.write(
        "proc/meminfo",
        "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  500 kB\n",
    );
    let found = files.machine(None);
    check(&found, 1, &[4], 1, 8);
    assert_eq!(found.nodes[0].memory, Some((500 << 10, 1000 << 10)));
    assert_eq!(found.nodes[0].cpus, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_container_with_a_share_of_time() {
    let files = Files::of(&EPYC_7763);
    files.write("proc/self/cgroup", "0::/\n");
    files.write("sys/fs/cgroup/cpu.max", "350000 100000\n");
    let found = files.machine(None);
    assert_eq!(found.quota, Some(3.5));
    assert_eq!(found.default_threads(Nodes::All), 3);
    assert!(found.pins(3, Nodes::All, None).is_err());
    assert_eq!(found.pins(3, Nodes::All, Some(true)), Ok(vec![0, 1, 2]));
    // All cores at a share of their time: they are others' as well.
    assert!(found.pins(128, Nodes::All, None).unwrap_err().contains("time"));
}

#[test]
fn a_container_on_one_node() {
    let files = Files::of(&EPYC_7763);
    files.write("proc/self/cgroup", "0::/a/b\n");
    files.write("sys/fs/cgroup/a/b/cpuset.cpus.effective", "64-127,192-255\n");
    files.write("sys/fs/cgroup/a/b/cpuset.mems.effective", "1\n");
    files.write("sys/fs/cgroup/cpuset.cpus.effective", "0-255\n");
    files.write("sys/fs/cgroup/cpuset.mems.effective", "0-1\n");
    let on_one_node = |found: &Machine| {
        assert_eq!(write_list(&found.allowed), "64-127,192-255");
        assert_eq!((&found.allowed_nodes, found.usable_nodes()), (&vec![1], vec![1]));
        assert_eq!(found.default_threads(Nodes::All), 64);
        assert_eq!(
            found.pins(64, Nodes::All, None),
            Ok((64..128).collect::<Vec<_>>())
        );
    };
    on_one_node(&files.machine(None));
    // Version 1, of old kernels and of newer ones.
    files.write("proc/self/cgroup", "4:cpuset:/x\n0::/\n");
    files.write("sys/fs/cgroup/cpuset/x/cpuset.cpus", "64-127,192-255\n");
    files.write("sys/fs/cgroup/cpuset/x/cpuset.mems", "0-1\n");
    files.write("sys/fs/cgroup/cpuset/x/cpuset.effective_mems", "1\n");
    on_one_node(&files.machine(None));
    // Memory by the process's status alone.
    files.write("proc/self/cgroup", "");
    files.write(
        "proc/self/status",
        "Cpus_allowed_list:\t0-255\nMems_allowed_list:\t1\n",
    );
    let found = files.machine(Some((64..128).chain(192..256).collect()));
    on_one_node(&found);
    // A group that has nothing of the mask is not this process's.
    files.write("proc/self/cgroup", "0::/a/b\n");
    let found = files.machine(Some(vec![3, 4]));
    assert_eq!(found.allowed, [3, 4]);
}

#[test]
fn named_cpus_are_taken_cores_first() {
    let files = Files::of(&EPYC_7763);
    files.write("sys/devices/system/cpu/online", "0-4,6-255\n");
    let found = files.machine(Some((0..128).chain(130..256).collect()));
    assert_eq!(found.offline, [5]);
    assert_eq!(
        found.chosen(&[131, 64, 3, 2, 130, 3]),
        Ok(vec![2, 3, 64, 130, 131])
    );
    let wrong = |cpus: &[usize]| found.chosen(cpus).unwrap_err();
    assert!(
        wrong(&[2, 300, 301]).contains("no CPUs 300-301"),
        "{}",
        wrong(&[300])
    );
    assert!(wrong(&[5]).contains("CPUs 5 are offline"));
    assert!(wrong(&[128, 129, 2]).contains("may not use CPUs 128-129"));
    // Its sibling still makes a core.
    assert_eq!(found.cores(), 128);
    assert_eq!(found.default_threads(Nodes::All), 128);
    assert!(found.pins(128, Nodes::All, None).unwrap().contains(&133));
}

#[test]
fn the_mask_is_respected() {
    let files = Files::of(&EPYC_7763);
    // Both threads of core 1, one of core 2, whose first thread is taken away.
    let found = files.machine(Some(vec![1, 129, 130]));
    assert_eq!(found.default_threads(Nodes::All), 2);
    assert_eq!(found.pins(2, Nodes::All, None), Ok(vec![1, 130]));
}

#[test]
fn numbers_do_where_no_lists_are() {
    // Numbers of packages and cores alone, without the lists of CPUs.
    let files = Files::new();
    files.write("sys/devices/system/cpu/online", "0-7\n");
    for cpu in 0..8 {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        files.write(&format!("{topology}/core_id"), &format!("{}\n", cpu % 2));
        files.write(
            &format!("{topology}/physical_package_id"),
            &format!("{}\n", cpu % 4 / 2),
        );
    }
    let found = files.machine(None);
    assert_eq!((found.cores(), found.sets(|cpu| cpu.package).len()), (4, 2));
    assert_eq!(found.pins(4, Nodes::All, None), Ok(vec![0, 1, 2, 3]));
    assert_eq!(found.pins(5, Nodes::All, Some(true)), Ok(vec![0, 1, 2, 3, 4]));
    assert!(found.pins(9, Nodes::All, Some(true)).is_err());
    assert!(found.pins(4, Nodes::All, Some(false)).is_err());
    // An online CPU without a topology: half of one would put two workers on a core.
    files.write("sys/devices/system/cpu/online", "0-8\n");
    let found = files.machine(None);
    assert_eq!(found.cores(), 0);
    assert!(found.default_threads(Nodes::All) >= 1);
    assert!(found.pins(1, Nodes::All, Some(true)).is_err());
    assert!(found.chosen(&[0]).is_err());
}

#[test]
fn control_groups_of_both_versions_limit_time() {
    let files = Files::of(&Described {
        nodes: &[4],
        ..MACHINE
    });
    files.write("proc/self/cgroup", "0::/a/b\n");
    files.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    files.write("sys/fs/cgroup/a/cpu.max", "250000 100000\n");
    let found = files.machine(None);
    assert_eq!((found.quota, found.default_threads(Nodes::All)), (Some(2.5), 2));

    files.write("proc/self/cgroup", "3:memory:/x\n2:cpu,cpuacct:/y\n");
    files.write("sys/fs/cgroup/cpu,cpuacct/y/cpu.cfs_quota_us", "-1\n");
    files.write("sys/fs/cgroup/cpu,cpuacct/y/cpu.cfs_period_us", "100000\n");
    assert_eq!(files.machine(None).quota, None);
    files.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
    files.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    let found = files.machine(None);
    assert_eq!((found.quota, found.default_threads(Nodes::All)), (Some(0.5), 1));
}
