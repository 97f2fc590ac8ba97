//! Loading: storages and flags change no number, memory stays within bounds, refusals are explained.

use crate::support::{Directory, Run, command, twinfer};

/// The number before `unit` in the line of stderr that has `text`.
fn number(run: &Run, text: &str) -> u64 {
    let (_, rest) = run
        .err
        .split_once(text)
        .unwrap_or_else(|| panic!("no `{text}` in: {}", run.err));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn packing_keeps_one_copy_of_the_model_in_memory() {
    let directory = Directory::new("peak");
    let model = directory.random_model("q8_0");
    let size = std::fs::metadata(&model).unwrap().len();
    // When mapped weights are ready none of them was read: what is taken then is the program, its tokenizer and the
    // rest.
    let [program, packed] = ["mapped", "packed"].map(|weights| {
        let args = [
            "eval",
            "-m",
            &model,
            "--tokens",
            "1",
            "--weights",
            weights,
            "-v",
            "-c",
            "64",
        ];
        number(&twinfer(&args).ok(), ", at most ") << 10
    });
    println!("{size} bytes of model, peak {packed}, of which the program {program}");
    assert!(
        program < size / 2,
        "mapped weights were read: {program} for {size}"
    );
    assert!(
        (packed - program) as f64 <= 1.1 * size as f64,
        "{packed} for {size}"
    );
}

#[test]
fn flags_of_memory_and_threads_change_no_number() {
    let digest = |args: &[&str]| {
        let run = twinfer(&[&["eval", "--tokens", "1,5,9"], args].concat()).ok();
        (run.text().lines().last().unwrap().to_string(), run.err)
    };
    let (expected, _) = digest(&[]);
    for args in [
        &["--populate"][..],
        &["--weights", "mapped", "--populate", "--huge-pages"],
        &["--huge-pages=off", "--no-pin"],
        &["--pin", "-t", "1"],
        &["--pin", "-t", "64"],
        &["--mlock"],
    ] {
        let (found, err) = digest(args);
        assert_eq!(found, expected, "{args:?}");
        if args.contains(&"--huge-pages") {
            assert!(err.contains("in huge pages"), "{err}");
        }
        if args.contains(&"64") {
            assert!(err.contains("not pinned"), "{err}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_refused_lock_is_explained_and_the_model_runs() {
    use std::process::{Command, Stdio};
    let program = command(&[]).get_program().to_owned();
    // The limit is lowered by a shell for its own child alone. Who may lock anything (root) is not refused.
    let output = Command::new("sh")
        .args(["-c", "ulimit -l 64 && exec \"$0\" eval --tokens 1,5 --mlock"])
        .arg(program)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success());
    let err = String::from_utf8(output.stderr).unwrap();
    if err.is_empty() {
        println!("left out: this user may lock any memory");
        return;
    }
    for part in [
        "RLIMIT_MEMLOCK",
        "64 KiB",
        "ulimit -l",
        "LimitMEMLOCK",
        "going on without",
    ] {
        assert!(err.contains(part), "{err}");
    }
}
