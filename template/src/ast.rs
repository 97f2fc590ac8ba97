//! A parsed template. Operators of one precedence stand in one node, so that chains of them do not nest.

use std::sync::Arc;

/// Statements that follow each other.
pub(crate) type Block = Vec<Statement>;

#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) line: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Text(String),
    Print(Expr),
    If {
        branches: Vec<(Expr, Block)>,
        otherwise: Block,
    },
    For(Arc<ForLoop>),
    Set(Target, Expr),
    /// `{% set x | filter %}…{% endset %}`: the filters are applied to what the block prints.
    Capture(Target, Vec<Postfix>, Block),
    /// What a `filter` block prints goes through its filters.
    Filter(Vec<Postfix>, Block),
    With(Vec<(Target, Expr)>, Block),
    Macro(Arc<MacroDef>),
    /// A call that is given a block as its `caller`.
    Call(Arc<MacroDef>, Expr),
    /// `generation` and `block`: a scope, and nothing more without a trainer or a parent template.
    Scope(Block),
    Autoescape(Expr, Block),
    Break,
    Continue,
}

#[derive(Debug)]
pub(crate) struct ForLoop {
    pub(crate) target: Target,
    pub(crate) iterable: Expr,
    pub(crate) test: Option<Expr>,
    pub(crate) recursive: bool,
    pub(crate) body: Block,
    /// Where no iteration came to its end.
    pub(crate) otherwise: Block,
}

#[derive(Debug)]
pub(crate) struct MacroDef {
    pub(crate) name: Arc<str>,
    pub(crate) parameters: Vec<(Arc<str>, Option<Expr>)>,
    /// Whether the body mentions `varargs`, `kwargs` and `caller`: more arguments are an error unless it does.
    pub(crate) varargs: bool,
    pub(crate) kwargs: bool,
    pub(crate) caller: bool,
    pub(crate) body: Block,
}

/// What can be assigned to.
#[derive(Debug)]
pub(crate) enum Target {
    Name(Arc<str>),
    /// An attribute of a namespace.
    Attribute(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(crate) enum Expr {
    Const(Const),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Unary(Unary, Box<Expr>),
    /// Left to right.
    Arithmetic(Box<Expr>, Vec<(Operator, Expr)>),
    Concat(Vec<Expr>),
    /// `a < b in c`: each neighbouring pair has to hold.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// Test, then, else.
    If(Box<(Expr, Expr, Option<Expr>)>),
    /// A value and what is done with it, one after the other.
    Postfix(Box<Expr>, Vec<Postfix>),
}

#[derive(Debug, Clone)]
pub(crate) enum Const {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
}

#[derive(Debug)]
pub(crate) enum Postfix {
    Attribute(Arc<str>),
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Vec<Argument>),
    Filter(Arc<str>, Vec<Argument>),
    Test {
        name: Arc<str>,
        arguments: Vec<Argument>,
        negated: bool,
    },
}

#[derive(Debug)]
pub(crate) enum Argument {
    Positional(Expr),
    Keyword(Arc<str>, Expr),
    /// `*iterable`
    Spread(Expr),
    /// `**dict`
    SpreadKeywords(Expr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unary {
    Not,
    Negative,
    Positive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}
