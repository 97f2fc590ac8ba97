//! Operators as Python has them: arithmetic, comparison, containment, subscripts.

use std::cmp::Ordering;

use crate::args::clamped;
use crate::ast::{Comparison, Operator};
use crate::error::{Eval, fail};
use crate::eval::undefined_error;
use crate::format;
use crate::render::Rendering;
use crate::repr::to_str;
use crate::strings::markup;
use crate::value::{Dict, Key, Seq, SeqKind, Text, Value, same};

/// An integer, where it has a place.
fn whole(value: Option<i128>) -> Eval<Value> {
    match value {
        Some(int) => Ok(Value::Int(int)),
        None => fail("the number is too large"),
    }
}

fn sign(value: &Value, sign: char, int: fn(i128) -> Option<i128>, float: fn(f64) -> f64) -> Eval<Value> {
    match (value.as_int(), value.as_float()) {
        (Some(value), _) => whole(int(value)),
        (None, Some(value)) => Ok(Value::Float(float(value))),
        _ if value.is_undefined() => undefined_error(value),
        _ => fail(format!(
            "bad operand type for unary {sign}: '{}'",
            value.type_name()
        )),
    }
}

/// `-value`
pub(crate) fn negative(value: &Value) -> Eval<Value> {
    sign(value, '-', i128::checked_neg, |float| -float)
}

/// `+value`
pub(crate) fn positive(value: &Value) -> Eval<Value> {
    sign(value, '+', Some, |float| float)
}

/// `a ~ b ~ …`
pub(crate) fn concat(r: &Rendering, parts: &[Value]) -> Eval<Value> {
    let safe = parts.iter().any(Value::is_safe) && r.escapes();
    let mut text = String::new();
    for part in parts {
        let part = if safe { markup(part.clone()) } else { part.clone() };
        match part.as_str() {
            Some(part) => {
                r.pay(part.len())?;
                text.push_str(part);
            }
            None => text.push_str(&to_str(r, &part)?),
        }
    }
    Ok(Value::text(text, safe))
}

/// `a + b` and its like.
pub(crate) fn arithmetic(r: &Rendering, operator: Operator, a: &Value, b: &Value) -> Eval<Value> {
    match (operator, a, b) {
        (_, Value::Undefined(_), _) => return undefined_error(a),
        (Operator::Modulo, Value::Str(text), _) => return format::printf_operator(r, text, b),
        (_, _, Value::Undefined(_)) => return undefined_error(b),
        _ => {}
    }
    if let (Some(a), Some(b)) = (a.as_int(), b.as_int()) {
        return integers(operator, a, b);
    }
    if let (Some(a), Some(b)) = (a.as_float(), b.as_float()) {
        return floats(operator, a, b);
    }
    let name = match operator {
        Operator::Add => return add(r, a, b),
        Operator::Multiply => return repeat(r, a, b),
        Operator::Subtract => "-",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Modulo => "%",
        Operator::Power => "**",
    };
    unsupported(name, a, b)
}

fn unsupported<T>(operator: &str, a: &Value, b: &Value) -> Eval<T> {
    fail(format!(
        "unsupported operand types for {operator}: '{}' and '{}'",
        a.type_name(),
        b.type_name()
    ))
}

fn integers(operator: Operator, a: i128, b: i128) -> Eval<Value> {
    if b == 0
        && matches!(
            operator,
            Operator::Divide | Operator::FloorDivide | Operator::Modulo
        )
    {
        return fail("division by zero");
    }
    whole(match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Divide => return Ok(Value::Float(a as f64 / b as f64)),
        // Towards minus infinity, and the rest has the divisor's sign.
        Operator::FloorDivide => a
            .checked_div(b)
            .map(|whole| whole - i128::from(a % b != 0 && (a < 0) != (b < 0))),
        Operator::Modulo => a
            .checked_rem(b)
            .map(|rest| rest + if rest != 0 && (rest < 0) != (b < 0) { b } else { 0 }),
        Operator::Power => match u32::try_from(b) {
            Ok(exponent) => a.checked_pow(exponent),
            Err(_) if b < 0 => {
                // Closer than a power of floats, where the integer's is known.
                let power = u32::try_from(-b)
                    .ok()
                    .and_then(|exponent| a.checked_pow(exponent));
                return match power.filter(|power| *power != 0 && power.unsigned_abs() < 1 << 53) {
                    Some(power) => Ok(Value::Float(1.0 / power as f64)),
                    None => floats(operator, a as f64, b as f64),
                };
            }
            Err(_) => (-1..=1).contains(&a).then(|| if b % 2 == 0 { a * a } else { a }),
        },
    })
}

fn floats(operator: Operator, a: f64, b: f64) -> Eval<Value> {
    if b == 0.0
        && matches!(
            operator,
            Operator::Divide | Operator::FloorDivide | Operator::Modulo
        )
    {
        return fail("division by zero");
    }
    // The rest has the divisor's sign.
    let rest = || {
        let rest = a % b;
        match rest == 0.0 {
            true => 0.0f64.copysign(b),
            false if (rest < 0.0) != (b < 0.0) => rest + b,
            false => rest,
        }
    };
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::FloorDivide => {
            let quotient = (a - rest()) / b;
            let floor = quotient.floor();
            match quotient == 0.0 {
                true => 0.0f64.copysign(a / b),
                false if quotient - floor > 0.5 => floor + 1.0,
                false => floor,
            }
        }
        Operator::Modulo => rest(),
        Operator::Power if a == 0.0 && b < 0.0 => return fail("0.0 cannot be raised to a negative power"),
        Operator::Power if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 => {
            return fail("a negative number cannot be raised to a fractional power");
        }
        Operator::Power => {
            // Not the platform's: its results differ.
            let power = libm::pow(a, b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return fail("the number is too large");
            }
            power
        }
    }))
}

/// A string that `safe` marked escapes one that is not, as markupsafe does even where nothing is escaped.
fn add(r: &Rendering, a: &Value, b: &Value) -> Eval<Value> {
    if let (Value::Str(left), Value::Str(right)) = (a, b) {
        r.pay(left.text.len().saturating_add(right.text.len()))?;
        let safe = left.safe || right.safe;
        let (a, b) = if safe {
            (markup(a.clone()), markup(b.clone()))
        } else {
            (a.clone(), b.clone())
        };
        return Ok(Value::text(
            [&a, &b].map(|part| part.as_str().unwrap_or_default()).concat(),
            safe,
        ));
    }
    match (list_of(a), list_of(b)) {
        (Some(left), Some(right)) if left.is_tuple() == right.is_tuple() => {
            let (left_items, right_items) = (left.items(), right.items());
            r.spend((left_items.len() + right_items.len()) as u64 / 2)?;
            let items = left_items.iter().chain(right_items.iter()).cloned().collect();
            Value::seq(
                if left.is_tuple() {
                    SeqKind::Tuple
                } else {
                    SeqKind::List
                },
                items,
            )
        }
        _ => unsupported("+", a, b),
    }
}

fn repeat(r: &Rendering, a: &Value, b: &Value) -> Eval<Value> {
    let (repeated, times) = match (a.as_int(), b.as_int()) {
        (None, Some(times)) => (a, times),
        (Some(times), None) => (b, times),
        _ => return unsupported("*", a, b),
    };
    let times = crate::args::length(clamped(times));
    match (repeated, list_of(repeated)) {
        (Value::Str(Text { text, safe }), _) => {
            r.pay(text.len().saturating_mul(times))?;
            Ok(Value::text(text.repeat(times), *safe))
        }
        (_, Some(seq)) => {
            let items = seq.items();
            let total = items.len().saturating_mul(times);
            r.spend(total as u64)?;
            let items = items.iter().cycle().take(total).cloned().collect();
            Value::seq(
                if seq.is_tuple() {
                    SeqKind::Tuple
                } else {
                    SeqKind::List
                },
                items,
            )
        }
        _ => unsupported("*", a, b),
    }
}

/// A list or tuple.
fn list_of(value: &Value) -> Option<&Seq> {
    value.as_seq().filter(|seq| !seq.is_view())
}

// ------------------------------------------------------------------------------------------- comparison

/// Whether `a comparison b` holds.
pub(crate) fn compare(r: &Rendering, comparison: Comparison, a: &Value, b: &Value) -> Eval<bool> {
    Ok(match comparison {
        Comparison::Equal => equal(r, a, b)?,
        Comparison::NotEqual => !equal(r, a, b)?,
        Comparison::In => contains(r, b, a)?,
        Comparison::NotIn => !contains(r, b, a)?,
        Comparison::Less => order(r, "<", a, b)?.is_some_and(Ordering::is_lt),
        Comparison::LessEqual => order(r, "<=", a, b)?.is_some_and(Ordering::is_le),
        Comparison::Greater => order(r, ">", a, b)?.is_some_and(Ordering::is_gt),
        Comparison::GreaterEqual => order(r, ">=", a, b)?.is_some_and(Ordering::is_ge),
    })
}

/// Python's `==`.
pub(crate) fn equal(r: &Rendering, a: &Value, b: &Value) -> Eval<bool> {
    r.spend(1)?;
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(compare_numbers(a, b) == Some(Ordering::Equal));
    }
    Ok(match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            if a.text.len() != b.text.len() {
                return Ok(false);
            }
            r.pay(a.text.len())?;
            a.text == b.text
        }
        (Value::Seq(x), Value::Seq(y)) => match (x.is_view(), y.is_view()) {
            (false, false) => x.is_tuple() == y.is_tuple() && equal_items(r, x, y)?,
            // Views of values are equal to themselves only.
            (true, true) if x.kind != SeqKind::Values && y.kind != SeqKind::Values => {
                x.items().len() == y.items().len() && is_subset(r, x, y)?
            }
            _ => same(a, b),
        },
        (Value::Dict(a), Value::Dict(b)) => equal_dicts(r, a, b)?,
        _ => same(a, b),
    })
}

fn equal_items(r: &Rendering, a: &Seq, b: &Seq) -> Eval<bool> {
    let (a, b) = (a.items(), b.items());
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b.iter()) {
        if !equal(r, a, b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_dicts(r: &Rendering, a: &Dict, b: &Dict) -> Eval<bool> {
    let (a, b) = (a.entries(), b.entries());
    if a.len() != b.len() {
        return Ok(false);
    }
    for (key, value) in a.iter() {
        r.pay(key.value().as_str().map_or(0, str::len))?;
        match b.get(key) {
            Some(other) if equal(r, value, other)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether all items of one view are among those of another.
fn is_subset(r: &Rendering, a: &Seq, b: &Seq) -> Eval<bool> {
    for item in a.items().iter() {
        if !contains_item(r, &b.items(), item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Float(float) => Some(Number::Float(*float)),
        _ => value.as_int().map(Number::Int),
    }
}

/// Exactly, also where a float does not hold the integer.
fn compare_numbers(a: Number, b: Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        (Number::Float(_), Number::Int(_)) => compare_numbers(b, a).map(Ordering::reverse),
        (Number::Int(_), Number::Float(b)) if b.is_nan() => None,
        (Number::Int(_), Number::Float(b)) if b >= 1.7e38 => Some(Ordering::Less),
        (Number::Int(_), Number::Float(b)) if b <= -1.7e38 => Some(Ordering::Greater),
        (Number::Int(a), Number::Float(b)) => Some(a.cmp(&(b.floor() as i128)).then(if b.fract() == 0.0 {
            Ordering::Equal
        } else {
            Ordering::Less
        })),
    }
}

/// The order of two values; `None` where one is not a number.
fn order(r: &Rendering, operator: &str, a: &Value, b: &Value) -> Eval<Option<Ordering>> {
    r.spend(1)?;
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(compare_numbers(a, b));
    }
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            r.pay(a.text.len().min(b.text.len()))?;
            Ok(Some(a.text.cmp(&b.text)))
        }
        (Value::Seq(x), Value::Seq(y)) if !x.is_view() && !y.is_view() && x.is_tuple() == y.is_tuple() => {
            order_items(r, operator, &x.items(), &y.items())
        }
        (Value::Undefined(_), _) => undefined_error(a),
        (_, Value::Undefined(_)) => undefined_error(b),
        _ => fail(format!(
            "'{operator}' not supported between instances of '{}' and '{}'",
            a.type_name(),
            b.type_name()
        )),
    }
}

/// The first items that differ decide; equal ones are never asked which is less.
fn order_items(r: &Rendering, operator: &str, a: &[Value], b: &[Value]) -> Eval<Option<Ordering>> {
    for (a, b) in a.iter().zip(b) {
        if !equal(r, a, b)? {
            return order(r, operator, a, b);
        }
    }
    Ok(Some(a.len().cmp(&b.len())))
}

/// The order of two values by `<`; what is neither less nor greater is equal for a sort.
pub(crate) fn less_or_greater(r: &Rendering, a: &Value, b: &Value) -> Eval<Ordering> {
    Ok(order(r, "<", a, b)?.unwrap_or(Ordering::Equal))
}

/// The order of two lists of sort keys.
pub(crate) fn order_keys(r: &Rendering, a: &[Value], b: &[Value]) -> Eval<Ordering> {
    Ok(order_items(r, "<", a, b)?.unwrap_or(Ordering::Equal))
}

fn contains(r: &Rendering, container: &Value, value: &Value) -> Eval<bool> {
    match container {
        Value::Str(text) => match value {
            Value::Str(sought) => {
                r.pay(text.text.len())?;
                Ok(text.text.contains(&*sought.text))
            }
            _ => fail(format!(
                "'in <string>' requires string as left operand, not '{}'",
                value.type_name()
            )),
        },
        Value::Dict(dict) => {
            r.pay(value.as_str().map_or(0, str::len))?;
            Ok(dict.entry(value)?.is_some())
        }
        Value::Seq(seq) => {
            if seq.kind == SeqKind::Keys {
                Key::new(value.clone())?;
            }
            contains_item(r, &seq.items(), value)
        }
        _ => contains_item(r, &r.items(container)?, value),
    }
}

/// Whether an item is the value or equals it.
pub(crate) fn contains_item(r: &Rendering, items: &[Value], value: &Value) -> Eval<bool> {
    Ok(position(r, items, value)?.is_some())
}

/// Where the first item stands that equals `value`.
pub(crate) fn position(r: &Rendering, items: &[Value], value: &Value) -> Eval<Option<usize>> {
    for (at, item) in items.iter().enumerate() {
        if equal(r, item, value)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

// ------------------------------------------------------------------------------------------- subscripts

/// The place of Python's index in a sequence of `len`.
pub(crate) fn index(index: i128, len: usize) -> Option<usize> {
    let at = if index < 0 {
        index.saturating_add(len as i128)
    } else {
        index
    };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// `value[start:stop:step]`
pub(crate) fn slice(r: &Rendering, value: &Value, start: &Value, stop: &Value, step: &Value) -> Eval<Value> {
    let bound = |bound: &Value| match (bound, bound.as_int()) {
        (Value::None, _) => Ok(None),
        (_, Some(int)) => Ok(Some(clamped(int))),
        _ => fail("slice indices must be integers or none"),
    };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return fail("slice step cannot be zero");
    }
    match (value, list_of(value)) {
        (Value::Str(Text { text, safe }), _) => {
            r.pay(text.len().saturating_mul(8))?;
            let chars: Vec<char> = text.chars().collect();
            let picked: String = places(chars.len(), start, stop, step)
                .map(|at| chars[at])
                .collect();
            Ok(Value::text(picked, *safe))
        }
        (_, Some(seq)) => {
            let items = seq.items();
            let places = places(items.len(), start, stop, step);
            r.spend(places.len() as u64 / 2)?;
            let picked = places.map(|at| items[at].clone()).collect();
            Value::seq(
                if seq.is_tuple() {
                    SeqKind::Tuple
                } else {
                    SeqKind::List
                },
                picked,
            )
        }
        (Value::Undefined(_), _) => undefined_error(value),
        _ => fail(format!("'{}' object cannot be sliced", value.type_name())),
    }
}

/// The indices that a Python slice of a sequence of `len` picks, all below `len`.
fn places(
    len: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
) -> impl ExactSizeIterator<Item = usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let (low, high) = if step < 0 { (-1, len - 1) } else { (0, len) };
    let clamp = |at: i64| {
        if at < 0 {
            at.saturating_add(len).max(low)
        } else {
            at.min(high)
        }
    };
    let (first, last) = if step < 0 {
        (start.map_or(high, clamp), stop.map_or(low, clamp))
    } else {
        (start.map_or(low, clamp), stop.map_or(high, clamp))
    };
    let span = if step < 0 { first - last } else { last - first };
    let count = if span > 0 {
        (span as u64 - 1) / step.unsigned_abs() + 1
    } else {
        0
    };
    // The last place is within the sequence, so no product or sum here overflows.
    (0..count as usize).map(move |i| (first + i as i64 * step) as usize)
}
