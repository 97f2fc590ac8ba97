//! Words as BPE alone would not have them (`tokenizer.ggml.model` = `whitespace`: jina-embeddings-v2-base-zh): white
//! space is dropped, and where the file says so each character is written in lower case.

/// Calls `word` for every run of `text` without white space.
pub(super) fn words(text: &str, lowercase: bool, mut word: impl FnMut(&str)) {
    let mut lowered = String::new();
    for found in text.split_whitespace() {
        if lowercase {
            // of one character, as in llama.cpp: the first of the lower-case form
            lowered.clear();
            lowered.extend(found.chars().map(|c| c.to_lowercase().next().unwrap_or(c)));
            word(&lowered);
        } else {
            word(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_dropped() {
        let of = |text, lowercase| {
            let mut all = Vec::new();
            words(text, lowercase, |word| all.push(word.to_string()));
            all
        };
        assert_eq!(of("  Ab\t\u{3000}\u{c9}\n", false), ["Ab", "\u{c9}"]);
        assert_eq!(of("Ab \u{130}", true), ["ab", "i"]);
        assert_eq!(of(" ", true), [""; 0]);
    }
}
