//! Expressions: names, attributes, items and calls. [`crate::operators`] has the operators.

use std::rc::Rc;
use std::sync::Arc;

use crate::args::Args;
use crate::ast::{Argument, Const, Expr, Postfix, Unary};
use crate::error::{Eval, fail};
use crate::render::{Loop, Rendering, Scope};
use crate::value::{Seq, SeqKind, Value};
use crate::{filters, functions, methods, operators, predicates};

/// An operation on what is not there.
pub(crate) fn undefined_error<T>(value: &Value) -> Eval<T> {
    match value {
        Value::Undefined(Some(name)) => fail(format!("'{name}' is undefined")),
        _ => fail("a value is undefined"),
    }
}

impl Rendering {
    pub(crate) fn eval(&self, expression: &Expr, scope: &Rc<Scope>) -> Eval<Value> {
        self.spend(1)?;
        match expression {
            Expr::Const(value) => Ok(match value {
                Const::None => Value::None,
                Const::Bool(truth) => Value::Bool(*truth),
                Const::Int(int) => Value::Int(*int),
                Const::Float(float) => Value::Float(*float),
                Const::Text(text) => Value::text(text.clone(), false),
            }),
            Expr::Name(name) => Ok(self.name(name, scope)),
            Expr::Postfix(value, operations) => self.deeper(|| {
                let value = self.eval(value, scope)?;
                self.postfix(value, operations, scope)
            }),
            _ => self.deeper(|| self.compound(expression, scope)),
        }
    }

    fn name(&self, name: &Arc<str>, scope: &Rc<Scope>) -> Value {
        scope
            .get(name)
            .or_else(|| functions::global(name))
            .unwrap_or_else(|| Value::Undefined(Some(name.clone())))
    }

    fn all(&self, expressions: &[Expr], scope: &Rc<Scope>) -> Eval<Vec<Value>> {
        expressions
            .iter()
            .map(|expression| self.eval(expression, scope))
            .collect()
    }

    fn compound(&self, expression: &Expr, scope: &Rc<Scope>) -> Eval<Value> {
        match expression {
            Expr::List(items) => Value::list(self.all(items, scope)?),
            Expr::Tuple(items) => Value::tuple(self.all(items, scope)?),
            Expr::Dict(pairs) => {
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(key, value)| Ok((self.eval(key, scope)?, self.eval(value, scope)?)))
                    .collect::<Eval<_>>()?;
                Value::dict(pairs)
            }
            Expr::Unary(operator, operand) => {
                let operand = self.eval(operand, scope)?;
                match operator {
                    Unary::Not => Ok(Value::Bool(!operand.is_true())),
                    Unary::Negative => operators::negative(&operand),
                    Unary::Positive => operators::positive(&operand),
                }
            }
            Expr::Arithmetic(first, rest) => {
                let mut value = self.eval(first, scope)?;
                for (operator, operand) in rest {
                    let operand = self.eval(operand, scope)?;
                    value = operators::arithmetic(self, *operator, &value, &operand)?;
                }
                Ok(value)
            }
            Expr::Concat(parts) => operators::concat(self, &self.all(parts, scope)?),
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first, scope)?;
                for (comparison, operand) in rest {
                    let right = self.eval(operand, scope)?;
                    if !operators::compare(self, *comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::And(operands) | Expr::Or(operands) => {
                let ends_with = matches!(expression, Expr::Or(_));
                let mut value = Value::None;
                for operand in operands {
                    value = self.eval(operand, scope)?;
                    if value.is_true() == ends_with {
                        break;
                    }
                }
                Ok(value)
            }
            Expr::If(parts) => {
                let (test, then, otherwise) = &**parts;
                match (self.eval(test, scope)?.is_true(), otherwise) {
                    (true, _) => self.eval(then, scope),
                    (false, Some(otherwise)) => self.eval(otherwise, scope),
                    (false, None) => Ok(Value::undefined()),
                }
            }
            Expr::Const(_) | Expr::Name(_) | Expr::Postfix(..) => self.eval(expression, scope),
        }
    }

    /// A value with what is done to it, one operation after the other.
    pub(crate) fn postfix(&self, mut value: Value, operations: &[Postfix], scope: &Rc<Scope>) -> Eval<Value> {
        let mut at = 0;
        while let Some(operation) = operations.get(at) {
            at += 1;
            self.spend(1)?;
            value = match operation {
                Postfix::Attribute(name) => match operations.get(at) {
                    // A method is called as it is found.
                    Some(Postfix::Call(arguments)) if methods::exists(&value, name) => {
                        at += 1;
                        let args = self.args(name.clone(), arguments, scope)?;
                        methods::call(self, &value, &args)?
                    }
                    _ => self.attribute(&value, name)?,
                },
                Postfix::Item(key) => {
                    let key = self.eval(key, scope)?;
                    self.item(&value, &key)?
                }
                Postfix::Slice(bounds) => {
                    let [start, stop, step] = &**bounds;
                    let bound = |bound: &Option<Expr>| match bound {
                        Some(bound) => self.eval(bound, scope),
                        None => Ok(Value::None),
                    };
                    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?);
                    operators::slice(self, &value, &start, &stop, &step)?
                }
                Postfix::Call(arguments) => {
                    let args = self.args("call", arguments, scope)?;
                    self.call(&value, args)?
                }
                Postfix::Filter(name, arguments) => {
                    let Some(filter) = filters::find(name) else {
                        return fail(format!("there is no filter '{name}'"));
                    };
                    let args = self.args(name.clone(), arguments, scope)?;
                    filter(self, &value, &args)?
                }
                Postfix::Test {
                    name,
                    arguments,
                    negated,
                } => {
                    let args = self.args(name.clone(), arguments, scope)?;
                    Value::Bool(predicates::holds(self, &value, &args)? != *negated)
                }
            };
        }
        Ok(value)
    }

    fn args(&self, name: impl Into<Arc<str>>, arguments: &[Argument], scope: &Rc<Scope>) -> Eval<Args> {
        let mut args = Args::new(name);
        for argument in arguments {
            match argument {
                Argument::Positional(value) => args.positional.push(self.eval(value, scope)?),
                Argument::Keyword(name, value) => args.add_keyword(name.clone(), self.eval(value, scope)?)?,
                Argument::Spread(value) => {
                    let value = self.eval(value, scope)?;
                    args.positional.extend(self.items(&value)?.iter().cloned());
                }
                Argument::SpreadKeywords(value) => {
                    let value = self.eval(value, scope)?;
                    let Some(dict) = value.as_dict() else {
                        return fail(format!("'**' needs a dict, not '{}'", value.type_name()));
                    };
                    for (key, value) in dict.entries().iter() {
                        let Value::Str(name) = key.value() else {
                            return fail("keywords must be strings");
                        };
                        args.add_keyword(name.text.clone(), value.clone())?;
                    }
                }
            }
        }
        Ok(args)
    }

    /// A call that is given a block as its `caller`.
    pub(crate) fn call_with(&self, call: &Expr, caller: Value, scope: &Rc<Scope>) -> Eval<Value> {
        let Expr::Postfix(value, operations) = call else {
            return fail("expected a call");
        };
        let Some((Postfix::Call(arguments), before)) = operations.split_last() else {
            return fail("expected a call");
        };
        let value = self.eval(value, scope)?;
        let value = self.postfix(value, before, scope)?;
        let mut args = self.args("call", arguments, scope)?;
        args.add_keyword("caller".into(), caller)?;
        self.call(&value, args)
    }

    /// Calls a value.
    pub(crate) fn call(&self, value: &Value, args: Args) -> Eval<Value> {
        match value {
            Value::Function(function) => functions::call(self, *function, args),
            Value::Macro(called) => self.call_macro(called, args.positional, args.keywords),
            Value::Method(method) => methods::call(self, &method.0, &args.named(method.1.clone())),
            Value::Loop(state) => match args.positional.as_slice() {
                [iterable] => self.deeper(|| self.recurse(state, iterable)),
                _ => fail("a loop is called with one argument"),
            },
            Value::Joiner(joiner) => Ok(if joiner.used.replace(true) {
                joiner.separator.clone()
            } else {
                Value::from("")
            }),
            Value::Undefined(_) => undefined_error(value),
            _ => fail(format!("'{}' object is not callable", value.type_name())),
        }
    }

    /// `value.name`: the attribute, or else the item.
    pub(crate) fn attribute(&self, value: &Value, name: &Arc<str>) -> Eval<Value> {
        if methods::exists(value, name) {
            return Ok(Value::Method(Rc::new((value.clone(), name.clone()))));
        }
        let found = match value {
            Value::Undefined(_) => return undefined_error(value),
            Value::Dict(dict) => dict.entry(&Value::text(name.clone(), false))?,
            Value::Namespace(namespace) => namespace.borrow().get(name).cloned(),
            Value::Seq(seq) if seq.kind == SeqKind::Group => group_field(seq, name),
            Value::Loop(state) => self.loop_field(state, name)?,
            Value::Cycler(cycler) if **name == *"current" => cycler.items.get(cycler.at.get()).cloned(),
            Value::Macro(called) if **name == *"name" => {
                Some(Value::text(called.definition.name.clone(), false))
            }
            _ => None,
        };
        Ok(found.unwrap_or_else(|| Value::Undefined(Some(name.clone()))))
    }

    /// `value[key]`: the item, or else the attribute.
    pub(crate) fn item(&self, value: &Value, key: &Value) -> Eval<Value> {
        let found = match (value, key) {
            (Value::Undefined(_), _) => return undefined_error(value),
            (Value::Dict(dict), key) => {
                self.pay(key.as_str().map_or(0, str::len))?;
                // A key that cannot be one is not there.
                dict.entry(key).ok().flatten()
            }
            (Value::Seq(seq), key) if !seq.is_view() => key.as_int().and_then(|index| {
                let items = seq.items();
                operators::index(index, items.len()).and_then(|at| items.get(at).cloned())
            }),
            (Value::Str(text), key) => match key.as_int() {
                Some(index) => {
                    // Walking to a character takes time in the string's length.
                    self.pay(text.text.len())?;
                    let len = text.text.chars().count();
                    let at = operators::index(index, len);
                    at.and_then(|at| text.text.chars().nth(at))
                        .map(|c| Value::text(&*c.to_string(), text.safe))
                }
                None => None,
            },
            _ => None,
        };
        match (found, key) {
            (Some(found), _) => Ok(found),
            (None, Value::Str(name)) => match value {
                Value::Dict(_) if !methods::exists(value, &name.text) => {
                    Ok(Value::Undefined(Some(name.text.clone())))
                }
                _ => self.attribute(value, &name.text),
            },
            (None, _) => Ok(Value::undefined()),
        }
    }

    fn loop_field(&self, state: &Loop, name: &str) -> Eval<Option<Value>> {
        let index0 = state.index0.get();
        Ok(Some(match name {
            "index" => Value::from(index0 + 1),
            "index0" => Value::from(index0),
            "first" => Value::Bool(index0 == 0),
            "last" => Value::Bool(self.peek(state)?.is_none()),
            "length" => Value::from(index0 + 1 + self.remaining(state)?),
            "revindex" => Value::from(1 + self.remaining(state)?),
            "revindex0" => Value::from(self.remaining(state)?),
            "depth" => Value::from(state.depth0 + 1),
            "depth0" => Value::from(state.depth0),
            "previtem" => match &*state.previous.borrow() {
                Some(item) => item.clone(),
                None => Value::missing("previtem"),
            },
            "nextitem" => self.peek(state)?.unwrap_or_else(|| Value::missing("nextitem")),
            _ => return Ok(None),
        }))
    }

    /// The items that a `for` loop over `value` would see.
    pub(crate) fn items(&self, value: &Value) -> Eval<Rc<Vec<Value>>> {
        let items = match value {
            Value::Undefined(_) => Rc::default(),
            Value::Str(text) => {
                self.pay(text.text.len().saturating_mul(32))?;
                Rc::new(text.text.chars().map(Value::from).collect())
            }
            Value::Seq(seq) => seq.items(),
            Value::Dict(dict) => Rc::new(dict.entries().keys().map(|key| key.value().clone()).collect()),
            Value::Generator(items) => Rc::new(items.take().into()),
            _ => return fail(format!("'{}' object is not iterable", value.type_name())),
        };
        self.spend(items.len() as u64 / 2)?;
        Ok(items)
    }
}

fn group_field(seq: &Seq, name: &str) -> Option<Value> {
    match name {
        "grouper" => seq.items().first().cloned(),
        "list" => seq.items().get(1).cloned(),
        _ => None,
    }
}
