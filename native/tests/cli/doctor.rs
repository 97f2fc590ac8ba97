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
