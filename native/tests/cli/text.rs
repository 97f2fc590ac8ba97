//! Commands that make or take text: run, chat, tokenize, detokenize, render-template; pipes and Ctrl-C.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{CHATML, Directory, command, twinfer, twinfer_with};

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
fn drafts_change_no_text() {
    let demo = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/demo/twinfer-demo-q4_k_m.gguf"
    );
    for sampling in [&["--temp", "0"][..], &["--seed", "5"]] {
        let base = [&["run", "Once upon a time", "-n", "40", "-v"], sampling].concat();
        let plain = twinfer(&[&base[..], &["--spec-type", "none"]].concat()).ok();
        assert!(!plain.err.contains("drafts were right"), "{}", plain.err);
        for p_min in ["0", "0.5"] {
            let draft = ["-md", demo, "--spec-type", "draft-simple", "--draft-p-min", p_min];
            let drafted = twinfer(&[&base[..], &draft].concat()).ok();
            assert_eq!(drafted.text(), plain.text());
            assert!(drafted.err.contains("drafts were right"), "{}", drafted.err);
        }
        // Where it pays.
        assert_eq!(
            twinfer(&[&base[..], &["-md", demo]].concat()).ok().text(),
            plain.text()
        );
    }
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

    // Greedy: no seed in the summary. A penalty that leaves no repeated full stop its place changes the text of any
    // model.
    let greedy = twinfer(&["run", "Once upon a time", "--temp", "0", "-n", "5"]).ok();
    assert!(!greedy.err.contains("seed"), "{}", greedy.err);
    let mut args = base.to_vec();
    args.extend(["--repeat-penalty", "20"]);
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
fn a_special_token_is_a_stop_string() {
    // Every token is this one, which prints nothing.
    let forced = ["run", "a", "-n", "4", "-s", "1", "-l", "3+1000"];
    let written = twinfer(&["detokenize", "3"]).ok();
    for special in [&[][..], &["--special"]] {
        let run = twinfer(&[&forced[..], &["-r", "never", "-r", written.text()], special].concat()).ok();
        assert_eq!(run.text(), "a\n");
        assert!(run.err.contains("stopped at a stop string"), "{}", run.err);
        assert!(run.err.contains("generated: 1 tokens"), "{}", run.err);
    }
    let run = twinfer(&[&forced[..], &["-r", "never"]].concat()).ok();
    assert!(run.err.contains("stopped at --predict"), "{}", run.err);
}
