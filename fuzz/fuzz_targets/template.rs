//! Any text as a chat template, rendered over a small conversation with tools: an error or text, in bounded memory and
//! time, the same on every rendering.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use twinfer_fuzz as _;
use twinfer_template::{ChatTemplate, CivilTime, Inputs};

fn inputs() -> &'static Inputs {
    static INPUTS: OnceLock<Inputs> = OnceLock::new();
    INPUTS.get_or_init(|| {
        let messages = json!([
            {"role": "system", "content": "Be brief.\n"},
            {"role": "user", "content": [{"type": "text", "text": "What is 2 + 2? <b>é</b>"}]},
            {"role": "assistant", "content": null, "reasoning_content": "Hm.",
             "tool_calls": [{"type": "function", "id": "a1", "function":
                {"name": "add", "arguments": {"a": 2, "b": 2.5, "c": [true, null], "d": "x"}}}]},
            {"role": "tool", "name": "add", "tool_call_id": "a1", "content": "4"},
            {"role": "assistant", "content": "  4  "},
            {"role": "user", "content": ""},
        ]);
        let tools = json!([{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters":
            {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}}}]);
        Inputs::chat(messages, true, CivilTime::from_unix_seconds(1_700_000_000))
            .with("tools", tools)
            .with("bos_token", "<s>")
            .with("eos_token", "</s>")
    })
}

fuzz_target!(|data: &[u8]| {
    let Ok(source) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(template) = ChatTemplate::new(source) else {
        return;
    };
    let first = template.render(inputs());
    if first.is_ok() {
        assert_eq!(template.render(inputs()), first);
    }
});
