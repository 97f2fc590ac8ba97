//! How values print: Python's `str()` and `repr()`.

use std::fmt::Write as _;

use crate::error::Eval;
use crate::render::Rendering;
use crate::value::{SeqKind, Value};

impl SeqKind {
    /// What stands around the items when it is printed.
    fn brackets(self) -> (&'static str, &'static str) {
        match self {
            Self::List => ("[", "]"),
            Self::Tuple | Self::Group => ("(", ")"),
            Self::Keys => ("dict_keys([", "])"),
            Self::Values => ("dict_values([", "])"),
            Self::Items => ("dict_items([", "])"),
        }
    }
}

/// `str(value)` as Python gives it; undefined prints as nothing.
pub(crate) fn write_str(r: &Rendering, out: &mut String, value: &Value) -> Eval<()> {
    match value {
        Value::Str(text) => {
            r.pay(text.text.len())?;
            out.push_str(&text.text);
            Ok(())
        }
        Value::Undefined(_) => Ok(()),
        _ => write_repr(r, out, value),
    }
}

/// `str(value)` as a string.
pub(crate) fn to_str(r: &Rendering, value: &Value) -> Eval<String> {
    let mut out = String::new();
    write_str(r, &mut out, value)?;
    Ok(out)
}

/// `repr(value)` as Python gives it.
pub(crate) fn write_repr(r: &Rendering, out: &mut String, value: &Value) -> Eval<()> {
    r.spend(1)?;
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(truth) => out.push_str(if *truth { "True" } else { "False" }),
        Value::Int(int) => out.push_str(&int.to_string()),
        Value::Float(float) => out.push_str(&float_repr(*float)),
        Value::Str(text) => {
            r.spend(text.text.len() as u64 / 8)?;
            if text.safe {
                out.push_str("Markup(");
            }
            quote(&text.text, out);
            if text.safe {
                out.push(')');
            }
        }
        Value::Seq(seq) => {
            let (open, close) = seq.kind.brackets();
            let items = seq.items();
            out.push_str(open);
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_repr(r, out, item)?;
            }
            if open == "(" && items.len() == 1 {
                out.push(',');
            }
            out.push_str(close);
        }
        Value::Dict(dict) => {
            out.push('{');
            for (i, (key, value)) in dict.entries().iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_repr(r, out, key.value())?;
                out.push_str(": ");
                write_repr(r, out, value)?;
            }
            out.push('}');
        }
        Value::Generator(_) => out.push_str("<generator object>"),
        Value::Method(method) => {
            let _ = write!(out, "<built-in method {}>", method.1);
        }
        Value::Function(function) => {
            let _ = write!(out, "<function {}>", function.name());
        }
        Value::Macro(called) => {
            let _ = write!(out, "<Macro '{}'>", called.definition.name);
        }
        Value::Namespace(namespace) => {
            // A namespace holds no other, so this ends.
            let entries: Vec<_> = namespace
                .borrow()
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            out.push_str("<Namespace {");
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                quote(key, out);
                out.push_str(": ");
                write_repr(r, out, value)?;
            }
            out.push_str("}>");
        }
        Value::Loop(state) => {
            let _ = write!(out, "<LoopContext {}>", state.index0.get() + 1);
        }
        Value::Cycler(_) => out.push_str("<cycler>"),
        Value::Joiner(_) => out.push_str("<joiner>"),
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => escape_code(c, out),
        }
    }
    out.push(quote);
}

fn escape_code(c: char, out: &mut String) {
    // A String takes every write.
    let _ = match u32::from(c) {
        code @ 0..=0xff => write!(out, "\\x{code:02x}"),
        code @ 0x100..=0xffff => write!(out, "\\u{code:04x}"),
        code => write!(out, "\\U{code:08x}"),
    };
}

/// Python's `ascii()` of what `repr()` gave.
pub(crate) fn to_ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            escape_code(c, &mut out);
        }
    }
    out
}

/// Python's `str.isprintable` for one character, as far as controls, separators, format characters and private
/// use go (unassigned code points count as printable here).
pub(crate) fn is_printable(c: char) -> bool {
    if c == ' ' {
        return true;
    }
    if c.is_control() || c.is_whitespace() {
        return false;
    }
    !matches!(u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x8e2 | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x2064 | 0x2066..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0xe0001
        | 0xe0020..=0xe007f | 0xf0000..=0x10ffff)
}

/// `repr` of a Python float: the shortest digits that read back, an exponent from 1e16 on and below 1e-4.
pub(crate) fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{x:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{x}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}
