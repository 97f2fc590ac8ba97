//! The engine's errors as JavaScript `Error`s with a `code`.

use js_sys::Reflect;
use twinfer_engine::Error;
use twinfer_engine::error::Class;
use wasm_bindgen::JsValue;

/// Result of a call from JavaScript.
pub(crate) type Result<T, E = JsValue> = core::result::Result<T, E>;

/// The engine's error for JavaScript.
pub(crate) fn js(error: Error) -> JsValue {
    with_code(code(&error), &error.to_string())
}

/// A chat template's error for JavaScript.
pub(crate) fn template_error(error: twinfer_template::Error) -> JsValue {
    let code = match error {
        twinfer_template::Error::Limit { .. } => "limit",
        _ => "template",
    };
    with_code(code, &error.to_string())
}

/// An error of this crate for JavaScript.
pub(crate) fn with_code(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    // An `Error` that was just made takes any property.
    let _ = Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}

/// What a program can tell apart: the error's class, and what has a name of its own within it.
fn code(error: &Error) -> &'static str {
    match error {
        Error::Part { error, .. } => code(error),
        Error::Format { .. } => "format",
        Error::UnsupportedType { .. } | Error::UnsupportedArchitecture { .. } => "unsupported",
        Error::Split { .. } => "split",
        Error::Tokenizer { .. } => "tokenizer",
        Error::NonFinite { .. } | Error::NonFiniteLogit { .. } => "not-finite",
        Error::ContextFull { .. } => "context-full",
        Error::Memory { .. } => "memory",
        _ => match error.class() {
            Class::Request => "input",
            Class::TooLarge => "limit",
            Class::Full => "full",
            Class::Model => "model",
            Class::Machine => "worker",
            Class::Internal => "engine",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_class_or_a_name_within_it() {
        let what = || String::from("what was found");
        let full = Error::StatesFull { needed: 2, free: 1 };
        let longer = Error::ContextFull {
            needed: 9,
            capacity: 8,
        };
        let limit = Error::Limit {
            what: what(),
            found: 9,
            limit: 8,
        };
        let model = Error::ModelLimit {
            what: what(),
            found: 9,
            limit: 8,
        };
        let damaged = Error::Part {
            part: 1,
            count: 2,
            error: Box::new(Error::Format {
                offset: 0,
                what: what(),
            }),
        };
        for (error, expected) in [
            (Error::InvalidInput { what: what() }, "input"),
            (Error::UnknownSequence { foreign: false }, "input"),
            (Error::TokenOutOfRange { token: 9, n_vocab: 8 }, "input"),
            (limit, "limit"),
            (longer, "context-full"),
            (full, "full"),
            (Error::TooManySequences { limit: 1 }, "full"),
            (model, "model"),
            (Error::Split { what: what() }, "split"),
            (Error::Tokenizer { what: what() }, "tokenizer"),
            (damaged, "format"),
            (Error::FloatMode, "worker"),
            (Error::Internal { what: what() }, "engine"),
        ] {
            assert_eq!(code(&error), expected, "{error}");
        }
    }
}
