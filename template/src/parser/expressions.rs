//! Expressions, from the loosest operator to the tightest, and what follows a value: attributes, calls, filters, tests.

use std::sync::Arc;

use super::Parser;
use crate::ast::{Argument, Comparison, Const, Expr, Operator, Postfix, Unary};
use crate::error::{Error, Result};
use crate::lexer::Token;

/// Expressions within each other: brackets, signs, `not`, `else`.
const MAX_EXPRESSIONS: u32 = 100;

/// The names whose mention makes a macro take more arguments.
const IMPLICIT: [&str; 3] = ["varargs", "kwargs", "caller"];

impl Parser {
    /// One expression, or several with commas as a tuple; `conditional` ones may be `a if b else c`.
    pub(super) fn tuple(&mut self, conditional: bool) -> Result<Expr> {
        self.tuple_until(conditional, "")
    }

    pub(super) fn tuple_until(&mut self, conditional: bool, end: &str) -> Result<Expr> {
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

    pub(super) fn expression(&mut self) -> Result<Expr> {
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
    pub(super) fn filters(&mut self, inline: bool) -> Result<Vec<Postfix>> {
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

pub(super) fn constant(name: &str) -> Option<Const> {
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
