//! What people type who come from llama.cpp, and what they get: each is understood, or answered with one line that says
//! what to do.

use std::process::{Command, Stdio};

use crate::support::{CHATML, Directory, Run, command, shared, twinfer, twinfer_with};

/// Text that ends soon, with the built-in model.
const FEW: [&str; 3] = ["-n", "2", "-q"];

#[track_caller]
fn works(args: &[&str]) -> Run {
    let run = twinfer(args);
    assert_eq!(run.code, 0, "{args:?}: {}", run.err);
    run
}

/// The command line is wrong, and one line says all of this.
#[track_caller]
fn answers(args: &[&str], says: &[&str]) {
    let run = twinfer(args);
    assert_eq!(run.code, 2, "{args:?}: {}", run.err);
    assert_eq!(run.err.lines().count(), 1, "{args:?}: {}", run.err);
    assert!(run.err.starts_with("error: "), "{args:?}: {}", run.err);
    for says in says {
        assert!(run.err.contains(says), "{args:?}: no `{says}` in: {}", run.err);
    }
    assert!(run.out.is_empty());
}

#[test]
fn prompts_and_options_of_llama_cli() {
    let plain = works(&[&["run", "Once upon", "-s", "3"], &FEW[..]].concat());
    for args in [
        &["run", "-p", "Once upon"][..],
        &["run", "--prompt", "Once upon"],
        &["run", "--prompt=Once upon"],
        &["run", "-ngl", "0", "Once upon"],
        &["run", "-ngl", "99", "-p", "Once upon"],
        &["run", "-no-cnv", "Once upon"],
        &["run", "-fa", "on", "Once upon"],
        &["run", "-fa", "Once upon"],
        &["run", "--flash-attn", "auto", "Once upon"],
        &["run", "--gpu-layers", "9", "--n_gpu_layers=9", "Once upon"],
        &[
            "run",
            "--no-mmap",
            "--jinja",
            "--color",
            "--simple-io",
            "--no-warmup",
            "Once upon",
        ],
        &[
            "run",
            "--log-disable",
            "-b",
            "64",
            "-ub",
            "32",
            "--keep",
            "-1",
            "--numa",
            "distribute",
            "Once upon",
        ],
        &["run", "-ctk", "f16", "-ctv", "f16", "Once upon"],
        &[
            "run",
            "--n-predict",
            "2",
            "--top_k",
            "40",
            "--ctx_size",
            "512",
            "Once upon",
        ],
        &["run", "-t", "-1", "Once upon"],
        &["run", "-t", "0", "Once upon"],
        &["-ngl", "1", "run", "Once upon"],
    ] {
        let few: &[&str] = if args.contains(&"--n-predict") {
            &FEW[2..]
        } else {
            &FEW
        };
        let run = works(&[args, &["-s", "3"], few].concat());
        assert_eq!(run.text(), plain.text(), "{args:?}");
        assert_eq!(run.err, "", "{args:?}");
    }
    let more = works(&["run", "-p", "- a list", "-n", "2", "-q"]);
    assert!(more.text().starts_with("- a list"), "{}", more.text());
    // -2 is llama.cpp's "until the context is full".
    let full = works(&["run", "Once", "-n", "-2", "-c", "16", "--ignore-eos"]);
    assert!(full.err.contains("the context is full"), "{}", full.err);

    // Who wants to know is told.
    let verbose = works(&[
        "run", "-v", "-ngl", "99", "--jinja", "-ctk", "f16", "Once", "-n", "1",
    ]);
    for says in [
        "note: -ngl 99 makes no difference here",
        "note: --jinja makes no difference here",
        "note: -ctk is --cache-type-k here",
    ] {
        assert!(verbose.err.contains(says), "{}", verbose.err);
    }

    answers(
        &["run", "-hf", "org/repo", "-p", "hi"],
        &["nothing is downloaded", "-m FILE"],
    );
    answers(
        &["run", "--hf-repo", "org/repo"],
        &["nothing is downloaded", "-m FILE"],
    );
    answers(&["run", "-cnv"], &["twinfer chat"]);
    answers(&["run", "-sys", "Be brief.", "x"], &["--system", "--chat"]);
    answers(&["run", "-st", "x"], &["--chat"]);
    answers(&["run", "-tb", "2", "x"], &["-t N"]);
    answers(&["run", "-lv", "3", "x"], &["-v", "-q"]);
    answers(&["run", "-ctk", "q5_9", "x"], &["--cache-type-k", "q8_0"]);
    answers(
        &["run", "-c", "-1", "x"],
        &["expected a number of tokens, 0 for the model's own"],
    );
    answers(&["run", "--grammar", "g", "x"], &["no grammars"]);
    answers(&["run", "--lora", "f", "x"], &["merge"]);
    answers(&["chat", "-p", "x"], &["run --chat"]);
    answers(
        &["-m", "m.gguf", "-p", "x"],
        &["no command is named", "twinfer run"],
    );

    // How much a context needs is said however large it is.
    for size in ["100000000", "999999999999", "18446744073709551615"] {
        let run = twinfer(&["run", "-c", size, "x"]);
        assert_eq!(run.code, 1, "{}", run.err);
        assert!(
            run.err.contains("MiB") && run.err.contains("what would fit: --ctx-size"),
            "{}",
            run.err
        );
    }
}

#[test]
fn a_model_without_its_option() {
    let directory = Directory::new("positional");
    let model = directory.file("m.gguf");
    let demo = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/demo/twinfer-demo-q4_k_m.gguf"
    );
    std::fs::copy(demo, &model).unwrap();
    let tokens = works(&["tokenize", "--json", &model, "Once"]);
    assert_eq!(
        tokens.text(),
        works(&["tokenize", "--json", "-m", &model, "Once"]).text()
    );
    works(&["run", &model, "Once", "-n", "1"]);
    works(&["chat", &model]);
    works(&["bench", &model, "-p", "2", "-n", "0", "-r", "1"]);
    works(&["verify", &model]);
    answers(&["run", &model], &["there is no prompt"]);
    let gone = twinfer(&["run", "gone.gguf", "x"]);
    assert_eq!(gone.code, 1);
    assert!(gone.err.contains("cannot open `gone.gguf`"), "{}", gone.err);
    // A text stays one.
    let text = works(&["tokenize", "--json", "which is a.gguf"]);
    assert_eq!(
        text.text(),
        works(&["tokenize", "--json", "-p", "which is a.gguf"]).text()
    );
    assert!(!works(&["tokenize", "--", "a.gguf"]).text().is_empty());
}

#[test]
fn tips_are_not_far_fetched() {
    for (args, tip) in [
        (&["run", "--propmt", "x"][..], Some("'--prompt'")),
        (&["run", "--sede", "1", "x"], Some("'--seed'")),
        (&["run", "--weights", "packd", "x"], Some("'packed'")),
        (&["chta"], Some("'chat'")),
        (&["run", "--chat-temp", "x"], None),
        (&["run", "--no-such-thing", "x"], None),
        (&["run", "--pfx", "x"], None),
        (&["infer"], None),
        (&["--promt", "x", "run"], Some("'run --prompt'")),
        (&["--logit", "x", "run"], None),
    ] {
        let run = twinfer(args);
        assert_eq!(run.code, 2, "{args:?}");
        match tip {
            Some(tip) => assert!(run.err.contains(tip), "{args:?}: {}", run.err),
            None => assert!(!run.err.contains("tip:"), "{args:?}: {}", run.err),
        }
    }
}

#[test]
fn escapes_and_begin_tokens_are_pointed_out() {
    let ids = |args: &[&str]| {
        works(&[&["tokenize", "--json"], args].concat())
            .text()
            .to_string()
    };
    assert_eq!(ids(&["-e", r"Q: x\nA:\t\x41"]), ids(&["Q: x\nA:\tA"]));
    assert_ne!(ids(&[r"Q: x\nA:"]), ids(&["Q: x\nA:"]));
    let plain = works(&["run", r"Q: x\nA:", "-n", "1"]);
    assert!(plain.text().starts_with(r"Q: x\nA:"));
    assert!(plain.err.contains("-e (--escape)"), "{}", plain.err);
    let read = works(&["run", "-e", r"Q: x\nA:", "-n", "1"]);
    assert!(read.text().starts_with("Q: x\nA:"));
    assert!(!read.err.contains("--escape"), "{}", read.err);
    assert_eq!(works(&["run", r"Q: x\nA:", "-n", "1", "-q"]).err, "");
    answers(&["run", "-e", r"\xff"], &[r"\x.."]);

    let Some(model) = shared("reference/models/stories260K-f32.gguf") else {
        return;
    };
    for args in [
        &["run", "-m", &model, "<s>Once", "-n", "1"][..],
        &["tokenize", "-m", &model, "<s>Once"],
        &["eval", "-m", &model, "-p", "<s>Once"],
    ] {
        let twice = works(args).err;
        assert_eq!(twice.matches("there are two now").count(), 1, "{args:?}: {twice}");
        let quiet = works(&[args, &["-q"]].concat());
        assert_eq!(quiet.err, "", "{args:?}");
    }
    for args in [
        &["run", "-m", &model, "Once", "-n", "1"][..],
        &["tokenize", "-m", &model, "--no-add-special", "<s><s>Once"],
        &["tokenize", "-m", &model, "Once<s><s>"],
    ] {
        assert!(!works(args).err.contains("there are two now"), "{args:?}");
    }
}

#[test]
fn a_byte_order_mark_is_no_text() {
    let directory = Directory::new("bom");
    let (with, without) = (directory.file("with.txt"), directory.file("without.txt"));
    std::fs::write(&with, "\u{feff}Once upon a").unwrap();
    std::fs::write(&without, "Once upon a").unwrap();
    for command in [
        &["tokenize", "--json", "-f"][..],
        &["run", "-n", "3", "-s", "1", "-q", "-f"],
    ] {
        let run = |file: &str| works(&[command, &[file]].concat()).text().to_string();
        assert_eq!(run(&with), run(&without), "{command:?}");
    }
    let piped = twinfer_with(&["tokenize", "--json"], "\u{feff}Once upon a".as_bytes()).ok();
    assert_eq!(piped.text(), works(&["tokenize", "--json", "Once upon a"]).text());
    // Editors write it before JSON and templates as well.
    let template = directory.file("t.jinja");
    std::fs::write(&template, format!("\u{feff}{CHATML}")).unwrap();
    let input = directory.file("input.json");
    std::fs::write(&input, "\u{feff}[{\"role\": \"user\", \"content\": \"Hi\"}]").unwrap();
    let rendered = works(&["render-template", "--template", &template, "--input", &input]);
    assert_eq!(rendered.text(), "<user>Hi\n<assistant>");
    std::fs::write(&with, b"\xff\xfeO\0n\0").unwrap();
    let wide = twinfer(&["tokenize", "-f", &with]);
    assert_eq!(wide.code, 1);
    assert!(wide.err.contains("UTF-16"), "{}", wide.err);

    if let (Some(model), Some(prompt)) = (
        shared("reference/models/stories260K-f32.gguf"),
        shared("cases/prompt-utf8-bom.txt"),
    ) {
        let ids = works(&["tokenize", "-m", &model, "--json", "-f", &prompt]);
        assert_eq!(ids.text(), "[1,403,407,261]\n");
    }
}

#[test]
fn prompts_and_models_from_pipes() {
    let no_prompt = twinfer_with(&["run"], b"Once upon a time");
    assert_eq!(no_prompt.code, 2);
    assert!(no_prompt.err.contains("`-` to read stdin"), "{}", no_prompt.err);
    let piped = twinfer_with(&["run", "-", "-n", "1", "-q"], b"Once upon a time\n").ok();
    assert!(piped.text().starts_with("Once upon a time"));

    let demo = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/demo/twinfer-demo-q4_k_m.gguf"
    );
    if !std::path::Path::new("/dev/stdin").exists() {
        println!("left out: there is no /dev/stdin");
        return;
    }
    for args in [
        &["run", "-m", "/dev/stdin", "x"][..],
        &["inspect", "/dev/stdin"],
        &["quantize", "/dev/stdin", "never", "q8_0"],
    ] {
        let run = twinfer_with(args, &std::fs::read(demo).unwrap());
        assert_eq!(run.code, 1, "{args:?}");
        assert!(run.err.contains("not a regular file"), "{args:?}: {}", run.err);
    }
    // A file is one under this name as well.
    let status = command(&["inspect", "/dev/stdin"])
        .stdin(std::fs::File::open(demo).unwrap())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    // Nobody writes to it: it is not waited for.
    let directory = Directory::new("pipe");
    let fifo = directory.file("m.gguf");
    if Command::new("mkfifo").arg(&fifo).status().unwrap().success() {
        let run = twinfer(&["run", "-m", &fifo, "x"]);
        assert_eq!(run.code, 1);
        assert!(run.err.contains("not a regular file"), "{}", run.err);
    }
}

#[test]
fn options_of_the_other_tools() {
    let directory = Directory::new("tools");
    let demo = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/demo/twinfer-demo-q4_k_m.gguf"
    );
    let out = directory.file("out.gguf");
    works(&["quantize", demo, &out, "Q8_0", "2"]);
    works(&["quantize", "--allow-requantize", demo, &out, "q4_k_m"]);
    answers(&["quantize", demo, "q4_k_m"], &["<MIX>"]);
    answers(&["quantize", demo, &out, "q8_0", "many"], &["many"]);
    answers(&["quantize", "--pure", demo, &out, "q4_0"], &["mix"]);
    answers(
        &["quantize", "--imatrix", "f", demo, &out, "q4_0"],
        &["importance"],
    );
    answers(
        &["quantize", "--output-tensor-type", "q8_0", demo, &out, "q4_0"],
        &["mix"],
    );
    for mix in ["15", "COPY"] {
        let run = twinfer(&["quantize", demo, &out, mix]);
        assert_eq!(run.code, 1);
        assert!(run.err.contains("there are q2_k"), "{}", run.err);
    }

    let small = ["-p", "2", "-n", "0", "-r", "1"];
    works(&[&["bench", "-ngl", "0", "-fa", "1", "-mmp", "0"][..], &small].concat());
    works(
        &[
            &["bench", "-ngl", "0,99", "-ctk", "f16", "-ub", "512"][..],
            &small,
        ]
        .concat(),
    );
    answers(&["bench", "-pg", "16,4"], &["-p 16 -n 4"]);
    answers(&["bench", "-t", "1,2"], &["once for each"]);
    answers(&["bench", "-o", "csv"], &["md, json"]);

    let expected = works(&["tokenize", "--json", "--no-add-special", "Once"]);
    let found = works(&["tokenize", "--ids", "--no-bos", "--log-disable", "-p", "Once"]);
    assert_eq!(found.text(), expected.text());
    answers(&["perplexity", "-p", "x", "-f", "f"], &["-f FILE"]);
    answers(
        &["perplexity", "--kl-divergence", "-f", "f"],
        &["only the perplexity"],
    );
}
