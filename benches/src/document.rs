//! What is measured, in the project's documents: paragraphs as wide as theirs, and tables between markers.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// A paragraph of Markdown with the empty line behind it, in lines as wide as those of the project's documents.
#[must_use]
pub fn paragraph(text: &str) -> String {
    let options = textwrap::Options::new(120)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options) + "\n\n"
}

/// Puts a block between a document's markers `<!-- NAME:begin -->` and `<!-- NAME:end -->`, in place of what is there.
///
/// # Errors
/// If the document cannot be read or written, or has no such markers.
pub fn write_block(document: &Path, name: &str, block: &str) -> Result<()> {
    let text =
        std::fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    let Some(text) = between_markers(&text, name, block) else {
        let [begin, end] = markers(name);
        bail!("{} has no block from {begin} to {end}", document.display());
    };
    std::fs::write(document, text).with_context(|| format!("cannot write {}", document.display()))
}

fn markers(name: &str) -> [String; 2] {
    ["begin", "end"].map(|end| format!("<!-- {name}:{end} -->"))
}

fn between_markers(text: &str, name: &str, block: &str) -> Option<String> {
    let [begin, end] = markers(name);
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{block}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_replaced() {
        let text = "a\n<!-- peers:begin -->\nold\n<!-- peers:end -->\nb\n";
        let new = between_markers(text, "peers", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- peers:begin -->\nnew\n<!-- peers:end -->\nb\n");
        assert_eq!(between_markers(&new, "peers", "new\n").unwrap(), new);
        assert_eq!(between_markers(text, "others", "new"), None);
    }
}
