//! Statements: tags, their bodies, what is assigned to.

use std::sync::Arc;

use super::Parser;
use super::expressions::constant;
use crate::ast::{Block, Expr, ForLoop, Kind, MacroDef, Postfix, Statement, Target};
use crate::error::{Error, Result};
use crate::lexer::{Token, error};

/// Blocks within each other.
const MAX_BLOCKS: u32 = 50;

impl Parser {
    /// Statements up to a tag that begins with one of `ends`, which is not taken but for its `{%`; with no ends, up to
    /// the end of the template.
    pub(super) fn block(&mut self, ends: &[&str]) -> Result<Block> {
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
}
