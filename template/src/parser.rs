//! Tokens in, a tree out: Jinja's grammar with the statements that chat templates may use.
//!
//! A statement inside of another and an expression inside of another cost stack, here and when they are evaluated, so
//! their depth is bounded.

use std::sync::Arc;

use crate::ast::{
    Argument, Block, Comparison, Const, Expr, ForLoop, Kind, MacroDef, Operator, Postfix, Statement, Target,
    Unary,
};
use crate::error::{Error, Result};
use crate::lexer::{Token, error, tokens};

/// Blocks within each other.
const MAX_BLOCKS: u32 = 50;
/// Expressions within each other: brackets, signs, `not`, `else`.
const MAX_EXPRESSIONS: u32 = 100;

/// Parses a whole template; errors name the line.
pub(crate) fn parse(source: &str) -> Result<Block> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        blocks: 0,
        expressions: 0,
        in_loop: false,
        mentioned: Vec::new(),
    };
    let block = parser.block(&[])?;
    match parser.current() {
        Token::End => Ok(block),
        _ => parser.fail("a block ends that was not begun"),
    }
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    blocks: u32,
    expressions: u32,
    /// Whether `break` has a loop to leave.
    in_loop: bool,
    /// For each macro that is open: whether `varargs`, `kwargs`, `caller` were mentioned.
    mentioned: Vec<[bool; 3]>,
}

/// The names whose mention makes a macro take more arguments.
const IMPLICIT: [&str; 3] = ["varargs", "kwargs", "caller"];

impl Parser {
    fn current(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn peek(&self) -> &Token {
        self.tokens
            .get(self.at + 1)
            .map_or(&Token::End, |(token, _)| token)
    }

    fn line(&self) -> u32 {
        self.tokens
            .get(self.at)
            .or(self.tokens.last())
            .map_or(1, |(_, line)| *line)
    }

    fn fail<T>(&self, what: impl AsRef<str>) -> Result<T> {
        Err(error(self.line(), what))
    }

    fn advance(&mut self) -> Token {
        let token = self
            .tokens
            .get_mut(self.at)
            .map_or(Token::End, |(token, _)| std::mem::replace(token, Token::End));
        self.at += 1;
        token
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.current(), Token::Op(found) if *found == op)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.current(), Token::Name(name) if **name == *word)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    fn skip_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) {
            return Ok(());
        }
        self.unexpected(&format!("'{op}'"))
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let found = match self.current() {
            Token::Op(op) => format!("'{op}'"),
            Token::Name(name) => format!("'{name}'"),
            Token::Text(_) => "a string".into(),
            Token::Int(_) | Token::Float(_) => "a number".into(),
            Token::PrintEnd => "'}}'".into(),
            Token::BlockEnd => "'%}'".into(),
            _ => "the end of the template".into(),
        };
        self.fail(format!("expected {expected}, found {found}"))
    }

    fn name(&mut self) -> Result<Arc<str>> {
        match self.current() {
            Token::Name(name) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }

    fn block_end(&mut self) -> Result<()> {
        match self.current() {
            Token::BlockEnd => {
                self.at += 1;
                Ok(())
            }
            _ => self.unexpected("the end of the tag"),
        }
    }

    // ---------------------------------------------------------------------------------------- statements

    /// Statements up to a tag that begins with one of `ends`, which is not taken but for its `{%`; with no ends, up to
    /// the end of the template.
    fn block(&mut self, ends: &[&str]) -> Result<Block> {
        let opened = self.line();
        self.blocks += 1;
        if self.blocks > MAX_BLOCKS + 1 {
            return Err(Error::Limit {
                what: format!("line {opened}: the depth of a chat template's blocks"),
                found: (self.blocks - 1).into(),
                limit: MAX_BLOCKS.into(),
            });
        }
        let mut block = Block::new();
        loop {
            let line = self.line();
            match self.advance() {
                Token::Data(text) => block.push(Statement {
                    line,
                    kind: Kind::Text(text),
                }),
                Token::PrintBegin => {
                    let value = self.tuple(true)?;
                    if *self.current() != Token::PrintEnd {
                        return self.unexpected("'}}'");
                    }
                    self.at += 1;
                    block.push(Statement {
                        line,
                        kind: Kind::Print(value),
                    });
                }
                Token::BlockBegin => {
                    if ends.iter().any(|end| self.is_word(end)) {
                        break;
                    }
                    self.statement(line, &mut block)?;
                }
                _ if ends.is_empty() => {
                    self.at -= 1;
                    break;
                }
                _ => {
                    let end = ends.last().copied().unwrap_or_default();
                    return Err(error(opened, format!("a block is not closed, expected '{end}'")));
                }
            }
        }
        self.blocks -= 1;
        Ok(block)
    }

    /// A block and its end tag.
    fn body(&mut self, end: &str) -> Result<Block> {
        self.block_end()?;
        let block = self.block(&[end])?;
        self.at += 1;
        Ok(block)
    }

    /// A block in which `break` has or has not a loop to leave.
    fn body_in(&mut self, in_loop: bool, end: &str) -> Result<Block> {
        let outer = std::mem::replace(&mut self.in_loop, in_loop);
        let block = self.body(end);
        self.in_loop = outer;
        block
    }

    /// A statement up to the end of its last tag.
    fn statement(&mut self, line: u32, block: &mut Block) -> Result<()> {
        let Token::Name(word) = self.current().clone() else {
            return self.unexpected("a statement");
        };
        self.at += 1;
        let kind = match &*word {
            "if" => self.if_statement()?,
            "for" => self.for_statement()?,
            "set" => self.set_statement()?,
            "with" => self.with_statement()?,
            "macro" => {
                let name = self.name()?;
                Kind::Macro(self.macro_definition(name, "endmacro")?)
            }
            "call" => {
                self.mentioned.push([false; 3]);
                let parameters = if self.is_op("(") {
                    self.parameters()?
                } else {
                    Vec::new()
                };
                let call = self.expression()?;
                if !matches!(&call, Expr::Postfix(_, ops) if matches!(ops.last(), Some(Postfix::Call(_)))) {
                    return self.fail("expected a call");
                }
                let body = self.body_in(false, "endcall")?;
                let [varargs, kwargs, _] = self.mentioned.pop().unwrap_or_default();
                let caller = MacroDef {
                    name: "caller".into(),
                    parameters,
                    varargs,
                    kwargs,
                    // What stands around has given it.
                    caller: false,
                    body,
                };
                Kind::Call(Arc::new(caller), call)
            }
            "filter" => {
                let filters = self.filters(true)?;
                Kind::Filter(filters, self.body("endfilter")?)
            }
            "generation" => Kind::Scope(self.body_in(false, "endgeneration")?),
            "block" => {
                let name = self.name()?;
                while matches!(self.current(), Token::Name(_)) {
                    if !self.skip_word("scoped") && !self.skip_word("required") {
                        return self.unexpected("the end of the tag");
                    }
                }
                let body = self.body_in(false, "endblock")?;
                self.skip_word(&name);
                Kind::Scope(body)
            }
            "autoescape" => {
                let on = self.expression()?;
                Kind::Autoescape(on, self.body("endautoescape")?)
            }
            "print" => loop {
                let kind = Kind::Print(self.expression()?);
                block.push(Statement { line, kind });
                if !self.skip_op(",") {
                    return self.block_end();
                }
            },
            "break" | "continue" if self.in_loop => {
                if *word == *"break" {
                    Kind::Break
                } else {
                    Kind::Continue
                }
            }
            "break" | "continue" => return self.fail(format!("'{word}' stands outside of a loop")),
            "include" | "import" | "from" | "extends" => {
                return self.fail(format!("'{word}': a chat template cannot load other templates"));
            }
            _ => return self.fail(format!("unknown statement '{word}'")),
        };
        self.block_end()?;
        block.push(Statement { line, kind });
        Ok(())
    }

    fn if_statement(&mut self) -> Result<Kind> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(false)?;
            self.block_end()?;
            let block = self.block(&["elif", "else", "endif"])?;
            branches.push((test, block));
            if !self.skip_word("elif") {
                break;
            }
        }
        let mut otherwise = Block::new();
        if self.skip_word("else") {
            otherwise = self.body("endif")?;
        } else {
            self.at += 1;
        }
        Ok(Kind::If { branches, otherwise })
    }

    fn for_statement(&mut self) -> Result<Kind> {
        let target = self.target()?;
        if !self.skip_word("in") {
            return self.unexpected("'in'");
        }
        let iterable = self.tuple_until(false, "recursive")?;
        let test = if self.skip_word("if") {
            Some(self.expression()?)
        } else {
            None
        };
        let recursive = self.skip_word("recursive");
        self.block_end()?;
        let outer = std::mem::replace(&mut self.in_loop, true);
        let body = self.block(&["else", "endfor"])?;
        self.in_loop = outer;
        let mut otherwise = Block::new();
        if self.skip_word("else") {
            otherwise = self.body("endfor")?;
        } else {
            self.at += 1;
        }
        Ok(Kind::For(Arc::new(ForLoop {
            target,
            iterable,
            test,
            recursive,
            body,
            otherwise,
        })))
    }

    fn set_statement(&mut self) -> Result<Kind> {
        let target = self.target()?;
        if self.skip_op("=") {
            return Ok(Kind::Set(target, self.tuple(true)?));
        }
        let filters = self.filters(false)?;
        Ok(Kind::Capture(target, filters, self.body("endset")?))
    }

    fn with_statement(&mut self) -> Result<Kind> {
        let mut values = Vec::new();
        while *self.current() != Token::BlockEnd {
            if !values.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target()?;
            self.expect_op("=")?;
            values.push((target, self.expression()?));
        }
        Ok(Kind::With(values, self.body("endwith")?))
    }

    fn macro_definition(&mut self, name: Arc<str>, end: &str) -> Result<Arc<MacroDef>> {
        self.mentioned.push([false; 3]);
        let parameters = self.parameters()?;
        let body = self.body_in(false, end)?;
        let [varargs, kwargs, caller] = self.mentioned.pop().unwrap_or_default();
        Ok(Arc::new(MacroDef {
            name,
            parameters,
            varargs,
            kwargs,
            caller,
            body,
        }))
    }

    fn parameters(&mut self) -> Result<Vec<(Arc<str>, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut parameters: Vec<(Arc<str>, Option<Expr>)> = Vec::new();
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.name()?;
            let default = if self.skip_op("=") {
                Some(self.expression()?)
            } else {
                None
            };
            if default.is_none() && parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fail("a parameter without a default follows one that has one");
            }
            parameters.push((name, default));
        }
        self.at += 1;
        Ok(parameters)
    }

    /// What is assigned to, perhaps several targets.
    fn target(&mut self) -> Result<Target> {
        let mut targets = Vec::new();
        let mut tuple = false;
        loop {
            targets.push(self.one_target()?);
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
            if self.is_word("in") || self.is_op("=") || self.is_op(")") || *self.current() == Token::BlockEnd
            {
                break;
            }
        }
        match (tuple, targets.pop()) {
            (false, Some(target)) => Ok(target),
            (_, last) => {
                targets.extend(last);
                Ok(Target::Tuple(targets))
            }
        }
    }

    fn one_target(&mut self) -> Result<Target> {
        if self.skip_op("(") {
            // The lexer bounds the depth of brackets.
            let target = self.target()?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.name()?;
        if constant(&name).is_some() || matches!(&*name, "not") {
            return self.fail(format!("'{name}' cannot be assigned to"));
        }
        if self.skip_op(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }

    // ---------------------------------------------------------------------------------------- expressions

    /// One expression, or several with commas as a tuple; `conditional` ones may be `a if b else c`.
    fn tuple(&mut self, conditional: bool) -> Result<Expr> {
        self.tuple_until(conditional, "")
    }

    fn tuple_until(&mut self, conditional: bool, end: &str) -> Result<Expr> {
        let mut items = Vec::new();
        let mut tuple = false;
        loop {
            items.push(if conditional {
                self.expression()?
            } else {
                self.or()?
            });
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
            let ends = matches!(self.current(), Token::PrintEnd | Token::BlockEnd) || self.is_op(")");
            if ends || (!end.is_empty() && self.is_word(end)) {
                break;
            }
        }
        match (tuple, items.pop()) {
            (false, Some(item)) => Ok(item),
            (_, last) => {
                items.extend(last);
                Ok(Expr::Tuple(items))
            }
        }
    }

    /// Parses with one more expression around.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.expressions += 1;
        if self.expressions > MAX_EXPRESSIONS {
            return Err(Error::Limit {
                what: format!(
                    "line {}: the depth of an expression of the chat template",
                    self.line()
                ),
                found: self.expressions.into(),
                limit: MAX_EXPRESSIONS.into(),
            });
        }
        let parsed = parse(self);
        self.expressions -= 1;
        parsed
    }

    fn expression(&mut self) -> Result<Expr> {
        self.deeper(|parser| {
            let mut value = parser.or()?;
            while parser.skip_word("if") {
                let test = parser.or()?;
                let otherwise = if parser.skip_word("else") {
                    Some(parser.expression()?)
                } else {
                    None
                };
                value = parser.deeper(|_| Ok(Expr::If(Box::new((test, value, otherwise)))))?;
            }
            Ok(value)
        })
    }

    fn or(&mut self) -> Result<Expr> {
        let mut operands = vec![self.and()?];
        while self.skip_word("or") {
            operands.push(self.and()?);
        }
        Ok(one_or(operands, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr> {
        let mut operands = vec![self.not()?];
        while self.skip_word("and") {
            operands.push(self.not()?);
        }
        Ok(one_or(operands, Expr::And))
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_word("not") {
            let operand = self.deeper(Self::not)?;
            return Ok(Expr::Unary(Unary::Not, Box::new(operand)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr> {
        let first = self.arithmetic(0)?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.current() {
                Token::Op("==") => Comparison::Equal,
                Token::Op("!=") => Comparison::NotEqual,
                Token::Op("<") => Comparison::Less,
                Token::Op("<=") => Comparison::LessEqual,
                Token::Op(">") => Comparison::Greater,
                Token::Op(">=") => Comparison::GreaterEqual,
                Token::Name(name) if **name == *"in" => Comparison::In,
                Token::Name(name)
                    if **name == *"not" && matches!(self.peek(), Token::Name(name) if **name == *"in") =>
                {
                    self.at += 1;
                    Comparison::NotIn
                }
                _ => break,
            };
            self.at += 1;
            rest.push((comparison, self.arithmetic(0)?));
        }
        Ok(if rest.is_empty() {
            first
        } else {
            Expr::Compare(Box::new(first), rest)
        })
    }

    /// Sums, what `~` joins, products, powers: from the loosest level, 0, to the tightest.
    fn arithmetic(&mut self, level: usize) -> Result<Expr> {
        const LEVELS: [&[(&str, Operator)]; 4] = [
            &[("+", Operator::Add), ("-", Operator::Subtract)],
            &[],
            &[
                ("*", Operator::Multiply),
                ("/", Operator::Divide),
                ("//", Operator::FloorDivide),
                ("%", Operator::Modulo),
            ],
            &[("**", Operator::Power)],
        ];
        let Some(operators) = LEVELS.get(level) else {
            return self.unary(true);
        };
        let first = self.arithmetic(level + 1)?;
        if operators.is_empty() {
            let mut parts = vec![first];
            while self.skip_op("~") {
                parts.push(self.arithmetic(level + 1)?);
            }
            return Ok(one_or(parts, Expr::Concat));
        }
        let mut rest = Vec::new();
        while let Some(&(_, operator)) = operators.iter().find(|(op, _)| self.is_op(op)) {
            self.at += 1;
            rest.push((operator, self.arithmetic(level + 1)?));
        }
        Ok(if rest.is_empty() {
            first
        } else {
            Expr::Arithmetic(Box::new(first), rest)
        })
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let sign = match self.current() {
            Token::Op("-") => Some(Unary::Negative),
            Token::Op("+") => Some(Unary::Positive),
            _ => None,
        };
        let value = match sign {
            Some(sign) => {
                self.at += 1;
                let operand = self.deeper(|parser| parser.unary(false))?;
                Expr::Unary(sign, Box::new(operand))
            }
            None => self.primary()?,
        };
        let mut operations = Vec::new();
        self.postfix(&mut operations)?;
        if with_filters {
            loop {
                if self.is_op("|") {
                    operations.extend(self.filters(false)?);
                } else if self.is_op("(") {
                    operations.push(Postfix::Call(self.arguments()?));
                } else if self.skip_word("is") {
                    operations.push(self.test()?);
                } else {
                    break;
                }
            }
        }
        Ok(if operations.is_empty() {
            value
        } else {
            Expr::Postfix(Box::new(value), operations)
        })
    }

    fn primary(&mut self) -> Result<Expr> {
        let text = |text: String| Expr::Const(Const::Text(text.into()));
        match self.current().clone() {
            Token::Name(name) => {
                self.at += 1;
                if let Some(value) = constant(&name) {
                    return Ok(Expr::Const(value));
                }
                if let Some(at) = IMPLICIT.iter().position(|implicit| **implicit == *name)
                    && let Some(mentioned) = self.mentioned.last_mut()
                {
                    mentioned[at] = true;
                }
                Ok(Expr::Name(name))
            }
            Token::Text(first) => {
                self.at += 1;
                // Strings that stand side by side are one.
                let mut joined = first;
                while let Token::Text(next) = self.current() {
                    joined.push_str(next);
                    self.at += 1;
                }
                Ok(text(joined))
            }
            Token::Int(int) => {
                self.at += 1;
                Ok(Expr::Const(Const::Int(int)))
            }
            Token::Float(float) => {
                self.at += 1;
                Ok(Expr::Const(Const::Float(float)))
            }
            Token::Op("(") => {
                self.at += 1;
                if self.skip_op(")") {
                    return Ok(Expr::Tuple(Vec::new()));
                }
                let value = self.tuple(true)?;
                self.expect_op(")")?;
                Ok(value)
            }
            Token::Op("[") => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.is_op("]") {
                    if !items.is_empty() {
                        self.expect_op(",")?;
                    }
                    if self.is_op("]") {
                        break;
                    }
                    items.push(self.expression()?);
                }
                self.at += 1;
                Ok(Expr::List(items))
            }
            Token::Op("{") => {
                self.at += 1;
                let mut pairs = Vec::new();
                while !self.is_op("}") {
                    if !pairs.is_empty() {
                        self.expect_op(",")?;
                    }
                    if self.is_op("}") {
                        break;
                    }
                    let key = self.expression()?;
                    self.expect_op(":")?;
                    pairs.push((key, self.expression()?));
                }
                self.at += 1;
                Ok(Expr::Dict(pairs))
            }
            _ => self.unexpected("an expression"),
        }
    }

    /// Attributes, subscripts and calls.
    fn postfix(&mut self, operations: &mut Vec<Postfix>) -> Result<()> {
        loop {
            if self.skip_op(".") {
                operations.push(match self.advance() {
                    Token::Name(name) => Postfix::Attribute(name),
                    Token::Int(index) => Postfix::Item(Expr::Const(Const::Int(index))),
                    _ => {
                        self.at -= 1;
                        return self.fail("expected a name or a number after '.'");
                    }
                });
            } else if self.skip_op("[") {
                operations.push(self.subscript()?);
            } else if self.is_op("(") {
                operations.push(Postfix::Call(self.arguments()?));
            } else {
                return Ok(());
            }
        }
    }

    fn subscript(&mut self) -> Result<Postfix> {
        let mut items = Vec::new();
        loop {
            if self.is_op(":") || !self.is_op("]") {
                let mut parts = [None, None, None];
                let mut colons = 0;
                while colons < 3 {
                    if !(self.is_op(":") || self.is_op("]") || self.is_op(",")) {
                        parts[colons] = Some(self.expression()?);
                    }
                    if colons == 2 || !self.skip_op(":") {
                        break;
                    }
                    colons += 1;
                }
                if colons > 0 {
                    self.expect_op("]")?;
                    return Ok(Postfix::Slice(Box::new(parts)));
                }
                match parts {
                    [Some(item), ..] => items.push(item),
                    _ => return self.unexpected("an expression"),
                }
            } else {
                return self.unexpected("an expression");
            }
            if !self.skip_op(",") {
                break;
            }
        }
        self.expect_op("]")?;
        Ok(Postfix::Item(one_or(items, Expr::Tuple)))
    }

    fn arguments(&mut self) -> Result<Vec<Argument>> {
        self.expect_op("(")?;
        let mut arguments: Vec<Argument> = Vec::new();
        while !self.is_op(")") {
            if !arguments.is_empty() {
                self.expect_op(",")?;
            }
            if self.is_op(")") {
                break;
            }
            let argument = if self.skip_op("*") {
                Argument::Spread(self.expression()?)
            } else if self.skip_op("**") {
                Argument::SpreadKeywords(self.expression()?)
            } else if let (Token::Name(_), Token::Op("=")) = (self.current(), self.peek()) {
                let name = self.name()?;
                self.at += 1;
                Argument::Keyword(name, self.expression()?)
            } else {
                Argument::Positional(self.expression()?)
            };
            // Positional ones, keywords, `*`, `**`: what Python would take in another order is an error in Jinja.
            let allowed = arguments.iter().all(|before| match (before, &argument) {
                (Argument::Positional(_), _) => true,
                (Argument::Keyword(..), Argument::Positional(_)) => false,
                (Argument::Keyword(..), _) => true,
                (Argument::Spread(_), Argument::Keyword(..) | Argument::SpreadKeywords(_)) => true,
                _ => false,
            });
            if !allowed {
                return self.fail("the arguments of a call are out of order");
            }
            arguments.push(argument);
        }
        self.at += 1;
        Ok(arguments)
    }

    /// `| name(arguments)` any number of times; for a `filter` block the first has no `|`.
    fn filters(&mut self, inline: bool) -> Result<Vec<Postfix>> {
        let mut filters = Vec::new();
        while (inline && filters.is_empty()) || self.skip_op("|") {
            let name = self.dotted_name()?;
            let arguments = if self.is_op("(") {
                self.arguments()?
            } else {
                Vec::new()
            };
            filters.push(Postfix::Filter(name, arguments));
        }
        Ok(filters)
    }

    fn dotted_name(&mut self) -> Result<Arc<str>> {
        let mut name = self.name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.name()?).into();
        }
        Ok(name)
    }

    /// A test; its `is` was taken.
    fn test(&mut self) -> Result<Postfix> {
        let negated = self.skip_word("not");
        let name = self.dotted_name()?;
        let mut arguments = Vec::new();
        if self.is_op("(") {
            arguments = self.arguments()?;
        } else {
            let argument = match self.current() {
                Token::Name(name) if **name == *"is" => {
                    return self.fail("tests cannot be chained with 'is'");
                }
                Token::Name(name) => !matches!(&**name, "else" | "or" | "and"),
                Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Op("[" | "{") => true,
                _ => false,
            };
            // What follows a test in an `if` or `for` of Jinja's own is no argument of it.
            if argument
                && !["if", "in", "not", "recursive"]
                    .iter()
                    .any(|word| self.is_word(word))
            {
                let value = self.deeper(Self::primary)?;
                let mut operations = Vec::new();
                self.postfix(&mut operations)?;
                arguments.push(Argument::Positional(if operations.is_empty() {
                    value
                } else {
                    Expr::Postfix(Box::new(value), operations)
                }));
            }
        }
        Ok(Postfix::Test {
            name,
            arguments,
            negated,
        })
    }
}

fn constant(name: &str) -> Option<Const> {
    match name {
        "true" | "True" => Some(Const::Bool(true)),
        "false" | "False" => Some(Const::Bool(false)),
        "none" | "None" => Some(Const::None),
        _ => None,
    }
}

/// The one element, or a node of all.
fn one_or(mut items: Vec<Expr>, node: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    match (items.len(), items.pop()) {
        (1, Some(item)) => item,
        (_, last) => {
            items.extend(last);
            node(items)
        }
    }
}
