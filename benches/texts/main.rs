//! What drafts and shared passes are worth to a user: `cargo bench -p twinfer-benches --bench texts -- --model FILE`.
//!
//! 1. `twinfer batch` answers 64 prompts of 256 tokens, of which 200 are shared, with 64 tokens each: beside one after the
//!    other.
//! 2. A model that chats writes a quotation, code and free text, greedy, with drafts by lookup and without.
//! 3. 200 questions of ten kinds go through `batch`, greedy and sampled, and each through `run` as well.
//!
//! Texts are compared before anything is reported: neither drafts nor what shares a pass changes one. Parts 2 and 3 need a
//! model with a chat template and are left out, in print, without one.
#![allow(missing_docs, reason = "a program")]

mod questions;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use twinfer_benches::machine::{Machine, root};
use twinfer_benches::statistics::median;
use twinfer_benches::{program, run};

/// Lines of the batch, tokens of a prompt, those of them that all share, and tokens written.
const LINES: usize = 64;
const PROMPT: usize = 256;
const SHARED: usize = 200;
const WRITTEN: usize = 64;
/// Lines that are answered alone as well.
const ALONE: usize = 4;
/// Tokens of an answer to a question.
const ANSWER: &str = "48";

/// Times texts with and without what makes them faster.
#[derive(Parser)]
struct Args {
    /// The model's file.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The program. Default: built from these sources.
    #[arg(long)]
    twinfer: Option<PathBuf>,
    /// Threads. Default: the program's choice.
    #[arg(short, long)]
    threads: Option<usize>,
    /// Rounds of the drafts' texts; medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Leave the batch of 64 prompts out.
    #[arg(long)]
    no_batch: bool,
    /// Leave the 200 questions out.
    #[arg(long)]
    no_questions: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The program with its model, and where files go.
struct Bench {
    program: PathBuf,
    model: PathBuf,
    threads: Option<usize>,
    directory: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let Some(model) = args.model else {
        println!("texts: left out, for no --model was named");
        return Ok(());
    };
    let directory = root().join("target/texts");
    std::fs::create_dir_all(&directory)?;
    let bench = Bench {
        program: match args.twinfer {
            Some(program) => program,
            None => program::build()?,
        },
        model,
        threads: args.threads,
        directory,
    };
    println!("{}\n", Machine::describe().line());
    if !args.no_batch {
        println!("{}", bench.shared_prompts()?);
    }
    if !bench.chats()? {
        println!("The model has no chat template: drafts and questions are left out.");
        return Ok(());
    }
    println!("{}", bench.drafts(args.rounds)?);
    if !args.no_questions {
        println!("{}", bench.questions()?);
    }
    Ok(())
}

impl Bench {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(name).arg("-m").arg(&self.model);
        if let Some(threads) = self.threads {
            command.args(["-t", &threads.to_string()]);
        }
        command
    }

    fn chats(&self) -> Result<bool> {
        let report = run::json(self.command("inspect").arg("--json"))?;
        Ok(report["metadata"]["tokenizer.chat_template"].is_string())
    }

    /// Answers lines, and the seconds from start to end.
    fn batch(&self, name: &str, lines: &[Value], options: &[&str]) -> Result<(Vec<Value>, f64)> {
        let path = |end: &str| self.directory.join(format!("{name}.{end}.jsonl"));
        let (input, output) = (path("in"), path("out"));
        let mut text = String::new();
        for line in lines {
            writeln!(text, "{line}")?;
        }
        std::fs::write(&input, text)?;
        // An output that is there would be gone on with.
        if output.exists() {
            std::fs::remove_file(&output)?;
        }
        let start = Instant::now();
        run::quietly(
            self.command("batch")
                .arg("-q")
                .arg(&input)
                .arg("-o")
                .arg(&output)
                .args(options),
        )?;
        let seconds = start.elapsed().as_secs_f64();
        let answers = std::fs::read_to_string(&output)?;
        let answers: Vec<Value> = answers
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} has a line that is no JSON", output.display()))?;
        ensure!(
            answers.len() == lines.len(),
            "{} of {} lines were answered",
            answers.len(),
            lines.len()
        );
        Ok((answers, seconds))
    }

    /// Part 1.
    fn shared_prompts(&self) -> Result<String> {
        let lines: Vec<Value> = (0..LINES).map(|line| prompt(line, PROMPT, WRITTEN)).collect();
        // The first one brings the file into the system's cache.
        self.batch("load", &[prompt(0, 1, 1)], &[])?;
        let (_, loading) = self.batch("load", &[prompt(0, 1, 1)], &[])?;
        let (together, seconds) = self.batch("together", &lines, &[])?;
        let mut alone = Vec::new();
        for (line, shared) in lines.iter().zip(&together).take(ALONE) {
            let (own, seconds) = self.batch("alone", std::slice::from_ref(line), &[])?;
            ensure!(
                !own[0]["text"].is_null() && own[0]["text"] == shared["text"],
                "a line that is answered alone has another text: {} and {}",
                own[0],
                shared
            );
            alone.push(seconds - loading);
        }
        let (together, alone) = (seconds - loading, median(&alone).context("no line")?);
        Ok(format!(
            "`batch` of {LINES} prompts ({PROMPT} tokens, {SHARED} of them shared, {WRITTEN} new ones each): {together:.1} s; \
             a line alone {alone:.2} s ({ALONE} lines, the same texts); {:.2} times as fast as one after the other\n",
            alone * LINES as f64 / together
        ))
    }

    /// A chat's answer, its tokens per second, and what is said of drafts.
    fn answer(&self, question: &str, options: &[&str]) -> Result<Answer> {
        let output = self
            .command("run")
            .args(["--chat", "--no-display-prompt", "-v", "-p", question])
            .args(options)
            .stdin(std::process::Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`run` failed ({}): {said}",
            output.status
        );
        let text = String::from_utf8(output.stdout)?;
        let speed = said.split("generated: ").nth(1).and_then(|rest| {
            let rest = rest.split(", ").nth(1)?;
            rest.split(' ').next()?.parse().ok()
        });
        let drafts = said
            .split("speculation: ")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        Ok(Answer {
            text: text.trim_end_matches('\n').into(),
            speed: speed.unwrap_or(f64::NAN),
            drafts: drafts.unwrap_or("no draft was tried").into(),
        })
    }

    /// Part 2.
    fn drafts(&self, rounds: usize) -> Result<String> {
        let mut table = String::from(
            "| text, greedy | without drafts, tok/s | `--spec-type auto` | ratio | `ngram-simple` | ratio | drafts with `auto` |\n\
             |---|---:|---:|---:|---:|---:|---|\n",
        );
        for (name, question) in questions::WRITTEN {
            let ways = ["none", "auto", "ngram-simple"];
            let mut speeds = [const { Vec::new() }; 3];
            let mut first: Option<String> = None;
            let mut drafts = String::new();
            for _ in 0..rounds {
                for (way, speeds) in ways.iter().zip(&mut speeds) {
                    let options = ["--temp", "0", "-n", "340", "--spec-type", way];
                    let answer = self.answer(question, &options)?;
                    let text = first.get_or_insert_with(|| answer.text.clone());
                    ensure!(
                        *text == answer.text,
                        "{name}: the text with --spec-type {way} is another one"
                    );
                    speeds.push(answer.speed);
                    if *way == "auto" {
                        drafts = answer.drafts;
                    }
                }
            }
            let [none, auto, always] = speeds.map(|speeds| median(&speeds).unwrap_or(f64::NAN));
            writeln!(
                table,
                "| {name} | {none:.0} | {auto:.0} | {:.2} x | {always:.0} | {:.2} x | {drafts} |",
                auto / none,
                always / none
            )?;
            let path = self.directory.join(format!("{name}.txt"));
            std::fs::write(path, first.unwrap_or_default())?;
        }
        Ok(table)
    }

    /// Part 3.
    fn questions(&self) -> Result<String> {
        let questions = questions::all();
        let sampled = |i: usize| i % 2 == 1;
        let lines: Vec<Value> = questions
            .iter()
            .enumerate()
            .map(|(i, question)| {
                json!({
                    "messages": [{"role": "user", "content": question}], "max_tokens": 48, "seed": i,
                    "temperature": if sampled(i) { 0.8 } else { 0.0 },
                })
            })
            .collect();
        let (answers, seconds) = self.batch("questions", &lines, &[])?;
        let mut read = String::new();
        for (i, (question, answer)) in questions.iter().zip(&answers).enumerate() {
            let temperature = if sampled(i) { "0.8" } else { "0" };
            let own = self.answer(
                question,
                &["-n", ANSWER, "--seed", &i.to_string(), "--temp", temperature],
            )?;
            let text = answer["text"].as_str().context("a line was not answered")?;
            ensure!(
                text.trim_end_matches('\n') == own.text,
                "question {i} ({question}): `batch` answers {text:?}, `run` {:?}",
                own.text
            );
            writeln!(read, "## {question}\n\n{text}\n")?;
            if (i + 1) % 20 == 0 {
                eprintln!("{} of {} questions are answered alike", i + 1, questions.len());
            }
        }
        let path = self.directory.join("answers.md");
        std::fs::write(&path, read)?;
        Ok(format!(
            "{} questions of ten kinds, every second one sampled: `batch` in {seconds:.1} s, each answer `run`'s to the byte; \
             to be read in target/texts/{}\n",
            questions.len(),
            file_name(&path)
        ))
    }
}

/// What a chat said.
struct Answer {
    text: String,
    /// Tokens per second while it was written.
    speed: f64,
    drafts: String,
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// A line of token ids that every vocabulary of today has; the first ones are those of every line.
fn prompt(line: usize, tokens: usize, written: usize) -> Value {
    let id = |i: usize| {
        let of = if i < SHARED { i } else { (line + 1) * 10_000 + i } as u64;
        300 + ((of + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % 29_000
    };
    let ids: Vec<u64> = (0..tokens).map(id).collect();
    json!({"prompt": ids, "max_tokens": written, "temperature": 0, "ignore_eos": true})
}
