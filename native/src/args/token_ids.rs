//! Lists of token ids as people and programs write them.

use std::str::FromStr;

/// Numbers separated by white space or commas, with or without the brackets of a JSON array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenIds(pub(crate) Vec<u32>);

impl FromStr for TokenIds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let inner = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        let ids = inner
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|word| !word.is_empty())
            .map(|word| {
                word.parse().map_err(|_| {
                    format!("`{word}` is not a token id; give numbers such as 1 403 407 or [1, 403, 407]")
                })
            });
        Ok(Self(ids.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::TokenIds;

    #[test]
    fn ids() {
        for text in ["1 2 3", "1,2,3", "[1, 2, 3]\n", "[1,2,3]", " 1,\n2 ,3 "] {
            assert_eq!(text.parse(), Ok(TokenIds(vec![1, 2, 3])), "{text:?}");
        }
        assert_eq!("".parse(), Ok(TokenIds(vec![])));
        let error = |text: &str| text.parse::<TokenIds>().unwrap_err();
        assert!(error("1 x").contains("`x`"));
        assert!(error("-1").contains("`-1`"));
        assert!(error("[1, 2").contains("`[1`"));
    }
}
