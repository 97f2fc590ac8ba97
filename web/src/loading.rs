//! A model on its way in: headers, the memory plan, then the data piece by piece.

use serde_json::json;
use twinfer_engine::cache::CacheType;
use twinfer_engine::context::{ContextOptions, ContextPlan};
use twinfer_engine::gguf::{Gguf, GgufSet, Limits, Metadata, Parser, Status, split};
use twinfer_engine::model::LoadOptions;
use twinfer_engine::model::loader::{Loader, Span};
use twinfer_engine::sample::Recommended;
use twinfer_engine::tokenizer::Tokenizer;
use twinfer_template::Templates;
use wasm_bindgen::prelude::*;

use crate::engine::{Engine, Parts};
use crate::error::{Result, js, with_code};
use crate::threads;

/// What a 32-bit memory can have.
const MOST_MEMORY: u64 = 1 << 32;

/// Left for the stack, the vocabulary, the sampler and the allocator's losses.
const RESERVE: u64 = 48 << 20;

/// The context's length where nobody asked for one, unless the model was trained for less.
const DEFAULT_CONTEXT: usize = 4096;

/// Rows of the largest pass. Between two passes the worker reads the page's messages (stop, progress): this is how long
/// they wait while a prompt is computed.
const BATCH: usize = 128;

/// Bytes of the module's memory now.
pub(crate) fn memory_bytes() -> u64 {
    #[cfg(target_family = "wasm")]
    {
        core::arch::wasm32::memory_size(0) as u64 * 65536
    }
    #[cfg(not(target_family = "wasm"))]
    {
        0
    }
}

/// A model on its way in. First each file's header: `beginHeader`, `pushHeader` until it gives a number. Then `plan`. Then,
/// until `next` is false: bring bytes to `spaceAddress`, `filled`. Then `finish`.
#[wasm_bindgen]
pub struct Loading {
    backend: Option<String>,
    parser: Option<Parser>,
    headers: Vec<Gguf>,
    file_bytes: u64,
    loader: Option<Loader>,
    context: ContextOptions,
    span: Option<Span>,
}

#[wasm_bindgen]
impl Loading {
    /// `backend` is a name of the engine's, or nothing for the best one.
    #[wasm_bindgen(constructor)]
    pub fn new(backend: Option<String>) -> Self {
        Loading {
            backend,
            parser: None,
            headers: Vec::new(),
            file_bytes: 0,
            loader: None,
            context: ContextOptions::default(),
            span: None,
        }
    }

    /// The next file begins; `length` in bytes where it is known.
    #[wasm_bindgen(js_name = beginHeader)]
    pub fn begin_header(&mut self, length: Option<f64>) {
        self.parser = Some(match length {
            Some(length) => {
                self.file_bytes += length as u64;
                Parser::with_file_len(Limits::default(), length as u64)
            }
            None => Parser::new(Limits::default()),
        });
    }

    /// Bytes of the header; the number of them that belong to it once it is complete.
    #[wasm_bindgen(js_name = pushHeader)]
    pub fn push_header(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let missing = || with_code("input", "no header was begun");
        let parser = self.parser.as_mut().ok_or_else(missing)?;
        match parser.push(bytes).map_err(js)? {
            Status::NeedMore => Ok(None),
            Status::Complete { consumed } => {
                self.end_header()?;
                Ok(Some(consumed))
            }
        }
    }

    /// The file's bytes have ended, or its header is complete: keeps it.
    #[wasm_bindgen(js_name = endHeader)]
    pub fn end_header(&mut self) -> Result<()> {
        if let Some(parser) = self.parser.take() {
            self.headers.push(parser.finish().map_err(js)?);
        }
        Ok(())
    }

    /// What the first header says, for people, as JSON.
    pub fn describe(&self) -> Result<String> {
        let first = self
            .headers
            .first()
            .ok_or_else(|| with_code("input", "there is no header yet"))?;
        let metadata = first.metadata();
        let arch = text(metadata, "general.architecture");
        let number = |key: &str| metadata.opt_u64(&format!("{arch}.{key}")).ok().flatten();
        let known = self.headers.iter().all(|header| header.data_end() > 0);
        let data: u64 = self.headers.iter().map(Gguf::data_end).sum();
        let parameters: u64 = self
            .headers
            .iter()
            .flat_map(|header| header.tensors())
            .map(|tensor| tensor.n_elements() as u64)
            .sum();
        Ok(json!({
            "name": text(metadata, "general.name"),
            "architecture": arch,
            "sizeLabel": text(metadata, "general.size_label"),
            "contextTrained": number("context_length"),
            "layers": number("block_count"),
            "type": common_type(first),
            "parameters": parameters,
            "fileBytes": if self.file_bytes > 0 { self.file_bytes } else if known { data } else { 0 },
            "parts": split::split_count(first).unwrap_or(1),
            "headerBytes": first.header_len(),
        })
        .to_string())
    }

    /// Checks the model and the memory it will take before any data has come: JSON in bytes. `context` of 0 takes what the
    /// model was trained for, up to 4096. Types of the cached keys and values by name.
    pub fn plan(&mut self, context: usize, cache_type_k: &str, cache_type_v: &str) -> Result<String> {
        let set = GgufSet::new(std::mem::take(&mut self.headers)).map_err(js)?;
        let options = LoadOptions {
            backend: self.backend.clone(),
            team: Some(threads::team()),
            ..LoadOptions::default()
        };
        let loader = Loader::new(set, &options).map_err(js)?;
        let trained = loader.config().n_ctx_train;
        self.context = ContextOptions {
            n_ctx: match context {
                0 => trained.clamp(1, DEFAULT_CONTEXT),
                asked => asked,
            },
            n_batch: BATCH,
            cache_type_k: cache_type(cache_type_k)?,
            cache_type_v: cache_type(cache_type_v)?,
            ..ContextOptions::default()
        };
        let plan = ContextPlan::of_loader(&loader, &self.context).map_err(js)?;
        // Not the file's bytes: packed matrices are padded to whole panels, and some types are wider in them.
        let weights = loader.plan().weights().total();
        let (cache, workspace) = (plan.cache_bytes(), plan.workspace_bytes());
        let total = [
            weights,
            loader.bytes_staged(),
            cache,
            workspace,
            memory_bytes(),
            RESERVE,
        ]
        .into_iter()
        .fold(0, u64::saturating_add);
        if total > MOST_MEMORY {
            let mib = |bytes: u64| bytes >> 20;
            return Err(with_code(
                "memory",
                &format!(
                    "the model needs {} MiB of memory ({} MiB of weights, {} MiB for a context of {} tokens), and a \
                     page has {} MiB at most; choose a smaller model or a shorter context",
                    mib(total),
                    mib(weights),
                    mib(cache),
                    self.context.n_ctx,
                    mib(MOST_MEMORY)
                ),
            ));
        }
        self.loader = Some(loader);
        Ok(json!({
            "weights": weights,
            "cache": cache,
            "workspace": workspace,
            "total": total,
            "limit": MOST_MEMORY,
            "contextLength": self.context.n_ctx,
        })
        .to_string())
    }

    /// Whether more data is wanted; then `part`, `offset`, `spaceAddress` and `spaceLength` say what and where.
    #[allow(clippy::should_implement_trait)] // it is JavaScript's name
    pub fn next(&mut self) -> bool {
        self.span = self.loader.as_ref().and_then(Loader::next);
        self.span.is_some()
    }

    /// Which file the wanted bytes are in.
    #[wasm_bindgen(getter)]
    pub fn part(&self) -> usize {
        self.span.as_ref().map_or(0, |span| span.part)
    }

    /// Where in that file they begin.
    #[wasm_bindgen(getter)]
    pub fn offset(&self) -> f64 {
        self.span.as_ref().map_or(0.0, |span| span.range.start as f64)
    }

    /// Where in the module's memory they go. JavaScript reads it as unsigned.
    #[wasm_bindgen(getter, js_name = spaceAddress)]
    pub fn space_address(&mut self) -> usize {
        self.loader
            .as_mut()
            .map_or(0, |loader| loader.space().as_mut_ptr() as usize)
    }

    /// How many of them fit there.
    #[wasm_bindgen(getter, js_name = spaceLength)]
    pub fn space_length(&mut self) -> usize {
        self.loader.as_mut().map_or(0, |loader| loader.space().len())
    }

    /// The first `n` of them are there.
    pub fn filled(&mut self, n: usize) -> Result<()> {
        match &mut self.loader {
            Some(loader) => loader.filled(n).map_err(js),
            None => Err(with_code("input", "the model was not planned yet")),
        }
    }

    /// The model, ready to answer. This object is used up.
    pub fn finish(self) -> Result<Engine> {
        let loader = self
            .loader
            .ok_or_else(|| with_code("input", "the model was not planned yet"))?;
        let header = loader.set().parts().first();
        let templates = Templates::new(loader.set().metadata().chat_templates().map_err(js)?);
        let parts = Parts {
            // The vocabulary lives in the tokenizer from here on; the headers go with the loader.
            tokenizer: Tokenizer::from_metadata(loader.set().metadata()),
            recommended: Recommended::read(loader.set().metadata()),
            templates,
            ty: header.map(common_type).unwrap_or_default(),
            context: self.context,
        };
        let model = loader.finish().map_err(js)?;
        Engine::new(model, parts)
    }
}

/// The type of a cache by its name.
fn cache_type(name: &str) -> Result<CacheType> {
    let mut types = CacheType::ALL.iter();
    let found = types.find(|(_, known)| *known == name);
    found.map(|(ty, _)| *ty).ok_or_else(|| {
        let names = CacheType::ALL.map(|(_, name)| name).join(", ");
        with_code(
            "input",
            &format!("`{name}` is no type of a cache; there are {names}"),
        )
    })
}

fn text(metadata: &Metadata, key: &str) -> String {
    let value = metadata.opt_str(key).ok().flatten().unwrap_or_default();
    value.chars().take(200).collect()
}

/// The type that holds most of a file's bytes.
fn common_type(header: &Gguf) -> String {
    let mut types: Vec<(&'static str, u64)> = Vec::new();
    for tensor in header.tensors() {
        let name = tensor.ty.name();
        match types.iter_mut().find(|(known, _)| *known == name) {
            Some((_, bytes)) => *bytes = bytes.saturating_add(tensor.bytes),
            None => types.push((name, tensor.bytes)),
        }
    }
    let most = types.into_iter().max_by_key(|(_, bytes)| *bytes);
    most.map_or_else(String::new, |(name, _)| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_bound_is_that_of_the_plan() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/oracle/vectors/gpt-oss.gguf"
        );
        let bytes = std::fs::read(path).unwrap();
        let mut loading = Loading::new(None);
        loading.begin_header(Some(bytes.len() as f64));
        assert!(loading.push_header(&bytes).unwrap().is_some());
        let told: Value = serde_json::from_str(&loading.plan(512, "f16", "f16").unwrap()).unwrap();
        let loader = loading.loader.as_ref().unwrap();
        let context = ContextPlan::of_loader(loader, &loading.context).unwrap();
        let weights = loader.plan().weights().total();
        assert_eq!(told["weights"].as_u64(), Some(weights));
        let most = weights + loader.bytes_staged() + context.cache_bytes() + context.workspace_bytes();
        assert_eq!(told["total"].as_u64(), Some(most + memory_bytes() + RESERVE));
    }
}
