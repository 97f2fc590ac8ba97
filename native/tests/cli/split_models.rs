//! Split models as people have them: a part that is damaged, missing, renamed or of another model, parts joined with
//! `cat`, raw pieces. Each message names the file that is at fault and what to do.

use std::fs;

use twinfer_engine::gguf::{Metadata, TensorSpec, Value, Writer};
use twinfer_engine::quant::GgmlType;

use crate::support::{Directory, shared, twinfer};

/// Part `no` (from 0) of 3 of a model of this architecture.
fn part(no: u32, architecture: &str) -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.insert("split.no", Value::U16(no as u16));
    metadata.insert("split.count", Value::U16(3));
    metadata.insert("split.tensors.count", Value::I32(3));
    metadata.insert("general.architecture", Value::String(architecture.into()));
    let spec = TensorSpec {
        name: format!("t{no}"),
        ty: GgmlType::F32,
        shape: vec![8],
    };
    let mut writer = Writer::new(Vec::new(), &metadata, std::slice::from_ref(&spec)).unwrap();
    writer.write_tensor(&spec.name, &[0; 32]).unwrap();
    writer.finish().unwrap()
}

/// A directory with the three parts, named `m-0000N-of-00003.gguf`.
fn parts(name: &str) -> Directory {
    let directory = Directory::new(name);
    for no in 0..3 {
        fs::write(directory.file(&named(no + 1)), part(no, "llama")).unwrap();
    }
    directory
}

fn named(no: u32) -> String {
    format!("m-{no:05}-of-00003.gguf")
}

/// What `inspect` says of the file, which it must refuse in one line.
#[track_caller]
fn refused(path: &str) -> String {
    let run = twinfer(&["inspect", path]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    run.err
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn the_damaged_part_is_named() {
    let directory = parts("split-damaged");
    twinfer(&["inspect", &directory.file(&named(1))]).ok();
    for no in 1..=3 {
        let path = directory.file(&named(no));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 40]).unwrap();
        // Whichever part is given.
        for given in 1..=3 {
            says(&refused(&directory.file(&named(given))), &[&named(no)]);
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_missing_part_is_named() {
    let directory = parts("split-missing");
    fs::remove_file(directory.file(&named(2))).unwrap();
    says(
        &refused(&directory.file(&named(1))),
        &["part 2 of 3 is missing", &named(2), "one directory"],
    );
}

#[test]
fn renamed_parts_are_told() {
    let directory = parts("split-renamed");
    // Parts that have changed their names.
    fs::rename(directory.file(&named(2)), directory.file("x")).unwrap();
    fs::rename(directory.file(&named(3)), directory.file(&named(2))).unwrap();
    fs::rename(directory.file("x"), directory.file(&named(3))).unwrap();
    says(
        &refused(&directory.file(&named(1))),
        &[&named(2), "it says that it is part 3 of 3", "renamed"],
    );
    // A name that is none of a part.
    fs::rename(directory.file(&named(1)), directory.file("first.gguf")).unwrap();
    says(
        &refused(&directory.file("first.gguf")),
        &[
            "first.gguf",
            "part 1",
            "split into 3 files",
            "NAME-00001-of-00003.gguf",
        ],
    );
}

#[test]
fn a_part_of_another_model_is_told() {
    let directory = parts("split-other");
    fs::write(directory.file(&named(3)), part(2, "qwen2")).unwrap();
    says(
        &refused(&directory.file(&named(1))),
        &[
            &named(3),
            "another model",
            "general.architecture",
            "qwen2",
            "llama",
        ],
    );
}

#[test]
fn parts_joined_with_cat_are_told() {
    let directory = Directory::new("split-cat");
    let path = directory.file("m.gguf");
    fs::write(&path, [0, 1, 2].map(|no| part(no, "llama")).concat()).unwrap();
    says(
        &refused(&path),
        &["m.gguf", "`cat`", "NAME-00001-of-00003.gguf", "--merge"],
    );
}

#[test]
fn raw_pieces_are_told() {
    let directory = Directory::new("split-raw");
    let whole = part(0, "llama");
    let (first, second) = whole.split_at(whole.len() / 2);
    for (one, two) in [
        ("m.gguf.part1of2", "m.gguf.part2of2"),
        ("m.gguf-split-a", "m.gguf-split-b"),
        ("m.gguf.aa", "m.gguf.ab"),
        ("m.gguf.001", "m.gguf.002"),
    ] {
        fs::write(directory.file(one), first).unwrap();
        fs::write(directory.file(two), second).unwrap();
        for piece in [one, two] {
            says(
                &refused(&directory.file(piece)),
                &[piece, "a piece of `m.gguf`", "cat"],
            );
        }
    }
}

#[test]
fn a_whole_model_may_have_the_name_of_a_part() {
    let directory = Directory::new("split-whole");
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/demo/twinfer-demo-q4_k_m.gguf"
    );
    let path = directory.file("m-00001-of-00002.gguf");
    fs::copy(model, &path).unwrap();
    twinfer(&["inspect", &path]).ok();
}

#[test]
fn inputs_that_users_met() {
    let cases: [(&str, &[&str]); 4] = [
        (
            "damaged-part2-00001-of-00003.gguf",
            &["damaged-part2-00002-of-00003.gguf"],
        ),
        (
            "cat-merged-shards.gguf",
            &["joined with `cat`", "NAME-00001-of-00003.gguf"],
        ),
        ("raw-split.gguf.part1of2", &["a piece of `raw-split.gguf`", "cat"]),
        ("raw-split.gguf.part2of2", &["a piece of `raw-split.gguf`", "cat"]),
    ];
    for (name, parts) in cases {
        let Some(path) = shared(&format!("cases/{name}")) else {
            return;
        };
        says(&refused(&path), parts);
    }
    // A bad special id counts as absent: the text is that of the file without it, with one note.
    let Some(good) = shared("cases/special-id-eos-n_vocab.gguf") else {
        return;
    };
    let run = twinfer(&["run", "-m", &good, "-n", "4", "-s", "1", "ab"]).ok();
    assert_eq!(
        run.err.matches("note: `tokenizer.ggml.eos_token_id`").count(),
        1,
        "{}",
        run.err
    );
    let run = twinfer(&["run", "-q", "-m", &good, "-n", "4", "-s", "1", "ab"]).ok();
    assert!(!run.err.contains("note"), "{}", run.err);
}
