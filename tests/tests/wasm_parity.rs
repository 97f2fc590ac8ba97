//! The native build and the wasm build under Node give the same answers: digests, ids, text and error messages, `==`.
//!
//! `cargo xtask test` builds the module and names it in `TWINFER_WASM_MODULE`, and Node in `TWINFER_NODE`; without
//! them these tests say that they were left out. What needs the reference data says so too where that is not there.

mod wasm;

use twinfer_tests::Request;
use twinfer_tests::sampling::Setting;
use wasm::{Job, compare, files, reference};

#[test]
fn arithmetic() {
    compare("arithmetic", vec![Job::new("grid", Request::Arithmetic)]);
}

/// Sound and malformed files: the same header, or the same complaint.
#[test]
fn files_and_headers() {
    let Some(reference) = reference("files") else {
        return;
    };
    let paths = files(&reference.join("models"), "gguf")
        .into_iter()
        .chain(files(&reference.join("gguf-bad"), "gguf"));
    let jobs = paths
        .map(|path| Job::of_file(&reference, &path, Request::File))
        .collect();
    compare("files", jobs);
}

/// Every sampler, alone and in the default chain, and the alternatives to the chain.
#[test]
fn drawn_tokens() {
    let settings: [&[(&str, f64)]; 16] = [
        &[],
        &[("temp", 0.0)],
        &[("temp", 2.0), ("top_k", 0.0), ("top_p", 1.0), ("min_p", 0.0)],
        &[("top_k", 3.0)],
        &[("top_k", 0.0), ("top_p", 0.3)],
        &[("min_p", 0.4)],
        &[("typ_p", 0.5), ("temp", 1.5)],
        &[("top_n_sigma", 1.0)],
        &[("xtc_probability", 0.5), ("xtc_threshold", 0.05), ("temp", 1.5)],
        &[("dynatemp_range", 0.5), ("dynatemp_exponent", 1.3)],
        &[
            ("penalty_repeat", 1.3),
            ("penalty_freq", 0.2),
            ("penalty_present", 0.4),
        ],
        &[("dry_multiplier", 0.8), ("temp", 0.0)],
        &[
            ("dry_multiplier", 0.8),
            ("dry_base", 1.1),
            ("dry_allowed_length", 1.0),
        ],
        &[("mirostat", 2.0)],
        &[("mirostat", 2.0), ("mirostat_tau", 2.0), ("mirostat_eta", 0.4)],
        &[("top_p", 0.5), ("min_keep", 5.0)],
    ];
    let mut jobs = Vec::new();
    for numbers in settings {
        for (seed, n_vocab) in [(1, 40), (42, 1000), (0xFFFF_FFFF, 32_000)] {
            let numbers = numbers
                .iter()
                .map(|&(name, value)| (name.to_owned(), value))
                .collect();
            let sampler = Setting {
                seed,
                numbers,
                dry_sequence_breakers: vec![vec![3], vec![7, 8]],
                logit_bias: vec![(5, 1.25), (6, -1e9)],
                ..Setting::default()
            };
            let name = format!("{sampler:?}, vocabulary of {n_vocab}");
            jobs.push(Job::new(
                name,
                Request::Draw {
                    sampler,
                    n_vocab,
                    n: 100,
                },
            ));
        }
    }
    compare("drawn tokens", jobs);
}
