//! Arguments of a method, filter or function call, bound the way Python binds them.

use std::sync::Arc;

use crate::error::{Eval, Fail, fail};
use crate::value::Value;

/// Positional and keyword arguments of one call; of a filter's and a test's, those after the value.
pub(crate) struct Args {
    name: Arc<str>,
    pub(crate) positional: Vec<Value>,
    pub(crate) keywords: Vec<(Arc<str>, Value)>,
}

impl Args {
    pub(crate) fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            positional: Vec::new(),
            keywords: Vec::new(),
        }
    }

    /// What is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The same arguments for a call of another name.
    pub(crate) fn named(self, name: Arc<str>) -> Self {
        Self { name, ..self }
    }

    /// The arguments without the first `skipped` positional ones, for a call of `name`.
    pub(crate) fn after(&self, skipped: usize, name: &str) -> Self {
        Self {
            name: name.into(),
            positional: self.positional.get(skipped..).unwrap_or_default().to_vec(),
            keywords: self.keywords.clone(),
        }
    }

    pub(crate) fn add_keyword(&mut self, name: Arc<str>, value: Value) -> Eval<()> {
        if self.keyword(&name).is_some() {
            return fail(format!(
                "{}: the keyword argument '{name}' is given twice",
                self.name
            ));
        }
        self.keywords.push((name, value));
        Ok(())
    }

    /// An error that names the call.
    pub(crate) fn fail(&self, message: &str) -> Fail {
        Fail::Message(format!("{}: {message}", self.name))
    }

    /// Fails if there are more positional arguments than `names`, or a keyword that is not among them.
    pub(crate) fn accept(&self, names: &[&str]) -> Eval<()> {
        if self.positional.len() > names.len() {
            return Err(self.fail(&format!(
                "takes at most {} arguments, {} were given",
                names.len(),
                self.positional.len()
            )));
        }
        for (keyword, _) in &self.keywords {
            match names.iter().position(|name| **name == **keyword) {
                None => return Err(self.fail(&format!("unexpected keyword argument '{keyword}'"))),
                Some(at) if at < self.positional.len() => {
                    return Err(self.fail(&format!("got two values for argument '{keyword}'")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The argument at `index`, or the one called `name`.
    pub(crate) fn opt(&self, index: usize, name: &str) -> Option<&Value> {
        self.positional.get(index).or_else(|| self.keyword(name))
    }

    /// The keyword argument called `name`.
    pub(crate) fn keyword(&self, name: &str) -> Option<&Value> {
        self.keywords
            .iter()
            .find(|(keyword, _)| **keyword == *name)
            .map(|(_, value)| value)
    }

    /// As [`Self::opt`], required.
    pub(crate) fn req(&self, index: usize, name: &str) -> Eval<&Value> {
        self.opt(index, name)
            .ok_or_else(|| self.fail(&format!("missing argument '{name}'")))
    }

    /// A required string.
    pub(crate) fn str(&self, index: usize, name: &str) -> Eval<&str> {
        let value = self.req(index, name)?;
        value.as_str().ok_or_else(|| self.wrong(name, "a string", value))
    }

    /// A string; `None` where it is absent or `none`.
    pub(crate) fn opt_str(&self, index: usize, name: &str) -> Eval<Option<&str>> {
        match self.opt(index, name) {
            None | Some(Value::None) => Ok(None),
            Some(value) => value
                .as_str()
                .map(Some)
                .ok_or_else(|| self.wrong(name, "a string", value)),
        }
    }

    /// An integer (or bool); `None` where it is absent or `none`. Beyond 64 bits it is the closest one within.
    pub(crate) fn opt_int(&self, index: usize, name: &str) -> Eval<Option<i64>> {
        match self.opt(index, name) {
            None | Some(Value::None) => Ok(None),
            Some(value) => match value.as_int() {
                Some(int) => Ok(Some(clamped(int))),
                None => Err(self.wrong(name, "an integer", value)),
            },
        }
    }

    /// A required integer.
    pub(crate) fn int(&self, index: usize, name: &str) -> Eval<i64> {
        self.opt_int(index, name)?
            .ok_or_else(|| self.fail(&format!("missing argument '{name}'")))
    }

    /// A truth value; `default` where it is absent.
    pub(crate) fn flag(&self, index: usize, name: &str, default: bool) -> bool {
        self.opt(index, name).map_or(default, Value::is_true)
    }

    fn wrong(&self, name: &str, expected: &str, found: &Value) -> Fail {
        self.fail(&format!(
            "argument '{name}' must be {expected}, not '{}'",
            found.type_name()
        ))
    }
}

/// An integer in 64 bits, or the closest one.
pub(crate) fn clamped(int: i128) -> i64 {
    i64::try_from(int).unwrap_or(if int < 0 { i64::MIN } else { i64::MAX })
}

/// An integer as a count: below 0 is none, and what no memory holds is as much as there could be (on 32 bits too), for
/// the bounds to refuse.
pub(crate) fn length(n: i64) -> usize {
    if n < 0 {
        0
    } else {
        usize::try_from(n).unwrap_or(usize::MAX)
    }
}
