//! The engine's one error type.
//!
//! Every message says what was expected, what was found, and where: a tensor, a metadata key, a byte offset.
//! Nothing in this crate panics on bad input; it returns one of these.

use thiserror::Error as ThisError;

/// The engine's result type.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Whose fault an error is, and so what a caller does about it: one that answers many requests ends this one and goes on, or
/// waits, or ends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The caller asked for what makes no sense, or what this model does not do: ask otherwise.
    Request,
    /// The caller asked for more than the limits allow: ask for less.
    TooLarge,
    /// Others hold what is needed: ask again later.
    Full,
    /// The model's files are damaged, or of a kind that is not supported: take another model.
    Model,
    /// The machine has too little memory, or a thread of it failed.
    Machine,
    /// The engine contradicts itself, or a program uses its parts wrongly: report it.
    Internal,
}

/// What can go wrong, from the first byte of a file to the last logit.
#[derive(Debug, Clone, PartialEq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a well-formed GGUF file.
    #[error("not a valid GGUF file: {what} (at byte {offset})")]
    Format {
        /// Offset in the file where the fault was seen, in bytes.
        offset: u64,
        /// What was expected and what was found.
        what: String,
    },
    /// One of a split model's files is at fault.
    #[error("part {} of {count}: {error}", part + 1)]
    Part {
        /// Index of the file, from 0.
        part: usize,
        /// Number of files.
        count: usize,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// A required metadata key is absent.
    #[error("metadata key `{key}` is missing: {why}")]
    MissingKey {
        /// The key's full name.
        key: String,
        /// What needs it.
        why: String,
    },
    /// A metadata value has the wrong type, or a value that cannot be used.
    #[error("metadata key `{key}`: expected {expected}, found {found}")]
    Metadata {
        /// The key's full name.
        key: String,
        /// The type or range that was expected.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// A tensor is missing, or its type or shape does not fit the model.
    #[error("tensor `{tensor}`: {what}")]
    Tensor {
        /// The tensor's name.
        tensor: String,
        /// What was expected and what was found.
        what: String,
    },
    /// A tensor type id that this engine does not decode.
    #[error("tensor type {id} is not supported: {what}")]
    UnsupportedType {
        /// The id in the file.
        id: u32,
        /// The name where it is known, and why it cannot be read.
        what: String,
    },
    /// The model's architecture is not one that this engine runs.
    #[error(
        "architecture `{found}` is not supported{}; supported: {supported}",
        .nearest.map_or(String::new(), |name| format!(" (the nearest that is: `{name}`)"))
    )]
    UnsupportedArchitecture {
        /// `general.architecture` of the file.
        found: String,
        /// The supported name that is most like it, if any is.
        nearest: Option<&'static str>,
        /// The supported names, comma separated.
        supported: String,
    },
    /// The files of a split model do not go together, or some are missing.
    #[error("{what}")]
    Split {
        /// What was expected and what was found.
        what: String,
    },
    /// The vocabulary cannot be used.
    #[error("tokenizer: {what}")]
    Tokenizer {
        /// What was expected and what was found.
        what: String,
    },
    /// What the model's files ask for is over a limit that protects memory or time.
    #[error("{what} is over the limit: {found}, at most {limit}")]
    ModelLimit {
        /// What is limited.
        what: String,
        /// The size found.
        found: u64,
        /// The largest size allowed.
        limit: u64,
    },
    /// What a caller asks for is over a limit that protects memory or time.
    #[error("{what} is over the limit: {found}, at most {limit}")]
    Limit {
        /// What is limited.
        what: String,
        /// The size found.
        found: u64,
        /// The largest size allowed.
        limit: u64,
    },
    /// The system does not give the memory that was asked for.
    #[error("not enough memory for {what}: {bytes} bytes are needed")]
    Memory {
        /// What needs it.
        what: String,
        /// Bytes of the request that failed; what was there before it is not counted.
        bytes: u64,
    },
    /// An argument of a call does not fit the model, the context or what was given beside it.
    #[error("{what}")]
    InvalidInput {
        /// What was expected and what was found.
        what: String,
    },
    /// A parameter's value is outside its range.
    #[error("{name} must be {expected}; it is {found}")]
    Parameter {
        /// The parameter's name in its definition: a field's.
        name: &'static str,
        /// The range.
        expected: String,
        /// The value, and where it stands if there are several.
        found: String,
    },
    /// A number became infinite or NaN; logits are never digested or sampled then.
    #[error("a value is not finite in layer {layer}, operation {op}: the weights or the input are damaged")]
    NonFinite {
        /// Layer index; the number of layers stands for the output head.
        layer: usize,
        /// The operation that met it.
        op: &'static str,
    },
    /// A logit given to a sampler is infinite or NaN.
    #[error("the logit of token {token} is not finite: the weights or the input are damaged")]
    NonFiniteLogit {
        /// The first token that has one.
        token: u32,
    },
    /// A sequence would become longer than the context's sequences may be.
    #[error("the context is full: {needed} positions are needed, {capacity} are there")]
    ContextFull {
        /// Positions that the sequence would have.
        needed: usize,
        /// Positions that a sequence of the context may have.
        capacity: usize,
    },
    /// Other sequences hold the cache's pages: there is room again when one of them ends.
    #[error(
        "the cache is full: {needed} pages are needed, {free} are free and {evictable} more can be evicted; end a sequence, \
         or make a larger cache"
    )]
    CacheFull {
        /// Pages that a pass needs.
        needed: usize,
        /// Pages that nobody holds.
        free: usize,
        /// Pages that only the prefix index holds.
        evictable: usize,
    },
    /// Other sequences and checkpoints hold the slots that states lie in: there is room again when one of them ends.
    #[error(
        "the cache is full: {needed} states are needed, {free} can be had; end a sequence or let go of a checkpoint, or make a \
         cache with more states"
    )]
    StatesFull {
        /// States that a pass needs.
        needed: usize,
        /// Slots that nobody needs.
        free: usize,
    },
    /// As many sequences are open as the context can have.
    #[error("{limit} sequences are open, and the context can have no more; close one")]
    TooManySequences {
        /// Sequences at a time.
        limit: usize,
    },
    /// A handle names no open sequence, or no kept checkpoint, of the context.
    #[error("the handle is {}", if *.foreign { "of another context" } else { "of a sequence that has ended" })]
    UnknownSequence {
        /// It is another context's.
        foreign: bool,
    },
    /// A token id is outside the model's vocabulary.
    #[error("token id {token} is outside the vocabulary of {n_vocab}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Tokens of the vocabulary.
        n_vocab: usize,
    },
    /// A sequence cannot be cut so far back: what the positions before see is no longer in the cache. It is unchanged; its
    /// tokens up to there can be evaluated anew.
    #[error("a sequence cannot be cut to {len}: the sliding window has moved past position {oldest}")]
    WindowPassed {
        /// The length that was asked for.
        len: usize,
        /// The oldest position that it needs.
        oldest: usize,
    },
    /// A sequence cannot be cut to this length: layers of the model keep a state, which cannot be taken back, and there is none of
    /// that length. The sequence is unchanged.
    #[error(
        "a sequence cannot be cut to {len}: its state is kept of its whole length, and before that of {nearest}"
    )]
    StatePassed {
        /// The length that was asked for.
        len: usize,
        /// The greatest length below that it can be cut to.
        nearest: usize,
    },
    /// A thread's floating-point mode would change numbers.
    #[error("the thread's floating-point mode flushes denormals or does not round to nearest; reset it")]
    FloatMode,
    /// A worker of the team panicked; the region was ended.
    #[error("a worker thread failed: {what}")]
    Worker {
        /// The panic's message.
        what: String,
    },
    /// Parts of the engine do not fit each other, whatever was asked for.
    #[error("an error inside the engine: {what}")]
    Internal {
        /// What was expected and what was found.
        what: String,
    },
}

impl Error {
    /// Whose fault it is.
    pub fn class(&self) -> Class {
        match self {
            Error::Part { error, .. } => error.class(),
            Error::InvalidInput { .. }
            | Error::Parameter { .. }
            | Error::TokenOutOfRange { .. }
            | Error::WindowPassed { .. }
            | Error::StatePassed { .. }
            | Error::UnknownSequence { .. } => Class::Request,
            Error::Limit { .. } | Error::ContextFull { .. } => Class::TooLarge,
            Error::CacheFull { .. } | Error::StatesFull { .. } | Error::TooManySequences { .. } => {
                Class::Full
            }
            Error::Format { .. }
            | Error::MissingKey { .. }
            | Error::Metadata { .. }
            | Error::Tensor { .. }
            | Error::UnsupportedType { .. }
            | Error::UnsupportedArchitecture { .. }
            | Error::Split { .. }
            | Error::ModelLimit { .. }
            | Error::Tokenizer { .. }
            | Error::NonFinite { .. }
            | Error::NonFiniteLogit { .. } => Class::Model,
            Error::Memory { .. } | Error::Worker { .. } | Error::FloatMode => Class::Machine,
            Error::Internal { .. } => Class::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what() -> String {
        "what was found".into()
    }

    #[test]
    fn a_limit_is_of_who_asks_for_too_much() {
        let (found, limit) = (9, 8);
        let what = what();
        let model = Error::ModelLimit {
            what: what.clone(),
            found,
            limit,
        };
        let request = Error::Limit { what, found, limit };
        assert_eq!((model.class(), request.class()), (Class::Model, Class::TooLarge));
        assert_eq!(model.to_string(), request.to_string());
        let longer = Error::ContextFull {
            needed: 9,
            capacity: 8,
        };
        assert_eq!(longer.class(), Class::TooLarge);
    }

    #[test]
    fn who_can_be_asked_otherwise_is_no_damaged_model() {
        let outside = Error::TokenOutOfRange { token: 9, n_vocab: 8 };
        let handle = Error::UnknownSequence { foreign: true };
        for error in [outside, handle, Error::InvalidInput { what: what() }] {
            assert_eq!(error.class(), Class::Request, "{error}");
        }
        let in_part = |error| Error::Part {
            part: 1,
            count: 2,
            error: Box::new(error),
        };
        for error in [
            Error::Tokenizer { what: what() },
            in_part(Error::Split { what: what() }),
            in_part(Error::Format {
                offset: 0,
                what: what(),
            }),
        ] {
            assert_eq!(error.class(), Class::Model, "{error}");
        }
        assert_eq!(in_part(Error::FloatMode).class(), Class::Machine);
    }

    #[test]
    fn what_others_hold_is_full_and_nothing_else() {
        let pages = Error::CacheFull {
            needed: 2,
            free: 1,
            evictable: 0,
        };
        let states = Error::StatesFull { needed: 2, free: 1 };
        for error in [pages, states, Error::TooManySequences { limit: 4 }] {
            assert_eq!(error.class(), Class::Full, "{error}");
        }
    }

    #[test]
    fn the_machine_and_the_engine_are_told_apart() {
        let memory = Error::Memory {
            what: what(),
            bytes: 1,
        };
        for error in [memory, Error::Worker { what: what() }, Error::FloatMode] {
            assert_eq!(error.class(), Class::Machine, "{error}");
        }
        assert_eq!(Error::Internal { what: what() }.class(), Class::Internal);
    }
}
