//! Python's values, as a template sees them.
//!
//! What keeps containers safe, always:
//! - an element of a container is *sealed* (immutable from then on), so no cycle can be built and the nesting depth of
//!   a container is known when it is made; past [`MAX_DEPTH`] it is an error, hence dropping, comparing and printing
//!   recurse a bounded number of times;
//! - what walks a container spends the rendering's work, because elements may be shared and a small graph can stand for
//!   an enormous tree.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::error::{Eval, fail};
use crate::functions::Function;
use crate::render::{Loop, Macro};

/// Containers nest at most this deep (JSON parsers commonly stop at 128).
pub(crate) const MAX_DEPTH: u32 = 192;

/// A value; cheap to clone.
#[derive(Clone)]
pub(crate) enum Value {
    /// What is not there, and by what name it was looked for.
    Undefined(Option<Arc<str>>),
    None,
    Bool(bool),
    /// Python's integers have no bound; past 127 bits arithmetic is an error.
    Int(i128),
    Float(f64),
    Str(Text),
    Seq(Rc<Seq>),
    Dict(Rc<Dict>),
    /// What `map`, `select` and their like return: it can be walked once and has no length.
    Generator(Rc<RefCell<VecDeque<Value>>>),
    /// A method looked up without being called.
    Method(Rc<(Value, Arc<str>)>),
    Function(Function),
    Macro(Rc<Macro>),
    Namespace(Rc<RefCell<IndexMap<Arc<str>, Value>>>),
    Loop(Rc<Loop>),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
}

/// A string; `safe` ones are markupsafe's `Markup`.
#[derive(Clone)]
pub(crate) struct Text {
    pub(crate) text: Arc<str>,
    pub(crate) safe: bool,
}

/// Which of Python's sequences a [`Seq`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeqKind {
    List,
    Tuple,
    /// What `groupby` gives for one group: a tuple whose items also have the names `grouper` and `list`.
    Group,
    /// Views of a dict, as it was: they have a length and can be walked, but not indexed.
    Keys,
    Values,
    Items,
}

/// Whether another container holds this one, and how deep it nests.
struct Header {
    sealed: Cell<bool>,
    depth: Cell<u32>,
}

impl Header {
    fn new(below: u32) -> Eval<Self> {
        if below >= MAX_DEPTH {
            return too_deep();
        }
        Ok(Self {
            sealed: Cell::new(false),
            depth: Cell::new(below + 1),
        })
    }

    fn seal(&self) -> u32 {
        self.sealed.set(true);
        self.depth.get()
    }

    fn check_open(&self) -> Eval<()> {
        if self.sealed.get() {
            return fail("cannot change a list or dict that another one holds");
        }
        Ok(())
    }

    /// Takes in an element; adding a container to itself seals it, so the change that follows fails.
    fn admit(&self, value: Value) -> Eval<Value> {
        let (value, below) = adopt(value)?;
        if below >= MAX_DEPTH {
            return too_deep();
        }
        self.depth.set(self.depth.get().max(below + 1));
        Ok(value)
    }
}

/// Python's `list`, `tuple`, or view of a dict.
pub(crate) struct Seq {
    pub(crate) kind: SeqKind,
    header: Header,
    items: RefCell<Rc<Vec<Value>>>,
}

/// Python's `dict`: insertion order, keys of any hashable type.
pub(crate) struct Dict {
    header: Header,
    map: RefCell<Rc<IndexMap<Key, Value>>>,
}

/// Jinja's `cycler`.
pub(crate) struct Cycler {
    pub(crate) items: Vec<Value>,
    pub(crate) at: Cell<usize>,
}

/// Jinja's `joiner`: nothing the first time it is called, then its separator.
pub(crate) struct Joiner {
    pub(crate) separator: Value,
    pub(crate) used: Cell<bool>,
}

pub(crate) fn too_deep<T>() -> Eval<T> {
    fail(format!("lists and dicts nest deeper than {MAX_DEPTH}"))
}

/// Makes `value` fit to be an element: it is sealed, and what could build cycles is refused. Returns it with its depth.
fn adopt(value: Value) -> Eval<(Value, u32)> {
    match &value {
        Value::Seq(seq) => {
            let depth = seq.header.seal();
            Ok((value, depth))
        }
        Value::Dict(dict) => {
            let depth = dict.header.seal();
            Ok((value, depth))
        }
        Value::Generator(items) => adopt(Value::list(items.take().into())?),
        Value::Method(_) | Value::Namespace(_) | Value::Loop(_) | Value::Cycler(_) | Value::Joiner(_) => {
            fail("this object cannot be put into a list or dict")
        }
        _ => Ok((value, 0)),
    }
}

impl Value {
    pub(crate) fn list(items: Vec<Value>) -> Eval<Value> {
        Self::seq(SeqKind::List, items)
    }

    pub(crate) fn tuple(items: Vec<Value>) -> Eval<Value> {
        Self::seq(SeqKind::Tuple, items)
    }

    pub(crate) fn seq(kind: SeqKind, mut items: Vec<Value>) -> Eval<Value> {
        let mut depth = 0;
        for item in &mut items {
            if !item.is_scalar() {
                let (value, below) = adopt(std::mem::replace(item, Value::None))?;
                *item = value;
                depth = depth.max(below);
            }
        }
        Ok(Value::Seq(Rc::new(Seq {
            kind,
            header: Header::new(depth)?,
            items: RefCell::new(Rc::new(items)),
        })))
    }

    /// A dict of `pairs`; a later value replaces an earlier one, which keeps its place.
    pub(crate) fn dict(pairs: impl IntoIterator<Item = (Value, Value)>) -> Eval<Value> {
        let mut map = IndexMap::new();
        let mut depth = 0;
        for (key, value) in pairs {
            let key = Key::new(key)?;
            let (value, below) = adopt(value)?;
            depth = depth.max(below);
            map.insert(key, value);
        }
        Ok(Value::Dict(Rc::new(Dict {
            header: Header::new(depth)?,
            map: RefCell::new(Rc::new(map)),
        })))
    }

    pub(crate) fn generator(items: Vec<Value>) -> Value {
        Value::Generator(Rc::new(RefCell::new(items.into())))
    }

    pub(crate) fn undefined() -> Value {
        Value::Undefined(None)
    }

    pub(crate) fn missing(name: &str) -> Value {
        Value::Undefined(Some(name.into()))
    }

    pub(crate) fn safe(text: impl Into<Arc<str>>) -> Value {
        Value::Str(Text {
            text: text.into(),
            safe: true,
        })
    }

    /// A string, marked or not.
    pub(crate) fn text(text: impl Into<Arc<str>>, safe: bool) -> Value {
        Value::Str(Text {
            text: text.into(),
            safe,
        })
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(&text.text),
            _ => None,
        }
    }

    pub(crate) fn is_safe(&self) -> bool {
        matches!(self, Value::Str(Text { safe: true, .. }))
    }

    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Value::None)
    }

    fn is_scalar(&self) -> bool {
        matches!(
            self,
            Value::Undefined(_)
                | Value::None
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Float(_)
                | Value::Str(_)
                | Value::Function(_)
                | Value::Macro(_)
        )
    }

    /// An integer, or a bool as one.
    pub(crate) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(int) => Some(*int),
            Value::Bool(truth) => Some((*truth).into()),
            _ => None,
        }
    }

    /// Any number as a float.
    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(float) => Some(*float),
            _ => self.as_int().map(|int| int as f64),
        }
    }

    /// A list, tuple or view.
    pub(crate) fn as_seq(&self) -> Option<&Seq> {
        match self {
            Value::Seq(seq) => Some(seq),
            _ => None,
        }
    }

    pub(crate) fn as_tuple(&self) -> Option<&Seq> {
        self.as_seq().filter(|seq| seq.is_tuple())
    }

    pub(crate) fn as_dict(&self) -> Option<&Dict> {
        match self {
            Value::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    /// Python's `bool()`.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(truth) => *truth,
            Value::Int(int) => *int != 0,
            Value::Float(float) => *float != 0.0,
            Value::Str(text) => !text.text.is_empty(),
            Value::Seq(seq) => !seq.items().is_empty(),
            Value::Dict(dict) => !dict.entries().is_empty(),
            _ => true,
        }
    }

    /// The name of a value's type in Python, for error messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Seq(seq) => match seq.kind {
                SeqKind::List => "list",
                SeqKind::Tuple | SeqKind::Group => "tuple",
                SeqKind::Keys => "dict_keys",
                SeqKind::Values => "dict_values",
                SeqKind::Items => "dict_items",
            },
            Value::Dict(_) => "dict",
            Value::Generator(_) => "generator",
            Value::Method(_) => "builtin_function_or_method",
            Value::Function(_) => "function",
            Value::Macro(_) => "Macro",
            Value::Namespace(_) => "Namespace",
            Value::Loop(_) => "LoopContext",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
        }
    }

    /// What a template stores in a namespace, a cycler or a joiner: neither cycles nor unbounded chains can be built.
    pub(crate) fn storable(self) -> Eval<Value> {
        match self {
            Value::Method(_) | Value::Namespace(_) | Value::Loop(_) | Value::Cycler(_) | Value::Joiner(_) => {
                fail("this object cannot be put into a namespace")
            }
            value => Ok(value),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::text(text, false)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::text(text, false)
    }
}

impl From<char> for Value {
    fn from(c: char) -> Self {
        Value::from(&*c.encode_utf8(&mut [0; 4]))
    }
}

impl From<usize> for Value {
    fn from(n: usize) -> Self {
        Value::Int(n as i128)
    }
}

impl Seq {
    pub(crate) fn is_tuple(&self) -> bool {
        matches!(self.kind, SeqKind::Tuple | SeqKind::Group)
    }

    pub(crate) fn is_view(&self) -> bool {
        matches!(self.kind, SeqKind::Keys | SeqKind::Values | SeqKind::Items)
    }

    /// The items as they are now; cheap.
    pub(crate) fn items(&self) -> Rc<Vec<Value>> {
        self.items.borrow().clone()
    }

    /// Changes the items in place; `items` that were taken before stay as they are.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Vec<Value>) -> Eval<T>) -> Eval<T> {
        self.header.check_open()?;
        change(Rc::make_mut(&mut self.items.borrow_mut()))
    }

    /// Makes `value` fit to be added to this list.
    pub(crate) fn admit(&self, value: Value) -> Eval<Value> {
        self.header.admit(value)
    }
}

impl Dict {
    /// The entries as they are now; cheap.
    pub(crate) fn entries(&self) -> Rc<IndexMap<Key, Value>> {
        self.map.borrow().clone()
    }

    /// The entry of a key; an unhashable key is an error.
    pub(crate) fn entry(&self, key: &Value) -> Eval<Option<Value>> {
        let key = Key::new(key.clone())?;
        Ok(self.map.borrow().get(&key).cloned())
    }

    /// Changes the entries in place; `entries` that were taken before stay as they are.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut IndexMap<Key, Value>) -> Eval<T>) -> Eval<T> {
        self.header.check_open()?;
        change(Rc::make_mut(&mut self.map.borrow_mut()))
    }

    /// Makes `value` fit to be an entry of this dict.
    pub(crate) fn admit(&self, value: Value) -> Eval<Value> {
        self.header.admit(value)
    }
}

/// A value that can be a key: a scalar, or a tuple of such. Numbers that are equal are one key, whatever their type.
#[derive(Clone)]
pub(crate) struct Key(Value);

impl Key {
    pub(crate) fn new(value: Value) -> Eval<Self> {
        match &value {
            Value::Dict(_) => fail("unhashable type: 'dict'"),
            Value::Seq(seq) if seq.is_tuple() => {
                for item in seq.items().iter() {
                    Key::new(item.clone())?;
                }
                Ok(Self(value))
            }
            Value::Seq(_) => fail(format!("unhashable type: '{}'", value.type_name())),
            _ => Ok(Self(value)),
        }
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }
}

/// A number as all that equal it hash: the integer where it is one.
fn number(value: &Value) -> Option<Result<i128, u64>> {
    match value {
        Value::Float(float) if float.trunc() == *float && float.abs() < 1.7e38 => Some(Ok(*float as i128)),
        Value::Float(float) => Some(Err(float.to_bits())),
        _ => value.as_int().map(Ok),
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Str(a), Value::Str(b)) => a.text == b.text,
            (Value::Seq(a), Value::Seq(b)) => {
                let (a, b) = (a.items(), b.items());
                a.len() == b.len()
                    && a.iter()
                        .zip(b.iter())
                        .all(|(a, b)| Key(a.clone()) == Key(b.clone()))
            }
            (a, b) => match (number(a), number(b)) {
                (Some(a), Some(b)) => a == b,
                (None, None) => same(a, b),
                _ => false,
            },
        }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Value::Str(text) => text.text.hash(state),
            Value::Seq(seq) => seq.items().iter().for_each(|item| Key(item.clone()).hash(state)),
            value => number(value).hash(state),
        }
    }
}

/// Whether two values are one object; scalars are where they are equal and of one type.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a.text == b.text && a.safe == b.safe,
        (Value::Seq(a), Value::Seq(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Generator(a), Value::Generator(b)) => Rc::ptr_eq(a, b),
        (Value::Function(a), Value::Function(b)) => a.name() == b.name(),
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::Cycler(a), Value::Cycler(b)) => Rc::ptr_eq(a, b),
        (Value::Joiner(a), Value::Joiner(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}
