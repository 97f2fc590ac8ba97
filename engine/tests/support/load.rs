//! The whole way of a model file, as a user's command takes it: headers, tokenizer, chat template, weights, a context
//! and one short prefill. Shared by the hostile tests and the fuzz target.

use std::sync::Arc;

use twinfer_engine::Error;
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

/// Where a file was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    File,
    Tokenizer,
    Template,
    Model,
    Context,
    Evaluation,
}

/// Loads `bytes` and evaluates a few tokens: the logits after the last one, or where and why it was refused.
pub(crate) fn load_and_evaluate(bytes: Vec<u8>, cache: CacheType) -> Result<Vec<f32>, (Stage, Error)> {
    let at = |stage: Stage| move |error: Error| (stage, error);
    let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).map_err(at(Stage::File))?;
    let tokenizer = Tokenizer::from_metadata(file.metadata()).map_err(at(Stage::Tokenizer))?;
    file.metadata().chat_templates().map_err(at(Stage::Template))?;
    let model = Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).map_err(at(Stage::Model))?;
    drop(file);
    let options = ContextOptions {
        n_ctx: 64,
        n_batch: 4,
        n_sequences: 1,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k: cache,
        cache_type_v: cache,
    };
    let mut context = Context::new(Arc::new(model), Team::single(), options).map_err(at(Stage::Context))?;
    let special = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    let mut tokens = tokenizer.encode("ab a", special).map_err(at(Stage::Evaluation))?;
    tokens.truncate(6);
    if tokens.is_empty() {
        // A vocabulary without any of these letters.
        tokens.push(0);
    }
    let sequence = context.open().unwrap();
    let logits = context
        .prefill(sequence, &tokens)
        .map_err(at(Stage::Evaluation))?;
    Ok(logits.to_vec())
}
