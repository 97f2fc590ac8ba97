//! Jinja's tests (`is …`) with the answers that Python's jinja2 gives.

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

use super::args::{Args, integer};
use super::comparison::compare;
use super::strings::is_cased;
use super::value::{Generator, Seq, is_function, type_name};

/// A test: the value is the first argument.
type Predicate = fn(&mut State<'_, '_>, &Args<'_>) -> Result<bool, Error>;

const PREDICATES: [(&str, Predicate); 40] = [
    ("!=", |state, args| {
        compare(state, "!=", left(args)?, right(args)?)
    }),
    ("<", |state, args| compare(state, "<", left(args)?, right(args)?)),
    ("<=", |state, args| {
        compare(state, "<=", left(args)?, right(args)?)
    }),
    ("==", |state, args| {
        compare(state, "==", left(args)?, right(args)?)
    }),
    (">", |state, args| compare(state, ">", left(args)?, right(args)?)),
    (">=", |state, args| {
        compare(state, ">=", left(args)?, right(args)?)
    }),
    ("boolean", |_, args| Ok(left(args)?.kind() == ValueKind::Bool)),
    ("callable", |_, args| Ok(is_callable(left(args)?))),
    ("defined", |_, args| Ok(!left(args)?.is_undefined())),
    ("divisibleby", divisible),
    ("eq", |state, args| {
        compare(state, "==", left(args)?, right(args)?)
    }),
    ("equalto", |state, args| {
        compare(state, "==", left(args)?, right(args)?)
    }),
    ("escaped", |_, args| Ok(left(args)?.is_safe())),
    ("even", |_, args| Ok(half(args)? == 0.0)),
    ("false", |_, args| {
        Ok(left(args)?.kind() == ValueKind::Bool && !left(args)?.is_true())
    }),
    ("filter", |state, args| Ok(known(state, args, true))),
    ("float", |_, args| {
        Ok(left(args)?.is_number() && !left(args)?.is_integer())
    }),
    ("ge", |state, args| {
        compare(state, ">=", left(args)?, right(args)?)
    }),
    ("greaterthan", |state, args| {
        compare(state, ">", left(args)?, right(args)?)
    }),
    ("gt", |state, args| compare(state, ">", left(args)?, right(args)?)),
    ("in", |state, args| {
        compare(state, "in", left(args)?, right(args)?)
    }),
    ("integer", |_, args| Ok(left(args)?.is_integer())),
    ("iterable", |_, args| Ok(is_iterable(left(args)?))),
    ("le", |state, args| {
        compare(state, "<=", left(args)?, right(args)?)
    }),
    ("lessthan", |state, args| {
        compare(state, "<", left(args)?, right(args)?)
    }),
    ("lower", |state, args| {
        Ok(is_cased(&super::filters::str_of(state, left(args)?)?, false))
    }),
    ("lt", |state, args| compare(state, "<", left(args)?, right(args)?)),
    ("mapping", |_, args| {
        Ok(left(args)?.kind() == ValueKind::Map && !is_function(left(args)?))
    }),
    ("ne", |state, args| {
        compare(state, "!=", left(args)?, right(args)?)
    }),
    ("none", |_, args| Ok(left(args)?.is_none())),
    ("number", |_, args| {
        Ok(matches!(left(args)?.kind(), ValueKind::Number | ValueKind::Bool))
    }),
    ("odd", |_, args| Ok(half(args)? == 1.0)),
    ("sameas", same),
    ("sequence", |_, args| Ok(is_sequence(left(args)?))),
    ("string", |_, args| Ok(left(args)?.kind() == ValueKind::String)),
    ("test", |state, args| Ok(known(state, args, false))),
    ("true", |_, args| {
        Ok(left(args)?.kind() == ValueKind::Bool && left(args)?.is_true())
    }),
    ("undefined", |_, args| Ok(left(args)?.is_undefined())),
    ("upper", |state, args| {
        Ok(is_cased(&super::filters::str_of(state, left(args)?)?, true))
    }),
    ("None", |_, args| Ok(left(args)?.is_none())),
];

/// Replaces the engine's tests by these.
pub(super) fn register(env: &mut Environment<'_>) {
    for (name, predicate) in PREDICATES {
        env.add_test(
            name,
            move |state: &mut State<'_, '_>, values: Rest<ValueOrKwargs>| {
                predicate(state, &Args::new(name, &values.into_values()))
            },
        );
    }
}

fn left<'a>(args: &'a Args<'_>) -> Result<&'a Value, Error> {
    args.req(0, "value")
}

fn right<'a>(args: &'a Args<'_>) -> Result<&'a Value, Error> {
    args.req(1, "other")
}

fn whole(args: &Args<'_>, value: &Value) -> Result<i64, Error> {
    integer(value).ok_or_else(|| args.fail(&format!("an integer is needed, not '{}'", type_name(value))))
}

/// The value modulo two; a float may be neither even nor odd.
fn half(args: &Args<'_>) -> Result<f64, Error> {
    let value = left(args)?;
    match f64::try_from(value.clone()) {
        Ok(number) if integer(value).is_none() => Ok(number.rem_euclid(2.0)),
        _ => Ok(whole(args, value)?.rem_euclid(2) as f64),
    }
}

fn divisible(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<bool, Error> {
    let (a, b) = (whole(args, left(args)?)?, whole(args, right(args)?)?);
    a.checked_rem(b)
        .map(|rest| rest == 0)
        .ok_or_else(|| args.fail("division by zero"))
}

fn same(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<bool, Error> {
    Ok(minijinja::tests::is_sameas(left(args)?, right(args)?))
}

fn known(state: &mut State<'_, '_>, args: &Args<'_>, filter: bool) -> bool {
    let Some(name) = args.opt(0, "value").and_then(Value::as_str) else {
        return false;
    };
    if name.starts_with("_tw_") {
        return false;
    }
    // An unknown name is the only error of that kind.
    if filter {
        let outcome = state.apply_filter(name, &[]);
        !matches!(outcome, Err(error) if error.kind() == minijinja::ErrorKind::UnknownFilter)
    } else {
        PREDICATES.iter().any(|(known, _)| *known == name)
    }
}

fn is_callable(value: &Value) -> bool {
    match value.as_object() {
        Some(object) => {
            is_function(value)
                || object.type_name().ends_with("BoundMethod")
                || object.type_name().ends_with("Joiner")
        }
        None => false,
    }
}

fn is_iterable(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Iterable => true,
        ValueKind::Map => !is_function(value),
        _ => false,
    }
}

fn is_sequence(value: &Value) -> bool {
    is_iterable(value)
        && value.downcast_object_ref::<Generator>().is_none()
        && !value.downcast_object_ref::<Seq>().is_some_and(Seq::is_view)
}
