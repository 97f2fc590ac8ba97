//! `tokenize`: text to ids.

use anyhow::Result;
use twinfer_engine::tokenizer::EncodeOptions;

use crate::args::{Source, TokenizeArgs};
use crate::load::ModelSource;
use crate::settings::Verbosity;
use crate::{load, output, prompt};

pub(super) fn run(source: &ModelSource, verbosity: Verbosity, args: &TokenizeArgs) -> Result<()> {
    let tokenizer = load::tokenizer(source, &source.open()?, verbosity)?;
    let mut text = match args.source() {
        Source::Text(text) => text.to_string(),
        Source::File(path) => output::read_text(path)?,
    };
    if args.escape {
        text = prompt::unescape(&text)?;
    }
    let options = EncodeOptions {
        add_special: !args.no_special && !args.no_add_special,
        parse_special: !args.no_special && !args.no_parse_special,
    };
    let ids = prompt::tokens(verbosity, &tokenizer, &text, options)?;
    if args.json {
        return output::to_stdout(&format!("{}\n", serde_json::to_string(&ids)?));
    }
    let mut table = String::new();
    for id in ids {
        let piece = tokenizer.token_bytes(id, true).unwrap_or_default();
        table += &format!("{id:>7}  {:?}\n", String::from_utf8_lossy(piece));
    }
    output::to_stdout(&table)
}
