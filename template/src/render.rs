//! Statements: what a template prints. [`crate::eval`] has the expressions.
//!
//! A rendering has an amount of work: a unit per node that is evaluated, per element that is walked and per 64 bytes
//! that are made. When it is used up the rendering ends. The depth of what is under way is bounded as well, for a
//! template can call itself; a browser's worker has a stack of 1 MiB.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use crate::ast::{Block, Expr, ForLoop, Kind, MacroDef, Statement, Target};
use crate::error::{Eval, Fail, fail};
use crate::repr::write_str;
use crate::strings::escape;
use crate::time::CivilTime;
use crate::value::{Text, Value};

/// The most a template may print.
pub const MAX_OUTPUT: usize = 16 * 1024 * 1024;

/// Statements and expressions within each other, macros' included.
const MAX_DEPTH: u32 = 400;

/// What a macro costs besides its scope's variables, for its scope is kept to the end.
const MACRO_WORK: u64 = 200;

/// One rendering.
pub(crate) struct Rendering {
    left: Cell<u64>,
    drawn: Cell<u64>,
    depth: Cell<u32>,
    pub(crate) line: Cell<u32>,
    pub(crate) now: CivilTime,
    /// What is printed, and what the blocks print that are captured.
    out: RefCell<Vec<String>>,
    escapes: Cell<bool>,
    /// The scopes that macros know. Macros and scopes hold each other; emptied at the end, they hold nothing.
    captured: RefCell<Vec<Rc<Scope>>>,
}

impl Drop for Rendering {
    fn drop(&mut self) {
        for scope in self.captured.take().iter() {
            scope.variables.take();
        }
    }
}

/// Variables, and those around them.
pub(crate) struct Scope {
    variables: RefCell<HashMap<Arc<str>, Value>>,
    parent: Option<Rc<Scope>>,
    captured: Cell<bool>,
}

impl Scope {
    pub(crate) fn new(parent: Option<&Rc<Scope>>) -> Rc<Self> {
        Rc::new(Self {
            variables: RefCell::default(),
            parent: parent.cloned(),
            captured: Cell::new(false),
        })
    }

    pub(crate) fn set(&self, name: Arc<str>, value: Value) {
        self.variables.borrow_mut().insert(name, value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(at) = scope {
            if let Some(value) = at.variables.borrow().get(name) {
                return Some(value.clone());
            }
            scope = at.parent.as_deref();
        }
        None
    }
}

/// How a block ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Next,
    Break,
    Continue,
}

/// A macro, or the block of a `call`, with the variables that it sees.
pub(crate) struct Macro {
    pub(crate) definition: Arc<MacroDef>,
    scope: Rc<Scope>,
}

/// The state of a `for` loop, which templates see as `loop`.
pub(crate) struct Loop {
    definition: Arc<ForLoop>,
    scope: Rc<Scope>,
    /// What was not looked at yet.
    items: RefCell<VecDeque<Value>>,
    /// What was looked at ahead of its turn, and passed the loop's test.
    ahead: RefCell<VecDeque<Value>>,
    pub(crate) depth0: usize,
    pub(crate) index0: Cell<usize>,
    pub(crate) previous: RefCell<Option<Value>>,
    pub(crate) item: RefCell<Option<Value>>,
    pub(crate) changed: RefCell<Option<Vec<Value>>>,
}

impl Rendering {
    pub(crate) fn new(work: u64, now: CivilTime) -> Self {
        Self {
            left: Cell::new(work),
            drawn: Cell::new(0),
            depth: Cell::new(0),
            line: Cell::new(1),
            now,
            out: RefCell::new(vec![String::new()]),
            escapes: Cell::new(false),
            captured: RefCell::default(),
        }
    }

    /// What was printed.
    pub(crate) fn into_output(self) -> String {
        self.out.borrow_mut().drain(..).next().unwrap_or_default()
    }

    /// Pays for `units` of work.
    pub(crate) fn spend(&self, units: u64) -> Eval<()> {
        match self.left.get().checked_sub(units) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(Fail::OutOfWork)
            }
        }
    }

    /// Pays for `bytes` of a string that is about to be made or read.
    pub(crate) fn pay(&self, bytes: usize) -> Eval<()> {
        self.spend(bytes as u64 / 64)
    }

    /// Whether what is printed is escaped for HTML.
    pub(crate) fn escapes(&self) -> bool {
        self.escapes.get()
    }

    /// The next number of a fixed random sequence (Steele, Lea, Flood: SplitMix64, with the seed 0).
    pub(crate) fn draw(&self) -> u64 {
        self.drawn
            .set(self.drawn.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.drawn.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Goes one level deeper for `what`.
    pub(crate) fn deeper<T>(&self, what: impl FnOnce() -> Eval<T>) -> Eval<T> {
        if self.depth.get() >= MAX_DEPTH {
            return fail("the template calls itself too deep");
        }
        self.depth.set(self.depth.get() + 1);
        let result = what();
        self.depth.set(self.depth.get() - 1);
        result
    }

    fn write(&self, text: &str) -> Eval<()> {
        let mut out = self.out.borrow_mut();
        let bytes: usize = out.iter().map(String::len).sum();
        if bytes + text.len() > MAX_OUTPUT {
            return Err(Fail::OutputTooLong);
        }
        if let Some(out) = out.last_mut() {
            out.push_str(text);
        }
        Ok(())
    }

    /// What a block prints.
    fn capture(&self, block: &Block, scope: &Rc<Scope>) -> Eval<(String, Flow)> {
        self.out.borrow_mut().push(String::new());
        let flow = self.block(block, scope);
        let text = self.out.borrow_mut().pop().unwrap_or_default();
        self.pay(text.len())?;
        Ok((text, flow?))
    }

    fn print(&self, value: &Value) -> Eval<()> {
        match value {
            Value::Str(Text { text, safe }) if *safe || !self.escapes.get() => self.write(text),
            value => {
                let mut text = String::new();
                write_str(self, &mut text, value)?;
                self.write(&if self.escapes.get() { escape(&text) } else { text })
            }
        }
    }

    /// Runs statements one after the other.
    pub(crate) fn block(&self, block: &Block, scope: &Rc<Scope>) -> Eval<Flow> {
        self.deeper(|| {
            for statement in block {
                self.line.set(statement.line);
                self.spend(1)?;
                let flow = self.statement(statement, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            Ok(Flow::Next)
        })
    }

    fn statement(&self, statement: &Statement, scope: &Rc<Scope>) -> Eval<Flow> {
        match &statement.kind {
            Kind::Text(text) => {
                self.pay(text.len())?;
                self.write(text)?;
            }
            Kind::Print(expression) => {
                let value = self.eval(expression, scope)?;
                self.print(&value)?;
            }
            Kind::If { branches, otherwise } => {
                for (test, block) in branches {
                    if self.eval(test, scope)?.is_true() {
                        return self.block(block, scope);
                    }
                }
                return self.block(otherwise, scope);
            }
            Kind::For(definition) => return self.for_loop(definition, scope),
            Kind::Set(target, expression) => {
                let value = self.eval(expression, scope)?;
                self.assign(target, value, scope)?;
            }
            Kind::Capture(target, filters, block) => {
                let (text, flow) = self.capture(block, &Scope::new(Some(scope)))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.postfix(Value::text(text, self.escapes.get()), filters, scope)?;
                self.assign(target, value, scope)?;
            }
            Kind::Filter(filters, block) => {
                let (text, flow) = self.capture(block, &Scope::new(Some(scope)))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.postfix(Value::text(text, self.escapes.get()), filters, scope)?;
                self.print(&value)?;
            }
            Kind::With(values, block) => {
                let inner = Scope::new(Some(scope));
                for (target, expression) in values {
                    let value = self.eval(expression, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.block(block, &inner);
            }
            Kind::Macro(definition) => {
                let value = self.new_macro(definition, scope)?;
                scope.set(definition.name.clone(), value);
            }
            Kind::Call(caller, call) => {
                let caller = self.new_macro(caller, scope)?;
                let value = self.call_with(call, caller, scope)?;
                self.print(&value)?;
            }
            Kind::Scope(block) => return self.block(block, &Scope::new(Some(scope))),
            Kind::Autoescape(on, block) => {
                let outer = self.escapes.get();
                self.escapes.set(self.eval(on, scope)?.is_true());
                let flow = self.block(block, &Scope::new(Some(scope)));
                self.escapes.set(outer);
                return flow;
            }
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Eval<()> {
        match target {
            Target::Name(name) => scope.set(name.clone(), value),
            Target::Attribute(owner, attribute) => match scope.get(owner) {
                Some(Value::Namespace(namespace)) => {
                    namespace
                        .borrow_mut()
                        .insert(attribute.clone(), value.storable()?);
                }
                _ => return fail("cannot assign an attribute of what is not a namespace"),
            },
            Target::Tuple(targets) => {
                let items = self.items(&value)?;
                if items.len() != targets.len() {
                    return fail(format!(
                        "expected {} values to assign, found {}",
                        targets.len(),
                        items.len()
                    ));
                }
                for (target, item) in targets.iter().zip(items.iter()) {
                    self.assign(target, item.clone(), scope)?;
                }
            }
        }
        Ok(())
    }

    // --------------------------------------------------------------------------------------------- loops

    fn for_loop(&self, definition: &Arc<ForLoop>, scope: &Rc<Scope>) -> Eval<Flow> {
        let iterable = self.eval(&definition.iterable, scope)?;
        self.walk(definition, &iterable, scope, 0)
    }

    /// `loop(iterable)` in a recursive loop: what the loop prints over it.
    pub(crate) fn recurse(&self, of: &Loop, iterable: &Value) -> Eval<Value> {
        if !of.definition.recursive {
            return fail("the loop is not recursive, it cannot be called");
        }
        self.out.borrow_mut().push(String::new());
        let line = self.line.get();
        let flow = self.walk(&of.definition, iterable, &of.scope, of.depth0 + 1);
        self.line.set(line);
        let text = self.out.borrow_mut().pop().unwrap_or_default();
        self.pay(text.len())?;
        flow?;
        Ok(Value::text(text, self.escapes.get()))
    }

    fn walk(
        &self,
        definition: &Arc<ForLoop>,
        iterable: &Value,
        scope: &Rc<Scope>,
        depth0: usize,
    ) -> Eval<Flow> {
        let items = self.items(iterable)?;
        let state = Rc::new(Loop {
            definition: definition.clone(),
            scope: scope.clone(),
            items: RefCell::new(items.iter().cloned().collect()),
            ahead: RefCell::default(),
            depth0,
            index0: Cell::new(0),
            previous: RefCell::new(None),
            item: RefCell::new(None),
            changed: RefCell::new(None),
        });
        let mut index0 = 0;
        // As in Jinja: where no iteration came to its end, `else` follows, also behind `break`.
        let mut completed = false;
        while let Some(item) = self.next_item(&state)? {
            state.index0.set(index0);
            index0 += 1;
            let before = state.item.replace(Some(item.clone()));
            state.previous.replace(before);
            let inner = Scope::new(Some(scope));
            self.assign(&definition.target, item, &inner)?;
            inner.set("loop".into(), Value::Loop(state.clone()));
            match self.block(&definition.body, &inner)? {
                Flow::Next => completed = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        if completed {
            return Ok(Flow::Next);
        }
        self.block(&definition.otherwise, &Scope::new(Some(scope)))
    }

    fn next_item(&self, state: &Loop) -> Eval<Option<Value>> {
        self.look_ahead(state, 1)?;
        Ok(state.ahead.borrow_mut().pop_front())
    }

    /// The next item of a loop, which stays the next.
    pub(crate) fn peek(&self, state: &Loop) -> Eval<Option<Value>> {
        self.look_ahead(state, 1)?;
        Ok(state.ahead.borrow().front().cloned())
    }

    /// How many items follow the current one.
    pub(crate) fn remaining(&self, state: &Loop) -> Eval<usize> {
        self.look_ahead(state, usize::MAX)?;
        Ok(state.ahead.borrow().len())
    }

    /// Looks at items until `wanted` that pass the loop's test lie ready, or none is left.
    fn look_ahead(&self, state: &Loop, wanted: usize) -> Eval<()> {
        while state.ahead.borrow().len() < wanted {
            let Some(item) = state.items.borrow_mut().pop_front() else {
                break;
            };
            self.spend(1)?;
            if let Some(test) = &state.definition.test {
                let inner = Scope::new(Some(&state.scope));
                self.assign(&state.definition.target, item.clone(), &inner)?;
                if !self.eval(test, &inner)?.is_true() {
                    continue;
                }
            }
            state.ahead.borrow_mut().push_back(item);
        }
        Ok(())
    }

    // -------------------------------------------------------------------------------------------- macros

    fn new_macro(&self, definition: &Arc<MacroDef>, scope: &Rc<Scope>) -> Eval<Value> {
        self.spend(MACRO_WORK)?;
        if !scope.captured.replace(true) {
            self.captured.borrow_mut().push(scope.clone());
        }
        Ok(Value::Macro(Rc::new(Macro {
            definition: definition.clone(),
            scope: scope.clone(),
        })))
    }

    /// What a macro prints, its arguments bound as Jinja binds them.
    pub(crate) fn call_macro(
        &self,
        called: &Macro,
        mut positional: Vec<Value>,
        mut keywords: Vec<(Arc<str>, Value)>,
    ) -> Eval<Value> {
        let definition = &called.definition;
        let name = &definition.name;
        let inner = Scope::new(Some(&called.scope));
        let extra = positional.split_off(positional.len().min(definition.parameters.len()));
        if !extra.is_empty() && !definition.varargs {
            let most = definition.parameters.len();
            return fail(format!("macro '{name}' takes not more than {most} arguments"));
        }
        let mut given = positional.into_iter();
        for (parameter, default) in &definition.parameters {
            let by_name = keywords.iter().position(|(keyword, _)| keyword == parameter);
            let value = match (given.next(), by_name.map(|at| keywords.remove(at))) {
                (Some(_), Some(_)) => {
                    return fail(format!(
                        "macro '{name}' got two values for argument '{parameter}'"
                    ));
                }
                (Some(value), None) | (None, Some((_, value))) => value,
                (None, None) => self.default_of(default.as_ref(), parameter, &inner)?,
            };
            inner.set(parameter.clone(), value);
        }
        if definition.caller {
            let at = keywords.iter().position(|(keyword, _)| **keyword == *"caller");
            let caller = at.map_or_else(|| Value::missing("caller"), |at| keywords.remove(at).1);
            inner.set("caller".into(), caller);
        }
        if definition.kwargs {
            let pairs = keywords
                .drain(..)
                .map(|(key, value)| (Value::text(key, false), value));
            inner.set("kwargs".into(), Value::dict(pairs)?);
        }
        if let Some((keyword, _)) = keywords.first() {
            return fail(format!("macro '{name}' takes no keyword argument '{keyword}'"));
        }
        if definition.varargs {
            inner.set("varargs".into(), Value::tuple(extra)?);
        }
        let line = self.line.get();
        let (text, _) = self.capture(&definition.body, &inner)?;
        self.line.set(line);
        Ok(Value::text(text, self.escapes.get()))
    }

    fn default_of(&self, default: Option<&Expr>, parameter: &str, scope: &Rc<Scope>) -> Eval<Value> {
        match default {
            Some(default) => self.eval(default, scope),
            None => Ok(Value::missing(parameter)),
        }
    }
}
