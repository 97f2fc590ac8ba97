//! Comparisons as Python has them: what cannot be ordered or searched is an error, and long operands are paid for.

use std::cmp::Ordering;

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::args::Args;
use super::budget::Budget;
use super::filters::iterate;
use super::methods::pay;
use super::value::{Dict, Seq, error, type_name};

/// A chain such as `a < b <= c`: each neighbouring pair has to hold.
pub(super) fn chain(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let operators = args.str(0, "operators")?;
    let operands = args.positional().get(1..).unwrap_or_default();
    for (operator, pair) in operators.split(' ').zip(operands.windows(2)) {
        if let [a, b] = pair
            && !compare(state, operator, a, b)?
        {
            return Ok(Value::from(false));
        }
    }
    Ok(Value::from(true))
}

/// Whether `a operator b` holds.
pub(super) fn compare(state: &State<'_, '_>, operator: &str, a: &Value, b: &Value) -> Result<bool, Error> {
    Ok(match operator {
        "==" => equal(state, a, b)?,
        "!=" => !equal(state, a, b)?,
        "in" => contains(state, a, b)?,
        "not-in" => !contains(state, a, b)?,
        "<" => order(state, operator, a, b)?.is_some_and(Ordering::is_lt),
        "<=" => order(state, operator, a, b)?.is_some_and(Ordering::is_le),
        ">" => order(state, operator, a, b)?.is_some_and(Ordering::is_gt),
        ">=" => order(state, operator, a, b)?.is_some_and(Ordering::is_ge),
        _ => return Err(error(format!("unknown comparison {operator}"))),
    })
}

/// Pays for comparing strings, which ends where the shorter one does.
fn pay_for_strings(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<(), Error> {
    match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => pay(state, a.len().min(b.len())),
        _ => Ok(()),
    }
}

fn equal(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<bool, Error> {
    match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) if a.len() != b.len() => return Ok(false),
        _ => pay_for_strings(state, a, b)?,
    }
    let equal = a == b;
    if a.as_object().is_some() && b.as_object().is_some() {
        // Containers spend the budget, and their comparison means nothing once that has run out.
        Budget::of(state)?;
    }
    Ok(equal)
}

fn list_of(value: &Value) -> Option<&Seq> {
    value.downcast_object_ref::<Seq>().filter(|seq| !seq.is_view())
}

/// The order of two values; `None` where one is not a number.
fn order(state: &State<'_, '_>, operator: &str, a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    let number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if let Some((left, right)) = list_of(a)
        .zip(list_of(b))
        .filter(|(a, b)| a.is_tuple() == b.is_tuple())
    {
        // The first items that differ decide.
        let (left, right) = (left.items(), right.items());
        for (a, b) in left.iter().zip(right.iter()) {
            state.consume_fuel(1)?;
            if !equal(state, a, b)? {
                return order(state, operator, a, b);
            }
        }
        return Ok(Some(left.len().cmp(&right.len())));
    }
    let comparable = match (number(a), number(b)) {
        (true, true) => true,
        _ => a.as_str().is_some() && b.as_str().is_some(),
    };
    if !comparable {
        return Err(error(format!(
            "'{operator}' not supported between instances of '{}' and '{}'",
            type_name(a),
            type_name(b)
        )));
    }
    pay_for_strings(state, a, b)?;
    let not_a_number = |value: &Value| number(value) && f64::try_from(value.clone()).is_ok_and(f64::is_nan);
    if not_a_number(a) || not_a_number(b) {
        return Ok(None);
    }
    Ok(Some(a.cmp(b)))
}

/// The order of two sort keys by `<`: the values by turns, as Python compares lists, in which equal values are never
/// asked which is less.
pub(super) fn order_keys(state: &State<'_, '_>, a: &[Value], b: &[Value]) -> Result<Ordering, Error> {
    for (a, b) in a.iter().zip(b) {
        if !equal(state, a, b)? {
            return less_or_greater(state, a, b);
        }
    }
    Ok(a.len().cmp(&b.len()))
}

/// The order of two values by `<`; what is neither less nor greater is equal for a sort.
pub(super) fn less_or_greater(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Ordering, Error> {
    Ok(order(state, "<", a, b)?.unwrap_or(Ordering::Equal))
}

fn contains(state: &State<'_, '_>, value: &Value, container: &Value) -> Result<bool, Error> {
    if let Some(text) = container.as_str() {
        let Some(sought) = value.as_str() else {
            return Err(error(format!(
                "'in <string>' requires string as left operand, not {}",
                type_name(value)
            )));
        };
        pay(state, text.len())?;
        return Ok(text.contains(sought));
    }
    if let Some(dict) = container.downcast_object_ref::<Dict>() {
        super::value::check_key(value)?;
        pay(state, value.as_str().map_or(0, str::len))?;
        return Ok(dict.entry(value).is_some());
    }
    if let Some(seq) = container.downcast_object_ref::<Seq>() {
        for item in seq.items().iter() {
            state.consume_fuel(1)?;
            if equal(state, item, value)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    if container.is_undefined() {
        return Ok(false);
    }
    if container.kind() == ValueKind::Map && !super::value::is_function(container) {
        // Namespaces and loops.
        return Err(error(format!(
            "argument of type '{}' is not iterable",
            type_name(container)
        )));
    }
    for item in iterate(state, container)? {
        if equal(state, &item, value)? {
            return Ok(true);
        }
    }
    Ok(false)
}
