//! Chat templates.

use serde_json::{Map, Value, json};
use twinfer_template::{ChatTemplate, CivilTime, Inputs, Result};

/// What `strftime_now` prints from.
const NOW: CivilTime = CivilTime {
    year: 2026,
    month: 1,
    day: 2,
    hour: 3,
    minute: 4,
    second: 5,
};

/// The template's text, or its complaint, for each set of variables.
pub fn render(source: &str, cases: &[Map<String, Value>]) -> Result<Value> {
    let template = ChatTemplate::new(source)?;
    let texts = cases.iter().map(|variables| {
        let inputs = Inputs {
            variables: variables.clone(),
            now: NOW,
        };
        match template.render(&inputs) {
            Ok(text) => json!({ "text": text }),
            Err(error) => json!({ "error": error.to_string() }),
        }
    });
    Ok(json!({ "cases": texts.collect::<Vec<_>>() }))
}
