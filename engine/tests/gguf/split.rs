//! Models in several files, and bytes shared without copying.

use std::sync::Arc;

use twinfer_engine::Error;
use twinfer_engine::error::Class;
use twinfer_engine::gguf::{GgufSet, ModelFile, split};
use twinfer_engine::memory::Bytes;

use crate::build::{File, U16, file};

/// Part `no` of `count`, with one tensor of its own.
fn part(no: u16, count: u16, total: u32) -> File {
    let base = file()
        .key("split.no", U16, no.to_le_bytes())
        .key("split.count", U16, count.to_le_bytes())
        .key("split.tensors.count", 5, total.to_le_bytes());
    let base = if no == 0 {
        base.text("general.architecture", "llama")
            .u32("llama.block_count", 3)
    } else {
        base
    };
    base.tensor(format!("t{no}"), &[32], 24, 0).data(32)
}

fn load(parts: &[File]) -> Result<ModelFile, Error> {
    ModelFile::from_parts(parts.iter().map(|part| Bytes::from_vec(part.bytes())).collect())
}

fn message(parts: &[File]) -> String {
    message_of(parts.iter().map(File::bytes).collect())
}

fn message_of(parts: Vec<Vec<u8>>) -> String {
    // No file at all is the caller's mistake, not a file's.
    let class = if parts.is_empty() {
        Class::Request
    } else {
        Class::Model
    };
    let error =
        ModelFile::from_parts(parts.into_iter().map(Bytes::from_vec).collect()).expect_err("a bad set");
    assert_eq!(error.class(), class, "{error}");
    error.to_string()
}

#[test]
fn names() {
    let name = split::parse_name("dir/llama-00002-of-00010.gguf").expect("a split name");
    assert_eq!((name.prefix.as_str(), name.no, name.count), ("dir/llama", 2, 10));
    assert_eq!(name.part(3), "dir/llama-00003-of-00010.gguf");
    assert_eq!(name.parts().count(), 10);
    assert_eq!(
        name.parts().nth(1).as_deref(),
        Some("dir/llama-00002-of-00010.gguf")
    );
    for bad in [
        "llama.gguf",
        "llama-00001-of-00003.bin",
        "llama-0001-of-0003.gguf",
        "llama-00000-of-00003.gguf",
        "llama-00004-of-00003.gguf",
        "llama-00001-of-00000.gguf",
        "llama-0000a-of-00003.gguf",
        "llama-+0001-of-00003.gguf",
        "-00001-of-00003.gguf",
        "00001-of-00003.gguf",
        "-of-.gguf",
        "",
    ] {
        assert_eq!(split::parse_name(bad), None, "{bad}");
    }
}

#[test]
fn three_parts_make_a_model() {
    let model = load(&[part(0, 3, 3), part(1, 3, 3), part(2, 3, 3)]).expect("a model");
    assert_eq!(model.metadata().u32("llama.block_count"), Ok(3));
    assert_eq!(model.set().n_tensors(), 3);
    let names: Vec<_> = model.tensors().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["t0", "t1", "t2"]);
    for (i, name) in ["t0", "t1", "t2"].iter().enumerate() {
        assert_eq!(model.set().tensor(name).map(|(part, _)| part), Some(i));
        assert_eq!(*model.tensor_bytes(name).expect("data"), [0x5a; 32]);
    }
    assert!(model.tensor_bytes("t3").is_err());
}

#[test]
fn one_file_is_a_set_of_one() {
    assert!(load(&[file().tensor("t", &[32], 24, 0).data(32)]).is_ok());
    // What merging leaves behind.
    assert!(load(&[part(0, 0, 1)]).is_ok());
    assert!(load(&[part(0, 1, 1)]).is_ok());
}

#[test]
fn parts_that_do_not_fit() {
    let (a, b, c) = (part(0, 3, 3), part(1, 3, 3), part(2, 3, 3));
    assert!(message(&[]).contains("at least one file"));
    let alone = |part: &File, no: usize| {
        let message = message(std::slice::from_ref(part));
        assert!(
            message.contains(&format!("it is part {no} of a model that is split into 3 files")),
            "{message}"
        );
        assert!(
            message.contains("NAME-00001-of-00003.gguf to NAME-00003-of-00003.gguf"),
            "{message}"
        );
    };
    alone(&a, 1);
    alone(&b, 2);
    assert!(message(&[a.clone(), b.clone()]).contains("split into 3 files, but 2 are given"));
    let swapped = message(&[a.clone(), c.clone(), b.clone()]);
    assert!(
        swapped.starts_with("part 2 of 3: it says that it is part 3 of 3: it was renamed"),
        "{swapped}"
    );
    assert!(
        message(&[b.clone(), a.clone(), c.clone()]).starts_with("part 1 of 3: it says that it is part 2")
    );
    assert!(
        message(&[a.clone(), b.clone(), b.clone()]).starts_with("part 3 of 3: it says that it is part 2")
    );
    assert!(
        message(&[a.clone(), b.clone(), part(2, 4, 3)])
            .contains("part 3 of 3: it says that it is part 3 of 4")
    );
    let total = message(&[part(0, 3, 4), b.clone(), c.clone()]);
    assert!(
        total.contains("hold 3 tensors together, the first one says 4 (`split.tensors.count`)"),
        "{total}"
    );
    let again = c.clone().tensor("t0", &[32], 24, 32).data(64);
    assert!(
        message(&[part(0, 3, 4), b.clone(), again])
            .starts_with("part 3 of 3: tensor `t0`: it is in part 1 as well")
    );
    let plain = file().tensor("t1", &[32], 24, 0).data(32);
    assert!(message(&[a.clone(), plain, c.clone()]).starts_with("part 2 of 3: it is a model of one file"));
    let huge = file().u32("split.count", u32::MAX);
    assert!(message(&[huge]).contains("split into 4294967295 files"));
    let not_a_number = file().text("split.count", "3");
    assert!(message(&[not_a_number]).contains("`split.count`: expected an unsigned integer"));
}

#[test]
fn the_damaged_part_is_named() {
    let parts = [part(0, 3, 3), part(1, 3, 3), part(2, 3, 3)].map(|part| part.bytes());
    for damaged in 0..3 {
        for keep in [0, 3, 10, parts[damaged].len() - 1] {
            let mut parts = parts.clone();
            parts[damaged].truncate(keep);
            let message = message_of(parts.into());
            assert!(
                message.starts_with(&format!("part {} of 3: ", damaged + 1)),
                "{message}"
            );
        }
    }
    // A model of one file has no parts to name.
    let mut whole = file().tensor("t", &[32], 24, 0).data(32).bytes();
    whole.truncate(20);
    assert!(!message_of(vec![whole]).starts_with("part"));
}

#[test]
fn parts_joined_with_cat_are_recognised() {
    let parts = [part(0, 3, 3), part(1, 3, 3), part(2, 3, 3)].map(|part| part.bytes());
    for joined in [parts.concat(), parts[..2].concat(), parts[1..].concat()] {
        let message = message_of(vec![joined]);
        assert!(
            message.contains("joined with `cat`") && message.contains("--merge"),
            "{message}"
        );
    }
}

#[test]
fn raw_pieces_are_told_by_their_names() {
    for (name, whole) in [
        ("m.gguf.part1of2", "m.gguf"),
        ("m.Q8_0.gguf.part2of12", "m.Q8_0.gguf"),
        ("m.gguf-split-a", "m.gguf"),
        ("m.gguf-split-b", "m.gguf"),
        ("m.gguf.part-a", "m.gguf"),
        ("m.gguf.part_ab", "m.gguf"),
        ("m.gguf.aa", "m.gguf"),
        ("m.gguf.001", "m.gguf"),
        ("m.gguf.part01", "m.gguf"),
        ("m.gguf.part", ""),
        ("M.GGUF.Part1of2", "M.GGUF"),
        ("m.gguf.1of3", "m.gguf"),
        ("m.gguf-00001-of-00003", "m.gguf"),
        ("m.gguf", ""),
        ("m-00001-of-00003.gguf", ""),
        ("m.gguf.bak", ""),
        ("m.gguf.old", ""),
        ("m.gguf.gz", ""),
        ("m.gguf.tmp", ""),
        ("m.part1of2", ""),
        ("", ""),
    ] {
        assert_eq!(split::raw_piece_of(name).unwrap_or_default(), whole, "{name}");
    }
}

#[test]
fn parts_of_different_models() {
    let a = part(0, 2, 2);
    assert!(load(&[a.clone(), part(1, 2, 2).text("general.architecture", "llama")]).is_ok());
    assert!(load(&[a.clone(), part(1, 2, 2).u32("llama.block_count", 3)]).is_ok());
    assert!(load(&[a.clone(), part(1, 2, 2).text("general.name", "part two")]).is_ok());
    let refused = |other: File, what: &str| {
        let message = message(&[a.clone(), other]);
        assert!(
            message.starts_with("part 2 of 2: it is a part of another model"),
            "{message}"
        );
        assert!(message.contains(what), "{message}");
    };
    refused(
        part(1, 2, 2).text("general.architecture", "qwen2"),
        "string \"qwen2\" here and string \"llama\" in part 1",
    );
    refused(
        part(1, 2, 2).u32("llama.block_count", 4),
        "u32 4 here and u32 3 in part 1",
    );
    refused(
        part(1, 2, 2).u32("llama.rope.dimension_count", 4),
        "absent in part 1",
    );
}

#[test]
fn a_set_without_bytes() {
    let headers = [part(0, 2, 2), part(1, 2, 2)].map(|part| part.parse().expect("a header"));
    let set = GgufSet::new(headers.into()).expect("a set");
    assert_eq!(
        set.tensors()
            .map(|(part, tensor)| (part, tensor.name.as_str()))
            .collect::<Vec<_>>(),
        [(0, "t0"), (1, "t1")]
    );
}

#[test]
fn bytes_are_shared() {
    struct Owner(Arc<Vec<u8>>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let data = Arc::new(vec![0, 1, 2, 3, 4, 5, 6, 7]);
    let bytes = Bytes::from_owner(Owner(Arc::clone(&data)));
    let part = bytes.slice(2..6).expect("inside");
    assert_eq!(*part, [2, 3, 4, 5]);
    assert_eq!(part.as_ptr(), data[2..].as_ptr());
    assert_eq!(*part.slice(1..3).expect("inside"), [3, 4]);
    assert_eq!(*part.slice(4..4).expect("empty at the end"), [0u8; 0]);
    for (start, end) in [(0, 5), (5, 5), (3, 2), (0, usize::MAX), (usize::MAX, usize::MAX)] {
        assert!(part.slice(start..end).is_err(), "{start}..{end}");
    }
    drop(bytes);
    assert_eq!(Arc::strong_count(&data), 2);
    drop(part);
    assert_eq!(Arc::strong_count(&data), 1);
    assert_eq!(*Bytes::from_static(b"abc").slice(1..2).expect("inside"), *b"b");
}
