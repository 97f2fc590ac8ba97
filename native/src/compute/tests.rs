//! Budgets on machines of several nodes that are files: what is refused, and whether what is advised would fit.

use super::*;
use crate::machine_files::MachineFiles;

/// Tokens of a context whose cache is many times the model's weights.
const N_CTX: usize = 100_000;

/// Two nodes of two cores with so many KiB free, and all memory that anybody could want beside them.
fn machine(name: &str, free: [u64; 2]) -> MachineFiles {
    let mut files: Vec<(String, String)> = vec![
        ("proc/meminfo".into(), "MemAvailable: 99999999 kB\n".into()),
        (
            "proc/self/status".into(),
            "RssAnon:\t 100 kB\nMems_allowed_list:\t0-1\n".into(),
        ),
        ("sys/devices/system/cpu/online".into(), "0-3\n".into()),
        ("sys/devices/system/node/online".into(), "0-1\n".into()),
    ];
    for cpu in 0..4 {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        let package = if cpu < 2 { "0-1\n" } else { "2-3\n" };
        files.push((format!("{topology}/package_cpus_list"), package.into()));
        files.push((format!("{topology}/core_cpus_list"), format!("{cpu}\n")));
    }
    for (node, free) in free.iter().enumerate() {
        let directory = format!("sys/devices/system/node/node{node}");
        let cpus = ["0-1\n", "2-3\n"][node];
        files.push((format!("{directory}/cpulist"), cpus.into()));
        let meminfo = format!("Node {node} MemTotal: 99999999 kB\nNode {node} MemFree: {free} kB\n");
        files.push((format!("{directory}/meminfo"), meminfo));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
    MachineFiles::new(&format!("compute-{name}"), &files)
}

/// Does something with the built-in model on such a machine, in a mode of `--numa` and with more options.
fn on<T>(
    root: &MachineFiles,
    (mode, options): (&str, &[&str]),
    run: impl FnOnce(&Compute<'_>, PlannedModel<'_>) -> T,
) -> T {
    let args = [&["twinfer", "run", "-q", "--numa", mode], options].concat();
    let (cli, _) = crate::args::parse(args.iter().map(Into::into)).unwrap();
    let settings = Settings::from(cli.global);
    let machine = Machine::under(&root.0, None);
    let numa = Numa::choose(settings.workers.numa, &machine, Some(1 << 20)).unwrap();
    let workers = Workers::of(&settings.workers, &machine, numa).unwrap();
    let compute = Compute::on((&root.0, None), &settings, &workers).unwrap();
    let file = settings.source.open().unwrap();
    let planned = compute.plan(&file).unwrap();
    run(&compute, planned)
}

/// KiB that each node needs.
fn needs(mode: &str) -> Vec<u64> {
    let root = machine(&format!("needs-{}", mode.replace(':', "-")), [1 << 30; 2]);
    on(&root, (mode, &[]), |compute, planned| {
        let budget = compute
            .budget(&planned, &compute.one_sequence(N_CTX, 64))
            .unwrap();
        budget
            .need_of_nodes()
            .map(|(_, need)| need.total().div_ceil(1024))
            .collect()
    })
}

/// The error, where the model with its context does not fit.
fn refused(root: &MachineFiles, mode: &str) -> Option<String> {
    on(root, (mode, &[]), |compute, planned| {
        let error = compute.check(&planned, &compute.one_sequence(N_CTX, 64)).err();
        error.map(|error| format!("{error:#}"))
    })
}

fn advice(error: &str) -> Vec<&str> {
    let (_, advice) = error.split_once("what would fit: ").unwrap();
    advice.split(", or ").collect()
}

#[test]
fn a_node_that_is_too_small_is_refused_with_a_mode_that_fits() {
    let (one, divided) = (needs("node:0"), needs("distribute"));
    assert_eq!((one.len(), divided.len()), (1, 2));
    // Half of the cache is most of the difference.
    assert!(one[0] > divided[0] + (8 << 10) && one[0] > divided[1] + (8 << 10));
    let between = one[0] - 1024;
    let root = machine("both-small", [between; 2]);
    for mode in ["node:0", "isolate"] {
        let error = refused(&root, mode).unwrap();
        for part in [
            "of memory on node 0",
            &format!("{} MiB are free (node 0)", between >> 10),
        ] {
            assert!(error.contains(part), "{error}");
        }
        let found = advice(&error);
        assert!(found.contains(&"--numa distribute"), "{error}");
        assert!(found.iter().any(|options| options.starts_with("--ctx-size ")));
        assert!(
            !error.contains("node:1") && !error.contains("--numa off"),
            "{error}"
        );
    }
    assert_eq!(refused(&root, "distribute"), None);
    assert_eq!(refused(&root, "off"), None);
    // The other node has room for all of it.
    let root = machine("other-node", [between, one[0] + 1024]);
    let error = refused(&root, "node:0").unwrap();
    assert!(advice(&error).contains(&"--numa node:1"), "{error}");
    assert_eq!(refused(&root, "node:1"), None);
    // No node has room for all, and one of them not even for its part: then they are not told apart.
    let root = machine("uneven", [divided[0] - 1024, between]);
    let error = refused(&root, "distribute").unwrap();
    assert!(error.contains("of memory on node 0"), "{error}");
    assert_eq!(advice(&error).last(), Some(&"--numa off"), "{error}");
    assert_eq!(refused(&root, "off"), None);
    let root = machine("one-large", [divided[0] - 1024, one[0] + 1024]);
    let error = refused(&root, "distribute").unwrap();
    assert!(advice(&error).contains(&"--numa isolate"), "{error}");
    assert_eq!(refused(&root, "isolate"), None);
}

#[test]
fn a_copy_on_each_node_is_refused_with_one_of_them() {
    let (copies, divided) = (needs("mirror"), needs("distribute"));
    if copies == divided {
        println!("left out: the scalar backend packs no weights");
        return;
    }
    let between = copies[0].min(copies[1]) - 1;
    assert!(
        divided.iter().all(|need| *need < between),
        "{copies:?} {divided:?}"
    );
    // The second one is large enough for everything.
    let root = machine("mirror", [between, needs("isolate")[0] + 1024]);
    let error = refused(&root, "mirror").unwrap();
    let found = advice(&error);
    for mode in ["--numa distribute", "--numa isolate"] {
        assert!(found.contains(&mode), "{error}");
    }
    assert_eq!(refused(&root, "distribute"), None);
    assert_eq!(refused(&root, "isolate"), None);
    // CPUs of the first node alone: no mode divides anything between nodes, nor does all on the second one.
    on(&root, ("mirror", &["--cpus", "0-1"]), |compute, _| {
        let (_, others) = compute.other_modes();
        let modes: Vec<NumaMode> = others.iter().map(|(mode, _)| *mode).collect();
        assert_eq!(modes, [NumaMode::Off]);
    });
}

#[test]
fn a_node_that_nobody_asked_for_may_be_too_small() {
    let root = machine("auto", [needs("node:0")[0] - 1024; 2]);
    assert_eq!(refused(&root, "auto"), None);
    on(&root, ("auto", &[]), |compute, planned| {
        let budget = compute
            .budget(&planned, &compute.one_sequence(N_CTX, 64))
            .unwrap();
        assert!(budget.spills);
        let rooms = compute.rooms_of_nodes();
        assert!(budget::too_small_nodes(&budget, &rooms).is_some());
    });
}

#[test]
fn what_was_promised_is_no_nodes_to_give() {
    let root = machine("promised", [1 << 20; 2]);
    on(&root, ("distribute", &[]), |compute, planned| {
        let free = |compute: &Compute<'_>| -> Vec<u64> {
            compute.rooms_of_nodes().iter().map(|room| room.free).collect()
        };
        assert_eq!(free(compute), [1 << 30; 2]);
        let plan = compute
            .budget(&planned, &compute.one_sequence(N_CTX, 64))
            .unwrap()
            .context;
        compute.promise(&plan);
        compute.promise(&plan);
        let left = |node: usize| (1 << 30) - 2 * (plan.cache_of_nodes[node] + plan.workspace_bytes());
        assert!(plan.cache_of_nodes.iter().all(|bytes| *bytes > 0));
        assert_eq!(free(compute), [left(0), left(1)]);
        // Another mode would have placed what is promised elsewhere.
        assert!(compute.other_modes().0.is_empty());
    });
}

#[test]
fn a_pool_that_nobody_sized_fits_the_nodes() {
    for mode in ["node:0", "distribute", "mirror"] {
        let root = machine(&format!("pool-{}", mode.replace(':', "-")), [60 << 10, 80 << 10]);
        on(&root, (mode, &[]), |compute, planned| {
            let sizes = (1000, 64);
            let pool = compute.shared_pool(&planned, sizes, (256, 2)).unwrap();
            let one = compute.budget(&planned, &compute.one_sequence(1000, 64)).unwrap();
            let Pool::Bytes(bytes) = pool else {
                panic!("{pool:?}")
            };
            assert!(bytes >= one.context.cache_bytes());
            let context = compute.sequences(sizes, 256, pool);
            let budget = compute.budget(&planned, &context).unwrap();
            let (rooms, nodes) = (compute.rooms(), compute.rooms_of_nodes());
            assert_eq!(nodes.len(), if mode == "node:0" { 1 } else { 2 });
            assert_eq!(budget::too_small(&budget, &rooms, &nodes), None, "{mode}");
        });
    }
}
