//! What can go wrong with a template.

use thiserror::Error as ThisError;

/// The crate's result type.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a template gives no text.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// It does not parse or does not render, or the template itself refuses its input.
    #[error("chat template: {what}")]
    Template {
        /// The reason, with the line.
        what: String,
    },
    /// A limit that protects memory or time was hit.
    #[error("{what} is over the limit: {found}, at most {limit}")]
    Limit {
        /// What is limited.
        what: String,
        /// The size found.
        found: u64,
        /// The largest size allowed.
        limit: u64,
    },
}

/// Why an expression or statement ended early; [`crate::render`] adds the line.
#[derive(Debug)]
pub(crate) enum Fail {
    /// What Python would raise.
    Message(String),
    /// The rendering's work is used up.
    OutOfWork,
    /// The output is longer than allowed.
    OutputTooLong,
}

/// The result of evaluating something.
pub(crate) type Eval<T> = core::result::Result<T, Fail>;

/// An error as Python would raise it.
pub(crate) fn fail<T>(message: impl Into<String>) -> Eval<T> {
    Err(Fail::Message(message.into()))
}
