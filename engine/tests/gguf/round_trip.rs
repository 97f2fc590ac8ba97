//! What the writer writes, the parser reads: metadata, order, shapes and data.

use std::io::ErrorKind;

use proptest::prelude::*;
use twinfer_engine::gguf::{Array, Gguf, Metadata, ModelFile, TensorSpec, Value, Writer, writer};
use twinfer_engine::memory::Bytes;
use twinfer_engine::quant::GgmlType;

use crate::build::{file, sample};
use crate::reference::models;

fn specs(gguf: &Gguf) -> Vec<TensorSpec> {
    gguf.tensors().iter().map(TensorSpec::from).collect()
}

/// Writes a model's metadata and tensors anew.
fn rewrite(model: &ModelFile) -> Vec<u8> {
    let specs = specs(&model.set().parts()[0]);
    let mut writer = Writer::new(Vec::new(), model.metadata(), &specs).expect("a header");
    for spec in &specs {
        let data = model.tensor_bytes(&spec.name).expect("data");
        writer.write_tensor(&spec.name, &data).expect("a tensor");
    }
    writer.finish().expect("the end")
}

fn model(bytes: Vec<u8>) -> ModelFile {
    ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).expect("a model")
}

#[test]
fn reference_models() {
    let models = models();
    let mut identical = 0;
    for (name, bytes) in &models {
        let before = model(bytes.clone());
        let written = rewrite(&before);
        let after = model(written.clone());
        assert_eq!(before.metadata(), after.metadata(), "{name}");
        assert_eq!(
            specs(&before.set().parts()[0]),
            specs(&after.set().parts()[0]),
            "{name}"
        );
        for tensor in before.tensors() {
            let (a, b) = (
                before.tensor_bytes(&tensor.name),
                after.tensor_bytes(&tensor.name),
            );
            assert_eq!(*a.expect("data"), *b.expect("data"), "{name}: {}", tensor.name);
        }
        identical += usize::from(&written == bytes);
    }
    println!(
        "gguf: {} reference models written and read again, {identical} of them the same file",
        models.len()
    );
}

#[test]
fn every_value_type() {
    let before = model(sample(3).bytes());
    let after = model(rewrite(&before));
    assert_eq!(before.metadata(), after.metadata());
    assert_eq!(
        after.metadata().get("x.raw"),
        Some(&Value::Bytes([0xff, 0xfe].into()))
    );
}

#[test]
fn alignment_is_kept() {
    let bytes = file().u32("general.alignment", 256).header();
    let metadata = Gguf::parse(&bytes).expect("a header").metadata().clone();
    let tensors = ["a", "b"].map(|name| TensorSpec {
        name: name.into(),
        ty: GgmlType::I8,
        shape: vec![3],
    });
    let mut writer = Writer::new(Vec::new(), &metadata, &tensors).expect("a header");
    writer.write_tensor("a", &[1, 2, 3]).expect("a tensor");
    writer.write_tensor("b", &[4, 5, 6]).expect("a tensor");
    let written = writer.finish().expect("the end");
    assert_eq!(written.len() % 256, 0);
    let after = model(written);
    assert_eq!(after.tensor("b").map(|t| t.offset % 256), Some(0));
    assert_eq!(*after.tensor_bytes("b").expect("data"), [4, 5, 6]);
}

#[test]
fn mistakes_are_refused() {
    let tensors = ["a", "b"].map(|name| TensorSpec {
        name: name.into(),
        ty: GgmlType::Q8_0,
        shape: vec![32],
    });
    let new = || Writer::new(Vec::new(), &Metadata::new(), &tensors).expect("a header");
    let kind = |error: std::io::Error, part: &str| {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(part), "{error}");
    };
    kind(
        new().write_tensor("b", &[0; 34]).expect_err("order"),
        "expected the data of tensor `a` next",
    );
    kind(
        new().write_tensor("a", &[0; 33]).expect_err("size"),
        "expected 34 bytes of data, found 33",
    );
    kind(
        new().finish().expect_err("missing"),
        "tensor `a`: its data was not written",
    );
    let mut full = new();
    full.write_tensor("a", &[0; 34]).expect("a");
    full.write_tensor("b", &[0; 34]).expect("b");
    kind(
        full.write_tensor("c", &[0; 34]).expect_err("one too many"),
        "all tensors of the header are written",
    );

    let spec = |name: &str, shape: &[usize]| TensorSpec {
        name: name.into(),
        ty: GgmlType::Q8_0,
        shape: shape.to_vec(),
    };
    let bad = |tensors: &[TensorSpec]| {
        writer::header(&Metadata::new(), tensors)
            .expect_err("a bad header")
            .to_string()
    };
    assert!(bad(&[spec("a", &[33])]).contains("whole blocks"));
    assert!(bad(&[spec("a", &[])]).contains("dimensions"));
    assert!(bad(&[spec("a", &[32, 0])]).contains("is 0"));
    assert!(bad(&[spec("", &[32])]).contains("empty"));
    assert!(bad(&[spec("a", &[32]), spec("a", &[32])]).contains("twice"));
    for alignment in [0, 3, 1 << 40] {
        let mut metadata = Metadata::new();
        metadata.insert("general.alignment", Value::U64(alignment));
        let error = writer::header(&metadata, &[spec("a", &[32])]).expect_err("a bad alignment");
        assert!(error.to_string().contains("alignment"), "{error}");
    }
}

/// An output that fails says so.
#[test]
fn failing_outputs() {
    let mut room = [0u8; 10];
    let error = Writer::new(room.as_mut_slice(), &Metadata::new(), &[]).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::WriteZero);
}

fn array(depth: u32) -> BoxedStrategy<Array> {
    let small = 0..6usize;
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), small.clone()).prop_map(Array::U8),
        prop::collection::vec(any::<i8>(), small.clone()).prop_map(Array::I8),
        prop::collection::vec(any::<u16>(), small.clone()).prop_map(Array::U16),
        prop::collection::vec(any::<i16>(), small.clone()).prop_map(Array::I16),
        prop::collection::vec(any::<u32>(), small.clone()).prop_map(Array::U32),
        prop::collection::vec(any::<i32>(), small.clone()).prop_map(Array::I32),
        prop::collection::vec(any::<f32>(), small.clone()).prop_map(Array::F32),
        prop::collection::vec(any::<bool>(), small.clone()).prop_map(Array::Bool),
        prop::collection::vec(any::<u64>(), small.clone()).prop_map(Array::U64),
        prop::collection::vec(any::<i64>(), small.clone()).prop_map(Array::I64),
        prop::collection::vec(any::<f64>(), small.clone()).prop_map(Array::F64),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), small.clone())
            .prop_map(|v| Array::Strings(v.into_iter().map(Vec::into_boxed_slice).collect())),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![3 => leaf, 1 => prop::collection::vec(array(depth - 1), small).prop_map(Array::Arrays)]
        .boxed()
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::U64),
        any::<f64>().prop_map(Value::F64),
        ".{0,12}".prop_map(Value::String),
        array(3).prop_map(Value::Array),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_metadata(entries in prop::collection::vec(("[a-z.]{1,12}", value()), 0..12)) {
        let mut metadata = Metadata::new();
        for (key, value) in entries {
            metadata.insert(key, value);
        }
        let (bytes, _) = writer::header(&metadata, &[]).expect("a header");
        let parsed = Gguf::parse(&bytes).expect("a header");
        let keys = |m: &Metadata| m.iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>();
        prop_assert_eq!(keys(&metadata), keys(parsed.metadata()));
        // Bytes rather than values: NaN differs from itself.
        prop_assert_eq!(writer::header(parsed.metadata(), &[]).expect("a header").0, bytes);
    }

    #[test]
    fn any_tensors(shapes in prop::collection::vec((0..GgmlType::ALL.len(), prop::collection::vec(1usize..5, 1..=4)), 0..12)) {
        let specs: Vec<TensorSpec> = shapes
            .into_iter()
            .enumerate()
            .map(|(i, (ty, mut shape))| {
                let ty = GgmlType::ALL[ty];
                shape[0] *= ty.block_len();
                TensorSpec { name: format!("t{i}"), ty, shape }
            })
            .collect();
        let (bytes, gguf) = writer::header(&Metadata::new(), &specs).expect("a header");
        let mut out = Writer::new(Vec::new(), &Metadata::new(), &specs).expect("a header");
        for (i, tensor) in gguf.tensors().iter().enumerate() {
            out.write_tensor(&tensor.name, &vec![i as u8; tensor.bytes as usize]).expect("a tensor");
        }
        let written = out.finish().expect("the end");
        prop_assert!(written.starts_with(&bytes));
        let read = model(written);
        for (i, spec) in specs.iter().enumerate() {
            let data = read.tensor_bytes(&spec.name).expect("data");
            prop_assert_eq!(data.len(), spec.ty.row_bytes(spec.shape[0]).expect("blocks") * spec.shape[1..].iter().product::<usize>());
            prop_assert!(data.iter().all(|&b| b == i as u8));
        }
    }
}
