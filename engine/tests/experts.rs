//! Experts as files keep them: what may be written in more than one way gives the same bits; and the limits of their
//! gates.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::Path;
use std::sync::Arc;

use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::{Array, Gguf, GgufSet, Metadata, ModelFile, TensorSpec, Value, Writer};
use twinfer_engine::kernels::{Storage, select};
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::loader::Loader;
use twinfer_engine::model::plan::ModelPlan;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::quant::{GgmlType, encode};
use twinfer_engine::team::Team;

/// A model in parts.
struct Parts {
    metadata: Metadata,
    tensors: Vec<(TensorSpec, Vec<u8>)>,
}

impl Parts {
    /// One of `tests/oracle`.
    fn read(name: &str) -> Self {
        let path = format!("../tests/oracle/vectors/{name}.gguf");
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).unwrap();
        let tensors = file.tensors().map(|tensor| {
            let spec = TensorSpec {
                name: tensor.name.clone(),
                ty: tensor.ty,
                shape: tensor.shape.clone(),
            };
            (spec, file.tensor_bytes(&tensor.name).unwrap().to_vec())
        });
        Parts {
            tensors: tensors.collect(),
            metadata: file.metadata().clone(),
        }
    }

    /// With a key below the architecture's name.
    fn with(mut self, key: &str, value: Value) -> Self {
        let arch = self.metadata.str("general.architecture").unwrap();
        let key = format!("{arch}.{key}");
        self.metadata.insert(key, value);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let specs: Vec<TensorSpec> = self.tensors.iter().map(|(spec, _)| spec.clone()).collect();
        let mut writer = Writer::new(Vec::new(), &self.metadata, &specs).unwrap();
        for (spec, data) in &self.tensors {
            writer.write_tensor(&spec.name, data).unwrap();
        }
        writer.finish().unwrap()
    }

    /// The stacks of experts in this type, where their rows are long enough for it.
    fn experts_in(mut self, ty: GgmlType) -> Self {
        for (spec, data) in &mut self.tensors {
            let row = spec.shape[0];
            if spec.name.ends_with("_exps.weight") && row.is_multiple_of(ty.block_len()) {
                let floats = data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
                let floats: Vec<f32> = floats.collect();
                let mut out = vec![0; ty.row_bytes(row).unwrap() * (floats.len() / row)];
                encode(ty, &floats, None, &mut out).unwrap();
                (spec.ty, *data) = (ty, out);
            }
        }
        self
    }

    /// `PART_exps` as `PART.0`, `PART.1` and so on, with their biases and scales; how many stacks that were.
    fn split(&mut self) -> usize {
        let mut stacks = 0;
        for (spec, data) in std::mem::take(&mut self.tensors) {
            let part = spec
                .name
                .split_once("_exps.")
                .filter(|(part, _)| !part.ends_with("gate_up"));
            let Some((part, kind)) = part else {
                self.tensors.push((spec, data));
                continue;
            };
            stacks += usize::from(kind == "weight");
            // A scale of each expert is a vector of one number.
            let (count, shape) = match spec.shape.as_slice() {
                [count] => (*count, vec![1]),
                [shape @ .., count] => (*count, shape.to_vec()),
                [] => panic!("{} has no shape", spec.name),
            };
            for (i, data) in data.chunks_exact(data.len() / count).enumerate() {
                let spec = TensorSpec {
                    name: format!("{part}.{i}.{kind}"),
                    ty: spec.ty,
                    shape: shape.clone(),
                };
                self.tensors.push((spec, data.to_vec()));
            }
        }
        stacks
    }
}

fn logits(model: Model) -> Vec<u32> {
    let n_vocab = model.config().n_vocab as u32;
    let options = ContextOptions {
        n_ctx: 64,
        n_batch: 16,
        ..ContextOptions::default()
    };
    let mut context = Context::new(Arc::new(model), Team::single(), options).unwrap();
    let sequence = context.open().unwrap();
    let tokens: Vec<u32> = (0..20).map(|i| (i * 37 + 11) % n_vocab).collect();
    let mut all = Vec::new();
    let mut keep = |_, logits: &[f32]| all.extend(logits.iter().map(|logit| logit.to_bits()));
    context.eval_all(sequence, &tokens, &mut keep).unwrap();
    all
}

fn file(bytes: &[u8]) -> ModelFile {
    ModelFile::from_parts(vec![Bytes::from_vec(bytes.to_vec())]).unwrap()
}

fn loaded(bytes: &[u8], options: &LoadOptions) -> Model {
    Model::load(&file(bytes), options, &mut |_, _| {}).unwrap()
}

fn streamed(bytes: &[u8], options: &LoadOptions) -> Model {
    let set = GgufSet::new(vec![Gguf::parse(bytes).unwrap()]).unwrap();
    let mut loader = Loader::new(set, options).unwrap();
    loader.push(0, 0, bytes).unwrap();
    loader.finish().unwrap()
}

#[test]
fn a_tensor_for_each_expert_is_the_stack_of_them() {
    let mut compared = 0;
    // With a gate; with biases; without a gate; beside dense layers; a shared expert that keeps its own tensors; the
    // parts of a stack in other types, and where rows are no whole panels.
    for (name, ty) in [
        ("qwen3moe", GgmlType::F32),
        ("qwen3moe", GgmlType::Q8_0),
        ("qwen3moe", GgmlType::Q4_0),
        ("gpt-oss", GgmlType::F32),
        ("nemotron-h-moe", GgmlType::F32),
        ("lfm2moe", GgmlType::F32),
        ("llama4", GgmlType::F32),
    ] {
        let mut parts = Parts::read(name).experts_in(ty);
        let stacked = parts.bytes();
        assert!(parts.split() > 0, "{name} has stacks");
        let each = parts.bytes();
        for backend in select::available() {
            for storage in [Storage::Packed, Storage::Mapped] {
                let options = LoadOptions {
                    backend: Some(backend.name().into()),
                    experts: Some(storage),
                    ..LoadOptions::default()
                };
                let model = loaded(&stacked, &options);
                let parameters = model.parameters();
                let expected = logits(model);
                for model in [loaded(&each, &options), streamed(&each, &options)] {
                    let what = format!("{name}, {} on {}, {storage:?}", ty.name(), backend.name());
                    assert_eq!(model.parameters(), parameters, "{what}");
                    assert!(logits(model) == expected, "{what}: other logits");
                    compared += 1;
                }
            }
        }
        // They lie where experts do, whatever the others do.
        let options = LoadOptions {
            storage: Storage::Packed,
            experts: Some(Storage::Mapped),
            ..LoadOptions::default()
        };
        let mapped = |bytes| ModelPlan::of(&file(bytes), &options).unwrap().weights().mapped;
        assert_eq!(mapped(&each), mapped(&stacked), "{name}");
        assert!(mapped(&each) > 0, "{name}");
    }
    println!("experts: {compared} models of a tensor for each expert bit-equal to stacks");
}

#[test]
fn experts_that_are_missing_or_too_many_are_named() {
    let refused = |parts: &Parts, part: &str| {
        let error = Model::load(&file(&parts.bytes()), &LoadOptions::default(), &mut |_, _| {});
        let error = error.unwrap_err().to_string();
        assert!(error.contains(part), "expected {part} in: {error}");
    };
    let split = || {
        let mut parts = Parts::read("qwen3moe");
        parts.split();
        parts
    };
    let at = |parts: &Parts, name: &str| {
        let mut specs = parts.tensors.iter();
        specs.position(|(spec, _)| spec.name == name).unwrap()
    };
    for missing in ["ffn_gate.5", "ffn_up.7", "ffn_down.1"] {
        let name = format!("blk.1.{missing}.weight");
        let mut parts = split();
        parts.tensors.remove(at(&parts, &name));
        refused(&parts, &name);
    }
    // Without the first one nothing says that there is one for each.
    let mut parts = split();
    parts.tensors.remove(at(&parts, "blk.0.ffn_up.0.weight"));
    refused(&parts, "blk.0.ffn_up_exps.weight");
    for more in ["ffn_gate.8", "ffn_up.08", "ffn_down_exps"] {
        let mut parts = split();
        let (spec, data) = &parts.tensors[at(&parts, "blk.0.ffn_gate.0.weight")];
        let mut other = (spec.clone(), data.clone());
        other.0.name = format!("blk.0.{more}.weight");
        parts.tensors.push(other);
        refused(&parts, &format!("blk.0.{more}.weight"));
    }
    let mut parts = split();
    let at = at(&parts, "blk.0.ffn_up.3.weight");
    parts.tensors[at].0.shape.reverse();
    refused(&parts, "blk.0.ffn_up.3.weight");
}

const LIMIT: &str = "swiglu_clamp_exp";
const SHARED_LIMIT: &str = "swiglu_clamp_shexp";

fn limits(values: &[f32]) -> Value {
    Value::Array(Array::F32(values.to_vec()))
}

/// That the limited numbers are the right ones is for `architectures.rs`: it holds the model `limits` to a float64
/// pass.
#[test]
fn limits_of_gates_are_of_their_layer_and_of_silu() {
    let on = |backend: &str| LoadOptions {
        backend: Some(backend.into()),
        ..LoadOptions::default()
    };
    let of = |parts: Parts| logits(loaded(&parts.bytes(), &on("auto")));
    let base = || Parts::read("qwen3next");
    let plain = of(base());
    for key in [LIMIT, SHARED_LIMIT] {
        for nothing in [0.0, 1e-6, 1e30] {
            assert!(
                of(base().with(key, Value::F32(nothing))) == plain,
                "{key} {nothing}"
            );
        }
        let all = of(base().with(key, Value::F32(0.25)));
        assert!(all != plain, "{key}");
        assert!(all == of(base().with(key, limits(&[0.25, 0.25]))), "{key}");
        let first = of(base().with(key, limits(&[0.25, 0.0])));
        let second = of(base().with(key, limits(&[0.0, 0.25])));
        assert!(
            ![&plain, &all].contains(&&first) && ![&plain, &all].contains(&&second),
            "{key}"
        );
        assert!(first != second, "{key}");
    }
    let both = base()
        .with(LIMIT, Value::F32(0.25))
        .with(SHARED_LIMIT, Value::F32(0.25))
        .bytes();
    let expected = logits(loaded(&both, &on("scalar")));
    for backend in select::available() {
        assert!(
            logits(loaded(&both, &on(backend.name()))) == expected,
            "{}",
            backend.name()
        );
    }
    // Functions of their own, and no gate.
    for name in ["gpt-oss", "gemma4", "nemotron-h-moe"] {
        let limited = Parts::read(name)
            .with(LIMIT, Value::F32(0.01))
            .with(SHARED_LIMIT, Value::F32(0.01));
        assert!(of(limited) == of(Parts::read(name)), "{name}");
    }
}

#[test]
fn limits_that_are_none_are_refused() {
    for value in [
        Value::F32(-1.0),
        Value::F32(f32::NAN),
        Value::F32(f32::INFINITY),
        Value::U32(7),
        limits(&[1.0]),
        limits(&[1.0; 3]),
        limits(&[]),
        limits(&[1.0, f32::NAN]),
        limits(&[-0.5, 1.0]),
        Value::Array(Array::U32(vec![1, 1])),
    ] {
        for key in [LIMIT, SHARED_LIMIT] {
            let parts = Parts::read("qwen3next").with(key, value.clone());
            let error = Model::load(&file(&parts.bytes()), &LoadOptions::default(), &mut |_, _| {});
            let error = error.unwrap_err().to_string();
            assert!(error.contains(key), "{}: {error}", value.describe());
        }
    }
}
