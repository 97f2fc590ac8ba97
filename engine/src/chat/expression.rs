//! Rewrites the tokens of one tag; [`super::rewrite`] says into what, and why.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::{Error, Result};

use super::functions::{
    ADD, CALL, COMPARE, CONCAT, CYCLE, DICT, ITERATE, LIST, MULTIPLY, NEGATIVE, POSITIVE, SETTLE,
    SETTLE_ATTRIBUTE, TUPLE,
};
use super::lexer::{Kind, Token, fail};
use super::methods::{ITEM, SLICE};

/// Most operators, brackets and the like on one path through an expression.
const MAX_EXPRESSION_DEPTH: usize = 300;
/// One tag under way.
pub(super) struct Tag<'a> {
    pub(super) source: &'a str,
    pub(super) line: usize,
    pub(super) tokens: &'a mut Vec<Token>,
}

/// A bracket that is open while an expression is read.
struct Bracket {
    at: usize,
    /// It follows a value, so it is a call or a subscript.
    postfix: bool,
    commas: Vec<usize>,
    colons: Vec<usize>,
    /// Operators since the last comma, and the deepest operand since then.
    chain: usize,
    operand: usize,
    /// The deepest element before.
    deepest: usize,
}

impl Bracket {
    fn new(at: usize, postfix: bool) -> Self {
        Self {
            at,
            postfix,
            commas: Vec::new(),
            colons: Vec::new(),
            chain: 0,
            operand: 0,
            deepest: 0,
        }
    }

    fn depth(&self) -> usize {
        self.deepest.max(self.chain + self.operand)
    }

    fn next_element(&mut self) {
        self.deepest = self.depth();
        self.chain = 0;
        self.operand = 0;
    }
}

impl Tag<'_> {
    pub(super) fn word(&self, token: &Token) -> &str {
        &self.source[token.at.clone()]
    }

    fn is(&self, i: usize, text: &str) -> bool {
        self.tokens
            .get(i)
            .is_some_and(|token| token.kind != Kind::Text && self.word(token) == text)
    }

    /// The indices of the tokens in `range` that stand in no bracket.
    fn top_level(&self, range: Range<usize>) -> Vec<usize> {
        let mut depth = 0usize;
        let mut found = Vec::new();
        for i in range {
            if self.tokens[i].kind == Kind::Operator {
                match self.word(&self.tokens[i]) {
                    "(" | "[" | "{" => {
                        if depth == 0 {
                            found.push(i);
                        }
                        depth += 1;
                        continue;
                    }
                    ")" | "]" | "}" => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            found.push(i);
                        }
                        continue;
                    }
                    _ => {}
                }
            }
            if depth == 0 {
                found.push(i);
            }
        }
        found
    }

    /// Where the `=` of `set target = value` stands.
    pub(super) fn assignment(&self) -> Option<usize> {
        self.top_level(1..self.tokens.len())
            .into_iter()
            .find(|&i| self.is(i, "="))
    }

    fn around(&mut self, range: Range<usize>, open: &str, close: &str) {
        if range.is_empty() {
            return;
        }
        // Later wrappings lie outside of earlier ones.
        self.tokens[range.start].before.insert_str(0, open);
        self.tokens[range.end - 1].after.push_str(close);
    }

    /// Where the expression in `range` is a tuple without parentheses, makes it one.
    pub(super) fn wrap_tuple(&mut self, range: Range<usize>) -> bool {
        let tuple = self.top_level(range.clone()).into_iter().any(|i| self.is(i, ","));
        if tuple {
            self.around(range, &format!("{TUPLE}("), ")");
        }
        tuple
    }

    /// Rewrites what stands in `{% … %}`.
    pub(super) fn statement(&mut self, variadic: &HashSet<String>) -> Result<()> {
        let end = self.tokens.len();
        let word = self
            .tokens
            .first()
            .map_or("", |token| &self.source[token.at.clone()]);
        match word {
            "generation" | "block" => {
                self.tokens[0].text = Some("with".into());
                self.drop_from(1);
            }
            "endgeneration" | "endblock" => {
                self.tokens[0].text = Some("endwith".into());
                self.drop_from(1);
            }
            "set" => match self.assignment() {
                None => self.expression(1..end, variadic)?,
                Some(equals) => {
                    let dotted = (1..equals).any(|i| self.is(i, "."));
                    self.expression(equals + 1..end, variadic)?;
                    self.wrap_tuple(equals + 1..end);
                    let settle = if dotted { SETTLE_ATTRIBUTE } else { SETTLE };
                    self.around(equals + 1..end, &format!("{settle}("), ")");
                }
            },
            "for" => {
                let top = self.top_level(1..end);
                let Some(&within) = top.iter().find(|&&i| self.is(i, "in")) else {
                    return Err(fail(self.line, "'for' without 'in'"));
                };
                let until = top
                    .iter()
                    .copied()
                    .find(|&i| i > within && (self.is(i, "if") || self.is(i, "recursive")))
                    .unwrap_or(end);
                self.expression(within + 1..end, variadic)?;
                self.wrap_tuple(within + 1..until);
                self.around(within + 1..until, &format!("{ITERATE}("), ")");
            }
            "macro" => {
                let name = self
                    .tokens
                    .get(1)
                    .map_or("", |token| &self.source[token.at.clone()]);
                if variadic.contains(name) && self.is(2, "(") && self.is(end - 1, ")") {
                    let first = self.is(end - 2, "(") || self.is(end - 2, ",");
                    let more = if first {
                        "varargs=none, kwargs=none"
                    } else {
                        ", varargs=none, kwargs=none"
                    };
                    self.tokens[end - 1].before = more.into();
                }
                self.expression(1..end, &HashSet::new())?;
            }
            // The word after these is a statement's own, not a value that a bracket could follow.
            "call" if self.is(1, "(") => {
                let close = self
                    .top_level(1..end)
                    .into_iter()
                    .find(|&i| self.is(i, ")"))
                    .unwrap_or(end - 1);
                self.expression(close + 1..end, variadic)?;
            }
            _ => self.expression(1..end, variadic)?,
        }
        Ok(())
    }

    fn drop_from(&mut self, first: usize) {
        for token in self.tokens.iter_mut().skip(first) {
            token.text = Some(String::new());
        }
    }

    /// Whether a value ends at token `i`, so that a bracket behind it is a call or subscript and a sign an operator.
    fn ends_value(&self, i: usize, first: usize) -> bool {
        let token = &self.tokens[i];
        match token.kind {
            Kind::Text | Kind::Number => true,
            Kind::Operator => matches!(self.word(token), ")" | "]" | "}"),
            Kind::Name => {
                let named = i > first && (self.is(i - 1, ".") || self.is(i - 1, "|"));
                named
                    || !matches!(
                        self.word(token),
                        "in" | "and" | "or" | "not" | "if" | "else" | "is" | "recursive"
                    )
            }
        }
    }

    /// Whether token `i` is the name of a test, which an argument may follow.
    fn is_test_name(&self, i: usize, first: usize) -> bool {
        self.tokens[i].kind == Kind::Name
            && i > first
            && (self.is(i - 1, "is") || (i > first + 1 && self.is(i - 1, "not") && self.is(i - 2, "is")))
    }

    /// Rewrites the expression in `range`.
    pub(super) fn expression(&mut self, range: Range<usize>, variadic: &HashSet<String>) -> Result<()> {
        let first = range.start;
        self.signs(range.clone(), first);
        self.arithmetic(range.clone(), first);
        let mut open = vec![Bracket::new(usize::MAX, false)];
        for i in range.clone() {
            let behind_value = i > first && self.ends_value(i - 1, first);
            let behind_test = i > first && self.is_test_name(i - 1, first);
            let (kind, word) = (self.tokens[i].kind, self.word(&self.tokens[i]).to_owned());
            let innermost = open.last_mut().expect("the outermost bracket is never closed");
            match (kind, word.as_str()) {
                (Kind::Operator, "(" | "[" | "{") => {
                    innermost.chain += 1;
                    // `is test [..]` passes a list; `is test(..)` calls.
                    let postfix = behind_value && word != "{" && !(behind_test && word == "[");
                    open.push(Bracket::new(i, postfix));
                }
                (Kind::Operator, ")" | "]" | "}") => {
                    let Some(bracket) = (open.len() > 1).then(|| open.pop()).flatten() else {
                        return Err(fail(self.line, format!("unexpected '{word}'")));
                    };
                    let outer = open.last_mut().expect("the outermost bracket is never closed");
                    outer.operand = outer.operand.max(bracket.depth());
                    self.arithmetic(bracket.at + 1..i, first);
                    self.close(&bracket, i)?;
                }
                (Kind::Operator, ",") => {
                    innermost.commas.push(i);
                    innermost.next_element();
                }
                (Kind::Operator, ":") => {
                    innermost.colons.push(i);
                    innermost.next_element();
                }
                (Kind::Operator, operator) => {
                    innermost.chain += 1;
                    if operator == "%" && i > first && self.tokens[i - 1].kind == Kind::Text {
                        self.printf(i, range.end);
                    }
                }
                // `x.0` is an item.
                (Kind::Number, number) if i > first && self.is(i - 1, ".") => {
                    self.tokens[i].text = Some(format!("{ITEM}({number})"));
                }
                (Kind::Name, "in" | "and" | "or" | "not" | "if" | "else" | "is") => innermost.chain += 1,
                (Kind::Name, name) => {
                    let called = self.is(i + 1, "(") && i + 1 < range.end;
                    let free = i == first || !(self.is(i - 1, ".") || self.is(i - 1, "|"));
                    if called && free && variadic.contains(name) {
                        self.tokens[i].before.push_str(&format!("{CALL}("));
                        self.tokens[i + 1].text = Some(if self.is(i + 2, ")") {
                            String::new()
                        } else {
                            ", ".into()
                        });
                    } else if called && name == "cycle" && i > first && self.is(i - 1, ".") {
                        self.cycle(i, first)?;
                    }
                }
                _ => {}
            }
            let depth: usize = open.iter().map(Bracket::depth).sum();
            if depth > MAX_EXPRESSION_DEPTH {
                return Err(Error::Limit {
                    what: format!(
                        "line {}: the depth of an expression of the chat template",
                        self.line
                    ),
                    found: depth as u64,
                    limit: MAX_EXPRESSION_DEPTH as u64,
                });
            }
        }
        Ok(())
    }

    /// Rewrites the signs: `-x.y|f` becomes `_tw_neg(x.y)|f`. A number keeps its `-`.
    fn signs(&mut self, range: Range<usize>, first: usize) {
        let mut closing = HashMap::new();
        let mut open = Vec::new();
        for i in range.clone() {
            match self.word(&self.tokens[i]) {
                "(" | "[" | "{" => open.push(i),
                ")" | "]" | "}" => closing.extend(open.pop().map(|start| (start, i))),
                _ => {}
            }
        }
        // From the right, so that the call for the inner one of two signs comes inside of the other's.
        let mut inner = None;
        for i in range.clone().rev() {
            let function = match self.word(&self.tokens[i]) {
                "-" => NEGATIVE,
                "+" => POSITIVE,
                _ => continue,
            };
            if self.tokens[i].kind != Kind::Operator || i > first && self.ends_value(i - 1, first) {
                continue;
            }
            let end = match inner {
                Some((sign, end)) if sign == i + 1 => end,
                _ => self.operand_end(i + 1, range.end, &closing),
            };
            inner = Some((i, end));
            let number = end == i + 2 && self.tokens[i + 1].kind == Kind::Number;
            if end > i + 1 && !(number && function == NEGATIVE) {
                self.tokens[i].text = Some(format!("{function}("));
                self.tokens[end - 1].after.push(')');
            }
        }
    }

    /// Where an operand that begins at `start` ends: one value, and its attributes, subscripts and calls.
    fn operand_end(&self, start: usize, end: usize, closing: &HashMap<usize, usize>) -> usize {
        let mut i = start;
        while i < end {
            let token = &self.tokens[i];
            let word = self.word(token);
            match token.kind {
                Kind::Operator if matches!(word, "[" | "(") || word == "{" && i == start => {
                    // One that is not closed is the parser's to report.
                    match closing.get(&i) {
                        Some(close) => i = close + 1,
                        None => return start,
                    }
                }
                Kind::Operator if word == "." && i > start => i += 2,
                Kind::Operator => break,
                _ if i > start => break,
                _ => i += 1,
            }
        }
        i.min(end)
    }

    /// Rewrites the sums and products among the tokens of one bracket's inside, `range`: a run of `a + b + c`
    /// becomes one call, and so does what precedes a run.
    fn arithmetic(&mut self, range: Range<usize>, first: usize) {
        // Products bind tighter, so their calls come inside of those of sums.
        self.calls_for(
            &range,
            first,
            "*",
            &["*", "/", "//", "%"],
            &["+", "-", "~"],
            MULTIPLY,
        );
        self.calls_for(&range, first, "~", &["~"], &["+", "-"], CONCAT);
        self.calls_for(&range, first, "+", &["+", "-"], &[], ADD);
        self.comparisons(&range, first);
    }

    /// Rewrites the comparisons in `range`: `a < b in c` becomes `_tw_compare("< in", a, b, c)`.
    fn comparisons(&mut self, range: &Range<usize>, first: usize) {
        let mut start = range.start;
        let mut operators: Vec<(usize, String)> = Vec::new();
        let mut skip = None;
        for i in self.top_level(range.clone()).into_iter().chain([range.end]) {
            if skip == Some(i) {
                continue;
            }
            let behind_value = i > start && self.ends_value(i - 1, first);
            if i < range.end && behind_value {
                let token = &self.tokens[i];
                let word = self.word(token);
                let attribute = self.is(i - 1, ".") || self.is(i - 1, "|") || self.is_test_name(i, first);
                let compares = match token.kind {
                    Kind::Operator => matches!(word, "==" | "!=" | "<" | "<=" | ">" | ">="),
                    Kind::Name => word == "in" && !attribute,
                    _ => false,
                };
                if compares {
                    operators.push((i, word.to_owned()));
                    continue;
                }
                if word == "not" && token.kind == Kind::Name && !attribute && self.is(i + 1, "in") {
                    operators.push((i, "not-in".to_owned()));
                    skip = Some(i + 1);
                    continue;
                }
            }
            if i < range.end && (!self.ends_operand(i, first) || self.is(i, "in")) {
                continue;
            }
            let complete = operators
                .last()
                .is_some_and(|(at, name)| at + 1 + usize::from(name == "not-in") < i);
            if complete {
                let names: Vec<&str> = operators.iter().map(|(_, name)| name.as_str()).collect();
                let open = format!("{COMPARE}(\"{}\", ", names.join(" "));
                for (at, name) in &operators {
                    self.tokens[*at].text = Some(", ".into());
                    if name == "not-in" {
                        self.tokens[at + 1].text = Some(String::new());
                    }
                }
                self.around(start..i, &open, ")");
            }
            operators.clear();
            start = i + 1;
        }
    }

    /// As [`Self::arithmetic`] for one operator, its `peers` of the same precedence and those that bind less
    /// (`looser`, besides comparisons and keywords).
    fn calls_for(
        &mut self,
        range: &Range<usize>,
        first: usize,
        operator: &str,
        peers: &[&str],
        looser: &[&str],
        function: &str,
    ) {
        let mut start = range.start;
        let mut operators: Vec<usize> = Vec::new();
        for i in self.top_level(range.clone()).into_iter().chain([range.end]) {
            let binary = |words: &[&str]| {
                i > start && words.iter().any(|word| self.is(i, word)) && self.ends_value(i - 1, first)
            };
            if i < range.end && binary(peers) {
                operators.push(i);
            } else if i == range.end || self.ends_operand(i, first) || binary(looser) {
                let mut run = 0;
                while run < operators.len() {
                    // An operator without a right operand stays, for the parser to report.
                    let mut next = run;
                    while next < operators.len()
                        && self.is(operators[next], operator)
                        && operators[next] + 1 < operators.get(next + 1).copied().unwrap_or(i)
                    {
                        self.tokens[operators[next]].text = Some(", ".into());
                        next += 1;
                    }
                    if next > run {
                        let until = operators.get(next).copied().unwrap_or(i);
                        self.around(start..until, &format!("{function}("), ")");
                    }
                    run = next + 1;
                }
                operators.clear();
                start = i + 1;
            }
        }
    }

    /// Whether token `i` binds less than any arithmetic.
    fn ends_operand(&self, i: usize, first: usize) -> bool {
        let token = &self.tokens[i];
        match token.kind {
            Kind::Name => {
                matches!(
                    self.word(token),
                    "in" | "and" | "or" | "not" | "if" | "else" | "recursive"
                ) && !(i > first && (self.is(i - 1, ".") || self.is(i - 1, "|") || self.is(i - 1, "is")))
            }
            Kind::Operator => {
                matches!(
                    self.word(token),
                    "==" | "!=" | "<" | "<=" | ">" | ">=" | "=" | "," | ":"
                )
            }
            Kind::Text | Kind::Number => false,
        }
    }

    /// Rewrites the bracket that token `end` closes.
    fn close(&mut self, bracket: &Bracket, end: usize) -> Result<()> {
        let start = bracket.at;
        match (self.word(&self.tokens[start]), bracket.postfix) {
            ("[", false) => self.replace_brackets(start, end, &format!("{LIST}(")),
            ("(", false) if !bracket.commas.is_empty() || end == start + 1 => {
                self.replace_brackets(start, end, &format!("{TUPLE}("));
            }
            ("{", _) => {
                // Keys and values by turns: a colon, a comma, a colon, …
                let mut separators: Vec<(usize, bool)> = bracket.commas.iter().map(|&i| (i, false)).collect();
                separators.extend(bracket.colons.iter().map(|&i| (i, true)));
                separators.sort_unstable();
                let alternate = separators
                    .iter()
                    .enumerate()
                    .all(|(n, &(_, colon))| colon == (n % 2 == 0));
                let trailing = separators
                    .last()
                    .is_some_and(|&(i, colon)| !colon && i + 1 == end);
                let complete = separators.len() % 2 == 1 || trailing || end == start + 1;
                if !alternate || !complete {
                    return Err(fail(self.line, "a dict needs 'key: value' pairs"));
                }
                for &colon in &bracket.colons {
                    self.tokens[colon].text = Some(",".into());
                }
                self.replace_brackets(start, end, &format!("{DICT}("));
            }
            ("[", true) if !bracket.colons.is_empty() => {
                if bracket.colons.len() > 2 || !bracket.commas.is_empty() {
                    return Err(fail(self.line, "a slice has at most a start, a stop and a step"));
                }
                let mut part = start;
                for &colon in &bracket.colons {
                    let empty = colon == part + 1;
                    self.tokens[colon].text = Some(if empty { "none," } else { "," }.into());
                    part = colon;
                }
                self.replace_brackets(start, end, &format!(".{SLICE}("));
                if end == part + 1 {
                    self.tokens[end].text = Some("none)".into());
                }
            }
            // A key that is a string literal costs nothing to look up; an index into a string does.
            ("[", true) if end != start + 2 || self.tokens[start + 1].kind != Kind::Text => {
                self.replace_brackets(start, end, &format!(".{ITEM}("));
            }
            _ => {}
        }
        Ok(())
    }

    fn replace_brackets(&mut self, start: usize, end: usize, open: &str) {
        self.tokens[start].text = Some(open.into());
        self.tokens[end].text = Some(")".into());
    }

    /// Rewrites `"…" % operand`, the `%` at `at`: the operand reaches to the next operator that binds no tighter.
    fn printf(&mut self, at: usize, end: usize) {
        let mut until = at + 1;
        // The walk stops at the bracket that closes around the operator, or at the next operator.
        let mut depth = 0usize;
        for i in at + 1..end {
            let word = self.word(&self.tokens[i]);
            if self.tokens[i].kind == Kind::Operator {
                match word {
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" if depth == 0 => break,
                    ")" | "]" | "}" => depth -= 1,
                    "**" | "|" | "." => {}
                    "-" | "+" if i == at + 1 => {}
                    _ if depth == 0 => break,
                    _ => {}
                }
            } else if depth == 0
                && self.tokens[i].kind == Kind::Name
                && matches!(word, "and" | "or" | "not" | "if" | "else" | "in" | "is")
            {
                break;
            }
            until = i + 1;
        }
        if until > at + 1 {
            self.tokens[at].text = Some(format!("|{}(", super::filters::PRINTF));
            self.tokens[until - 1].after.push(')');
        }
    }

    /// Rewrites `loop.cycle(`, the name `cycle` at `at`.
    fn cycle(&mut self, at: usize, first: usize) -> Result<()> {
        let owner = at
            .checked_sub(2)
            .filter(|&i| i >= first && self.tokens[i].kind == Kind::Name);
        let free = owner.filter(|&i| i == first || !(self.is(i - 1, ".") || self.is(i - 1, "|")));
        let Some(owner) = free else {
            return Err(fail(self.line, "'cycle' is a method of 'loop' only"));
        };
        self.tokens[owner].before.push_str(&format!("{CYCLE}("));
        self.tokens[at - 1].text = Some(String::new());
        self.tokens[at].text = Some(String::new());
        self.tokens[at + 1].text = Some(if self.is(at + 2, ")") {
            String::new()
        } else {
            ", ".into()
        });
        Ok(())
    }
}
