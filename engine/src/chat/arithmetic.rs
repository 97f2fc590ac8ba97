//! `+`, `*`, `~` and the signs as Python has them, in place of the engine's, whose results for lists are lazy views,
//! whose signs refuse a bool, and whose floats print in another way.

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::args::{Args, integer, length};
use super::budget::Budget;
use super::filters;
use super::methods;
use super::scalar_filters;
use super::value::{Generator, Seq, error, type_name};

/// An integer in the smallest of the engine's types.
pub(super) fn int_value(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

/// `a + b + …`.
pub(super) fn sum(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let values = args.positional();
    if values
        .iter()
        .all(|value| value.as_str().is_some() && !value.is_safe())
    {
        // The common case at once, in place of a growing string per operator.
        let parts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        let bytes = parts
            .iter()
            .fold(0usize, |sum, part| sum.saturating_add(part.len()));
        methods::pay(state, bytes)?;
        return Ok(Value::from(parts.concat()));
    }
    fold(state, args, add)
}

/// `a * b * …`.
pub(super) fn product(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    fold(state, args, multiply)
}

/// `a ~ b ~ …`.
pub(super) fn concat(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let mut text = String::new();
    for operand in args.positional() {
        text.push_str(&filters::str_of(state, operand)?);
    }
    Ok(Value::from(text))
}

/// `-a`.
pub(super) fn negative(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    signed(args, '-', |int| int.checked_neg(), |float| -float)
}

/// `+a`.
pub(super) fn positive(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    signed(args, '+', Some, |float| float)
}

fn signed(
    args: &Args<'_>,
    sign: char,
    whole: fn(i128) -> Option<i128>,
    fraction: fn(f64) -> f64,
) -> Result<Value, Error> {
    let value = args.req(0, "operand")?;
    match (whole_number(value), float(value)) {
        (Some(int), _) => whole(int)
            .map(int_value)
            .ok_or_else(|| error("the number is too large")),
        (None, Some(float)) => Ok(Value::from(fraction(float))),
        (None, None) => Err(error(format!(
            "bad operand type for unary {sign}: '{}'",
            type_name(value)
        ))),
    }
}

fn fold(
    state: &State<'_, '_>,
    args: &Args<'_>,
    step: fn(&State<'_, '_>, &Value, &Value) -> Result<Value, Error>,
) -> Result<Value, Error> {
    let mut result = args.req(0, "operand")?.clone();
    for operand in args.positional().iter().skip(1) {
        result = step(state, &result, operand)?;
    }
    Ok(result)
}

fn unsupported(operator: char, a: &Value, b: &Value) -> Error {
    for value in [a, b] {
        if value.is_undefined() {
            return Error::new(
                minijinja::ErrorKind::UndefinedError,
                format!("an operand of {operator} is undefined"),
            );
        }
    }
    error(format!(
        "unsupported operand types for {operator}: '{}' and '{}'",
        type_name(a),
        type_name(b)
    ))
}

/// What can be joined and repeated: lists and tuples.
fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
        && value.downcast_object_ref::<Generator>().is_none()
        && !value.downcast_object_ref::<Seq>().is_some_and(Seq::is_view)
}

fn is_tuple(value: &Value) -> bool {
    value.downcast_object_ref::<Seq>().is_some_and(Seq::is_tuple)
}

fn float(value: &Value) -> Option<f64> {
    match whole_number(value) {
        Some(int) => Some(int as f64),
        None if value.is_number() => f64::try_from(value.clone()).ok(),
        None => None,
    }
}

/// `a + b`. A string that `safe` marked escapes one that is not, as markupsafe does even where nothing is escaped.
pub(super) fn add(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        methods::pay(state, left.len().saturating_add(right.len()))?;
        return Ok(if a.is_safe() || b.is_safe() {
            let (left, right) = (
                scalar_filters::markup(a.clone()),
                scalar_filters::markup(b.clone()),
            );
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
    if let (Some(a), Some(b)) = (float(a), float(b)) {
        return Ok(Value::from(a + b));
    }
    if !is_list(a) || !is_list(b) || is_tuple(a) != is_tuple(b) {
        return Err(unsupported('+', a, b));
    }
    let mut items = filters::iterate(state, a)?;
    items.extend(filters::iterate(state, b)?);
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

fn multiply(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(x), Some(y)) = (whole_number(a), whole_number(b)) {
        return x
            .checked_mul(y)
            .map(int_value)
            .ok_or_else(|| error("the product is too large"));
    }
    if let (Some(x), Some(y)) = (float(a), float(b)) {
        return Ok(Value::from(x * y));
    }
    let (repeated, times) = match (integer(a), integer(b)) {
        (None, Some(times)) => (a, times),
        (Some(times), None) => (b, times),
        _ => return Err(unsupported('*', a, b)),
    };
    let times = length(times);
    if let Some(text) = repeated.as_str() {
        methods::pay(state, text.len().saturating_mul(times))?;
        let text = text.repeat(times);
        return Ok(if repeated.is_safe() {
            Value::from_safe_string(text)
        } else {
            Value::from(text)
        });
    }
    if !is_list(repeated) {
        return Err(unsupported('*', a, b));
    }
    let items = filters::iterate(state, repeated)?;
    let total = items.len().saturating_mul(times);
    state.consume_fuel(total as u64 / 2)?;
    let budget = Budget::of(state)?;
    let items = items.iter().cycle().take(total).cloned().collect();
    if is_tuple(repeated) {
        Seq::tuple(&budget, items)
    } else {
        Seq::list(&budget, items)
    }
}
