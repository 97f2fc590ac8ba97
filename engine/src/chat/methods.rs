//! Method calls: those of Python's `list`, `tuple` and `dict`, subscripts, and the way to those of `str`.
//!
//! Python's own documentation ("Built-in Types") is the source of what each one does. Methods that change a
//! list or dict work where no other container holds it; Hugging Face's sandbox refuses them altogether.

use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::{Error, ErrorKind, State, Value};

use super::args::{Args, integer};
use super::budget::Budget;
use super::strings;
use super::value::{Dict, Generator, Seq, SeqKind, check_key, error, type_name};

/// The method that the rewriter puts in place of a subscript with colons.
pub(super) const SLICE: &str = "_tw_slice";

/// The method that the rewriter puts in place of a subscript without colons.
pub(super) const ITEM: &str = "_tw_item";

const DICT_METHODS: [&str; 11] = [
    "get",
    "items",
    "keys",
    "values",
    "copy",
    "pop",
    "popitem",
    "update",
    "setdefault",
    "clear",
    "fromkeys",
];
const LIST_METHODS: [&str; 11] = [
    "append", "extend", "insert", "pop", "remove", "clear", "index", "count", "copy", "reverse", "sort",
];

pub(super) fn is_dict_method(name: &str) -> bool {
    DICT_METHODS.contains(&name)
}

pub(super) fn is_seq_method(seq: &Seq, name: &str) -> bool {
    match (seq.is_view(), seq.is_tuple()) {
        (true, _) => false,
        (_, true) => matches!(name, "index" | "count"),
        _ => LIST_METHODS.contains(&name),
    }
}

/// Pays for `bytes` of a string that is about to be made.
pub(super) fn pay(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64)
}

/// Methods of values that are not this module's own containers: strings, and lazy sequences of the engine.
pub(super) fn call_other(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let unknown = || {
        Err(Error::new(
            ErrorKind::UnknownMethod,
            format!("'{}' object has no attribute '{method}'", type_name(value)),
        ))
    };
    if value.is_undefined() {
        return Err(Error::new(
            ErrorKind::UndefinedError,
            format!("cannot call '{method}' of an undefined value"),
        ));
    }
    match method {
        SLICE => return slice(state, value, args),
        ITEM => return item(state, value, args),
        _ => {}
    }
    if let Some(text) = value.as_str() {
        if value.is_safe() {
            return strings::call_markup(state, text, method, args)?.map_or_else(unknown, Ok);
        }
        return strings::call_str(state, text, method, args)?.map_or_else(unknown, Ok);
    }
    match value.as_object() {
        // Their own methods were tried before.
        Some(object)
            if object.downcast_ref::<Generator>().is_some() || object.downcast_ref::<Seq>().is_some() =>
        {
            unknown()
        }
        Some(object) => match object.repr() {
            minijinja::value::ObjectRepr::Seq | minijinja::value::ObjectRepr::Iterable => {
                // A sum or product of lists: a list of its own in Python.
                let budget = Budget::of(state)?;
                super::value::settle(&budget, value.clone())?.call_method(state, method, args)
            }
            _ => unknown(),
        },
        None => unknown(),
    }
}

// ------------------------------------------------------------------------------------- lists and tuples

/// Where Python's list index `at` points in a list of `len`, clamped as slices and `insert` do.
fn clamp_index(at: i64, len: usize) -> usize {
    let len_i = i64::try_from(len).unwrap_or(i64::MAX);
    let at = if at < 0 {
        at.saturating_add(len_i).max(0)
    } else {
        at.min(len_i)
    };
    usize::try_from(at).unwrap_or(0)
}

/// Methods of this module's lists and tuples.
pub(super) fn call_seq(
    state: &mut State<'_, '_>,
    seq: &Arc<Seq>,
    method: &str,
    values: &[Value],
) -> Result<Value, Error> {
    let args = Args::new(method, values);
    match method {
        SLICE => return slice(state, &Value::from_dyn_object(seq.clone()), values),
        ITEM => return item(state, &Value::from_dyn_object(seq.clone()), values),
        _ => {}
    }
    if !is_seq_method(seq, method) {
        return Err(Error::new(
            ErrorKind::UnknownMethod,
            format!(
                "'{}' object has no attribute '{method}'",
                type_name(&Value::from_dyn_object(seq.clone()))
            ),
        ));
    }
    let nothing = Value::from(());
    state.consume_fuel(1)?;
    Ok(match method {
        "count" => {
            let sought = args.req(0, "value")?;
            let items = seq.items();
            state.consume_fuel(items.len() as u64)?;
            Value::from(items.iter().filter(|item| *item == sought).count())
        }
        "index" => {
            let sought = args.req(0, "value")?;
            let items = seq.items();
            state.consume_fuel(items.len() as u64)?;
            let start = clamp_index(args.opt_int(1, "start")?.unwrap_or(0), items.len());
            let stop = clamp_index(args.opt_int(2, "stop")?.unwrap_or(i64::MAX), items.len());
            let at = (start..stop).find(|&i| items[i] == *sought);
            Value::from(at.ok_or_else(|| args.fail("the value is not in the list"))?)
        }
        "copy" => Seq::list(&Budget::of(state)?, seq.items().to_vec())?,
        "append" => {
            args.accept(1, &[])?;
            let value = seq.admit(args.req(0, "object")?.clone())?;
            seq.change(|items| {
                items.push(value);
                Ok(nothing)
            })?
        }
        "extend" => {
            args.accept(1, &[])?;
            let more = super::filters::iterate(state, args.req(0, "iterable")?)?;
            let more = more
                .into_iter()
                .map(|item| seq.admit(item))
                .collect::<Result<Vec<_>, _>>()?;
            seq.change(|items| {
                items.extend(more);
                Ok(nothing)
            })?
        }
        "insert" => {
            let at = args
                .opt_int(0, "index")?
                .ok_or_else(|| args.fail("missing argument 'index'"))?;
            let value = seq.admit(args.req(1, "object")?.clone())?;
            state.consume_fuel(seq.items().len() as u64 / 8)?;
            seq.change(|items| {
                items.insert(clamp_index(at, items.len()), value);
                Ok(nothing)
            })?
        }
        "pop" => {
            let at = args.opt_int(0, "index")?.unwrap_or(-1);
            state.consume_fuel(seq.items().len() as u64 / 8)?;
            seq.change(|items| {
                let len = items.len() as i64;
                let at = if at < 0 { at.saturating_add(len) } else { at };
                match usize::try_from(at) {
                    Ok(at) if at < items.len() => Ok(items.remove(at)),
                    _ => Err(args.fail("pop index out of range")),
                }
            })?
        }
        "remove" => {
            let sought = args.req(0, "value")?;
            state.consume_fuel(seq.items().len() as u64)?;
            seq.change(|items| match items.iter().position(|item| item == sought) {
                Some(at) => {
                    items.remove(at);
                    Ok(nothing)
                }
                None => Err(args.fail("the value is not in the list")),
            })?
        }
        "clear" => seq.change(|items| {
            items.clear();
            Ok(nothing)
        })?,
        "reverse" => {
            state.consume_fuel(seq.items().len() as u64)?;
            seq.change(|items| {
                items.reverse();
                Ok(nothing)
            })?
        }
        "sort" => {
            args.accept(0, &["reverse"])?;
            let len = seq.items().len() as u64;
            state.consume_fuel(len.saturating_mul(u64::from(len.max(1).ilog2()) + 1))?;
            let reverse = args.flag(1, "reverse", false);
            seq.change(|items| {
                if reverse {
                    items.sort_by(|a, b| b.cmp(a))
                } else {
                    items.sort()
                }
                Ok(nothing)
            })?
        }
        _ => return Err(args.fail("is not supported")),
    })
}

// ------------------------------------------------------------------------------------------------ dicts

/// Methods of this module's dicts.
pub(super) fn call_dict(
    state: &mut State<'_, '_>,
    dict: &Arc<Dict>,
    method: &str,
    values: &[Value],
) -> Result<Value, Error> {
    let args = Args::new(method, values);
    match method {
        SLICE => return Err(error("'dict' object cannot be sliced")),
        ITEM => return item(state, &Value::from_dyn_object(dict.clone()), values),
        _ => {}
    }
    if !is_dict_method(method) {
        // The engine tries a callable item of that name next.
        return Err(Error::new(
            ErrorKind::UnknownMethod,
            format!("'dict' object has no attribute '{method}'"),
        ));
    }
    let budget = Budget::of(state)?;
    let fallback = || args.opt(1, "default").cloned().unwrap_or_else(|| Value::from(()));
    Ok(match method {
        "get" => {
            args.accept(2, &[])?;
            let key = args.req(0, "key")?;
            check_key(key)?;
            pay(state, key.as_str().map_or(0, str::len))?;
            dict.entry(key).unwrap_or_else(fallback)
        }
        "keys" | "values" | "items" => {
            args.accept(0, &[])?;
            let entries = dict.entries();
            state.consume_fuel(entries.len() as u64)?;
            let (kind, items) = match method {
                "keys" => (SeqKind::Keys, entries.keys().cloned().collect()),
                "values" => (SeqKind::Values, entries.values().cloned().collect()),
                _ => (SeqKind::Items, pairs(&budget, &entries)?),
            };
            Seq::build(&budget, kind, items)?
        }
        "copy" => {
            let entries = dict.entries();
            state.consume_fuel(entries.len() as u64)?;
            Dict::build(&budget, entries.iter().map(|(k, v)| (k.clone(), v.clone())))?
        }
        "pop" => {
            let key = args.req(0, "key")?;
            check_key(key)?;
            state.consume_fuel(dict.entries().len() as u64 / 8)?;
            let found = dict.change(|map| Ok(map.shift_remove(key)))?;
            match (found, args.opt(1, "default")) {
                (Some(value), _) => value,
                (None, Some(default)) => default.clone(),
                (None, None) => return Err(args.fail(&format!("no such key: {key}"))),
            }
        }
        "popitem" => match dict.change(|map| Ok(map.pop()))? {
            Some((key, value)) => Seq::tuple(&budget, vec![key, value])?,
            None => return Err(args.fail("the dict is empty")),
        },
        "setdefault" => {
            let key = args.req(0, "key")?.clone();
            check_key(&key)?;
            match dict.entry(&key) {
                Some(value) => value,
                None => {
                    let value = dict.admit(fallback())?;
                    dict.change(|map| {
                        map.insert(key, value.clone());
                        Ok(value)
                    })?
                }
            }
        }
        "update" => {
            args.accept(
                1,
                &args
                    .keywords()
                    .iter()
                    .map(|(k, _)| k.as_str())
                    .collect::<Vec<_>>(),
            )?;
            let mut more = match args.positional().first() {
                Some(other) => super::functions::pairs_of(state, other)?,
                None => Vec::new(),
            };
            more.extend(
                args.keywords()
                    .iter()
                    .map(|(k, v)| (Value::from(k.as_str()), v.clone())),
            );
            state.consume_fuel(more.len() as u64)?;
            for (key, value) in more {
                check_key(&key)?;
                let value = dict.admit(value)?;
                dict.change(|map| {
                    map.insert(key, value);
                    Ok(())
                })?;
            }
            Value::from(())
        }
        "clear" => dict.change(|map| {
            map.clear();
            Ok(Value::from(()))
        })?,
        _ => return Err(args.fail("is not supported")),
    })
}

/// The entries as tuples.
pub(super) fn pairs(budget: &Arc<Budget>, entries: &IndexMap<Value, Value>) -> Result<Vec<Value>, Error> {
    entries
        .iter()
        .map(|(k, v)| Seq::tuple(budget, vec![k.clone(), v.clone()]))
        .collect()
}

// ---------------------------------------------------------------------------------------------- slicing

/// `value[key]`.
fn item(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value, Error> {
    let [key] = args else {
        return Err(error("a subscript is one value"));
    };
    // Walking to a character and hashing a key take time in their lengths.
    pay(state, value.as_str().map_or(0, str::len))?;
    pay(state, key.as_str().map_or(0, str::len))?;
    value.get_item(key)
}

/// `value[start:stop:step]`.
fn slice(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value, Error> {
    let bound = |index: usize| -> Result<Option<i64>, Error> {
        match args.get(index) {
            None => Ok(None),
            Some(value) if value.is_none() => Ok(None),
            Some(value) => integer(value)
                .map(Some)
                .ok_or_else(|| error("slice indices must be integers or none")),
        }
    };
    let (start, stop, step) = (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    if step == 0 {
        return Err(error("slice step cannot be zero"));
    }
    if let Some(text) = value.as_str() {
        let chars: Vec<char> = text.chars().collect();
        let picked: String = places(chars.len(), start, stop, step).map(|i| chars[i]).collect();
        return Ok(Value::from(picked));
    }
    let own = value.downcast_object_ref::<Seq>();
    let tuple = own.is_some_and(Seq::is_tuple);
    let is_list = matches!(
        value.kind(),
        minijinja::value::ValueKind::Seq | minijinja::value::ValueKind::Iterable
    ) && value.downcast_object_ref::<Generator>().is_none()
        && !own.is_some_and(Seq::is_view);
    if !is_list {
        return Err(error(format!("'{}' object cannot be sliced", type_name(value))));
    }
    let items = match own {
        Some(seq) => seq.items(),
        None => Arc::new(super::filters::iterate(state, value)?),
    };
    let places = places(items.len(), start, stop, step);
    state.consume_fuel(places.len() as u64 / 2)?;
    let picked = places.map(|i| items[i].clone()).collect();
    let budget = Budget::of(state)?;
    if tuple {
        Seq::tuple(&budget, picked)
    } else {
        Seq::list(&budget, picked)
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
    let stride = step.unsigned_abs();
    let count = if span > 0 {
        (span as u64 - 1) / stride + 1
    } else {
        0
    };
    // The last place is within the sequence, so no product or sum here overflows.
    (0..count as usize).map(move |i| (first + i as i64 * step) as usize)
}
