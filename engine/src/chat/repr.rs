//! How values print: Python's `str()` and `repr()`.

use std::fmt::{self, Write};

use indexmap::IndexMap;
use minijinja::Value;
use minijinja::value::ValueKind;

use super::budget::Budget;
use super::value::{Dict, Generator, Seq, SeqKind};

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
pub(super) fn write_str(out: &mut dyn Write, value: &Value, budget: &Budget) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => write_repr(out, value, budget),
    }
}

/// `str(value)` as a string.
pub(super) fn to_str(value: &Value, budget: &Budget) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    let mut out = String::new();
    // A String takes every write.
    let _ = write_str(&mut out, value, budget);
    out
}

/// `repr(value)` as Python gives it.
pub(super) fn write_repr(out: &mut dyn Write, value: &Value, budget: &Budget) -> fmt::Result {
    if !budget.spend(1) {
        return Ok(());
    }
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default(), budget),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.write_str(&float_repr(number)),
            Err(_) => write!(out, "{value}"),
        },
        ValueKind::Seq | ValueKind::Iterable => match value.as_object() {
            Some(object) => match object.downcast_ref::<Seq>() {
                Some(seq) => write_seq(out, seq.kind, &seq.items(), budget),
                None if object.downcast_ref::<Generator>().is_some() => out.write_str("<generator object>"),
                None => {
                    let items: Vec<_> = object
                        .try_iter()
                        .into_iter()
                        .flatten()
                        .take_while(|_| budget.spend(1))
                        .collect();
                    write_seq(out, SeqKind::List, &items, budget)
                }
            },
            None => write!(out, "{value}"),
        },
        ValueKind::Map => match value.downcast_object_ref::<Dict>() {
            Some(dict) => write_dict(out, &dict.entries(), budget),
            None => write!(out, "{value}"),
        },
        _ => write!(out, "{value}"),
    }
}

pub(super) fn write_seq(out: &mut dyn Write, kind: SeqKind, items: &[Value], budget: &Budget) -> fmt::Result {
    let (open, close) = kind.brackets();
    out.write_str(open)?;
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        write_repr(out, item, budget)?;
    }
    if open == "(" && items.len() == 1 {
        out.write_char(',')?;
    }
    out.write_str(close)
}

pub(super) fn write_dict(out: &mut dyn Write, map: &IndexMap<Value, Value>, budget: &Budget) -> fmt::Result {
    out.write_char('{')?;
    for (i, (key, value)) in map.iter().enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        write_repr(out, key, budget)?;
        out.write_str(": ")?;
        write_repr(out, value, budget)?;
    }
    out.write_char('}')
}

fn write_quoted(out: &mut dyn Write, text: &str, budget: &Budget) -> fmt::Result {
    if !budget.spend(1 + text.len() as u64 / 8) {
        return Ok(());
    }
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == quote => {
                out.write_char('\\')?;
                out.write_char(c)?;
            }
            c if is_printable(c) => out.write_char(c)?,
            c => match u32::from(c) {
                code @ 0..=0xff => write!(out, "\\x{code:02x}")?,
                code @ 0x100..=0xffff => write!(out, "\\u{code:04x}")?,
                code => write!(out, "\\U{code:08x}")?,
            },
        }
    }
    out.write_char(quote)
}

/// Python's `str.isprintable` for one character, as far as controls, separators, format characters and private
/// use go (unassigned code points count as printable here).
fn is_printable(c: char) -> bool {
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
pub(super) fn float_repr(x: f64) -> String {
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
