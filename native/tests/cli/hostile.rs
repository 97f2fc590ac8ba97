//! Bytes that nobody means: as arguments in every place, and typed into a chat. One line and an exit code, never a
//! panic, and a conversation goes on.

use std::ffi::{OsStr, OsString};
use std::process::{Command, Stdio};

use crate::support::{CHATML, Directory, twinfer, twinfer_with};

#[cfg(unix)]
fn bytes(bytes: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStrExt as _;
    OsStr::from_bytes(bytes).into()
}

/// The words after `marker` in lines of the help.
fn words(help: &str, marker: &str) -> Vec<String> {
    help.split(|c: char| c.is_whitespace() || "[]<>,=|".contains(c))
        .filter(|word| word.starts_with(marker) && word.len() > marker.len())
        .map(String::from)
        .collect()
}

/// Commands of the overview, but for `help`.
fn commands() -> Vec<String> {
    let help = twinfer(&["--help"]).ok();
    let (_, list) = help.text().split_once("Commands:\n").unwrap();
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|&name| name != "help")
        .map(String::from)
        .collect()
}

#[cfg(unix)]
#[test]
fn no_argument_panics() {
    let directory = Directory::new("hostile");
    let commands = commands();
    let top = twinfer(&["--help"]).ok();
    assert!(commands.len() >= 14, "{commands:?}");
    let values = [
        bytes(b"bad\xff.gguf"),
        bytes(b"--bad\xff=\xfe"),
        bytes(b"-\xff"),
        bytes(b"-m\xff"),
        bytes(b"-qn\xff"),
        bytes(b""),
        bytes("-\u{202e}\u{1f600}".as_bytes()),
        bytes(b"a\x01\x1b[31m\r\nb\x7f"),
        bytes(&b"-"[..].repeat(300)),
        bytes(&b"x"[..].repeat(100_000)),
    ];
    let mut lines: Vec<Vec<OsString>> = values.iter().map(|value| vec![value.clone()]).collect();
    let words_of = |parts: &[&OsStr]| parts.iter().map(|&part| part.to_os_string()).collect::<Vec<_>>();
    for name in &commands {
        let help = twinfer(&[name, "--help"]).ok();
        let mut options = words(help.text(), "--");
        options.sort();
        options.dedup();
        // Options of every command are tried with one.
        options.retain(|option| name == "run" || !top.text().contains(option.as_str()));
        // Nothing that listens or measures is started: its last argument is a mistake.
        let tail: &[&str] = match name.as_str() {
            "serve-demo" => &["--port", "none"],
            "doctor" => &["--depth", "none"],
            "bench" => &["--repetitions", "none"],
            _ => &[],
        };
        let tail: Vec<&OsStr> = tail.iter().map(OsStr::new).collect();
        let name = OsStr::new(name);
        for value in &values {
            lines.push([words_of(&[value, name]), words_of(&tail)].concat());
            lines.push([words_of(&[name, value]), words_of(&tail)].concat());
            lines.push([words_of(&["-m".as_ref(), value, name]), words_of(&tail)].concat());
            lines.push([words_of(&[name, value, value, value]), words_of(&tail)].concat());
        }
        for option in &options {
            for value in [&values[0], &values[5], &values[7]] {
                let option = OsStr::new(option);
                lines.push([words_of(&[name, option, value]), words_of(&tail)].concat());
                let mut joined = option.to_os_string();
                joined.push("=");
                joined.push(value);
                lines.push([words_of(&[name, &joined]), words_of(&tail)].concat());
            }
        }
    }
    let n = lines.len();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(line) = lines.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let output = Command::new(env!("CARGO_BIN_EXE_twinfer"))
                        .args(line)
                        .current_dir(&directory.0)
                        .stdin(Stdio::null())
                        .output()
                        .unwrap();
                    let shown: Vec<_> = line.iter().map(|arg| arg.to_string_lossy()).collect();
                    let shown: String = format!("{shown:?}").chars().take(300).collect();
                    // Where a locale is not UTF-8, messages still are.
                    let err = String::from_utf8(output.stderr).unwrap();
                    let code = output.status.code();
                    assert!(matches!(code, Some(0..=2)), "{shown}: {code:?} {err}");
                    assert!(!err.contains("panicked"), "{shown}: {err}");
                    let errors = err.lines().filter(|line| line.starts_with("error: ")).count();
                    assert_eq!(errors, usize::from(code != Some(0)), "{shown}: {code:?} {err}");
                    assert!(
                        !err.chars().any(|c| c.is_control() && c != '\n'),
                        "{shown}: {err:?}"
                    );
                    if code == Some(2) {
                        let others = err.lines().filter(|line| !line.starts_with("note: "));
                        assert_eq!(others.count(), 1, "{shown}: {err}");
                    }
                }
            });
        }
    });
    println!("hostile arguments: {n} command lines, no panic");
}

#[cfg(unix)]
#[test]
fn a_name_that_is_no_text_and_no_file_is_a_wrong_argument() {
    let directory = Directory::new("no-text");
    let name = bytes(b"bad\xff.gguf");
    let run = |args: &[&OsStr]| {
        let output = Command::new(env!("CARGO_BIN_EXE_twinfer"))
            .args(args)
            .current_dir(&directory.0)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let [m, p, hi, run_, unknown, file] = ["-m", "-p", "hi", "run", "--no-such-option", "-f"].map(OsStr::new);
    for args in [
        &[m, &name, run_][..],
        &[m, &name, run_, p, hi],
        &[&name],
        &[m, &name, unknown],
        &[run_, file, &name],
    ] {
        let (code, err) = run(args);
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
    }
    // A file that has such a name is as good as any.
    let demo = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/demo/twinfer-demo-q4_k_m.gguf"
    );
    std::fs::copy(demo, directory.0.join(&name)).unwrap();
    assert_eq!(run(&[m, &name, OsStr::new("inspect")]).0, 0);
}

#[test]
fn a_bad_byte_in_a_pipe_costs_its_line() {
    let directory = Directory::new("bad-byte");
    let template = directory.file("t.jinja");
    std::fs::write(&template, CHATML).unwrap();
    let args = ["chat", "--template", &template, "-n", "4", "-s", "1"];
    let bad = twinfer_with(&args, b"Hi\ncaf\xe9\nHello\n\xff\xfe\n/show\n").ok();
    assert_eq!(
        bad.err.matches("not UTF-8 text (at byte").count(),
        2,
        "{}",
        bad.err
    );
    let good = twinfer_with(&args, b"Hi\nHello\n/show\n").ok();
    assert_eq!(bad.text(), good.text());
    // The last line, without an end.
    let last = twinfer_with(&args, b"Hi\ncaf\xe9").ok();
    assert!(last.err.contains("at byte 3"), "{}", last.err);
}
