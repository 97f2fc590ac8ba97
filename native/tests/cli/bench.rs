//! `bench`: stages and what their passes met, one long text, the scenario with its settings switched off in turn.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::twinfer;

/// The built-in model as a file.
const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/demo/twinfer-demo-q4_k_m.gguf"
);

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// A stage of so many passes, of so many workers.
#[track_caller]
fn check_stage(stage: &Value, passes: u64, workers: usize) {
    assert_eq!(stage["passes"], Value::from(passes), "{stage}");
    let times = ["p50", "p90", "p99", "max"].map(|name| number(&stage["pass_ms"][name]));
    assert!(times[0] > 0.0 && times.is_sorted(), "{stage}");
    // The longest pass is at most all of the time, and at least the mean.
    let ms = number(&stage["seconds"]) * 1e3;
    assert!(
        ms >= times[3] * 0.999 && ms <= times[3] * passes as f64 * 1.001,
        "{stage}"
    );
    assert_eq!(stage["waits"].as_array().unwrap().len(), workers, "{stage}");
    let met = ["slowest_met", "others_met"].map(|name| stage[name]["passes"].as_u64().unwrap_or(0));
    assert_eq!(met[0] + met[1], passes, "{stage}");
}

/// On one node all memory is local. `doctor` finds it in the same way, and a command that computes says it with -v.
#[test]
fn where_memory_lies_is_reported() {
    let with = |args: &[&str], mode: &str| twinfer(&[args, &["-m", DEMO, "--numa", mode]].concat());
    let doctor = with(&["doctor", "--no-measure", "--json", "-c", "512"], "node:0");
    if doctor.code != 0 {
        println!("left out: there is no node 0 to use: {}", doctor.err);
        return;
    }
    let looked = doctor.json()["numa"].clone();
    if looked["cache_local"].is_null() {
        println!("left out: the system does not say where pages are");
        return;
    }
    let bench = ["bench", "-p", "8", "-n", "8", "-r", "1", "-o", "json"];
    let tests = with(&bench, "node:0").json();
    let long = with(&["bench", "--long", "16", "-o", "json"], "node:0").json();
    for found in [&tests[0]["numa"], &tests[1]["numa"], &long["numa"], &looked] {
        assert_eq!(found["mode"], "node 0", "{found}");
        assert_eq!(found["nodes"], looked["nodes"]);
        assert!(number(&found["cache_local"]) >= 0.95, "{found}");
        assert!(found["cache_pages"].as_u64() > Some(0), "{found}");
        // Weights are the program's own, or the file's where the backend packs none.
        let pages = |what: &str| found[format!("{what}_pages")].as_u64().unwrap_or(0);
        assert!(pages("weights") + pages("mapped") > 100, "{found}");
        assert!(number(&found["weights_local"]) >= 0.95, "{found}");
    }
    let mapped = with(&[&bench[..], &["--weights", "mapped"]].concat(), "node:0").json();
    let found = &mapped[0]["numa"];
    assert_eq!(found["weights_pages"], 0, "{found}");
    assert!(found["mapped_pages"].as_u64() > Some(100), "{found}");
    assert!(with(&bench, "off").json()[0]["numa"].is_null());

    let table = with(&["bench", "-p", "8", "-n", "8", "-r", "1"], "node:0").ok();
    assert!(
        table.text().contains("\nnuma: node 0; on the node that"),
        "{}",
        table.text()
    );
    let run = with(&["run", "Once", "-n", "2", "-v"], "node:0").ok();
    assert!(
        run.err.contains("node 0; on the node that reads them: "),
        "{}",
        run.err
    );
    let off = with(&["run", "Once", "-n", "2", "-v"], "off").ok();
    assert!(!off.err.contains("on the node that reads"), "{}", off.err);
}

#[test]
fn stages_have_quantiles_and_what_their_passes_met() {
    let args = ["bench", "-p", "20", "-n", "60", "-b", "8", "-r", "2", "-t", "2"];
    let tests = twinfer(&[&args[..], &["-o", "json"]].concat()).json();
    // Three passes of a prompt; a pass of each token.
    for (test, passes) in tests.as_array().unwrap().iter().zip([6, 120]) {
        check_stage(&test["load"], 1, 2);
        check_stage(&test["first_token"], 1, 2);
        check_stage(&test["stage"], passes, 2);
        let seconds: f64 = test["samples_s"].as_array().unwrap().iter().map(number).sum();
        assert!(
            (seconds / number(&test["stage"]["seconds"]) - 1.0).abs() < 1e-6,
            "{test}"
        );
    }
    assert_eq!(tests[1]["stage"]["slowest_met"]["passes"], Value::from(2));
    let text = twinfer(&args).ok();
    for part in [
        "| load ",
        "| first token ",
        "| pp20 ",
        "P99 ms",
        "| tg60, slowest ",
        "preempted",
    ] {
        assert!(text.text().contains(part), "{part}: {}", text.text());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_long_text_is_the_one_of_run_and_its_memory_stays_as_it_is() {
    let long = ["bench", "--long", "1500", "-c", "2048", "-t", "2", "-o", "json"];
    let report = twinfer(&[&long[..], &["--populate"]].concat()).json();
    check_stage(&report["decode"], 1499, 2);
    let parts = report["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 8);
    let passes: u64 = parts
        .iter()
        .map(|part| part["stage"]["passes"].as_u64().unwrap())
        .sum();
    assert_eq!(passes, 1499);
    let growth = |report: &Value| {
        number(&report["resident_bytes_at_end"]) - number(&report["resident_bytes_at_first_token"])
    };
    // Code that runs for the first time comes from the program's file; the test of allocations finds every byte.
    let slack = 512.0 * 1024.0;
    let cache = number(&report["cache_bytes"]);
    assert!(cache > 2.0 * slack, "{cache} bytes of cache would hide in it");
    assert!(growth(&report) < slack, "{} bytes", growth(&report));

    let run = [
        "run",
        "-p",
        "Once upon a time",
        "-n",
        "1500",
        "-c",
        "2048",
        "-s",
        "0",
        "--ignore-eos",
        "-q",
        "--no-display-prompt",
    ];
    let text = twinfer(&run).ok().out;
    // `run` ends the line where the text does not.
    let texts = [&text[..], text.strip_suffix(b"\n").unwrap_or(&text)];
    let found = texts.map(|text| {
        let sha256: String = Sha256::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        (Value::from(sha256), Value::from(text.len()))
    });
    let reported = (report["sha256"].clone(), report["length"].clone());
    assert!(found.contains(&reported), "{}", String::from_utf8_lossy(&text));

    // Without --populate the cache's pages come while the text is made.
    let lazy = twinfer(&long).json();
    assert_eq!(lazy["sha256"], report["sha256"]);
    assert!(growth(&lazy) < cache + slack, "{lazy}");
}

#[test]
fn a_long_text_needs_no_vocabulary_and_must_fit() {
    let shape = ["bench", "--shape", "smollm2-135m", "--type", "q4_0"];
    let ids = twinfer(&[&shape[..], &["--long", "16", "-b", "2"]].concat()).ok();
    assert!(ids.text().contains("16 ids, SHA-256"), "{}", ids.text());
    let run = twinfer(&["bench", "--long", "100", "-c", "64"]);
    assert!(
        run.code == 1 && run.err.contains("do not fit into --ctx-size 64"),
        "{}",
        run.err
    );
}

/// Random weights count as all others do.
#[test]
fn weights_that_do_not_fit_are_not_made() {
    let shape = ["bench", "--shape", "smollm2-135m", "--memory-limit", "64M"];
    let run = twinfer(&shape);
    assert_eq!(run.code, 1);
    for part in ["these weights need", "(--memory-limit)", "--layers", "-o"] {
        assert!(run.err.contains(part), "{part}: {}", run.err);
    }
}

#[test]
fn the_scenario_has_its_settings_switched_off_in_turn() {
    let preset = ["bench", "--preset", "epyc-3b", "-m", DEMO, "-r", "1"];
    let text = twinfer(&preset).ok();
    for part in [
        "pp128",
        "tg128 @ d128",
        "plain: scalar",
        "EPYC 7763",
        "EPYC 9654",
        "205",
        "461",
    ] {
        assert!(text.text().contains(part), "{part}: {}", text.text());
    }
    let report = twinfer(&[&preset[..], &["-o", "json"]].concat()).json();
    let rows = report["settings"]["off"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["setting"].as_str().unwrap()).collect();
    let expected = [
        "mmap", "mlock", "pinning", "threads", "threads", "populate", "cache", "kernels", "NUMA",
    ];
    assert_eq!(names, expected);
    for row in rows {
        let ratios = ["load_ratio", "first_token_ratio", "prompt_ratio", "writing_ratio"];
        if row["not_measured"].is_null() {
            assert!(ratios.iter().all(|name| number(&row[name]) > 0.0), "{row}");
        } else {
            assert!(ratios.iter().all(|name| row[name].is_null()), "{row}");
        }
    }
}
