//! Random changes to the metadata, the directory and the data of sound models of every architecture: whatever they are,
//! an error or logits, within bounds of memory and time.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use twinfer_engine::cache::CacheType;
use twinfer_engine::gguf::{Array, Metadata, Value};
use twinfer_engine::quant::GgmlType;

use crate::load::load_and_evaluate;
use crate::memory::measure;
use crate::small::{ARCHITECTURES, Small};

const MOST_BYTES: usize = 256 << 20;

/// Keys that the sound models do not all have.
const MORE_KEYS: &[&str] = &[
    ".attention.key_length",
    ".attention.value_length",
    ".attention.sliding_window",
    ".attention.sliding_window_pattern",
    ".rope.scaling.type",
    ".rope.scaling.factor",
    ".rope.scaling.attn_factor",
    ".rope.scaling.original_context_length",
    ".rope.freq_base_swa",
    ".final_logit_softcapping",
    ".expert_count",
    ".vocab_size",
    ":pre",
    ":merges",
    ":add_bos_token",
    ":add_space_prefix",
    "tokenizer.chat_template",
    "general.alignment",
    "split.count",
    "split.no",
];

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..70u64,
        Just(1 << 20),
        Just(1 << 31),
        Just(u64::from(u32::MAX)),
        Just(1 << 32),
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn float() -> impl Strategy<Value = f32> {
    prop_oneof![
        any::<u32>().prop_map(f32::from_bits),
        Just(0.0),
        Just(1.0),
        Just(f32::MAX),
        Just(f32::MIN_POSITIVE),
        Just(1e-45),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "llama",
        "gpt2",
        "bert",
        "gemma4",
        "t5",
        "rwkv",
        "plamo2",
        "whitespace",
        "qwen2",
        "qwen3",
        "gemma3",
        "phi3",
        "default",
        "yarn",
        "linear",
        "longrope",
        "phi-3",
        "{{ messages }}",
    ]);
    prop_oneof![known.prop_map(str::to_owned), "\\PC{0,20}"]
}

fn entry() -> impl Strategy<Value = Box<[u8]>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Vec::into_boxed_slice),
        text().prop_map(|text| text.into_bytes().into_boxed_slice()),
        "[ab\u{2581} ]{0,4}".prop_map(|text| text.into_bytes().into_boxed_slice()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let n = 0..60usize;
    prop_oneof![
        4 => number().prop_map(|v| Value::U32(v as u32)),
        1 => number().prop_map(Value::U64),
        1 => any::<i32>().prop_map(Value::I32),
        1 => any::<u8>().prop_map(Value::U8),
        3 => float().prop_map(Value::F32),
        1 => any::<f64>().prop_map(Value::F64),
        1 => any::<bool>().prop_map(Value::Bool),
        2 => text().prop_map(Value::String),
        1 => prop::collection::vec(number(), n.clone()).prop_map(|v| Value::Array(Array::U64(v))),
        1 => prop::collection::vec(-1..9i32, 48).prop_map(|v| Value::Array(Array::I32(v))),
        1 => prop::collection::vec(0..9u32, n.clone()).prop_map(|v| Value::Array(Array::U32(v))),
        1 => prop::collection::vec(float(), 48).prop_map(|v| Value::Array(Array::F32(v))),
        1 => prop::collection::vec(any::<bool>(), n.clone()).prop_map(|v| Value::Array(Array::Bool(v))),
        1 => prop::collection::vec(entry(), 48).prop_map(|v| Value::Array(Array::Strings(v))),
        1 => prop::collection::vec(entry(), n).prop_map(|v| Value::Array(Array::Strings(v))),
    ]
}

/// One change to a model; numbers choose by remainder.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, Value),
    Remove(usize),
    Type(usize, usize),
    Dimension(usize, usize, usize),
    Rename(usize, usize),
    RemoveTensor(usize),
    Weight(usize, usize, f32),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<usize>;
    prop_oneof![
        8 => (index(), value()).prop_map(|(key, value)| Change::Set(key, value)),
        1 => index().prop_map(Change::Remove),
        1 => (index(), index()).prop_map(|(tensor, ty)| Change::Type(tensor, ty)),
        1 => (index(), index(), 1..200usize).prop_map(|(tensor, i, d)| Change::Dimension(tensor, i, d)),
        1 => (index(), index()).prop_map(|(a, b)| Change::Rename(a, b)),
        1 => index().prop_map(Change::RemoveTensor),
        1 => (index(), index(), float()).prop_map(|(tensor, i, v)| Change::Weight(tensor, i, v)),
    ]
}

fn apply(mut small: Small, change: Change) -> Small {
    let n = small.tensors.len();
    match change {
        Change::Set(key, value) => {
            let mut keys: Vec<String> = small.metadata.iter().map(|(key, _)| key.to_owned()).collect();
            keys.extend(MORE_KEYS.iter().map(|key| (*key).to_owned()));
            // An alignment that the writer refuses would end the test rather than the load.
            let key = &keys[key % keys.len()];
            if key != "general.alignment" || matches!(value, Value::U32(8 | 32 | 64)) {
                // Two values that name the architecture would make one of them meaningless to `set`.
                small = match key.strip_prefix('.') {
                    Some(rest) => {
                        let arch = small
                            .metadata
                            .str("general.architecture")
                            .unwrap_or("llama")
                            .to_owned();
                        small.metadata.insert(format!("{arch}.{rest}"), value);
                        small
                    }
                    None => small.set(key, value),
                };
            }
        }
        Change::Remove(key) => {
            let mut rest = Metadata::new();
            let key = key % small.metadata.len().max(1);
            for (_, (name, value)) in small.metadata.iter().enumerate().filter(|(i, _)| *i != key) {
                rest.insert(name, value.clone());
            }
            small.metadata = rest;
        }
        _ if n == 0 => {}
        Change::Type(tensor, ty) => {
            let ty = GgmlType::ALL[ty % GgmlType::ALL.len()];
            let spec = small.tensors[tensor % n].0.clone();
            if spec.shape[0].is_multiple_of(ty.block_len()) {
                small = small.reshape(&spec.name, ty, &spec.shape);
            }
        }
        Change::Dimension(tensor, i, d) => {
            let spec = small.tensors[tensor % n].0.clone();
            let mut shape = spec.shape.clone();
            let i = i % shape.len();
            shape[i] = d;
            if shape[0].is_multiple_of(spec.ty.block_len()) {
                small = small.reshape(&spec.name, spec.ty, &shape);
            }
        }
        Change::Rename(a, b) => {
            let name = small.tensors[a % n].0.name.clone();
            small.tensors[a % n].0.name = small.tensors[b % n].0.name.clone();
            small.tensors[b % n].0.name = name;
        }
        Change::RemoveTensor(tensor) => {
            small.tensors.remove(tensor % n);
        }
        Change::Weight(tensor, i, v) => {
            let data = &mut small.tensors[tensor % n].1;
            let at = i % (data.len() / 4).max(1);
            if let Some(bytes) = data.chunks_exact_mut(4).nth(at) {
                bytes.copy_from_slice(&v.to_le_bytes());
            }
        }
    }
    small
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        max_shrink_iters: 2000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/hostile/random.seeds"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn changes_never_panic(arch in 0..ARCHITECTURES.len(), changes in prop::collection::vec(change(), 1..4)) {
        let mut small = Small::read(ARCHITECTURES[arch]);
        for change in changes {
            small = apply(small, change);
        }
        let bytes = small.bytes();
        let (result, cost) = measure(|| load_and_evaluate(bytes, CacheType::F16));
        prop_assert!(cost.peak < MOST_BYTES, "{} bytes", cost.peak);
        prop_assert!(cost.time.as_secs() < 10, "{:?}", cost.time);
        match result {
            Ok(logits) => prop_assert!(logits.iter().all(|l| l.is_finite())),
            Err((_, error)) => prop_assert!(error.to_string().len() < 2000),
        }
    }
}
