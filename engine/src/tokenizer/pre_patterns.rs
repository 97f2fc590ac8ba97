//! The pre-tokenizers by the name in `tokenizer.ggml.pre`.
//!
//! Names, expressions and flags are those of llama.cpp (src/llama-vocab.cpp, `llm_tokenizer_bpe` and
//! `llama_vocab::impl::load`; the rules it writes by hand in src/unicode.cpp are stated as expressions here).
//! Where llama.cpp simplifies a model's own expression (tekken, gpt-4o: upper and lower case of other scripts
//! than Latin are not told apart; tiny_aya, youtu: no case at all), the simplified form is the one stated: it is
//! what GGUF files are tried with.

use unicode_general_category::{GeneralCategory, get_general_category};

use super::pre_tokenizer::Cut;

/// A pre-tokenizer and what goes with its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Definition {
    /// The passes.
    pub(super) cuts: &'static [Cut],
    /// A piece that is a token as a whole is not merged up from its bytes.
    pub(super) ignore_merges: bool,
    /// Whether a text begins with BOS where the file does not say.
    pub(super) add_bos: bool,
    /// How the text becomes symbols.
    pub(super) symbols: Symbols,
}

/// What the symbols of a text are before merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbols {
    /// Bytes, spelled in GPT-2's alphabet.
    Bytes,
    /// Characters.
    Chars,
    /// Characters, a space being U+2581 (Gemma 4).
    SpaceMarkedChars,
}

const GPT2: Cut = Cut::Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)");
const NUMBER: Cut = Cut::Regex(r"\p{N}");
const NUMBERS_OF_3: Cut = Cut::Regex(r"\p{N}{1,3}");
const LINES: Cut = Cut::Regex(r"[^\n]+|[\n]+");
const CJK: Cut = Cut::Regex(r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+");
const CJK_HANGUL: Cut = Cut::Regex(r"[\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+");
const LINE_BREAK: Cut = Cut::Regex(r"[\r\n]");

const LLAMA3: Cut = Cut::Regex(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const QWEN2: Cut = Cut::Regex(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const QWEN35: Cut = Cut::Regex(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const JAIS2: Cut = Cut::RegexThenPowersOfTwo(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));
const MINICPM5: Cut = Cut::Regex(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
/// Words hold marks and the joiners U+200C and U+200D.
const K2_HORIZON: Cut = Cut::Regex(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}\x{200C}\x{200D}]+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const SEED_CODER: Cut = Cut::Regex(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const UFAKZEKA: Cut =
    Cut::Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+");
const BAILINGMOE: Cut = Cut::Regex(concat!(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
));
const EXAONE_MOE: Cut = Cut::Regex(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
));
/// `((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+`, the lookaheads written as intersections.
const TEKKEN: Cut = Cut::Regex(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const GPT4O: Cut = Cut::Regex(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const GRANITE_EMB_MULTI: Cut = Cut::Regex(concat!(
    r"[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]&&[^a-z]]*[[\p{L}\p{M}]&&[^A-Z]]+",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]&&[^a-z]]+[[\p{L}\p{M}]&&[^A-Z]]*",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
/// Case is not told apart: llama.cpp takes `\p{Lu}` and the other kinds of letters for `\p{L}`.
const TINY_AYA: Cut = Cut::Regex(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const YOUTU_SCRIPTS: Cut = Cut::Regex(concat!(
    r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+",
    r"|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}",
    r"\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+",
    r"|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
));
/// As for [`TINY_AYA`], case is not told apart.
const YOUTU: Cut = Cut::Regex(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
/// llama.cpp's rule for Kimi K2: Han runs, then words without Han characters. Case is not told apart.
const KIMI_K2: Cut = Cut::Regex(concat!(
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}",
    r"\x{2B820}-\x{2CEAF}\x{2CEB0}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{L}--[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}",
    r"\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}\x{2CEB0}-\x{2EBEF}\x{F900}-\x{FAFF}",
    r"\x{2F800}-\x{2FA1F}]]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const DEEPSEEK_V3: Cut = Cut::Regex(concat!(
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
));
const SPARK: Cut = Cut::Regex(concat!(
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+",
    r"|[\r\n]|\s+(?!\S)|\s+",
));
const AFMOE_SCRIPTS: Cut = Cut::Regex(concat!(
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}",
    r"\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{0E40}-\x{0E7F}\x{0E80}-\x{0EFF}\x{1780}-\x{17FF}",
    r"\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
));
/// Letters with case, as the model's own expression lists them (an older Unicode than `\p{LC}` of today).
const DEEPSEEK_LLM_LETTERS: Cut = Cut::Regex(concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}",
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}",
    r"\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}",
    r"\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}",
    r"\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}",
    r"\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}",
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}",
    r"\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}",
    r"\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}",
    r"\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}",
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}",
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}",
    r"\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+",
));
/// The model's own expression has U+3000 as well; in llama.cpp it is white space alone.
const DEEPSEEK_LLM_SIGNS: Cut =
    Cut::Regex(r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3001}\x{3002}]+");

const DEFAULT: &[Cut] = &[
    Cut::Regex(r"[\p{P}\$\+<=>\^~\|]+"),
    GPT2,
    Cut::Regex(r"\p{N}+"),
    Cut::Regex(r"[0-9][0-9][0-9]"),
];
const FALCON: &[Cut] = &[
    Cut::Regex(r"[\p{P}\$\+<=>\^~\|`]+"),
    GPT2,
    Cut::Regex(r"[0-9][0-9][0-9]"),
];
const STARCODER: &[Cut] = &[NUMBER, GPT2];
const DEEPSEEK_LLM: &[Cut] = &[
    LINE_BREAK,
    DEEPSEEK_LLM_LETTERS,
    DEEPSEEK_LLM_SIGNS,
    Cut::Regex(r"\s+$"),
    CJK_HANGUL,
    Cut::Regex(r"\p{N}+"),
];
const DEEPSEEK_CODER: &[Cut] = &[
    LINE_BREAK,
    Cut::Regex(r"\s?\p{L}+"),
    Cut::Regex(r"\s?\p{P}+"),
    CJK_HANGUL,
    NUMBER,
];
const BLOOM_WORDS: Cut = Cut::Regex(r" ?[^(\s|.,!?…。，、।۔،)]+");
const CHAMELEON: &[Cut] = &[
    Cut::Regex(r"<sentinel:[0-9]+>"),
    Cut::Regex(r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
    Cut::Regex(r"([\t\n]|    |  )"),
    NUMBER,
    Cut::Regex(r"[\p{P}!-/:-@\[-`{-~]"),
    GPT2,
];

const PLAIN: Definition = Definition {
    cuts: &[],
    ignore_merges: false,
    add_bos: false,
    symbols: Symbols::Bytes,
};

const fn plain(cuts: &'static [Cut]) -> Definition {
    Definition { cuts, ..PLAIN }
}

const fn ignore_merges(cuts: &'static [Cut]) -> Definition {
    Definition {
        cuts,
        ignore_merges: true,
        ..PLAIN
    }
}

const fn ignore_merges_add_bos(cuts: &'static [Cut]) -> Definition {
    Definition {
        cuts,
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    }
}

const fn chars(cuts: &'static [Cut], symbols: Symbols) -> Definition {
    Definition {
        cuts,
        symbols,
        ..PLAIN
    }
}

/// The pre-tokenizer of the `gemma4` tokenizer model, which forces BOS.
pub(super) const GEMMA4: Definition = Definition {
    add_bos: true,
    ..chars(&[LINES], Symbols::SpaceMarkedChars)
};

/// Names and definitions; the first is what a file without a name gets.
pub(super) const DEFINITIONS: &[(&[&str], Definition)] = &[
    (&["default"], plain(DEFAULT)),
    (
        &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        ignore_merges_add_bos(&[LLAMA3]),
    ),
    (&["dbrx", "smaug-bpe", "chatglm-bpe"], plain(&[LLAMA3])),
    (&["glm4", "glm5"], ignore_merges(&[LLAMA3])),
    (&["k2-horizon"], plain(&[K2_HORIZON])),
    (&["minicpm5"], ignore_merges(&[NUMBERS_OF_3, MINICPM5])),
    (&["jais-2"], plain(&[JAIS2])),
    (&["deepseek-llm"], plain(DEEPSEEK_LLM)),
    (&["deepseek-coder"], plain(DEEPSEEK_CODER)),
    (
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        plain(&[NUMBERS_OF_3, CJK, DEEPSEEK_V3]),
    ),
    (&["spark2_5"], plain(&[NUMBERS_OF_3, CJK, SPARK, NUMBER])),
    (&["youtu"], ignore_merges(&[YOUTU_SCRIPTS, YOUTU])),
    (&["falcon"], plain(FALCON)),
    (
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ],
        plain(&[GPT2]),
    ),
    (
        &[
            "starcoder",
            "refact",
            "command-r",
            "smollm",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        plain(STARCODER),
    ),
    (
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "stablelm2",
            "megrez",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        plain(&[QWEN2]),
    ),
    (&["qwen35"], plain(&[QWEN35])),
    (&["poro-chat", "bloom", "gpt3-finnish"], plain(&[BLOOM_WORDS])),
    (&["viking"], plain(&[BLOOM_WORDS, NUMBER])),
    (&["tekken"], ignore_merges_add_bos(&[TEKKEN])),
    (
        &["chameleon"],
        Definition {
            add_bos: true,
            ..plain(CHAMELEON)
        },
    ),
    (
        &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        plain(&[GPT4O]),
    ),
    (&["granite-embed-multi-97m"], ignore_merges(&[GRANITE_EMB_MULTI])),
    (
        &["tiny_aya", "cohere2moe"],
        plain(&[Cut::AsciiDigitGroupsOfWords, TINY_AYA]),
    ),
    (&["kimi-k2"], plain(&[KIMI_K2])),
    (
        &["superbpe"],
        plain(&[Cut::Regex(r"\p{N}+"), Cut::AsciiDigitGroups]),
    ),
    (&["bailingmoe", "bailingmoe2", "llada-moe"], plain(&[BAILINGMOE])),
    (&["seed-coder"], plain(&[SEED_CODER])),
    (&["ufakzeka"], plain(&[UFAKZEKA])),
    (&["afmoe"], plain(&[Cut::DigitGroups, AFMOE_SCRIPTS, DEEPSEEK_V3])),
    (&["laguna"], plain(&[LINES, QWEN2])),
    (&["exaone-moe"], plain(&[EXAONE_MOE])),
    (&["gemma4", "granite-embed-multi-311m"], GEMMA4),
    (&["sarvam-moe"], chars(&[LINES], Symbols::SpaceMarkedChars)),
    (&["whitespace"], chars(&[Cut::Regex(r"\S+")], Symbols::Chars)),
];

/// The definition of `name`.
pub(super) fn find(name: &str) -> Option<Definition> {
    DEFINITIONS
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map(|&(_, definition)| definition)
}

/// All names, for messages.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    DEFINITIONS.iter().flat_map(|(names, _)| names.iter().copied())
}

/// `\p{N}`.
pub(super) fn is_number(c: char) -> bool {
    use GeneralCategory::{DecimalNumber, LetterNumber, OtherNumber};
    matches!(
        get_general_category(c),
        DecimalNumber | LetterNumber | OtherNumber
    )
}

/// `\w` as Oniguruma has it: letters, marks, decimal digits and connecting punctuation.
pub(super) fn is_word(c: char) -> bool {
    use GeneralCategory::{ConnectorPunctuation, DecimalNumber, EnclosingMark, NonspacingMark, SpacingMark};
    c.is_alphabetic()
        || matches!(
            get_general_category(c),
            DecimalNumber | NonspacingMark | SpacingMark | EnclosingMark | ConnectorPunctuation
        )
}
