//! Whole models against logits that no part of this project made: llama.cpp's, and an ideal float64 forward pass over
//! the same weights. Prints a table per type; the bounds are the ones that the README states, and no figure may be
//! worse than the one recorded in `data/reference_logits.txt`. Our side of the figures is the same on every machine, so
//! there is no tolerance. After a change that makes them better (of the numerics: see `docs/numerics.md`), or with new
//! models, record them with `TWINFER_BLESS=1 cargo test -p twinfer-tests --test reference_logits`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

fn reference() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    if path.is_dir() {
        Some(path)
    } else {
        println!("left out: no reference data at {}", path.display());
        None
    }
}

fn model(path: &Path) -> Arc<Model> {
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    Arc::new(Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap())
}

fn team(n: usize) -> Team {
    Team::new(n, |_, work| {
        std::thread::spawn(work);
    })
}

fn context(model: &Arc<Model>, threads: usize, n_batch: usize, cache: CacheType) -> Context {
    let options = ContextOptions {
        n_ctx: 512,
        n_batch,
        n_sequences: 1,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k: cache,
        cache_type_v: cache,
    };
    Context::new(Arc::clone(model), team(threads), options).unwrap()
}

fn all_logits(context: &mut Context, tokens: &[u32]) -> Vec<Vec<f32>> {
    let sequence = context.open().unwrap();
    let mut rows = Vec::new();
    context
        .eval_all(sequence, tokens, &mut |_, logits| rows.push(logits.to_vec()))
        .unwrap();
    context.close(sequence).unwrap();
    rows
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap() as u32)
        .collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn record(root: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(root.join(format!("logits/{name}.json"))).unwrap()).unwrap()
}

fn rows(path: &Path, n_vocab: usize) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let values: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    values.chunks_exact(n_vocab).map(<[f32]>::to_vec).collect()
}

fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best
}

/// KL divergence of softmax(b) from softmax(a), in nats.
fn kl(a: &[f32], b: &[f32]) -> f64 {
    let log_softmax = |row: &[f32]| {
        let max = f64::from(row[argmax(row)]);
        let sum: f64 = row.iter().map(|v| libm::exp(f64::from(*v) - max)).sum();
        row.iter()
            .map(|v| f64::from(*v) - max - libm::log(sum))
            .collect::<Vec<f64>>()
    };
    let (a, b) = (log_softmax(a), log_softmax(b));
    a.iter().zip(&b).map(|(a, b)| libm::exp(*a) * (a - b)).sum()
}

/// How one model's logits lie between the references.
#[derive(Default)]
struct Figures {
    rms: f64,
    worst: f64,
    reference_rms: f64,
    kl: f64,
    top1: usize,
    rows: usize,
    /// Teacher-forced positions whose ideal argmax is clear, and how many of them differ.
    clear: usize,
    wrong: usize,
}

fn measure(root: &Path, path: &Path) -> Figures {
    let name = stem(path);
    let record = record(root, name);
    let n_vocab = number(&record["n_vocab"]);
    let ideal = rows(&root.join(format!("logits/full/{name}.ideal.f32")), n_vocab);
    let versus = &record["llama_cpp_vs_ideal"];
    let margin = 2.0 * versus["max_abs_logit_diff_top10"].as_f64().unwrap();
    let mut context = context(&model(path), 2, 512, CacheType::F32);
    let mut figures = Figures {
        reference_rms: versus["rms_full"].as_f64().unwrap(),
        ..Figures::default()
    };
    let mut squares = 0.0;
    for prompt in record["prompts"].as_array().unwrap() {
        let prompt_ids = ids(&prompt["prompt_ids"]);
        let tokens = [prompt_ids.clone(), ids(&prompt["greedy_ids"])].concat();
        let logits = all_logits(&mut context, &tokens);
        let first = number(&prompt["full_logits_first_row"]);
        let ideal = &ideal[first..first + number(&prompt["full_logits_rows"])];
        for (ours, ideal) in logits.iter().zip(ideal) {
            for (a, b) in ours.iter().zip(ideal) {
                let difference = (f64::from(*a) - f64::from(*b)).abs();
                squares += difference * difference;
                if difference > figures.worst {
                    figures.worst = difference;
                }
            }
            figures.kl += kl(ideal, ours);
            figures.top1 += usize::from(argmax(ideal) == argmax(ours));
            figures.rows += 1;
        }
        let best = ids(&prompt["ideal_teacher_forced_argmax"]);
        let margins = floats(&prompt["ideal_teacher_forced_margin"]);
        for (i, (best, ideal_margin)) in best.iter().zip(margins).enumerate() {
            if ideal_margin > margin {
                figures.clear += 1;
                figures.wrong += usize::from(argmax(&logits[prompt_ids.len() - 1 + i]) != *best as usize);
            }
        }
    }
    figures.rms = (squares / (figures.rows * n_vocab) as f64).sqrt();
    figures.kl /= figures.rows as f64;
    figures
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .collect();
    files.sort();
    files
}

/// Greedy ids equal the reference's, except from a token on where its margin is below this.
const NEAR_TIE: f64 = 1e-3;

#[test]
fn stories_greedy_ids_equal_the_reference() {
    let Some(root) = reference() else { return };
    let (mut equal, mut ties) = (0, 0);
    for name in ["stories260K-f32", "stories260K-f16"] {
        let model = model(&root.join(format!("models/{name}.gguf")));
        let mut context = context(&model, 2, 512, CacheType::F32);
        for prompt in record(&root, name)["prompts"].as_array().unwrap() {
            let sequence = context.open().unwrap();
            let margins = floats(&prompt["greedy_margin"]);
            let mut next = argmax(context.prefill(sequence, &ids(&prompt["prompt_ids"])).unwrap());
            for (want, margin) in ids(&prompt["greedy_ids"]).iter().zip(margins) {
                if next != *want as usize {
                    assert!(margin < NEAR_TIE, "{name}: {next} for {want}, margin {margin}");
                    ties += 1;
                    break;
                }
                equal += 1;
                next = argmax(context.decode(sequence, *want).unwrap());
            }
            context.close(sequence).unwrap();
        }
    }
    println!(
        "stories260K f32, f16: {equal} greedy ids equal, {ties} texts forked at a near-tie (margin < {NEAR_TIE})"
    );
    assert!(equal > 0);
}

/// The figures of a model that are held to what was recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Recorded {
    rms: f64,
    kl: f64,
    top1: usize,
}

impl Recorded {
    /// What is worse in `self` than in `before`.
    fn worse_than(&self, before: &Recorded) -> Vec<String> {
        let mut worse = Vec::new();
        for (what, now, before) in [
            ("RMS", self.rms, before.rms),
            ("KL divergence", self.kl, before.kl),
        ] {
            if now.is_nan() || now > before {
                worse.push(format!("{what} {now:e}, recorded {before:e}"));
            }
        }
        if self.top1 < before.top1 {
            worse.push(format!("top-1 {}, recorded {}", self.top1, before.top1));
        }
        worse
    }
}

fn recorded_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reference_logits.txt")
}

/// What was recorded, by model. A line is `model rms kl top-1`.
fn recorded(text: &str) -> BTreeMap<String, Recorded> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let figures = Recorded {
                rms: fields[1].parse().unwrap(),
                kl: fields[2].parse().unwrap(),
                top1: fields[3].parse().unwrap(),
            };
            (fields[0].to_owned(), figures)
        })
        .collect()
}

/// Compares with the record, or writes it where that is asked for. The complaints.
fn held_to_record(now: &BTreeMap<String, Recorded>) -> Vec<String> {
    if std::env::var_os("TWINFER_BLESS").is_some() {
        let mut text = String::from(
            "# What tests/reference_logits.rs holds every model to: RMS distance to ideal logits, mean KL divergence from\n\
             # them, equal argmaxes. The fewest digits that give the number back.\n",
        );
        for (name, figures) in now {
            let Recorded { rms, kl, top1 } = figures;
            text += &format!("{name} {rms:e} {kl:e} {top1}\n");
        }
        std::fs::write(recorded_path(), text).unwrap();
    }
    let before = recorded(&std::fs::read_to_string(recorded_path()).unwrap_or_default());
    let mut complaints = Vec::new();
    let mut better = 0;
    for (name, figures) in now {
        let Some(before) = before.get(name) else {
            complaints.push(format!("{name}: nothing is recorded"));
            continue;
        };
        let worse = figures.worse_than(before);
        better += usize::from(worse.is_empty() && figures != before);
        complaints.extend(worse.iter().map(|worse| format!("{name}: {worse}")));
    }
    println!(
        "{} models held to the record; {better} of them better than it",
        now.len()
    );
    complaints
}

#[test]
fn what_is_worse_than_recorded_is_named() {
    let before = Recorded {
        rms: 0.5,
        kl: 1e-7,
        top1: 9,
    };
    assert!(before.worse_than(&before).is_empty());
    let better = Recorded {
        rms: 0.4999,
        kl: 9e-8,
        top1: 10,
    };
    assert!(better.worse_than(&before).is_empty());
    assert_eq!(before.worse_than(&better).len(), 3);
    let not_a_number = Recorded {
        rms: f64::NAN,
        ..before
    };
    assert_eq!(not_a_number.worse_than(&before).len(), 1);
    let exact = 0.1 + 0.2;
    let text = format!("# x\na {exact:e} {:e} 3\n", 1e-7);
    let back = recorded(&text)["a"];
    assert_eq!((back.rms, back.kl, back.top1), (exact, 1e-7, 3));
}

#[test]
fn every_type_is_as_close_to_ideal_as_the_reference() {
    let Some(root) = reference() else { return };
    let mut table = BTreeMap::new();
    for dir in ["models", "models/quantized", "models/synthetic", "models/wide"] {
        for path in files(&root.join(dir)) {
            table.insert(stem(&path).to_owned(), measure(&root, &path));
        }
    }
    println!(
        "{:22} {:>9} {:>9} {:>6} {:>9} {:>9} {:>9}",
        "model", "rms", "llama.cpp", "ratio", "KL", "top-1", "argmax"
    );
    let (mut log_sum, mut quantized) = (0.0, 0);
    let mut failed = Vec::new();
    for (name, f) in &table {
        let ratio = f.rms / f.reference_rms;
        let right = f.clear - f.wrong;
        println!(
            "{name:22} {:9.6} {:9.6} {ratio:6.3} {:9.2e} {:>4}/{:<4} {right:>4}/{:<4}",
            f.rms, f.reference_rms, f.kl, f.top1, f.rows, f.clear
        );
        let kind = name.rsplit('-').next().unwrap_or_default().to_ascii_lowercase();
        let is_float = ["f32", "f16", "bf16"].contains(&kind.as_str());
        let most = if is_float { 1.0 } else { 1.3 };
        if kind == "f32" {
            if f.worst > 2e-4 {
                failed.push(format!("{name}: a logit is {} from ideal, at most 2e-4", f.worst));
            }
        } else if ratio.is_nan() || ratio > most {
            failed.push(format!(
                "{name}: {ratio:.3} x llama.cpp's distance, at most {most}"
            ));
        }
        if f.wrong > 0 {
            failed.push(format!(
                "{name}: {} of {} clear argmaxes differ",
                f.wrong, f.clear
            ));
        }
        if !is_float {
            log_sum += libm::log(ratio);
            quantized += 1;
        }
    }
    let mean = libm::exp(log_sum / f64::from(quantized));
    println!("geometric mean of the ratio over {quantized} quantized files: {mean:.4}");
    if mean.is_nan() || mean > 1.05 {
        failed.push(format!("geometric mean {mean:.4}, at most 1.05"));
    }
    let figures = table.iter().map(|(name, f)| {
        let figures = Recorded {
            rms: f.rms,
            kl: f.kl,
            top1: f.top1,
        };
        (name.clone(), figures)
    });
    failed.extend(held_to_record(&figures.collect()));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(quantized > 0);
}

/// The promise: no number depends on threads, prefill chunks, or what shares a batch.
#[test]
fn threads_and_chunks_move_no_number() {
    let Some(root) = reference() else { return };
    for name in [
        "models/wide/wide-Q4_K",
        "models/synthetic/synth-NVFP4",
        "models/stories260K-f16",
    ] {
        let path = root.join(format!("{name}.gguf"));
        let record = record(&root, stem(&path));
        let tokens: Vec<u32> = record["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|p| [ids(&p["prompt_ids"]), ids(&p["greedy_ids"])].concat())
            .take(200)
            .collect();
        let model = model(&path);
        for cache in [CacheType::F32, CacheType::F16] {
            let want = all_logits(&mut context(&model, 2, 512, cache), &tokens);
            for (threads, n_batch) in [(1, 1), (1, 64), (3, 7), (4, 100)] {
                let got = all_logits(&mut context(&model, threads, n_batch, cache), &tokens);
                assert!(want == got, "{name}: {threads} threads, {n_batch} rows a pass");
            }
        }
    }
}
