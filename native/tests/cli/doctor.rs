//! `doctor`, and the limits of `bench`.

use serde_json::Value;

use crate::support::{Directory, twinfer};

#[test]
fn doctor_says_what_is_used_and_what_the_machine_can_do() {
    let text = twinfer(&["doctor", "--no-measure"]).ok();
    for name in ["cpu", "features", "backends", "scalar", "threads", "memory"] {
        assert!(text.text().contains(name), "{}", text.text());
    }
    assert_eq!(
        text.text().matches("used: the fastest").count(),
        1,
        "{}",
        text.text()
    );
    assert!(!text.text().contains("GMAC/s"));
    assert!(text.err.is_empty());

    // A backend that is there has its features among those that are listed.
    let amx = text
        .text()
        .lines()
        .any(|line| line.contains("amx ") && (line.contains("available") || line.contains("used")));
    assert!(
        !amx || text.text().contains(" amx-tile amx-int8"),
        "{}",
        text.text()
    );
    let several = twinfer(&["doctor", "--no-measure", "--numa", "distribute"]).ok();
    let one_node = text.text().contains("1 NUMA node,");
    assert!(
        !one_node || several.text().contains("--numa makes no difference"),
        "{}",
        several.text()
    );

    let report = twinfer(&["doctor", "--json", "-t", "1", "--backend", "scalar"]).json();
    let backends = report["backends"].as_array().unwrap();
    for backend in backends {
        let lacking = backend["lacking"].as_array().unwrap();
        assert_eq!(backend["available"], Value::from(lacking.is_empty()));
        assert_eq!(backend["used"], Value::from(backend["name"] == "scalar"));
    }
    for limit in ["int8_dot_gmacs", "f32_multiply_add_gmacs", "memory_read_gb_s"] {
        let value = report["limits"][limit].as_f64().unwrap();
        assert!(value > 0.01, "{limit}: {value}");
    }
    assert_eq!(report["model"], Value::Null);
}

#[test]
fn doctor_and_bench_set_a_model_beside_the_limits() {
    let directory = Directory::new("limits");
    let model = directory.file("m.gguf");
    let make = ["bench", "--shape", "smollm2-135m", "-p", "0", "-n", "0", "-o"];
    twinfer(&[make.as_slice(), &[&model]].concat()).ok();

    let report = twinfer(&["doctor", "-m", &model, "--json", "-d", "1000"]).json();
    let model_report = &report["model"];
    // 30 layers of 2 x 3 KV heads of 64 half-precision numbers: 23040 bytes a position.
    assert_eq!(
        model_report["cache_bytes_at_depth"].as_f64().unwrap(),
        23_040_000.0
    );
    let bytes = model_report["weight_bytes_per_token"].as_f64().unwrap();
    for storage in ["packed", "mapped"] {
        let part = &model_report[storage];
        let number = |key: &str| part[key].as_f64().unwrap();
        let read = part["limits"]["memory_read_gb_s"].as_f64().unwrap() * 1e9;
        let (empty, deep) = (
            number("generated_tokens_per_second"),
            number("generated_tokens_per_second_at_depth"),
        );
        assert!(empty <= read / bytes * 1.001, "{part}");
        assert!(
            deep < empty || deep <= read / (bytes + 23_040_000.0) * 1.001,
            "{part}"
        );
        assert!(number("prompt_tokens_per_second") > 0.0);
    }
    assert!(
        twinfer(&["doctor", "-m", &model])
            .ok()
            .text()
            .contains("mapped: at most")
    );

    let bench = [
        "bench", "-m", &model, "-p", "8", "-n", "2", "-d", "0,70", "-b", "16", "-r", "1", "--limits",
    ];
    let tests = twinfer(&[bench.as_slice(), &["-o", "json"]].concat()).json();
    let names: Vec<&str> = tests
        .as_array()
        .unwrap()
        .iter()
        .map(|test| test["test"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["pp8", "tg2", "pp8 @ d70", "tg2 @ d70"]);
    for test in tests.as_array().unwrap() {
        let (speed, limit) = (
            test["avg_ts"].as_f64().unwrap(),
            test["limit_ts"].as_f64().unwrap(),
        );
        let fraction = test["limit_fraction"].as_f64().unwrap();
        assert!((speed / limit - fraction).abs() < 1e-9);
    }
    let table = twinfer(&bench).ok();
    assert!(table.text().contains("of limit |"), "{}", table.text());
    assert!(
        table.text().contains("limits in the same run"),
        "{}",
        table.text()
    );
}

#[test]
fn doctor_shows_the_machines_parts_and_keeps_workers_to_named_cpus() {
    let look = |more: &[&str]| twinfer(&[&["doctor", "--no-measure", "--json"], more].concat());
    let report = look(&[]).json();
    let lists = |value: &Value| -> Vec<Vec<u64>> { serde_json::from_value(value.clone()).unwrap() };
    let topology = &report["topology"];
    let cpus = report["cpus"].as_u64().unwrap() as usize;
    // Packages, groups and cores each are all CPUs, every one once.
    for part in ["packages", "dies", "l3_groups", "siblings"] {
        let mut all = lists(&topology[part]).concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), cpus, "{part}: {topology}");
    }
    assert_eq!(lists(&topology["siblings"]).len() as u64, report["cores"]);
    let nodes = topology["nodes"].as_array().unwrap();
    assert_eq!(nodes.len() as u64, report["numa_nodes"]);
    if cpus == 0 {
        println!("skipped: this system does not say which CPUs it has");
        return;
    }
    // The last CPU that may be used, alone.
    let last = report["allowed_cpus"].as_array().unwrap().last().unwrap().clone();
    let found = look(&["--cpus", &last.to_string()]).json();
    assert_eq!(found["pinned_to"], Value::from(vec![last.clone()]));
    assert_eq!(found["threads"], 1);
    assert_eq!(found["worker_nodes"], Value::from(vec![0]));
    let one = found["worker_node_ids"].as_array().unwrap();
    assert!(one.len() == 1 && nodes.iter().any(|node| node["id"] == one[0]));

    let wrong = look(&["--cpus", "60000-60001"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("no CPUs 60000-60001"), "{}", wrong.err);
    let more = look(&["--cpus", &last.to_string(), "-t", "2"]);
    assert!(
        more.code == 2 && more.err.contains("more than the 1 CPUs"),
        "{}",
        more.err
    );
    assert_eq!(look(&["--cpus", "3-1"]).code, 2);
    assert_eq!(look(&["--cpus", "0", "--no-pin"]).code, 2);
}

/// The cells of a row of a markdown table.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn predictions_in_the_documentation_are_the_commands() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut files: Vec<_> = std::fs::read_dir(docs.join("machines"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    // The rows of all machines under the head of the first one.
    let mut table: Vec<Vec<String>> = Vec::new();
    let mut paper = 0;
    for file in files {
        let predict = |shape: &str, more: &[&str]| {
            let args = ["doctor", "--machine", file.to_str().unwrap(), "--shape", shape];
            twinfer(&[args.as_slice(), more].concat())
        };
        let report = predict("llama-3.2-1b", &["--json"]).json();
        if report["paper"] != true {
            continue;
        }
        paper += 1;
        for shape in ["llama-3.1-8b", "llama-3.3-70b", "qwen3-30b-a3b"] {
            let run = predict(shape, &[]).ok();
            let rows = run.text().lines().filter(|line| line.starts_with('|'));
            let rows = rows.skip(if table.is_empty() { 0 } else { 2 });
            table.extend(rows.map(|row| cells(row).into_iter().map(String::from).collect()));
        }
        // What is written faster with more nodes is read in less time.
        let modes = report["modes"].as_array().unwrap();
        let speed = |numa: &str| {
            let mode = modes.iter().find(|mode| mode["numa"] == numa).unwrap();
            mode["generated_tokens_per_second"].as_f64().unwrap()
        };
        assert!(speed("distribute") > speed("isolate"), "{report}");
        assert!(speed("distribute") >= speed("off"), "{report}");
    }
    assert_eq!(paper, 3);
    // Rules as wide as their column need no more than three dashes.
    if let Some(rules) = table.get_mut(1) {
        for rule in rules {
            *rule = if rule.ends_with(':') { "---:" } else { "---" }.into();
        }
    }
    let table: String = table
        .iter()
        .map(|row| format!("| {} |\n", row.join(" | ")))
        .collect();

    let path = docs.join("machine.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- predictions -->\n").unwrap();
    let (written, after) = rest.split_once("<!-- end of predictions -->\n").unwrap();
    let table = format!("\n{table}\n");
    if std::env::var_os("TWINFER_BLESS").is_some() {
        let page = format!("{before}<!-- predictions -->\n{table}<!-- end of predictions -->\n{after}");
        std::fs::write(&path, page).unwrap();
        return;
    }
    assert_eq!(
        written, table,
        "docs/machine.md is out of date: run `TWINFER_BLESS=1 cargo test -p twinfer --test cli doctor`"
    );
}

#[test]
fn a_wrong_description_of_a_machine_is_refused() {
    let missing = twinfer(&["doctor", "--machine", "/nowhere.toml", "--shape", "llama-3.1-8b"]);
    assert!(
        missing.code == 1 && missing.err.contains("/nowhere.toml"),
        "{}",
        missing.err
    );
    let alone = twinfer(&["doctor", "--machine", "/nowhere.toml"]);
    assert!(alone.code == 2 && alone.err.contains("--shape"), "{}", alone.err);
    let directory = Directory::new("machine");
    let file = directory.file("wrong.toml");
    std::fs::write(&file, "name = 'a'\nspeed = 3\n").unwrap();
    let wrong = twinfer(&["doctor", "--machine", &file, "--shape", "llama-3.1-8b"]);
    assert!(wrong.code == 1 && wrong.err.contains("line 2"), "{}", wrong.err);
}

/// What this machine is measured to be is read back as a machine, on which the model that it was measured with takes
/// the time that it took.
#[test]
fn a_measured_description_predicts_what_was_measured() {
    let directory = Directory::new("describe");
    let model = directory.random_model("q4_0");
    let described = twinfer(&["doctor", "--describe", "-m", &model]).ok();
    let file = directory.file("here.toml");
    std::fs::write(&file, described.text()).unwrap();
    let report = twinfer(&["doctor", "--machine", &file, "-m", &model, "-d", "16", "--json"]).json();
    assert_eq!(report["paper"], false);
    let modes = report["modes"].as_array().unwrap();
    let numa = if modes.len() == 1 { "isolate" } else { "distribute" };
    let mode = modes.iter().find(|mode| mode["numa"] == numa).unwrap();
    // "# NAME: pp512 123.45 t/s, tg32 67.89 t/s"
    let line = described.text().lines().last().unwrap();
    let speed = |name: &str| -> f64 {
        let (_, rest) = line.split_once(name).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    for (name, measured, key) in [
        ("compute_reached", speed("pp512 "), "prompt_tokens_per_second"),
        (
            "read_reached",
            speed("tg32 "),
            "generated_tokens_per_second_at_depth",
        ),
    ] {
        let predicted = mode[key].as_f64().unwrap();
        assert!(measured > 0.0 && predicted > 0.0);
        if described.err.contains(name) {
            println!("not compared, as the program says: {}", described.err);
            continue;
        }
        // The figures are rounded, and the longer of reading and computing counts: it can only take longer.
        assert!(predicted < measured * 1.02, "{key}: {predicted}, {measured}");
    }
    for args in [["--json"], ["--no-measure"]] {
        assert_eq!(twinfer(&[&["doctor", "--describe"][..], &args].concat()).code, 2);
    }
    let encoder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/oracle/encoders/bert.gguf");
    let refused = twinfer(&["doctor", "--describe", "-m", encoder]);
    assert!(
        refused.code == 1 && refused.err.contains("makes vectors"),
        "{}",
        refused.err
    );
}
