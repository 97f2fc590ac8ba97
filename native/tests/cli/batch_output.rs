//! `batch`'s output: one of something else is left alone, and one that was interrupted anywhere is gone on with to the
//! same bytes.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::batch::{batch, input, lines, questions};
use crate::support::{Directory, command, twinfer};

#[test]
fn an_output_of_something_else_is_left_alone() {
    let directory = Directory::new("batch-other");
    let questions: Vec<Value> = (0..4)
        .map(|i| json!({"prompt": "The cat", "max_tokens": 4, "seed": i}))
        .collect();
    let path = input(&directory, &questions);
    let out = directory.file("out");
    batch(&path, &out, &[]).ok();
    let whole = std::fs::read(&out).unwrap();
    let again = batch(&path, &out, &[]).ok();
    assert!(
        again.err.contains("4 of 4 lines are answered already"),
        "{}",
        again.err
    );

    let refused = |args: &[&str], says: &str| {
        let run = twinfer(args);
        assert!(run.code != 0 && run.err.contains(says), "{args:?}: {}", run.err);
        assert_eq!(std::fs::read(&out).unwrap(), whole, "{args:?}");
    };
    let start = ["batch", &path, "-o", &out];
    refused(&[&start[..], &["--temp", "0"]].concat(), "other options");
    refused(&[&start[..], &["-n", "3"]].concat(), "other options");
    let shifted = directory.file("shifted.jsonl");
    std::fs::write(&shifted, format!("\n{}", std::fs::read_to_string(&path).unwrap())).unwrap();
    refused(&["batch", &shifted, "-o", &out], "line 2 was expected");
    let shorter = directory.file("shorter.jsonl");
    std::fs::write(&shorter, format!("{}\n", questions[0])).unwrap();
    refused(&["batch", &shorter, "-o", &out], "only 1 of them");
    // More lines at the end of the input are more lines at the end of the output.
    let longer = directory.file("longer.jsonl");
    let more = json!({"prompt": "The dog", "max_tokens": 4, "seed": 9});
    std::fs::write(
        &longer,
        format!("{}{more}", std::fs::read_to_string(&path).unwrap()),
    )
    .unwrap();
    let grown = directory.file("grown");
    std::fs::copy(&out, &grown).unwrap();
    batch(&longer, &grown, &[]).ok();
    let found = std::fs::read(&grown).unwrap();
    assert!(found.starts_with(&whole) && lines(&grown).len() == 5);

    for (name, content) in [("notes.txt", "to do\n"), ("word", "to do")] {
        let other = directory.file(name);
        std::fs::write(&other, content).unwrap();
        let run = batch(&path, &other, &[]);
        assert_eq!(run.code, 1, "{}", run.err);
        assert_eq!(std::fs::read_to_string(&other).unwrap(), content);
    }
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/demo/twinfer-demo-q4_k_m.gguf"
    );
    let copy = directory.file("model.gguf");
    std::fs::copy(model, &copy).unwrap();
    let run = batch(&path, &copy, &["-m", &copy]);
    assert!(run.err.contains("is the same file"), "{}", run.err);
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(model).unwrap());
    let run = batch(&path, &path, &[]);
    assert_eq!(run.code, 2, "{}", run.err);
    // What fails before there is an answer leaves no file.
    let nothing = directory.file("nothing");
    assert_eq!(batch(&directory.file("missing"), &nothing, &[]).code, 1);
    assert_eq!(batch(&path, &nothing, &["--ctx-size", "100000000"]).code, 1);
    assert!(!std::path::Path::new(&nothing).exists());
}

/// Waits for the process to end by itself; kills it after `delay`. Whether it was killed.
fn kill_after(mut child: Child, delay: Duration) -> bool {
    let end = Instant::now() + delay;
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // SIGKILL.
    let _ = child.kill();
    !child.wait().unwrap().success()
}

fn started(args: &[&str]) -> Child {
    let mut command = command(args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Where the kills fall: what TWINFER_TEST_SEED says, or else another place every time. It is printed, so that a
/// failure can be looked at again.
fn seed() -> u64 {
    let since = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = match std::env::var("TWINFER_TEST_SEED") {
        Ok(seed) => seed.parse().expect("TWINFER_TEST_SEED is a number"),
        Err(_) => since().unwrap().as_nanos() as u64,
    };
    println!("TWINFER_TEST_SEED={seed}");
    // xorshift64 stays at 0.
    seed.max(1)
}

/// Answers lines, killed `kills` times at random points, as often as it takes; each time the same bytes come of it.
fn killed_at_random(directory: &Directory, kills: usize) {
    let mut questions = questions();
    questions.extend(
        self::questions()
            .into_iter()
            .filter(|line| line.get("messages").is_some()),
    );
    questions.insert(5, json!({"prompt": 5}));
    let path = input(directory, &questions);
    let (whole, out) = (directory.file("whole"), directory.file("out"));
    let start = Instant::now();
    batch(&path, &whole, &[]).ok();
    let longest = start.elapsed();
    let expected = std::fs::read(&whole).unwrap();
    let mut random = seed();
    let mut killed = 0;
    let mut rounds = 0;
    let mut partly = 0;
    while killed < kills {
        // In order or not, both are gone on with.
        let unordered = rounds % 3 == 2;
        let args = ["batch", &path, "-o", &out, "--unordered"];
        let args = &args[..if unordered { 5 } else { 4 }];
        let _ = std::fs::remove_file(&out);
        rounds += 1;
        loop {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let share = (random >> 11) as f64 / (1u64 << 53) as f64;
            if !kill_after(started(args), longest.mul_f64(share * 0.9)) {
                break;
            }
            killed += 1;
            let found = std::fs::read(&out).unwrap_or_default();
            partly += usize::from(!found.is_empty() && found.len() < expected.len());
            if !unordered {
                assert!(expected.starts_with(&found), "after {killed} kills");
            }
        }
        let found = std::fs::read(&out).unwrap();
        if unordered {
            let sorted = |bytes: &[u8]| -> BTreeMap<u64, Value> {
                let text = std::str::from_utf8(bytes).unwrap();
                let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
                lines
                    .map(|line: Value| (line["line"].as_u64().unwrap(), line))
                    .collect()
            };
            assert_eq!(sorted(&found), sorted(&expected));
            assert_eq!(found.len(), expected.len());
        } else {
            assert_eq!(found, expected, "after {killed} kills in {rounds} rounds");
        }
    }
    println!("{killed} kills in {rounds} rounds, {partly} of them with a part of the output there");
}

#[test]
fn a_killed_run_is_gone_on_with() {
    killed_at_random(&Directory::new("batch-killed"), 5);
}

/// Run it by `cargo test -p twinfer --test cli fifty_kills -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes; five kills are in `a_killed_run_is_gone_on_with`"]
fn fifty_kills() {
    killed_at_random(&Directory::new("batch-fifty"), 50);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_what_can_be_gone_on_with() {
    let directory = Directory::new("batch-ctrl-c");
    let questions: Vec<Value> = (0..40)
        .map(|i| json!({"prompt": "Once", "max_tokens": 200, "seed": i, "ignore_eos": true}))
        .collect();
    let path = input(&directory, &questions);
    let (whole, out) = (directory.file("whole"), directory.file("out"));
    batch(&path, &whole, &[]).ok();
    // Two at a time, so that lines are written early.
    let mut child = command(&["batch", &path, "-o", &out, "--parallel", "2"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    while std::fs::metadata(&out).map_or(0, |found| found.len()) == 0 {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("the same command goes on"), "{err}");
    let found = std::fs::read(&out).unwrap();
    let expected = std::fs::read(&whole).unwrap();
    assert!(!found.is_empty() && found.len() < expected.len() && expected.starts_with(&found));
    let run = batch(&path, &out, &[]).ok();
    assert!(run.err.contains("are answered already"), "{}", run.err);
    assert_eq!(std::fs::read(&out).unwrap(), expected);
}
