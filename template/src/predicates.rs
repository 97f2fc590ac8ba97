//! Jinja's tests (`is …`) with the answers that Python's jinja2 gives.

use crate::args::Args;
use crate::ast::{Comparison, Operator};
use crate::error::{Eval, fail};
use crate::operators::{arithmetic, compare, equal};
use crate::render::Rendering;
use crate::repr::to_str;
use crate::strings::is_cased;
use crate::value::{SeqKind, Value, same};

/// All of them, but for those of [`comparison`].
const NAMES: [&str; 23] = [
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// The comparison that a test's name stands for.
fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "eq" | "equalto" | "==" => Comparison::Equal,
        "ne" | "!=" => Comparison::NotEqual,
        "lt" | "lessthan" | "<" => Comparison::Less,
        "le" | "<=" => Comparison::LessEqual,
        "gt" | "greaterthan" | ">" => Comparison::Greater,
        "ge" | ">=" => Comparison::GreaterEqual,
        "in" => Comparison::In,
        _ => return None,
    })
}

/// Whether the test that `args` names holds for `value`.
pub(crate) fn holds(r: &Rendering, value: &Value, args: &Args) -> Eval<bool> {
    if let Some(comparison) = comparison(args.name()) {
        args.accept(&["other"])?;
        return compare(r, comparison, value, args.req(0, "other")?);
    }
    Ok(match args.name() {
        "boolean" => matches!(value, Value::Bool(_)),
        "callable" => matches!(
            value,
            Value::Function(_)
                | Value::Macro(_)
                | Value::Method(_)
                | Value::Joiner(_)
                | Value::Loop(_)
                | Value::Undefined(_)
        ),
        "defined" => !value.is_undefined(),
        "divisibleby" => rest(r, value, args.req(0, "num")?)?,
        "escaped" => value.is_safe(),
        "even" => rest(r, value, &Value::Int(2))?,
        "odd" => equal(r, &modulo(r, value, &Value::Int(2))?, &Value::Int(1))?,
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "filter" => value
            .as_str()
            .is_some_and(|name| crate::filters::find(name).is_some()),
        "test" => value
            .as_str()
            .is_some_and(|name| NAMES.contains(&name) || comparison(name).is_some()),
        "float" => matches!(value, Value::Float(_)),
        "integer" => matches!(value, Value::Int(_)),
        "number" => value.as_float().is_some(),
        "string" => value.as_str().is_some(),
        "none" => value.is_none(),
        "mapping" => value.as_dict().is_some(),
        "iterable" => is_iterable(value),
        "sequence" => match value {
            Value::Seq(seq) => !matches!(seq.kind, SeqKind::Keys | SeqKind::Values | SeqKind::Items),
            Value::Generator(_) => false,
            _ => is_iterable(value),
        },
        "lower" => is_cased(&to_str(r, value)?, false),
        "upper" => is_cased(&to_str(r, value)?, true),
        "sameas" => same(value, args.req(0, "other")?),
        "undefined" => value.is_undefined(),
        name => return fail(format!("there is no test '{name}'")),
    })
}

fn modulo(r: &Rendering, value: &Value, by: &Value) -> Eval<Value> {
    arithmetic(r, Operator::Modulo, value, by)
}

/// Whether nothing is left of a division.
fn rest(r: &Rendering, value: &Value, by: &Value) -> Eval<bool> {
    equal(r, &modulo(r, value, by)?, &Value::Int(0))
}

fn is_iterable(value: &Value) -> bool {
    matches!(
        value,
        Value::Undefined(_)
            | Value::Str(_)
            | Value::Seq(_)
            | Value::Dict(_)
            | Value::Generator(_)
            | Value::Loop(_)
    )
}
