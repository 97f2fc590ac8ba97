//! `embed` and `rerank`, on reference models that are no part of the project; and what they refuse.

use crate::support::{Directory, shared, twinfer, twinfer_with};

fn floats(bytes: &[u8]) -> Vec<f32> {
    let chunks = bytes.as_chunks::<4>().0.iter();
    chunks.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn vectors_in_three_formats() {
    let Some(model) = shared("reference/minilm/all-MiniLM-L6-v2-F16.gguf") else {
        return;
    };
    let texts = ["Someone eats noodles at home.", "Naïve café"];
    fn of<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["embed", "-m", model, "--normalize"], more].concat()
    }
    let json = twinfer(&of(&model, &texts)).json();
    assert_eq!(json["object"], "list");
    assert_eq!(json["usage"]["prompt_tokens"], 8 + 4);
    let raw = twinfer_with(
        &of(&model, &["-o", "f32", "-t", "1", "-b", "9"]),
        texts.join("\n").as_bytes(),
    )
    .ok();
    let values = floats(&raw.out);
    assert_eq!(values.len(), 2 * 384);
    for (i, vector) in values.chunks(384).enumerate() {
        let shown = json["data"][i]["embedding"].as_array().unwrap();
        let shown: Vec<f32> = shown.iter().map(|x| x.as_f64().unwrap() as f32).collect();
        assert_eq!((shown.as_slice(), &json["data"][i]["index"]), (vector, &i.into()));
        let squares: f32 = vector.iter().map(|x| x * x).sum();
        assert!((squares - 1.0).abs() < 1e-5);
    }
    let npy = twinfer(&of(&model, &[&texts[..], &["-o", "npy"]].concat())).ok();
    assert_eq!(npy.out[..8], *b"\x93NUMPY\x01\0");
    assert!(npy.out.ends_with(&raw.out));
    // Ids as they are, and a vector for each.
    let ids = [
        "--pooling",
        "none",
        "--tokens",
        "101,2619,102",
        "--tokens",
        "[101 102]",
    ];
    let json = twinfer(&of(&model, &ids)).json();
    assert_eq!(json["data"][0]["embedding"].as_array().unwrap().len(), 3);
    assert_eq!(json["data"][1]["embedding"][1].as_array().unwrap().len(), 384);
    println!(
        "embed: {} numbers are the same in JSON, npy and f32",
        values.len()
    );
}

#[test]
fn an_encoder_writes_no_text() {
    let Some(model) = shared("reference/archs/bert-mean-a.gguf") else {
        return;
    };
    for command in [
        &["run", "-m", &*model, "Hello"][..],
        &["eval", "-m", &model, "--tokens", "5,6"],
        &["perplexity", "-m", &model, "-f", "-"],
        // It has no template either, and one would not help.
        &["chat", "-m", &model],
    ] {
        let run = twinfer_with(command, b"Hello");
        assert_eq!(run.code, 1, "{command:?}");
        assert!(run.err.contains("`twinfer embed` runs it"), "{}", run.err);
    }
    let inspected = twinfer(&["inspect", "-m", &model]).ok();
    assert!(
        inspected
            .text()
            .contains("makes a vector of 64 of a text: pooling mean")
    );
    let json = twinfer(&["inspect", "-m", &model, "--json"]).json();
    assert_eq!(json["vectors"]["pooling"], "mean");
    let long = (0..200).map(|_| "7").collect::<Vec<_>>().join(",");
    let of = |size| twinfer(&["embed", "-m", &model, "--tokens", &long, "-c", size]).err;
    for (size, fit, advice) in [
        ("0", 128, "the model has no more positions"),
        ("256", 128, "the model has no more positions"),
        ("64", 64, "raise --ctx-size"),
    ] {
        let said = of(size);
        let expected = format!("text 1 has 200 tokens, and {fit} fit: {advice}");
        assert!(said.contains(&expected), "{said}");
        let note = said.contains("the model has 128 positions, and a text can have no more tokens");
        assert_eq!(note, size == "256", "{said}");
    }
}

/// An encoder's speed is that of texts which vectors are made of.
#[test]
fn an_encoder_is_timed() {
    let Some(model) = shared("reference/archs/bert-mean-a.gguf") else {
        return;
    };
    let bench = |more: &[&str]| twinfer(&[&["bench", "-m", &model, "-r", "1"], more].concat());
    let json = bench(&["-p", "20,33", "--parallel", "1,70", "-o", "json"]).json();
    let tests: Vec<&str> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|test| test["test"].as_str().unwrap())
        .collect();
    assert_eq!(tests, ["em20", "em20 x 70", "em33", "em33 x 70"]);
    // 70 texts of 33 tokens, 15 of them in a pass of 512.
    assert_eq!(json[3]["stage"]["passes"], 5, "{json}");
    assert!(json[3]["avg_ts"].as_f64().unwrap() > 0.0);
    for (options, wrong) in [
        (&["-p", "0"][..], "`-p 0`"),
        (&["-d", "64"], "`-d`"),
        (&["--long", "20"], "`--long`"),
    ] {
        let run = bench(options);
        assert_eq!(run.code, 1, "{options:?}");
        for part in ["is an encoder", wrong, "--parallel N"] {
            assert!(run.err.contains(part), "{part}: {}", run.err);
        }
    }
}

/// An encoder is a shape like others: to measure, to make a file of, to estimate.
#[test]
fn an_encoders_shape() {
    let directory = Directory::new("encoder-shape");
    let model = directory.file("m.gguf");
    let measured = twinfer(&[
        "bench",
        "--shape",
        "all-minilm",
        "-p",
        "16",
        "-r",
        "1",
        "--no-limits",
    ])
    .ok();
    assert!(measured.text().contains("| em16 |"), "{}", measured.text());
    let refused = twinfer(&["bench", "--shape", "all-minilm", "-d", "1", "-o", &model]);
    assert_eq!(refused.code, 1);
    assert!(!std::path::Path::new(&model).exists());
    twinfer(&[
        "bench",
        "--shape",
        "all-minilm",
        "-p",
        "0",
        "-n",
        "0",
        "-o",
        &model,
    ])
    .ok();
    let json = twinfer(&["embed", "-m", &model, "Hello"]).json();
    assert_eq!(json["data"][0]["embedding"].as_array().unwrap().len(), 384);

    let doctor = |more: &[&str]| twinfer(&[&["doctor", "--shape", "all-minilm"], more].concat()).ok();
    let text = doctor(&[]);
    for part in ["22.53 M parameters", "tokens/s of texts of 512 tokens"] {
        assert!(text.text().contains(part), "{part}: {}", text.text());
    }
    assert!(!text.text().contains("written"), "{}", text.text());
    let machines = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/machines");
    let machine = std::fs::read_dir(machines)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let machine = ["--machine", machine.to_str().unwrap()];
    let text = doctor(&machine);
    assert!(
        text.text().contains("| pp512: reads ms |") && !text.text().contains("tg"),
        "{}",
        text.text()
    );
    let json = doctor(&[&machine[..], &["--json"]].concat()).json();
    assert!(json["modes"][0]["prompt_tokens_per_second"].as_f64() > Some(0.0));
    assert!(json["modes"][0]["generated_tokens_per_second"].is_null());
}

#[test]
fn documents_by_score() {
    let Some(model) = shared("reference/archs/qwen3-rerank-a.gguf") else {
        return;
    };
    let documents = ["the cat", "a dog", "some bird"];
    fn of<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["rerank", "-m", model, "--query", "pet"], more].concat()
    }
    let json = twinfer(&of(&model, &[&documents[..], &["--json"]].concat())).json();
    let results = json["results"].as_array().unwrap();
    let score = |i: usize| results[i]["relevance_score"].as_f64().unwrap();
    assert!(results.len() == 3 && score(0) >= score(1) && score(1) >= score(2));
    let listed = twinfer_with(&of(&model, &["--top-n", "1"]), documents.join("\n").as_bytes()).ok();
    let best = results[0]["index"].as_u64().unwrap() as usize;
    assert!(
        listed.text().trim_end().ends_with(documents[best]),
        "{}",
        listed.text()
    );
    assert_eq!(listed.text().lines().count(), 1);
    // Each document is a line of the list, whatever is in it.
    let odd = twinfer(&of(&model, &["a\tb\nc\x1b[31m"])).ok();
    assert!(odd.text().ends_with("  0  a b c [31m\n"), "{}", odd.text());
    let short = ["rerank", "-m", &model, "-q", "pet", "--top-n", "1"];
    assert_eq!(
        twinfer_with(&short, documents.join("\n").as_bytes()).ok().out,
        listed.out
    );
}

#[test]
fn a_decoder_makes_vectors_when_it_is_told_how() {
    let run = twinfer(&["embed", "Once upon a time"]);
    assert!(run.err.contains("choose --pooling"), "{}", run.err);
    let json = twinfer(&["embed", "--pooling", "last", "Once upon a time", "Once"]).json();
    assert_eq!(json["data"].as_array().unwrap().len(), 2);
    // A text of several passes has the vector that it has in one.
    let long = "Once upon a time there was a dog. ".repeat(20);
    let vector = |batch: &str| {
        twinfer(&["embed", "--pooling", "last", "-o", "f32", "-b", batch, &long])
            .ok()
            .out
    };
    assert!(vector("512") == vector("16"));
    for refused in [
        &["rerank", "--query", "x", "y"][..],
        &["embed", "--pooling", "rank", "x"],
    ] {
        let run = twinfer(refused);
        assert_eq!(run.code, 1);
        assert!(run.err.contains("no reranker"), "{}", run.err);
    }
}
