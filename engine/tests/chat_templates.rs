//! Chat templates against what Python's jinja2 renders: the reference vectors where they are present, a table of
//! small templates, and hostile ones.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use twinfer_engine::Error;
use twinfer_engine::chat::{CHATML, ChatTemplate, CivilTime, Inputs};

const NOW: CivilTime = CivilTime {
    year: 2026,
    month: 1,
    day: 2,
    hour: 3,
    minute: 4,
    second: 5,
};

fn inputs(variables: &Value) -> Inputs {
    Inputs {
        variables: variables.as_object().expect("a map of arguments").clone(),
        now: NOW,
    }
}

fn render(source: &str, variables: &Value) -> Result<String, Error> {
    ChatTemplate::new(source)?.render(&inputs(variables))
}

#[test]
fn reference_renderings() {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/reference/chat-templates"
    ));
    if !folder.is_dir() {
        println!("chat templates: left out, {} is not there", folder.display());
        return;
    }
    let mut files: Vec<_> = std::fs::read_dir(folder.join("expected"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let (mut equal, mut total, mut errors, mut failures) = (0, 0, 0, Vec::new());
    for file in &files {
        let vectors: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap();
        let source = std::fs::read_to_string(folder.join("templates").join(format!("{name}.jinja"))).unwrap();
        let template = match ChatTemplate::new(&source) {
            Ok(template) => template,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        for case in vectors["cases"].as_array().unwrap() {
            let found = template.render(&inputs(&case["inputs"]));
            let label = format!("{name} / {}", case["name"].as_str().unwrap());
            if let Some(expected) = case.get("expected").and_then(Value::as_str) {
                total += 1;
                match found {
                    Ok(found) if found == expected => equal += 1,
                    found => failures.push(format!("{label}: {found:?}\n  expected {expected:?}")),
                }
                continue;
            }
            errors += 1;
            let expected = case["error"].as_str().unwrap();
            // Where the sandbox forbids changing a list, this engine may do better.
            if found.is_ok() && !expected.starts_with("SecurityError") {
                failures.push(format!("{label}: rendered, expected {expected}"));
            }
        }
    }
    println!(
        "chat templates: {equal} of {total} renderings over {} templates ({errors} error cases)",
        files.len()
    );
    assert!(
        failures.is_empty(),
        "{} failures, the first:\n{}",
        failures.len(),
        failures
            .iter()
            .take(12)
            .map(|f| f.chars().take(700).collect::<String>())
            .collect::<Vec<_>>()
            .join("\n")
    );
}
