//! Jinja's filters with the results that Python's jinja2 gives (its `filters.py` is the source of what each does).
//!
//! Filters that are generators there return a [`Generator`] here.

use std::cmp::Ordering;

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::args::Args;
use super::budget::Budget;
use super::comparison::{less_or_greater, order_keys};
use super::json;
use super::methods;
use super::repr::to_str;
use super::rewrite::RESERVED;
use super::scalar_filters;
use super::strings;
use super::value::{Dict, Generator, Seq, check_key, error, type_name};

/// A filter: the value is the first argument.
type Filter = fn(&mut State<'_, '_>, &Args<'_>) -> Result<Value, Error>;

const FILTERS: [(&str, Filter); 57] = [
    ("abs", scalar_filters::abs),
    ("attr", attr),
    ("batch", batch),
    ("capitalize", |state, args| {
        scalar_filters::changed(state, args, strings::capitalize)
    }),
    ("center", scalar_filters::center),
    ("count", length),
    ("d", default),
    ("default", default),
    ("dictsort", dictsort),
    ("e", scalar_filters::escape),
    ("escape", scalar_filters::escape),
    ("filesizeformat", scalar_filters::filesizeformat),
    ("first", first),
    ("float", scalar_filters::float),
    ("forceescape", scalar_filters::forceescape),
    ("format", scalar_filters::format_filter),
    ("groupby", groupby),
    ("indent", scalar_filters::indent),
    ("int", scalar_filters::int),
    ("items", items),
    ("join", join),
    ("last", last),
    ("length", length),
    ("list", list),
    ("lower", |state, args| {
        scalar_filters::changed(state, args, str::to_lowercase)
    }),
    ("map", map),
    ("max", |state, args| extreme(state, args, Ordering::Greater)),
    ("min", |state, args| extreme(state, args, Ordering::Less)),
    ("pprint", pprint),
    ("random", random),
    ("reject", |state, args| choose(state, args, false, false)),
    ("rejectattr", |state, args| choose(state, args, true, false)),
    ("replace", scalar_filters::replace),
    ("reverse", reverse),
    ("round", scalar_filters::round),
    ("safe", scalar_filters::safe),
    ("select", |state, args| choose(state, args, false, true)),
    ("selectattr", |state, args| choose(state, args, true, true)),
    ("slice", slice),
    ("sort", sort),
    ("string", |state, args| {
        scalar_filters::changed(state, args, str::to_owned)
    }),
    ("sum", scalar_filters::sum),
    ("title", scalar_filters::title),
    ("tojson", json::tojson),
    ("trim", scalar_filters::trim),
    ("truncate", scalar_filters::truncate),
    ("unique", unique),
    ("upper", |state, args| {
        scalar_filters::changed(state, args, str::to_uppercase)
    }),
    ("urlencode", scalar_filters::urlencode),
    ("wordcount", scalar_filters::wordcount),
    ("xmlattr", scalar_filters::xmlattr),
    (PRINTF, scalar_filters::printf_operator),
    // Names of the engine that Jinja does not have.
    ("bool", unknown),
    ("chain", unknown),
    ("lines", unknown),
    ("split", unknown),
    ("zip", unknown),
];

/// The filter that the rewriter puts in place of `%` after a string literal.
pub(super) const PRINTF: &str = "_tw_printf";

/// Replaces the engine's filters by these.
pub(super) fn register(env: &mut Environment<'_>) {
    for (name, filter) in FILTERS {
        env.add_filter(
            name,
            move |state: &mut State<'_, '_>, values: Rest<ValueOrKwargs>| {
                filter(
                    state,
                    &Args::new(name.trim_start_matches(RESERVED), &values.into_values()),
                )
            },
        );
    }
}

fn unknown(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    Err(Error::new(
        ErrorKind::UnknownFilter,
        args.fail("there is no such filter").to_string(),
    ))
}

fn input<'a>(args: &'a Args<'_>) -> Result<&'a Value, Error> {
    args.req(0, "value")
}

/// `str()` of the value.
pub(super) fn text(state: &State<'_, '_>, args: &Args<'_>) -> Result<String, Error> {
    str_of(state, input(args)?)
}

/// `str()` of a value, paid for.
pub(super) fn str_of(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let budget = Budget::of(state)?;
    let text = to_str(value, &budget);
    budget.check()?;
    methods::pay(state, text.len())?;
    Ok(text)
}

/// The items that a `for` loop over `value` would see.
pub(super) fn iterate(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    let items: Vec<Value> = match value.kind() {
        ValueKind::Undefined => Vec::new(),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            methods::pay(state, text.len().saturating_mul(32))?;
            text.chars().map(Value::from).collect()
        }
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            if let Some(seq) = value.downcast_object_ref::<Seq>() {
                let items = seq.items();
                state.consume_fuel(items.len() as u64 / 2)?;
                return Ok(items.to_vec());
            }
            if let Some(dict) = value.downcast_object_ref::<Dict>() {
                let entries = dict.entries();
                state.consume_fuel(entries.len() as u64 / 2)?;
                return Ok(entries.keys().cloned().collect());
            }
            if let Some(generator) = value.downcast_object_ref::<Generator>() {
                let items = generator.drain();
                state.consume_fuel(items.len() as u64 / 2)?;
                return Ok(items);
            }
            let mut items = Vec::new();
            for item in value.try_iter()? {
                state.consume_fuel(1)?;
                items.push(item);
            }
            items
        }
        _ => return Err(error(format!("'{}' object is not iterable", type_name(value)))),
    };
    Ok(items)
}

fn generator(state: &State<'_, '_>, items: Vec<Value>) -> Result<Value, Error> {
    Generator::build(&Budget::of(state)?, items)
}

fn new_list(state: &State<'_, '_>, items: Vec<Value>) -> Result<Value, Error> {
    Seq::list(&Budget::of(state)?, items)
}

/// A dotted attribute: names and indices, looked up one after the other.
pub(super) struct Attribute {
    parts: Vec<Value>,
    default: Option<Value>,
}

impl Attribute {
    pub(super) fn new(attribute: Option<&Value>, default: Option<Value>) -> Self {
        let parts = match attribute {
            None => Vec::new(),
            Some(value) => match value.as_str() {
                Some(path) => path
                    .split('.')
                    .map(|part| {
                        part.parse::<u32>()
                            .map_or_else(|_| Value::from(part), Value::from)
                    })
                    .collect(),
                None if value.is_none() => Vec::new(),
                None => vec![value.clone()],
            },
        };
        Self { parts, default }
    }

    pub(super) fn of(&self, item: &Value) -> Result<Value, Error> {
        let mut value = item.clone();
        for part in &self.parts {
            value = value.get_item(part)?;
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

/// Pays for sorting `n` items.
fn pay_for_sort(state: &State<'_, '_>, n: usize) -> Result<(), Error> {
    let n = n as u64;
    state.consume_fuel(n.saturating_mul(u64::from(n.max(1).ilog2()) + 2))
}

// ------------------------------------------------------------------------------------------- any value

fn default(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["default_value", "boolean"])?;
    let value = args.req(0, "value")?;
    let replace = value.is_undefined() || (args.flag(2, "boolean", false) && !value.is_true());
    if !replace {
        return Ok(value.clone());
    }
    Ok(args
        .opt(1, "default_value")
        .cloned()
        .unwrap_or_else(|| Value::from("")))
}

fn attr(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let (value, name) = (input(args)?, args.str(1, "name")?);
    // Attributes only, never items: methods of a list or dict.
    let own = value.downcast_object_ref::<Seq>().is_some() || value.downcast_object_ref::<Dict>().is_some();
    let method = match value.downcast_object_ref::<Seq>() {
        Some(seq) => methods::is_seq_method(seq, name),
        None => methods::is_dict_method(name),
    };
    if own && !method {
        return Ok(Value::UNDEFINED);
    }
    value.get_attr(name)
}

fn length(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(1, &[])?;
    let value = input(args)?;
    if value.is_undefined() {
        return Ok(Value::from(0));
    }
    let len = match value.as_str() {
        Some(text) => Some(text.chars().count()),
        None if value.downcast_object_ref::<Generator>().is_some() => None,
        None => match value.len() {
            Some(len) => Some(len),
            None if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) => {
                Some(iterate(state, value)?.len())
            }
            None => None,
        },
    };
    len.map(Value::from)
        .ok_or_else(|| error(format!("object of type '{}' has no len()", type_name(value))))
}

fn pprint(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let budget = Budget::of(state)?;
    let mut out = String::new();
    // A String takes every write.
    let _ = super::repr::write_repr(&mut out, input(args)?, &budget);
    budget.check()?;
    Ok(Value::from(out))
}

// ------------------------------------------------------------------------------------------ sequences

fn first(_: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
    if let Some(generator) = value.downcast_object_ref::<Generator>() {
        return Ok(generator.next().unwrap_or(Value::UNDEFINED));
    }
    if value.is_undefined() {
        return Ok(Value::UNDEFINED);
    }
    if value.is_none() || value.is_number() {
        return Err(error(format!("'{}' object is not iterable", type_name(value))));
    }
    Ok(value.try_iter()?.next().unwrap_or(Value::UNDEFINED))
}

fn last(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
    if let Some(text) = value.as_str() {
        return Ok(text.chars().next_back().map_or(Value::UNDEFINED, Value::from));
    }
    if let Some(seq) = value.downcast_object_ref::<Seq>() {
        return Ok(seq.items().last().cloned().unwrap_or(Value::UNDEFINED));
    }
    Ok(iterate(state, value)?.pop().unwrap_or(Value::UNDEFINED))
}

/// One of the items; the same ones are chosen in every rendering, so that a prompt can be had again.
fn random(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(1, &[])?;
    let value = input(args)?;
    let sequence = value.as_str().is_some()
        || value.is_undefined()
        || value
            .downcast_object_ref::<Seq>()
            .is_some_and(|seq| !seq.is_view())
        || value
            .downcast_object_ref::<Dict>()
            .is_some_and(|dict| dict.entries().is_empty());
    if !sequence {
        return Err(args.fail(&format!(
            "a list, tuple or string is needed, not '{}'",
            type_name(value)
        )));
    }
    let items = iterate(state, value)?;
    let drawn = Budget::of(state)?.draw();
    let at = drawn.checked_rem(items.len() as u64).unwrap_or(0);
    Ok(items.get(at as usize).cloned().unwrap_or(Value::UNDEFINED))
}

fn list(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(1, &[])?;
    let items = iterate(state, input(args)?)?;
    new_list(state, items)
}

fn items(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
    if value.is_undefined() {
        return generator(state, Vec::new());
    }
    let budget = Budget::of(state)?;
    match value.downcast_object_ref::<Dict>() {
        Some(dict) => {
            let entries = dict.entries();
            state.consume_fuel(entries.len() as u64)?;
            Generator::build(&budget, methods::pairs(&budget, &entries)?)
        }
        None => Err(error("can only get item pairs from a mapping")),
    }
}

fn join(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["d", "attribute"])?;
    let separator = match args.opt(1, "d") {
        Some(separator) => str_of(state, separator)?,
        None => String::new(),
    };
    let attribute = Attribute::new(args.opt(2, "attribute"), None);
    let budget = Budget::of(state)?;
    let mut out = String::new();
    for (i, item) in iterate(state, input(args)?)?.iter().enumerate() {
        if i > 0 {
            out.push_str(&separator);
        }
        let before = out.len();
        // A String takes every write.
        let _ = super::repr::write_str(&mut out, &attribute.of(item)?, &budget);
        budget.check()?;
        methods::pay(state, out.len() - before + separator.len() + 16)?;
    }
    Ok(Value::from(out))
}

fn reverse(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let value = input(args)?;
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut items = iterate(state, value)?;
    items.reverse();
    generator(state, items)
}

/// The items, none where the value is false: `none|map(…)` is empty.
fn walk_if_true(state: &State<'_, '_>, args: &Args<'_>) -> Result<Vec<Value>, Error> {
    let value = input(args)?;
    if value.is_true() {
        iterate(state, value)
    } else {
        Ok(Vec::new())
    }
}

fn map(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    let items = walk_if_true(state, args)?;
    let mut out = Vec::with_capacity(items.len());
    if args.positional().len() == 1 {
        let Some(attribute) = args.keyword("attribute") else {
            return Err(args.fail("a filter name or attribute= is needed"));
        };
        let attribute = Attribute::new(Some(attribute), args.keyword("default").cloned());
        for item in &items {
            state.consume_fuel(1)?;
            out.push(attribute.of(item)?);
        }
    } else {
        let name = args.str(1, "filter")?;
        for item in items {
            state.consume_fuel(4)?;
            let values = args.forward(2, item);
            out.push(state.apply_filter(name, &values)?);
        }
    }
    generator(state, out)
}

fn choose(
    state: &mut State<'_, '_>,
    args: &Args<'_>,
    by_attribute: bool,
    wanted: bool,
) -> Result<Value, Error> {
    let items = walk_if_true(state, args)?;
    let attribute = by_attribute.then(|| args.req(1, "attribute")).transpose()?;
    let attribute = Attribute::new(attribute, None);
    let at = 1 + usize::from(by_attribute);
    let test = args.positional().get(at);
    let mut out = Vec::new();
    for item in items {
        state.consume_fuel(3)?;
        let value = attribute.of(&item)?;
        let holds = match test {
            None => value.is_true(),
            Some(test) => match test.as_str() {
                Some(test) => state.perform_test(test, &args.forward(at + 1, value))?,
                None => return Err(args.fail("the name of a test is needed")),
            },
        };
        if holds == wanted {
            out.push(item);
        }
    }
    generator(state, out)
}

/// Sorts `(key, item)` by key, stable in either direction as Python's `sorted`. What cannot be ordered is an error,
/// whichever two values it is.
fn sort_by_key<K>(
    state: &State<'_, '_>,
    mut keyed: Vec<(K, Value)>,
    reverse: bool,
    order: fn(&State<'_, '_>, &K, &K) -> Result<Ordering, Error>,
) -> Result<Vec<Value>, Error> {
    pay_for_sort(state, keyed.len())?;
    let mut failure = None;
    keyed.sort_by(|(a, _), (b, _)| {
        let (a, b) = if reverse { (b, a) } else { (a, b) };
        order(state, a, b).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            Ordering::Equal
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

fn sort(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["reverse", "case_sensitive", "attribute"])?;
    let case_sensitive = args.flag(2, "case_sensitive", false);
    let attributes: Vec<Attribute> = match args.opt(3, "attribute") {
        Some(value) => match value.as_str() {
            Some(names) => names
                .split(',')
                .map(|name| Attribute::new(Some(&Value::from(name)), None))
                .collect(),
            None => vec![Attribute::new(Some(value), None)],
        },
        None => vec![Attribute::new(None, None)],
    };
    let mut keyed: Vec<(Vec<Value>, Value)> = Vec::new();
    for item in iterate(state, input(args)?)? {
        let key = attributes
            .iter()
            .map(|attribute| attribute.of(&item).map(|key| folded(key, case_sensitive)))
            .collect::<Result<_, _>>()?;
        keyed.push((key, item));
    }
    // Here jinja2 compares lists of the attributes, in the other filters the values themselves.
    let reverse = args.flag(1, "reverse", false);
    let sorted = sort_by_key(state, keyed, reverse, |state, a, b| order_keys(state, a, b))?;
    new_list(state, sorted)
}

fn dictsort(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["case_sensitive", "by", "reverse"])?;
    let value = input(args)?;
    let Some(dict) = value.downcast_object_ref::<Dict>() else {
        return Err(args.fail(&format!("a mapping is needed, not '{}'", type_name(value))));
    };
    let case_sensitive = args.flag(1, "case_sensitive", false);
    let by_value = match args
        .opt(2, "by")
        .map_or(Some("key"), Value::as_str)
        .unwrap_or_default()
    {
        "key" => false,
        "value" => true,
        _ => return Err(args.fail("you can only sort by either \"key\" or \"value\"")),
    };
    let budget = Budget::of(state)?;
    let mut keyed = Vec::new();
    for (key, value) in dict.entries().iter() {
        let by = if by_value { value } else { key };
        let pair = Seq::tuple(&budget, vec![key.clone(), value.clone()])?;
        keyed.push((folded(by.clone(), case_sensitive), pair));
    }
    let sorted = sort_by_key(state, keyed, args.flag(3, "reverse", false), less_or_greater)?;
    new_list(state, sorted)
}

fn groupby(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(4, &["attribute", "default", "case_sensitive"])?;
    let attribute = Attribute::new(Some(args.req(1, "attribute")?), args.opt(2, "default").cloned());
    let case_sensitive = args.flag(3, "case_sensitive", false);
    let mut keyed = Vec::new();
    for item in iterate(state, input(args)?)? {
        keyed.push((folded(attribute.of(&item)?, case_sensitive), item));
    }
    let budget = Budget::of(state)?;
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for item in sort_by_key(state, keyed, false, less_or_greater)? {
        let real = attribute.of(&item)?;
        let key = folded(real.clone(), case_sensitive);
        match groups.last_mut() {
            Some((last, _, members)) if *last == key => members.push(item),
            _ => groups.push((key, real, vec![item])),
        }
    }
    let groups = groups
        .into_iter()
        .map(|(_, real, members)| Seq::group(&budget, real, members))
        .collect::<Result<_, _>>()?;
    Seq::list(&budget, groups)
}

fn unique(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["case_sensitive", "attribute"])?;
    let case_sensitive = args.flag(1, "case_sensitive", false);
    let attribute = Attribute::new(args.opt(2, "attribute"), None);
    let mut seen = std::collections::HashSet::new();
    let mut out = Vec::new();
    for item in iterate(state, input(args)?)? {
        let key = folded(attribute.of(&item)?, case_sensitive);
        check_key(&key)?;
        if seen.insert(key) {
            out.push(item);
        }
    }
    generator(state, out)
}

fn extreme(state: &mut State<'_, '_>, args: &Args<'_>, wanted: Ordering) -> Result<Value, Error> {
    args.accept(3, &["case_sensitive", "attribute"])?;
    let case_sensitive = args.flag(1, "case_sensitive", false);
    let attribute = Attribute::new(args.opt(2, "attribute"), None);
    let mut best: Option<(Value, Value)> = None;
    for item in iterate(state, input(args)?)? {
        let key = folded(attribute.of(&item)?, case_sensitive);
        let better = match &best {
            None => true,
            Some((champion, _)) => less_or_greater(state, &key, champion)? == wanted,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

fn batch(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["linecount", "fill_with"])?;
    let size = args
        .opt_int(1, "linecount")?
        .ok_or_else(|| args.fail("linecount is needed"))?;
    let size = usize::try_from(size)
        .ok()
        .filter(|&size| size > 0)
        .ok_or_else(|| args.fail("linecount must be positive"))?;
    let fill = args.opt(2, "fill_with").filter(|fill| !fill.is_none());
    let budget = Budget::of(state)?;
    let mut out = Vec::new();
    for chunk in iterate(state, input(args)?)?.chunks(size) {
        let mut row = chunk.to_vec();
        if let Some(fill) = fill {
            state.consume_fuel((size - row.len()) as u64)?;
            row.resize(size, fill.clone());
        }
        out.push(Seq::list(&budget, row)?);
    }
    Generator::build(&budget, out)
}

fn slice(state: &mut State<'_, '_>, args: &Args<'_>) -> Result<Value, Error> {
    args.accept(3, &["slices", "fill_with"])?;
    let slices = args
        .opt_int(1, "slices")?
        .ok_or_else(|| args.fail("slices is needed"))?;
    let slices = usize::try_from(slices)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| args.fail("slices must be positive"))?;
    state.consume_fuel(slices as u64)?;
    let fill = args.opt(2, "fill_with").filter(|fill| !fill.is_none());
    let items = iterate(state, input(args)?)?;
    let budget = Budget::of(state)?;
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
        out.push(Seq::list(&budget, row)?);
    }
    Generator::build(&budget, out)
}
