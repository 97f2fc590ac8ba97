//! The special tokens whose ids a file may state. Shared by the tests of tokenizers and of hostile models.

/// What stands between `tokenizer.ggml.` and `_token_id`, both spellings of the separator among them.
#[rustfmt::skip]
pub(crate) const SPECIAL_IDS: [&str; 19] = [
    "bos", "eos", "eot", "eom", "unknown", "separator", "seperator", "padding", "mask", "cls",
    "prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep",
];
