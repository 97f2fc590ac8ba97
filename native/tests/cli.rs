//! The program from outside: exit codes, what goes to stdout and what to stderr, pipes, Ctrl-C, and every command.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A finished run.
struct Run {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Run {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stderr: {}", self.err);
        self
    }

    #[track_caller]
    fn json(self) -> Value {
        let run = self.ok();
        serde_json::from_slice(&run.out).unwrap_or_else(|e| panic!("{e}: {}", run.text()))
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinfer"));
    command.args(args);
    command
}

fn twinfer_with(args: &[&str], stdin: &[u8]) -> Run {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that fails early does not read its stdin.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn twinfer(args: &[&str]) -> Run {
    twinfer_with(args, b"")
}

/// A directory of its own for a test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("twinfer-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const CHATML: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>";

const COMMANDS: [&str; 11] = [
    "run",
    "chat",
    "inspect",
    "tokenize",
    "detokenize",
    "render-template",
    "quantize",
    "eval",
    "perplexity",
    "bench",
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

    let cases: &[(&[&str], i32, &str)] = &[
        (&["frobnicate"], 2, "unrecognized subcommand 'frobnicate'"),
        (&["run"], 2, "<PROMPT>; see `twinfer run --help`"),
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
        (&["run", "--threads", "0", "x"], 2, "from 1 to 1024"),
        (&["run", "--seed", "-2", "x"], 2, "-1..=4294967295"),
        (&["run", "--cache-type-k", "q8_0", "x"], 2, "f16, f32"),
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
        (&["run", "-m", &not_a_model, "x"], 1, "not a valid GGUF file"),
        (&["inspect", &empty], 1, "not a valid GGUF file"),
        (&["inspect", &part], 1, "part 1 of 3 is missing"),
        (
            &[
                "inspect",
                "--dump-tensor",
                "blk.0.attn_x.weight",
                "-o",
                "/dev/null",
            ],
            1,
            "similar: blk.0.attn_",
        ),
        (&["inspect", "--dump-tensor", "x"], 2, "--output"),
        (&["detokenize", "one"], 1, "`one` is not a token id"),
        (&["detokenize", "99999999"], 1, "99999999"),
        (&["eval"], 2, "--tokens"),
        (&["eval", "--tokens", "1,x"], 2, "'x'"),
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
            &["quantize", "/no/such/file", "/dev/null", "q4_k_m"],
            1,
            "cannot open",
        ),
        (
            &["quantize", &not_a_model, "/dev/null", "q4_z"],
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
    println!("bad input: {} cases, one line each", cases.len());
}

#[test]
fn run_streams_text_and_ends_with_one_line() {
    let run = twinfer(&["run", "Once upon a time", "-n", "12", "--seed", "5"]).ok();
    assert!(run.text().starts_with("Once upon a time"));
    assert!(run.text().len() > "Once upon a time".len() + 5);
    assert!(run.text().ends_with('\n'));
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert!(
        run.err.contains("generated: 12 tokens") && run.err.contains("seed 5"),
        "{}",
        run.err
    );

    // The same seed, other threads, a smaller context: the same text. Another seed: another one.
    for extra in [
        &["-t", "1"][..],
        &["-t", "3"],
        &["--ctx-size", "64"],
        &["--quiet"],
    ] {
        let mut args = vec!["run", "Once upon a time", "-n", "12", "--seed", "5"];
        args.extend(extra);
        let again = twinfer(&args).ok();
        assert_eq!(again.text(), run.text(), "{extra:?}");
        assert_eq!(again.err.is_empty(), extra == ["--quiet"], "{}", again.err);
    }
    let other = twinfer(&["run", "Once upon a time", "-n", "12", "--seed", "6"]).ok();
    assert_ne!(other.text(), run.text());

    // The built-in model's first story is the same for everyone.
    let first = twinfer(&["run", "Once upon a time", "-n", "20"]).ok();
    assert_eq!(
        twinfer(&["run", "Once upon a time", "-n", "20"]).ok().text(),
        first.text()
    );

    let hidden = twinfer(&[
        "run",
        "Once upon a time",
        "-n",
        "12",
        "--seed",
        "5",
        "--no-display-prompt",
        "-q",
    ]);
    assert_eq!(format!("Once upon a time{}", hidden.ok().text()), run.text());
    let piped = twinfer_with(
        &["run", "-f", "-", "-n", "12", "--seed", "5"],
        b"Once upon a time",
    )
    .ok();
    assert_eq!(piped.text(), run.text());
}

#[test]
fn run_stops_where_told() {
    let base = ["run", "Once upon a time", "--temp", "0", "-n", "30", "-q"];
    let text = twinfer(&base).ok().text().to_string();
    let generated = text.strip_prefix("Once upon a time").unwrap();
    let word = generated.split_whitespace().nth(3).unwrap();
    let mut args = base.to_vec();
    args.extend(["--stop", word]);
    let stopped = twinfer(&args).ok().text().to_string();
    let before = &generated[..generated.find(word).unwrap()];
    assert_eq!(stopped.trim_end(), format!("Once upon a time{before}").trim_end());

    // Greedy: no seed in the summary, and the penalties that are asked for change the text.
    let greedy = twinfer(&["run", "Once upon a time", "--temp", "0", "-n", "5"]).ok();
    assert!(!greedy.err.contains("seed"), "{}", greedy.err);
    let mut args = base.to_vec();
    args.extend(["--repeat-penalty", "1.5", "--dry-multiplier", "2"]);
    assert_ne!(twinfer(&args).ok().text(), text);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    for args in [
        &["run", "Once upon a time", "-n", "40"][..],
        &["inspect", "--full"],
        &["completions", "zsh"],
    ] {
        let mut child = command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(
            !err.contains("panicked") && !err.contains("error"),
            "{args:?}: {err}"
        );
        assert_eq!(output.status.code(), Some(0), "{args:?}: {err}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_with_130() {
    use std::io::Read as _;
    let args = [
        "run",
        "Once upon a time",
        "--temp",
        "0",
        "--ignore-eos",
        "-c",
        "100000",
    ];
    let mut child = command(&args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Text has come: it generates.
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 40];
    stdout.read_exact(&mut first).unwrap();
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8(output.stderr).unwrap().contains("interrupted"));
}

#[test]
fn tokens_and_back() {
    let text = "Hello, world!\n\tOnce upon a time \u{e9}\u{1f600} ";
    let ids = twinfer_with(&["tokenize", "--json", "--no-special"], text.as_bytes()).ok();
    let list: Vec<u32> = serde_json::from_slice(&ids.out).unwrap();
    assert!(list.len() > 3);
    let back = twinfer_with(&["detokenize", "--no-special"], &ids.out).ok();
    assert_eq!(back.text(), text);
    let json = twinfer_with(&["detokenize", "--no-special", "--json"], &ids.out).json();
    assert_eq!(json, Value::from(text));
    let words: Vec<String> = list.iter().map(u32::to_string).collect();
    let mut args = vec!["detokenize", "--no-special"];
    args.extend(words.iter().map(String::as_str));
    assert_eq!(twinfer(&args).ok().text(), text);

    // Begin tokens are added unless told otherwise; the table has a line per token.
    let with: Vec<u32> = serde_json::from_slice(&twinfer(&["tokenize", "--json", "Hello"]).ok().out).unwrap();
    let without: Vec<u32> = serde_json::from_slice(
        &twinfer(&["tokenize", "--json", "--no-add-special", "Hello"])
            .ok()
            .out,
    )
    .unwrap();
    assert!(with.ends_with(&without));
    let table = twinfer(&["tokenize", "Hello"]).ok();
    assert_eq!(table.text().lines().count(), with.len());
    assert_eq!(
        twinfer(&["tokenize", "--json", "--no-special", ""]).ok().text(),
        "[]\n"
    );
}

#[test]
fn templates_render() {
    let directory = Directory::new("template");
    let template = directory.file("t.jinja");
    std::fs::write(&template, CHATML).unwrap();
    let input = r#"{"messages": [{"role": "user", "content": "Hi"}]}"#;
    let expected = "<user>Hi\n<assistant>";
    let run = |input: &str, stdin: &[u8]| {
        let args = ["render-template", "--template", &template, "--input", input];
        twinfer_with(&args, stdin).ok().text().to_string()
    };
    assert_eq!(run(input, b""), expected);
    assert_eq!(run("-", input.as_bytes()), expected);
    assert_eq!(run(r#"[{"role": "user", "content": "Hi"}]"#, b""), expected);
    let file = directory.file("input.json");
    std::fs::write(&file, input).unwrap();
    assert_eq!(run(&file, b""), expected);

    std::fs::write(&template, "{{ strftime_now('%Y-%m-%d %H:%M:%S') }}").unwrap();
    let now = [
        "render-template",
        "--template",
        &template,
        "--input",
        "{}",
        "--now",
        "2026-01-02 03:04:05",
    ];
    assert_eq!(twinfer(&now).ok().text(), "2026-01-02 03:04:05");
    std::fs::write(&template, "{{ raise_exception('no tools') }}").unwrap();
    let refused = twinfer(&["render-template", "--template", &template, "--input", "{}"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("no tools"), "{}", refused.err);
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
}

#[test]
fn chat_answers_lines_of_stdin() {
    let directory = Directory::new("chat");
    let template = directory.file("t.jinja");
    std::fs::write(&template, CHATML).unwrap();
    let saved = directory.file("saved.json");
    let input = format!(
        "Once upon a time\n/save {saved}\n/nonsense\n/regenerate\n/undo\n/undo\n/exit\nnever asked\n"
    );
    let args = [
        "chat",
        "--template",
        &template,
        "-n",
        "6",
        "--seed",
        "4",
        "--system",
        "Tell.",
    ];
    let run = twinfer_with(&args, input.as_bytes()).ok();
    assert!(
        run.text().lines().filter(|line| !line.is_empty()).count() >= 2,
        "{}",
        run.text()
    );
    assert!(run.err.contains("there is no command /nonsense"), "{}", run.err);
    assert!(run.err.contains("there is nothing to undo"), "{}", run.err);
    let saved_json: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    let roles: Vec<&str> = saved_json["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    let answer = saved_json["messages"][2]["content"].as_str().unwrap();
    assert!(run.text().starts_with(answer), "{}", run.text());

    let show = twinfer_with(
        &["chat", "--template", &template, "-q"],
        format!("/load {saved}\n/show\n/reset\n/show\n").as_bytes(),
    );
    let show = show.ok();
    assert!(
        show.text()
            .starts_with("system: Tell.\nuser: Once upon a time\nassistant: "),
        "{}",
        show.text()
    );
    assert!(show.text().ends_with("system: Tell.\n"), "{}", show.text());
}

#[test]
fn eval_gives_logits_and_their_digest() {
    let directory = Directory::new("eval");
    let logits = directory.file("logits.f32");
    let args = [
        "eval", "--tokens", "1,5,9,2", "-n", "3", "--logits", &logits, "--json",
    ];
    let report = twinfer(&args).json();
    let n_vocab = report["n_vocab"].as_u64().unwrap() as usize;
    let bytes = std::fs::read(&logits).unwrap();
    assert_eq!(bytes.len(), 7 * n_vocab * 4);
    let digest: String = Sha256::digest(&bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(report["sha256"], Value::from(digest.clone()));
    assert_eq!(report["positions"].as_array().unwrap().len(), 7);
    assert_eq!(report["tokens"].as_array().unwrap().len(), 7);
    assert_eq!(report["generated"].as_array().unwrap().len(), 3);
    for (row, position) in bytes
        .chunks_exact(n_vocab * 4)
        .zip(report["positions"].as_array().unwrap())
    {
        let row: Vec<f32> = row
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let mut order: Vec<usize> = (0..n_vocab).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let top = position["top"].as_array().unwrap();
        assert_eq!(top.len(), 10.min(n_vocab));
        assert_eq!(position["argmax"], top[0]["id"]);
        for (entry, &id) in top.iter().zip(&order) {
            assert_eq!(entry["id"].as_u64().unwrap() as usize, id);
            assert_eq!(entry["logit"].as_f64().unwrap() as f32, row[id]);
        }
    }
    // What was generated is the argmax before it, and `run --temp 0` says the same.
    for (i, id) in report["generated"].as_array().unwrap().iter().enumerate() {
        assert_eq!(&report["positions"][3 + i]["argmax"], id);
    }
    // Any number of threads, the tokens all given at once: the same digest.
    let tokens: Vec<String> = report["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    let at_once = twinfer(&["eval", "--tokens", &tokens.join(","), "-t", "3"]).ok();
    assert!(
        at_once.text().ends_with(&format!("sha256 {digest}\n")),
        "{}",
        at_once.text()
    );
    let f32_cache = twinfer(&[
        "eval",
        "--tokens",
        "1,5,9,2",
        "--cache-type-k",
        "f32",
        "--cache-type-v",
        "f32",
    ])
    .ok();
    assert!(!f32_cache.text().contains(&digest));
}

#[test]
fn inspect_shows_and_dumps() {
    let directory = Directory::new("inspect");
    let report = twinfer(&["inspect", "--json"]).json();
    assert_eq!(report["metadata"]["general.architecture"], Value::from("llama"));
    let tensors = report["tensors"].as_array().unwrap();
    let norm = tensors
        .iter()
        .find(|t| t["name"] == "output_norm.weight")
        .unwrap();
    let n = norm["shape"][0].as_u64().unwrap() as usize;
    let out = directory.file("norm.f32");
    twinfer(&["inspect", "--dump-tensor", "output_norm.weight", "-o", &out]).ok();
    let bytes = std::fs::read(&out).unwrap();
    assert_eq!(bytes.len(), n * 4);
    let to_stdout = twinfer(&["inspect", "--dump-tensor", "output_norm.weight", "-o", "-"]).ok();
    assert_eq!(to_stdout.out, bytes);
    let text = twinfer(&["inspect"]).ok();
    assert!(text.text().contains("output_norm.weight") && text.text().contains("bits per weight"));
    let full = twinfer(&["inspect", "--json", "--full"]).json();
    assert!(
        full["metadata"]["tokenizer.ggml.tokens"]
            .as_array()
            .unwrap()
            .len()
            > 100
    );
}

#[test]
fn quantize_perplexity_and_bench() {
    let directory = Directory::new("quantize");
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/demo/twinfer-demo-q4_k_m.gguf"
    );
    let large = directory.file("large.gguf");
    twinfer(&["quantize", model, &large, "q8_0"]).ok();
    let small = directory.file("small.gguf");
    let run = twinfer(&["quantize", &large, &small, "q4_0"]).ok();
    assert!(
        run.err.contains("quantized already") && run.err.contains("bits per weight"),
        "{}",
        run.err
    );
    let report = twinfer(&["inspect", "--json", "-m", &small]).json();
    assert_eq!(report["metadata"]["general.file_type"], Value::from(2));
    assert!(report["types"]["q4_0"]["tensors"].as_u64().unwrap() > 0);
    assert!(std::fs::metadata(&small).unwrap().len() < std::fs::metadata(&large).unwrap().len());
    twinfer(&["run", "-m", &small, "Once", "-n", "3", "--quiet"]).ok();
    let same = twinfer(&["quantize", &small, &small, "q8_0"]);
    assert_eq!(same.code, 1);
    assert!(same.err.contains("same file"), "{}", same.err);
    let random = directory.file("random.gguf");
    let shape = [
        "bench",
        "--shape",
        "smollm2-135m",
        "--type",
        "q4_0",
        "-p",
        "0",
        "-n",
        "0",
        "-q",
        "-o",
        &random,
    ];
    assert_eq!(twinfer(&shape).ok().err, "");
    let report = twinfer(&["inspect", "--json", "-m", &random]).json();
    assert_eq!(report["metadata"]["llama.block_count"], Value::from(30));
    // Nothing unfinished is left behind.
    let names: Vec<String> = std::fs::read_dir(&directory.0)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().all(|name| !name.ends_with(".partial")), "{names:?}");

    let text = directory.file("text.txt");
    std::fs::write(&text, "Once upon a time there was a little girl. ".repeat(20)).unwrap();
    let score = twinfer(&["perplexity", "-f", &text, "--ctx-size", "64", "--json"]).json();
    assert!(score["perplexity"].as_f64().unwrap() > 1.0);
    assert!(score["chunks"].as_u64().unwrap() > 1);
    let line = twinfer(&["perplexity", "-f", &text, "--chunks", "1"]).ok();
    assert!(line.text().starts_with("perplexity "), "{}", line.text());

    let bench = twinfer(&[
        "bench", "-p", "16,32", "-n", "4", "-r", "2", "-o", "json", "-t", "1",
    ])
    .json();
    let tests: Vec<&str> = bench
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["test"].as_str().unwrap())
        .collect();
    assert_eq!(tests, ["pp16", "pp32", "tg4"]);
    for test in bench.as_array().unwrap() {
        assert_eq!(test["samples_ts"].as_array().unwrap().len(), 2);
        assert!(test["avg_ts"].as_f64().unwrap() > 0.0);
        assert_eq!(test["n_threads"], Value::from(1));
    }
    let table = twinfer(&["bench", "-p", "8", "-n", "0", "-r", "1"]).ok();
    assert_eq!(table.text().lines().count(), 3, "{}", table.text());
    assert!(table.text().contains(" pp8 |"), "{}", table.text());
    assert!(
        twinfer(&["bench", "--shape", "list"])
            .ok()
            .text()
            .contains("llama-3.2-1b")
    );
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = twinfer(&["completions", shell]).ok();
        assert!(run.text().contains("render-template"), "{shell}");
    }
}

/// Writes a split copy of a model in two parts, and gives the second part's path.
fn split(model: &Path, directory: &Directory) -> String {
    use twinfer_engine::gguf::{Bytes, Metadata, ModelFile, TensorSpec, Value, Writer};
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(model).unwrap())]).unwrap();
    let tensors: Vec<_> = file.tensors().cloned().collect();
    let half = tensors.len() / 2;
    for (i, part) in [&tensors[..half], &tensors[half..]].into_iter().enumerate() {
        let mut metadata = Metadata::new();
        if i == 0 {
            for (key, value) in file.metadata().iter() {
                metadata.insert(key, value.clone());
            }
        }
        metadata.insert("split.no", Value::U16(i as u16));
        metadata.insert("split.count", Value::U16(2));
        metadata.insert("split.tensors.count", Value::I32(tensors.len() as i32));
        let specs: Vec<TensorSpec> = part
            .iter()
            .map(|t| TensorSpec {
                name: t.name.clone(),
                ty: t.ty,
                shape: t.shape.clone(),
            })
            .collect();
        let path = directory.file(&format!("model-0000{}-of-00002.gguf", i + 1));
        let mut writer = Writer::new(std::fs::File::create(path).unwrap(), &metadata, &specs).unwrap();
        for tensor in part {
            writer
                .write_tensor(&tensor.name, &file.tensor_bytes(&tensor.name).unwrap())
                .unwrap();
        }
        writer.finish().unwrap();
    }
    directory.file("model-00002-of-00002.gguf")
}

#[test]
fn reference_models() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    if !reference.is_dir() {
        println!(
            "left out: the command line on reference models; {} is not there",
            reference.display()
        );
        return;
    }
    let model = reference.join("models/stories260K-f32.gguf");
    let name = model.to_str().unwrap();
    let expected: Value =
        serde_json::from_slice(&std::fs::read(reference.join("logits/stories260K-f32.json")).unwrap())
            .unwrap();

    let directory = Directory::new("split");
    let last_part = split(&model, &directory);
    let digest = |model: &str| {
        let run = twinfer(&["eval", "-m", model, "--tokens", "1,403,407,261,378"]).ok();
        run.text().lines().last().unwrap().to_string()
    };
    assert_eq!(digest(&last_part), digest(name));

    let mut ids = 0;
    for prompt in expected["prompts"].as_array().unwrap() {
        let tokens: Vec<String> = prompt["prompt_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(Value::to_string)
            .collect();
        let mut args = vec!["eval", "-m", name, "-n", "64", "--json", "--cache-type-k", "f32"];
        let tokens = tokens.join(",");
        args.extend(["--cache-type-v", "f32", "--tokens", &tokens]);
        let report = twinfer(&args).json();
        let greedy = prompt["greedy_ids"].as_array().unwrap();
        let generated = report["generated"].as_array().unwrap();
        assert_eq!(generated[..greedy.len()], greedy[..], "{}", prompt["prompt"]);
        ids += greedy.len();
    }
    println!(
        "command line: {ids} greedy ids of stories260K equal the reference; a split copy has the same digest"
    );
}
