//! The reference files: models that must parse, malformed files that must not.

use std::path::{Path, PathBuf};

use twinfer_engine::gguf::{Gguf, ModelFile};
use twinfer_engine::memory::Bytes;

use crate::memory::measure;

/// The reference folder, or `None` and a word about it.
pub(crate) fn root() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference"));
    if path.is_dir() {
        return Some(path);
    }
    println!("gguf: left out, ../shared/reference is not there");
    None
}

/// All model files under `models`, by name.
pub(crate) fn models() -> Vec<(String, Vec<u8>)> {
    let Some(root) = root() else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    for folder in [
        "models",
        "models/src",
        "models/quantized",
        "models/synthetic",
        "models/wide",
    ] {
        for entry in std::fs::read_dir(root.join(folder)).expect("a folder of models") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|ext| ext == "gguf") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    assert!(paths.len() > 50, "{} models", paths.len());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths
        .iter()
        .map(|path| (name(path), std::fs::read(path).expect("a model")))
        .collect()
}

/// The headers of the reference vocabularies, unpacked: up to 262,144 tokens.
pub(crate) fn vocabularies() -> Vec<(String, Vec<u8>)> {
    let Some(root) = root() else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join("tokenizers")).expect("the vocabularies") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ext| ext == "gz") {
            let packed = std::fs::File::open(&path).expect("a vocabulary");
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut bytes).expect("gzip");
            files.push((path.display().to_string(), bytes));
        }
    }
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn malformed_files_are_refused_and_sound_ones_read() {
    let Some(root) = root() else {
        return;
    };
    let index = std::fs::read(root.join("gguf-bad/index.json")).expect("the index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let (mut refused, mut accepted, mut either, mut later) = (0, 0, 0, 0);
    let (mut peak, mut slowest) = (0, std::time::Duration::ZERO);
    for case in index["cases"].as_array().expect("cases") {
        let name = case["file"].as_str().expect("a file name");
        let bytes = std::fs::read(root.join("gguf-bad").join(name)).expect("a case");
        let (result, cost) = measure(|| Gguf::parse(&bytes));
        peak = peak.max(cost.peak);
        slowest = slowest.max(cost.time);
        assert!(cost.peak < 1 << 20, "{name}: {} bytes", cost.peak);
        assert!(cost.time.as_secs_f64() < 1.0, "{name}: {:?}", cost.time);
        match (case["expect"].as_str(), case["stage"].as_str()) {
            (Some("accept"), _) => {
                result.unwrap_or_else(|error| panic!("{name}: {error}"));
                accepted += 1;
            }
            (Some("reject"), Some("structure")) => {
                assert!(result.is_err(), "{name} is accepted: {}", case["why"]);
                refused += 1;
            }
            // Sound as a file; the model and the tokenizer refuse it.
            (Some("reject"), Some("semantics")) => {
                result.unwrap_or_else(|error| panic!("{name}: {error}"));
                later += 1;
            }
            (Some("either"), _) => either += 1,
            other => panic!("{name}: unknown expectation {other:?}"),
        }
    }
    assert!(refused >= 30 && accepted >= 4);
    println!(
        "gguf-bad: {refused} of {refused} structure cases refused, {accepted} of {accepted} accepted, {either} either, \
         {later} left to the model; at most {peak} bytes and {slowest:?}"
    );
}

#[test]
fn reference_models_read_with_all_their_data() {
    let models = models();
    let mut tensors = 0;
    for (name, bytes) in &models {
        let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes.clone())])
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        for tensor in file.tensors() {
            let data = file.tensor_bytes(&tensor.name).expect("its data");
            let row_bytes = tensor.ty.row_bytes(tensor.row_len()).expect("whole blocks");
            assert_eq!(data.len(), row_bytes * tensor.n_rows(), "{name}: {}", tensor.name);
            assert_eq!(&bytes[tensor.offset as usize..tensor.end() as usize], &*data);
            tensors += 1;
        }
        assert_eq!(file.metadata().str("general.architecture"), Ok("llama"), "{name}");
    }
    println!(
        "gguf: {} reference models with {tensors} tensors read",
        models.len()
    );
}

/// The version 1 file and the version 3 file made from the same model hold the same weights.
#[test]
fn version_1_holds_the_same_weights() {
    let models = models();
    let find = |part: &str| models.iter().find(|(name, _)| name.contains(part));
    let (Some((_, v1)), Some((_, v3))) = (find("gguf-v1"), find("stories260K-f32")) else {
        return;
    };
    let v1 = ModelFile::from_parts(vec![Bytes::from_vec(v1.clone())]).expect("version 1");
    let v3 = ModelFile::from_parts(vec![Bytes::from_vec(v3.clone())]).expect("version 3");
    assert_eq!(
        (v1.set().parts()[0].version(), v3.set().parts()[0].version()),
        (1, 3)
    );
    let mut same = 0;
    for tensor in v1.tensors() {
        let other = v3.tensor(&tensor.name).expect("the same names");
        assert_eq!(
            (tensor.ty, &tensor.shape),
            (other.ty, &other.shape),
            "{}",
            tensor.name
        );
        let (a, b) = (v1.tensor_bytes(&tensor.name), v3.tensor_bytes(&tensor.name));
        if *a.expect("data") == *b.expect("data") {
            same += 1;
        }
    }
    println!(
        "gguf: {same} of {} tensors of the version 1 file equal those of version 3",
        v3.tensors().count()
    );
    // Converters permute the rows of q and k for rope; all others are the same.
    assert!(same >= v3.tensors().count() - 2 * 5, "{same}");
}
