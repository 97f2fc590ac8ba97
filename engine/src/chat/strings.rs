//! The methods of Python's `str`, and what filters share with them.
//!
//! Python's own documentation ("Text Sequence Type", "printf-style String Formatting") is the source of what each
//! one does.

use std::sync::Arc;

use minijinja::formatting::{FormatStyle, format};
use minijinja::{Error, State, Value};

use super::args::{Args, integer, length};
use super::budget::Budget;
use super::methods::pay;
use super::repr::to_str;
use super::value::{Dict, Seq, type_name};

/// Python's `str.isspace` for one character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// `s.strip(chars)` on either or both ends.
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |set| set.contains(c));
    let text = if left { text.trim_start_matches(drop) } else { text };
    if right { text.trim_end_matches(drop) } else { text }
}

/// `s.capitalize()`.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().collect::<String>() + &chars.as_str().to_lowercase(),
        None => String::new(),
    }
}

/// `s.title()`: a letter is upper case where no letter stands before it.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        let cased = c.is_uppercase() || c.is_lowercase();
        match (cased, inside) {
            (true, true) => out.extend(c.to_lowercase()),
            (true, false) => out.extend(c.to_uppercase()),
            (false, _) => out.push(c),
        }
        inside = cased;
    }
    out
}

/// `s.splitlines(keepends)`.
fn splitlines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let mut end = at + c.len_utf8();
        match c {
            '\r' => {
                if let Some(&(next, '\n')) = chars.peek() {
                    end = next + 1;
                    chars.next();
                }
            }
            '\n' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}' => {}
            _ => continue,
        }
        lines.push(&text[start..if keep { end } else { at }]);
        start = end;
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// `s.split(None, max)`: runs of white space divide, none at the ends counts.
fn split_space(text: &str, max: Option<usize>) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if max.is_some_and(|max| parts.len() == max) {
            // What is left stays whole.
            parts.push(rest);
            return parts;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        parts.push(part);
        rest = tail.trim_start_matches(is_space);
    }
    parts
}

/// `s.rsplit(None, max)`.
fn rsplit_space(text: &str, max: Option<usize>) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        if max.is_some_and(|max| parts.len() == max) {
            parts.push(rest);
            break;
        }
        let start = rest
            .char_indices()
            .rev()
            .find(|&(_, c)| is_space(c))
            .map_or(0, |(i, c)| i + c.len_utf8());
        let (tail, part) = rest.split_at(start);
        parts.push(part);
        rest = tail.trim_end_matches(is_space);
    }
    parts.reverse();
    parts
}

/// The part of `text` between two Python positions in characters, with the position it starts at.
/// `None` where the start lies behind the end, in which nothing is ever found.
fn window<'a>(text: &'a str, args: &Args<'_>) -> Result<Option<(&'a str, i64)>, Error> {
    let (start, end) = (args.opt_int(1, "start")?, args.opt_int(2, "end")?);
    if start.is_none() && end.is_none() {
        return Ok(Some((text, 0)));
    }
    let len = text.chars().count() as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(len)).min(len));
    if start > end {
        return Ok(None);
    }
    let byte = |at: i64| {
        text.char_indices()
            .nth(at as usize)
            .map_or(text.len(), |(i, _)| i)
    };
    Ok(Some((&text[byte(start)..byte(end)], start)))
}

fn affix(args: &Args<'_>, text: &str, test: impl Fn(&str, &str) -> bool) -> Result<Value, Error> {
    let Some((text, _)) = window(text, args)? else {
        return Ok(Value::from(false));
    };
    let sought = args.req(0, "prefix")?;
    if let Some(sought) = sought.as_str() {
        return Ok(Value::from(test(text, sought)));
    }
    match sought.downcast_object_ref::<Seq>() {
        Some(seq) if seq.is_tuple() => {
            for item in seq.items().iter() {
                match item.as_str() {
                    Some(sought) if test(text, sought) => return Ok(Value::from(true)),
                    Some(_) => {}
                    None => return Err(args.fail("the tuple must contain only strings")),
                }
            }
            Ok(Value::from(false))
        }
        _ => Err(args.fail(&format!(
            "expected a string or a tuple of strings, not {}",
            type_name(sought)
        ))),
    }
}

fn find(args: &Args<'_>, text: &str, last: bool) -> Result<Option<i64>, Error> {
    let sought = args.str(0, "sub")?;
    let Some((text, offset)) = window(text, args)? else {
        return Ok(None);
    };
    let at = if last {
        text.rfind(sought)
    } else {
        text.find(sought)
    };
    Ok(at.map(|at| offset + text[..at].chars().count() as i64))
}

/// `s.replace(old, new, count)`, paid for before it is made.
pub(super) fn replace(
    state: &State<'_, '_>,
    text: &str,
    old: &str,
    new: &str,
    count: Option<i64>,
) -> Result<Value, Error> {
    let most = match count {
        Some(count) if count >= 0 => usize::try_from(count).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    if new.len() > old.len() {
        let hits = if old.is_empty() {
            text.chars().count() + 1
        } else {
            text.matches(old).count()
        };
        pay(state, hits.min(most).saturating_mul(new.len() - old.len()))?;
    }
    Ok(Value::from(text.replacen(old, new, most)))
}

/// Pads `text` to `width` characters.
pub(super) fn pad(
    state: &State<'_, '_>,
    text: &str,
    width: i64,
    fill: char,
    left_share: impl Fn(usize) -> usize,
) -> Result<Value, Error> {
    let len = text.chars().count();
    let missing = length(width).saturating_sub(len);
    pay(state, missing.saturating_mul(fill.len_utf8()))?;
    let left = left_share(missing);
    let mut out = String::with_capacity(text.len() + missing * fill.len_utf8());
    out.extend(std::iter::repeat_n(fill, left));
    out.push_str(text);
    out.extend(std::iter::repeat_n(fill, missing - left));
    Ok(Value::from(out))
}

/// Pays for a format string before it is applied: the widths in it, those that a `*` takes from the arguments, and
/// the longest argument once per field.
pub(super) fn pay_for_format(state: &State<'_, '_>, text: &str, args: &[Value]) -> Result<(), Error> {
    let mut bytes = text.len() as u64;
    let mut number = 0u64;
    for c in text.chars().chain(std::iter::once(' ')) {
        match c.to_digit(10) {
            Some(digit) => number = number.saturating_mul(10).saturating_add(u64::from(digit)),
            None => bytes = bytes.saturating_add(std::mem::take(&mut number)),
        }
    }
    let fields = text.matches(['%', '{']).count() as u64;
    let computed_widths = text.contains('*') || text.matches('{').count() > text.matches('}').count().min(1);
    for arg in args {
        let size = match (arg.as_str(), integer(arg)) {
            (Some(text), _) => text.len() as u64,
            (None, Some(width)) if computed_widths => width.unsigned_abs().min(1 << 40),
            _ => 64,
        };
        bytes = bytes.saturating_add(fields.saturating_mul(size));
    }
    state.consume_fuel(bytes / 64)
}

/// Replaces containers by their Python text, which is what any format of them gives.
pub(super) fn format_args(state: &State<'_, '_>, args: &[Value]) -> Result<Vec<Value>, Error> {
    let budget = Budget::of(state)?;
    args.iter()
        .map(|arg| {
            let plain =
                arg.is_kwargs() || arg.downcast_object_ref::<Dict>().is_some() || arg.as_object().is_none();
            if plain {
                return Ok(arg.clone());
            }
            let text = to_str(arg, &budget);
            pay(state, text.len())?;
            Ok(Value::from(text))
        })
        .collect()
}

/// A decimal digit of any script (Unicode category Nd): each script's zero, of those in the basic plane.
fn is_decimal(c: char) -> bool {
    const ZEROS: [u32; 37] = [
        0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
        0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0,
        0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    ];
    ZEROS
        .iter()
        .any(|zero| (*zero..zero + 10).contains(&u32::from(c)))
}

/// Superscript, subscript and circled digits, which `isdigit` takes and `isdecimal` does not.
fn is_digit_sign(c: char) -> bool {
    matches!(u32::from(c), 0xb2 | 0xb3 | 0xb9 | 0x2070 | 0x2074..=0x2079 | 0x2080..=0x2089 | 0x2460..=0x2468)
}

fn all(text: &str, test: impl Fn(char) -> bool) -> Value {
    Value::from(!text.is_empty() && text.chars().all(test))
}

/// Whether the cased letters are all of one case, and there is one.
pub(super) fn is_cased(text: &str, upper: bool) -> bool {
    let (any_upper, any_lower) = (
        text.chars().any(char::is_uppercase),
        text.chars().any(char::is_lowercase),
    );
    if upper {
        any_upper && !any_lower
    } else {
        any_lower && !any_upper
    }
}

fn is_title(text: &str) -> bool {
    let (mut inside, mut any) = (false, false);
    for c in text.chars() {
        match (c.is_uppercase(), c.is_lowercase(), inside) {
            (true, _, true) | (_, true, false) => return false,
            (upper, lower, _) => {
                inside = upper || lower;
                any |= inside;
            }
        }
    }
    any
}

fn strings<'a>(budget: &Arc<Budget>, parts: impl IntoIterator<Item = &'a str>) -> Result<Value, Error> {
    Seq::list(budget, parts.into_iter().map(Value::from).collect())
}

/// Methods of a string that `safe` marked: as markupsafe has it, other strings are escaped before they come in,
/// and what comes out is marked again.
pub(super) fn call_markup(
    state: &mut State<'_, '_>,
    text: &str,
    method: &str,
    args: &[Value],
) -> Result<Option<Value>, Error> {
    let divides = matches!(
        method,
        "split" | "rsplit" | "splitlines" | "partition" | "rpartition"
    );
    let args: Vec<Value> = match method {
        "join" => {
            let items = super::filters::iterate(state, Args::new(method, args).req(0, "iterable")?)?;
            let items = items.into_iter().map(super::scalar_filters::markup).collect();
            vec![Seq::list(&Budget::of(state)?, items)?]
        }
        _ if divides => args.to_vec(),
        _ => args.iter().cloned().map(super::scalar_filters::markup).collect(),
    };
    let mark = |value: Value| match value.as_str() {
        Some(text) => Value::from_safe_string(text.to_owned()),
        None => value,
    };
    let Some(result) = call_str(state, text, method, &args)? else {
        return Ok(None);
    };
    match result.downcast_object_ref::<Seq>() {
        Some(parts) if divides => {
            let marked = parts.items().iter().cloned().map(mark).collect();
            Ok(Some(if parts.is_tuple() {
                Seq::tuple(&Budget::of(state)?, marked)?
            } else {
                Seq::list(&Budget::of(state)?, marked)?
            }))
        }
        _ => Ok(Some(mark(result))),
    }
}

pub(super) fn call_str(
    state: &mut State<'_, '_>,
    text: &str,
    method: &str,
    values: &[Value],
) -> Result<Option<Value>, Error> {
    let args = Args::new(method, values);
    let none = || args.accept(0, &[]);
    // `max` of split counts the divisions; negative is no limit.
    let limit = |index| -> Result<Option<usize>, Error> {
        Ok(args
            .opt_int(index, "maxsplit")?
            .and_then(|max| usize::try_from(max).ok()))
    };
    let value = match method {
        "upper" => none().map(|()| Value::from(text.to_uppercase()))?,
        "lower" | "casefold" => none().map(|()| Value::from(text.to_lowercase()))?,
        "capitalize" => none().map(|()| Value::from(capitalize(text)))?,
        "title" => none().map(|()| Value::from(title(text)))?,
        "swapcase" => {
            none()?;
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                if c.is_uppercase() {
                    out.extend(c.to_lowercase())
                } else {
                    out.extend(c.to_uppercase())
                }
            }
            Value::from(out)
        }
        "strip" | "lstrip" | "rstrip" => {
            args.accept(1, &[])?;
            Value::from(strip(
                text,
                args.opt_str(0, "chars")?,
                method != "rstrip",
                method != "lstrip",
            ))
        }
        "split" | "rsplit" => {
            args.accept(2, &["sep", "maxsplit"])?;
            let (separator, max) = (args.opt_str(0, "sep")?, limit(1)?);
            let parts: Vec<&str> = match (separator, method == "rsplit") {
                (Some(""), _) => return Err(args.fail("empty separator")),
                (None, false) => split_space(text, max),
                (None, true) => rsplit_space(text, max),
                (Some(separator), false) => match max {
                    Some(max) => text.splitn(max.saturating_add(1), separator).collect(),
                    None => text.split(separator).collect(),
                },
                (Some(separator), true) => {
                    let mut parts: Vec<&str> = match max {
                        Some(max) => text.rsplitn(max.saturating_add(1), separator).collect(),
                        None => text.rsplit(separator).collect(),
                    };
                    parts.reverse();
                    parts
                }
            };
            state.consume_fuel(parts.len() as u64)?;
            strings(&Budget::of(state)?, parts)?
        }
        "splitlines" => {
            args.accept(1, &["keepends"])?;
            let lines = splitlines(text, args.flag(0, "keepends", false));
            state.consume_fuel(lines.len() as u64)?;
            strings(&Budget::of(state)?, lines)?
        }
        "replace" => {
            args.accept(3, &["count"])?;
            replace(
                state,
                text,
                args.str(0, "old")?,
                args.str(1, "new")?,
                args.opt_int(2, "count")?,
            )?
        }
        "startswith" => affix(&args, text, |text, sought| text.starts_with(sought))?,
        "endswith" => affix(&args, text, |text, sought| text.ends_with(sought))?,
        "removeprefix" => {
            let prefix = args.str(0, "prefix")?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let suffix = args.str(0, "suffix")?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "find" | "rfind" => Value::from(find(&args, text, method == "rfind")?.unwrap_or(-1)),
        "index" | "rindex" => Value::from(
            find(&args, text, method == "rindex")?.ok_or_else(|| args.fail("substring not found"))?,
        ),
        "count" => {
            let sought = args.str(0, "sub")?;
            Value::from(match window(text, &args)? {
                None => 0,
                Some((text, _)) if sought.is_empty() => text.chars().count() + 1,
                Some((text, _)) => text.matches(sought).count(),
            })
        }
        "join" => {
            args.accept(1, &[])?;
            let items = super::filters::iterate(state, args.req(0, "iterable")?)?;
            let mut out = String::new();
            for (i, item) in items.iter().enumerate() {
                let Some(part) = item.as_str() else {
                    return Err(args.fail(&format!("item {i}: expected a string, found {}", type_name(item))));
                };
                pay(state, text.len() + part.len())?;
                if i > 0 {
                    out.push_str(text);
                }
                out.push_str(part);
            }
            Value::from(out)
        }
        "format" => {
            pay_for_format(state, text, values)?;
            Value::from(format(
                FormatStyle::StrFormat,
                text,
                &format_args(state, values)?,
            )?)
        }
        "isdecimal" => none().map(|()| all(text, is_decimal))?,
        "isdigit" => none().map(|()| all(text, |c| is_decimal(c) || is_digit_sign(c)))?,
        "isnumeric" => none().map(|()| all(text, char::is_numeric))?,
        "isalpha" => none().map(|()| all(text, char::is_alphabetic))?,
        "isalnum" => none().map(|()| all(text, char::is_alphanumeric))?,
        "isspace" => none().map(|()| all(text, is_space))?,
        "isascii" => none().map(|()| Value::from(text.is_ascii()))?,
        "isupper" => none().map(|()| Value::from(is_cased(text, true)))?,
        "islower" => none().map(|()| Value::from(is_cased(text, false)))?,
        "istitle" => none().map(|()| Value::from(is_title(text)))?,
        "isidentifier" => {
            none()?;
            let mut chars = text.chars();
            Value::from(
                chars.next().is_some_and(|c| c == '_' || c.is_alphabetic())
                    && chars.all(|c| c == '_' || c.is_alphanumeric()),
            )
        }
        "isprintable" => none().map(|()| Value::from(!text.chars().any(char::is_control)))?,
        "center" | "ljust" | "rjust" => {
            args.accept(2, &[])?;
            let width = args
                .opt_int(0, "width")?
                .ok_or_else(|| args.fail("missing argument 'width'"))?;
            let mut fill = args.opt_str(1, "fillchar")?.unwrap_or(" ").chars();
            let (Some(fill), None) = (fill.next(), fill.next()) else {
                return Err(args.fail("the fill character must be exactly one character long"));
            };
            let odd_width = width % 2 != 0;
            pad(state, text, width, fill, |missing| match method {
                "ljust" => 0,
                "rjust" => missing,
                // CPython's rounding: the odd one goes left where the width is odd.
                _ => missing / 2 + usize::from(missing % 2 == 1 && odd_width),
            })?
        }
        "zfill" => {
            let width = args
                .opt_int(0, "width")?
                .ok_or_else(|| args.fail("missing argument 'width'"))?;
            let (sign, digits) = match text.strip_prefix(['+', '-']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            let padded = pad(
                state,
                digits,
                width.saturating_sub(sign.len() as i64),
                '0',
                |missing| missing,
            )?;
            Value::from(format!("{sign}{padded}"))
        }
        "partition" | "rpartition" => {
            let separator = args.str(0, "sep")?;
            if separator.is_empty() {
                return Err(args.fail("empty separator"));
            }
            let parts = if method == "partition" {
                text.split_once(separator)
                    .map_or([text, "", ""], |(a, b)| [a, separator, b])
            } else {
                text.rsplit_once(separator)
                    .map_or(["", "", text], |(a, b)| [a, separator, b])
            };
            Seq::tuple(&Budget::of(state)?, parts.into_iter().map(Value::from).collect())?
        }
        "expandtabs" => {
            let size = args.opt_int(0, "tabsize")?.unwrap_or(8).clamp(0, 1 << 20) as usize;
            pay(state, text.matches('\t').count().saturating_mul(size))?;
            let (mut out, mut column) = (String::new(), 0);
            for c in text.chars() {
                match c {
                    '\t' if size > 0 => {
                        let spaces = size - column % size;
                        out.extend(std::iter::repeat_n(' ', spaces));
                        column += spaces;
                    }
                    '\t' => {}
                    c => {
                        column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                        out.push(c);
                    }
                }
            }
            Value::from(out)
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}
