//! Tokens in, a tree out: Jinja's grammar with the statements that chat templates may use.
//!
//! A statement inside of another and an expression inside of another cost stack, here and when they are evaluated, so
//! their depth is bounded. Here are the tokens and what both need of them.

mod expressions;
mod statements;

use std::sync::Arc;

use crate::ast::Block;
use crate::error::Result;
use crate::lexer::{Token, error, tokens};

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
}
