//! Any bytes as a model, the whole way: headers, tokenizer, chat template, weights, a context and a prefill of a few
//! tokens. An error or finite logits, never a panic, in bounded memory and time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinfer_engine::cache::CacheType;
use twinfer_fuzz as _;

#[path = "../../engine/tests/support/load.rs"]
mod load;

fuzz_target!(|data: &[u8]| {
    if let Ok(logits) = load::load_and_evaluate(data.to_vec(), CacheType::F16) {
        assert!(logits.iter().all(|logit| logit.is_finite()));
    }
});
