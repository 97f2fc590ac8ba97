//! Headers made to break a parser, one fault each.
//!
//! The faults follow what GGUF readers were attacked with: counts multiplied by sizes until they wrap, lengths near
//! 2^64, sizes that wrap when padded, element types out of range, nesting, offsets that wrap into the header.

use twinfer_engine::gguf::Gguf;

use crate::build::*;
use crate::memory::measure;

/// 2^64 / n, rounded up: the least count whose bytes wrap when an element has n.
fn wraps(size: u64) -> u64 {
    u64::MAX / size + 1
}

#[test]
fn the_sample_is_sound() {
    for version in [1, 2, 3] {
        let gguf = sample(version)
            .parse()
            .unwrap_or_else(|error| panic!("{version}: {error}"));
        assert_eq!(
            (gguf.version(), gguf.metadata().len(), gguf.tensors().len()),
            (version, 19, 2)
        );
        assert_eq!(
            gguf.tensor("a.weight")
                .map(|t| (t.row_len(), t.n_rows(), t.bytes)),
            Some((32, 3, 102))
        );
        assert_eq!(
            gguf.tensor("b.weight")
                .map(|t| (t.row_len(), t.n_rows(), t.bytes)),
            Some((5, 1, 20))
        );
        assert!(gguf.tensor("c.weight").is_none());
    }
}

#[test]
fn counts_that_wrap_when_multiplied() {
    for (element, size) in [
        (U16, 2),
        (U32, 4),
        (F32, 4),
        (U64, 8),
        (F64, 8),
        (STRING, 8),
        (ARRAY, 12),
    ] {
        for count in [
            wraps(size),
            wraps(size) + 1,
            u64::MAX,
            u64::MAX / size,
            1 << 63,
            i64::MAX as u64,
        ] {
            refused(&file().array("x", element, count, [0; 64]), "`x` needs");
        }
    }
    for count in [u32::MAX as u64, 1 << 30, 1 << 31] {
        refused(&version(1).array("x", STRING, count, [0; 64]), "`x` needs");
        refused(&version(1).array("x", F64, count, [0; 64]), "`x` needs");
    }
}

#[test]
fn counts_one_larger_than_what_follows() {
    refused(&file().array("x", U8, 17, [0; 16]), "`x` needs");
    refused(&file().array("x", U64, 3, [0; 16]), "`x` needs");
    refused(&file().array("x", STRING, 3, [0; 16]), "`x` needs");
    refused(&sample(3).keys(20), "not a valid GGUF file");
    refused(&sample(3).tensors(3), "not a valid GGUF file");
    refused(&sample(1).keys(20), "not a valid GGUF file");
}

#[test]
fn counts_of_keys_and_tensors() {
    for count in [
        u64::MAX,
        i64::MAX as u64,
        wraps(14),
        wraps(33),
        1 << 32,
        1_000_000_000,
    ] {
        refused(&sample(3).keys(count), "the number of metadata keys");
        refused(&sample(3).tensors(count), "the number of tensors");
    }
    refused(&file().keys(1000), "0 tensors and 1000 metadata keys needs");
    refused(&file().tensors(1000), "1000 tensors and 0 metadata keys needs");
    refused(&version(1).keys(u32::MAX.into()), "the number of metadata keys");
}

#[test]
fn lengths_of_strings() {
    let word = |v: u64| file().word(v);
    for len in [
        u64::MAX,
        u64::MAX - 7,
        u64::MAX - 31,
        1 << 63,
        i64::MAX as u64,
        1 << 32,
        100,
    ] {
        refused(&file().raw_key(word(len)).raw_key([b'k'; 32]), "needs");
        refused(
            &file().key("x", STRING, [word(len), vec![b'v'; 32]].concat()),
            "`x` needs",
        );
        refused(
            &file().array(
                "x",
                STRING,
                2,
                [word(1), vec![b'v'], word(len), vec![0; 32]].concat(),
            ),
            "`x` needs",
        );
        let name = [word(len), vec![b't'; 64]].concat();
        refused(&file().tensors(1).raw_key(name).keys(0), "needs");
    }
}

#[test]
fn value_types() {
    for ty in [13, 14, 99, 255, 256, 1 << 31, u32::MAX] {
        refused(
            &file().key("x", ty, [0; 32]),
            "key `x`: expected a value type of 0 to 12",
        );
        refused(
            &file().array("x", ty, 1, [0; 32]),
            "key `x`: expected a value type of 0 to 12",
        );
        refused(
            &file().array("x", ty, 0, []),
            "key `x`: expected a value type of 0 to 12",
        );
        let inner = [ty.to_le_bytes().to_vec(), vec![0; 8]].concat();
        refused(
            &file().array("x", ARRAY, 1, inner),
            "key `x`: expected a value type of 0 to 12",
        );
    }
}

#[test]
fn bools() {
    refused(
        &file().key("x", BOOL, [2]),
        "key `x`: expected a bool of 0 or 1, found 2 (at byte 37)",
    );
    refused(&file().array("x", BOOL, 3, [0, 1, 255]), "found 255 (at byte 51)");
}

#[test]
fn nesting() {
    let nested = |depth: usize| {
        let f = file();
        let level = [ARRAY.to_le_bytes().to_vec(), f.word(1)].concat();
        let last = [U8.to_le_bytes().to_vec(), f.word(0)].concat();
        f.key("x", ARRAY, [level.repeat(depth - 1), last].concat())
    };
    assert!(nested(4).parse().is_ok());
    refused(&nested(5), "the depth of nested arrays of metadata key `x`");
    refused(&nested(100_000), "the depth of nested arrays of metadata key `x`");
    // Many empty arrays in one: wide is allowed, and stays in proportion.
    let f = file();
    let empty = [U8.to_le_bytes().to_vec(), f.word(0)].concat();
    let bytes = f.array("x", ARRAY, 50_000, empty.repeat(50_000)).bytes();
    let (result, cost) = measure(|| Gguf::parse(&bytes));
    assert!(result.is_ok());
    assert!(cost.peak < 12 * bytes.len(), "{} for {}", cost.peak, bytes.len());
}

#[test]
fn names_of_keys() {
    refused(
        &file().key("", U8, [0]),
        "expected a metadata key, found an empty string",
    );
    refused(&file().key(b"a\xff", U8, [0]), "is not UTF-8");
    refused(&file().key("a\0b", U8, [0]), "holds a control character");
    refused(&file().key("a\x1b[2J", U8, [0]), "holds a control character");
    refused(
        &file().u32("x", 1).u32("y", 2).u32("x", 1),
        "metadata key `x` is there twice",
    );
}

#[test]
fn names_of_tensors() {
    let one = |name: &[u8]| file().tensor(name, &[8], 0, 0).data(32);
    assert!(one(b"w").parse().is_ok());
    refused(&one(b""), "expected a tensor name, found an empty string");
    refused(&one(b"\xc3"), "is not UTF-8");
    refused(&one(b"a\nb"), "holds a control character");
    refused(
        &one(b"w").tensor("w", &[8], 0, 32).data(64),
        "tensor `w`: the name is there twice",
    );
}

#[test]
fn alignment() {
    let with = |value: u64| file().key("general.alignment", U64, value.to_le_bytes());
    for good in [1, 2, 8, 32, 64, 4096, 1 << 21] {
        assert_eq!(with(good).parse().map(|gguf| gguf.alignment()), Ok(good));
    }
    for bad in [0, 3, 31, 33, 48, 1 << 22, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        refused(
            &with(bad),
            "`general.alignment`: expected a power of two up to 2097152",
        );
    }
    refused(
        &file().key("general.alignment", I32, (-32i32).to_le_bytes()),
        "expected an unsigned integer",
    );
    refused(
        &file().key("general.alignment", F32, 32f32.to_le_bytes()),
        "expected an unsigned integer",
    );
    refused(
        &file().text("general.alignment", "32"),
        "expected an unsigned integer",
    );
    refused(
        &file().array("general.alignment", U32, 1, [32, 0, 0, 0]),
        "expected an unsigned integer",
    );
}

#[test]
fn dimensions() {
    let one = |dims: &[u64]| file().tensor("w", dims, 0, 0).data(64);
    assert!(one(&[2, 2, 2, 2]).parse().is_ok());
    refused(&one(&[]), "tensor `w`: expected 1 to 4 dimensions, found 0");
    refused(&one(&[1; 5]), "tensor `w`: expected 1 to 4 dimensions, found 5");
    for dims in [[0, 4], [4, 0], [0, 0], [0, u64::MAX]] {
        refused(&one(&dims), "tensor `w`: a dimension is 0");
    }
}

#[test]
fn dimensions_whose_product_wraps() {
    let shapes: [&[u64]; 9] = [
        &[1 << 32, 1 << 32],
        &[1 << 31, 1 << 31],
        &[u64::MAX],
        &[u64::MAX, 1],
        &[1 << 63, 2],
        &[1 << 16, 1 << 16, 1 << 16, 1 << 16],
        &[3, u64::MAX / 3 + 1],
        &[1 << 62],
        &[i64::MAX as u64, i64::MAX as u64, i64::MAX as u64, i64::MAX as u64],
    ];
    for shape in shapes {
        refused(&file().tensor("w", shape, 0, 0).data(64), "tensor `w`: shape [");
    }
    // Elements fit 63 bits, bytes do not.
    refused(&file().tensor("w", &[1 << 61], 0, 0).data(64), "is too large");
    refused(&file().tensor("w", &[1 << 60], 28, 0).data(64), "is too large");
    // A size just below 2^63, which padding to the alignment would take over it.
    refused(
        &file().tensor("w", &[i64::MAX as u64], 24, 0).data(64),
        "overflow",
    );
    refused(
        &file().tensor("w", &[i64::MAX as u64 - 64], 24, 0).data(64),
        "overflow",
    );
    refused(
        &file().tensor("w", &[i64::MAX as u64 - 127], 24, 0).data(64),
        "but the file has 128",
    );
}

#[test]
fn types_unknown_and_removed() {
    for (id, name) in [
        (4, "q4_2"),
        (5, "q4_3"),
        (9, "q8_1"),
        (15, "q8_k"),
        (31, "q4_0"),
        (36, "iq4_nl"),
    ] {
        refused(&file().tensor("w", &[256], id, 0).data(1024), name);
    }
    for id in [43, 64, 9999, 1 << 31, u32::MAX] {
        let what = format!("tensor type {id} is not supported: tensor `w`: unknown id");
        refused(&file().tensor("w", &[256], id, 0).data(1024), &what);
    }
}

#[test]
fn rows_of_whole_blocks() {
    for (id, block) in [(2, 32), (8, 32), (12, 256), (39, 32), (40, 64), (41, 128)] {
        assert!(file().tensor("w", &[block, 2], id, 0).data(2048).parse().is_ok());
        for k in [1, block / 2, block - 1, block + 1, block + block / 2] {
            refused(
                &file().tensor("w", &[k, block], id, 0).data(4096),
                "are not whole blocks",
            );
        }
    }
}

#[test]
fn offsets() {
    let at = |offset: u64| file().tensor("w", &[8], 0, offset).data(64);
    assert!(at(0).parse().is_ok());
    assert!(at(32).parse().is_ok());
    for offset in [1, 4, 16, 31, 33, 63] {
        refused(&at(offset), "is not a multiple of the alignment 32");
    }
    for offset in [64, 96, 1 << 31, 1 << 32, 1 << 40, 1 << 62] {
        refused(&at(offset), "but the file has");
    }
    let header = at(0).header().len() as u64;
    for offset in [
        0u64.wrapping_sub(32),
        0u64.wrapping_sub(64),
        0u64.wrapping_sub(header.next_multiple_of(32)),
        1 << 63,
        (1 << 63) - 32,
    ] {
        refused(&at(offset), "overflow");
    }
}

#[test]
fn data_that_overlaps() {
    let two = |a: (u64, u64), b: (u64, u64)| {
        file()
            .tensor("a", &[a.1], 24, a.0)
            .tensor("b", &[b.1], 24, b.0)
            .data(256)
    };
    // Gaps and any order are allowed.
    assert!(two((0, 32), (32, 32)).parse().is_ok());
    assert!(two((96, 32), (0, 64)).parse().is_ok());
    for (a, b) in [
        ((0, 32), (0, 32)),
        ((0, 33), (32, 32)),
        ((0, 128), (32, 32)),
        ((32, 32), (0, 128)),
        ((64, 64), (0, 65)),
    ] {
        refused(&two(a, b), "overlaps tensor");
    }
}

#[test]
fn data_past_the_end() {
    let cut = |data: usize| {
        file()
            .tensor("a", &[40], 24, 0)
            .tensor("b", &[40], 24, 64)
            .data(data)
    };
    assert!(cut(104).parse().is_ok());
    assert!(cut(105).parse().is_ok());
    refused(&cut(103), "tensor `b`: its data is expected at bytes");
    refused(&cut(63), "tensor `b`: its data is expected at bytes");
    refused(&cut(39), "tensor `a`: its data is expected at bytes");
    refused(&cut(0), "but the file has");
}

#[test]
fn a_vocabulary_alone_needs_no_data() {
    let bytes = file().u32("x", 1).header();
    assert!(!bytes.len().is_multiple_of(32));
    let gguf = Gguf::parse(&bytes).expect("metadata only");
    assert_eq!((gguf.tensors().len(), gguf.data_end()), (0, bytes.len() as u64));
}

#[test]
fn other_files() {
    let says = |bytes: &[u8], part: &str| {
        let error = Gguf::parse(bytes).expect_err("not a model").to_string();
        assert!(error.contains(part), "{error}");
    };
    says(b"", "the file is empty");
    says(b"GGU", "the file ends at byte 3");
    says(b"GGUF\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "big-endian");
    says(b"FUGG\0\0\0\x03", "big-endian");
    says(b"tjgg\x03\0\0\0", "from before GGUF");
    says(b"version https://git-lfs.github.com/spec/v1", "git lfs pull");
    says(b"<!DOCTYPE html><html>", "a web page");
    says(b"PK\x03\x04", "convert it to GGUF");
    says(b"\x1f\x8b\x08\0", "unpack it");
    for version in [0, 4, 99, u32::MAX] {
        refused(
            &crate::build::version(version).u32("x", 1),
            "expected version 1, 2 or 3",
        );
    }
}

/// Cut after every byte: an error each time, and from a stream never an early end.
#[test]
fn cut_everywhere() {
    let mut cuts = 0;
    for version in [1, 2, 3] {
        let bytes = sample(version).bytes();
        let header = sample(version).header().len();
        for n in 0..bytes.len() {
            let (result, cost) = measure(|| Gguf::parse(&bytes[..n]));
            assert!(result.is_err(), "version {version} cut at {n}");
            assert!(cost.peak < 64 << 10);
            assert_eq!(
                chunked(&bytes[..n], 5, None).is_ok(),
                n >= header,
                "version {version} cut at {n}"
            );
            cuts += 1;
        }
    }
    println!("gguf: {cuts} of {cuts} cut files refused");
}

/// Every byte of a header replaced: no panic, no memory beyond a small file's, and never a range outside the file.
#[test]
fn every_byte_replaced() {
    let (mut refused, mut total) = (0, 0);
    for version in [1, 2, 3] {
        let sound = sample(version).bytes();
        let header = sample(version).header().len();
        let mut bytes = sound.clone();
        for at in 0..header {
            let old = sound[at];
            let values = [0, 1, 2, 3, 8, 9, 13, 0x20, 0x40, 0x7f, 0x80, 0xfe, 0xff];
            for value in
                values
                    .into_iter()
                    .chain([old ^ 1, old ^ 0x80, old.wrapping_add(1), old.wrapping_sub(1)])
            {
                bytes[at] = value;
                let (whole, cost) = measure(|| Gguf::parse(&bytes));
                assert!(cost.peak < 64 << 10, "{} at {at} = {value}", cost.peak);
                if let Ok(gguf) = &whole {
                    assert!(gguf.data_end() <= bytes.len() as u64, "at {at} = {value}");
                }
                refused += usize::from(whole.is_err());
                total += 1;
            }
            // One of them in chunks too: the answers are equal, errors included.
            let whole = Gguf::parse(&bytes);
            let parts = chunked(&bytes, 3, Some(bytes.len() as u64));
            assert_eq!(whole.err(), parts.err(), "at {at}");
            bytes[at] = old;
        }
    }
    println!("gguf: {total} single-byte changes, {refused} refused, the others read within bounds");
    assert!(refused > total / 4);
}
