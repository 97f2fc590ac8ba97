//! `detokenize`: ids to text.

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::args::DetokenizeArgs;
use crate::load::ModelSource;
use crate::settings::Verbosity;
use crate::{load, output};

pub(super) fn run(source: &ModelSource, verbosity: Verbosity, args: &DetokenizeArgs) -> Result<()> {
    let text = if args.ids.is_empty() {
        output::read_text(Path::new("-"))?
    } else {
        args.ids.join(" ")
    };
    let ids = parse_ids(&text)?;
    let tokenizer = load::tokenizer(source, &source.open()?, verbosity)?;
    let bytes = tokenizer.decode(&ids, !args.no_special)?;
    if args.json {
        let text = String::from_utf8_lossy(&bytes);
        return output::to_stdout(&format!("{}\n", serde_json::to_string(&text)?));
    }
    // Bytes, not text: tokens may be parts of characters.
    output::bytes_to_stdout(&bytes)
}

/// Numbers separated by white space or commas, with or without the brackets of a JSON array.
fn parse_ids(text: &str) -> Result<Vec<u32>> {
    let text = text.trim();
    let inner = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    inner
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.parse().map_err(|_| {
                anyhow!("`{word}` is not a token id; give numbers such as 1 403 407 or [1, 403, 407]")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse_ids;

    #[test]
    fn ids() {
        for text in ["1 2 3", "1,2,3", "[1, 2, 3]\n", " 1,\n2 ,3 "] {
            assert_eq!(parse_ids(text).unwrap(), [1, 2, 3], "{text:?}");
        }
        assert!(parse_ids("").unwrap().is_empty());
        assert!(parse_ids("1 x").unwrap_err().to_string().contains("`x`"));
        assert!(parse_ids("-1").is_err());
        assert!(parse_ids("[1, 2").is_err());
    }
}
