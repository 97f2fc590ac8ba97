//! What a person sees first: the built-in model's story and one of its answers, word for word. After a new built-in
//! model or a change of the numerics contract, write the texts anew with `TWINFER_BLESS=1 cargo test -p twinfer --test
//! cli first_run` and read them.

use std::path::Path;
use std::process::Command;

#[track_caller]
fn assert_golden(name: &str, args: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    // Threads change nothing; one of the two runs is as a person types it.
    for threads in [&[][..], &["--threads", "1"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_twinfer"))
            .args(args)
            .args(threads)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        if std::env::var_os("TWINFER_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; see the top of {}", path.display(), file!()));
        assert_eq!(text, expected, "{args:?} {threads:?}");
    }
}

#[test]
fn first_story() {
    assert_golden("first-story.txt", &["run", "Once upon a time"]);
}

#[test]
fn greedy_answer() {
    assert_golden(
        "greedy-answer.txt",
        &["run", "--chat", "--temp", "0", "Tell me a story about a fox."],
    );
}
