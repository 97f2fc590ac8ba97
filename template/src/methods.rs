//! Method calls: those of Python's `list`, `tuple` and `dict`, and of Jinja's `loop` and `cycler`; [`crate::strings`]
//! has those of `str`.
//!
//! Python's own documentation ("Built-in Types") is the source of what each one does. Methods that change a list or
//! dict work where no other container holds it; Hugging Face's sandbox refuses them altogether.

use indexmap::IndexMap;

use crate::args::Args;
use crate::error::{Eval, fail};
use crate::filters::sorted;
use crate::functions::pairs_of;
use crate::operators::{equal, index, less_or_greater, position};
use crate::render::Rendering;
use crate::strings;
use crate::value::{Dict, Key, Seq, SeqKind, Value};

const DICT: [&str; 11] = [
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
const LIST: [&str; 11] = [
    "append", "extend", "insert", "pop", "remove", "clear", "index", "count", "copy", "reverse", "sort",
];

/// Whether a value has a method of that name.
pub(crate) fn exists(value: &Value, name: &str) -> bool {
    match value {
        Value::Str(_) => strings::METHODS.contains(&name),
        Value::Dict(_) => DICT.contains(&name),
        Value::Seq(seq) => match seq.kind {
            SeqKind::List => LIST.contains(&name),
            SeqKind::Tuple | SeqKind::Group => matches!(name, "index" | "count"),
            _ => false,
        },
        Value::Float(_) => name == "is_integer",
        Value::Cycler(_) => matches!(name, "next" | "reset"),
        Value::Loop(_) => matches!(name, "cycle" | "changed"),
        _ => false,
    }
}

/// Calls a method that [`exists`]; the arguments know its name.
pub(crate) fn call(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    r.spend(1)?;
    match value {
        Value::Str(text) => strings::call(r, text, args),
        Value::Dict(dict) => call_dict(r, dict, args),
        Value::Seq(seq) => call_seq(r, seq, args),
        Value::Float(float) => Ok(Value::Bool(float.is_finite() && float.fract() == 0.0)),
        Value::Cycler(cycler) => {
            let at = cycler.at.get();
            Ok(if args.name() == "next" {
                cycler.at.set((at + 1) % cycler.items.len().max(1));
                cycler.items.get(at).cloned().unwrap_or(Value::None)
            } else {
                cycler.at.set(0);
                Value::None
            })
        }
        Value::Loop(state) if args.name() == "cycle" => match args.positional.len() {
            0 => Err(args.fail("no items for cycling given")),
            n => Ok(args.positional[state.index0.get() % n].clone()),
        },
        Value::Loop(state) => {
            let items: Vec<Value> = args
                .positional
                .iter()
                .map(|item| item.clone().storable())
                .collect::<Eval<_>>()?;
            let before = state.changed.replace(Some(items.clone())).unwrap_or_default();
            let same = before.len() == items.len() && index_of_difference(r, &before, &items)?.is_none();
            Ok(Value::Bool(!same || items.is_empty()))
        }
        _ => fail(format!(
            "'{}' object has no attribute '{}'",
            value.type_name(),
            args.name()
        )),
    }
}

fn index_of_difference(r: &Rendering, a: &[Value], b: &[Value]) -> Eval<Option<usize>> {
    for (at, (a, b)) in a.iter().zip(b).enumerate() {
        if !equal(r, a, b)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

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

fn call_seq(r: &Rendering, seq: &Seq, args: &Args) -> Eval<Value> {
    let len = seq.items().len();
    match args.name() {
        "count" => {
            let sought = args.req(0, "value")?;
            let mut count = 0;
            for item in seq.items().iter() {
                count += usize::from(equal(r, item, sought)?);
            }
            return Ok(Value::from(count));
        }
        "index" => {
            let sought = args.req(0, "value")?;
            let items = seq.items();
            let start = clamp_index(args.opt_int(1, "start")?.unwrap_or(0), items.len());
            let stop = clamp_index(args.opt_int(2, "stop")?.unwrap_or(i64::MAX), items.len());
            let found = position(r, items.get(start..stop).unwrap_or_default(), sought)?;
            let at = found.ok_or_else(|| args.fail("the value is not in the list"))?;
            return Ok(Value::from(start + at));
        }
        "copy" => return Value::list(seq.items().to_vec()),
        "append" => {
            args.accept(&["object"])?;
            let value = seq.admit(args.req(0, "object")?.clone())?;
            seq.change(|items| {
                items.push(value);
                Ok(())
            })?;
        }
        "extend" => {
            args.accept(&["iterable"])?;
            let more = r.items(args.req(0, "iterable")?)?;
            let more: Vec<Value> = more
                .iter()
                .map(|item| seq.admit(item.clone()))
                .collect::<Eval<_>>()?;
            seq.change(|items| {
                items.extend(more);
                Ok(())
            })?;
        }
        "insert" => {
            let at = clamp_index(args.int(0, "index")?, len);
            let value = seq.admit(args.req(1, "object")?.clone())?;
            r.spend(len as u64 / 8)?;
            seq.change(|items| {
                items.insert(at, value);
                Ok(())
            })?;
        }
        "pop" => {
            let at = index(args.opt_int(0, "index")?.unwrap_or(-1).into(), len);
            let at = at.ok_or_else(|| args.fail("pop index out of range"))?;
            r.spend(len as u64 / 8)?;
            return seq.change(|items| Ok(items.remove(at)));
        }
        "remove" => {
            let found = position(r, &seq.items(), args.req(0, "value")?)?;
            let at = found.ok_or_else(|| args.fail("the value is not in the list"))?;
            seq.change(|items| Ok(items.remove(at)))?;
        }
        "clear" => seq.change(|items| {
            items.clear();
            Ok(())
        })?,
        "reverse" => {
            r.spend(len as u64)?;
            seq.change(|items| {
                items.reverse();
                Ok(())
            })?;
        }
        // sort
        _ => {
            args.accept(&["", "reverse"])?;
            let keyed = seq
                .items()
                .iter()
                .map(|item| (item.clone(), item.clone()))
                .collect();
            let items = sorted(r, keyed, args.flag(1, "reverse", false), less_or_greater)?;
            seq.change(|old| {
                *old = items;
                Ok(())
            })?;
        }
    }
    Ok(Value::None)
}

fn call_dict(r: &Rendering, dict: &Dict, args: &Args) -> Eval<Value> {
    let fallback = || args.opt(1, "default").cloned().unwrap_or(Value::None);
    let entries = dict.entries();
    match args.name() {
        "get" => {
            args.accept(&["key", "default"])?;
            let key = args.req(0, "key")?;
            r.pay(key.as_str().map_or(0, str::len))?;
            Ok(dict.entry(key)?.unwrap_or_else(fallback))
        }
        "keys" | "values" | "items" => {
            args.accept(&[])?;
            r.spend(entries.len() as u64)?;
            match args.name() {
                "keys" => Value::seq(
                    SeqKind::Keys,
                    entries.keys().map(|key| key.value().clone()).collect(),
                ),
                "values" => Value::seq(SeqKind::Values, entries.values().cloned().collect()),
                _ => Value::seq(SeqKind::Items, pairs(&entries)?),
            }
        }
        "copy" => {
            r.spend(entries.len() as u64)?;
            Value::dict(entries.iter().map(|(k, v)| (k.value().clone(), v.clone())))
        }
        "pop" => {
            let key = Key::new(args.req(0, "key")?.clone())?;
            r.spend(entries.len() as u64 / 8)?;
            drop(entries);
            match (
                dict.change(|map| Ok(map.shift_remove(&key)))?,
                args.opt(1, "default"),
            ) {
                (Some(value), _) => Ok(value),
                (None, Some(default)) => Ok(default.clone()),
                (None, None) => Err(args.fail("there is no such key")),
            }
        }
        "popitem" => {
            drop(entries);
            match dict.change(|map| Ok(map.pop()))? {
                Some((key, value)) => Value::tuple(vec![key.value().clone(), value]),
                None => Err(args.fail("the dict is empty")),
            }
        }
        "setdefault" => {
            let key = args.req(0, "key")?;
            if let Some(value) = dict.entry(key)? {
                return Ok(value);
            }
            drop(entries);
            let (key, value) = (Key::new(key.clone())?, dict.admit(fallback())?);
            dict.change(|map| {
                map.insert(key, value.clone());
                Ok(value)
            })
        }
        "update" => {
            let mut more = match args.positional.as_slice() {
                [] => Vec::new(),
                [other] => pairs_of(r, other)?,
                _ => return Err(args.fail("takes at most one positional argument")),
            };
            more.extend(
                args.keywords
                    .iter()
                    .map(|(k, v)| (Value::text(k.clone(), false), v.clone())),
            );
            r.spend(more.len() as u64)?;
            drop(entries);
            for (key, value) in more {
                let (key, value) = (Key::new(key)?, dict.admit(value)?);
                dict.change(|map| {
                    map.insert(key, value);
                    Ok(())
                })?;
            }
            Ok(Value::None)
        }
        "clear" => {
            drop(entries);
            dict.change(|map| {
                map.clear();
                Ok(Value::None)
            })
        }
        // fromkeys
        _ => {
            let keys = r.items(args.req(0, "iterable")?)?;
            let value = args.opt(1, "value").cloned().unwrap_or(Value::None);
            Value::dict(keys.iter().map(|key| (key.clone(), value.clone())))
        }
    }
}

/// The entries as tuples.
pub(crate) fn pairs(entries: &IndexMap<Key, Value>) -> Eval<Vec<Value>> {
    entries
        .iter()
        .map(|(key, value)| Value::tuple(vec![key.value().clone(), value.clone()]))
        .collect()
}
