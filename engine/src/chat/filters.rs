//! Jinja's filters with the results that Python's jinja2 gives (its `filters.py` is the source of what each does).
//!
//! Filters that are generators there return a [`Generator`] here.

use std::cmp::Ordering;

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::args::{Args, integer};
use super::json;
use super::methods;
use super::value::{Budget, Dict, Generator, Seq, check_key, error, to_str, type_name};

/// A filter: the value is the first argument.
type Filter = fn(&mut State<'_, '_>, &Args<'_>) -> Result<Value, Error>;

const FILTERS: [(&str, Filter); 57] = [
    ("abs", abs),
    ("attr", attr),
    ("batch", batch),
    ("capitalize", |state, args| {
        changed(state, args, methods::capitalize)
    }),
    ("center", center),
    ("count", length),
    ("d", default),
    ("default", default),
    ("dictsort", dictsort),
    ("e", escape),
    ("escape", escape),
    ("filesizeformat", filesizeformat),
    ("first", first),
    ("float", float),
    ("forceescape", forceescape),
    ("format", format_filter),
    ("groupby", groupby),
    ("indent", indent),
    ("int", int),
    ("items", items),
    ("join", join),
    ("last", last),
    ("length", length),
    ("list", list),
    ("lower", |state, args| changed(state, args, str::to_lowercase)),
    ("map", map),
    ("max", |state, args| extreme(state, args, Ordering::Greater)),
    ("min", |state, args| extreme(state, args, Ordering::Less)),
    ("pprint", pprint),
    ("reject", |state, args| choose(state, args, false, false)),
    ("rejectattr", |state, args| choose(state, args, true, false)),
    ("replace", replace),
    ("reverse", reverse),
    ("round", round),
    ("safe", safe),
    ("select", |state, args| choose(state, args, false, true)),
    ("selectattr", |state, args| choose(state, args, true, true)),
    ("slice", slice),
    ("sort", sort),
    ("string", |state, args| changed(state, args, str::to_owned)),
    ("sum", sum),
    ("title", title),
    ("tojson", json::tojson),
    ("trim", trim),
    ("truncate", truncate),
    ("unique", unique),
    ("upper", |state, args| changed(state, args, str::to_uppercase)),
    ("urlencode", urlencode),
    ("wordcount", wordcount),
    ("xmlattr", xmlattr),
    (ADD, |state, args| add(state, input(args)?, args.req(1, "other")?)),
    (PRINTF, printf_operator),
    // Names of the engine that Jinja does not have.
    ("bool", unknown),
    ("chain", unknown),
    ("lines", unknown),
    ("split", unknown),
    ("zip", unknown),
];

/// The filter that the rewriter puts in place of `%` after a string literal.
pub(super) const PRINTF: &str = "_tw_printf";

/// The filter that the rewriter puts in place of `+` in templates that mark strings as safe.
pub(super) const ADD: &str = "_tw_add";

/// Replaces the engine's filters by these.
pub(super) fn register(env: &mut Environment<'_>) {
    for (name, filter) in FILTERS {
        env.add_filter(
            name,
            move |state: &mut State<'_, '_>, values: Rest<ValueOrKwargs>| {
                filter(state, &Args::new(name, &values.into_values()))
            },
        );
    }
}

fn unknown(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    Err(Error::new(
        ErrorKind::UnknownFilter,
        args.fail("there is no such filter").to_string(),
    ))
}

fn input<'a>(args: &'a Args<'_>) -> Result<&'a Value, Error> {
    args.req(0, "value")
}

/// `str()` of the value.
fn text(state: &State<'_, '_>, args: &Args<'_>) -> Result<String, Error> {
    str_of(state, input(args)?)
}

/// `str()` of a value, paid for.
pub(super) fn str_of(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let budget = Budget::of(state)?;
    let text = to_str(value, &budget);
    budget.check()?;
    methods::pay(state, text.len())?;
    Ok(text)
}

/// The items that a `for` loop over `value` would see.
pub(super) fn iterate(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    let items: Vec<Value> = match value.kind() {
        ValueKind::Undefined => Vec::new(),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            methods::pay(state, text.len().saturating_mul(32))?;
            text.chars().map(Value::from).collect()
        }
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            if let Some(seq) = value.downcast_object_ref::<Seq>() {
                let items = seq.items();
                state.consume_fuel(items.len() as u64 / 2)?;
                return Ok(items.to_vec());
            }
            if let Some(dict) = value.downcast_object_ref::<Dict>() {
                let entries = dict.entries();
                state.consume_fuel(entries.len() as u64 / 2)?;
                return Ok(entries.keys().cloned().collect());
            }
            if let Some(generator) = value.downcast_object_ref::<Generator>() {
                let items = generator.drain();
                state.consume_fuel(items.len() as u64 / 2)?;
                return Ok(items);
            }
            let mut items = Vec::new();
            for item in value.try_iter()? {
                state.consume_fuel(1)?;
                items.push(item);
            }
            items
        }
        _ => return Err(error(format!("'{}' object is not iterable", type_name(value)))),
    };
    Ok(items)
}

fn generator(state: &State<'_, '_>, items: Vec<Value>) -> Result<Value, Error> {
    Generator::build(&Budget::of(state)?, items)
}

fn new_list(state: &State<'_, '_>, items: Vec<Value>) -> Result<Value, Error> {
    Seq::list(&Budget::of(state)?, items)
}

/// A dotted attribute: names and indices, looked up one after the other.
struct Attribute {
    parts: Vec<Value>,
    default: Option<Value>,
}

impl Attribute {
    fn new(attribute: Option<&Value>, default: Option<Value>) -> Self {
        let parts = match attribute {
            None => Vec::new(),
            Some(value) => match value.as_str() {
                Some(path) => path
                    .split('.')
                    .map(|part| {
                        part.parse::<u32>()
                            .map_or_else(|_| Value::from(part), Value::from)
                    })
                    .collect(),
                None if value.is_none() => Vec::new(),
                None => vec![value.clone()],
            },
        };
        Self { parts, default }
    }

    fn of(&self, item: &Value) -> Result<Value, Error> {
        let mut value = item.clone();
        for part in &self.parts {
            value = value.get_item(part)?;
            if let (true, Some(default)) = (value.is_undefined(), &self.default) {
                value = default.clone();
            }
        }
        Ok(value)
    }
}

/// Strings compare in lower case unless asked otherwise.
fn folded(value: Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value,
    }
}

/// Pays for sorting `n` items.
fn pay_for_sort(state: &State<'_, '_>, n: usize) -> Result<(), Error> {
    let n = n as u64;
    state.consume_fuel(n.saturating_mul(u64::from(n.max(1).ilog2()) + 2))
}

/// Values that Python cannot order are an error there; the order here is total but says so.
fn check_comparable<'a>(values: impl Iterator<Item = &'a Value>) -> Result<(), Error> {
    let mut seen: Option<&Value> = None;
    for value in values {
        let kind = |value: &Value| match value.kind() {
            ValueKind::Bool => ValueKind::Number,
            kind => kind,
        };
        let ordered = !matches!(
            kind(value),
            ValueKind::None | ValueKind::Map | ValueKind::Undefined
        );
        match seen {
            Some(first) if kind(first) != kind(value) || !ordered => {
                return Err(error(format!(
                    "'<' not supported between instances of '{}' and '{}'",
                    type_name(value),
                    type_name(first)
                )));
            }
            _ => seen = Some(value),
        }
    }
    Ok(())
}

// ------------------------------------------------------------------------------------------- any value

fn default(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["default_value", "boolean"])?;
    let value = args.req(0, "value")?;
    let replace = value.is_undefined() || (args.flag(2, "boolean", false) && !value.is_true());
    if !replace {
        return Ok(value.clone());
    }
    Ok(args
        .opt(1, "default_value")
        .cloned()
        .unwrap_or_else(|| Value::from("")))
}

fn attr(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let (value, name) = (input(args)?, args.str(1, "name")?);
    // Attributes only, never items: methods of a list or dict.
    let own = value.downcast_object_ref::<Seq>().is_some() || value.downcast_object_ref::<Dict>().is_some();
    let method = match value.downcast_object_ref::<Seq>() {
        Some(seq) => methods::is_seq_method(seq, name),
        None => methods::is_dict_method(name),
    };
    if own && !method {
        return Ok(Value::UNDEFINED);
    }
    value.get_attr(name)
}

fn length(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(1, &[])?;
    let value = input(args)?;
    if value.is_undefined() {
        return Ok(Value::from(0));
    }
    let len = match value.as_str() {
        Some(text) => Some(text.chars().count()),
        None if value.downcast_object_ref::<Generator>().is_some() => None,
        None => match value.len() {
            Some(len) => Some(len),
            None if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) => {
                Some(iterate(state, value)?.len())
            }
            None => None,
        },
    };
    len.map(Value::from)
        .ok_or_else(|| error(format!("object of type '{}' has no len()", type_name(value))))
}

fn pprint(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let budget = Budget::of(state)?;
    let mut out = String::new();
    // A String takes every write.
    let _ = super::value::write_repr(&mut out, input(args)?, &budget);
    budget.check()?;
    Ok(Value::from(out))
}

// -------------------------------------------------------------------------------------------- numbers

fn abs(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
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
    let text = methods::strip(text, None, true, true);
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
    let text = methods::strip(text, None, true, true);
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

fn int_value(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

fn int(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["default", "base"])?;
    let value = input(args)?;
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

fn float(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(2, &["default"])?;
    let value = input(args)?;
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

fn round(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["precision", "method"])?;
    let value = input(args)?;
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
    let places = usize::try_from(precision).unwrap_or(0);
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

fn sum(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["attribute", "start"])?;
    let attribute = Attribute::new(args.opt(1, "attribute"), None);
    let mut total = args.opt(2, "start").cloned().unwrap_or_else(|| Value::from(0));
    if total.as_str().is_some() {
        return Err(args.fail("strings cannot be summed"));
    }
    for item in iterate(state, input(args)?)? {
        total = add(state, &total, &attribute.of(&item)?)?;
    }
    Ok(total)
}

/// `a + b`. A string that `safe` marked escapes one that is not, as markupsafe does even where nothing is escaped.
pub(super) fn add(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    let unsupported = || {
        error(format!(
            "unsupported operand types for +: '{}' and '{}'",
            type_name(a),
            type_name(b)
        ))
    };
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        methods::pay(state, left.len().saturating_add(right.len()))?;
        return Ok(if a.is_safe() || b.is_safe() {
            let (left, right) = (markup(a.clone()), markup(b.clone()));
            Value::from_safe_string(
                [left.as_str(), right.as_str()]
                    .map(Option::unwrap_or_default)
                    .concat(),
            )
        } else {
            Value::from([left, right].concat())
        });
    }
    if let (Some(a), Some(b)) = (whole_number(a), whole_number(b)) {
        return a
            .checked_add(b)
            .map(int_value)
            .ok_or_else(|| error("the sum is too large"));
    }
    let number = |value: &Value| match whole_number(value) {
        Some(int) => Some(int as f64),
        None if value.is_number() => f64::try_from(value.clone()).ok(),
        None => None,
    };
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(Value::from(a + b));
    }
    let is_list = |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
            && value.downcast_object_ref::<Generator>().is_none()
            && !value.downcast_object_ref::<Seq>().is_some_and(Seq::is_view)
    };
    let is_tuple = |value: &Value| value.downcast_object_ref::<Seq>().is_some_and(Seq::is_tuple);
    if !is_list(a) || !is_list(b) || is_tuple(a) != is_tuple(b) {
        return Err(unsupported());
    }
    let mut items = iterate(state, a)?;
    items.extend(iterate(state, b)?);
    let budget = Budget::of(state)?;
    if is_tuple(a) {
        Seq::tuple(&budget, items)
    } else {
        Seq::list(&budget, items)
    }
}

fn whole_number(value: &Value) -> Option<i128> {
    match integer(value) {
        Some(int) => Some(int.into()),
        None if value.is_integer() => i128::try_from(value.clone()).ok(),
        None => None,
    }
}

fn filesizeformat(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let bytes = float(state, &Args::new("float", &[input(args)?.clone()]))?;
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

// -------------------------------------------------------------------------------------------- strings

fn trim(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(2, &["chars"])?;
    let chars = args.opt_str(1, "chars")?;
    changed(state, args, |text| {
        methods::strip(text, chars, true, true).to_owned()
    })
}

/// Words begin after white space, dashes and opening brackets.
fn title(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let text = text(state, args)?;
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if methods::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<') {
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

fn replace(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["old", "new", "count"])?;
    let text = text(state, args)?;
    let old = str_of(state, args.req(1, "old")?)?;
    let new = str_of(state, args.req(2, "new")?)?;
    methods::replace(state, &text, &old, &new, args.opt_int(3, "count")?)
}

fn indent(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["width", "first", "blank"])?;
    let value = input(args)?;
    let Some(text) = value.as_str() else {
        return Err(args.fail(&format!("a string is needed, not '{}'", type_name(value))));
    };
    let margin = match args.opt(1, "width") {
        None => "    ".to_owned(),
        Some(width) => match (width.as_str(), integer(width)) {
            (Some(margin), _) => margin.to_owned(),
            (None, Some(width)) => {
                let width = usize::try_from(width).unwrap_or(0);
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
    iterate(state, &lines)
}

fn center(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let text = Value::from(text(state, args)?);
    let width = args.opt(1, "width").cloned().unwrap_or_else(|| Value::from(80));
    text.call_method(state, "center", &[width])
}

fn truncate(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(5, &["length", "killwords", "end", "leeway"])?;
    let text = text(state, args)?;
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
    let kept: String = text
        .chars()
        .take(usize::try_from(limit - end_len).unwrap_or(0))
        .collect();
    let kept = match kept.rsplit_once(' ') {
        Some((before, _)) if !args.flag(2, "killwords", false) => before,
        _ => kept.as_str(),
    };
    Ok(Value::from(format!("{kept}{end}")))
}

fn wordcount(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let text = text(state, args)?;
    let word = |c: char| c == '_' || c.is_alphanumeric();
    Ok(Value::from(
        text.split(|c| !word(c)).filter(|run| !run.is_empty()).count(),
    ))
}

fn format_filter(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let values = args.forward(1, Value::from(""));
    printf(state, args, &values[1..])
}

/// `"…" % operand`: a tuple gives the values one by one, a dict by name, anything else is the one value.
fn printf_operator(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let operand = args.req(1, "operand")?;
    match operand.downcast_object_ref::<Seq>() {
        Some(seq) if seq.is_tuple() => printf(state, args, &seq.items()),
        _ => printf(state, args, std::slice::from_ref(operand)),
    }
}

fn printf(state: &mut State<'_, '_>, args: &Args<'_>, values: &[Value]) -> Result<Value, Error> {
    let text = text(state, args)?;
    methods::pay_for_format(state, &text, values)?;
    Ok(Value::from(format(
        FormatStyle::Printf,
        &text,
        &methods::format_args(state, values)?,
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

fn escape(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    if input(args)?.is_safe() {
        return Ok(input(args)?.clone());
    }
    forceescape(state, args)
}

fn forceescape(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let mut out = String::new();
    escape_text(&text(state, args)?, &mut out);
    Ok(Value::from_safe_string(out))
}

fn safe(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    text(state, args).map(Value::from_safe_string)
}

/// The text of the value changed; a string that `safe` marked stays marked.
fn changed(
    state: &mut State<'_, '_>,
    args: &Args<'_>,
    change: impl FnOnce(&str) -> String,
) -> Result<Value, Error> {
    let text = change(&text(state, args)?);
    Ok(if input(args)?.is_safe() {
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

fn xmlattr(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let Some(dict) = input(args)?.downcast_object_ref::<Dict>() else {
        return Err(args.fail("a mapping is needed"));
    };
    let mut out = String::new();
    for (key, value) in dict.entries().iter() {
        if value.is_none() || value.is_undefined() {
            continue;
        }
        let name = key.as_str().unwrap_or_default();
        if name.contains(|c: char| methods::is_space(c) || matches!(c, '/' | '>' | '=')) {
            return Err(args.fail(&format!("invalid character in attribute name {name:?}")));
        }
        if !out.is_empty() || args.flag(1, "autospace", true) {
            out.push(' ');
        }
        escape_text(name, &mut out);
        out.push_str("=\"");
        escape_text(&str_of(state, value)?, &mut out);
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

fn urlencode(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
    let mut out = String::new();
    if !matches!(
        value.kind(),
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable
    ) {
        url_quote(&str_of(state, value)?, false, &mut out);
        return Ok(Value::from(out));
    }
    for (i, (key, value)) in super::functions::pairs_of(state, value)?.into_iter().enumerate() {
        if i > 0 {
            out.push('&');
        }
        url_quote(&str_of(state, &key)?, true, &mut out);
        out.push('=');
        url_quote(&str_of(state, &value)?, true, &mut out);
    }
    Ok(Value::from(out))
}

// ------------------------------------------------------------------------------------------ sequences

fn first(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
    if let Some(generator) = value.downcast_object_ref::<Generator>() {
        return Ok(generator.next().unwrap_or(Value::UNDEFINED));
    }
    if value.is_undefined() {
        return Ok(Value::UNDEFINED);
    }
    if value.is_none() || value.is_number() {
        return Err(error(format!("'{}' object is not iterable", type_name(value))));
    }
    Ok(value.try_iter()?.next().unwrap_or(Value::UNDEFINED))
}

fn last(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
    if let Some(text) = value.as_str() {
        return Ok(text.chars().next_back().map_or(Value::UNDEFINED, Value::from));
    }
    if let Some(seq) = value.downcast_object_ref::<Seq>() {
        return Ok(seq.items().last().cloned().unwrap_or(Value::UNDEFINED));
    }
    Ok(iterate(state, value)?.pop().unwrap_or(Value::UNDEFINED))
}

fn list(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(1, &[])?;
    let items = iterate(state, input(args)?)?;
    new_list(state, items)
}

fn items(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
    if value.is_undefined() {
        return generator(state, Vec::new());
    }
    let budget = Budget::of(state)?;
    match value.downcast_object_ref::<Dict>() {
        Some(dict) => {
            let entries = dict.entries();
            state.consume_fuel(entries.len() as u64)?;
            Generator::build(&budget, methods::pairs(&budget, &entries)?)
        }
        None => Err(error("can only get item pairs from a mapping")),
    }
}

fn join(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["d", "attribute"])?;
    let separator = match args.opt(1, "d") {
        Some(separator) => str_of(state, separator)?,
        None => String::new(),
    };
    let attribute = Attribute::new(args.opt(2, "attribute"), None);
    let budget = Budget::of(state)?;
    let mut out = String::new();
    for (i, item) in iterate(state, input(args)?)?.iter().enumerate() {
        if i > 0 {
            out.push_str(&separator);
        }
        let before = out.len();
        // A String takes every write.
        let _ = super::value::write_str(&mut out, &attribute.of(item)?, &budget);
        budget.check()?;
        methods::pay(state, out.len() - before + separator.len() + 16)?;
    }
    Ok(Value::from(out))
}

fn reverse(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut items = iterate(state, value)?;
    items.reverse();
    generator(state, items)
}

/// The items, none where the value is false: `none|map(…)` is empty.
fn walk_if_true(state: &State<'_, '_>, args: &Args<'_>) -> Result<Vec<Value>, Error> {
    let value = input(args)?;
    if value.is_true() {
        iterate(state, value)
    } else {
        Ok(Vec::new())
    }
}

fn map(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let items = walk_if_true(state, args)?;
    let mut out = Vec::with_capacity(items.len());
    if args.positional().len() == 1 {
        let Some(attribute) = args.keyword("attribute") else {
            return Err(args.fail("a filter name or attribute= is needed"));
        };
        let attribute = Attribute::new(Some(attribute), args.keyword("default").cloned());
        for item in &items {
            state.consume_fuel(1)?;
            out.push(attribute.of(item)?);
        }
    } else {
        let name = args.str(1, "filter")?;
        for item in items {
            state.consume_fuel(4)?;
            let values = args.forward(2, item);
            out.push(state.apply_filter(name, &values)?);
        }
    }
    generator(state, out)
}

fn choose(
    state: &mut State<'_, '_>,
    args: &Args<'_>,
    by_attribute: bool,
    wanted: bool,
) -> Result<Value, Error> {
    let items = walk_if_true(state, args)?;
    let attribute = by_attribute.then(|| args.req(1, "attribute")).transpose()?;
    let attribute = Attribute::new(attribute, None);
    let at = 1 + usize::from(by_attribute);
    let test = args.positional().get(at);
    let mut out = Vec::new();
    for item in items {
        state.consume_fuel(3)?;
        let value = attribute.of(&item)?;
        let holds = match test {
            None => value.is_true(),
            Some(test) => match test.as_str() {
                Some(test) => state.perform_test(test, &args.forward(at + 1, value))?,
                None => return Err(args.fail("the name of a test is needed")),
            },
        };
        if holds == wanted {
            out.push(item);
        }
    }
    generator(state, out)
}

/// Sorts `(key, item)` by key, stable in either direction as Python's `sorted`.
fn sort_by_key(
    state: &State<'_, '_>,
    mut keyed: Vec<(Vec<Value>, Value)>,
    reverse: bool,
) -> Result<Vec<Value>, Error> {
    pay_for_sort(state, keyed.len())?;
    let columns = keyed.first().map_or(0, |(key, _)| key.len());
    for column in 0..columns {
        check_comparable(keyed.iter().filter_map(|(key, _)| key.get(column)))?;
    }
    if reverse {
        keyed.sort_by(|a, b| b.0.cmp(&a.0));
    } else {
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
    }
    Ok(keyed.into_iter().map(|(_, item)| item).collect())
}

fn sort(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["reverse", "case_sensitive", "attribute"])?;
    let case_sensitive = args.flag(2, "case_sensitive", false);
    let attributes: Vec<Attribute> = match args.opt(3, "attribute") {
        Some(value) => match value.as_str() {
            Some(names) => names
                .split(',')
                .map(|name| Attribute::new(Some(&Value::from(name)), None))
                .collect(),
            None => vec![Attribute::new(Some(value), None)],
        },
        None => vec![Attribute::new(None, None)],
    };
    let mut keyed = Vec::new();
    for item in iterate(state, input(args)?)? {
        let key = attributes
            .iter()
            .map(|attribute| attribute.of(&item).map(|key| folded(key, case_sensitive)))
            .collect::<Result<_, _>>()?;
        keyed.push((key, item));
    }
    let sorted = sort_by_key(state, keyed, args.flag(1, "reverse", false))?;
    new_list(state, sorted)
}

fn dictsort(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["case_sensitive", "by", "reverse"])?;
    let value = input(args)?;
    let Some(dict) = value.downcast_object_ref::<Dict>() else {
        return Err(args.fail(&format!("a mapping is needed, not '{}'", type_name(value))));
    };
    let case_sensitive = args.flag(1, "case_sensitive", false);
    let by_value = match args.opt_str(2, "by")?.unwrap_or("key") {
        "key" => false,
        "value" => true,
        _ => return Err(args.fail("you can only sort by either \"key\" or \"value\"")),
    };
    let budget = Budget::of(state)?;
    let mut keyed = Vec::new();
    for (key, value) in dict.entries().iter() {
        let by = if by_value { value } else { key };
        let pair = Seq::tuple(&budget, vec![key.clone(), value.clone()])?;
        keyed.push((vec![folded(by.clone(), case_sensitive)], pair));
    }
    let sorted = sort_by_key(state, keyed, args.flag(3, "reverse", false))?;
    new_list(state, sorted)
}

fn groupby(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["attribute", "default", "case_sensitive"])?;
    let attribute = Attribute::new(Some(args.req(1, "attribute")?), args.opt(2, "default").cloned());
    let case_sensitive = args.flag(3, "case_sensitive", false);
    let mut keyed = Vec::new();
    for item in iterate(state, input(args)?)? {
        keyed.push((vec![folded(attribute.of(&item)?, case_sensitive)], item));
    }
    let budget = Budget::of(state)?;
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for item in sort_by_key(state, keyed, false)? {
        let real = attribute.of(&item)?;
        let key = folded(real.clone(), case_sensitive);
        match groups.last_mut() {
            Some((last, _, members)) if *last == key => members.push(item),
            _ => groups.push((key, real, vec![item])),
        }
    }
    let groups = groups
        .into_iter()
        .map(|(_, real, members)| Seq::group(&budget, real, members))
        .collect::<Result<_, _>>()?;
    Seq::list(&budget, groups)
}

fn unique(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["case_sensitive", "attribute"])?;
    let case_sensitive = args.flag(1, "case_sensitive", false);
    let attribute = Attribute::new(args.opt(2, "attribute"), None);
    let mut seen = std::collections::HashSet::new();
    let mut out = Vec::new();
    for item in iterate(state, input(args)?)? {
        let key = folded(attribute.of(&item)?, case_sensitive);
        check_key(&key)?;
        if seen.insert(key) {
            out.push(item);
        }
    }
    generator(state, out)
}

fn extreme(state: &mut State<'_, '_>, args: &Args<'_>, wanted: Ordering) -> Result<Value, Error> {
    args.accept(3, &["case_sensitive", "attribute"])?;
    let case_sensitive = args.flag(1, "case_sensitive", false);
    let attribute = Attribute::new(args.opt(2, "attribute"), None);
    let mut best: Option<(Value, Value)> = None;
    for item in iterate(state, input(args)?)? {
        let key = folded(attribute.of(&item)?, case_sensitive);
        let better = match &best {
            None => true,
            Some((champion, _)) => {
                check_comparable([champion, &key].into_iter())?;
                key.cmp(champion) == wanted
            }
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

fn batch(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["linecount", "fill_with"])?;
    let size = args
        .opt_int(1, "linecount")?
        .ok_or_else(|| args.fail("linecount is needed"))?;
    let size = usize::try_from(size)
        .ok()
        .filter(|&size| size > 0)
        .ok_or_else(|| args.fail("linecount must be positive"))?;
    let fill = args.opt(2, "fill_with").filter(|fill| !fill.is_none());
    let budget = Budget::of(state)?;
    let mut out = Vec::new();
    for chunk in iterate(state, input(args)?)?.chunks(size) {
        let mut row = chunk.to_vec();
        if let Some(fill) = fill {
            state.consume_fuel((size - row.len()) as u64)?;
            row.resize(size, fill.clone());
        }
        out.push(Seq::list(&budget, row)?);
    }
    Generator::build(&budget, out)
}

fn slice(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["slices", "fill_with"])?;
    let slices = args
        .opt_int(1, "slices")?
        .ok_or_else(|| args.fail("slices is needed"))?;
    let slices = usize::try_from(slices)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| args.fail("slices must be positive"))?;
    state.consume_fuel(slices as u64)?;
    let fill = args.opt(2, "fill_with").filter(|fill| !fill.is_none());
    let items = iterate(state, input(args)?)?;
    let budget = Budget::of(state)?;
    let (each, extra) = (items.len() / slices, items.len() % slices);
    let mut rest = items.as_slice();
    let mut out = Vec::new();
    for i in 0..slices {
        let (part, tail) = rest.split_at(each + usize::from(i < extra));
        rest = tail;
        let mut row = part.to_vec();
        if let (Some(fill), true) = (fill, i >= extra) {
            row.push(fill.clone());
        }
        out.push(Seq::list(&budget, row)?);
    }
    Generator::build(&budget, out)
}
