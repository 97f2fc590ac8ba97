//! The filters that work on one number or one string; [`super::filters`] has the others and lists them all.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::args::{Args, integer, length};
use super::arithmetic::{self, int_value};
use super::filters;
use super::methods;
use super::strings;
use super::value::{Dict, Seq, error, type_name};

pub(super) fn abs(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = args.req(0, "value")?;
    match (integer(value), f64::try_from(value.clone())) {
        (Some(int), _) => Ok(Value::from(i128::from(int).abs())),
        (None, Ok(float)) if value.is_number() => Ok(Value::from(float.abs())),
        _ => Err(error(format!(
            "bad operand type for abs(): '{}'",
            type_name(value)
        ))),
    }
}

/// Python's `int(text, base)`.
fn parse_int(text: &str, base: i64) -> Option<i128> {
    let text = strings::strip(text, None, true, true);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = |prefix: &str| lower.strip_prefix(prefix).map(str::to_owned);
    let (digits, base) = match base {
        16 => (prefixed("0x").unwrap_or(lower), 16),
        8 => (prefixed("0o").unwrap_or(lower), 8),
        2 => (prefixed("0b").unwrap_or(lower), 2),
        0 => match (prefixed("0x"), prefixed("0o"), prefixed("0b")) {
            (Some(digits), ..) => (digits, 16),
            (_, Some(digits), _) => (digits, 8),
            (.., Some(digits)) => (digits, 2),
            _ => (lower, 10),
        },
        base => (
            lower,
            u32::try_from(base).ok().filter(|base| (2..=36).contains(base))?,
        ),
    };
    // Underscores stand between digits only.
    let well_formed = digits
        .split('_')
        .all(|run| !run.is_empty() && run.chars().all(|c| c.is_digit(base)));
    if !well_formed {
        return None;
    }
    let magnitude = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

/// Python's `float(text)`.
fn parse_float(text: &str) -> Option<f64> {
    let text = strings::strip(text, None, true, true);
    let plain = text.replace('_', "");
    if text.starts_with('_') || text.ends_with('_') {
        return None;
    }
    plain.parse().ok()
}

fn whole(value: f64) -> Option<Value> {
    // Beyond 2^127 a float has no place in the engine's integers.
    (value.is_finite() && value.abs() < 1.7e38).then(|| int_value(value.trunc() as i128))
}

pub(super) fn int(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["default", "base"])?;
    let value = args.req(0, "value")?;
    let found = match (value.as_str(), integer(value)) {
        (Some(text), _) => parse_int(text, args.opt_int(2, "base")?.unwrap_or(10))
            .map(int_value)
            .or_else(|| parse_float(text).and_then(whole)),
        (None, Some(int)) => Some(Value::from(int)),
        (None, None) if value.is_integer() => Some(value.clone()),
        (None, None) if value.is_number() => f64::try_from(value.clone()).ok().and_then(whole),
        _ => None,
    };
    Ok(found.unwrap_or_else(|| args.opt(1, "default").cloned().unwrap_or_else(|| Value::from(0))))
}

pub(super) fn float(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(2, &["default"])?;
    let value = args.req(0, "value")?;
    let found = match value.as_str() {
        Some(text) => parse_float(text),
        None => match integer(value) {
            Some(int) => Some(int as f64),
            None if value.is_number() => f64::try_from(value.clone()).ok(),
            None => None,
        },
    };
    Ok(match found {
        Some(float) => Value::from(float),
        None => args
            .opt(1, "default")
            .cloned()
            .unwrap_or_else(|| Value::from(0.0)),
    })
}

pub(super) fn round(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["precision", "method"])?;
    let value = args.req(0, "value")?;
    let precision = args.opt_int(1, "precision")?.unwrap_or(0).clamp(-40, 400);
    let method = args.opt_str(2, "method")?.unwrap_or("common");
    let int = integer(value);
    let number = match int {
        Some(int) => int as f64,
        None if value.is_number() => {
            f64::try_from(value.clone()).map_err(|_| args.fail("the number is too large"))?
        }
        None => return Err(args.fail(&format!("a number is needed, not '{}'", type_name(value)))),
    };
    let mut scale = 1.0f64;
    for _ in 0..precision.unsigned_abs() {
        scale *= 10.0;
    }
    let places = length(precision);
    let rounded = match (method, int) {
        ("common", Some(int)) if precision >= 0 => return Ok(Value::from(int)),
        ("common", Some(int)) => {
            let unit = scale as i128;
            let (int, half) = (i128::from(int), unit / 2);
            let down = int.div_euclid(unit);
            let rest = int.rem_euclid(unit);
            let up = rest > half || (rest == half && down % 2 != 0);
            return Ok(int_value((down + i128::from(up)) * unit));
        }
        // The decimal expansion is exact and ties go to the even digit, as in Python.
        ("common", None) if precision >= 0 => format!("{number:.places$}").parse().unwrap_or(number),
        ("common", None) => libm::rint(number / scale) * scale,
        ("ceil" | "floor", _) => {
            let step = if method == "ceil" { f64::ceil } else { f64::floor };
            if precision >= 0 {
                step(number * scale) / scale
            } else {
                step(number / scale) * scale
            }
        }
        _ => return Err(args.fail("method must be common, ceil or floor")),
    };
    Ok(Value::from(rounded))
}

pub(super) fn sum(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["attribute", "start"])?;
    let attribute = filters::Attribute::new(args.opt(1, "attribute"), None);
    let mut total = args.opt(2, "start").cloned().unwrap_or_else(|| Value::from(0));
    if total.as_str().is_some() {
        return Err(args.fail("strings cannot be summed"));
    }
    for item in filters::iterate(state, args.req(0, "value")?)? {
        total = arithmetic::add(state, &total, &attribute.of(&item)?)?;
    }
    Ok(total)
}

pub(super) fn filesizeformat(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let bytes = float(state, &Args::new("float", &[args.req(0, "value")?.clone()]))?;
    let bytes = f64::try_from(bytes).map_err(|_| args.fail("a number is needed"))?;
    let binary = args.flag(1, "binary", false);
    let (base, units) = if binary {
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

pub(super) fn trim(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(2, &["chars"])?;
    let chars = args.opt_str(1, "chars")?;
    changed(state, args, |text| {
        strings::strip(text, chars, true, true).to_owned()
    })
}

/// Words begin after white space, dashes and opening brackets.
pub(super) fn title(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let text = filters::text(state, args)?;
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if strings::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<') {
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

pub(super) fn replace(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["old", "new", "count"])?;
    let text = filters::text(state, args)?;
    let old = filters::str_of(state, args.req(1, "old")?)?;
    let new = filters::str_of(state, args.req(2, "new")?)?;
    strings::replace(state, &text, &old, &new, args.opt_int(3, "count")?)
}

pub(super) fn indent(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["width", "first", "blank"])?;
    let value = args.req(0, "value")?;
    let Some(text) = value.as_str() else {
        return Err(args.fail(&format!("a string is needed, not '{}'", type_name(value))));
    };
    let margin = match args.opt(1, "width") {
        None => "    ".to_owned(),
        Some(width) => match (width.as_str(), integer(width)) {
            (Some(margin), _) => margin.to_owned(),
            (None, Some(width)) => {
                let width = length(width);
                methods::pay(state, width)?;
                " ".repeat(width)
            }
            _ => return Err(args.fail("width must be an integer or a string")),
        },
    };
    let (first, blank) = (args.flag(2, "first", false), args.flag(3, "blank", false));
    // With the newline that jinja2 appends, so that an empty last line counts.
    let source = format!("{text}\n");
    let lines = call_splitlines(state, &source)?;
    methods::pay(
        state,
        lines
            .len()
            .saturating_mul(margin.len() + 1)
            .saturating_add(text.len()),
    )?;
    let mut out = String::with_capacity(text.len());
    for (i, line) in lines.iter().enumerate() {
        let line = line.as_str().unwrap_or_default();
        if i > 0 {
            out.push('\n');
        }
        if (i == 0 && first) || (i > 0 && (blank || !line.is_empty())) {
            out.push_str(&margin);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn call_splitlines(state: &mut State<'_, '_>, text: &str) -> Result<Vec<Value>, Error> {
    let lines = Value::from(text).call_method(state, "splitlines", &[])?;
    filters::iterate(state, &lines)
}

pub(super) fn center(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let text = Value::from(filters::text(state, args)?);
    let width = args.opt(1, "width").cloned().unwrap_or_else(|| Value::from(80));
    text.call_method(state, "center", &[width])
}

pub(super) fn truncate(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(5, &["length", "killwords", "end", "leeway"])?;
    let text = filters::text(state, args)?;
    let limit = args.opt_int(1, "length")?.unwrap_or(255);
    let end = args.opt_str(3, "end")?.unwrap_or("...");
    let leeway = args.opt_int(4, "leeway")?.unwrap_or(5);
    let end_len = end.chars().count() as i64;
    if limit < end_len || leeway < 0 {
        return Err(args.fail("the length is below that of the end, or the leeway is negative"));
    }
    if text.chars().count() as i64 <= limit.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let kept: String = text.chars().take(length(limit - end_len)).collect();
    let kept = match kept.rsplit_once(' ') {
        Some((before, _)) if !args.flag(2, "killwords", false) => before,
        _ => kept.as_str(),
    };
    Ok(Value::from(format!("{kept}{end}")))
}

pub(super) fn wordcount(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let text = filters::text(state, args)?;
    let word = |c: char| c == '_' || c.is_alphanumeric();
    Ok(Value::from(
        text.split(|c| !word(c)).filter(|run| !run.is_empty()).count(),
    ))
}

pub(super) fn format_filter(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let values = args.forward(1, Value::from(""));
    printf(state, args, &values[1..])
}

/// `"…" % operand`: a tuple gives the values one by one, a dict by name, anything else is the one value.
pub(super) fn printf_operator(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let operand = args.req(1, "operand")?;
    match operand.downcast_object_ref::<Seq>() {
        Some(seq) if seq.is_tuple() => printf(state, args, &seq.items()),
        _ => printf(state, args, std::slice::from_ref(operand)),
    }
}

fn printf(state: &mut State<'_, '_>, args: &Args<'_>, values: &[Value]) -> Result<Value, Error> {
    let text = filters::text(state, args)?;
    strings::pay_for_format(state, &text, values)?;
    Ok(Value::from(format(
        FormatStyle::Printf,
        &text,
        &strings::format_args(state, values)?,
    )?))
}

/// markupsafe's escapes.
fn escape_text(text: &str, out: &mut String) {
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
}

pub(super) fn escape(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    if args.req(0, "value")?.is_safe() {
        return Ok(args.req(0, "value")?.clone());
    }
    forceescape(state, args)
}

pub(super) fn forceescape(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let mut out = String::new();
    escape_text(&filters::text(state, args)?, &mut out);
    Ok(Value::from_safe_string(out))
}

pub(super) fn safe(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    filters::text(state, args).map(Value::from_safe_string)
}

/// The text of the value changed; a string that `safe` marked stays marked.
pub(super) fn changed(
    state: &mut State<'_, '_>,
    args: &Args<'_>,
    change: impl FnOnce(&str) -> String,
) -> Result<Value, Error> {
    let text = change(&filters::text(state, args)?);
    Ok(if args.req(0, "value")?.is_safe() {
        Value::from_safe_string(text)
    } else {
        Value::from(text)
    })
}

/// A string as marked text: escaped unless it is marked already. Other values stay.
pub(super) fn markup(value: Value) -> Value {
    match value.as_str() {
        Some(text) if !value.is_safe() => {
            let mut out = String::new();
            escape_text(text, &mut out);
            Value::from_safe_string(out)
        }
        _ => value,
    }
}

pub(super) fn xmlattr(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let Some(dict) = args.req(0, "value")?.downcast_object_ref::<Dict>() else {
        return Err(args.fail("a mapping is needed"));
    };
    let mut out = String::new();
    for (key, value) in dict.entries().iter() {
        if value.is_none() || value.is_undefined() {
            continue;
        }
        let name = key.as_str().unwrap_or_default();
        if name.contains(|c: char| strings::is_space(c) || matches!(c, '/' | '>' | '=')) {
            return Err(args.fail(&format!("invalid character in attribute name {name:?}")));
        }
        if !out.is_empty() || args.flag(1, "autospace", true) {
            out.push(' ');
        }
        escape_text(name, &mut out);
        out.push_str("=\"");
        escape_text(&filters::str_of(state, value)?, &mut out);
        out.push('"');
    }
    Ok(Value::from(out))
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

pub(super) fn urlencode(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = args.req(0, "value")?;
    let mut out = String::new();
    if !matches!(
        value.kind(),
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable
    ) {
        url_quote(&filters::str_of(state, value)?, false, &mut out);
        return Ok(Value::from(out));
    }
    for (i, (key, value)) in super::functions::pairs_of(state, value)?.into_iter().enumerate() {
        if i > 0 {
            out.push('&');
        }
        url_quote(&filters::str_of(state, &key)?, true, &mut out);
        out.push('=');
        url_quote(&filters::str_of(state, &value)?, true, &mut out);
    }
    Ok(Value::from(out))
}
