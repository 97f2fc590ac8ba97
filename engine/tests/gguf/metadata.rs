//! The typed getters: what they accept, and errors that name key, expectation and finding.

use twinfer_engine::Error;
use twinfer_engine::gguf::{Array, Metadata, Value};

fn one(value: Value) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("k", value);
    metadata
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.expect_err("an error").to_string();
    assert!(error.contains("`k`"), "{error}");
    error
}

#[test]
fn integers_of_any_width() {
    for value in [
        Value::U8(7),
        Value::I8(7),
        Value::U16(7),
        Value::I16(7),
        Value::U32(7),
        Value::I32(7),
        Value::U64(7),
        Value::I64(7),
    ] {
        assert_eq!(one(value.clone()).u32("k"), Ok(7));
        assert_eq!(one(value).opt_u64("k"), Ok(Some(7)));
    }
    assert_eq!(one(Value::U64(1 << 32)).opt_u64("k"), Ok(Some(1 << 32)));
    assert!(message(one(Value::U64(1 << 32)).u32("k")).contains("found u64 4294967296"));
    assert!(message(one(Value::I32(-1)).u32("k")).contains("found i32 -1"));
    assert!(message(one(Value::F32(7.0)).u32("k")).contains("found f32 7"));
    assert!(message(one(Value::Bool(true)).u32("k")).contains("found bool true"));
    assert!(message(Metadata::new().u32("k")).contains("is missing"));
    assert_eq!(Metadata::new().opt_u32("k"), Ok(None));
}

#[test]
fn floats_are_finite() {
    assert_eq!(one(Value::F32(1.5)).f32("k"), Ok(1.5));
    assert_eq!(one(Value::F64(1.5)).f32("k"), Ok(1.5));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(message(one(Value::F32(bad)).f32("k")).contains("a finite float"));
    }
    assert!(message(one(Value::F64(1e300)).f32("k")).contains("a finite float"));
    assert!(message(one(Value::U32(1)).f32("k")).contains("expected a float, found u32 1"));
}

#[test]
fn strings() {
    assert_eq!(one(Value::String("é".into())).str("k"), Ok("é"));
    assert!(message(one(Value::Bytes([0xff].into())).str("k")).contains("that is not UTF-8"));
    assert!(message(one(Value::U32(1)).str("k")).contains("found u32 1"));
    let long = message(one(Value::String("é".repeat(10_000))).u32("k"));
    assert!(long.len() < 300 && long.contains('…'), "{long}");
}

#[test]
fn arrays() {
    let ints = one(Value::Array(Array::U64(vec![1, i64::MAX as u64])));
    assert_eq!(ints.opt_ints("k"), Ok(Some(vec![1, i64::MAX])));
    let large = one(Value::Array(Array::U64(vec![1 << 63])));
    assert!(message(large.opt_ints("k")).contains("found array of 1 u64"));
    assert!(message(ints.opt_strings("k")).contains("an array of strings"));
    assert!(message(ints.opt_f32s("k")).contains("an array of f32"));
    assert!(message(one(Value::U32(1)).opt_ints("k")).contains("an array of integers"));
}

#[test]
fn order_and_replacement() {
    let mut metadata = Metadata::new();
    for (key, value) in [("b", 1), ("a", 2), ("c", 3)] {
        assert_eq!(metadata.insert(key, Value::U32(value)), None);
    }
    assert_eq!(metadata.insert("a", Value::U32(9)), Some(Value::U32(2)));
    let entries: Vec<_> = metadata.iter().map(|(key, _)| key).collect();
    assert_eq!(entries, ["b", "a", "c"]);
    assert_eq!(metadata.u32("a"), Ok(9));
}

#[test]
fn chat_templates_have_names() {
    let mut metadata = Metadata::new();
    assert_eq!(metadata.chat_templates(), Ok(vec![]));
    for (key, text) in [
        ("tokenizer.chat_template", "plain"),
        ("tokenizer.chat_template.tool_use", "tools"),
        ("tokenizer.chat_template_of_another_kind", "no"),
    ] {
        metadata.insert(key, Value::String(text.into()));
    }
    metadata.insert(
        "tokenizer.chat_templates",
        Value::Array(Array::Strings(vec![(*b"tool_use").into()])),
    );
    let expected = vec![("default", "plain"), ("tool_use", "tools")];
    assert_eq!(metadata.chat_templates(), Ok(expected));
    metadata.insert("tokenizer.chat_template", Value::U32(1));
    let error = metadata.chat_templates().expect_err("no text").to_string();
    assert!(error.contains("`tokenizer.chat_template`"), "{error}");
}
