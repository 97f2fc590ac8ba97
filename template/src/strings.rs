//! The methods of Python's `str`, and what filters share with them.
//!
//! Python's own documentation ("Text Sequence Type") is the source of what each one does.

use crate::args::{Args, length};
use crate::error::{Eval, fail};
use crate::format::str_format;
use crate::lexer::is_space;
use crate::render::Rendering;
use crate::repr::{is_printable, to_str};
use crate::value::{Text, Value};

/// The methods that strings have.
pub(crate) const METHODS: [&str; 44] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

/// `s.strip(chars)` on either or both ends.
pub(crate) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |set| set.contains(c));
    let text = if left { text.trim_start_matches(drop) } else { text };
    if right { text.trim_end_matches(drop) } else { text }
}

/// A letter at the beginning of a word: of several that its capital has ("SS" of "ß"), only the first is one.
fn capital(c: char) -> impl Iterator<Item = char> {
    let mut letters = c.to_uppercase();
    letters
        .next()
        .into_iter()
        .chain(letters.flat_map(char::to_lowercase))
}

/// `s.capitalize()`.
pub(crate) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => capital(first).collect::<String>() + &chars.as_str().to_lowercase(),
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
            (true, false) => out.extend(capital(c)),
            (false, _) => out.push(c),
        }
        inside = cased;
    }
    out
}

/// `s.splitlines(keepends)`.
pub(crate) fn splitlines(text: &str, keep: bool) -> Vec<&str> {
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
fn window<'a>(text: &'a str, args: &Args) -> Eval<Option<(&'a str, i64)>> {
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

fn affix(args: &Args, text: &str, test: impl Fn(&str, &str) -> bool) -> Eval<Value> {
    let Some((text, _)) = window(text, args)? else {
        return Ok(Value::Bool(false));
    };
    let sought = args.req(0, "prefix")?;
    if let Some(sought) = sought.as_str() {
        return Ok(Value::Bool(test(text, sought)));
    }
    let Some(tuple) = sought.as_tuple() else {
        let found = sought.type_name();
        return Err(args.fail(&format!("expected a string or a tuple of strings, not '{found}'")));
    };
    for item in tuple.items().iter() {
        match item.as_str() {
            Some(sought) if test(text, sought) => return Ok(Value::Bool(true)),
            Some(_) => {}
            None => return Err(args.fail("the tuple must contain only strings")),
        }
    }
    Ok(Value::Bool(false))
}

fn find(args: &Args, text: &str, last: bool) -> Eval<Option<i64>> {
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
pub(crate) fn replace(r: &Rendering, text: &str, old: &str, new: &str, count: Option<i64>) -> Eval<String> {
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
        r.pay(hits.min(most).saturating_mul(new.len() - old.len()))?;
    }
    Ok(text.replacen(old, new, most))
}

/// Pads `text` to `width` characters.
pub(crate) fn pad(
    r: &Rendering,
    text: &str,
    width: i64,
    fill: char,
    left_share: impl Fn(usize) -> usize,
) -> Eval<String> {
    let missing = length(width).saturating_sub(text.chars().count());
    r.pay(missing.saturating_mul(fill.len_utf8()))?;
    let left = left_share(missing);
    let mut out = String::with_capacity(text.len() + missing * fill.len_utf8());
    out.extend(std::iter::repeat_n(fill, left));
    out.push_str(text);
    out.extend(std::iter::repeat_n(fill, missing - left));
    Ok(out)
}

/// CPython's rounding of `center`: the odd one goes left where the width is odd.
pub(crate) fn center(r: &Rendering, text: &str, width: i64, fill: char) -> Eval<String> {
    pad(r, text, width, fill, |missing| {
        missing / 2 + usize::from(missing % 2 == 1 && width % 2 != 0)
    })
}

/// The value of a decimal digit of any script (Unicode category Nd), by each script's zero.
pub(crate) fn decimal_digit(c: char) -> Option<u32> {
    const ZEROS: [u32; 64] = [
        0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
        0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0,
        0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30,
        0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0,
        0x11950, 0x11c50, 0x11d50, 0x11da0, 0x11f50, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2,
        0x1d7ec, 0x1d7f6, 0x1e140,
    ];
    let code = u32::from(c);
    let zero = ZEROS.iter().rev().find(|zero| **zero <= code)?;
    (code - zero < 10).then(|| code - zero)
}

/// Superscript, subscript and circled digits, which `isdigit` takes and `isdecimal` does not.
fn is_digit_sign(c: char) -> bool {
    matches!(u32::from(c), 0xb2 | 0xb3 | 0xb9 | 0x2070 | 0x2074..=0x2079 | 0x2080..=0x2089 | 0x2460..=0x2468)
}

fn all(text: &str, test: impl Fn(char) -> bool) -> Value {
    Value::Bool(!text.is_empty() && text.chars().all(test))
}

/// Whether the cased letters are all of one case, and there is one.
pub(crate) fn is_cased(text: &str, upper: bool) -> bool {
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

/// markupsafe's escapes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A string as marked text: escaped unless it is marked already. Other values stay.
pub(crate) fn markup(value: Value) -> Value {
    match value {
        Value::Str(Text { text, safe: false }) => Value::safe(escape(&text)),
        value => value,
    }
}

/// Methods of a string that `safe` marked: as markupsafe has it, other strings are escaped before they come in,
/// and what comes out is marked again.
fn call_markup(r: &Rendering, text: &str, args: &Args) -> Eval<Value> {
    let divides = matches!(
        args.name(),
        "split" | "rsplit" | "splitlines" | "partition" | "rpartition"
    );
    let mut escaped = args.after(0, args.name());
    if args.name() == "join" {
        let items = r.items(args.req(0, "iterable")?)?;
        let items = items.iter().map(|item| match item {
            Value::Str(_) => Ok(markup(item.clone())),
            item => Ok(Value::safe(escape(&to_str(r, item)?))),
        });
        escaped.positional = vec![Value::list(items.collect::<Eval<_>>()?)?];
    } else if !divides {
        escaped.positional = escaped.positional.into_iter().map(markup).collect();
        escaped.keywords = escaped
            .keywords
            .into_iter()
            .map(|(name, value)| (name, markup(value)))
            .collect();
    }
    let mark = |value: Value| match value {
        Value::Str(text) => Value::safe(text.text),
        value => value,
    };
    match call_str(r, text, &escaped)? {
        Value::Seq(parts) => Value::seq(parts.kind, parts.items().iter().cloned().map(mark).collect()),
        result => Ok(mark(result)),
    }
}

/// Calls a method of a string.
pub(crate) fn call(r: &Rendering, text: &Text, args: &Args) -> Eval<Value> {
    if text.safe {
        call_markup(r, &text.text, args)
    } else {
        call_str(r, &text.text, args)
    }
}

fn strings<'a>(r: &Rendering, parts: impl IntoIterator<Item = &'a str>) -> Eval<Value> {
    let parts: Vec<Value> = parts.into_iter().map(Value::from).collect();
    r.spend(parts.len() as u64)?;
    Value::list(parts)
}

fn call_str(r: &Rendering, text: &str, args: &Args) -> Eval<Value> {
    let method = args.name();
    r.pay(text.len())?;
    if let Some(changed) = change(method, text) {
        args.accept(&[])?;
        return Ok(Value::from(changed));
    }
    if let Some(answer) = ask(method, text) {
        args.accept(&[])?;
        return Ok(answer);
    }
    Ok(match method {
        "strip" | "lstrip" | "rstrip" => {
            args.accept(&["chars"])?;
            Value::from(strip(
                text,
                args.opt_str(0, "chars")?,
                method != "rstrip",
                method != "lstrip",
            ))
        }
        "split" | "rsplit" => split(r, text, args)?,
        "splitlines" => {
            args.accept(&["keepends"])?;
            strings(r, splitlines(text, args.flag(0, "keepends", false)))?
        }
        "replace" => {
            args.accept(&["old", "new", "count"])?;
            let (old, new) = (args.str(0, "old")?, args.str(1, "new")?);
            Value::from(replace(r, text, old, new, args.opt_int(2, "count")?)?)
        }
        "startswith" => affix(args, text, |text, sought| text.starts_with(sought))?,
        "endswith" => affix(args, text, |text, sought| text.ends_with(sought))?,
        "removeprefix" => Value::from(text.strip_prefix(args.str(0, "prefix")?).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(args.str(0, "suffix")?).unwrap_or(text)),
        "find" | "rfind" => Value::Int(find(args, text, method == "rfind")?.unwrap_or(-1).into()),
        "index" | "rindex" => match find(args, text, method == "rindex")? {
            Some(at) => Value::Int(at.into()),
            None => return Err(args.fail("substring not found")),
        },
        "count" => {
            let sought = args.str(0, "sub")?;
            Value::from(match window(text, args)? {
                None => 0,
                Some((text, _)) if sought.is_empty() => text.chars().count() + 1,
                Some((text, _)) => text.matches(sought).count(),
            })
        }
        "join" => {
            args.accept(&["iterable"])?;
            let mut out = String::new();
            for (i, item) in r.items(args.req(0, "iterable")?)?.iter().enumerate() {
                let Some(part) = item.as_str() else {
                    let found = item.type_name();
                    return Err(args.fail(&format!("item {i}: expected a string, found '{found}'")));
                };
                r.pay(text.len() + part.len())?;
                if i > 0 {
                    out.push_str(text);
                }
                out.push_str(part);
            }
            Value::from(out)
        }
        "format" => Value::from(str_format(r, text, &args.positional, &args.keywords)?),
        "format_map" => {
            let mapping = args.req(0, "mapping")?;
            let Some(dict) = mapping.as_dict() else {
                return Err(args.fail("a dict is needed"));
            };
            let entries = dict.entries();
            let named = entries.iter().filter_map(|(key, value)| match key.value() {
                Value::Str(name) => Some((name.text.clone(), value.clone())),
                _ => None,
            });
            Value::from(str_format(r, text, &[], &named.collect::<Vec<_>>())?)
        }
        "center" | "ljust" | "rjust" => {
            args.accept(&["width", "fillchar"])?;
            let width = args.int(0, "width")?;
            let mut fill = args.opt_str(1, "fillchar")?.unwrap_or(" ").chars();
            let (Some(fill), None) = (fill.next(), fill.next()) else {
                return Err(args.fail("the fill character must be exactly one character long"));
            };
            Value::from(match method {
                "ljust" => pad(r, text, width, fill, |_| 0)?,
                "rjust" => pad(r, text, width, fill, |missing| missing)?,
                _ => center(r, text, width, fill)?,
            })
        }
        "zfill" => {
            let width = args.int(0, "width")?;
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = &text[..text.len() - digits.len()];
            let padded = pad(
                r,
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
            Value::tuple(parts.map(Value::from).into())?
        }
        "expandtabs" => {
            let size = args.opt_int(0, "tabsize")?.unwrap_or(8).clamp(0, 1 << 20) as usize;
            r.pay(text.matches('\t').count().saturating_mul(size))?;
            Value::from(expandtabs(text, size))
        }
        _ => return fail(format!("the method '{method}' of strings is not supported")),
    })
}

/// Methods without arguments that give another string.
fn change(method: &str, text: &str) -> Option<String> {
    Some(match method {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "casefold" => text.to_lowercase().replace('ß', "ss"),
        "capitalize" => capitalize(text),
        "title" => title(text),
        "swapcase" => {
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                if c.is_uppercase() {
                    out.extend(c.to_lowercase());
                } else {
                    out.extend(c.to_uppercase());
                }
            }
            out
        }
        _ => return None,
    })
}

/// Methods without arguments that say what is in a string.
fn ask(method: &str, text: &str) -> Option<Value> {
    Some(match method {
        "isdecimal" => all(text, |c| decimal_digit(c).is_some()),
        "isdigit" => all(text, |c| decimal_digit(c).is_some() || is_digit_sign(c)),
        "isnumeric" => all(text, char::is_numeric),
        "isalpha" => all(text, char::is_alphabetic),
        "isalnum" => all(text, char::is_alphanumeric),
        "isspace" => all(text, is_space),
        "isascii" => Value::Bool(text.is_ascii()),
        "isupper" => Value::Bool(is_cased(text, true)),
        "islower" => Value::Bool(is_cased(text, false)),
        "istitle" => Value::Bool(is_title(text)),
        "isidentifier" => Value::Bool(
            text.starts_with(|c: char| c == '_' || c.is_alphabetic())
                && text.chars().all(|c| c == '_' || c.is_alphanumeric()),
        ),
        "isprintable" => Value::Bool(text.chars().all(is_printable)),
        _ => return None,
    })
}

fn split(r: &Rendering, text: &str, args: &Args) -> Eval<Value> {
    args.accept(&["sep", "maxsplit"])?;
    // It counts the divisions; negative is no limit.
    let max = args
        .opt_int(1, "maxsplit")?
        .and_then(|max| usize::try_from(max).ok());
    let from_right = args.name() == "rsplit";
    let pieces = max.map_or(usize::MAX, |max| max.saturating_add(1));
    strings(
        r,
        match (args.opt_str(0, "sep")?, from_right) {
            (Some(""), _) => return Err(args.fail("empty separator")),
            (None, false) => split_space(text, max),
            (None, true) => rsplit_space(text, max),
            (Some(separator), false) => text.splitn(pieces, separator).collect(),
            (Some(separator), true) => {
                let mut parts: Vec<&str> = text.rsplitn(pieces, separator).collect();
                parts.reverse();
                parts
            }
        },
    )
}

fn expandtabs(text: &str, size: usize) -> String {
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
    out
}
