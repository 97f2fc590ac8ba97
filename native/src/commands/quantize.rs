//! `quantize`: a smaller copy of a model. Tensors go one by one: read from the mapped file, decoded and encoded by all
//! threads, written.

use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use rayon::prelude::*;
use twinfer_engine::gguf::{Metadata, ModelFile, TensorInfo, TensorSpec, Value, Writer};
use twinfer_engine::quant::{self, GgmlType, Mix, MixModel, QUANTIZATION_VERSION};

use crate::args::QuantizeArgs;
use crate::failure::Usage;
use crate::load::ModelSource;
use crate::output_file::OutputFile;
use crate::progress::Progress;
use crate::settings::Verbosity;
use crate::workers::Workers;
use crate::{interrupt, load};

/// Weights that one task takes, about: its floats stay in the cache.
const TASK_WEIGHTS: usize = 1 << 16;

pub(super) fn run(
    source: &ModelSource,
    verbosity: Verbosity,
    workers: &Workers,
    args: &QuantizeArgs,
) -> Result<()> {
    if source.path().is_some() {
        return Err(Usage("quantize takes the model as its first argument, not by -m".into()).into());
    }
    let mix = find_mix(&args.mix)?;
    let file = load::open(&args.input)?;
    let pool = workers.pool()?;
    let names = || file.tensors().map(|tensor| tensor.name.as_str());
    let model = mix_model(file.metadata(), names).with_context(|| format!("`{}`", args.input.display()))?;
    let specs: Vec<TensorSpec> = file.tensors().map(|tensor| target(tensor, mix, &model)).collect();
    warn_of_quantized(verbosity, &file, &specs);

    // Before the guard: Ctrl-C ends the wait for a reader of a FIFO.
    let out = OutputFile::create(&args.output, args.out.read_only())?;
    let _guard = interrupt::Guard::new();
    let start = Instant::now();
    let failed = || format!("cannot write `{}`", args.output.display());
    let mut writer = Writer::new(out, &metadata(&file, mix), &specs).with_context(failed)?;
    let weights: u64 = file.tensors().map(|t| t.n_elements() as u64).sum();
    let mut progress = Progress::new("quantizing", weights, verbosity);
    let mut before = 0u64;
    let mut after = 0u64;
    for (tensor, spec) in file.tensors().zip(&specs) {
        let bytes = file.tensor_bytes(&tensor.name)?;
        let data = if spec.ty == tensor.ty {
            None
        } else {
            let mut report = |done: usize| progress.add(done as u64);
            Some(pool.install(|| convert(tensor, &bytes, spec.ty, &mut report))?)
        };
        let data = data.as_deref().unwrap_or(&bytes);
        writer.write_tensor(&spec.name, data).with_context(failed)?;
        if spec.ty == tensor.ty {
            progress.add(tensor.n_elements() as u64);
        }
        before += bytes.len() as u64;
        after += data.len() as u64;
    }
    writer.finish().with_context(failed)?.commit()?;
    drop(progress);
    if !verbosity.is_quiet() {
        let mib = |n: u64| n as f64 / f64::from(1 << 20);
        verbosity.note(&format!(
            "`{}`: {:.1} MiB -> {:.1} MiB, {:.2} bits per weight, {:.1} s",
            args.output.display(),
            mib(before),
            mib(after),
            after as f64 * 8.0 / weights.max(1) as f64,
            start.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

/// The mix of this name; the error lists them.
pub(super) fn find_mix(name: &str) -> Result<Mix> {
    Mix::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Mix::ALL.iter().map(|mix| mix.name()).collect();
        anyhow!("there is no type or mix `{name}`; there are {}", names.join(", "))
    })
}

/// What the mix wants to know of the model with tensors of these names; what the metadata do not say has no influence.
pub(super) fn mix_model<'a, I: Iterator<Item = &'a str>>(
    metadata: &Metadata,
    names: impl Fn() -> I,
) -> Result<MixModel> {
    let arch = metadata.opt_str("general.architecture")?.unwrap_or_default();
    // Some architectures give one number per layer; the largest stands for all.
    let number = |key: &str| -> Option<usize> {
        let key = format!("{arch}.{key}");
        if let Ok(Some(n)) = metadata.opt_u32(&key) {
            return Some(n as usize);
        }
        let largest = metadata.opt_ints(&key).ok()??.into_iter().max()?;
        usize::try_from(largest).ok()
    };
    let heads = number("attention.head_count").unwrap_or(1);
    let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
    Ok(MixModel {
        n_layers: number("block_count").unwrap_or(0),
        n_experts: number("expert_count").unwrap_or(0),
        gqa: (heads / kv_heads.max(1)).max(1),
        tied_output: !names().any(|name| name == "output.weight"),
        value_layers: MixModel::value_layers(names()),
    })
}

fn target(tensor: &TensorInfo, mix: Mix, model: &MixModel) -> TensorSpec {
    let dims: Vec<u64> = tensor.shape.iter().map(|&d| d as u64).collect();
    let wanted = if tensor.ty.is_weight() {
        mix.tensor_type(&tensor.name, &dims, model)
    } else {
        None
    };
    TensorSpec {
        ty: wanted.unwrap_or(tensor.ty),
        ..TensorSpec::from(tensor)
    }
}

fn metadata(file: &ModelFile, mix: Mix) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in file
        .metadata()
        .iter()
        .filter(|(key, _)| !key.starts_with("split."))
    {
        metadata.insert(key, value.clone());
    }
    metadata.insert("general.file_type", Value::U32(mix.file_type()));
    metadata.insert("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    metadata
}

fn warn_of_quantized(verbosity: Verbosity, file: &ModelFile, specs: &[TensorSpec]) {
    let twice = file
        .tensors()
        .zip(specs)
        .find(|(tensor, spec)| tensor.ty != spec.ty && !tensor.ty.is_float());
    if let Some((tensor, _)) = twice {
        verbosity.note(&format!(
            "note: the model is quantized already (`{}` is {}); a copy made from the original floats would be better",
            tensor.name,
            tensor.ty.name()
        ));
    }
}

/// Decodes and encodes a tensor, a few rows per task.
fn convert(
    tensor: &TensorInfo,
    bytes: &[u8],
    ty: GgmlType,
    report: &mut (dyn FnMut(usize) + Send),
) -> Result<Vec<u8>> {
    let k = tensor.row_len();
    let sizes = tensor.ty.row_bytes(k).zip(ty.row_bytes(k));
    let (from, to) = sizes.filter(|&(from, to)| from > 0 && to > 0).ok_or_else(|| {
        anyhow!(
            "tensor `{}`: rows of {k} do not fit type {}",
            tensor.name,
            ty.name()
        )
    })?;
    let mut out = vec![0; tensor.n_rows() * to];
    let rows = (TASK_WEIGHTS / k).max(1);
    // Every thread gets some tasks between two looks at Ctrl-C and the progress.
    let batch = rows * rayon::current_num_threads() * 8;
    for (source, target) in bytes.chunks(batch * from).zip(out.chunks_mut(batch * to)) {
        interrupt::check()?;
        source
            .par_chunks(rows * from)
            .zip(target.par_chunks_mut(rows * to))
            .try_for_each_init(Vec::new, |weights, (source, target)| {
                weights.resize(source.len() / from * k, 0.0);
                quant::decode(tensor.ty, source, weights)?;
                quant::encode(ty, weights, None, target)
            })
            .with_context(|| format!("tensor `{}`", tensor.name))?;
        report(source.len() / from * k);
    }
    Ok(out)
}
