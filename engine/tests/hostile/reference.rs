//! The malformed files of the reference, each through the whole load.

use std::path::Path;
use std::time::Duration;

use twinfer_engine::cache::CacheType;

use crate::load::load_and_evaluate;
use crate::memory::measure;
use crate::small::MOST_BYTES;

#[test]
fn malformed_files_are_refused_and_sound_ones_run() {
    let root = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/reference/gguf-bad"
    ));
    if !root.is_dir() {
        println!("gguf-bad: left out, ../shared/reference/gguf-bad is not there");
        return;
    }
    let index = std::fs::read(root.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let (mut rejects, mut accepts, mut eithers) = ((0, 0), (0, 0), 0);
    let (mut peak, mut slowest) = (0, Duration::ZERO);
    let mut failures = Vec::new();
    for case in index["cases"].as_array().unwrap() {
        let (name, why) = (case["file"].as_str().unwrap(), case["why"].as_str().unwrap());
        let bytes = std::fs::read(root.join(name)).unwrap();
        let (result, cost) = measure(|| load_and_evaluate(bytes, CacheType::F16));
        peak = peak.max(cost.peak);
        slowest = slowest.max(cost.time);
        if cost.peak >= MOST_BYTES || cost.time.as_secs_f64() >= 1.0 {
            failures.push(format!("{name}: {} bytes, {:?}", cost.peak, cost.time));
        }
        match &result {
            Ok(logits) => println!("{name} ({why}): runs, {} logits", logits.len()),
            Err((stage, error)) => println!("{name} ({why}): {stage:?}: {error}"),
        }
        match case["expect"].as_str().unwrap() {
            "reject" => {
                rejects.1 += 1;
                rejects.0 += usize::from(result.is_err());
                if result.is_ok() {
                    failures.push(format!("{name} is accepted: {why}"));
                }
            }
            "accept" => {
                accepts.1 += 1;
                accepts.0 += usize::from(result.is_ok());
                if let Err((stage, error)) = result {
                    failures.push(format!("{name} is refused: {stage:?}: {error}"));
                }
            }
            "either" => eithers += 1,
            other => failures.push(format!("{name}: unknown expectation {other}")),
        }
    }
    println!(
        "gguf-bad: {} of {} rejected, {} of {} accepted, {eithers} either; at most {peak} bytes and {slowest:?}",
        rejects.0, rejects.1, accepts.0, accepts.1
    );
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(rejects.1 >= 50 && accepts.1 >= 4);
}
