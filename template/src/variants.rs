//! The templates of a model file by their names, and which of them a conversation takes.
//!
//! As transformers and llama.cpp do, `tool_use` is taken where tools are given, unless another is asked for.

use crate::{ChatTemplate, Error, Result};

/// What transformers calls the template without a name of its own.
pub const DEFAULT: &str = "default";
/// The variant for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// The templates of a model file, by name, in the file's order. One that is empty or white space would drop what is
/// said without a word; it counts as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Templates {
    sources: Vec<(String, String)>,
}

impl Templates {
    /// The templates with these names and texts; the one without a name is called [`DEFAULT`]. Whether one parses is
    /// seen when it is chosen.
    pub fn new<'a>(named: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let named = named.into_iter().filter(|(_, source)| !source.trim().is_empty());
        Self {
            sources: named
                .map(|(name, source)| (name.to_owned(), source.to_owned()))
                .collect(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Their names.
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
