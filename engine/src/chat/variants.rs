//! The templates of a model file by their names, and which of them a conversation takes.
//!
//! A GGUF file keeps its template in `tokenizer.chat_template`, and named ones in `tokenizer.chat_template.NAME`. As
//! transformers and llama.cpp do, `tool_use` is taken where tools are given, unless another is asked for.

use super::ChatTemplate;
use crate::gguf::Metadata;
use crate::{Error, Result};

/// The key of the template that has no name; a name follows a dot.
const KEY: &str = "tokenizer.chat_template";
/// What transformers calls the template without a name.
const DEFAULT: &str = "default";
/// The variant for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// The templates of a model file, by name, in the file's order. One that is empty or white space would drop what is
/// said without a word; it counts as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Templates {
    sources: Vec<(String, String)>,
}

impl Templates {
    /// Finds them. A value that is not a string is an error; whether a template parses is seen when it is chosen.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let mut sources = Vec::new();
        for (key, _) in metadata.iter() {
            let name = match key.strip_prefix(KEY) {
                Some("") => DEFAULT,
                Some(rest) => match rest.strip_prefix('.') {
                    Some(name) => name,
                    None => continue,
                },
                None => continue,
            };
            let source = metadata.str(key)?;
            if !source.trim().is_empty() {
                sources.push((name.to_owned(), source.to_owned()));
            }
        }
        Ok(Self { sources })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Their names; that of the file's plain template is `default`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|(name, _)| name.as_str())
    }

    fn source(&self, name: &str) -> Option<&str> {
        let found = self.sources.iter().find(|(known, _)| known == name);
        found.map(|(_, source)| source.as_str())
    }

    /// The template called `name`; without a name `tool_use` where there are `tools` and the file has it, and else the
    /// plain one. `None` where the file has no template at all.
    ///
    /// # Errors
    /// [`Error::Template`] where the file has templates, but not this one, and those of [`ChatTemplate::new`].
    pub fn choose(&self, name: Option<&str>, tools: bool) -> Result<Option<ChatTemplate>> {
        if self.is_empty() {
            return Ok(None);
        }
        let source = match name {
            Some(name) => self.source(name),
            None => tools
                .then(|| self.source(TOOL_USE))
                .flatten()
                .or_else(|| self.source(DEFAULT)),
        };
        let Some(source) = source else {
            let names = self.names().collect::<Vec<_>>().join(", ");
            return Err(Error::Template {
                what: match name {
                    Some(name) => format!("the model has none that is called `{name}`; there are: {names}"),
                    None => format!("the model has named ones only, none by default; choose one of: {names}"),
                },
            });
        };
        ChatTemplate::new(source).map(Some)
    }
}
