//! Commands about models: eval, inspect, quantize, perplexity, bench; split files; reference models.

use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{Directory, twinfer};

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
    // Several texts, whose chunks share passes: each has the perplexity that it has alone.
    let both = twinfer(&[
        "perplexity",
        "-f",
        &text,
        "-f",
        &text,
        "--ctx-size",
        "64",
        "--json",
    ])
    .json();
    for one in both["texts"].as_array().unwrap() {
        assert_eq!(one["perplexity"], score["perplexity"]);
    }
    assert_eq!(
        both["scored"].as_u64().unwrap(),
        2 * score["scored"].as_u64().unwrap()
    );
    let lines = twinfer(&["perplexity", "-f", &text, "-f", &text, "--ctx-size", "32"]).ok();
    assert!(
        lines
            .text()
            .lines()
            .last()
            .unwrap()
            .starts_with("all: perplexity "),
        "{}",
        lines.text()
    );
    // Lines share passes, also where one does not fit what is left of it: each has the digest that it has alone.
    let lines = [
        "Once upon a time",
        "a",
        "there was a little girl who lived in a house near the wood",
    ];
    let list = directory.file("lines.txt");
    std::fs::write(&list, lines.join("\n")).unwrap();
    let found = twinfer(&["eval", "--texts", &list, "--batch-size", "7", "--json"]).json();
    for (i, line) in lines.iter().enumerate() {
        let alone = twinfer(&["eval", "--prompt", line, "--json"]).json();
        assert_eq!(found["texts"][i]["sha256"], alone["sha256"], "{line}");
    }
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
    assert!(table.text().contains(" pp8 |"), "{}", table.text());
    assert!(
        twinfer(&["bench", "--shape", "list"])
            .ok()
            .text()
            .contains("llama-3.2-1b")
    );
}

/// Writes a split copy of a model in two parts, and gives the second part's path.
fn split(model: &Path, directory: &Directory) -> String {
    use twinfer_engine::gguf::{Metadata, ModelFile, TensorSpec, Value, Writer};
    use twinfer_engine::memory::Bytes;
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
        let specs: Vec<TensorSpec> = part.iter().map(TensorSpec::from).collect();
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
