//! Text after a prompt: tokenizer, model and sampler together.

use serde_json::{Value, json};
use twinfer_engine::Result;
use twinfer_engine::context::Context;
use twinfer_engine::sample::{Sampler, Scratch};
use twinfer_engine::team::Team;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

use crate::file::open;
use crate::model::{Sizes, load};
use crate::sampling::Setting;

/// `n` tokens after `prompt`, and the text that they print.
pub fn generate(
    blobs: Vec<Vec<u8>>,
    sizes: &Sizes,
    prompt: &str,
    setting: &Setting,
    n: usize,
) -> Result<Value> {
    let file = open(blobs)?;
    let tokenizer = Tokenizer::from_metadata(file.metadata())?;
    let model = load(&file)?;
    let mut context = Context::new(model, Team::single(), sizes.options()?)?;
    let sequence = context.open().unwrap();
    let mut sampler = Sampler::new(setting.params()?, tokenizer.n_vocab())?;
    let mut scratch = Scratch::default();
    let prompt = tokenizer.encode(
        prompt,
        EncodeOptions {
            add_special: true,
            parse_special: true,
        },
    )?;
    for &id in &prompt {
        sampler.accept(id)?;
    }
    let mut decoder = tokenizer.stream_decoder(false);
    let mut text = String::new();
    let mut ids = Vec::with_capacity(n);
    let mut next = sampler.sample(context.prefill(sequence, &prompt)?, &mut scratch)?;
    while ids.len() < n && !tokenizer.is_end(next) {
        sampler.accept(next)?;
        ids.push(next);
        text.push_str(decoder.push(next));
        next = sampler.sample(context.decode(sequence, next)?, &mut scratch)?;
    }
    text.push_str(decoder.flush());
    Ok(json!({ "prompt": prompt, "ids": ids, "text": text }))
}
