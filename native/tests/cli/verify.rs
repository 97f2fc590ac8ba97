//! Comparing runs: digest records, and traces of operations.

use crate::support::{Directory, Run, twinfer, twinfer_with};

/// Fails with code 1 and one line that says all of this.
#[track_caller]
fn fails(run: &Run, says: &[&str]) {
    assert_eq!(run.code, 1, "{}{}", run.text(), run.err);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    for says in says {
        assert!(run.err.contains(says), "`{says}` is not in: {}", run.err);
    }
}

#[test]
fn a_record_is_checked_on_every_backend() {
    let directory = Directory::new("verify");
    let record = twinfer(&["verify"]).ok();
    let text = record.text();
    assert!(record.err.is_empty(), "{}", record.err);
    for field in [
        "engine_version",
        "numerics_version",
        "sha256",
        "prompt_set",
        "\"digest\"",
    ] {
        assert!(text.contains(field), "{field} is not in {text}");
    }
    let path = directory.file("record.json");
    std::fs::write(&path, text).unwrap();
    for options in [
        &["--backend", "scalar", "-t", "1", "--weights", "mapped"] as &[_],
        &["-t", "3", "--cache-type-k", "f32"],
    ] {
        let equal = twinfer(&[&["verify", "--against", &path], options].concat()).ok();
        assert!(
            equal.text().starts_with("equal: all logits of 206 positions"),
            "{}",
            equal.text()
        );
    }
    assert!(
        twinfer_with(&["verify", "--against", "-"], text.as_bytes())
            .ok()
            .text()
            .starts_with("equal")
    );

    // One digit of one position's digest.
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let digest = json["answers"][1]["positions"][20].as_str().unwrap();
    let flipped = format!(
        "{}{}",
        if digest.starts_with('0') { '1' } else { '0' },
        &digest[1..]
    );
    let tokens = json["answers"][1]["tokens"].as_array().unwrap();
    let ids: Vec<String> = tokens[..=20].iter().map(ToString::to_string).collect();
    let changed = twinfer_with(
        &["verify", "--against", "-"],
        text.replace(digest, &flipped).as_bytes(),
    );
    fails(
        &changed,
        &[
            "logits differ, first in prompt `few` at position 20",
            "twinfer eval",
            &ids.join(","),
        ],
    );
    assert!(changed.text().is_empty());

    let other = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/oracle/vectors/llama-gqa.gguf"
    );
    fails(
        &twinfer(&["verify", "-m", other, "--against", &path]),
        &["cannot be checked: model files"],
    );
    let q8 = twinfer(&["verify", "--cache-type-k", "q8_0", "--cache-type-v", "q8_0"]).ok();
    assert_ne!(q8.text(), text);
    // The record knows its cache's types.
    twinfer_with(
        &["verify", "--against", "-", "--backend", "scalar"],
        q8.text().as_bytes(),
    )
    .ok();
    fails(
        &twinfer_with(&["verify", "--against", "-"], b"{\"format\": 1}"),
        &["this is not a digest record"],
    );
}

const TOKENS: [&str; 3] = ["eval", "--tokens", "1,5,9,2"];

fn traced(options: &[&str]) -> Run {
    twinfer(&[&TOKENS, options].concat())
}

#[test]
fn a_trace_is_equal_everywhere_and_names_what_differs() {
    let directory = Directory::new("trace");
    let trace = traced(&["--trace-ops", "-", "--backend", "scalar"]).ok();
    let path = directory.file("a.trace");
    let report = traced(&["--trace-ops", &path, "-t", "2", "-b", "1"]).ok();
    assert!(report.text().contains("sha256"), "{}", report.text());
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, trace.text());
    assert!(
        traced(&["--trace-against", &path])
            .ok()
            .text()
            .starts_with("equal: every operation")
    );

    // The operation as a person would find it with diff: the line, then the values behind it.
    let line = written
        .lines()
        .find(|line| line.starts_with("2 3 attention "))
        .unwrap();
    let changed = format!(
        "{}{}",
        &line[..line.len() - 1],
        if line.ends_with('0') { '1' } else { '0' }
    );
    std::fs::write(&path, written.replace(line, &changed)).unwrap();
    fails(
        &traced(&["--trace-against", &path]),
        &[
            "position 2, layer 3, operation attention",
            "--trace-values 2:3:attention",
        ],
    );
    let values = traced(&["--trace-values", "2:3:attention"]).ok();
    let width: usize = line.split(' ').nth(3).unwrap().parse().unwrap();
    assert_eq!(values.text().lines().count(), width);
    let bytes: Vec<u8> = values
        .text()
        .lines()
        .flat_map(|line| {
            let bits = line.split(' ').nth(1).unwrap();
            u32::from_str_radix(bits, 16).unwrap().to_le_bytes()
        })
        .collect();
    use sha2::Digest as _;
    let sha256 = sha2::Sha256::digest(&bytes);
    let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(line.ends_with(&sha256), "{line}");

    let other = twinfer(&["eval", "--tokens", "1,5,9,3", "--trace-against", &path]);
    fails(&other, &["the traces are of different runs"]);
    fails(
        &traced(&["--trace-values", "9:0:q"]),
        &["there is no position 9, layer 0, operation q"],
    );
    let scalar = traced(&["--trace-against", "scalar", "-t", "3"]).ok();
    assert!(
        scalar.text().starts_with("equal: every operation"),
        "{}",
        scalar.text()
    );
    assert_eq!(traced(&["--trace-against", "scalar", "-n", "1"]).code, 2);
}
