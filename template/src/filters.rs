//! Jinja's filters with the results that Python's jinja2 gives (its `filters.py` is the source of what each does): here
//! those on sequences and on any value; [`crate::text_filters`] has those on one number or string.
//!
//! Filters that are generators there return a generator here.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use crate::args::Args;
use crate::ast::Operator;
use crate::error::{Eval, Fail, fail};
use crate::json;
use crate::methods;
use crate::operators::{arithmetic, equal, less_or_greater, order_keys};
use crate::predicates;
use crate::render::Rendering;
use crate::repr::{to_str, write_repr, write_str};
use crate::strings::{escape, markup};
use crate::text_filters as text;
use crate::value::{Key, SeqKind, Value};

/// A filter: the value, and the arguments after it.
pub(crate) type Filter = fn(&Rendering, &Value, &Args) -> Eval<Value>;

/// The filter of that name.
pub(crate) fn find(name: &str) -> Option<Filter> {
    FILTERS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, filter)| *filter)
}

const FILTERS: [(&str, Filter); 53] = [
    ("abs", text::abs),
    ("attr", attr),
    ("batch", batch),
    ("capitalize", text::method),
    ("center", text::center),
    ("count", length),
    ("d", default),
    ("default", default),
    ("dictsort", dictsort),
    ("e", text::escape_filter),
    ("escape", text::escape_filter),
    ("filesizeformat", text::filesizeformat),
    ("first", first),
    ("float", text::float),
    ("forceescape", |r, value, _| {
        Ok(Value::safe(escape(&to_str(r, value)?)))
    }),
    ("format", text::format),
    ("groupby", groupby),
    ("indent", text::indent),
    ("int", text::int),
    ("items", items),
    ("join", join),
    ("last", last),
    ("length", length),
    ("list", |r, value, args| {
        args.accept(&[])?;
        Value::list(r.items(value)?.to_vec())
    }),
    ("lower", text::method),
    ("map", map),
    ("max", |r, value, args| extreme(r, value, args, Ordering::Greater)),
    ("min", |r, value, args| extreme(r, value, args, Ordering::Less)),
    ("pprint", pprint),
    ("random", random),
    ("reject", |r, value, args| choose(r, value, args, false, false)),
    ("rejectattr", |r, value, args| choose(r, value, args, true, false)),
    ("replace", text::replace),
    ("reverse", reverse),
    ("round", text::round),
    ("safe", |r, value, _| Ok(Value::safe(to_str(r, value)?))),
    ("select", |r, value, args| choose(r, value, args, false, true)),
    ("selectattr", |r, value, args| choose(r, value, args, true, true)),
    ("slice", slice),
    ("sort", sort),
    ("string", |r, value, _| {
        Ok(Value::text(to_str(r, value)?, value.is_safe()))
    }),
    ("striptags", text::striptags),
    ("sum", sum),
    ("title", text::title),
    ("tojson", json::tojson),
    ("trim", text::trim),
    ("truncate", text::truncate),
    ("unique", unique),
    ("upper", text::method),
    ("urlencode", text::urlencode),
    ("wordcount", text::wordcount),
    ("wordwrap", text::wordwrap),
    ("xmlattr", text::xmlattr),
];

/// A dotted attribute: names and indices, looked up one after the other.
struct Attribute {
    parts: Vec<Value>,
    default: Option<Value>,
}

impl Attribute {
    fn new(attribute: Option<&Value>, default: Option<&Value>) -> Self {
        let parts = match attribute {
            None | Some(Value::None) => Vec::new(),
            Some(Value::Str(path)) => path
                .text
                .split('.')
                .map(|part| match part.bytes().all(|b| b.is_ascii_digit()) {
                    true => part.parse().map_or_else(|_| Value::from(part), Value::Int),
                    false => Value::from(part),
                })
                .collect(),
            Some(value) => vec![value.clone()],
        };
        Self {
            parts,
            default: default.filter(|default| !default.is_none()).cloned(),
        }
    }

    fn of(&self, r: &Rendering, item: &Value) -> Eval<Value> {
        let mut value = item.clone();
        for part in &self.parts {
            r.spend(1)?;
            value = r.item(&value, part)?;
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

/// The items by their keys, stable in either direction as Python's `sorted`. What cannot be ordered is an error,
/// whichever two values it is.
pub(crate) fn sorted<K>(
    r: &Rendering,
    mut keyed: Vec<(K, Value)>,
    reverse: bool,
    order: impl Fn(&Rendering, &K, &K) -> Eval<Ordering>,
) -> Eval<Vec<Value>> {
    r.spend(keyed.len() as u64)?;
    let mut failure: Option<Fail> = None;
    keyed.sort_by(|(a, _), (b, _)| {
        let (a, b) = if reverse { (b, a) } else { (a, b) };
        // After a failure nothing is computed any more.
        match failure {
            Some(_) => Ordering::Equal,
            None => order(r, a, b).unwrap_or_else(|error| {
                failure = Some(error);
                Ordering::Equal
            }),
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

// ------------------------------------------------------------------------------------------- any value

fn default(_: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["default_value", "boolean"])?;
    if value.is_undefined() || (args.flag(1, "boolean", false) && !value.is_true()) {
        return Ok(args
            .opt(0, "default_value")
            .cloned()
            .unwrap_or_else(|| Value::from("")));
    }
    Ok(value.clone())
}

/// Attributes only, never items.
fn attr(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    let name = args.str(0, "name")?;
    match value {
        Value::Dict(_) if !methods::exists(value, name) => Ok(Value::missing(name)),
        _ => r.attribute(value, &Arc::from(name)),
    }
}

fn length(_: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&[])?;
    match value {
        Value::Undefined(_) => Ok(Value::Int(0)),
        Value::Str(text) => Ok(Value::from(text.text.chars().count())),
        Value::Seq(seq) => Ok(Value::from(seq.items().len())),
        Value::Dict(dict) => Ok(Value::from(dict.entries().len())),
        _ => fail(format!("object of type '{}' has no len()", value.type_name())),
    }
}

fn pprint(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    let mut out = String::new();
    write_repr(r, &mut out, value)?;
    Ok(Value::from(out))
}

// ------------------------------------------------------------------------------------------ sequences

fn first(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    let first = match value {
        Value::Str(text) => text.text.chars().next().map(Value::from),
        Value::Seq(seq) => seq.items().first().cloned(),
        Value::Generator(items) => items.borrow_mut().pop_front(),
        _ => r.items(value)?.first().cloned(),
    };
    Ok(first.unwrap_or_else(Value::undefined))
}

fn last(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    let last = match value {
        Value::Str(text) => text.text.chars().next_back().map(Value::from),
        Value::Seq(seq) => seq.items().last().cloned(),
        Value::Generator(_) => return fail("'generator' object is not reversible"),
        _ => r.items(value)?.last().cloned(),
    };
    Ok(last.unwrap_or_else(Value::undefined))
}

/// One of the items; the same ones are chosen in every rendering, so that a prompt can be had again.
fn random(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&[])?;
    let items = match value {
        Value::Undefined(_) | Value::Str(_) => r.items(value)?,
        Value::Seq(seq) if !seq.is_view() => seq.items(),
        Value::Dict(dict) if dict.entries().is_empty() => Default::default(),
        _ => {
            return Err(args.fail(&format!(
                "a list or string is needed, not '{}'",
                value.type_name()
            )));
        }
    };
    let at = r.draw().checked_rem(items.len() as u64).unwrap_or(0);
    Ok(items.get(at as usize).cloned().unwrap_or_else(Value::undefined))
}

fn items(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    match value {
        Value::Undefined(_) => Ok(Value::generator(Vec::new())),
        Value::Dict(dict) => {
            let entries = dict.entries();
            r.spend(entries.len() as u64)?;
            Ok(Value::generator(methods::pairs(&entries)?))
        }
        _ => fail("can only get item pairs from a mapping"),
    }
}

fn join(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["d", "attribute"])?;
    let separator = args.opt(0, "d").cloned().unwrap_or_else(|| Value::from(""));
    let attribute = Attribute::new(args.opt(1, "attribute"), None);
    let items = r.items(value)?;
    // Where output is escaped and one part is marked, the others are escaped.
    let safe = r.escapes() && (separator.is_safe() || items.iter().any(Value::is_safe));
    let part = |value: Value| if safe { markup(value) } else { value };
    let separator = to_str(r, &part(separator))?;
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(&separator);
        }
        r.pay(separator.len() + 16)?;
        write_str(r, &mut out, &part(attribute.of(r, item)?))?;
    }
    Ok(Value::text(out, safe))
}

fn reverse(r: &Rendering, value: &Value, _: &Args) -> Eval<Value> {
    if let Value::Str(text) = value {
        let reversed: String = text.text.chars().rev().collect();
        return Ok(Value::text(reversed, text.safe));
    }
    let mut items = r.items(value)?.to_vec();
    items.reverse();
    Ok(Value::generator(items))
}

/// The items, none where the value is false: `none|map(…)` is empty.
fn items_if_true(r: &Rendering, value: &Value) -> Eval<Vec<Value>> {
    Ok(if value.is_true() {
        r.items(value)?.to_vec()
    } else {
        Vec::new()
    })
}

fn map(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    let items = items_if_true(r, value)?;
    if !args.positional.is_empty() {
        let name = args.str(0, "filter")?;
        let Some(filter) = find(name) else {
            return fail(format!("there is no filter '{name}'"));
        };
        let args = args.after(1, name);
        let mapped = items.iter().map(|item| {
            r.spend(4)?;
            r.deeper(|| filter(r, item, &args))
        });
        return Ok(Value::generator(mapped.collect::<Eval<_>>()?));
    }
    let Some(attribute) = args.keyword("attribute") else {
        return Err(args.fail("the name of a filter or attribute= is needed"));
    };
    let attribute = Attribute::new(Some(attribute), args.keyword("default"));
    let mapped = items.iter().map(|item| attribute.of(r, item));
    Ok(Value::generator(mapped.collect::<Eval<_>>()?))
}

/// `select`, `reject` and those by attribute.
fn choose(r: &Rendering, value: &Value, args: &Args, by_attribute: bool, wanted: bool) -> Eval<Value> {
    let items = items_if_true(r, value)?;
    let attribute = by_attribute.then(|| args.req(0, "attribute")).transpose()?;
    let attribute = Attribute::new(attribute, None);
    let at = usize::from(by_attribute);
    let test = match args.positional.get(at) {
        None => None,
        Some(test) => match test.as_str() {
            Some(test) => Some(args.after(at + 1, test)),
            None => return Err(args.fail("the name of a test is needed")),
        },
    };
    let mut out = Vec::new();
    for item in items {
        r.spend(3)?;
        let value = attribute.of(r, &item)?;
        let holds = match &test {
            None => value.is_true(),
            Some(test) => predicates::holds(r, &value, test)?,
        };
        if holds == wanted {
            out.push(item);
        }
    }
    Ok(Value::generator(out))
}

fn sort(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["reverse", "case_sensitive", "attribute"])?;
    let case_sensitive = args.flag(1, "case_sensitive", false);
    let attributes: Vec<Attribute> = match args.opt(2, "attribute") {
        Some(Value::Str(names)) => {
            let names = names.text.split(',');
            names
                .map(|name| Attribute::new(Some(&Value::from(name)), None))
                .collect()
        }
        attribute => vec![Attribute::new(attribute, None)],
    };
    let mut keyed: Vec<(Vec<Value>, Value)> = Vec::new();
    for item in r.items(value)?.iter() {
        let key = attributes
            .iter()
            .map(|attribute| Ok(folded(attribute.of(r, item)?, case_sensitive)));
        keyed.push((key.collect::<Eval<_>>()?, item.clone()));
    }
    // Here jinja2 compares lists of the attributes, in the other filters the values themselves.
    let reverse = args.flag(0, "reverse", false);
    Value::list(sorted(r, keyed, reverse, |r, a, b| order_keys(r, a, b))?)
}

fn dictsort(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["case_sensitive", "by", "reverse"])?;
    let Some(dict) = value.as_dict() else {
        return Err(args.fail(&format!("a mapping is needed, not '{}'", value.type_name())));
    };
    let case_sensitive = args.flag(0, "case_sensitive", false);
    let by_value = match args.opt(1, "by").map_or(Some("key"), Value::as_str) {
        Some("key") => false,
        Some("value") => true,
        _ => return Err(args.fail("you can only sort by either \"key\" or \"value\"")),
    };
    let mut keyed = Vec::new();
    for (key, value) in dict.entries().iter() {
        let pair = Value::tuple(vec![key.value().clone(), value.clone()])?;
        let by = if by_value { value } else { key.value() };
        keyed.push((folded(by.clone(), case_sensitive), pair));
    }
    Value::list(sorted(r, keyed, args.flag(2, "reverse", false), less_or_greater)?)
}

fn groupby(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["attribute", "default", "case_sensitive"])?;
    let attribute = Attribute::new(Some(args.req(0, "attribute")?), args.opt(1, "default"));
    let case_sensitive = args.flag(2, "case_sensitive", false);
    let mut keyed = Vec::new();
    for item in r.items(value)?.iter() {
        keyed.push((folded(attribute.of(r, item)?, case_sensitive), item.clone()));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for item in sorted(r, keyed, false, less_or_greater)? {
        let real = attribute.of(r, &item)?;
        let key = folded(real.clone(), case_sensitive);
        match groups.last_mut() {
            Some((last, _, members)) if equal(r, last, &key)? => members.push(item),
            _ => groups.push((key, real, vec![item])),
        }
    }
    let groups = groups
        .into_iter()
        .map(|(_, real, members)| Value::seq(SeqKind::Group, vec![real, Value::list(members)?]));
    Value::list(groups.collect::<Eval<_>>()?)
}

#[expect(
    clippy::mutable_key_type,
    reason = "keys are scalars and tuples of such, which do not change"
)]
fn unique(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["case_sensitive", "attribute"])?;
    let case_sensitive = args.flag(0, "case_sensitive", false);
    let attribute = Attribute::new(args.opt(1, "attribute"), None);
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for item in r.items(value)?.iter() {
        let key = folded(attribute.of(r, item)?, case_sensitive);
        r.pay(key.as_str().map_or(0, str::len))?;
        if seen.insert(Key::new(key)?) {
            out.push(item.clone());
        }
    }
    Ok(Value::generator(out))
}

fn extreme(r: &Rendering, value: &Value, args: &Args, wanted: Ordering) -> Eval<Value> {
    args.accept(&["case_sensitive", "attribute"])?;
    let case_sensitive = args.flag(0, "case_sensitive", false);
    let attribute = Attribute::new(args.opt(1, "attribute"), None);
    let mut best: Option<(Value, Value)> = None;
    for item in r.items(value)?.iter() {
        let key = folded(attribute.of(r, item)?, case_sensitive);
        let better = match &best {
            None => true,
            Some((champion, _)) => less_or_greater(r, &key, champion)? == wanted,
        };
        if better {
            best = Some((key, item.clone()));
        }
    }
    Ok(best.map_or_else(Value::undefined, |(_, item)| item))
}

fn sum(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["attribute", "start"])?;
    let attribute = Attribute::new(args.opt(0, "attribute"), None);
    let mut total = args.opt(1, "start").cloned().unwrap_or(Value::Int(0));
    if total.as_str().is_some() {
        return Err(args.fail("strings cannot be summed"));
    }
    for item in r.items(value)?.iter() {
        total = arithmetic(r, Operator::Add, &total, &attribute.of(r, item)?)?;
    }
    Ok(total)
}

/// A count of at least one.
fn count_of(args: &Args, name: &str) -> Eval<usize> {
    let count = usize::try_from(args.int(0, name)?)
        .ok()
        .filter(|count| *count > 0);
    count.ok_or_else(|| args.fail(&format!("{name} must be positive")))
}

fn batch(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["linecount", "fill_with"])?;
    let size = count_of(args, "linecount")?;
    let fill = args.opt(1, "fill_with").filter(|fill| !fill.is_none());
    let mut out = Vec::new();
    for chunk in r.items(value)?.chunks(size) {
        let mut row = chunk.to_vec();
        if let Some(fill) = fill {
            r.spend((size - row.len()) as u64)?;
            row.resize(size, fill.clone());
        }
        out.push(Value::list(row)?);
    }
    Ok(Value::generator(out))
}

fn slice(r: &Rendering, value: &Value, args: &Args) -> Eval<Value> {
    args.accept(&["slices", "fill_with"])?;
    let slices = count_of(args, "slices")?;
    r.spend(slices as u64)?;
    let fill = args.opt(1, "fill_with").filter(|fill| !fill.is_none());
    let items = r.items(value)?;
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
        out.push(Value::list(row)?);
    }
    Ok(Value::generator(out))
}
