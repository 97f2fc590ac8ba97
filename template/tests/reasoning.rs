//! Thinking told apart from answers, of every format, with the text cut everywhere.

use twinfer_template::reasoning::{Part, Reasoning};

/// Thinking and answer of a text that comes in these pieces.
fn split<'a>(reasoning: &Reasoning, pieces: impl Iterator<Item = &'a str>) -> (String, String) {
    let (mut thinking, mut answer) = (String::new(), String::new());
    let mut splitter = reasoning.splitter();
    let mut take = |part: Part<'_>| match part {
        Part::Thinking(text) => thinking.push_str(text),
        Part::Answer(text) => answer.push_str(text),
    };
    for piece in pieces {
        splitter.push(piece, &mut take);
    }
    splitter.finish(&mut take);
    (thinking, answer)
}

/// The same for the text as a whole, character by character, and cut in two and three anywhere.
fn check(template: &str, prompt: &str, text: &str, thinking: &str, answer: &str) {
    let reasoning = Reasoning::of(template, prompt);
    let expected = (thinking.to_owned(), answer.to_owned());
    assert_eq!(split(&reasoning, std::iter::once(text)), expected, "{text:?}");
    let ends: Vec<usize> = text
        .char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect();
    let characters = ends.windows(2).map(|pair| &text[pair[0]..pair[1]]);
    assert_eq!(split(&reasoning, characters), expected, "{text:?} by characters");
    for &a in &ends {
        for &b in ends.iter().filter(|b| **b >= a) {
            let pieces = [&text[..a], &text[a..b], &text[b..]];
            let found = split(&reasoning, pieces.into_iter());
            assert_eq!(found, expected, "{text:?} cut at {a} and {b}");
        }
    }
}

#[test]
fn tags() {
    let qwen = "{{ '<think>' }}";
    let cases = [
        ("<think>\nHm é.\n</think>\n\nYes.", "Hm é.", "Yes."),
        ("<think>\n\n</think>\n\nYes.\n", "", "Yes.\n"),
        (" \n<think>a</think>b", "a", "b"),
        // Without marks, or about them.
        ("Yes.", "", "Yes."),
        ("\n Yes. ", "", "\n Yes. "),
        (
            "Write <think> and </think> around it.",
            "",
            "Write <think> and </think> around it.",
        ),
        ("<thin ice", "", "<thin ice"),
        ("<", "", "<"),
        ("", "", ""),
        // Thoughts that do not end, or hardly.
        ("<think>Hm", "Hm", ""),
        ("<think>Hm </thi", "Hm </thi", ""),
        ("<think>a < b </thinking></think>c", "a < b </thinking>", "c"),
        ("</think>Yes.", "", "Yes."),
        ("<think>a</think><think>b", "a", "<think>b"),
    ];
    for (text, thinking, answer) in cases {
        check(qwen, "<|im_start|>assistant\n", text, thinking, answer);
        check("", "", text, thinking, answer);
    }
    // The prompt has begun the thought, or ended it.
    let begun = "<|im_start|>assistant\n<think>\n";
    for (text, thinking, answer) in [
        ("Hm.\n</think>\n\nYes.", "Hm.", "Yes."),
        ("<think>\nHm.</think>Yes.", "Hm.", "Yes."),
        ("\n</think>\n\nYes.", "", "Yes."),
        ("Hm.", "Hm.", ""),
        ("Hm.\n\n and", "Hm.\n\n and", ""),
    ] {
        check(qwen, begun, text, thinking, answer);
    }
    check(qwen, "<think>\n\n</think>\n\n", "Yes.", "", "Yes.");
}

#[test]
fn other_marks() {
    let mistral = "'[THINK]' + block + '[/THINK]'";
    check(mistral, "[/INST]", "[THINK]Hm.[/THINK]Yes.", "Hm.", "Yes.");
    check(mistral, "", "Now: [THINK]Hm.[/THINK] Yes.", "Hm.", "Now: Yes.");
    check(mistral, "", "a [b] [/c]", "", "a [b] [/c]");
    check(
        "<seed:think>",
        "",
        "<seed:think>Hm.</seed:think>\nYes.",
        "Hm.",
        "Yes.",
    );
    check("<mm:think>", "<mm:think>", "Hm.</mm:think>Yes.", "Hm.", "Yes.");
    let granite = "<think></think> <response></response>";
    check(
        granite,
        "",
        "<think>Hm.</think>\n<response>Yes.\n</response>\n",
        "Hm.",
        "Yes.",
    );
    check(
        granite,
        "",
        "Write </response> here.",
        "",
        "Write </response> here.",
    );
    check(granite, "", "<response>Yes.</resp", "", "Yes.</resp");
    let gemma = "'<|channel>thought\n' + text + '<channel|>'";
    check(
        gemma,
        "<|turn>model\n",
        "<|channel>thought\nHm.\n<channel|>Yes.",
        "Hm.",
        "Yes.",
    );
    check(
        gemma,
        "<|channel>thought\n<channel|>",
        "Yes.<|channel>thought\n<channel|>",
        "",
        "Yes.",
    );
    check(gemma, "", "Yes.<channel|>", "", "Yes.");
    let command = "<|START_THINKING|>";
    check(
        command,
        "<|CHATBOT_TOKEN|><|START_THINKING|>",
        "Hm.<|END_THINKING|><|START_TEXT|>Yes.<|END_TEXT|>",
        "Hm.",
        "Yes.",
    );
    check(command, "<|START_THINKING|><|END_THINKING|>", "Yes.", "", "Yes.");
    check(
        "<|inner_prefix|>",
        "",
        "<|inner_prefix|>Hm.<|inner_suffix|>Yes.",
        "Hm.",
        "Yes.",
    );
    check(
        "<|begin|> <|think|>",
        "<|begin|>assistant",
        "<|think|>Hm.<|end|><|begin|>assistant<|content|>Yes.",
        "Hm.",
        "Yes.",
    );
    check(
        "[BEGIN FINAL RESPONSE]",
        "Here are my reasoning steps:\n",
        "Hm.\n[BEGIN FINAL RESPONSE]\nYes.",
        "Hm.",
        "Yes.",
    );
}

#[test]
fn harmony() {
    let oss = "<|start|>assistant<|channel|>analysis<|message|>";
    let prompt = "<|start|>assistant";
    for (text, thinking, answer) in [
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
            "Hm.",
            "Yes.",
        ),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
            "Hm.",
            "Yes.",
        ),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>",
            "a\n\nb",
            "",
        ),
        (
            "<|channel|>commentary<|message|>First.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
            "",
            "First.\n\nYes.",
        ),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f \
             <|constrain|>json<|message|>{\"a\":1}<|call|>",
            "Hm.",
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>",
        ),
        // It breaks the rules.
        ("Yes.", "", "Yes."),
        ("Yes <|channel|> no", "", "Yes <|channel|> no"),
        ("<|channel|>final<|message|>Yes.", "", "Yes."),
        ("<|channel|>analysis<|message|>Hm. <", "Hm. <", ""),
        ("<|channel|>analy", "", "<|channel|>analy"),
        ("<|channel|>analysis<|message|><|end|>Yes.", "", "Yes."),
        ("<|message|>Yes.<|end|>", "", "Yes."),
        ("assistants are many", "", "assistants are many"),
        ("", "", ""),
    ] {
        check(oss, prompt, text, thinking, answer);
    }
    let glimmer = "<|start|>assistant to=self<|message|>";
    check(
        glimmer,
        prompt,
        " to=self<|message|>Hm.<|eom|><|start|>assistant<|message|>Yes.<|eot|>",
        "Hm.",
        "Yes.<|eot|>",
    );
    let long = "<|channel|>".to_owned() + &"x".repeat(600);
    assert_eq!(
        split(&Reasoning::of(oss, prompt), std::iter::once(&*long)),
        (String::new(), long.clone())
    );
}

/// Of text that is nothing but marks in any order, and pieces of them, each character that is no mark comes out.
#[test]
fn no_text_is_lost() {
    let pieces = [
        "<think>",
        "</think>",
        "<|channel|>",
        "analysis",
        "<|message|>",
        "<|end|>",
        "<|start|>",
        "assistant",
        "x",
        "<|",
        "[THINK]",
        "[/THINK]",
        " z ",
        "\n",
        "<response>",
        "<|channel>thought",
        "<channel|>",
        "<",
    ];
    let templates = [
        "<think>",
        "[THINK]",
        "<|start|> <|message|>",
        "<|channel>",
        "<think> <response>",
    ];
    let mut state = 1u64;
    for _ in 0..3000 {
        let mut text = String::new();
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text += pieces[(state >> 33) as usize % pieces.len()];
        }
        for template in templates {
            for prompt in ["", "<think>"] {
                let reasoning = Reasoning::of(template, prompt);
                let whole = split(&reasoning, std::iter::once(&*text));
                let each: Vec<String> = text.chars().map(String::from).collect();
                let cut = split(&reasoning, each.iter().map(String::as_str));
                assert_eq!(whole, cut, "{template} {text:?}");
                for kept in ["x", "z"] {
                    let count = |text: &str| text.matches(kept).count();
                    assert_eq!(
                        count(&whole.0) + count(&whole.1),
                        count(&text),
                        "{template} {text:?}: {whole:?}"
                    );
                }
            }
        }
    }
}
