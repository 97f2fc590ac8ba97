//! `detokenize`: ids to text.

use std::path::Path;

use anyhow::{Error, Result};

use crate::args::{DetokenizeArgs, TokenIds};
use crate::load::ModelSource;
use crate::settings::Verbosity;
use crate::{load, output};

pub(super) fn run(source: &ModelSource, verbosity: Verbosity, args: &DetokenizeArgs) -> Result<()> {
    let text = if args.ids.is_empty() {
        output::read_text(Path::new("-"))?
    } else {
        args.ids.join(" ")
    };
    let TokenIds(ids) = text.parse().map_err(Error::msg)?;
    let tokenizer = load::tokenizer(source, &source.open()?, verbosity)?;
    let bytes = tokenizer.decode(&ids, !args.no_special)?;
    if args.json {
        let text = String::from_utf8_lossy(&bytes);
        return output::to_stdout(&format!("{}\n", serde_json::to_string(&text)?));
    }
    // Bytes, not text: tokens may be parts of characters.
    output::bytes_to_stdout(&bytes)
}
