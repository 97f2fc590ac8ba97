//! The global functions of a template: Jinja's own, those that Hugging Face adds (`raise_exception`,
//! `strftime_now`), and those that the rewriter puts into expressions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use minijinja::value::{Object, ObjectRepr, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::args::{Args, integer};
use super::arithmetic;
use super::budget::Budget;
use super::comparison;
use super::filters::iterate;
use super::rewrite::RESERVED;
use super::time::CivilTime;
use super::value::{Dict, Seq, error, settle, settle_attribute, type_name};

/// The sandbox's limit for `range`.
const MAX_RANGE: u64 = 100_000;

/// Under this name a rendering keeps its date and time.
pub(super) const NOW_NAME: &str = "_tw_now";
/// `+` of its arguments.
pub(super) const ADD: &str = "_tw_add";
/// `*` of its arguments.
pub(super) const MULTIPLY: &str = "_tw_mul";
/// `~` between its arguments.
pub(super) const CONCAT: &str = "_tw_concat";
/// `-` before its argument.
pub(super) const NEGATIVE: &str = "_tw_neg";
/// `+` before its argument.
pub(super) const POSITIVE: &str = "_tw_pos";
/// A chain of comparisons: the operators in one string, then the operands.
pub(super) const COMPARE: &str = "_tw_compare";
/// Makes a list of its arguments.
pub(super) const LIST: &str = "_tw_list";
/// Makes a tuple of its arguments.
pub(super) const TUPLE: &str = "_tw_tuple";
/// Makes a dict of its arguments, keys and values by turns.
pub(super) const DICT: &str = "_tw_dict";
/// What a `for` loop walks.
pub(super) const ITERATE: &str = "_tw_iter";
/// What a variable is set to.
pub(super) const SETTLE: &str = "_tw_set";
/// What an attribute of a namespace is set to.
pub(super) const SETTLE_ATTRIBUTE: &str = "_tw_set_attr";
/// `loop.cycle`: the loop, then its arguments.
pub(super) const CYCLE: &str = "_tw_cycle";
/// Calls a macro that uses `varargs` or `kwargs`: the macro, then its arguments.
pub(super) const CALL: &str = "_tw_call";

type Function = fn(&mut State<'_, '_>, &Args<'_>) -> Result<Value, Error>;

const FUNCTIONS: [(&str, Function); 21] = [
    (ADD, arithmetic::sum),
    (CALL, call),
    (COMPARE, comparison::chain),
    (CONCAT, arithmetic::concat),
    (CYCLE, cycle),
    (DICT, dict_literal),
    (ITERATE, walkable),
    (LIST, |state, args| {
        Seq::list(&Budget::of(state)?, args.positional().to_vec())
    }),
    (MULTIPLY, arithmetic::product),
    (NEGATIVE, arithmetic::negative),
    (POSITIVE, arithmetic::positive),
    (SETTLE, |state, args| {
        settle(&Budget::of(state)?, args.req(0, "value")?.clone())
    }),
    (SETTLE_ATTRIBUTE, |state, args| {
        settle_attribute(&Budget::of(state)?, args.req(0, "value")?.clone())
    }),
    (TUPLE, |state, args| {
        Seq::tuple(&Budget::of(state)?, args.positional().to_vec())
    }),
    ("cycler", cycler),
    ("dict", dict),
    ("joiner", joiner),
    ("namespace", namespace),
    ("raise_exception", raise_exception),
    ("range", range),
    ("strftime_now", strftime_now),
];

/// Replaces the engine's functions by these.
pub(super) fn register(env: &mut Environment<'_>) {
    env.remove_global("debug");
    for (name, function) in FUNCTIONS {
        env.add_function(
            name,
            move |state: &mut State<'_, '_>, values: Rest<ValueOrKwargs>| {
                function(
                    state,
                    &Args::new(name.trim_start_matches(RESERVED), &values.into_values()),
                )
            },
        );
    }
}

/// A template asked for an error; its kind sets it apart from the engine's own.
fn raise_exception(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let message = super::filters::str_of(state, args.req(0, "message")?)?;
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let now = state
        .lookup(NOW_NAME)
        .and_then(|value| value.downcast_object::<Now>())
        .ok_or_else(|| args.fail("the rendering has no date"))?;
    let format = args.str(0, "format")?;
    super::methods::pay(state, format.len().saturating_mul(64))?;
    Ok(Value::from(now.0.format(format)))
}

/// The date and time of a rendering, as an object that its context can hold.
#[derive(Debug)]
pub(super) struct Now(pub(super) CivilTime);

impl Object for Now {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

fn range(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &[])?;
    let bound = |index: usize| match args.positional().get(index) {
        None => Ok(None),
        Some(value) => integer(value).map(Some).ok_or_else(|| {
            args.fail(&format!(
                "'{}' cannot be interpreted as an integer",
                type_name(value)
            ))
        }),
    };
    let (first, second, step) = (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    let first = first.ok_or_else(|| args.fail("at least one argument is needed"))?;
    let (start, stop) = second.map_or((0, first), |second| (first, second));
    let (start, stop, step) = (i128::from(start), i128::from(stop), i128::from(step));
    let span = match step {
        0 => return Err(args.fail("the step must not be zero")),
        step if step > 0 => stop - start,
        _ => start - stop,
    };
    let stride = step.unsigned_abs();
    let count = if span <= 0 {
        0
    } else {
        (span.unsigned_abs() - 1) / stride + 1
    };
    if count > u128::from(MAX_RANGE) {
        return Err(args.fail(&format!(
            "the range is too big, at most {MAX_RANGE} items are allowed"
        )));
    }
    state.consume_fuel(count as u64 / 2)?;
    let items = (0..count as i128)
        .map(|i| Value::from((start + i * step) as i64))
        .collect();
    Seq::list(&Budget::of(state)?, items)
}

/// `(key, value)` of a dict, or of anything that yields pairs.
pub(super) fn pairs_of(state: &State<'_, '_>, value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if let Some(dict) = value.downcast_object_ref::<Dict>() {
        let entries = dict.entries();
        state.consume_fuel(entries.len() as u64)?;
        return Ok(entries.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
    }
    if value.kind() == ValueKind::Map
        && let Some(pairs) = value.as_object().and_then(|object| object.try_iter_pairs())
    {
        return Ok(pairs.collect());
    }
    let mut pairs = Vec::new();
    for item in iterate(state, value)? {
        match iterate(state, &item)?.as_slice() {
            [key, value] => pairs.push((key.clone(), value.clone())),
            _ => return Err(error("pairs are needed to make a dict")),
        }
    }
    Ok(pairs)
}

fn walkable(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = args.req(0, "iterable")?;
    match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            Ok(value.clone())
        }
        _ => Err(error(format!("'{}' object is not iterable", type_name(value)))),
    }
}

fn dict(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let mut pairs = match args.positional() {
        [] => Vec::new(),
        [from] => pairs_of(state, from)?,
        _ => return Err(args.fail("takes at most one positional argument")),
    };
    pairs.extend(
        args.keywords()
            .iter()
            .map(|(k, v)| (Value::from(k.as_str()), v.clone())),
    );
    Dict::build(&Budget::of(state)?, pairs)
}

fn dict_literal(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let pairs = args.positional().chunks_exact(2).filter_map(|pair| match pair {
        [key, value] => Some((key.clone(), value.clone())),
        _ => None,
    });
    Dict::build(&Budget::of(state)?, pairs)
}

fn namespace(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let budget = Budget::of(state)?;
    let mut pairs = match args.positional() {
        [] => Vec::new(),
        [from] => pairs_of(state, from)?,
        _ => return Err(args.fail("takes at most one positional argument")),
    };
    pairs.extend(
        args.keywords()
            .iter()
            .map(|(k, v)| (Value::from(k.as_str()), v.clone())),
    );
    let settled = pairs
        .into_iter()
        .map(|(key, value)| Ok((key, settle_attribute(&budget, value)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let initial = Value::from_pairs(settled);
    minijinja::functions::namespace(Some(ValueOrKwargs::from(initial)))
}

fn cycle(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let values = args.positional();
    let (Some(index), choices) = (values.first(), values.get(1..).unwrap_or_default()) else {
        return Err(args.fail("no loop was given"));
    };
    let index = index.get_attr("index0")?;
    let index = index.as_usize().ok_or_else(|| args.fail("not a loop"))?;
    match choices.len() {
        0 => Err(args.fail("no items for cycling given")),
        n => Ok(choices[index % n].clone()),
    }
}

/// Calls a macro whose last two parameters are `varargs` and `kwargs` (the rewriter declared them).
fn call(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let (Some(function), given) = (
        args.positional().first(),
        args.positional().get(1..).unwrap_or_default(),
    ) else {
        return Err(args.fail("no macro was given"));
    };
    let names: Vec<String> = match function.get_attr("arguments") {
        Ok(names) if is_macro(function) => names.try_iter()?.map(|name| name.to_string()).collect(),
        _ => {
            let values = args.forward(2, Value::UNDEFINED);
            let mut values = values.into_iter();
            values.next();
            let values: Vec<_> = given.iter().take(1).cloned().chain(values).collect();
            return function.call(state, &values);
        }
    };
    let budget = Budget::of(state)?;
    let declared = names.len().saturating_sub(2);
    let (direct, extra) = given.split_at(given.len().min(declared));
    let mut keywords = Vec::new();
    let mut others = Vec::new();
    for (name, value) in args.keywords() {
        let known = name == "caller" || names.iter().take(declared).any(|parameter| parameter == name);
        if known {
            keywords.push((name.clone(), value.clone()));
        } else {
            others.push((Value::from(name.as_str()), value.clone()));
        }
    }
    keywords.push(("varargs".to_owned(), Seq::tuple(&budget, extra.to_vec())?));
    keywords.push(("kwargs".to_owned(), Dict::build(&budget, others)?));
    let mut values = direct.to_vec();
    values.push(keywords.into_iter().collect::<minijinja::value::Kwargs>().into());
    function.call(state, &values)
}

fn is_macro(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with("::Macro"))
}

/// Jinja's `cycler`.
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl fmt::Debug for Cycler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<cycler>")
    }
}

impl Cycler {
    fn current(&self) -> Value {
        self.items
            .get(self.at.load(Ordering::Relaxed))
            .cloned()
            .unwrap_or_default()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        _: &[Value],
    ) -> Result<Value, Error> {
        match method {
            "next" => {
                let current = self.current();
                let next = self.at.load(Ordering::Relaxed) + 1;
                self.at
                    .store(if next < self.items.len() { next } else { 0 }, Ordering::Relaxed);
                Ok(current)
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

fn cycler(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    if args.positional().is_empty() {
        return Err(args.fail("at least one item has to be provided"));
    }
    let budget = Budget::of(state)?;
    let items = args
        .positional()
        .iter()
        .map(|item| settle_attribute(&budget, item.clone()))
        .collect::<Result<_, _>>()?;
    Ok(Value::from_object(Cycler {
        items,
        at: AtomicUsize::new(0),
    }))
}

/// Jinja's `joiner`: nothing the first time it is called, then its separator.
struct Joiner {
    separator: Value,
    used: AtomicBool,
}

impl fmt::Debug for Joiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<joiner>")
    }
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        let used = self.used.swap(true, Ordering::Relaxed);
        Ok(if used {
            self.separator.clone()
        } else {
            Value::from("")
        })
    }
}

fn joiner(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let separator = args.opt(0, "sep").cloned().unwrap_or_else(|| Value::from(", "));
    let separator = settle_attribute(&Budget::of(state)?, separator)?;
    Ok(Value::from_object(Joiner {
        separator,
        used: AtomicBool::new(false),
    }))
}
