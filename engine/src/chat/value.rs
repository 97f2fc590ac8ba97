//! Python's list, tuple, dict and generator for templates.
//!
//! minijinja's own containers are immutable, look attributes and items up in one place and may nest without
//! bound. These behave as Python's: `d.items` is the method and `d['items']` the entry, a list that no other
//! container holds can be appended to, and [`super::repr`] prints them as Python does.
//!
//! What keeps them safe, always:
//! - an element of a container is *sealed* (immutable from then on), so no cycle can be built and the nesting
//!   depth of a container is known when it is made; past [`MAX_DEPTH`] it is an error, hence dropping, comparing
//!   and printing recurse a bounded number of times;
//! - printing and comparing spend from one [`Budget`] per rendering, because elements may be shared and a
//!   small graph can stand for an enormous tree.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as Atomic};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::budget::Budget;
use super::methods;
use super::repr::{write_dict, write_seq};

/// Containers nest at most this deep (JSON parsers commonly stop at 128).
pub(super) const MAX_DEPTH: usize = 192;

/// An error of the kind templates see for a wrong type or value.
pub(super) fn error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What lists, tuples and dicts share: whether another container holds them, and how deep they nest.
#[derive(Debug)]
struct Header {
    sealed: AtomicBool,
    depth: AtomicUsize,
    budget: Arc<Budget>,
}

impl Header {
    fn new(depth: usize, budget: &Arc<Budget>) -> Self {
        Self {
            sealed: AtomicBool::new(false),
            depth: AtomicUsize::new(depth),
            budget: budget.clone(),
        }
    }

    fn seal(&self) -> usize {
        self.sealed.store(true, Atomic::Relaxed);
        self.depth.load(Atomic::Relaxed)
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.sealed.load(Atomic::Relaxed) {
            return Err(error("cannot change a list or dict that another one holds"));
        }
        Ok(())
    }

    fn deepen(&self, depth: usize) {
        self.depth.fetch_max(depth, Atomic::Relaxed);
    }
}

/// Which of Python's sequences a [`Seq`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SeqKind {
    List,
    Tuple,
    /// What `groupby` gives for one group: a tuple whose items also have the names `grouper` and `list`.
    Group,
    /// A view of a dict: it has a length and can be walked, but not indexed.
    Keys,
    Values,
    Items,
}

/// Python's `list`, `tuple`, or view of a dict.
pub(super) struct Seq {
    pub(super) kind: SeqKind,
    header: Header,
    items: Mutex<Arc<Vec<Value>>>,
}

/// Python's `dict`: insertion order, keys of any hashable type.
pub(super) struct Dict {
    header: Header,
    map: Mutex<Arc<IndexMap<Value, Value>>>,
}

/// What `map`, `select` and their like return: it can be walked once and has no length.
pub(super) struct Generator {
    items: Mutex<VecDeque<Value>>,
}

/// A method looked up without being called.
struct BoundMethod {
    receiver: Value,
    name: String,
}

/// Makes `value` fit to be an element: containers become this module's own and are sealed.
/// Returns it with its depth.
fn adopt(budget: &Arc<Budget>, value: Value) -> Result<(Value, usize), Error> {
    let Some(object) = value.as_object() else {
        return Ok((value, 0));
    };
    if let Some(seq) = object.downcast_ref::<Seq>() {
        let depth = seq.header.seal();
        return Ok((value, depth));
    }
    if let Some(dict) = object.downcast_ref::<Dict>() {
        let depth = dict.header.seal();
        return Ok((value, depth));
    }
    match object.repr() {
        ObjectRepr::Seq | ObjectRepr::Iterable => {
            let own = Seq::collect(budget, object)?;
            adopt(budget, own)
        }
        ObjectRepr::Map if is_plain_map(&value) => {
            let own = Dict::collect(budget, object)?;
            adopt(budget, own)
        }
        _ if is_function(&value) => Ok((value, 0)),
        _ => Err(error("this object cannot be put into a list, dict or namespace")),
    }
}

fn is_plain_map(value: &Value) -> bool {
    value.is_kwargs() || value.downcast_object_ref::<IndexMap<Value, Value>>().is_some()
}

/// Macros and global functions hold no values, so they may be kept anywhere.
pub(super) fn is_function(value: &Value) -> bool {
    let Some(object) = value.as_object() else {
        return false;
    };
    if object.downcast_ref::<BoundMethod>().is_some() {
        return false;
    }
    // The engine's types for these are private; their printed forms are fixed.
    let name = object.type_name();
    name.ends_with("::Macro") || name.ends_with("BoxedFunction")
}

/// What a template stores in a variable: lazy sequences become lists, everything else stays.
pub(super) fn settle(budget: &Arc<Budget>, value: Value) -> Result<Value, Error> {
    budget.check()?;
    let Some(object) = value.as_object() else {
        return Ok(value);
    };
    if object.downcast_ref::<Seq>().is_some()
        || object.downcast_ref::<Dict>().is_some()
        || object.downcast_ref::<Generator>().is_some()
    {
        return Ok(value);
    }
    match object.repr() {
        ObjectRepr::Seq | ObjectRepr::Iterable => Seq::collect(budget, object),
        ObjectRepr::Map if is_plain_map(&value) => Dict::collect(budget, object),
        _ => Ok(value),
    }
}

/// What a template stores in a namespace: as [`settle`], but a namespace or a loop cannot be stored, so that
/// neither cycles nor unbounded chains can be built.
pub(super) fn settle_attribute(budget: &Arc<Budget>, value: Value) -> Result<Value, Error> {
    let value = settle(budget, value)?;
    match value.as_object() {
        None => Ok(value),
        Some(object)
            if object.downcast_ref::<Seq>().is_some()
                || object.downcast_ref::<Dict>().is_some()
                || object.downcast_ref::<Generator>().is_some()
                || is_function(&value) =>
        {
            Ok(value)
        }
        Some(_) => Err(error("this object cannot be put into a namespace")),
    }
}

pub(super) fn too_deep() -> Error {
    error(format!("lists and dicts nest deeper than {MAX_DEPTH}"))
}

impl Seq {
    /// A list of `items`.
    pub(super) fn list(budget: &Arc<Budget>, items: Vec<Value>) -> Result<Value, Error> {
        Self::build(budget, SeqKind::List, items)
    }

    /// A tuple of `items`.
    pub(super) fn tuple(budget: &Arc<Budget>, items: Vec<Value>) -> Result<Value, Error> {
        Self::build(budget, SeqKind::Tuple, items)
    }

    /// What `groupby` gives for one group.
    pub(super) fn group(budget: &Arc<Budget>, key: Value, members: Vec<Value>) -> Result<Value, Error> {
        let members = Self::list(budget, members)?;
        Self::build(budget, SeqKind::Group, vec![key, members])
    }

    /// Whether it is a tuple.
    pub(super) fn is_tuple(&self) -> bool {
        matches!(self.kind, SeqKind::Tuple | SeqKind::Group)
    }

    /// Whether it is a view of a dict.
    pub(super) fn is_view(&self) -> bool {
        matches!(self.kind, SeqKind::Keys | SeqKind::Values | SeqKind::Items)
    }

    /// A sequence of any kind.
    pub(super) fn build(budget: &Arc<Budget>, kind: SeqKind, mut items: Vec<Value>) -> Result<Value, Error> {
        let mut depth = 0;
        for item in &mut items {
            if item.as_object().is_some() {
                let (value, below) = adopt(budget, std::mem::take(item))?;
                *item = value;
                depth = depth.max(below);
            }
        }
        if depth >= MAX_DEPTH {
            return Err(too_deep());
        }
        let header = Header::new(depth + 1, budget);
        Ok(Value::from_object(Self {
            kind,
            header,
            items: Mutex::new(Arc::new(items)),
        }))
    }

    fn collect(budget: &Arc<Budget>, object: &DynObject) -> Result<Value, Error> {
        let mut items = Vec::new();
        for item in object.try_iter().into_iter().flatten() {
            if !budget.spend(4) {
                break;
            }
            items.push(item);
        }
        budget.check()?;
        Self::list(budget, items)
    }

    /// The items as they are now; cheap.
    pub(super) fn items(&self) -> Arc<Vec<Value>> {
        locked(&self.items).clone()
    }

    /// Changes the items in place.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Value>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.header.check_open()?;
        let mut items = locked(&self.items);
        if Arc::strong_count(&items) > 1 {
            self.header.budget.spend(items.len() as u64);
            self.header.budget.check()?;
        }
        change(Arc::make_mut(&mut items))
    }

    /// Makes `value` fit to be added to this list.
    pub(super) fn admit(&self, value: Value) -> Result<Value, Error> {
        let (value, depth) = adopt(&self.header.budget, value)?;
        // Adding a list to itself seals it, so the change that follows fails.
        if depth >= MAX_DEPTH {
            return Err(too_deep());
        }
        self.header.deepen(depth + 1);
        Ok(value)
    }
}

impl Dict {
    /// A dict of `pairs`; a later value replaces an earlier one, which keeps its place.
    pub(super) fn build(
        budget: &Arc<Budget>,
        pairs: impl IntoIterator<Item = (Value, Value)>,
    ) -> Result<Value, Error> {
        let mut map = IndexMap::new();
        let mut depth = 0;
        for (key, value) in pairs {
            check_key(&key)?;
            let (key, _) = adopt(budget, key)?;
            let (value, below) = adopt(budget, value)?;
            depth = depth.max(below);
            map.insert(key, value);
        }
        if depth >= MAX_DEPTH {
            return Err(too_deep());
        }
        let header = Header::new(depth + 1, budget);
        Ok(Value::from_object(Self {
            header,
            map: Mutex::new(Arc::new(map)),
        }))
    }

    fn collect(budget: &Arc<Budget>, object: &DynObject) -> Result<Value, Error> {
        let pairs: Vec<_> = object.try_iter_pairs().into_iter().flatten().collect();
        Self::build(budget, pairs)
    }

    /// The entries as they are now; cheap.
    pub(super) fn entries(&self) -> Arc<IndexMap<Value, Value>> {
        locked(&self.map).clone()
    }

    /// The entry of `key`.
    pub(super) fn entry(&self, key: &Value) -> Option<Value> {
        check_key(key).ok()?;
        locked(&self.map).get(key).cloned()
    }

    /// Changes the entries in place.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut IndexMap<Value, Value>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.header.check_open()?;
        let mut map = locked(&self.map);
        if Arc::strong_count(&map) > 1 {
            self.header.budget.spend(map.len() as u64);
            self.header.budget.check()?;
        }
        change(Arc::make_mut(&mut map))
    }

    /// Makes `value` fit to be an entry of this dict.
    pub(super) fn admit(&self, value: Value) -> Result<Value, Error> {
        let (value, depth) = adopt(&self.header.budget, value)?;
        if depth >= MAX_DEPTH {
            return Err(too_deep());
        }
        self.header.deepen(depth + 1);
        Ok(value)
    }
}

/// Python's rule for keys: scalars, and here tuples of scalars.
pub(super) fn check_key(key: &Value) -> Result<(), Error> {
    let Some(object) = key.as_object() else {
        return Ok(());
    };
    match object.downcast_ref::<Seq>() {
        Some(seq) if seq.is_tuple() && seq.items().iter().all(|item| item.as_object().is_none()) => Ok(()),
        _ => Err(error(format!("unhashable type: '{}'", type_name(key)))),
    }
}

impl Generator {
    /// A generator that yields `items`, which come from containers and so are sealed already.
    pub(super) fn build(budget: &Arc<Budget>, items: Vec<Value>) -> Result<Value, Error> {
        let items = items
            .into_iter()
            .map(|item| adopt(budget, item).map(|(value, _)| value))
            .collect::<Result<_, _>>()?;
        Ok(Value::from_object(Self {
            items: Mutex::new(items),
        }))
    }

    /// The next item.
    pub(super) fn next(&self) -> Option<Value> {
        locked(&self.items).pop_front()
    }

    /// All items that are left.
    pub(super) fn drain(&self) -> Vec<Value> {
        std::mem::take(&mut *locked(&self.items)).into()
    }
}

fn bound(receiver: Value, name: &str) -> Value {
    Value::from_object(BoundMethod {
        receiver,
        name: name.to_owned(),
    })
}

/// Walks a list as it was when the walk began.
struct Walk {
    items: Arc<Vec<Value>>,
    at: usize,
}

impl Iterator for Walk {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        let item = self.items.get(self.at)?.clone();
        self.at += 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.items.len().saturating_sub(self.at);
        (left, Some(left))
    }
}

/// Walks a dict as it was when the walk began.
struct WalkPairs {
    map: Arc<IndexMap<Value, Value>>,
    at: usize,
}

impl Iterator for WalkPairs {
    type Item = (Value, Value);

    fn next(&mut self) -> Option<(Value, Value)> {
        let (key, value) = self.map.get_index(self.at)?;
        self.at += 1;
        Some((key.clone(), value.clone()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.map.len().saturating_sub(self.at);
        (left, Some(left))
    }
}

impl Object for Seq {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_usize() {
            Some(_) if self.is_view() => None,
            Some(index) => locked(&self.items).get(index).cloned(),
            None => self.get_value_by_str(key.as_str()?),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "grouper" if self.kind == SeqKind::Group => return self.get_value(&Value::from(0)),
            "list" if self.kind == SeqKind::Group => return self.get_value(&Value::from(1)),
            _ => {}
        }
        methods::is_seq_method(self, key).then(|| bound(Value::from_dyn_object(self.clone()), key))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Iter(Box::new(Walk {
            items: self.items(),
            at: 0,
        }))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(locked(&self.items).len())
    }

    fn call_method(
        self: &Arc<Self>,
        state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        methods::call_seq(state, self, method, args)
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Seq>()?;
        if self.is_tuple() != other.is_tuple() || self.is_view() != other.is_view() {
            return Some(self.kind.cmp(&other.kind));
        }
        let (a, b) = (self.items(), other.items());
        for (a, b) in a.iter().zip(b.iter()) {
            if !self.header.budget.spend(1) {
                return Some(Ordering::Less);
            }
            match a.cmp(b) {
                Ordering::Equal => {}
                unequal => return Some(unequal),
            }
        }
        Some(a.len().cmp(&b.len()))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_seq(f, self.kind, &self.items(), &self.header.budget)
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        // Jinja falls back to the attribute where there is no such item.
        self.entry(key).or_else(|| {
            let name = key.as_str()?;
            methods::is_dict_method(name).then(|| bound(Value::from_dyn_object(self.clone()), name))
        })
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if methods::is_dict_method(key) {
            return Some(bound(Value::from_dyn_object(self.clone()), key));
        }
        self.entry(&Value::from(key))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::KeyValueIter(Box::new(WalkPairs {
            map: self.entries(),
            at: 0,
        }))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(locked(&self.map).len())
    }

    fn call_method(
        self: &Arc<Self>,
        state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        methods::call_dict(state, self, method, args)
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Dict>()?;
        let (a, b) = (self.entries(), other.entries());
        if a.len() != b.len() {
            return Some(a.len().cmp(&b.len()));
        }
        for (key, value) in a.iter() {
            if !self.header.budget.spend(1) {
                return Some(Ordering::Less);
            }
            match b.get(key).map(|theirs| value.cmp(theirs)) {
                Some(Ordering::Equal) => {}
                Some(unequal) => return Some(unequal),
                None => return Some(Ordering::Greater),
            }
        }
        Some(Ordering::Equal)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_dict(f, &self.entries(), &self.header.budget)
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let own = self.clone();
        Enumerator::Iter(Box::new(Drain { generator: own }))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<generator object>")
    }
}

/// Takes a generator's items one by one; its size is known, as a `for` loop may ask for `loop.length`.
struct Drain {
    generator: Arc<Generator>,
}

impl Iterator for Drain {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.generator.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = locked(&self.generator.items).len();
        (left, Some(left))
    }
}

impl Object for BoundMethod {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        self.receiver.call_method(state, &self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {}>", self.name)
    }
}

macro_rules! debug_as_name {
    ($($type:ty => $name:literal),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($name)
            }
        }
    )*};
}

debug_as_name!(Seq => "<list>", Dict => "<dict>", Generator => "<generator object>", BoundMethod => "<method>");

/// The name of a value's type in Python, for error messages.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq if value.downcast_object_ref::<Seq>().is_some_and(Seq::is_tuple) => "tuple",
        ValueKind::Seq if value.downcast_object_ref::<Seq>().is_some_and(Seq::is_view) => "dict view",
        ValueKind::Seq => "list",
        ValueKind::Map => "dict",
        ValueKind::Iterable if value.downcast_object_ref::<Generator>().is_some() => "generator",
        ValueKind::Iterable => "list",
        _ => "object",
    }
}
