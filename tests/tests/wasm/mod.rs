//! Puts one list of questions to both builds and compares the answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use twinfer_tests::{Request, answer};

/// A question, the files that go with it, and a name for messages.
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) blobs: Vec<PathBuf>,
    pub(crate) request: Request,
}

impl Job {
    /// A job without files.
    pub(crate) fn new(name: impl Into<String>, request: Request) -> Job {
        Job {
            name: name.into(),
            blobs: Vec::new(),
            request,
        }
    }

    /// Adds a file.
    pub(crate) fn with(mut self, path: PathBuf) -> Job {
        self.blobs.push(path);
        self
    }

    /// A job on one file, named by its path below `root`.
    pub(crate) fn of_file(root: &Path, path: &Path, request: Request) -> Job {
        Job {
            name: path.strip_prefix(root).unwrap_or(path).display().to_string(),
            blobs: vec![path.to_owned()],
            request,
        }
    }
}

/// The reference data, which lies outside of the project; where it is not there, that is said.
pub(crate) fn reference(subject: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference"));
    if !path.is_dir() {
        println!("wasm {subject}: LEFT OUT: there is no reference data in ../shared/reference");
        return None;
    }
    Some(path.to_owned())
}

/// The files below `directory` with this extension, sorted.
pub(crate) fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
    for entry in entries {
        let path = entry.expect("a directory that opens can be listed").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A directory of this test's own below `target`.
pub(crate) fn scratch(subject: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("wasm-parity")
        .join(subject);
    fs::create_dir_all(&directory).expect("the target directory can be written");
    directory
}

/// As [`compare`], but any refusal equals any other: what a limit of the address space says depends on the platform.
pub(crate) fn compare_refusals(subject: &str, jobs: Vec<Job>) -> Vec<Value> {
    compare_as(subject, jobs, &without_words)
}

/// Runs `jobs` natively and under Node at the same time; panics with all differences.
/// Prints the count. Gives native's answers; none if it was left out.
pub(crate) fn compare(subject: &str, jobs: Vec<Job>) -> Vec<Value> {
    compare_as(subject, jobs, &Clone::clone)
}

fn compare_as(subject: &str, jobs: Vec<Job>, view: &dyn Fn(&Value) -> Value) -> Vec<Value> {
    let (Some(module), Some(node)) = (
        std::env::var_os("TWINFER_WASM_MODULE"),
        std::env::var_os("TWINFER_NODE"),
    ) else {
        println!("wasm {subject}: LEFT OUT: `cargo xtask test` builds the module and runs this");
        return Vec::new();
    };
    assert!(!jobs.is_empty(), "{subject}: there is nothing to compare");

    let directory = scratch(subject);
    let (jobs_path, answers_path) = (directory.join("jobs.jsonl"), directory.join("answers.jsonl"));
    let lines: String = jobs
        .iter()
        .map(|job| {
            let request = serde_json::to_string(&job.request).expect("a request is plain data");
            format!("{}\n", json!({ "blobs": job.blobs, "request": request }))
        })
        .collect();
    fs::write(&jobs_path, lines).expect("the target directory can be written");
    let mut child = Command::new(node)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/wasm/run.mjs"))
        .args([Path::new(&module), &jobs_path, &answers_path])
        .stdin(Stdio::null())
        .spawn()
        .expect("TWINFER_NODE names a program");

    let native: Vec<Value> = jobs
        .iter()
        .map(|job| {
            let read = |path| fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            answer(&job.request, job.blobs.iter().map(read).collect())
        })
        .collect();

    let status = child.wait().expect("the child was started above");
    assert!(status.success(), "{subject}: Node ended with {status}");
    let answers = fs::read_to_string(&answers_path).expect("Node wrote the answers");
    let wasm: Vec<Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).expect("an answer is a line of JSON"))
        .collect();
    assert_eq!(
        wasm.len(),
        jobs.len(),
        "{subject}: answers and questions differ in number"
    );

    let mut differences = Vec::new();
    for ((job, native), wasm) in jobs.iter().zip(&native).zip(&wasm) {
        if let Some(place) = difference(&view(native), &view(wasm)) {
            differences.push(format!("{}: {place}", job.name));
        }
    }
    let answered = native
        .iter()
        .filter(|answer| answer.get("error").is_none())
        .count();
    println!(
        "wasm {subject}: {} of {} answers equal native's ({answered} results, {} errors)",
        jobs.len() - differences.len(),
        jobs.len(),
        jobs.len() - answered,
    );
    assert!(
        differences.is_empty(),
        "{subject} differ:\n{}",
        differences.join("\n")
    );
    native
}

/// The answer with every error's words left out.
fn without_words(answer: &Value) -> Value {
    match answer {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match key.as_str() {
                "error" => (key.clone(), Value::Null),
                _ => (key.clone(), without_words(value)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(without_words).collect(),
        _ => answer.clone(),
    }
}

/// Where two answers first differ, and how; nothing if they are equal.
fn difference(native: &Value, wasm: &Value) -> Option<String> {
    if native == wasm {
        return None;
    }
    match (native, wasm) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => a
            .iter()
            .find_map(|(key, value)| Some(format!(".{key}{}", difference(value, &b[key])?))),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (a, b))| Some(format!("[{i}]{}", difference(a, b)?))),
        _ => Some(format!(" native {native}, wasm {wasm}")),
    }
}

#[test]
fn a_difference_is_found_where_it_is() {
    let answer = json!({ "ids": [1, 2, 3], "text": "a" });
    assert_eq!(difference(&answer, &answer.clone()), None);
    let other = json!({ "ids": [1, 2, 4], "text": "a" });
    assert_eq!(
        difference(&answer, &other).as_deref(),
        Some(".ids[2] native 3, wasm 4")
    );
    let shorter = json!({ "ids": [1, 2], "text": "a" });
    assert_eq!(
        difference(&answer, &shorter).as_deref(),
        Some(".ids native [1,2,3], wasm [1,2]")
    );
    assert!(difference(&answer, &json!({ "trap": "unreachable" })).is_some());
}
