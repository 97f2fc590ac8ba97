//! Logits, as digests.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::CacheType;
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::digest::Digest;
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::{Backend, select};
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;
use twinfer_engine::{Error, Result};

use crate::file::open;

/// Sizes of the context.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sizes {
    /// Positions.
    pub n_ctx: usize,
    /// Rows of the largest pass.
    pub n_batch: usize,
    /// Format of cached keys, as the command line names it.
    pub cache_type_k: String,
    /// Format of cached values.
    pub cache_type_v: String,
}

impl Sizes {
    pub(crate) fn options(&self) -> Result<ContextOptions> {
        let cache_type = |name: &str| {
            CacheType::ALL
                .into_iter()
                .find(|&(_, known)| known == name)
                .map(|(cache_type, _)| cache_type)
                .ok_or_else(|| Error::InvalidInput {
                    what: format!("there is no cache type `{name}`"),
                })
        };
        Ok(ContextOptions {
            n_ctx: self.n_ctx,
            n_batch: self.n_batch,
            cache_type_k: cache_type(&self.cache_type_k)?,
            cache_type_v: cache_type(&self.cache_type_v)?,
            ..ContextOptions::default()
        })
    }
}

/// The scalar backend: the reference that both builds have.
pub(crate) fn load(file: &ModelFile) -> Result<Arc<Model>> {
    load_on(file, "scalar")
}

fn load_on(file: &ModelFile, backend: &str) -> Result<Arc<Model>> {
    let options = LoadOptions {
        backend: Some(backend.into()),
        ..LoadOptions::default()
    };
    Ok(Arc::new(Model::load(file, &options, &mut |_, _| {})?))
}

/// The digest of the logits after each of `tokens`, and one per position, so that the first difference is found.
pub fn digest(blobs: Vec<Vec<u8>>, sizes: &Sizes, tokens: &[u32]) -> Result<Value> {
    digest_of(load(&open(blobs)?)?, sizes, tokens)
}

/// All backends but scalar; scalar where a processor has no other, as all give the same numbers.
pub(crate) fn simd_backends() -> impl Iterator<Item = &'static dyn Backend> {
    let all = select::available();
    all.iter()
        .copied()
        .filter(|backend| all.len() == 1 || backend.name() != "scalar")
}

/// The same of each other backend: they agree, or it is an error.
pub fn simd_digest(blobs: Vec<Vec<u8>>, sizes: &Sizes, tokens: &[u32]) -> Result<Value> {
    let file = open(blobs)?;
    let names: Vec<_> = simd_backends().map(Backend::name).collect();
    // The module is built for both of its kind; one that lacks them would prove nothing.
    if cfg!(target_family = "wasm") && names != ["wasm-relaxed", "wasm-simd128"] {
        return Err(Error::InvalidInput {
            what: format!("the module has the backends {names:?}"),
        });
    }
    let mut first = Value::Null;
    for name in names {
        let model = load_on(&file, name)?;
        let digest = digest_of(Arc::clone(&model), sizes, tokens)?;
        mixed(model, sizes, tokens, &digest)?;
        if first.is_null() {
            first = digest;
        } else if first != digest {
            return Err(Error::InvalidInput {
                what: format!("backend {name} gives other logits than the first one"),
            });
        }
    }
    Ok(first)
}

fn digest_of(model: Arc<Model>, sizes: &Sizes, tokens: &[u32]) -> Result<Value> {
    let mut context = Context::new(model, Team::single(), sizes.options()?)?;
    let sequence = context.open()?;
    let mut all = Digest::new();
    let mut positions = Vec::with_capacity(tokens.len());
    context.eval_all(sequence, tokens, &mut |_, logits| {
        all.update(logits);
        let mut one = Digest::new();
        one.update(logits);
        positions.push(one.finish());
    })?;
    Ok(json!({ "positions": positions, "digest": all.finish() }))
}

/// The tokens once more, the second half of them in passes that rows of a fork and of a stranger share.
///
/// # Errors
/// Logits that are not those of the sequence alone.
fn mixed(model: Arc<Model>, sizes: &Sizes, tokens: &[u32], alone: &Value) -> Result<()> {
    let options = ContextOptions {
        n_sequences: 3,
        ..sizes.options()?
    };
    let n_batch = options.n_batch;
    let (head, rest) = tokens.split_at(tokens.len() / 2);
    if head.is_empty() || n_batch < 4 {
        return Ok(());
    }
    let has_state = model.config().has_state();
    let mut context = Context::new(model, Team::single(), options)?;
    let sequence = context.open()?;
    let shared = head.len() - head.len() / 8;
    // A state is there at the sequence's end alone; pages can be forked further back.
    let (before, behind) = head.split_at(if has_state { shared } else { head.len() });
    context.prefill(sequence, before)?;
    let fork = context.fork(sequence, shared)?;
    if !behind.is_empty() {
        context.prefill(sequence, behind)?;
    }
    let stranger = context.open()?;
    let (mut batch, mut position) = (Batch::new(), head.len());
    for two in rest.chunks(2) {
        batch.clear();
        batch.push(fork, two[0], Output::Logits);
        two.iter()
            .for_each(|token| batch.push(sequence, *token, Output::Logits));
        batch.push(stranger, two[0], Output::None);
        let mut differs = None;
        context.forward(&mut batch, &mut (), &mut |row, logits| {
            if row > 0 {
                let mut one = Digest::new();
                one.update(logits);
                let at = position + row - 1;
                if alone["positions"][at] != one.finish() {
                    differs = differs.or(Some(at));
                }
            }
        })?;
        position += two.len();
        if let Some(at) = differs {
            return Err(Error::InvalidInput {
                what: format!("position {at} has other logits beside other sequences"),
            });
        }
    }
    Ok(())
}
