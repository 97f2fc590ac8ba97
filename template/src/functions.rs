//! The global functions of a template: Jinja's own, and those that Hugging Face adds (`raise_exception`,
//! `strftime_now`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::args::Args;
use crate::error::{Eval, fail};
use crate::render::Rendering;
use crate::repr::to_str;
use crate::value::{Cycler, Joiner, Value};

/// The sandbox's limit for `range`.
const MAX_RANGE: u128 = 100_000;

type Body = fn(&Rendering, &Args) -> Eval<Value>;

/// A global function: its place in [`FUNCTIONS`].
#[derive(Clone, Copy)]
pub(crate) struct Function(usize);

const FUNCTIONS: [(&str, Body); 7] = [
    ("cycler", cycler),
    ("dict", |r, args| Value::dict(pairs(r, args)?)),
    ("joiner", joiner),
    ("namespace", namespace),
    ("raise_exception", |r, args| {
        fail(to_str(r, args.req(0, "message")?)?)
    }),
    ("range", range),
    ("strftime_now", strftime_now),
];

impl Function {
    pub(crate) fn name(self) -> &'static str {
        FUNCTIONS[self.0].0
    }
}

/// The global of that name.
pub(crate) fn global(name: &str) -> Option<Value> {
    let at = FUNCTIONS.iter().position(|(known, _)| *known == name)?;
    Some(Value::Function(Function(at)))
}

pub(crate) fn call(r: &Rendering, function: Function, args: Args) -> Eval<Value> {
    let (name, body) = FUNCTIONS[function.0];
    body(r, &args.named(name.into()))
}

fn strftime_now(r: &Rendering, args: &Args) -> Eval<Value> {
    let format = args.str(0, "format")?;
    r.pay(format.len().saturating_mul(64))?;
    Ok(Value::from(r.now.format(format)))
}

fn range(r: &Rendering, args: &Args) -> Eval<Value> {
    args.accept(&["", "", ""])?;
    let bound = |index: usize| match args.positional.get(index) {
        None => Ok(None),
        Some(value) => value
            .as_int()
            .map(|int| Some(crate::args::clamped(int).into()))
            .ok_or_else(|| {
                args.fail(&format!(
                    "'{}' cannot be interpreted as an integer",
                    value.type_name()
                ))
            }),
    };
    let (first, second, step): (Option<i128>, Option<i128>, _) =
        (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    let first = first.ok_or_else(|| args.fail("at least one argument is needed"))?;
    let (start, stop) = second.map_or((0, first), |second| (first, second));
    let span = match step {
        0 => return Err(args.fail("the step must not be zero")),
        step if step > 0 => stop - start,
        _ => start - stop,
    };
    let count = if span <= 0 {
        0
    } else {
        (span.unsigned_abs() - 1) / step.unsigned_abs() + 1
    };
    if count > MAX_RANGE {
        return Err(args.fail(&format!(
            "the range is too big, at most {MAX_RANGE} items are allowed"
        )));
    }
    r.spend(count as u64 / 2)?;
    Value::list((0..count as i128).map(|i| Value::Int(start + i * step)).collect())
}

/// `(key, value)` of a dict, or of anything that yields pairs.
pub(crate) fn pairs_of(r: &Rendering, value: &Value) -> Eval<Vec<(Value, Value)>> {
    if let Some(dict) = value.as_dict() {
        let entries = dict.entries();
        r.spend(entries.len() as u64)?;
        return Ok(entries
            .iter()
            .map(|(k, v)| (k.value().clone(), v.clone()))
            .collect());
    }
    let mut pairs = Vec::new();
    for item in r.items(value)?.iter() {
        match r.items(item)?.as_slice() {
            [key, value] => pairs.push((key.clone(), value.clone())),
            _ => return fail("pairs are needed to make a dict"),
        }
    }
    Ok(pairs)
}

/// What `dict` and `namespace` are made of: pairs, and keywords.
fn pairs(r: &Rendering, args: &Args) -> Eval<Vec<(Value, Value)>> {
    let mut pairs = match args.positional.as_slice() {
        [] => Vec::new(),
        [from] => pairs_of(r, from)?,
        _ => return Err(args.fail("takes at most one positional argument")),
    };
    pairs.extend(
        args.keywords
            .iter()
            .map(|(k, v)| (Value::text(k.clone(), false), v.clone())),
    );
    Ok(pairs)
}

fn namespace(r: &Rendering, args: &Args) -> Eval<Value> {
    let mut attributes: IndexMap<Arc<str>, Value> = IndexMap::new();
    for (key, value) in pairs(r, args)? {
        attributes.insert(to_str(r, &key)?.into(), value.storable()?);
    }
    Ok(Value::Namespace(Rc::new(RefCell::new(attributes))))
}

fn cycler(_: &Rendering, args: &Args) -> Eval<Value> {
    if args.positional.is_empty() {
        return Err(args.fail("at least one item has to be provided"));
    }
    let items = args
        .positional
        .iter()
        .map(|item| item.clone().storable())
        .collect::<Eval<_>>()?;
    Ok(Value::Cycler(Rc::new(Cycler {
        items,
        at: Cell::new(0),
    })))
}

fn joiner(_: &Rendering, args: &Args) -> Eval<Value> {
    args.accept(&["sep"])?;
    let separator = args.opt(0, "sep").cloned().unwrap_or_else(|| Value::from(", "));
    Ok(Value::Joiner(Rc::new(Joiner {
        separator: separator.storable()?,
        used: Cell::new(false),
    })))
}
