//! What a model thinks: `batch` gives what `run --chat` prints, also where the marks of thinking are control tokens.

use std::path::Path;

use serde_json::{Value, json};
use twinfer_engine::gguf::{Array, ModelFile, TensorSpec, Value as Metadatum, Writer};
use twinfer_engine::memory::Bytes;

use crate::support::{Directory, twinfer, twinfer_with};

/// A model of random weights whose last tokens are these marks.
fn model_with(directory: &Directory, marks: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/vectors/gpt-oss.gguf");
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    let mut metadata = file.metadata().clone();
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let (Some(Metadatum::Array(Array::Strings(texts))), Some(Metadatum::Array(Array::I32(types)))) =
        (metadata.get(&key("tokens")), metadata.get(&key("token_type")))
    else {
        panic!("{:?}", metadata.get(&key("token_type")));
    };
    let (mut texts, mut types) = (texts.clone(), types.clone());
    let first = texts.len() - marks.len();
    for (i, mark) in marks.iter().enumerate() {
        texts[first + i] = mark.as_bytes().into();
        // A control token.
        types[first + i] = 3;
    }
    metadata.insert(key("tokens"), Metadatum::Array(Array::Strings(texts)));
    metadata.insert(key("token_type"), Metadatum::Array(Array::I32(types)));
    let specs: Vec<TensorSpec> = file.tensors().map(TensorSpec::from).collect();
    let path = directory.file("marks.gguf");
    let mut writer = Writer::new(std::fs::File::create(&path).unwrap(), &metadata, &specs).unwrap();
    for spec in &specs {
        writer
            .write_tensor(&spec.name, &file.tensor_bytes(&spec.name).unwrap())
            .unwrap();
    }
    writer.finish().unwrap();
    path
}

#[test]
fn batch_gives_what_run_prints() {
    let directory = Directory::new("thinking");
    let of_messages = "{% for m in messages %}{{ m.content }}{% endfor %}";
    for (marks, template) in [
        // gpt-oss's.
        (
            &["<|start|>", "<|channel|>", "<|message|>", "<|end|>"][..],
            format!("<|start|>user<|message|>{of_messages}<|end|><|start|>assistant"),
        ),
        // Mistral's; the prompt has begun a thought with one, and not with the other.
        (&["[THINK]", "[/THINK]"], format!("{of_messages}[THINK]")),
        (&["[THINK]", "[/THINK]"], format!("[THINK]a[/THINK]{of_messages}")),
        // No token, so the model does not write it.
        (&[], format!("{of_messages}<think>")),
    ] {
        let model = model_with(&directory, marks);
        let path = directory.file("t.jinja");
        std::fs::write(&path, &template).unwrap();
        let options = [
            &["-m", &model, "--template", &path, "-n", "80"][..],
            &["--temp", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0"],
        ]
        .concat();
        let run = |seed: u64, more: &[&str]| {
            let seed = seed.to_string();
            let of_line = ["run", "--chat", "-q", "-p", "abc", "--seed", &seed];
            let run = twinfer(&[&of_line[..], &options[..], more].concat()).ok();
            run.text().trim_end_matches('\n').to_owned()
        };
        let (mut shown, mut thought) = (0, 0);
        let lines = |line: &dyn Fn(u64) -> Value| -> Vec<Value> {
            let lines: String = (0..12).map(|seed| format!("{}\n", line(seed))).collect();
            let batch = ["batch", "-", "-o", "-", "-q"];
            let answers = twinfer_with(&[&batch[..], &options[..]].concat(), lines.as_bytes()).ok();
            let answers = answers
                .text()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap());
            answers.collect()
        };
        let messages = json!([{"role": "user", "content": "abc"}]);
        let own = lines(&|seed| json!({"messages": messages, "seed": seed}));
        let openai = lines(&|seed| {
            let body = json!({"messages": messages, "seed": seed});
            let id = seed.to_string();
            json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body})
        });
        for (seed, (own, openai)) in own.iter().zip(&openai).enumerate() {
            let seed = seed as u64;
            let text = own["text"].as_str().unwrap();
            assert_eq!(text.trim_end_matches('\n'), run(seed, &[]), "{template} {seed}");
            shown += marks.iter().filter(|mark| text.contains(**mark)).count();
            let message = &openai["response"]["body"]["choices"][0]["message"];
            let said = message["content"].as_str().unwrap();
            assert_eq!(
                said.trim_end_matches('\n'),
                run(seed, &["--hide-thinking"]),
                "{template} {seed}"
            );
            if let Some(thinking) = message.get("reasoning_content") {
                assert_ne!(thinking, "");
                thought += 1;
            }
        }
        assert_eq!(shown > 0, !marks.is_empty(), "{template}");
        assert!(thought > 0 || !template.contains("THINK"), "{template}");
    }
}
