//! The engine's errors as JavaScript `Error`s with a `code`.

use js_sys::Reflect;
use twinfer_engine::Error;
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

/// What a program can tell apart.
fn code(error: &Error) -> &'static str {
    match error {
        Error::Part { error, .. } => code(error),
        Error::Format { .. } => "format",
        Error::MissingKey { .. } | Error::Metadata { .. } | Error::Tensor { .. } => "model",
        Error::UnsupportedType { .. } | Error::UnsupportedArchitecture { .. } => "unsupported",
        Error::Tokenizer { .. } => "tokenizer",
        Error::Limit { .. } => "limit",
        Error::Memory { .. } => "memory",
        Error::InvalidInput { .. }
        | Error::Parameter { .. }
        | Error::TokenOutOfRange { .. }
        | Error::WindowPassed { .. }
        | Error::StatePassed { .. } => "input",
        Error::NonFinite { .. } | Error::NonFiniteLogit { .. } => "not-finite",
        Error::ContextFull { .. } | Error::CacheFull { .. } | Error::StatesFull { .. } => "context-full",
        Error::Worker { .. } | Error::FloatMode => "worker",
        _ => "engine",
    }
}
