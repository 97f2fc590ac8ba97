//! Python's two format languages: `"%5.2f" % x` ("printf-style String Formatting") and `"{:>5}".format(x)` ("Format
//! String Syntax", "Format Specification Mini-Language").

use std::sync::Arc;

use crate::args::{clamped, length};
use crate::error::{Eval, fail};
use crate::render::Rendering;
use crate::repr::{float_repr, to_ascii, to_str, write_repr};
use crate::value::{Text, Value};

/// More digits than any float has; Rust's own formatting has a bound, too.
const MAX_PRECISION: usize = 10_000;

/// How one value is to be written.
#[derive(Debug, Clone, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    /// `+`, `-` or a space.
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    /// `,` or `_` between groups of digits.
    grouping: Option<char>,
    precision: Option<usize>,
    /// The type's letter.
    kind: Option<char>,
}

impl Spec {
    /// Pays for what the width and the precision ask for.
    fn pay(&self, r: &Rendering) -> Eval<()> {
        let precision = self.precision.unwrap_or(0);
        r.pay(self.width.saturating_add(precision))?;
        if precision > MAX_PRECISION {
            return fail(format!(
                "a precision of {precision} is too large, at most {MAX_PRECISION}"
            ));
        }
        Ok(())
    }

    /// Fills up to the width; `default` is where the text goes if nothing is said.
    fn pad(&self, text: &str, default: char) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        let left = match self.align.unwrap_or(default) {
            '<' => 0,
            '^' => missing / 2,
            _ => missing,
        };
        let fill = |n| std::iter::repeat_n(self.fill.unwrap_or(' '), n);
        fill(left)
            .chain(text.chars())
            .chain(fill(missing - left))
            .collect()
    }

    /// A sign, a prefix such as `0x`, and digits that may have a fraction, put together.
    fn number(&self, negative: bool, prefix: &str, digits: &str) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        let whole = digits
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(digits.len());
        let (whole, rest) = digits.split_at(if self.grouping.is_some() { whole } else { 0 });
        let size = if matches!(self.kind, Some('x' | 'X' | 'o' | 'b')) {
            4
        } else {
            3
        };
        let head = format!("{sign}{prefix}");
        let zeros = self.zero && self.align.is_none();
        let mut body = String::new();
        let wanted = if zeros {
            self.width.saturating_sub(head.len() + rest.len())
        } else {
            0
        };
        // From the right, a separator before every full group; zeros count as digits.
        let mut groups = whole.bytes().rev().map(char::from).chain(std::iter::repeat('0'));
        let mut count = 0;
        while count < whole.len() || (self.grouping.is_some() && body.len() < wanted) {
            if let (true, Some(separator)) = (count > 0 && count % size == 0, self.grouping) {
                body.push(separator);
            }
            body.extend(groups.next());
            count += 1;
        }
        let body: String = body.chars().rev().collect();
        let missing = wanted.saturating_sub(body.len());
        let digits = format!("{}{body}{rest}", "0".repeat(missing));
        if self.align == Some('=') {
            let missing = self.width.saturating_sub(head.len() + digits.len());
            let fill = std::iter::repeat_n(self.fill.unwrap_or(' '), missing);
            return head.chars().chain(fill).chain(digits.chars()).collect();
        }
        self.pad(&(head + &digits), '>')
    }

    fn integer(&self, int: i128) -> String {
        let magnitude = int.unsigned_abs();
        let (prefix, digits) = match self.kind {
            Some('x') => ("0x", format!("{magnitude:x}")),
            Some('X') => ("0X", format!("{magnitude:X}")),
            Some('o') => ("0o", format!("{magnitude:o}")),
            Some('b') => ("0b", format!("{magnitude:b}")),
            _ => ("", magnitude.to_string()),
        };
        self.number(int < 0, if self.alternate { prefix } else { "" }, &digits)
    }

    fn float(&self, value: f64) -> String {
        let kind = self.kind.unwrap_or('r');
        let upper = kind.is_ascii_uppercase();
        let magnitude = value.abs();
        let mut digits = if value.is_nan() {
            "nan".to_owned()
        } else if value.is_infinite() {
            "inf".to_owned()
        } else {
            let precision = self.precision.unwrap_or(6);
            match kind.to_ascii_lowercase() {
                'f' => format!("{magnitude:.precision$}"),
                '%' => format!("{:.precision$}%", magnitude * 100.0),
                'e' => exponent_form(magnitude, precision),
                'r' if self.precision.is_none() => float_repr(magnitude),
                // Without a type: as `g`, but with one digit after the point at least.
                'r' => general(magnitude, precision, self.alternate, true),
                _ => general(magnitude, precision, self.alternate, false),
            }
        };
        if self.alternate && value.is_finite() && !digits.contains('.') {
            let at = digits.find(['e', '%']).unwrap_or(digits.len());
            digits.insert(at, '.');
        }
        if upper {
            digits = digits.to_uppercase();
        }
        let negative = value.is_sign_negative() && !value.is_nan();
        self.number(negative, "", &digits)
    }

    fn text(&self, text: &str) -> String {
        let cut: String = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
        self.pad(&cut, '<')
    }
}

/// `1.50e+00`
fn exponent_form(magnitude: f64, precision: usize) -> String {
    let scientific = format!("{magnitude:.precision$e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// `precision` significant digits; an exponent where the number is small or has more digits before the point.
fn general(magnitude: f64, precision: usize, keep_zeros: bool, point: bool) -> String {
    let precision = precision.max(1);
    let scientific = exponent_form(magnitude, precision - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let limit = precision as i64 - i64::from(point);
    if exponent < -4 || exponent >= limit {
        return format!("{}e{}", trim(mantissa), &scientific[mantissa.len() + 1..]);
    }
    let places = length(precision as i64 - 1 - exponent);
    let plain = trim(&format!("{magnitude:.places$}"));
    if point && !plain.contains('.') {
        return plain + ".0";
    }
    plain
}

// ------------------------------------------------------------------------------------------------- printf

/// `text % operand`: a tuple gives the values one by one, a dict by name, anything else is the one value.
pub(crate) fn printf_operator(r: &Rendering, text: &Text, operand: &Value) -> Eval<Value> {
    let values = match operand.as_tuple() {
        Some(tuple) => tuple.items().to_vec(),
        None => vec![operand.clone()],
    };
    Ok(Value::text(
        printf(r, &text.text, &values, operand.as_tuple().is_some())?,
        text.safe,
    ))
}

/// Formats `values`; that all are used is checked unless the only one is a dict or a list.
pub(crate) fn printf(r: &Rendering, format: &str, values: &[Value], tuple: bool) -> Eval<String> {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut next = 0;
    let mut by_name = false;
    let mut take = || {
        next += 1;
        values
            .get(next - 1)
            .cloned()
            .map_or_else(|| fail("not enough arguments for format string"), Ok)
    };
    r.pay(format.len())?;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut named = None;
        if chars.next_if_eq(&'(').is_some() {
            let mut name = String::new();
            let mut depth = 1;
            loop {
                match chars.next() {
                    None => return fail("incomplete format key"),
                    Some(')') if depth == 1 => break,
                    Some(c) => {
                        depth += i32::from(c == '(') - i32::from(c == ')');
                        name.push(c);
                    }
                }
            }
            let dict = match values {
                [value] if !tuple => value.as_dict(),
                _ => None,
            };
            let Some(dict) = dict else {
                return fail("format requires a mapping");
            };
            by_name = true;
            match dict.entry(&Value::from(name.as_str()))? {
                Some(value) => named = Some(value),
                None => return fail(format!("there is no key '{name}' to format")),
            }
        }
        let mut spec = Spec::default();
        let mut left = false;
        let flagless = named.is_none() && chars.peek() == Some(&'%');
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | ' ' | '#' | '0')) {
            match flag {
                '-' => left = true,
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '#' => spec.alternate = true,
                _ => spec.zero = true,
            }
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| -> Eval<Option<i64>> {
            if chars.next_if_eq(&'*').is_some() {
                return match take()?.as_int() {
                    Some(int) => Ok(Some(clamped(int))),
                    None => fail("* wants int"),
                };
            }
            let mut number = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                number = Some(
                    number
                        .unwrap_or(0i64)
                        .saturating_mul(10)
                        .saturating_add(digit.into()),
                );
            }
            Ok(number)
        };
        if let Some(width) = number(&mut chars)? {
            left |= width < 0;
            spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        }
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(length(number(&mut chars)?.unwrap_or(0)));
        }
        while chars.next_if(|c| matches!(c, 'h' | 'l' | 'L')).is_some() {}
        spec.pay(r)?;
        let Some(kind) = chars.next() else {
            return fail("incomplete format");
        };
        if kind == '%' && flagless {
            out.push('%');
            continue;
        }
        if left {
            spec.align = Some('<');
        }
        let value = match named {
            Some(value) => value,
            None => take()?,
        };
        out.push_str(&convert(r, &mut spec, kind, &value)?);
    }
    let all_used = next >= values.len() || by_name;
    let container =
        matches!(values, [value] if !tuple && (value.as_dict().is_some() || value.as_seq().is_some()));
    if !(all_used || container && next == 0) {
        return fail("not all arguments converted during string formatting");
    }
    Ok(out)
}

/// One conversion of `%`.
fn convert(r: &Rendering, spec: &mut Spec, kind: char, value: &Value) -> Eval<String> {
    let needs = |what: &str| {
        fail(format!(
            "%{kind} format: {what} is required, not '{}'",
            value.type_name()
        ))
    };
    let right = if spec.align.is_none() {
        Some('>')
    } else {
        spec.align
    };
    match kind {
        's' | 'r' | 'a' => {
            let text = match kind {
                's' => to_str(r, value)?,
                _ => repr(r, value)?,
            };
            r.pay(text.len())?;
            spec.align = right;
            Ok(spec.text(&if kind == 'a' { to_ascii(&text) } else { text }))
        }
        'c' => {
            spec.align = right;
            spec.precision = None;
            match (value.as_str(), value.as_int()) {
                (Some(text), _) if text.chars().count() == 1 => Ok(spec.text(text)),
                (None, Some(code)) => match u32::try_from(code).ok().and_then(char::from_u32) {
                    Some(c) => Ok(spec.text(&c.to_string())),
                    None => fail("%c arg not in range(0x110000)"),
                },
                _ => needs("an integer or a character"),
            }
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let int = match value {
                Value::Float(float) if matches!(kind, 'd' | 'i' | 'u') && float.is_finite() => {
                    float.trunc() as i128
                }
                _ => match value.as_int() {
                    Some(int) => int,
                    None => return needs("a number"),
                },
            };
            spec.kind = Some(kind);
            // Digits at least.
            if let Some(precision) = spec.precision {
                let plain = Spec {
                    kind: spec.kind,
                    alternate: false,
                    ..Spec::default()
                };
                let digits = plain.integer(int.checked_abs().unwrap_or(i128::MAX));
                let digits = format!("{}{digits}", "0".repeat(precision.saturating_sub(digits.len())));
                let prefix = match (spec.alternate, kind) {
                    (true, 'x') => "0x",
                    (true, 'X') => "0X",
                    (true, 'o') => "0o",
                    _ => "",
                };
                return Ok(spec.number(int < 0, prefix, &digits));
            }
            Ok(spec.integer(int))
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match value.as_float() {
            Some(float) => {
                spec.kind = Some(kind);
                if !float.is_finite() {
                    spec.zero = false;
                }
                Ok(spec.float(float))
            }
            None => needs("a real number"),
        },
        _ => fail(format!("unsupported format character '{kind}'")),
    }
}

fn repr(r: &Rendering, value: &Value) -> Eval<String> {
    let mut text = String::new();
    write_repr(r, &mut text, value)?;
    Ok(text)
}

// -------------------------------------------------------------------------------------------- str.format

/// `text.format(*positional, **named)`
pub(crate) fn str_format(
    r: &Rendering,
    text: &str,
    positional: &[Value],
    named: &[(Arc<str>, Value)],
) -> Eval<String> {
    let mut fields = Fields {
        r,
        positional,
        named,
        next: 0,
        numbered: false,
    };
    fields.format(text, true)
}

struct Fields<'a> {
    r: &'a Rendering,
    positional: &'a [Value],
    named: &'a [(Arc<str>, Value)],
    /// The next field without a number.
    next: usize,
    /// Whether a field had a number.
    numbered: bool,
}

impl Fields<'_> {
    /// Fills the fields of `text`; those within a field's format have none of their own.
    fn format(&mut self, text: &str, outermost: bool) -> Eval<String> {
        self.r.pay(text.len())?;
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if outermost && after.starts_with(brace) {
                out.push_str(brace);
                rest = &after[1..];
                continue;
            }
            if brace == "}" {
                return fail("single '}' encountered in format string");
            }
            let mut depth = 1;
            let mut item = false;
            let end = after.char_indices().find(|&(_, c)| {
                match c {
                    '[' if depth == 1 => item = true,
                    ']' => item = false,
                    '{' if !item => depth += 1,
                    '}' if !item => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            let Some((end, _)) = end else {
                return fail("expected '}' before end of string");
            };
            if !outermost && after[..end].contains('{') {
                return fail("max string recursion exceeded");
            }
            let field = self.field(&after[..end])?;
            self.r.pay(field.len())?;
            out.push_str(&field);
            rest = &after[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// `name!conversion:format`
    fn field(&mut self, field: &str) -> Eval<String> {
        let mut item = false;
        let name_end = field.find(|c| {
            item = (item || c == '[') && c != ']';
            !item && matches!(c, '!' | ':')
        });
        let (name, rest) = field.split_at(name_end.unwrap_or(field.len()));
        let value = self.value(name)?;
        let (value, spec) = match rest.strip_prefix('!') {
            Some(conversion) => {
                let spec = conversion.get(1..).unwrap_or_default();
                let text = match conversion.chars().next() {
                    Some('r') => repr(self.r, &value)?,
                    Some('s') => to_str(self.r, &value)?,
                    Some('a') => to_ascii(&repr(self.r, &value)?),
                    _ => return fail(format!("unknown conversion in '{{{field}}}'")),
                };
                if !spec.is_empty() && !spec.starts_with(':') {
                    return fail("expected ':' after conversion specifier");
                }
                (Value::from(text), spec.get(1..).unwrap_or_default())
            }
            None => (value, rest.get(1..).unwrap_or_default()),
        };
        let spec = if spec.contains(['{', '}']) {
            self.format(spec, false)?
        } else {
            spec.to_owned()
        };
        format_value(self.r, &value, &spec)
    }

    /// `argument.attribute[item]`
    fn value(&mut self, name: &str) -> Eval<Value> {
        let first = name.find(['.', '[']).unwrap_or(name.len());
        let (argument, mut rest) = name.split_at(first);
        let index = match argument {
            "" if self.numbered => return fail("cannot mix fields with numbers and without"),
            "" => {
                self.next += 1;
                Some(self.next - 1)
            }
            _ => argument
                .parse()
                .ok()
                .filter(|_| argument.bytes().all(|b| b.is_ascii_digit())),
        };
        if !argument.is_empty() && index.is_some() {
            if self.next > 0 {
                return fail("cannot mix fields with numbers and without");
            }
            self.numbered = true;
        }
        let found = match index {
            Some(index) => self.positional.get(index),
            None => self
                .named
                .iter()
                .find(|(known, _)| **known == *argument)
                .map(|(_, value)| value),
        };
        let Some(mut value) = found.cloned() else {
            return fail(format!("there is no argument '{argument}' to format"));
        };
        while !rest.is_empty() {
            let key = if let Some(attribute) = rest.strip_prefix('.') {
                let end = attribute.find(['.', '[']).unwrap_or(attribute.len());
                rest = &attribute[end..];
                let found = self.r.attribute(&value, &attribute[..end].into())?;
                value = match (&value, found) {
                    // A format looks for attributes only.
                    (Value::Dict(_), _) | (_, Value::Undefined(_)) => {
                        return fail(format!("there is no attribute '{}' to format", &attribute[..end]));
                    }
                    (_, found) => found,
                };
                continue;
            } else {
                let inside = rest.get(1..).unwrap_or_default();
                let Some((key, after)) = inside.split_once(']').filter(|_| rest.starts_with('[')) else {
                    return fail("only '.' or '[' may follow ']' in format field specifier");
                };
                rest = after;
                key
            };
            let key = match key.parse::<i128>() {
                Ok(index) if key.bytes().all(|b| b.is_ascii_digit()) => Value::Int(index),
                _ => Value::from(key),
            };
            value = match self.r.item(&value, &key)? {
                Value::Undefined(_) | Value::Method(_) => {
                    return fail(format!("there is no item of '{name}' to format"));
                }
                found => found,
            };
        }
        Ok(value)
    }
}

/// `format(value, spec)`
fn format_value(r: &Rendering, value: &Value, spec: &str) -> Eval<String> {
    if spec.is_empty() {
        return to_str(r, value);
    }
    let spec = parse(spec)?;
    spec.pay(r)?;
    let wrong = |kind: char| {
        fail(format!(
            "unknown format code '{kind}' for object of type '{}'",
            value.type_name()
        ))
    };
    let number = |mut spec: Spec| {
        if spec.zero && spec.align.is_none() && spec.grouping.is_none() {
            spec.fill = spec.fill.or(Some('0'));
            spec.align = Some('=');
        } else if spec.zero && spec.fill.is_none() && spec.align.is_some() {
            spec.fill = Some('0');
        }
        spec
    };
    match value {
        Value::Str(text) => match spec.kind {
            None | Some('s')
                if spec.align == Some('=')
                    || spec.sign.is_some()
                    || spec.grouping.is_some()
                    || spec.alternate =>
            {
                fail("this format is not allowed for a string")
            }
            None | Some('s') => {
                let mut spec = spec;
                if spec.zero {
                    spec.fill = spec.fill.or(Some('0'));
                }
                Ok(spec.text(&text.text))
            }
            Some(kind) => wrong(kind),
        },
        Value::Float(_) | Value::Int(_) | Value::Bool(_) => {
            let float = value.as_float().unwrap_or_default();
            match (spec.kind, value.as_int()) {
                (Some('c'), Some(_))
                    if spec.sign.is_some() || spec.precision.is_some() || spec.grouping.is_some() =>
                {
                    fail("this format is not allowed with 'c'")
                }
                (Some('c'), Some(code)) => match u32::try_from(code).ok().and_then(char::from_u32) {
                    Some(c) => Ok(number(spec).pad(&c.to_string(), '<')),
                    None => fail("%c arg not in range(0x110000)"),
                },
                (None | Some('d' | 'n' | 'x' | 'X' | 'o' | 'b'), Some(_)) if spec.precision.is_some() => {
                    fail("precision not allowed in integer format specifier")
                }
                (Some('x' | 'X' | 'o' | 'b'), Some(_)) if spec.grouping == Some(',') => {
                    fail("cannot specify ',' here")
                }
                (None | Some('d' | 'n' | 'x' | 'X' | 'o' | 'b'), Some(int)) => Ok(number(spec).integer(int)),
                (None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%' | 'n'), _) => {
                    Ok(number(spec).float(float))
                }
                (Some(kind), _) => wrong(kind),
            }
        }
        _ => fail(format!(
            "unsupported format string passed to '{}'",
            value.type_name()
        )),
    }
}

/// `[[fill]align][sign][z][#][0][width][grouping][.precision][type]`
fn parse(text: &str) -> Eval<Spec> {
    let mut spec = Spec::default();
    let mut chars = text.chars().peekable();
    let is_align = |c: char| matches!(c, '<' | '>' | '=' | '^');
    let mut ahead = text.chars();
    match (ahead.next(), ahead.next()) {
        (Some(fill), Some(align)) if is_align(align) => {
            (spec.fill, spec.align) = (Some(fill), Some(align));
            chars.nth(1);
        }
        (Some(align), _) if is_align(align) => spec.align = chars.next(),
        _ => {}
    }
    spec.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
    let no_negative_zero = chars.next_if_eq(&'z').is_some();
    spec.alternate = chars.next_if_eq(&'#').is_some();
    spec.zero = chars.next_if_eq(&'0').is_some();
    let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
        let mut number = None;
        while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
            chars.next();
            number = Some(
                number
                    .unwrap_or(0usize)
                    .saturating_mul(10)
                    .saturating_add(digit as usize),
            );
        }
        number
    };
    spec.width = number(&mut chars).unwrap_or(0);
    spec.grouping = chars.next_if(|c| matches!(c, ',' | '_'));
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = number(&mut chars);
        if spec.precision.is_none() {
            return fail("format specifier missing precision");
        }
    }
    spec.kind = chars.next();
    if chars.next().is_some() || no_negative_zero {
        return fail(format!("invalid format specifier '{text}'"));
    }
    Ok(spec)
}
