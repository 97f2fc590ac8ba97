//! JSON in and out: a rendering's variables, and the `tojson` filter as Hugging Face defines it: Python's `json.dumps` with `ensure_ascii=False`, keys in their
//! order, nothing escaped for HTML.

use std::sync::Arc;

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::args::{Args, integer, length};
use super::budget::Budget;
use super::methods::pay;
use super::repr::float_repr;
use super::value::{Dict, Generator, MAX_DEPTH, Seq, error, too_deep, type_name};

/// `value|tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn tojson(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(5, &["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match args.opt(2, "indent") {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) => match (value.as_str(), integer(value)) {
            (Some(unit), _) => Some(unit.to_owned()),
            (None, Some(width)) => {
                let width = length(width);
                pay(state, width)?;
                Some(" ".repeat(width))
            }
            _ => return Err(args.fail("indent must be an integer or a string")),
        },
    };
    let (item_separator, key_separator) = match args.opt(3, "separators") {
        Some(value) if !value.is_none() => {
            let pair = super::filters::iterate(state, value)?;
            match pair.as_slice() {
                [item, key] => match (item.as_str(), key.as_str()) {
                    (Some(item), Some(key)) => (item.to_owned(), key.to_owned()),
                    _ => return Err(args.fail("separators must be two strings")),
                },
                _ => return Err(args.fail("separators must be two strings")),
            }
        }
        _ if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        _ => (", ".to_owned(), ": ".to_owned()),
    };
    let budget = Budget::of(state)?;
    let mut writer = Writer {
        state,
        budget: &budget,
        out: String::new(),
        paid: 0,
        ascii: args.flag(1, "ensure_ascii", false),
        sorted: args.flag(4, "sort_keys", false),
        indent,
        item_separator,
        key_separator,
    };
    writer.value(args.req(0, "value")?, 0)?;
    writer.pay()?;
    Ok(Value::from(writer.out))
}

struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    budget: &'a Budget,
    out: String,
    paid: usize,
    ascii: bool,
    sorted: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

impl Writer<'_, '_, '_> {
    /// Pays for what was written since the last time.
    fn pay(&mut self) -> Result<(), Error> {
        if !self.budget.spend(1) {
            self.budget.check()?;
        }
        let written = self.out.len() - self.paid;
        if written >= 1024 {
            self.paid = self.out.len();
            pay(self.state, written)?;
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, level: usize) -> Result<(), Error> {
        self.pay()?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Map => match value.downcast_object_ref::<Dict>() {
                Some(dict) => self.dict(dict, level)?,
                None => return Err(unserializable(value)),
            },
            ValueKind::Seq | ValueKind::Iterable
                if value.downcast_object_ref::<Generator>().is_none()
                    && !value.downcast_object_ref::<Seq>().is_some_and(Seq::is_view) =>
            {
                let items = match value.downcast_object_ref::<Seq>() {
                    Some(seq) => seq.items(),
                    None => Arc::new(super::filters::iterate(self.state, value)?),
                };
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        self.out.push_str(&self.item_separator);
                    }
                    self.line(level + 1);
                    self.value(item, level + 1)?;
                }
                if !items.is_empty() {
                    self.line(level);
                }
                self.out.push(']');
            }
            _ => return Err(unserializable(value)),
        }
        Ok(())
    }

    fn dict(&mut self, dict: &Dict, level: usize) -> Result<(), Error> {
        let entries = dict.entries();
        let mut order: Vec<usize> = (0..entries.len()).collect();
        if self.sorted {
            self.state.consume_fuel(entries.len() as u64 * 4)?;
            order.sort_by(|&a, &b| {
                entries
                    .get_index(a)
                    .map(|e| e.0)
                    .cmp(&entries.get_index(b).map(|e| e.0))
            });
        }
        self.out.push('{');
        for (i, &at) in order.iter().enumerate() {
            let Some((key, value)) = entries.get_index(at) else {
                continue;
            };
            if i > 0 {
                self.out.push_str(&self.item_separator);
            }
            self.line(level + 1);
            self.key(key)?;
            self.out.push_str(&self.key_separator);
            self.value(value, level + 1)?;
        }
        if !entries.is_empty() {
            self.line(level);
        }
        self.out.push('}');
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::None => self.out.push_str("\"null\""),
            ValueKind::Bool => self
                .out
                .push_str(if key.is_true() { "\"true\"" } else { "\"false\"" }),
            ValueKind::Number => {
                self.out.push('"');
                self.number(key);
                self.out.push('"');
            }
            _ => {
                return Err(error(format!(
                    "keys must be str, int, float, bool or none, not {}",
                    type_name(key)
                )));
            }
        }
        Ok(())
    }

    fn line(&mut self, level: usize) {
        if let Some(unit) = &self.indent {
            self.out.push('\n');
            for _ in 0..level {
                self.out.push_str(unit);
            }
        }
    }

    fn number(&mut self, value: &Value) {
        match f64::try_from(value.clone()) {
            Ok(float) if !value.is_integer() => self.out.push_str(&match float_repr(float).as_str() {
                "nan" => "NaN".to_owned(),
                "inf" => "Infinity".to_owned(),
                "-inf" => "-Infinity".to_owned(),
                finite => finite.to_owned(),
            }),
            _ => self.out.push_str(&value.to_string()),
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                // Python counts DEL as ASCII that needs no escape.
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn unserializable(value: &Value) -> Error {
    error(format!(
        "object of type {} is not JSON serializable",
        type_name(value)
    ))
}

/// A value for the template from JSON.
pub(super) fn from_json(budget: &Arc<Budget>, json: &serde_json::Value) -> Result<Value, Error> {
    from_json_at(budget, json, 0)
}

fn from_json_at(budget: &Arc<Budget>, json: &serde_json::Value, depth: usize) -> Result<Value, Error> {
    use serde_json::Value as Json;
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (None, Some(u)) => Value::from(u),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => Seq::list(
            budget,
            items
                .iter()
                .map(|item| from_json_at(budget, item, depth + 1))
                .collect::<Result<_, _>>()?,
        )?,
        Json::Object(map) => {
            let pairs = map
                .iter()
                .map(|(k, v)| Ok((Value::from(k.as_str()), from_json_at(budget, v, depth + 1)?)))
                .collect::<Result<Vec<_>, Error>>()?;
            Dict::build(budget, pairs)?
        }
    })
}
