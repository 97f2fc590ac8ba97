//! Arguments of a method, filter or function call, bound the way Python binds them.

use minijinja::value::Kwargs;
use minijinja::{Error, Value};

use super::value::{error, type_name};

/// Positional and keyword arguments of one call.
pub(super) struct Args<'a> {
    name: &'a str,
    positional: &'a [Value],
    keywords: Vec<(String, Value)>,
}

impl<'a> Args<'a> {
    /// Splits the keyword arguments, which the engine passes as the last value, from the others.
    pub(super) fn new(name: &'a str, values: &'a [Value]) -> Self {
        let mut positional = values;
        let mut keywords = Vec::new();
        if let Some((last, before)) = values.split_last()
            && last.is_kwargs()
        {
            positional = before;
            if let Some(pairs) = last.as_object().and_then(|object| object.try_iter_pairs()) {
                keywords = pairs.map(|(k, v)| (k.to_string(), v)).collect();
            }
        }
        Self {
            name,
            positional,
            keywords,
        }
    }

    /// An error that names the call.
    pub(super) fn fail(&self, message: &str) -> Error {
        error(format!("{}: {message}", self.name))
    }

    /// The arguments from `index` on after `first`, and all keywords, in the form the engine passes them.
    pub(super) fn forward(&self, index: usize, first: Value) -> Vec<Value> {
        let mut values = vec![first];
        values.extend(self.positional.iter().skip(index).cloned());
        if !self.keywords.is_empty() {
            values.push(
                self.keywords
                    .iter()
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect::<Kwargs>()
                    .into(),
            );
        }
        values
    }

    /// All positional arguments.
    pub(super) fn positional(&self) -> &'a [Value] {
        self.positional
    }

    /// All keyword arguments.
    pub(super) fn keywords(&self) -> &[(String, Value)] {
        &self.keywords
    }

    /// Fails if there are more than `max` positional arguments or a keyword that is not in `known`.
    pub(super) fn accept(&self, max: usize, known: &[&str]) -> Result<(), Error> {
        if self.positional.len() > max {
            return Err(self.fail(&format!(
                "takes at most {max} arguments, {} were given",
                self.positional.len()
            )));
        }
        match self
            .keywords
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            Some((name, _)) => Err(self.fail(&format!("unexpected keyword argument '{name}'"))),
            None => Ok(()),
        }
    }

    /// The argument at `index`, or the one called `name`.
    pub(super) fn opt(&self, index: usize, name: &str) -> Option<&Value> {
        self.positional.get(index).or_else(|| self.keyword(name))
    }

    /// The keyword argument called `name`.
    pub(super) fn keyword(&self, name: &str) -> Option<&Value> {
        self.keywords.iter().find(|(k, _)| k == name).map(|(_, v)| v)
    }

    /// As [`Self::opt`], required.
    pub(super) fn req(&self, index: usize, name: &str) -> Result<&Value, Error> {
        self.opt(index, name)
            .ok_or_else(|| self.fail(&format!("missing argument '{name}'")))
    }

    /// A required string.
    pub(super) fn str(&self, index: usize, name: &str) -> Result<&str, Error> {
        let value = self.req(index, name)?;
        value.as_str().ok_or_else(|| self.wrong(name, "a string", value))
    }

    /// A string; `None` where it is absent or `none`.
    pub(super) fn opt_str(&self, index: usize, name: &str) -> Result<Option<&str>, Error> {
        match self.opt(index, name) {
            None => Ok(None),
            Some(value) if value.is_none() => Ok(None),
            Some(value) => value
                .as_str()
                .map(Some)
                .ok_or_else(|| self.wrong(name, "a string", value)),
        }
    }

    /// An integer (or bool); `None` where it is absent or `none`.
    pub(super) fn opt_int(&self, index: usize, name: &str) -> Result<Option<i64>, Error> {
        match self.opt(index, name) {
            None => Ok(None),
            Some(value) if value.is_none() => Ok(None),
            Some(value) => integer(value)
                .map(Some)
                .ok_or_else(|| self.wrong(name, "an integer", value)),
        }
    }

    /// A truth value; `default` where it is absent.
    pub(super) fn flag(&self, index: usize, name: &str, default: bool) -> bool {
        self.opt(index, name).map_or(default, Value::is_true)
    }

    fn wrong(&self, name: &str, expected: &str, found: &Value) -> Error {
        self.fail(&format!(
            "argument '{name}' must be {expected}, not {}",
            type_name(found)
        ))
    }
}

/// An integer, or a bool as one.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value.kind() {
        minijinja::value::ValueKind::Bool => Some(i64::from(value.is_true())),
        _ if value.is_integer() => value.as_i64(),
        _ => None,
    }
}

/// An integer as a count: below 0 is none, and what no memory holds is as much as there could be (on 32 bits too), for
/// the bounds to refuse.
pub(super) fn length(n: i64) -> usize {
    if n < 0 {
        0
    } else {
        usize::try_from(n).unwrap_or(usize::MAX)
    }
}
