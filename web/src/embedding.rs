//! Vectors of texts, some texts at a time, in a context of their own.

use std::sync::Arc;

use serde_json::Value;
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::model::Model;
use twinfer_engine::model::pooling::Pooling;
use twinfer_engine::{Error, Result};

use crate::threads;

/// Tokens of a pass at least, where there are so many: enough that weights are read once for many rows.
const ROWS: usize = 256;

/// Texts that are evaluated together at most.
const TOGETHER: usize = 16;

/// What a page may ask.
#[derive(Debug)]
pub struct Request {
    pub texts: Vec<Text>,
    /// A name; the model's own where there is none.
    pub pooling: Option<String>,
    pub normalize: bool,
}

/// A text, or its tokens as they are.
#[derive(Debug)]
pub enum Text {
    Text(String),
    Tokens(Vec<u32>),
}

impl Request {
    /// Reads `{texts, pooling, normalize}`, every name and type checked.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::InvalidInput { what: what.into() };
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        let Value::Object(fields) = value else {
            return Err(wrong("a request for vectors is an object"));
        };
        let mut request = Request {
            texts: Vec::new(),
            pooling: None,
            normalize: false,
        };
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("texts", Value::Array(texts)) => {
                    request.texts = texts.into_iter().map(one).collect::<Option<_>>().ok_or_else(|| {
                        wrong("a text to make a vector of is a string, or an array of token ids")
                    })?;
                }
                ("pooling", Value::String(name)) => request.pooling = Some(name),
                ("pooling", Value::Null) => {}
                ("normalize", Value::Bool(normalize)) => request.normalize = normalize,
                _ => return Err(wrong(&format!("a request for vectors has no such `{name}`"))),
            }
        }
        Ok(request)
    }
}

/// A text, or token ids.
fn one(value: Value) -> Option<Text> {
    match value {
        Value::String(text) => Some(Text::Text(text)),
        Value::Array(ids) => {
            let ids = ids.iter().map(|id| u32::try_from(id.as_u64()?).ok());
            ids.collect::<Option<_>>().map(Text::Tokens)
        }
        _ => None,
    }
}

/// Texts under way.
pub struct Embedding {
    context: Context,
    texts: Vec<Vec<u32>>,
    next: usize,
    pooling: Pooling,
    normalize: bool,
}

impl Embedding {
    /// Begins with texts of these tokens.
    pub fn new(
        model: &Arc<Model>,
        options: &ContextOptions,
        texts: Vec<Vec<u32>>,
        (pooling, normalize): (Option<&str>, bool),
    ) -> Result<Self> {
        let config = model.config();
        let input = |what: String| Error::InvalidInput { what };
        let named = |name: &str| {
            let known = Pooling::ALL.into_iter().find(|(_, known)| *known == name);
            let known = known.map(|(pooling, _)| pooling);
            known.ok_or_else(|| {
                input(format!(
                    "there is no pooling `{name}`: mean, cls, last, none or rank"
                ))
            })
        };
        let pooling = match pooling {
            Some(name) => named(name)?,
            None => config.pooling.kind.ok_or_else(|| {
                input(
                    "the model does not say how a text's vector is made: choose a pooling, mean or last"
                        .into(),
                )
            })?,
        };
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let most = config.max_positions(options.n_ctx);
        if longest > most {
            return Err(Error::ContextFull {
                needed: longest,
                capacity: most,
            });
        }
        let sum = texts.iter().map(Vec::len).sum::<usize>();
        let options = ContextOptions {
            n_ctx: longest.max(1),
            n_batch: longest.max(sum.clamp(1, ROWS)),
            n_sequences: texts.len().clamp(1, TOGETHER),
            ..options.clone()
        };
        Ok(Embedding {
            context: Context::new(Arc::clone(model), threads::team(), options)?,
            texts,
            next: 0,
            pooling,
            normalize,
        })
    }

    /// The vectors of the next texts, one after the other, and how many each of them has; `None` once all are done.
    pub fn advance(&mut self) -> Result<Option<(Vec<f32>, Vec<usize>)>> {
        if self.next == self.texts.len() {
            return Ok(None);
        }
        let end = self.texts.len().min(self.next + TOGETHER);
        let texts: Vec<&[u32]> = self.texts[self.next..end].iter().map(Vec::as_slice).collect();
        let (mut values, mut counts) = (Vec::new(), vec![0; texts.len()]);
        self.context
            .embed(&texts, self.pooling, self.normalize, &mut |text, vector| {
                values.extend_from_slice(vector);
                counts[text] += 1;
            })?;
        self.next = end;
        Ok(Some((values, counts)))
    }

    /// Values of each vector.
    pub fn width(&self) -> usize {
        self.context.model().config().vector_len(self.pooling)
    }
}
