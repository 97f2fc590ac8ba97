//! Small valid models to change one thing of: the vectors of `tests/oracle`.

use twinfer_engine::cache::CacheType;
use twinfer_engine::gguf::{Array, Metadata, ModelFile, TensorSpec, Value, Writer};
use twinfer_engine::memory::Bytes;
use twinfer_engine::quant::GgmlType;

use crate::load::{Stage, load_and_evaluate};
use crate::memory::measure;

/// One model of each architecture.
pub(crate) const ARCHITECTURES: [&str; 5] = ["llama-gqa", "qwen2", "qwen3", "gemma3-pattern", "phi3"];

/// What a refused file may take: the bound that the reference files are held to.
pub(crate) const MOST_BYTES: usize = 64 << 20;

/// A model in parts.
#[derive(Clone)]
pub(crate) struct Small {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<(TensorSpec, Vec<u8>)>,
}

impl Small {
    pub(crate) fn read(name: &str) -> Self {
        let path = format!(
            "{}/../tests/oracle/vectors/{name}.gguf",
            env!("CARGO_MANIFEST_DIR")
        );
        let bytes = std::fs::read(path).expect("tests/oracle/vectors is part of the project");
        let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).unwrap();
        let tensors = file.tensors().map(|tensor| {
            let spec = TensorSpec {
                name: tensor.name.clone(),
                ty: tensor.ty,
                shape: tensor.shape.clone(),
            };
            (spec, file.tensor_bytes(&tensor.name).unwrap().to_vec())
        });
        Small {
            tensors: tensors.collect(),
            metadata: file.metadata().clone(),
        }
    }

    /// Sets a key; `.x` stands for `ARCHITECTURE.x`, `:x` for `tokenizer.ggml.x`.
    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        let key = self.key(key);
        self.metadata.insert(key, value);
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        let key = self.key(key);
        assert!(self.metadata.get(&key).is_some(), "{key} is there");
        let mut rest = Metadata::new();
        for (name, value) in self.metadata.iter().filter(|(name, _)| *name != key) {
            rest.insert(name, value.clone());
        }
        self.metadata = rest;
        self
    }

    pub(crate) fn get(&self, key: &str) -> &Value {
        self.metadata.get(&self.key(key)).expect("the model has it")
    }

    fn key(&self, key: &str) -> String {
        if let Some(rest) = key.strip_prefix(':') {
            return format!("tokenizer.ggml.{rest}");
        }
        match key.strip_prefix('.') {
            Some(rest) => format!("{}.{rest}", self.metadata.str("general.architecture").unwrap()),
            None => key.to_owned(),
        }
    }

    pub(crate) fn index(&self, tensor: &str) -> usize {
        let at = self.tensors.iter().position(|(spec, _)| spec.name == tensor);
        at.unwrap_or_else(|| panic!("{tensor} is there"))
    }

    /// Gives a tensor another type and shape, with zeros for data.
    pub(crate) fn reshape(mut self, tensor: &str, ty: GgmlType, shape: &[usize]) -> Self {
        let at = self.index(tensor);
        let bytes = ty.row_bytes(shape[0]).unwrap() * shape[1..].iter().product::<usize>();
        self.tensors[at].0.ty = ty;
        self.tensors[at].0.shape = shape.to_vec();
        self.tensors[at].1 = vec![0; bytes];
        self
    }

    pub(crate) fn without_tensor(mut self, tensor: &str) -> Self {
        let at = self.index(tensor);
        self.tensors.remove(at);
        self
    }

    pub(crate) fn add_tensor(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let spec = TensorSpec {
            name: name.into(),
            ty: GgmlType::F32,
            shape: shape.to_vec(),
        };
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.push((spec, data));
        self
    }

    /// Changes the values of a tensor, which must be f32.
    pub(crate) fn change(mut self, tensor: &str, change: impl Fn(usize, f32) -> f32) -> Self {
        let at = self.index(tensor);
        let (spec, data) = &mut self.tensors[at];
        assert_eq!(spec.ty, GgmlType::F32);
        for (i, bytes) in data.as_chunks_mut().0.iter_mut().enumerate() {
            *bytes = change(i, f32::from_le_bytes(*bytes)).to_le_bytes();
        }
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let specs: Vec<TensorSpec> = self.tensors.iter().map(|(spec, _)| spec.clone()).collect();
        let mut writer = Writer::new(Vec::new(), &self.metadata, &specs).unwrap();
        for (spec, data) in &self.tensors {
            writer.write_tensor(&spec.name, data).unwrap();
        }
        writer.finish().unwrap()
    }

    /// Loads and evaluates it, within the bounds of memory and time.
    pub(crate) fn run(&self, what: &str) -> Result<Vec<f32>, String> {
        self.run_with(what, CacheType::F16)
            .map_err(|(stage, error)| format!("{stage:?}: {error}"))
    }

    pub(crate) fn run_with(
        &self,
        what: &str,
        cache: CacheType,
    ) -> Result<Vec<f32>, (Stage, twinfer_engine::Error)> {
        let bytes = self.bytes();
        let (result, cost) = measure(|| load_and_evaluate(bytes, cache));
        assert!(cost.peak < MOST_BYTES, "{what}: {} bytes", cost.peak);
        assert!(cost.time.as_secs_f64() < 5.0, "{what}: {:?}", cost.time);
        if let Ok(logits) = &result {
            assert!(
                logits.iter().all(|l| l.is_finite()),
                "{what}: logits that are not finite"
            );
        }
        if let Err((_, error)) = &result {
            let message = error.to_string();
            assert!(
                message.len() < 2000,
                "{what}: a message of {} bytes",
                message.len()
            );
        }
        result
    }

    /// Demands an error that holds `part`.
    pub(crate) fn refused(&self, what: &str, part: &str) {
        match self.run(what) {
            Ok(_) => panic!("{what} is accepted"),
            Err(message) => {
                println!("{what}: {message}");
                assert!(message.contains(part), "{what}: expected {part:?} in {message:?}");
            }
        }
    }

    pub(crate) fn accepted(&self, what: &str) -> Vec<f32> {
        self.run(what)
            .unwrap_or_else(|message| panic!("{what}: {message}"))
    }
}

pub(crate) fn strings<T: AsRef<[u8]>>(items: &[T]) -> Value {
    Value::Array(Array::Strings(
        items.iter().map(|item| item.as_ref().into()).collect(),
    ))
}

#[test]
fn the_models_are_sound() {
    for name in ARCHITECTURES {
        let small = Small::read(name);
        let logits = small.accepted(name);
        assert!(!logits.is_empty());
    }
}
