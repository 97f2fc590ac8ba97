//! A loaded model: information, tokens, generations a token at a time, digests, digest records.

use std::sync::Arc;

use serde_json::{Value, json};
use twinfer_engine::cache::CacheType;
use twinfer_engine::context::{Context, ContextOptions, ContextPlan};
use twinfer_engine::generation::{Bounds, Sampling};
use twinfer_engine::kernels::NUMERICS_VERSION;
use twinfer_engine::model::Model;
use twinfer_engine::model::pooling::Pooling;
use twinfer_engine::record::{self, Record, Recording, Subject};
use twinfer_engine::sample::Recommended;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};
use twinfer_template::{CivilTime, Inputs, Templates};
use wasm_bindgen::prelude::*;

use crate::embedding::{self, Embedding};
use crate::error::{Result, js, template_error, with_code};
use crate::loading::memory_bytes;
use crate::request::{Prompt, Request};
use crate::session::{Output, Session, Wanted, end_name};
use crate::threads;

/// What a model needs beside its weights.
pub(crate) struct Parts {
    pub(crate) tokenizer: twinfer_engine::Result<Tokenizer>,
    /// What the model's author recommends for the sampler.
    pub(crate) recommended: Recommended,
    pub(crate) templates: Templates,
    pub(crate) ty: String,
    pub(crate) context: ContextOptions,
}

/// A model, its context and the conversation in it.
#[wasm_bindgen]
pub struct Engine {
    model: Arc<Model>,
    parts: Parts,
    session: Session,
    recording: Option<Check>,
    embedding: Option<Embedding>,
}

/// A record in the making, in a context of its own, and the one that it is held against.
struct Check {
    context: Context,
    recording: Recording,
    against: Option<Record>,
}

impl Engine {
    pub(crate) fn new(model: Model, parts: Parts) -> Result<Self> {
        let model = Arc::new(model);
        let context = Context::new(Arc::clone(&model), threads::team(), parts.context.clone()).map_err(js)?;
        Ok(Engine {
            model,
            parts,
            session: Session::new(context).map_err(js)?,
            recording: None,
            embedding: None,
        })
    }

    fn tokenizer(&self) -> Result<&Tokenizer> {
        self.parts.tokenizer.as_ref().map_err(|error| js(error.clone()))
    }

    /// What the file holds that was left out of account, a sentence each.
    fn notes(&self) -> Vec<&String> {
        let tokenizer = self
            .parts
            .tokenizer
            .iter()
            .flat_map(|tokenizer| tokenizer.notes());
        let recommended = self.parts.recommended.notes();
        self.model
            .notes()
            .iter()
            .chain(tokenizer)
            .chain(recommended)
            .collect()
    }

    fn prompt(&self, request: &Request, now: CivilTime) -> Result<Vec<u32>> {
        match &request.prompt {
            Prompt::Tokens(ids) => Ok(ids.clone()),
            Prompt::Text(text) => self.encode(text, true, true),
            Prompt::Messages(messages) => {
                let tools = request.tools.as_ref().filter(|tools| **tools != json!([]));
                let chosen = self
                    .parts
                    .templates
                    .choose(request.chat_template_name.as_deref(), tools.is_some());
                let template = chosen.map_err(template_error)?.ok_or_else(|| {
                    with_code(
                        "template",
                        "the model has no chat template; give it a text to continue",
                    )
                })?;
                let tokenizer = self.tokenizer()?;
                let (bos, eos) = tokenizer.special_texts();
                let inputs = Inputs::chat(messages.clone(), true, now)
                    .with("tools", tools.cloned().unwrap_or_default())
                    .with("bos_token", bos)
                    .with("eos_token", eos);
                let text = template.render_conversation(&inputs).map_err(template_error)?;
                tokenizer.encode_conversation(&text).map_err(js)
            }
        }
    }

    fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let options = EncodeOptions {
            add_special,
            parse_special,
        };
        self.tokenizer()?.encode(text, options).map_err(js)
    }
}

#[wasm_bindgen]
impl Engine {
    /// What the model is and what it takes, as JSON.
    pub fn info(&self) -> String {
        let config = self.model.config();
        let options = &self.parts.context;
        let team = self.session.context().team();
        let plan = ContextPlan::of(&self.model, team, options);
        let cache = plan.map_or(0, |plan| plan.cache_bytes());
        json!({
            "name": config.name,
            "architecture": config.arch,
            "type": self.parts.ty,
            "parameters": self.model.parameters(),
            "contextLength": options.n_ctx,
            "contextTrained": config.n_ctx_train,
            "vocabulary": config.n_vocab,
            "embeddingLength": config.n_embd,
            "layers": config.layers.len(),
            "writesText": config.writes_text(),
            "pooling": config.pooling.kind.map(Pooling::name),
            // A template that does not parse is no reason to refuse texts.
            "chat": matches!(self.parts.templates.choose(None, false), Ok(Some(_))),
            "chatTemplates": self.parts.templates.names().collect::<Vec<_>>(),
            "backend": self.model.backend().name(),
            "threads": self.session.context().team().workers(),
            "cacheTypeK": options.cache_type_k.name(),
            "cacheTypeV": options.cache_type_v.name(),
            "weightBytes": self.model.weight_bytes(),
            "cacheBytes": cache,
            "memoryBytes": memory_bytes(),
            "numericsVersion": NUMERICS_VERSION,
            "notes": self.notes(),
        })
        .to_string()
    }

    /// Token ids of a text.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        self.encode(text, add_special, parse_special)
    }

    /// Text of token ids; bytes that are no text come as U+FFFD.
    pub fn detokenize(&self, ids: &[u32], special: bool) -> Result<String> {
        let bytes = self.tokenizer()?.decode(ids, special).map_err(js)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Begins a generation; `now`, in seconds since 1970 by the clock on the wall, is what the template may print.
    /// JSON: the prompt's tokens, and how many of them the cache holds already.
    pub fn begin(&mut self, request: &str, now: f64) -> Result<String> {
        let mut sampling = Sampling::default();
        self.parts.recommended.apply(&mut sampling.params);
        let request = Request::parse(request, &sampling)?;
        let prompt = self.prompt(&request, CivilTime::from_unix_seconds(now as i64))?;
        let n_ctx = self.parts.context.n_ctx;
        if prompt.is_empty() {
            return Err(with_code(
                "input",
                "the prompt is empty, and this model has no begin token to start from",
            ));
        }
        if prompt.len() >= n_ctx {
            return Err(with_code(
                "context-full",
                &format!(
                    "the prompt has {} tokens and the context has room for {n_ctx}",
                    prompt.len()
                ),
            ));
        }
        let sampler = request.sampling.sampler(self.tokenizer()?, n_ctx).map_err(js)?;
        let bounds = Bounds {
            max_tokens: request.max_tokens,
            stop: request.stop,
            at_start: match &request.prompt {
                Prompt::Text(text) => text.is_empty(),
                Prompt::Messages(_) => true,
                Prompt::Tokens(_) => false,
            },
            special: false,
            shown: Vec::new(),
        };
        let tokenizer = self.parts.tokenizer.as_ref().map_err(|e| js(e.clone()))?;
        let cached = self
            .session
            .begin(tokenizer, sampler, &prompt, &bounds)
            .map_err(js)?;
        Ok(json!({"promptTokens": prompt.len(), "cachedTokens": cached}).to_string())
    }

    /// Evaluates the next batch of the prompt; true once all of it is done.
    pub fn prefill(&mut self) -> Result<bool> {
        self.session.prefill().map_err(js)
    }

    /// The next token as `[id, text]`, or the end as `[reason, text]` in JSON.
    #[wasm_bindgen(js_name = nextOutput)]
    pub fn next_output(&mut self) -> Result<String> {
        let output: Value = match self.session.next_output().map_err(js)? {
            Some(Output::Token(id, text)) => json!([id, text]),
            Some(Output::End(end, text)) => json!([end_name(end), text]),
            None => json!(["end", ""]),
        };
        Ok(output.to_string())
    }

    /// Begins to evaluate these tokens, at most `batch` a pass (0: as many as fit). `wanted` is `digest` for the digest
    /// of all logits, as `twinfer eval --tokens` prints it, `trace` for that of every operation, as `--trace-ops`
    /// writes it, or the place whose values are wanted, as `--trace-values` takes it.
    #[wasm_bindgen(js_name = beginEvaluation)]
    pub fn begin_evaluation(&mut self, tokens: Vec<u32>, batch: usize, wanted: &str) -> Result<()> {
        if tokens.is_empty() {
            return Err(with_code("input", "there are no tokens to evaluate"));
        }
        let wanted = match wanted {
            "digest" => Wanted::Digest,
            "trace" => Wanted::Trace,
            place => Wanted::Values(place.parse().map_err(js)?),
        };
        let batch = if batch == 0 { usize::MAX } else { batch };
        self.session.begin_evaluation(tokens, batch, wanted).map_err(js)
    }

    /// Evaluates the next of them, a pass; what was wanted once all are done.
    #[wasm_bindgen(js_name = advanceEvaluation)]
    pub fn advance_evaluation(&mut self) -> Result<Option<String>> {
        self.session.evaluate().map_err(js)
    }

    /// Begins the model's digest record, as `twinfer verify` prints it, to be held against another one (JSON) if there
    /// is one.
    #[wasm_bindgen(js_name = beginRecord)]
    pub fn begin_record(&mut self, against: Option<String>) -> Result<()> {
        let against = against.map(|json| {
            let value = serde_json::from_str(&json)
                .map_err(|error| with_code("input", &format!("this is not a digest record: {error}")))?;
            Record::from_json(&value).map_err(js)
        });
        let against: Option<Record> = against.transpose()?;
        if let Some(record) = &against {
            record
                .applies_to(&[])
                .map_err(|mismatch| with_code("input", &mismatch.to_string()))?;
        }
        let (k, v) = match &against {
            Some(record) => (record.cache_type_k, record.cache_type_v),
            None => (CacheType::F16, CacheType::F16),
        };
        let context = Context::new(
            Arc::clone(&self.model),
            threads::team(),
            record::context_options(k, v),
        )
        .map_err(js)?;
        let subject = Subject {
            name: self.model.config().name.clone(),
            sha256: Vec::new(),
        };
        let recording = Recording::new(&context, subject).map_err(js)?;
        self.recording = Some(Check {
            context,
            recording,
            against,
        });
        Ok(())
    }

    /// Computes the next part of it. JSON: `done` and `total` in tokens; once all is done the `record`, and
    /// `difference`, which is null where there is none.
    #[wasm_bindgen(js_name = advanceRecord)]
    pub fn advance_record(&mut self) -> Result<String> {
        let Some(mut check) = self.recording.take() else {
            return Err(with_code("input", "no record was begun"));
        };
        let record = check.recording.advance(&mut check.context).map_err(js)?;
        let (done, total) = (check.recording.done(), record::total_tokens());
        let Some(record) = record else {
            self.recording = Some(check);
            return Ok(json!({"done": done, "total": total}).to_string());
        };
        let difference = check
            .against
            .and_then(|against| against.check(&record).err())
            .map(|mismatch| mismatch.to_string());
        let record = record.to_json();
        Ok(json!({"done": done, "total": total, "record": record, "difference": difference}).to_string())
    }

    /// Ends a record that is not wanted any more.
    #[wasm_bindgen(js_name = endRecord)]
    pub fn end_record(&mut self) {
        self.recording = None;
    }

    /// Begins to make vectors of texts: JSON of `texts` (each a text, or an array of its tokens), `pooling` and
    /// `normalize`. The number of values of each vector.
    #[wasm_bindgen(js_name = beginEmbedding)]
    pub fn begin_embedding(&mut self, request: &str) -> Result<usize> {
        self.embedding = None;
        let request = embedding::Request::parse(request).map_err(js)?;
        let mut texts = Vec::with_capacity(request.texts.len());
        for text in request.texts {
            texts.push(match text {
                embedding::Text::Text(text) => self.encode(&text, true, true)?,
                embedding::Text::Tokens(tokens) => tokens,
            });
        }
        let how = (request.pooling.as_deref(), request.normalize);
        let begun = Embedding::new(&self.model, &self.parts.context, texts, how).map_err(js)?;
        let width = begun.width();
        self.embedding = Some(begun);
        Ok(width)
    }

    /// The next texts' vectors: an array of the numbers of vectors of each text, and behind it one of all their values.
    /// Undefined once all are done.
    #[wasm_bindgen(js_name = advanceEmbedding)]
    pub fn advance_embedding(&mut self) -> Result<Option<js_sys::Array>> {
        let Some(begun) = &mut self.embedding else {
            return Err(with_code("input", "no vectors were begun"));
        };
        let Some((values, counts)) = begun.advance().map_err(js)? else {
            self.embedding = None;
            return Ok(None);
        };
        let counts: Vec<u32> = counts.into_iter().map(|count| count as u32).collect();
        Ok(Some(js_sys::Array::of2(
            &js_sys::Uint32Array::from(&*counts),
            &js_sys::Float32Array::from(&*values),
        )))
    }

    /// Ends those that are not wanted any more, and gives their memory back.
    #[wasm_bindgen(js_name = endEmbedding)]
    pub fn end_embedding(&mut self) {
        self.embedding = None;
    }
}
