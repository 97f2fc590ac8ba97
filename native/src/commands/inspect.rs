//! `inspect`: metadata and tensors of a file, for people, for programs, or one tensor as numbers.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Write as _};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Map, Value as Json, json};
use twinfer_engine::cache::Pool;
use twinfer_engine::gguf::{Array, ModelFile, TensorInfo, Value};
use twinfer_engine::kernels::select;
use twinfer_engine::model::config::Config;
use twinfer_engine::model::pooling::Pooling;

use crate::args::InspectArgs;
use crate::budget::Room;
use crate::compute::Compute;
use crate::load::ModelSource;
use crate::output_file::{OutputFile, ReadOnly, write_whole};
use crate::settings::Settings;
use crate::workers::Workers;
use crate::{budget, output};

/// Array elements and characters that are shown without `--full`.
const SHOWN_ELEMENTS: usize = 8;
const SHOWN_CHARS: usize = 80;

/// `workers` looks at the machine, which a plan alone needs.
pub(super) fn run(
    settings: &Settings,
    workers: &dyn Fn() -> Result<Workers>,
    args: &InspectArgs,
) -> Result<()> {
    let source = match &args.file {
        Some(path) => ModelSource::File(path.clone()),
        None => settings.source.clone(),
    };
    let file = source.open()?;
    if let (Some(name), Some(path)) = (&args.dump_tensor, &args.output) {
        return dump(&file, name, path, args.out.read_only());
    }
    let report = if args.plan {
        let settings = Settings {
            source,
            ..settings.clone()
        };
        plan(&settings, &workers()?, &file, args)?
    } else if args.json {
        output::json_text(&as_json(&file, args.full))?
    } else {
        as_text(&file, args.full)
    };
    match &args.output {
        Some(path) => write_whole(path, report.as_bytes(), args.out.read_only()),
        None => output::to_stdout(&report),
    }
}

/// Rows of a pass while a prompt is read, as `run` has them.
const N_BATCH: usize = 512;

/// What the model takes with a context, as text or JSON.
fn plan(settings: &Settings, workers: &Workers, file: &ModelFile, args: &InspectArgs) -> Result<String> {
    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(file)?;
    let n_ctx = compute.context_size(planned.config());
    let context = compute.sequences((n_ctx, N_BATCH), args.parallel, Pool::Whole);
    let planned = compute.settle_experts(planned, &context)?;
    let budget = compute.budget(&planned, &context)?;
    let rooms = compute.rooms();
    let nodes = compute.rooms_of_nodes();
    let small = budget::too_small(&budget, &rooms, &nodes);
    let advice = match small {
        Some(_) => compute.advice(&planned, &context, &rooms),
        None => Vec::new(),
    };
    let backend = select::choose(settings.weights.backend.as_deref())?.name();
    if args.json {
        let all: Vec<Json> = rooms.iter().chain(&nodes).map(Room::json).collect();
        return output::json_text(&json!({
            "n_ctx": n_ctx,
            "n_batch": context.n_batch,
            "sequences": args.parallel,
            "threads": workers.n,
            "backend": backend,
            "cache_type_k": context.cache_type_k.name(),
            "cache_type_v": context.cache_type_v.name(),
            "plan": budget.json(),
            "rooms": all,
            "fits": small.is_none(),
            "what_would_fit": advice,
        }));
    }
    let mut out = format!(
        "Memory for {} of {n_ctx} tokens, batches of {}, {} threads, backend {backend}\n\n{}\n",
        match args.parallel {
            1 => "a context".into(),
            n => format!("{n} sequences"),
        },
        context.n_batch,
        workers.n,
        budget.table(),
    );
    for room in rooms.iter().chain(&nodes) {
        let _ = writeln!(out, "Free of {}: {} MiB", room.limiter, room.free >> 20);
    }
    match small {
        None => out.push_str("It fits.\n"),
        Some((room, _)) => {
            let _ = writeln!(out, "It does not fit into what is free of {}.", room.limiter);
            for options in advice {
                let _ = writeln!(out, "  would fit: {options}");
            }
        }
    }
    Ok(out)
}

fn dump(file: &ModelFile, name: &str, path: &Path, read_only: ReadOnly) -> Result<()> {
    let tensor = file.tensor(name).ok_or_else(|| unknown_tensor(file, name))?;
    let bytes = file.tensor_bytes(name)?;
    let k = tensor.row_len();
    let row_bytes = tensor.ty.row_bytes(k).unwrap_or(0);
    if row_bytes == 0 {
        return Err(anyhow!("tensor `{name}` has no rows"));
    }
    let mut out = OutputFile::create(path, read_only)?;
    let mut values = vec![0.0f32; k];
    let mut row_out = Vec::with_capacity(k * 4);
    for row in bytes.chunks_exact(row_bytes) {
        decode_row(tensor, row, &mut values)?;
        row_out.clear();
        for value in &values {
            row_out.extend_from_slice(&value.to_le_bytes());
        }
        out.write_all(&row_out)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    out.commit()
}

/// The nearest names help more than "not found": those that begin alike.
fn unknown_tensor(file: &ModelFile, name: &str) -> anyhow::Error {
    let common = |other: &str| {
        name.bytes()
            .zip(other.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    let longest = file.tensors().map(|t| common(&t.name)).max().unwrap_or(0);
    if longest < 3 {
        return anyhow!("there is no tensor `{name}`; `twinfer inspect` lists them");
    }
    let near = file
        .tensors()
        .map(|t| t.name.as_str())
        .filter(|t| common(t) == longest);
    let near: Vec<&str> = near.take(4).collect();
    anyhow!("there is no tensor `{name}`; similar: {}", near.join(", "))
}

fn decode_row(tensor: &TensorInfo, row: &[u8], values: &mut [f32]) -> Result<()> {
    twinfer_engine::quant::decode(tensor.ty, row, values).with_context(|| format!("tensor `{}`", tensor.name))
}

fn shape(tensor: &TensorInfo) -> String {
    tensor
        .shape
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(" x ")
}

fn as_text(file: &ModelFile, full: bool) -> String {
    let mut out = String::new();
    let metadata = file.metadata();
    let _ = writeln!(
        out,
        "GGUF version {}, {} metadata keys, {} tensors, {}",
        file.set().parts().first().map_or(0, |part| part.version()),
        metadata.len(),
        file.tensors().count(),
        match file.parts().len() {
            1 => "one file".into(),
            n => format!("{n} files"),
        }
    );
    // A person looks for what the model is before anything else.
    if let Some(Value::String(description)) = metadata.get("general.description") {
        let _ = writeln!(out, "{}", printable(description));
    }
    if let Some(vectors) = Vectors::of(file) {
        let _ = writeln!(out, "{vectors}");
    }
    let _ = writeln!(out, "\nMetadata");
    let width = metadata
        .iter()
        .map(|(key, _)| printable(key).len())
        .max()
        .unwrap_or(0);
    for (key, value) in metadata.iter() {
        let _ = writeln!(out, "  {:width$}  {}", printable(key), show(value, full));
    }
    let _ = writeln!(out, "\nTensors");
    let name = file
        .tensors()
        .map(|t| printable(&t.name).len())
        .max()
        .unwrap_or(0);
    for tensor in file.tensors() {
        let _ = writeln!(
            out,
            "  {:name$}  {:8}  {:>18}  {:>12} bytes",
            printable(&tensor.name),
            tensor.ty.name(),
            shape(tensor),
            tensor.bytes
        );
    }
    let _ = writeln!(out, "\nTypes");
    let mut elements = 0u64;
    let mut bytes = 0u64;
    for (ty, (count, n, b)) in by_type(file) {
        elements += n;
        bytes += b;
        let bits = b as f64 * 8.0 / n as f64;
        let _ = writeln!(
            out,
            "  {ty:8}  {count:>5} tensors  {n:>14} weights  {b:>14} bytes  {bits:.2} bits per weight"
        );
    }
    let _ = writeln!(
        out,
        "  {:8}  {:>5} tensors  {elements:>14} weights  {bytes:>14} bytes  {:.2} bits per weight",
        "total",
        file.tensors().count(),
        if elements == 0 {
            0.0
        } else {
            bytes as f64 * 8.0 / elements as f64
        }
    );
    out
}

/// What vectors a model makes of texts, where it is made for that.
struct Vectors {
    config: Config,
    pooling: Option<Pooling>,
}

impl Vectors {
    /// `None` for a model that writes text, and for a file that is none.
    fn of(file: &ModelFile) -> Option<Self> {
        let config = Config::from_file(file).ok()?;
        let pooling = config.pooling.kind;
        (pooling.is_some() || !config.writes_text()).then_some(Vectors { config, pooling })
    }

    /// Values of a vector.
    fn len(&self) -> usize {
        self.config.vector_len(self.pooling.unwrap_or(Pooling::None))
    }

    fn json(&self) -> Json {
        json!({
            "length": self.len(),
            "pooling": self.pooling.map(Pooling::name),
            "causal": self.config.is_causal(),
            "max_tokens": self.config.max_positions(self.config.n_ctx_train),
        })
    }
}

impl Display for Vectors {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let kind = match (self.config.writes_text(), self.config.is_causal()) {
            (true, _) => "A decoder that also",
            (false, true) => "An encoder that",
            (false, false) => "An encoder (all positions see one another) that",
        };
        match (self.pooling, self.len()) {
            (Some(Pooling::Rank), 1) => write!(f, "{kind} gives a query with a document a score"),
            (Some(Pooling::Rank), n) => write!(f, "{kind} gives a query with a document {n} scores"),
            (None | Some(Pooling::None), n) => write!(f, "{kind} makes a vector of {n} of each token"),
            (Some(pooling), n) => write!(
                f,
                "{kind} makes a vector of {n} of a text: pooling {}",
                pooling.name()
            ),
        }
    }
}

/// Text of a file, with nothing in it that a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Per type: tensors, weights, bytes.
fn by_type(file: &ModelFile) -> BTreeMap<&'static str, (u64, u64, u64)> {
    let mut types = BTreeMap::new();
    for tensor in file.tensors() {
        let entry: &mut (u64, u64, u64) = types.entry(tensor.ty.name()).or_default();
        entry.0 += 1;
        entry.1 += tensor.n_elements() as u64;
        entry.2 += tensor.bytes;
    }
    types
}

fn show(value: &Value, full: bool) -> String {
    match value {
        Value::String(text) => {
            if full || text.chars().count() <= SHOWN_CHARS {
                return format!("{text:?}");
            }
            let head: String = text.chars().take(SHOWN_CHARS).collect();
            format!("{head:?}… ({} bytes)", text.len())
        }
        Value::Array(array) => {
            let shown = if full { array.len() } else { SHOWN_ELEMENTS };
            let (items, _) = elements(array, shown);
            let items: Vec<String> = items.iter().map(Json::to_string).collect();
            let more = if array.len() > shown { ", …" } else { "" };
            format!(
                "[{}{more}] ({} {})",
                items.join(", "),
                array.len(),
                array.type_name()
            )
        }
        Value::Bytes(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        // "u32 5" -> "5"
        other => other
            .describe()
            .split_once(' ')
            .map_or_else(|| other.describe(), |(_, v)| v.into()),
    }
}

fn as_json(file: &ModelFile, full: bool) -> Json {
    let metadata: Map<String, Json> = file
        .metadata()
        .iter()
        .map(|(key, value)| (key.to_string(), value_json(value, full)))
        .collect();
    let tensors: Vec<Json> = file
        .tensors()
        .map(|t| {
            json!({
                "name": t.name, "type": t.ty.name(), "shape": t.shape, "offset": t.offset, "bytes": t.bytes,
            })
        })
        .collect();
    let types: Map<String, Json> = by_type(file)
        .into_iter()
        .map(|(ty, (count, n, b))| {
            (
                ty.to_string(),
                json!({"tensors": count, "weights": n, "bytes": b}),
            )
        })
        .collect();
    let mut report = json!({
        "version": file.set().parts().first().map(|part| part.version()),
        "alignment": file.set().parts().first().map(|part| part.alignment()),
        "files": file.parts().len(),
        "metadata": metadata,
        "tensors": tensors,
        "types": types,
    });
    if let Some(vectors) = Vectors::of(file) {
        report["vectors"] = vectors.json();
    }
    report
}

/// Long arrays are given by type and length, with the first elements, unless `full`.
fn value_json(value: &Value, full: bool) -> Json {
    match value {
        Value::U8(v) => json!(v),
        Value::I8(v) => json!(v),
        Value::U16(v) => json!(v),
        Value::I16(v) => json!(v),
        Value::U32(v) => json!(v),
        Value::I32(v) => json!(v),
        Value::F32(v) => output::json_f32(*v),
        Value::Bool(v) => json!(v),
        Value::String(v) => json!(v),
        Value::Bytes(v) => json!(String::from_utf8_lossy(v)),
        Value::U64(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::F64(v) => output::json_f64(*v),
        Value::Array(array) => {
            let shown = if full { array.len() } else { SHOWN_ELEMENTS };
            let (items, complete) = elements(array, shown);
            if complete {
                return Json::Array(items);
            }
            json!({"type": array.type_name(), "length": array.len(), "first": items})
        }
    }
}

/// The first `n` elements, and whether those are all.
fn elements(array: &Array, n: usize) -> (Vec<Json>, bool) {
    fn take<T>(v: &[T], n: usize, f: impl Fn(&T) -> Json) -> Vec<Json> {
        v.iter().take(n).map(f).collect()
    }
    let items = match array {
        Array::U8(v) => take(v, n, |x| json!(x)),
        Array::I8(v) => take(v, n, |x| json!(x)),
        Array::U16(v) => take(v, n, |x| json!(x)),
        Array::I16(v) => take(v, n, |x| json!(x)),
        Array::U32(v) => take(v, n, |x| json!(x)),
        Array::I32(v) => take(v, n, |x| json!(x)),
        Array::F32(v) => take(v, n, |x| output::json_f32(*x)),
        Array::Bool(v) => take(v, n, |x| json!(x)),
        Array::Strings(v) => take(v, n, |x| json!(String::from_utf8_lossy(x))),
        Array::U64(v) => take(v, n, |x| json!(x)),
        Array::I64(v) => take(v, n, |x| json!(x)),
        Array::F64(v) => take(v, n, |x| output::json_f64(*x)),
        Array::Arrays(v) => take(v, n, |x| Json::Array(elements(x, n).0)),
    };
    (items, array.len() <= n)
}
