//! The filters that work on one number or one string; [`crate::filters`] has the others and lists them all.

use crate::args::{Args, clamped, length};
use crate::error::{Eval, fail};
use crate::eval::undefined_error;
use crate::format::printf;
use crate::functions::pairs_of;
use crate::lexer::is_space;
use crate::render::Rendering;
use crate::repr::to_str;
use crate::strings::{self, decimal_digit, escape};
use crate::value::Value;

// --------------------------------------------------------------------------------------------- numbers

pub(crate) fn abs(_: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    match (value.as_int(), value.as_float()) {
        (Some(int), _) => match int.checked_abs() {
            Some(int) => Ok(Value::Int(int)),
            None => fail("the number is too large"),
        },
        (None, Some(float)) => Ok(Value::Float(float.abs())),
        _ if value.is_undefined() => undefined_error(value),
        _ => fail(format!("bad operand type for abs(): '{}'", value.type_name())),
    }
}

/// The number's text without white space around, underscores between digits, and digits of other scripts.
fn plain_number(text: &str) -> Option<String> {
    let text = strings::strip(text, None, true, true);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut after_digit = false;
    while let Some(c) = chars.next() {
        if c == '_' {
            let before_digit = chars.peek().is_some_and(|c| c.is_alphanumeric());
            if !after_digit || !before_digit {
                return None;
            }
            continue;
        }
        after_digit = c.is_alphanumeric();
        out.push(
            decimal_digit(c)
                .and_then(|digit| char::from_digit(digit, 10))
                .unwrap_or(c),
        );
    }
    Some(out)
}

/// Python's `int(text, base)`.
fn parse_int(text: &str, base: i64) -> Option<i128> {
    let text = plain_number(text)?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, base) = match (base, lower.get(..2)) {
        (0 | 16, Some("0x")) => (&lower[2..], 16),
        (0 | 8, Some("0o")) => (&lower[2..], 8),
        (0 | 2, Some("0b")) => (&lower[2..], 2),
        (0, _) if lower.starts_with('0') && lower.bytes().any(|b| b != b'0') => return None,
        (0, _) => (lower.as_str(), 10),
        (base, _) => (
            lower.as_str(),
            u32::try_from(base).ok().filter(|base| (2..=36).contains(base))?,
        ),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, base).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

/// Python's `float(text)`.
fn parse_float(text: &str) -> Option<f64> {
    plain_number(text)?.parse().ok()
}

/// The whole part, where it has a place.
fn whole(value: f64) -> Option<i128> {
    (value.is_finite() && value.abs() < 1.7e38).then(|| value.trunc() as i128)
}

pub(crate) fn int(_: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["default", "base"])?;
    let found = match value {
        Value::Undefined(_) => return undefined_error(value),
        Value::Str(text) => parse_int(&text.text, args.opt_int(1, "base")?.unwrap_or(10))
            .or_else(|| parse_float(&text.text).and_then(whole)),
        Value::Float(float) => whole(*float),
        _ => value.as_int(),
    };
    Ok(found.map_or_else(
        || args.opt(0, "default").cloned().unwrap_or(Value::Int(0)),
        Value::Int,
    ))
}

pub(crate) fn float(_: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["default"])?;
    let found = match value {
        Value::Undefined(_) => return undefined_error(value),
        Value::Str(text) => parse_float(&text.text),
        _ => value.as_float(),
    };
    Ok(found.map_or_else(
        || args.opt(0, "default").cloned().unwrap_or(Value::Float(0.0)),
        Value::Float,
    ))
}

pub(crate) fn round(_: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["precision", "method"])?;
    let precision = args.opt_int(0, "precision")?.unwrap_or(0).clamp(-40, 400);
    let method = args.opt_str(1, "method")?.unwrap_or("common");
    let Some(number) = value.as_float() else {
        return Err(args.fail(&format!("a number is needed, not '{}'", value.type_name())));
    };
    let mut scale = 1.0f64;
    for _ in 0..precision.unsigned_abs() {
        scale *= 10.0;
    }
    let places = length(precision);
    let rounded = match (method, value.as_int()) {
        ("common", Some(int)) if precision >= 0 => return Ok(Value::Int(int)),
        ("common", Some(int)) => {
            let unit = scale as i128;
            let (down, rest) = (int.div_euclid(unit), int.rem_euclid(unit));
            let half = unit / 2;
            let up = rest > half || (rest == half && down % 2 != 0);
            return match (down + i128::from(up)).checked_mul(unit) {
                Some(int) => Ok(Value::Int(int)),
                None => fail("the number is too large"),
            };
        }
        // The decimal expansion is exact and ties go to the even digit, as in Python.
        ("common", None) if precision >= 0 => format!("{number:.places$}").parse().unwrap_or(number),
        ("common", None) => (number / scale).round_ties_even() * scale,
        ("ceil" | "floor", _) => {
            let step = if method == "ceil" { f64::ceil } else { f64::floor };
            // Python's ceil and floor are integers, which have no -0.
            let whole = step(if precision >= 0 {
                number * scale
            } else {
                number / scale
            }) + 0.0;
            if precision >= 0 {
                whole / scale
            } else {
                whole * scale
            }
        }
        _ => return Err(args.fail("method must be common, ceil or floor")),
    };
    Ok(Value::Float(rounded))
}

pub(crate) fn filesizeformat(_: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["binary"])?;
    let number = match value {
        Value::Str(text) => parse_float(&text.text),
        _ => value.as_float(),
    };
    let bytes = number.ok_or_else(|| args.fail("a number is needed"))?;
    let (base, units) = if args.flag(0, "binary", false) {
        (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
    } else {
        (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
    };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", bytes.trunc() as i64)));
    }
    let mut unit: f64 = base;
    let mut name = units[0];
    for candidate in units {
        unit *= base;
        name = candidate;
        if bytes < unit {
            break;
        }
    }
    Ok(Value::from(format!("{:.1} {name}", base * bytes / unit)))
}

// --------------------------------------------------------------------------------------------- strings

/// `str()` of the value, marked as the value is.
fn changed(r: &Rendering, value: &Value, change: impl FnOnce(&str) -> String) -> Eval<Value> {
    let text = to_str(r, value)?;
    r.pay(text.len())?;
    Ok(Value::text(change(&text), value.is_safe()))
}

/// The filters that are the string's method of the same name.
pub(crate) fn method(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&[])?;
    changed(r, value, |text| match args.name() {
        "capitalize" => strings::capitalize(text),
        "lower" => text.to_lowercase(),
        _ => text.to_uppercase(),
    })
}

pub(crate) fn trim(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["chars"])?;
    let chars = args.opt_str(0, "chars")?;
    changed(r, value, |text| {
        strings::strip(text, chars, true, true).to_owned()
    })
}

/// Words begin after white space, dashes and opening brackets.
pub(crate) fn title(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    let text = to_str(r, value)?;
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<') {
            out.push(c);
            begins = true;
        } else if begins {
            out.extend(c.to_uppercase());
            begins = false;
        } else {
            out.extend(c.to_lowercase());
        }
    }
    Ok(Value::from(out))
}

pub(crate) fn replace(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["old", "new", "count"])?;
    let text = to_str(r, value)?;
    let (old, new) = (to_str(r, args.req(0, "old")?)?, to_str(r, args.req(1, "new")?)?);
    Ok(Value::from(strings::replace(
        r,
        &text,
        &old,
        &new,
        args.opt_int(2, "count")?,
    )?))
}

pub(crate) fn indent(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["width", "first", "blank"])?;
    let Some(text) = value.as_str() else {
        return Err(args.fail(&format!("a string is needed, not '{}'", value.type_name())));
    };
    let margin = match args.opt(0, "width") {
        None => "    ".to_owned(),
        Some(Value::Str(margin)) => margin.text.to_string(),
        Some(width) => match width.as_int() {
            Some(width) => {
                let width = length(clamped(width));
                r.pay(width)?;
                " ".repeat(width)
            }
            None => return Err(args.fail("width must be an integer or a string")),
        },
    };
    let (first, blank) = (args.flag(1, "first", false), args.flag(2, "blank", false));
    // With the newline that jinja2 appends, so that an empty last line counts.
    let source = format!("{text}\n");
    let lines = strings::splitlines(&source, false);
    r.spend(lines.len() as u64)?;
    r.pay(
        lines
            .len()
            .saturating_mul(margin.len() + 1)
            .saturating_add(text.len()),
    )?;
    let mut out = String::with_capacity(text.len());
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if (i == 0 && first) || (i > 0 && (blank || !line.is_empty())) {
            out.push_str(&margin);
        }
        out.push_str(line);
    }
    Ok(Value::text(out, value.is_safe()))
}

pub(crate) fn center(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["width"])?;
    let text = to_str(r, value)?;
    let width = args.opt_int(0, "width")?.unwrap_or(80);
    Ok(Value::text(
        strings::center(r, &text, width, ' ')?,
        value.is_safe(),
    ))
}

pub(crate) fn truncate(_: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["length", "killwords", "end", "leeway"])?;
    let Some(text) = value.as_str() else {
        return Err(args.fail(&format!("a string is needed, not '{}'", value.type_name())));
    };
    let limit = args.opt_int(0, "length")?.unwrap_or(255);
    let end = args.opt_str(2, "end")?.unwrap_or("...");
    let leeway = args.opt_int(3, "leeway")?.unwrap_or(5);
    let end_len = end.chars().count() as i64;
    if limit < end_len || leeway < 0 {
        return Err(args.fail("the length is below that of the end, or the leeway is negative"));
    }
    if text.chars().count() as i64 <= limit.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let kept: String = text.chars().take(length(limit - end_len)).collect();
    let kept = match kept.rsplit_once(' ') {
        Some((before, _)) if !args.flag(1, "killwords", false) => before,
        _ => kept.as_str(),
    };
    Ok(Value::from(format!("{kept}{end}")))
}

pub(crate) fn wordcount(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    let text = to_str(r, value)?;
    let words = text.split(|c: char| c != '_' && !c.is_alphanumeric());
    Ok(Value::from(words.filter(|word| !word.is_empty()).count()))
}

/// The lines of Python's `textwrap.wrap`, each of the text's own lines by itself.
pub(crate) fn wordwrap(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
    let Some(text) = value.as_str() else {
        return Err(args.fail(&format!("a string is needed, not '{}'", value.type_name())));
    };
    let width = args.opt_int(0, "width")?.unwrap_or(79);
    let (Some(width), true) = (usize::try_from(width).ok(), width > 0) else {
        return Err(args.fail("width must be positive"));
    };
    let (break_words, hyphens) = (
        args.flag(1, "break_long_words", true),
        args.flag(3, "break_on_hyphens", true),
    );
    let newline = args.opt_str(2, "wrapstring")?.unwrap_or("\n");
    r.pay(text.len().saturating_mul(8 + newline.len() / width))?;
    let lines = strings::splitlines(text, false).into_iter().map(|line| {
        let mut lines: Vec<String> = Vec::new();
        let mut chunks: Vec<Vec<char>> = chunks(line, hyphens);
        chunks.reverse();
        while !chunks.is_empty() {
            let mut current: Vec<char> = Vec::new();
            // White space at a line's beginning goes, but for the first line's.
            if !lines.is_empty()
                && chunks
                    .last()
                    .is_some_and(|chunk| chunk.iter().all(|c| is_space(*c)))
            {
                chunks.pop();
            }
            while let Some(chunk) = chunks.pop_if(|chunk| current.len() + chunk.len() <= width) {
                current.extend(chunk);
            }
            if let Some(mut long) =
                chunks.pop_if(|chunk| chunk.len() > width && (break_words || current.is_empty()))
            {
                let room = if break_words {
                    width - current.len()
                } else {
                    long.len()
                };
                let mut cut = room;
                // A word is broken after its hyphens where it has some.
                let hyphen = long
                    .iter()
                    .take(room)
                    .rposition(|c| *c == '-')
                    .filter(|at| *at > 0);
                if let (true, true, Some(at)) = (break_words && hyphens, long.len() > room, hyphen)
                    && long[..at].iter().any(|c| *c != '-')
                {
                    cut = at + 1;
                }
                let rest = long.split_off(cut.min(long.len()));
                current.extend(long);
                if !rest.is_empty() {
                    chunks.push(rest);
                }
            }
            while current.last().is_some_and(|c| is_space(*c)) {
                current.pop();
            }
            if !current.is_empty() {
                lines.push(current.into_iter().collect());
            }
        }
        lines.join(newline)
    });
    Ok(Value::from(lines.collect::<Vec<_>>().join(newline)))
}

/// White space and words by turns; a word with hyphens between letters may be divided after them.
fn chunks(line: &str, hyphens: bool) -> Vec<Vec<char>> {
    let chars: Vec<char> = line.chars().collect();
    let letter = |at: usize| chars.get(at).is_some_and(|c| c.is_alphabetic());
    let mut chunks: Vec<Vec<char>> = Vec::new();
    for (at, &c) in chars.iter().enumerate() {
        let new = at == 0
            || is_space(c) != is_space(chars[at - 1])
            || (hyphens
                && at >= 3
                && chars[at - 1] == '-'
                && letter(at - 2)
                && letter(at - 3)
                && letter(at)
                && (letter(at + 1) || (chars.get(at + 1) == Some(&'-') && letter(at + 2))));
        match chunks.last_mut() {
            Some(chunk) if !new => chunk.push(c),
            _ => chunks.push(vec![c]),
        }
    }
    chunks
}

/// markupsafe's `striptags`: comments and tags go, entities become characters, white space becomes single spaces.
pub(crate) fn striptags(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    let text = to_str(r, value)?;
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find('<') {
        let tag = &rest[start..];
        let end = match tag.strip_prefix("<!--") {
            Some(comment) => comment.find("-->").map(|end| 4 + end + 3),
            None => tag.find('>').map(|end| end + 1),
        };
        let Some(end) = end else {
            break;
        };
        kept.push_str(&rest[..start]);
        rest = &tag[end..];
    }
    kept.push_str(rest);
    let words: Vec<&str> = kept.split(is_space).filter(|word| !word.is_empty()).collect();
    Ok(Value::from(unescape(&words.join(" "))))
}

/// Entities by number, and the names that markupsafe and HTML's own syntax need.
fn unescape(text: &str) -> String {
    const NAMES: [(&str, &str); 6] = [
        ("lt", "<"),
        ("gt", ">"),
        ("quot", "\""),
        ("apos", "'"),
        ("nbsp", "\u{a0}"),
        ("amp", "&"),
    ];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let entity = rest.find(';').map(|end| (&rest[..end], &rest[end + 1..]));
        let found = entity.and_then(|(name, after)| {
            let code = match name.strip_prefix('#') {
                Some(number) => match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok(),
                    None => number.parse().ok(),
                },
                None => None,
            };
            let named = NAMES
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, text)| (*text).to_owned());
            Some((code.and_then(char::from_u32).map(String::from).or(named)?, after))
        });
        match found {
            Some((text, after)) => {
                out.push_str(&text);
                rest = after;
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
    out
}

pub(crate) fn format(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    let text = to_str(r, value)?;
    if args.keywords.is_empty() {
        return Ok(Value::text(
            printf(r, &text, &args.positional, true)?,
            value.is_safe(),
        ));
    }
    if !args.positional.is_empty() {
        return Err(args.fail("can't handle positional and keyword arguments at the same time"));
    }
    let named = args
        .keywords
        .iter()
        .map(|(name, value)| (Value::text(name.clone(), false), value.clone()));
    Ok(Value::text(
        printf(r, &text, &[Value::dict(named)?], false)?,
        value.is_safe(),
    ))
}

pub(crate) fn escape_filter(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    Ok(Value::safe(escape(&to_str(r, value)?)))
}

pub(crate) fn xmlattr(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["autospace"])?;
    let Some(dict) = value.as_dict() else {
        return Err(args.fail("a mapping is needed"));
    };
    let mut out = String::new();
    for (key, value) in dict.entries().iter() {
        if value.is_none() || value.is_undefined() {
            continue;
        }
        let Some(name) = key.value().as_str() else {
            return Err(args.fail("the names of attributes must be strings"));
        };
        if name.contains(|c: char| is_space(c) || matches!(c, '/' | '>' | '=')) {
            return Err(args.fail(&format!("invalid character in attribute name {name:?}")));
        }
        if !out.is_empty() || args.flag(0, "autospace", true) {
            out.push(' ');
        }
        out.push_str(&escape(name));
        out.push_str("=\"");
        let text = to_str(r, value)?;
        out.push_str(&if value.is_safe() { text } else { escape(&text) });
        out.push('"');
    }
    Ok(Value::text(out, r.escapes()))
}

fn url_quote(text: &str, query: bool, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

pub(crate) fn urlencode(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    let mut out = String::new();
    if !matches!(value, Value::Dict(_) | Value::Seq(_) | Value::Generator(_)) {
        url_quote(&to_str(r, value)?, false, &mut out);
        return Ok(Value::from(out));
    }
    for (i, (key, value)) in pairs_of(r, value)?.into_iter().enumerate() {
        if i > 0 {
            out.push('&');
        }
        url_quote(&to_str(r, &key)?, true, &mut out);
        out.push('=');
        url_quote(&to_str(r, &value)?, true, &mut out);
    }
    Ok(Value::from(out))
}
