//! `chat`: answers that are made again, messages that are edited, and what of the cache they use.

use serde_json::Value;

use crate::support::{CHATML, Directory, twinfer_with};

/// A model with a sliding window, and one whose layers keep a state.
const PAST_IS_LOST: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/oracle/vectors/gemma3.gguf"),
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/oracle/vectors/granitehybrid.gguf"
    ),
];

/// What came of a conversation.
#[derive(Debug)]
struct Talk {
    /// Its messages at the end.
    messages: Value,
    /// Of each answer, the prompt's tokens that were reused and those that were read.
    prompts: Vec<(usize, usize)>,
    err: String,
}

impl Talk {
    /// The same messages, most of the last prompt reused.
    #[track_caller]
    fn is_cached(&self, fresh: &Talk) -> (usize, usize) {
        assert_eq!(self.messages, fresh.messages);
        let (reused, read) = *self.prompts.last().unwrap();
        let (fresh_reused, fresh_read) = *fresh.prompts.last().unwrap();
        assert_eq!(reused + read, fresh_reused + fresh_read);
        assert!(reused > 0, "{self:?}");
        (reused, read)
    }
}

/// Types these lines, and keeps what came of it.
fn talk(directory: &Directory, lines: &[&str], more: &[&str]) -> Talk {
    let (template, saved) = (directory.file("t.jinja"), directory.file("saved.json"));
    std::fs::write(&template, CHATML).unwrap();
    let _ = std::fs::remove_file(&saved);
    let args = ["chat", "--template", &template, "-v", "-t", "1"];
    let input = format!("{}\n/save {saved}\n", lines.join("\n"));
    let run = twinfer_with(&[&args, more].concat(), input.as_bytes()).ok();
    let prompts = run.err.lines().filter_map(|line| {
        let counts = line.strip_prefix("prompt: ")?.strip_suffix(" read")?;
        let (reused, read) = counts.split_once(" tokens reused, ")?;
        Some((reused.parse().unwrap(), read.parse().unwrap()))
    });
    Talk {
        messages: serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap(),
        prompts: prompts.collect(),
        err: run.err,
    }
}

#[test]
fn answers_made_again_reuse_what_is_cached() {
    let directory = Directory::new("chat-again");
    let talk = |lines: &[&str], seed: &[&str]| {
        let args = ["-n", "8", "--system", "Tell a story."];
        talk(&directory, lines, &[&args, seed].concat())
    };
    let greedy = ["--temp", "0"];
    let (first, second, third) = ("Once upon a time", "The cat", "One day");
    let fresh = talk(&[first, second], &greedy);
    let whole = fresh.prompts[1].0 + fresh.prompts[1].1;

    // All but the last token, which is read for its logits.
    for again in ["/regen", "/regenerate", "/retry"] {
        let read = talk(&[first, second, again], &greedy).is_cached(&fresh);
        assert_eq!(read, (whole - 1, 1), "{again}");
    }
    // The last message, that one by its number, and the first one; what followed it is gone.
    for edit in ["/edit The cat", "/edit 2 The cat", "/edit  2  The cat "] {
        let (reused, _) = talk(&[first, third, edit], &greedy).is_cached(&fresh);
        // What a conversation that goes straight on has of it: the first question and its answer.
        assert!(reused >= fresh.prompts[1].0, "{edit}: {reused}");
    }
    talk(&[first, third, "/edit 1 The cat"], &greedy).is_cached(&talk(&[second], &greedy));
    let edited = talk(&[third, second, "/edit 1 Once upon a time", second], &greedy);
    edited.is_cached(&fresh);

    // Sampled: the random numbers go on, as they do where the question is asked once more.
    let seed = ["--seed", "4", "--temp", "1.5"];
    let asked = talk(&[first, second, "/undo", second], &seed);
    talk(&[first, second, "/regen"], &seed).is_cached(&asked);
    talk(&[first, third, "/edit The cat"], &seed).is_cached(&talk(&[first, third, "/undo", second], &seed));
}

#[test]
fn edits_that_cannot_be() {
    let directory = Directory::new("chat-edit");
    let more = ["-n", "4", "--temp", "0"];
    let lines = ["/edit Hi", "Once", "/edit", "/edit 1", "/edit 2 Hi", "/edit 0 Hi"];
    let refused = talk(&directory, &lines, &more);
    assert_eq!(refused.messages, talk(&directory, &["Once"], &more).messages);
    for (message, times) in [
        ("there is no message to edit", 1),
        ("/edit needs the new text", 2),
        ("there is no message 2 to edit: you have sent 1", 1),
        ("there is no message 0 to edit: you have sent 1", 1),
    ] {
        assert_eq!(
            refused
                .err
                .lines()
                .filter(|line| line.starts_with(message))
                .count(),
            times,
            "{message}: {}",
            refused.err
        );
    }
    // One that the context has no room for leaves everything as it was.
    let long = format!("/edit {}", "word ".repeat(300));
    let kept = talk(&directory, &["Once", &long], &[&more[..], &["-c", "64"]].concat());
    assert!(kept.err.contains("the context has room for 64"), "{}", kept.err);
    assert_eq!(kept.messages, refused.messages);
}

#[test]
fn what_a_window_or_a_state_has_lost_is_gone_back_to() {
    let directory = Directory::new("chat-lost");
    for model in PAST_IS_LOST {
        let talk = |lines: &[&str], more: &[&str]| {
            // Answers longer than what stays of a sequence behind a window.
            let args = [
                "-m",
                model,
                "-c",
                "512",
                "--temp",
                "0",
                "-n",
                "90",
                "--ignore-eos",
            ];
            talk(&directory, lines, &[&args, more].concat())
        };
        let (first, second) = ("a cab", "abba");
        let fresh = talk(&[first, second], &[]);
        let whole = fresh.prompts[1].0 + fresh.prompts[1].1;
        for more in [&[][..], &["--cache-states", "4"]] {
            let again = talk(&[first, second, "/regen", "/regen"], more);
            assert_eq!(again.is_cached(&fresh), (whole - 1, 1), "{model}");
        }
        for lines in [
            &[first, "ba ba", "/edit abba"][..],
            &[first, "ba ba", "/undo", second],
            &[first, "ba ba", "/regen", "/edit 2 abba"],
        ] {
            // As much as a conversation that went straight on.
            let (reused, _) = talk(lines, &[]).is_cached(&fresh);
            assert!(reused >= fresh.prompts[1].0, "{model}, {lines:?}: {reused}");
        }
        // Without room for what is kept, it is read again.
        let states = ["--cache-states", "2"];
        for lines in [
            &[first, second, "/regen"][..],
            &[first, "ba ba", "/edit abba"],
            &[first, "ba", "/edit 1 a cab", "bb", "/regen", "/edit abba"],
        ] {
            assert_eq!(
                talk(lines, &states).messages,
                fresh.messages,
                "{model}, {lines:?}"
            );
        }
    }
}

/// Drafts of a second model: the same text, and they are told of.
#[test]
fn a_draft_model_changes_no_answer() {
    let directory = Directory::new("chat-draft");
    let demo = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/demo/twinfer-demo-q4_k_m.gguf"
    );
    let lines = ["Once upon a time", "The cat", "/regen", "/edit 1 One day"];
    for sampling in [&["--temp", "0"][..], &["--seed", "3"]] {
        let args = [&["-n", "24"], sampling].concat();
        let plain = talk(
            &directory,
            &lines,
            &[&args[..], &["--spec-type", "none"]].concat(),
        );
        let draft = ["-md", demo, "--spec-type", "draft-simple", "--draft-p-min", "0.2"];
        let drafted = talk(&directory, &lines, &[&args[..], &draft].concat());
        assert_eq!(drafted.messages, plain.messages);
        let told = drafted
            .err
            .lines()
            .filter(|line| line.contains("drafts were right"));
        assert_eq!(told.count(), 4, "{}", drafted.err);
        assert!(!plain.err.contains("drafts were right"), "{}", plain.err);
    }
}
