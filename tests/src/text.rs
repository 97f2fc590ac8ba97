//! Text after a prompt: tokenizer, model and sampler together.

use std::time::Duration;

use serde_json::{Value, json};
use twinfer_engine::Result;
use twinfer_engine::context::Context;
use twinfer_engine::generation::{Bounds, Driver, Event, Generation};
use twinfer_engine::sample::Sampler;
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
    let id = context.open()?;
    let sampler = Sampler::new(setting.params()?, tokenizer.n_vocab())?;
    let options = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    let prompt = tokenizer.encode(prompt, options)?;
    let bounds = Bounds {
        max_tokens: Some(n),
        ..Bounds::default()
    };
    let mut generation = Generation::new(&mut context, id, &prompt, sampler, &tokenizer, &bounds)?;
    let text = finish(&mut context, &mut generation)?;
    let ids = generation.generated();
    Ok(json!({ "prompt": prompt, "ids": ids, "text": text }))
}

/// Passes until the text is over; the text.
pub fn finish(context: &mut Context, generation: &mut Generation) -> Result<String> {
    let (mut driver, mut text, mut failed) = (Driver::default(), String::new(), Ok(()));
    while !generation.is_over() {
        let generations = std::slice::from_mut(generation);
        driver.pass(context, generations)?;
        driver.finish(
            context,
            generations,
            Duration::ZERO,
            &mut |_, event| match event {
                Event::Token { text: piece, .. } | Event::End { text: piece, .. } => text.push_str(piece),
                Event::Failed(error) => failed = Err(error),
            },
        );
    }
    failed.map(|()| text)
}
