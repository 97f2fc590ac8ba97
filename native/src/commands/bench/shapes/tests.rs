use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::quant::{GgmlType, Mix};

use super::*;
use crate::commands::quantize::mix_model;

#[test]
fn sizes_are_those_that_the_names_promise() {
    // Billions of all parameters, and of those that a token meets where that is not all (embeddings by row).
    for (name, billions, active) in [
        ("llama-3.2-1b", 1.24, None),
        ("llama-3.2-3b", 3.21, None),
        ("llama-3.1-8b", 8.03, None),
        ("llama-3.3-70b", 70.55, None),
        ("mistral-7b", 7.25, None),
        ("tinyllama-1.1b", 1.10, None),
        ("stories42m", 0.0417, None),
        ("smollm2-135m", 0.135, None),
        ("qwen2.5-0.5b", 0.494, None),
        ("qwen2.5-7b", 7.62, None),
        ("qwen3-0.6b", 0.596, None),
        ("qwen3-8b", 8.19, None),
        ("qwen3-32b", 32.76, None),
        ("gemma-3-1b", 1.0, None),
        ("gemma-3-4b", 3.88, None),
        ("phi-3-mini", 3.82, None),
        ("phi-4", 14.66, None),
        ("stories15m-moe", 0.03635, Some(0.0192)),
        ("qwen3-30b-a3b", 30.53, Some(3.04)),
        ("qwen3.6-35b-a3b", 34.66, Some(2.95)),
        ("gpt-oss-20b", 20.9, Some(3.61)),
        ("gpt-oss-120b", 116.8, Some(5.13)),
        ("gemma-4-e4b", 7.5, None),
        ("gemma-4-26b-a4b", 25.2, Some(3.8)),
        ("lfm2-8b-a1b", 8.34, Some(1.5)),
        ("granite-4-h-tiny", 6.94, Some(1.47)),
        ("deepseek-v3", 671.0, Some(36.6)),
        ("bge-m3", 0.567, None),
        ("all-minilm", 0.0227, None),
    ] {
        let (all, met) = find(name).unwrap().model(None).unwrap().parameters();
        let (all, met) = (all as f64 / 1e9, met as f64 / 1e9);
        assert!((all / billions - 1.0).abs() < 0.01, "{name}: {all}");
        if let Some(active) = active {
            assert!((met / active - 1.0).abs() < 0.04, "{name}: {met} active");
        }
    }
    assert!(find("gpt-5").unwrap_err().to_string().contains("llama-3.1-8b"));
}

#[test]
fn fewer_layers_are_a_model_as_well() {
    for shape in SHAPES {
        let whole = shape.model(None).unwrap();
        let kinds = |model: &Model| layer_kinds(model).len();
        let least = (1..=shape.n_layers)
            .find(|&n| shape.model(Some(n)).is_ok())
            .unwrap();
        if least > 1 {
            let error = shape.model(Some(least - 1)).unwrap_err().to_string();
            assert!(error.contains("--layers"), "{error}");
        }
        assert!(shape.model(Some(shape.n_layers + 1)).is_err(), "{}", shape.name);
        let cut = shape.model(Some(least)).unwrap();
        assert_eq!(cut.n_layers(), least);
        // What has a number for each layer has as many.
        for (key, value) in cut.keys() {
            if let (Value::Array(array), true) = (value, key != "rope.dimension_sections") {
                assert_eq!(array.len(), least, "{}: {key}", shape.name);
            }
        }
        // Of Gemma's two kinds of attention one is enough.
        if !shape.name.starts_with("gemma-4") {
            assert_eq!(kinds(&cut), kinds(&whole), "{}", shape.name);
        }
    }
    // Keys and values are shared only by layers behind a local and a global one.
    let shared = |n| {
        let keys = find("gemma-4-e4b").unwrap().model(Some(n)).unwrap().keys();
        let of = |(key, value)| (key == "attention.shared_kv_layers").then_some(value);
        keys.into_iter().find_map(of).unwrap()
    };
    for (n, expected) in [(1, 0), (6, 0), (8, 2), (12, 0), (18, 6), (42, 18)] {
        assert_eq!(shared(n), number(expected), "{n}");
    }
}

type Kind = BTreeSet<(String, usize)>;

/// Names without `blk.N.` and numbers of dimensions, of each layer, and of what belongs to none.
fn kinds<'a>(tensors: impl Iterator<Item = (&'a str, usize)>) -> (BTreeSet<Kind>, Kind) {
    let mut layers: BTreeMap<String, Kind> = BTreeMap::new();
    let mut others = Kind::new();
    for (name, dims) in tensors {
        match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((layer, suffix)) => {
                layers
                    .entry(layer.into())
                    .or_default()
                    .insert((suffix.into(), dims));
            }
            None => {
                others.insert((name.into(), dims));
            }
        }
    }
    (layers.into_values().collect(), others)
}

fn layer_kinds(model: &Model) -> BTreeSet<Kind> {
    let tensors = model.tensors();
    kinds(tensors.iter().map(|t| (t.name.as_str(), t.shape.len()))).0
}

/// A reference model, where it is there.
fn reference(name: &str) -> Option<ModelFile> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared/reference/archs").join(name))
        .find(|path| path.exists());
    let Some(path) = path else {
        println!("left out: there is no reference model {name}");
        return None;
    };
    let bytes = std::fs::read(path).unwrap();
    Some(ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).unwrap())
}

#[test]
fn layers_have_the_tensors_of_reference_models() {
    for (shape, name) in [
        ("qwen3-30b-a3b", "qwen3moe-a.gguf"),
        ("qwen3.6-35b-a3b", "qwen35moe-a.gguf"),
        ("gpt-oss-20b", "gpt-oss-a.gguf"),
        ("gpt-oss-120b", "gpt-oss-mxfp4_moe-a.gguf"),
        ("gemma-4-26b-a4b", "gemma4-moe-a.gguf"),
        ("gemma-4-e4b", "gemma4-ple-a.gguf"),
        ("lfm2-8b-a1b", "lfm2moe-a.gguf"),
        ("granite-4-h-tiny", "granitehybrid-a.gguf"),
        ("deepseek-v3", "deepseek2-mla-a.gguf"),
        ("bge-m3", "bert-cls-a.gguf"),
        ("all-minilm", "bert-mean-a.gguf"),
    ] {
        let Some(file) = reference(name) else { continue };
        let model = find(shape).unwrap().model(None).unwrap();
        let (layers, others) = kinds(file.tensors().map(|t| (t.name.as_str(), t.shape.len())));
        assert_eq!(layer_kinds(&model), layers, "{shape}");
        let tensors = model.tensors();
        let (_, mut own) = kinds(tensors.iter().map(|t| (t.name.as_str(), t.shape.len())));
        // Whether the output is tied is the model's matter.
        if others.contains(&("output.weight".into(), 2)) {
            own.insert(("output.weight".into(), 2));
        }
        assert_eq!(own, others, "{shape}");
        let keys: BTreeSet<String> = model
            .keys()
            .iter()
            .map(|(key, _)| format!("{}.{key}", model.arch))
            .collect();
        let prefix = format!("{}.", model.arch);
        // The width of a dense layer is said where there is one.
        let optional = format!("{prefix}feed_forward_length");
        for (key, _) in file.metadata().iter() {
            if key.starts_with(&prefix) && !keys.contains(key) && key != optional {
                panic!("{shape}: {key} is missing");
            }
        }
    }
}

/// What llama.cpp's quantizer chose for models with experts and states is what the mixes choose.
#[test]
fn mixes_are_those_of_quantized_reference_models() {
    for (name, mix) in [
        ("qwen3moe-q4_k_m-a.gguf", Mix::Q4_K_M),
        ("qwen35moe-q4_k_m-a.gguf", Mix::Q4_K_M),
        ("qwen3next-q4_k_m-a.gguf", Mix::Q4_K_M),
        ("lfm2moe-q4_k_m-a.gguf", Mix::Q4_K_M),
        ("gemma4-moe-q4_k_m-a.gguf", Mix::Q4_K_M),
        ("gemma4-ple-q4_k_m-a.gguf", Mix::Q4_K_M),
        ("gemma4-dense-q4_k_m-a.gguf", Mix::Q4_K_M),
        ("qwen35-q5_k_m-a.gguf", Mix::Q5_K_M),
        ("lfm2-q6_k-a.gguf", Mix::Q6_K),
        ("gpt-oss-mxfp4_moe-a.gguf", Mix::MXFP4),
    ] {
        let Some(file) = reference(name) else { continue };
        let names = || file.tensors().map(|tensor| tensor.name.as_str());
        let model = mix_model(file.metadata(), names).unwrap();
        for tensor in file.tensors() {
            let dims: Vec<u64> = tensor.shape.iter().map(|&d| d as u64).collect();
            let chosen = mix.tensor_type(&tensor.name, &dims, &model);
            let chosen = chosen.unwrap_or(GgmlType::F32);
            assert_eq!(chosen, tensor.ty, "{name}: {}", tensor.name);
        }
    }
}
