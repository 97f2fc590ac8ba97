//! `batch`: each answer is `run`'s; bad lines, order, OpenAI's form, what is computed once.

use serde_json::{Value, json};

use crate::support::{CHATML, Directory, Run, twinfer, twinfer_with};

/// Writes lines to a file and gives its name.
pub(crate) fn input(directory: &Directory, lines: &[Value]) -> String {
    let path = directory.file("in.jsonl");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text).unwrap();
    path
}

pub(crate) fn batch(input: &str, output: &str, more: &[&str]) -> Run {
    twinfer(&[&["batch", input, "-o", output], more].concat())
}

pub(crate) fn lines(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The answers of a batch that is read from stdin.
fn answers(stdin: &[u8], more: &[&str]) -> Vec<Value> {
    let run = twinfer_with(&[&["batch", "-", "-o", "-", "-q"], more].concat(), stdin).ok();
    let lines = run.text().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/demo/twinfer-demo-q4_k_m.gguf"
);

/// What `run` prints for what a line asks for.
fn run_alone(line: &Value, template: &str) -> String {
    let mut args = vec!["run".to_string(), "--no-display-prompt".into(), "-q".into()];
    for (name, flag) in [
        ("max_tokens", "-n"),
        ("temperature", "--temp"),
        ("top_k", "--top-k"),
        ("top_p", "--top-p"),
        ("min_p", "--min-p"),
        ("repeat_penalty", "--repeat-penalty"),
        ("mirostat", "--mirostat"),
        ("dry_multiplier", "--dry-multiplier"),
        ("seed", "--seed"),
    ] {
        if let Some(value) = line.get(name) {
            args.extend([flag.to_string(), value.to_string()]);
        }
    }
    if line["ignore_eos"] == true {
        args.push("--ignore-eos".into());
    }
    for stop in line["stop"].as_array().into_iter().flatten() {
        args.extend(["--stop".into(), stop.as_str().unwrap().into()]);
    }
    match line["prompt"].as_str() {
        Some(prompt) => args.extend(["-p".into(), prompt.into()]),
        None => {
            let messages = line["messages"].as_array().unwrap();
            let [system, user] = messages.as_slice() else {
                panic!("{line}");
            };
            let system = system["content"].as_str().unwrap();
            let user = user["content"].as_str().unwrap();
            for arg in ["--chat", "--template", template, "--system", system, "-p", user] {
                args.push(arg.into());
            }
        }
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    twinfer(&args).ok().text().to_string()
}

/// As `run` ends its output with a line.
fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') {
        text.into()
    } else {
        format!("{text}\n")
    }
}

const STORY: &str = "Once upon a time, there was a little girl named Ada. Ada lived in the town. The houses had \
                     red roofs. One winter morning, Ada looked out and everything was white. She put on her warm \
                     coat and ran outside. She tried to make a snowman, but the ball of snow was too heavy.";

/// Questions of many kinds: lengths, samplers, stop texts, conversations, prompts that share their beginning.
pub(crate) fn questions() -> Vec<Value> {
    let mut lines = vec![
        json!({"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}),
        json!({"prompt": "The cat", "max_tokens": 30, "seed": 1}),
        json!({"prompt": "The cat", "max_tokens": 30, "seed": 2, "top_k": 0, "top_p": 1, "min_p": 0}),
        json!({"prompt": "Once", "max_tokens": 60, "seed": 3, "temperature": 1.5}),
        json!({"prompt": "Once upon a time", "max_tokens": 50, "temperature": 0, "stop": ["girl", "zebra"]}),
        json!({"prompt": "One day", "max_tokens": 1, "seed": 4}),
        json!({"prompt": "One day", "max_tokens": 0, "seed": 4}),
        json!({"prompt": "", "max_tokens": 20, "seed": 5}),
        json!({"prompt": "A b c d", "max_tokens": 40, "seed": 6, "mirostat": 2}),
        json!({"prompt": "A b c d", "max_tokens": 40, "seed": 7, "repeat_penalty": 1.3, "dry_multiplier": 0.8}),
        // To the model's own end, or that of the context.
        json!({"prompt": STORY, "seed": 8}),
        json!({"prompt": STORY, "temperature": 0}),
    ];
    for i in 0..6 {
        let prompt = format!("{STORY} Then {i} of her friends");
        lines.push(json!({"prompt": prompt, "max_tokens": 24, "seed": 20 + i}));
        let messages = json!([
            {"role": "system", "content": format!("You know this story. {STORY}")},
            {"role": "user", "content": format!("What did {i} of them do?")},
        ]);
        lines.push(json!({"messages": messages, "max_tokens": 16, "seed": 30 + i}));
    }
    // Short prompts and long texts: a cache that has room for them at first has none later.
    for i in 0..6 {
        lines.push(json!({"prompt": "Once", "max_tokens": 150, "seed": 40 + i, "ignore_eos": true}));
    }
    lines
}

#[test]
fn each_answer_is_that_of_run() {
    let directory = Directory::new("batch-run");
    let template = directory.file("t.jinja");
    std::fs::write(&template, CHATML).unwrap();
    let questions = questions();
    let path = input(&directory, &questions);
    let expected: Vec<String> = questions.iter().map(|line| run_alone(line, &template)).collect();
    let mut first = None;
    // A cache of 8 pages holds one text as long as the context: sequences are put back.
    for (i, more) in [
        &[][..],
        &["-t", "1", "--parallel", "1"],
        &["--parallel", "3"],
        &["--cache-size", "2M", "-t", "3"],
        &["--spec-type", "ngram-simple"],
        &["--spec-type", "none"],
        &[
            "--model-draft",
            DEMO,
            "--spec-type",
            "draft-simple",
            "--draft-p-min",
            "0.2",
        ],
    ]
    .iter()
    .enumerate()
    {
        let out = directory.file(&format!("out{i}.jsonl"));
        let run = batch(&path, &out, &[&["--template", &template, "-v"], *more].concat()).ok();
        let bytes = std::fs::read(&out).unwrap();
        let answers = lines(&out);
        assert_eq!(answers.len(), questions.len());
        for (n, (answer, expected)) in answers.iter().zip(&expected).enumerate() {
            assert_eq!(answer["line"], n + 1);
            assert_eq!(
                &ended(answer["text"].as_str().unwrap()),
                expected,
                "{} {answer}",
                questions[n]
            );
        }
        let put_back = !run.err.contains(" 0 put back");
        assert_eq!(put_back, i == 3, "{}", run.err);
        if more.contains(&DEMO) {
            assert!(right(&run) > 100, "{}", run.err);
        }
        assert_eq!(*first.get_or_insert_with(|| bytes.clone()), bytes, "{more:?}");
    }
}

/// How many drafts were right, as `-v` tells it.
fn right(run: &Run) -> usize {
    let told = run.err.lines().find(|line| line.contains("drafts were right"));
    let (_, counts) = told.unwrap().rsplit_once("; ").unwrap();
    counts.split_once(" of ").unwrap().0.parse().unwrap()
}

/// A draft model drafts for every text that is made, not for one after the other.
#[test]
fn drafts_of_a_model_are_for_all_texts_of_a_pass() {
    let directory = Directory::new("batch-drafts");
    let questions: Vec<Value> = [
        "Once upon a time",
        "The cat",
        "One day",
        "A girl",
        "The dog",
        "In the town",
    ]
    .iter()
    .map(|prompt| json!({"prompt": prompt, "max_tokens": 48, "temperature": 0, "ignore_eos": true}))
    .collect();
    let path = input(&directory, &questions);
    let (plain, drafted) = (directory.file("plain"), directory.file("drafted"));
    batch(&path, &plain, &["--spec-type", "none"]).ok();
    // The model drafts for itself, and is right each time.
    let draft = [
        "--model-draft",
        DEMO,
        "--spec-type",
        "draft-simple",
        "--draft-p-min",
        "0",
        "--draft-max",
        "5",
    ];
    let run = batch(&path, &drafted, &[&draft[..], &["-v"]].concat()).ok();
    assert_eq!(std::fs::read(&plain).unwrap(), std::fs::read(&drafted).unwrap());
    // Five of six tokens of each.
    assert!(right(&run) >= 6 * 36, "{}", run.err);
    let passes = run
        .err
        .lines()
        .find_map(|line| line.split_once(" passes, at most 6 sequences"));
    let passes: usize = passes.unwrap().0.parse().unwrap();
    assert!(passes < 16, "{}", run.err);
}

#[test]
fn counts_and_reasons() {
    let answers = answers(
        b"{\"prompt\": \"Once upon a time\", \"max_tokens\": 5, \"temperature\": 0}\n\
          {\"prompt\": [0, 466, 467, 262, 396], \"max_tokens\": 5, \"temperature\": 0, \"custom_id\": \"ids\"}\n\
          {\"prompt\": \"Once upon a time\", \"max_tokens\": 50, \"temperature\": 0, \"stop\": \"girl\"}\n\
          {\"prompt\": \"Once upon a time\", \"max_tokens\": 5}\n\
          {\"prompt\": \"Once upon a time\", \"max_tokens\": 5}\n",
        &[],
    );
    assert_eq!(
        answers[0]["usage"],
        json!({"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10})
    );
    // The same tokens; greedy text has no seed.
    assert_eq!(answers[1]["text"], answers[0]["text"]);
    assert_eq!(answers[1]["custom_id"], "ids");
    assert_eq!(answers[0].get("seed"), None);
    let reasons: Vec<&Value> = answers.iter().map(|answer| &answer["finish_reason"]).collect();
    assert_eq!(reasons, ["length", "length", "stop", "length", "length"]);
    // A seed that nobody chose is said, and gives the text again.
    let seed = &answers[3]["seed"];
    assert_ne!(seed, &answers[4]["seed"]);
    let again = json!({"prompt": "Once upon a time", "max_tokens": 5, "seed": seed}).to_string();
    assert_eq!(
        self::answers(again.as_bytes(), &[])[0]["text"],
        answers[3]["text"]
    );
    let by_option = self::answers(
        b"{\"prompt\": \"Once upon a time\"}",
        &["-n", "5", "--seed", &seed.to_string()],
    );
    assert_eq!(by_option[0]["text"], answers[3]["text"]);
}

#[test]
fn a_bad_line_is_an_error_in_its_place() {
    let long = format!("{{\"prompt\": \"{}\"}}", "word ".repeat(2000));
    let bad: [(&[u8], &str, &str); 9] = [
        (b"{\"prompt\": \"a\"", "", "not JSON"),
        (b"{\"prompt\": \"\xff\"}", "", "UTF-8"),
        (b"{\"prompt\": 5}", "prompt", "found 5"),
        (b"{\"prompt\": \"a\", \"top_p\": 2}", "top_p", "between 0 and 1"),
        (
            b"{\"prompt\": \"a\", \"tools\": [1], \"custom_id\": \"x\"}",
            "tools",
            "not supported",
        ),
        (long.as_bytes(), "prompt", "the context has room for 512"),
        (b"{\"prompt\": [0, 99999]}", "prompt", "token 99999"),
        (
            b"{\"prompt\": \"a\", \"logit_bias\": {\"99999\": 1}}",
            "",
            "99999",
        ),
        (
            b"{\"messages\": [{\"role\": \"clown\", \"content\": \"hi\"}]}",
            "messages",
            "roles",
        ),
    ];
    let template =
        "{{ raise_exception('no such roles') if messages[0].role == 'clown' }}x{{ messages[0].content }}";
    let directory = Directory::new("batch-bad");
    let path = directory.file("t.jinja");
    std::fs::write(&path, template).unwrap();
    let good = b"{\"prompt\": \"The cat\", \"max_tokens\": 3, \"temperature\": 0}";
    let mut stdin = b"\xef\xbb\xbf".to_vec();
    for (line, _, _) in bad {
        stdin.extend_from_slice(line);
        // Blank lines have no answer; a line may end as on Windows.
        stdin.extend_from_slice(b"\r\n\r\n");
        stdin.extend_from_slice(good);
        stdin.extend_from_slice(b"\n");
    }
    let answers = answers(&stdin, &["--template", &path]);
    assert_eq!(answers.len(), 2 * bad.len());
    for (i, (line, field, says)) in bad.iter().enumerate() {
        let [answer, well] = [&answers[2 * i], &answers[2 * i + 1]];
        let line = String::from_utf8_lossy(&line[..line.len().min(60)]);
        assert_eq!(
            (&answer["line"], &well["line"]),
            (&json!(3 * i + 1), &json!(3 * i + 3))
        );
        let error = &answer["error"];
        assert!(
            error["message"].as_str().unwrap().contains(says),
            "{line}: {answer}"
        );
        assert_eq!(
            error["param"].as_str().unwrap_or_default(),
            *field,
            "{line}: {answer}"
        );
        assert_eq!(well["text"], answers[1]["text"]);
    }
    assert_eq!(answers[8]["custom_id"], "x");
    // Without a template only conversations fail.
    let hi = b"{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"max_tokens\": 3, \"temperature\": 0}\n";
    let own = self::answers(hi, &[]);
    assert!(own[0]["text"].is_string(), "{}", own[0]);
}

#[test]
fn openai_batch_files_are_answered_in_their_form() {
    let directory = Directory::new("batch-openai");
    let messages = json!([{"role": "user", "content": "Once"}]);
    let url = "/v1/chat/completions";
    let chat = |id: &str, body: Value| json!({"custom_id": id, "method": "POST", "url": url, "body": body});
    let path = input(
        &directory,
        &[
            chat(
                "a",
                json!({"model": "any", "messages": messages, "max_tokens": 6, "seed": 3}),
            ),
            json!({"custom_id": "b", "method": "POST", "url": "/v1/completions",
                   "body": {"model": "any", "prompt": "Once", "max_tokens": 6, "seed": 3}}),
            chat(
                "c",
                json!({"model": "any", "messages": messages, "temperature": -1}),
            ),
            json!({"messages": messages, "max_tokens": 6, "seed": 3}),
            json!({"prompt": "Once", "max_tokens": 6, "seed": 3}),
        ],
    );
    let (out, again) = (directory.file("out"), directory.file("again"));
    batch(&path, &out, &[]).ok();
    let found = lines(&out);
    for (i, id) in ["a", "b", "c"].iter().enumerate() {
        assert_eq!(found[i]["custom_id"], *id);
        assert_eq!(found[i]["error"], Value::Null);
        assert_eq!(found[i]["id"], format!("batch_req_{}", i + 1));
    }
    let body = |i: usize| &found[i]["response"]["body"];
    assert_eq!(found[0]["response"]["status_code"], 200);
    assert_eq!(body(0)["object"], "chat.completion");
    assert_eq!(body(0)["choices"][0]["message"]["content"], found[3]["text"]);
    assert_eq!(body(0)["usage"], found[3]["usage"]);
    assert_eq!(body(1)["object"], "text_completion");
    assert_eq!(body(1)["choices"][0]["text"], found[4]["text"]);
    assert_eq!(body(1)["choices"][0]["finish_reason"], "length");
    assert_eq!(found[2]["response"]["status_code"], 400);
    assert_eq!(body(2)["error"]["param"], "temperature");
    // Neither the time nor a random number is in it.
    batch(&path, &again, &[]).ok();
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&again).unwrap());
}

#[test]
fn unordered_answers_are_the_same_ones() {
    let directory = Directory::new("batch-order");
    let mut questions = questions();
    // The first takes longest.
    questions.insert(
        0,
        json!({"prompt": "Once upon a time", "max_tokens": 300, "seed": 1, "ignore_eos": true}),
    );
    questions.retain(|line| line.get("prompt").is_some());
    let path = input(&directory, &questions);
    let (ordered, unordered) = (directory.file("ordered"), directory.file("unordered"));
    batch(&path, &ordered, &[]).ok();
    batch(&path, &unordered, &["--unordered"]).ok();
    let (ordered, mut unordered) = (lines(&ordered), lines(&unordered));
    assert_ne!(unordered[0]["line"], 1);
    unordered.sort_by_key(|answer| answer["line"].as_u64());
    assert_eq!(ordered, unordered);
}

/// What the summary says.
fn percent_from_the_cache(run: &Run) -> usize {
    let before = run.err.split(" % from the cache").next();
    let number = before.and_then(|before| before.rsplit(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{}", run.err))
}

/// A system prompt that is shorter than a page is in no index: it is shared with a sequence that has it.
#[test]
fn a_short_beginning_is_read_once() {
    let directory = Directory::new("batch-short");
    let out = directory.file("out");
    // With sliding windows, too; its vocabulary is small, and most of what it says is noise.
    let windows = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/oracle/vectors/gemma3-pattern.gguf"
    );
    for (model, first) in [(&[][..], 100), (&["-m", windows], 5)] {
        let questions: Vec<Value> = (0..24)
            .map(|i| {
                let prompt: Vec<u32> = (0..48)
                    .map(|n| {
                        if n < 40 {
                            first + n % 31
                        } else {
                            first + (n * i) % 33
                        }
                    })
                    .collect();
                json!({"prompt": prompt, "max_tokens": 4 + i, "temperature": 0, "ignore_eos": true})
            })
            .collect();
        let path = input(&directory, &questions);
        let run = batch(&path, &out, &[model, &["-v"]].concat()).ok();
        // 23 of 24 prompts share 40 of their 48 tokens.
        let percent = percent_from_the_cache(&run);
        assert!((79..=85).contains(&percent), "{}", run.err);
        assert!(run.err.contains("at most 24 sequences together"), "{}", run.err);
        let found = std::fs::read(&out).unwrap();
        for other in [
            &["--parallel", "1"][..],
            &["--parallel", "5", "-t", "1"],
            &["--cache-size", "1M"],
        ] {
            std::fs::remove_file(&out).unwrap();
            batch(&path, &out, &[model, other].concat()).ok();
            assert_eq!(std::fs::read(&out).unwrap(), found, "{other:?}");
        }
        std::fs::remove_file(&out).unwrap();
    }
}

#[test]
fn prompts_that_share_a_beginning_are_read_once() {
    let directory = Directory::new("batch-shared");
    let ids = |i: u32| -> Vec<u32> {
        (0..128)
            .map(|n| 100 + n)
            .chain((0..56).map(|n| 100 + n * i))
            .collect()
    };
    let questions: Vec<Value> = (1..=24)
        .map(|i| json!({"prompt": ids(i), "max_tokens": 8, "temperature": 0}))
        .collect();
    let path = input(&directory, &questions);
    let out = directory.file("out");
    let run = batch(&path, &out, &["-v"]).ok();
    let percent = percent_from_the_cache(&run);
    // 23 of 24 prompts share 128 of their 184 tokens, and have one token more by chance.
    assert!((66..=70).contains(&percent), "{}", run.err);
    assert!(run.err.contains("at most 24 sequences together"), "{}", run.err);
    let alone = directory.file("alone");
    batch(&path, &alone, &["--parallel", "1"]).ok();
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&alone).unwrap());
}

/// Layers that keep a state: few states make texts wait for one another, and change none.
#[test]
fn few_states_change_no_answer() {
    let directory = Directory::new("states");
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/oracle/vectors/qwen35moe.gguf"
    );
    let states = |options: &[&str]| {
        let args = ["inspect", "--plan", "--json", "-m", model, "--parallel", "3"];
        let plan = twinfer(&[&args, options].concat()).json();
        let cache = plan["plan"]["cache"].as_array().unwrap().iter();
        let states = cache.filter(|buffer| buffer["name"] == "states of sequences");
        states
            .map(|buffer| buffer["bytes"].as_u64().unwrap())
            .sum::<u64>()
    };
    let unasked = states(&[]);
    assert!(unasked > 0 && unasked.is_multiple_of(12));
    assert_eq!(states(&["--cache-states", "3"]), unasked / 4);
    let questions: String = (0..12)
        .map(|i| json!({"prompt": [1, 3 + i, 7, 9], "max_tokens": 3 + i, "temperature": 0, "ignore_eos": true}))
        .map(|line| format!("{line}\n"))
        .collect();
    let of = |options: &[&str]| {
        let options = [&["-m", model, "-c", "64", "--parallel", "6"], options].concat();
        answers(questions.as_bytes(), &options)
    };
    let expected = of(&[]);
    assert_eq!(expected.len(), 12);
    assert!(expected.iter().all(|answer| answer.get("error").is_none()));
    for n in ["2", "3", "7"] {
        assert_eq!(of(&["--cache-states", n]), expected, "{n} states");
    }
    // Nor a digest of texts that share passes.
    let list = directory.file("lines.txt");
    std::fs::write(&list, "a\nab a\nb\nba ab\n").unwrap();
    let digests = |options: &[&str]| {
        let args = ["eval", "-m", model, "-c", "64", "--texts", &list, "--json"];
        twinfer(&[&args, options].concat()).json()
    };
    assert_eq!(digests(&["--cache-states", "2"]), digests(&[]));
    let refused = twinfer(&["run", "a", "-m", model, "--cache-states", "1"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("--cache-states"), "{}", refused.err);
}

#[test]
fn a_text_that_no_cache_holds_is_an_error_of_its_line() {
    let questions = [
        json!({"prompt": STORY, "max_tokens": 400, "ignore_eos": true, "temperature": 0}),
        json!({"prompt": "The cat", "max_tokens": 4, "temperature": 0}),
    ];
    let stdin: String = questions.iter().map(|line| format!("{line}\n")).collect();
    let answers = answers(stdin.as_bytes(), &["--cache-size", "1M"]);
    let message = answers[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("--cache-size"), "{message}");
    assert_eq!(answers[0]["error"]["type"], "server_error");
    assert!(answers[1]["text"].is_string());
}

/// A copy of the demo model in which one token's embedding is not a number.
fn poisoned(directory: &Directory, token: usize) -> String {
    let report = twinfer(&["inspect", "--json", "--full"]).json();
    let tensors = report["tensors"].as_array().unwrap();
    let embeddings = tensors.iter().find(|t| t["name"] == "token_embd.weight").unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let n_vocab = number(&embeddings["shape"][1]);
    let row = number(&embeddings["bytes"]) / n_vocab;
    // Where the block's f16 scale stands.
    let scale = match embeddings["type"].as_str().unwrap() {
        "q6_k" => 208,
        "q4_k" | "q5_k" => 0,
        other => panic!("{other}"),
    };
    let at = number(&embeddings["offset"]) + token * row + scale;
    let mut bytes = std::fs::read(DEMO).unwrap();
    bytes[at..at + 2].copy_from_slice(&[0, 0x7e]);
    let path = directory.file("poisoned.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_line_whose_numbers_are_not_finite_fails_alone() {
    let directory = Directory::new("batch-poisoned");
    let zebra: Vec<u32> = serde_json::from_slice(
        &twinfer(&["tokenize", "--json", "--no-special", " zebra"])
            .ok()
            .out,
    )
    .unwrap();
    assert_eq!(zebra.len(), 1);
    let model = poisoned(&directory, zebra[0] as usize);
    let animals = ["cat", "dog", "zebra", "bird", "zebra", "fox"];
    let questions: String = animals
        .iter()
        .map(|animal| {
            format!(
                "{}\n",
                json!({"prompt": format!("The {animal}"), "max_tokens": 12, "seed": 3})
            )
        })
        .collect();
    let well = answers(questions.as_bytes(), &[]);
    let args = ["batch", "-", "-o", "-", "-m", &model];
    let run = twinfer_with(&args, questions.as_bytes()).ok();
    let found: Vec<Value> = run
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // What was computed once more is counted once.
    let sum = |answers: &[Value], kind: &str| -> u64 {
        let tokens = answers
            .iter()
            .map(|answer| answer["usage"][kind].as_u64().unwrap_or(0));
        tokens.sum()
    };
    let read = format!("prompts: {} tokens,", sum(&well, "prompt_tokens"));
    let generated = format!("generated: {} tokens,", sum(&found, "completion_tokens"));
    assert!(
        run.err.contains(&read) && run.err.contains(&generated),
        "{read} {generated} {}",
        run.err
    );
    for (i, animal) in animals.iter().enumerate() {
        if *animal == "zebra" {
            assert_eq!(found[i]["error"]["type"], "server_error", "{}", found[i]);
            assert!(
                found[i]["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("not finite"),
                "{}",
                found[i]
            );
        } else {
            assert_eq!(found[i]["text"], well[i]["text"]);
        }
    }
}
