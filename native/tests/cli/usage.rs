//! What the program says of itself and of bad input: help, completions, errors, exit codes.

use crate::support::{Directory, command, twinfer};

const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/demo/twinfer-demo-q4_k_m.gguf"
);

const COMMANDS: [&str; 14] = [
    "run",
    "chat",
    "batch",
    "inspect",
    "tokenize",
    "detokenize",
    "render-template",
    "quantize",
    "eval",
    "verify",
    "perplexity",
    "bench",
    "doctor",
    "completions",
];

#[test]
fn help_teaches() {
    let top = twinfer(&["--help"]).ok();
    for name in COMMANDS {
        assert!(top.text().contains(name), "{name} is not in the overview");
        let help = twinfer(&[name, "--help"]).ok();
        assert!(help.text().contains("Examples:"), "{name} --help has no examples");
        assert!(help.err.is_empty());
    }
    assert!(top.text().contains("Exit codes:"));
    assert!(twinfer(&["--version"]).ok().text().starts_with("twinfer "));
    let none = twinfer(&[]);
    assert_eq!(none.code, 2);
    assert!(none.err.contains("Usage:"));
}

#[test]
fn bad_input_gets_one_clear_line() {
    let directory = Directory::new("bad");
    let not_a_model = directory.file("text.gguf");
    std::fs::write(&not_a_model, "this is no model").unwrap();
    let empty = directory.file("empty.gguf");
    std::fs::write(&empty, "").unwrap();
    let not_utf8 = directory.file("latin1.txt");
    std::fs::write(&not_utf8, b"caf\xe9").unwrap();
    let part = directory.file("m-00002-of-00003.gguf");
    let folder = directory.file("");
    let unused = directory.file("unused");

    let cases: &[(&[&str], i32, &str)] = &[
        (&["frobnicate"], 2, "unrecognized subcommand 'frobnicate'"),
        (&["run"], 2, "`-` to read stdin; see `twinfer run --help`"),
        (&["run", "--tem", "1", "x"], 2, "'--temp'"),
        (
            &["run", "--temp", "-1", "x"],
            2,
            "--temp must be finite and at least 0",
        ),
        (&["run", "--temp", "NaN", "x"], 2, "--temp must be"),
        (
            &["run", "--top-p", "2", "x"],
            2,
            "--top-p must be between 0 and 1",
        ),
        (
            &["run", "--repeat-last-n", "-2", "x"],
            2,
            "--repeat-last-n must be -1",
        ),
        (
            &["run", "--mirostat", "1", "x"],
            2,
            "--mirostat must be 0 (off) or 2",
        ),
        (&["run", "--samplers", "top_q", "x"], 2, "there is no `top_q`"),
        (&["run", "--logit-bias", "5", "x"], 2, "15043+1"),
        (
            &["run", "--logit-bias", "9999999+1", "x"],
            1,
            "outside the vocabulary",
        ),
        (&["run", "--threads", "1025", "x"], 2, "from 1 to 1024"),
        (&["run", "--seed", "-2", "x"], 2, "-1..=4294967295"),
        (&["run", "--cache-type-k", "q5_1", "x"], 2, "f16, f32"),
        (&["run", "--backend", "abacus", "x"], 1, "`abacus`"),
        (
            &["run", "--ctx-size", "2", "one two three four"],
            1,
            "raise --ctx-size",
        ),
        (&["run", "--file", &not_utf8], 1, "not UTF-8"),
        (
            &["run", "-m", "/no/such/file", "x"],
            1,
            "cannot open `/no/such/file`",
        ),
        (&["run", "-m", &folder, "x"], 1, "is a directory"),
        (&["run", "-m", "-", "x"], 1, "stdin is not read here"),
        (&["run", "--model=~/no-model", "x"], 1, "did not replace ~"),
        (
            &["run", "-m", "https://example.com/m.gguf", "x"],
            1,
            "nothing is downloaded here",
        ),
        (&["run", "-m", &not_a_model, "x"], 1, "not a valid GGUF file"),
        (&["inspect", &empty], 1, "not a valid GGUF file"),
        (&["inspect", &part], 1, "part 1 of 3 is missing"),
        (
            &["inspect", "--dump-tensor", "blk.0.attn_x.weight", "-o", &unused],
            1,
            "similar: blk.0.attn_",
        ),
        (&["inspect", "--dump-tensor", "x"], 2, "--output"),
        (&["detokenize", "one"], 1, "`one` is not a token id"),
        (&["detokenize", "99999999"], 1, "99999999"),
        (&["eval"], 2, "--tokens"),
        (&["eval", "--tokens", "1,x"], 2, "`x`"),
        (&["eval", "--tokens", "1,99999999"], 1, "outside the vocabulary"),
        (
            &["perplexity", "-f", "/no/such/file"],
            1,
            "cannot read `/no/such/file`",
        ),
        (&["bench", "-o", "x.gguf"], 2, "needs --shape"),
        (&["bench", "-o", "x.txt"], 2, "ends in .gguf"),
        (&["bench", "-p", "0", "-n", "0"], 2, "nothing to measure"),
        (&["bench", "--shape", "gpt-5"], 1, "llama-3.1-8b"),
        (
            &["bench", "--shape", "smollm2-135m", "--type", "q4_z"],
            1,
            "q4_k_m",
        ),
        (
            &["quantize", "/no/such/file", &unused, "q4_k_m"],
            1,
            "cannot open",
        ),
        (
            &["quantize", &not_a_model, &unused, "q4_z"],
            1,
            "there is no type or mix `q4_z`",
        ),
        (
            &["render-template", "--input", "{"],
            1,
            "--input is not valid JSON",
        ),
        (
            &["render-template", "--input", "{}", "--now", "soon"],
            2,
            "2026-01-02T03:04:05",
        ),
        (
            &["render-template", "--input", "{}", "--template", "/no/such/file"],
            1,
            "cannot read",
        ),
        (&["completions", "tcsh"], 2, "bash"),
    ];
    for (args, code, message) in cases {
        let run = twinfer(args);
        assert_eq!(run.code, *code, "{args:?}: {}", run.err);
        assert!(run.err.contains(message), "{args:?}: {}", run.err);
        assert!(run.err.starts_with("error: "), "{args:?}: {}", run.err);
        assert_eq!(run.err.lines().count(), 1, "{args:?}: {}", run.err);
        assert!(run.out.is_empty(), "{args:?} wrote to stdout");
    }
    assert!(!std::fs::exists(&unused).unwrap());
    println!("bad input: {} cases, one line each", cases.len());
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = twinfer(&["completions", shell]).ok();
        assert!(run.text().contains("render-template"), "{shell}");
    }
}

#[test]
fn of_an_option_given_twice_the_last_counts() {
    let run = |more: &[&str]| {
        let args = [&["run", "Once", "-s", "1", "--temp", "0", "-n", "3"], more].concat();
        twinfer(&args).ok()
    };
    let five = run(&["-n", "5", "-q", "-q"]);
    assert_eq!(
        five.text(),
        twinfer(&["run", "Once", "--temp", "0", "-n", "5"]).ok().text()
    );
    assert_ne!(five.text(), run(&[]).text());
    let model = run(&["-m", "missing.gguf", "-m", DEMO]);
    assert_eq!(model.text(), run(&[]).text());
    // Lists take all: each of the two stops.
    for stops in [["-r", "e", "-r", "zzz"], ["-r", "zzz", "-r", "e"]] {
        let stopped = run(&[&["-n", "200", "--no-display-prompt"], &stops[..]].concat());
        assert!(
            stopped.err.contains("stopped at a stop string"),
            "{}",
            stopped.err
        );
        assert!(!stopped.text().contains('e'));
    }
}

#[test]
fn infinities_are_values() {
    for (option, value) in [("--temp", "-inf"), ("--min-p", "-NaN"), ("--top-p", "-Infinity")] {
        let apart = twinfer(&["run", option, value, "Once"]);
        let joined = twinfer(&["run", &format!("{option}={value}"), "Once"]);
        assert_eq!((apart.code, &apart.err), (2, &joined.err));
        assert!(!apart.err.contains("unexpected argument"), "{}", apart.err);
    }
}

#[test]
fn ids_are_read_as_other_commands_write_them() {
    let report = |ids: &str| twinfer(&["eval", "--json", "--tokens", ids]).json();
    let expected = report("1,403");
    for ids in ["[1,403]", "1, 403", "1 403", "[1, 403]"] {
        assert_eq!(report(ids)["sha256"], expected["sha256"], "{ids}");
    }
    assert!(expected["sha256"].is_string());
    let wrong = twinfer(&["eval", "--tokens", "1,x"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("`x` is not a token id"), "{}", wrong.err);
}

#[cfg(target_os = "linux")]
#[test]
fn a_small_stack_does() {
    let program = command(&[]).get_program().to_owned();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -s 96; exec \"$0\" run Once -n 2 -s 1 -q"])
        .arg(program)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
