//! JSON in and out: a rendering's variables, and the `tojson` filter as Hugging Face defines it: Python's `json.dumps`
//! with `ensure_ascii=False`, keys in their order, nothing escaped for HTML.

use serde_json::Value as Json;

use crate::args::{Args, clamped, length};
use crate::error::{Eval, fail};
use crate::filters::sorted;
use crate::operators::less_or_greater;
use crate::render::Rendering;
use crate::repr::float_repr;
use crate::value::{Dict, MAX_DEPTH, SeqKind, Value, too_deep};

/// `value|tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(crate) fn tojson(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match args.opt(1, "indent") {
        None | Some(Value::None) => None,
        Some(Value::Str(unit)) => Some(unit.text.to_string()),
        Some(value) => match value.as_int() {
            Some(width) => {
                let width = length(clamped(width));
                r.pay(width)?;
                Some(" ".repeat(width))
            }
            None => return Err(args.fail("indent must be an integer or a string")),
        },
    };
    let (item_separator, key_separator) = match args.opt(2, "separators") {
        None | Some(Value::None) => (
            if indent.is_some() { "," } else { ", " }.to_owned(),
            ": ".to_owned(),
        ),
        Some(value) => match r.items(value)?.as_slice() {
            [Value::Str(item), Value::Str(key)] => (item.text.to_string(), key.text.to_string()),
            _ => return Err(args.fail("separators must be two strings")),
        },
    };
    let mut writer = Writer {
        r,
        out: String::new(),
        paid: 0,
        ascii: args.flag(0, "ensure_ascii", false),
        sorted: args.flag(3, "sort_keys", false),
        indent,
        item_separator,
        key_separator,
    };
    writer.value(value, 0)?;
    writer.pay()?;
    Ok(Value::from(writer.out))
}

struct Writer<'a> {
    r: &'a Rendering,
    out: String,
    paid: usize,
    ascii: bool,
    sorted: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

impl Writer<'_> {
    /// Pays for what was written since the last time.
    fn pay(&mut self) -> Eval<()> {
        self.r.spend(1)?;
        let written = self.out.len() - self.paid;
        if written >= 1024 {
            self.paid = self.out.len();
            self.r.pay(written)?;
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, level: usize) -> Eval<()> {
        self.pay()?;
        match value {
            Value::None => self.out.push_str("null"),
            Value::Bool(truth) => self.out.push_str(if *truth { "true" } else { "false" }),
            Value::Int(int) => self.out.push_str(&int.to_string()),
            Value::Float(float) => self.float(*float),
            Value::Str(text) => self.string(&text.text),
            Value::Dict(dict) => self.dict(dict, level)?,
            Value::Seq(seq) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple | SeqKind::Group) => {
                let items = seq.items();
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.next(i, level)?;
                    self.value(item, level + 1)?;
                }
                self.close(items.is_empty(), level, ']')?;
            }
            _ => {
                return fail(format!(
                    "object of type '{}' is not JSON serializable",
                    value.type_name()
                ));
            }
        }
        Ok(())
    }

    fn dict(&mut self, dict: &Dict, level: usize) -> Eval<()> {
        let entries = dict.entries();
        let mut order: Vec<Value> = entries.keys().map(|key| key.value().clone()).collect();
        if self.sorted {
            let keyed = order.into_iter().map(|key| (key.clone(), key)).collect();
            order = sorted(self.r, keyed, false, less_or_greater)?;
        }
        self.out.push('{');
        for (i, key) in order.iter().enumerate() {
            self.next(i, level)?;
            self.key(key)?;
            self.out.push_str(&self.key_separator);
            self.value(&dict.entry(key)?.unwrap_or(Value::None), level + 1)?;
        }
        self.close(entries.is_empty(), level, '}')
    }

    fn key(&mut self, key: &Value) -> Eval<()> {
        match key {
            Value::Str(text) => self.string(&text.text),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                self.out.push('"');
                self.value(key, 0)?;
                self.out.push('"');
            }
            _ => {
                return fail(format!(
                    "keys must be str, int, float, bool or none, not '{}'",
                    key.type_name()
                ));
            }
        }
        Ok(())
    }

    /// What stands before the item with the number `i`.
    fn next(&mut self, i: usize, level: usize) -> Eval<()> {
        if i > 0 {
            self.out.push_str(&self.item_separator);
        }
        self.line(level + 1)
    }

    fn close(&mut self, empty: bool, level: usize, bracket: char) -> Eval<()> {
        if !empty {
            self.line(level)?;
        }
        self.out.push(bracket);
        Ok(())
    }

    fn line(&mut self, level: usize) -> Eval<()> {
        if let Some(unit) = &self.indent {
            self.r.pay(unit.len().saturating_mul(level))?;
            self.out.push('\n');
            for _ in 0..level {
                self.out.push_str(unit);
            }
        }
        Ok(())
    }

    fn float(&mut self, float: f64) {
        self.out.push_str(&match float_repr(float).as_str() {
            "nan" => "NaN".to_owned(),
            "inf" => "Infinity".to_owned(),
            "-inf" => "-Infinity".to_owned(),
            finite => finite.to_owned(),
        });
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

/// A value for the template from JSON.
pub(crate) fn from_json(json: &Json) -> Eval<Value> {
    from_json_at(json, 0)
}

fn from_json_at(json: &Json, depth: u32) -> Eval<Value> {
    if depth > MAX_DEPTH {
        return too_deep();
    }
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(int), _) => Value::Int(int.into()),
            (None, Some(int)) => Value::Int(int.into()),
            (None, None) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::list(
            items
                .iter()
                .map(|item| from_json_at(item, depth + 1))
                .collect::<Eval<_>>()?,
        )?,
        Json::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| Ok((Value::from(key.as_str()), from_json_at(value, depth + 1)?)));
            Value::dict(pairs.collect::<Eval<Vec<_>>>()?)?
        }
    })
}
