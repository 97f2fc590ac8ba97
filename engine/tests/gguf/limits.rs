//! One test per limit: what is at it passes, what is over it is refused by that limit.

use twinfer_engine::Error;
use twinfer_engine::gguf::{Gguf, Limits};

use crate::build::*;

fn default() -> Limits {
    Limits::default()
}

/// `file` passes under `at` and is refused under `below` with a limit's error that holds `part`.
fn limited(file: &File, at: Limits, below: Limits, part: &str) {
    let bytes = file.bytes();
    assert!(Gguf::parse_with(&bytes, at).is_ok());
    match Gguf::parse_with(&bytes, below) {
        Err(Error::ModelLimit { what, found, limit }) => {
            assert!(what.contains(part), "{what}");
            assert!(found > limit);
        }
        other => panic!("{part}: {other:?}"),
    }
}

#[test]
fn header_bytes() {
    let file = sample(3);
    let at = file.header().len() as u64;
    let with = |header_bytes| Limits {
        header_bytes,
        ..default()
    };
    limited(&file, with(at), with(at - 1), "the header's size");
    limited(&file, with(at), with(30), "the header's size");
}

#[test]
fn keys() {
    let with = |keys| Limits { keys, ..default() };
    limited(&sample(3), with(19), with(18), "the number of metadata keys");
}

#[test]
fn key_bytes() {
    let with = |key_bytes| Limits {
        key_bytes,
        ..default()
    };
    limited(
        &file().u32("twelve.bytes", 1),
        with(12),
        with(11),
        "the length of a metadata key",
    );
    let long = "k".repeat(65535);
    assert!(file().u32(&long, 1).parse().is_ok());
    refused(
        &file().u32(&format!("{long}k"), 1),
        "the length of a metadata key",
    );
}

#[test]
fn array_depth() {
    let with = |array_depth| Limits {
        array_depth,
        ..default()
    };
    limited(&sample(3), with(2), with(1), "the depth of nested arrays");
}

#[test]
fn tensors() {
    let with = |tensors| Limits { tensors, ..default() };
    limited(&sample(3), with(2), with(1), "the number of tensors");
}

#[test]
fn tensor_name_bytes() {
    let with = |tensor_name_bytes| Limits {
        tensor_name_bytes,
        ..default()
    };
    limited(&sample(3), with(8), with(7), "the length of a tensor's name");
}

#[test]
fn alignment() {
    let with = |alignment| Limits {
        alignment,
        ..default()
    };
    let bytes = file().u32("general.alignment", 64).bytes();
    assert!(Gguf::parse_with(&bytes, with(64)).is_ok());
    let error = Gguf::parse_with(&bytes, with(32)).expect_err("over the limit");
    assert!(error.to_string().contains("a power of two up to 32"), "{error}");
}

/// The largest directory that the defaults allow takes memory in proportion to its bytes, and no long time.
#[test]
fn a_directory_at_the_limit() {
    let n = default().tensors;
    let mut file = file();
    for i in 0..n {
        file = file.tensor(i.to_string(), &[1], 24, i * 32);
    }
    let bytes = file.data(32 * n as usize).bytes();
    let (result, cost) = crate::memory::measure(|| Gguf::parse(&bytes));
    assert_eq!(result.map(|gguf| gguf.tensors().len() as u64), Ok(n));
    println!("gguf: {n} tensors in {:?}, peak {} bytes", cost.time, cost.peak);
    assert!(cost.peak < 64 << 20, "{}", cost.peak);
    assert!(cost.time.as_secs() < 5, "{:?}", cost.time);
}
