//! The vocabulary as the file has it: entries, scores, attributes, special ids, and what each token prints.
//!
//! Files say too little about their special tokens, so some are recognised by their text, as llama.cpp does
//! (`llama_vocab::impl::load` in src/llama-vocab.cpp, release of 2026): the lists below are its lists.

use super::byte_text;
use super::text_table::TextTable;
use crate::gguf::{Array, Metadata, Value};
use crate::{Error, Result};

/// Longest vocabulary entry, in bytes. The longest of known vocabularies have 1,024 (512 spaces in GPT-2's
/// alphabet); the bound keeps a hostile vocabulary from making every place of a text expensive.
pub(super) const MAX_TOKEN_BYTES: usize = 4096;

/// Marks of a token, several at once: files and llama.cpp's corrections overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes(u16);

impl Attributes {
    pub(super) const NORMAL: Self = Self(1);
    pub(super) const UNKNOWN: Self = Self(2);
    pub(super) const CONTROL: Self = Self(4);
    pub(super) const USER_DEFINED: Self = Self(8);
    pub(super) const UNUSED: Self = Self(16);
    pub(super) const BYTE: Self = Self(32);
    /// White space before the token is dropped when it is found in a text.
    pub(super) const LSTRIP: Self = Self(64);
    /// White space after the token is dropped when it is found in a text.
    pub(super) const RSTRIP: Self = Self(128);

    /// Whether one of `marks` is set.
    pub(super) fn any(self, marks: Self) -> bool {
        self.0 & marks.0 != 0
    }

    fn set(&mut self, marks: Self) {
        self.0 |= marks.0;
    }

    fn clear(&mut self, marks: Self) {
        self.0 &= !marks.0;
    }

    /// `tokenizer.ggml.token_type`, as llama.h numbers it; 0 and unknown numbers have no mark.
    fn from_type(number: i64) -> Self {
        match number {
            1 => Self::NORMAL,
            2 => Self::UNKNOWN,
            3 => Self::CONTROL,
            4 => Self::USER_DEFINED,
            5 => Self::UNUSED,
            6 => Self::BYTE,
            _ => Self(0),
        }
    }
}

impl std::ops::BitOr for Attributes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How entries spell the bytes that they print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's byte alphabet.
    ByteAlphabet,
    /// UTF-8 with U+2581 for a space.
    SpaceMark,
    /// UTF-8 as it is.
    Plain,
    /// Bytes, written with Python's escapes.
    Escaped,
}

/// Ids of special tokens; `None` where the vocabulary has none.
#[derive(Debug, Clone, Default)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) eot: Option<u32>,
    pub(super) eom: Option<u32>,
    pub(super) unk: Option<u32>,
    pub(super) sep: Option<u32>,
    pub(super) pad: Option<u32>,
    pub(super) mask: Option<u32>,
    pub(super) cls: Option<u32>,
    pub(super) fim_pre: Option<u32>,
    pub(super) fim_suf: Option<u32>,
    pub(super) fim_mid: Option<u32>,
    pub(super) fim_pad: Option<u32>,
    pub(super) fim_rep: Option<u32>,
    pub(super) fim_sep: Option<u32>,
    /// Every token that ends a generation, ascending.
    pub(super) end: Vec<u32>,
}

/// Entries, scores, attributes and special ids.
pub(super) struct Vocabulary {
    texts: TextTable,
    scores: Vec<f32>,
    attributes: Vec<Attributes>,
    /// What each token prints, one after the other, and the end of each.
    printed: Vec<u8>,
    printed_ends: Vec<u32>,
    pub(super) special: SpecialIds,
    /// Tokens that are never to be chosen, ascending.
    pub(super) suppressed: Vec<u32>,
    /// What was left out of account, a sentence each.
    pub(super) notes: Vec<String>,
}

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const SUPPRESSED: &str = "tokenizer.ggml.suppress_tokens";

/// Texts of the end-of-turn token, the most telling first.
const EOT: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];
const EOM: &[&str] = &["<|eom_id|>"];
const FIM_PRE: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
    "<|plamo:fim_prefix|>",
];
const FIM_SUF: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
    "<|plamo:fim_suffix|>",
];
const FIM_MID: &[&str] = &[
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
    "<|plamo:fim_middle|>",
];
const FIM_PAD: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FIM_REP: &[&str] = &[
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
];
const FIM_SEP: &[&str] = &["<|file_sep|>", "<|plamo:file_separator|>"];

/// Texts that end a generation wherever they stand in a vocabulary.
const END: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    "<|ifm|im_end|>",
];

/// Channel marks of gpt-oss: always shown, always parsed.
const ALWAYS_SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

impl Vocabulary {
    /// Reads entries, scores, types and special ids; `defaults` holds the ids of the model kind. An id outside the
    /// vocabulary counts as absent: a default without a word, one that the file states with a note.
    ///
    /// # Errors
    /// `MissingKey` or `Metadata` naming the key: no tokens, arrays shorter than the tokens, a special id that is no
    /// integer, a byte token that is not `<0xXX>`. `ModelLimit` for an entry that is too long.
    pub(super) fn read(m: &Metadata, spelling: Spelling, defaults: SpecialIds) -> Result<Self> {
        let entries = m.opt_strings(TOKENS)?.ok_or_else(|| Error::MissingKey {
            key: TOKENS.into(),
            why: "without it the model has no vocabulary".into(),
        })?;
        if entries.is_empty() || entries.len() > i32::MAX as usize {
            return Err(Error::Metadata {
                key: TOKENS.into(),
                expected: "1 to 2^31 - 1 tokens".into(),
                found: format!("{} tokens", entries.len()),
            });
        }
        let mut texts = TextTable::with_capacity(entries.len());
        for text in entries {
            if text.len() > MAX_TOKEN_BYTES {
                return Err(Error::ModelLimit {
                    what: format!("length of token {} in `{TOKENS}`", texts.len()),
                    found: text.len() as u64,
                    limit: MAX_TOKEN_BYTES as u64,
                });
            }
            texts.push(text)?;
        }
        let n = texts.len();
        let mut notes = Vec::new();
        let mut vocabulary = Self {
            scores: read_scores(m, n)?,
            attributes: read_types(m, n)?,
            special: read_special_ids(m, n, defaults, &mut notes)?,
            suppressed: read_suppressed(m, n, &mut notes),
            texts,
            printed: Vec::new(),
            printed_ends: Vec::with_capacity(n),
            notes,
        };
        vocabulary.recognise_special();
        vocabulary.apply_strip_rules(m)?;
        vocabulary.write_printed(spelling)?;
        Ok(vocabulary)
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The entry of token `id`, as the file has it.
    pub(super) fn text(&self, id: u32) -> Option<&[u8]> {
        self.texts.text(id)
    }

    /// The token with the entry `text`.
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        self.texts.find(text)
    }

    /// The score of token `id`; 0 where the file has none.
    pub(super) fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// The marks of token `id`; none for an id outside the vocabulary.
    pub(super) fn attributes(&self, id: u32) -> Attributes {
        self.attributes.get(id as usize).copied().unwrap_or_default()
    }

    /// What token `id` prints, control and unknown tokens only with `special`.
    pub(super) fn printed(&self, id: u32, special: bool) -> Option<&[u8]> {
        let i = id as usize;
        let end = *self.printed_ends.get(i)? as usize;
        let start = if i == 0 {
            0
        } else {
            self.printed_ends[i - 1] as usize
        };
        if !special && self.attributes(id).any(Attributes::CONTROL | Attributes::UNKNOWN) {
            return Some(&[]);
        }
        self.printed.get(start..end)
    }

    /// As [`Self::printed`]; while `trim_space` is set, the leading space of the first token that is text is left
    /// out, which clears it.
    pub(super) fn printed_trimmed(&self, id: u32, special: bool, trim_space: &mut bool) -> Option<&[u8]> {
        let bytes = self.printed(id, special)?;
        if !*trim_space || self.attributes(id).any(Attributes::CONTROL | Attributes::UNKNOWN) {
            return Some(bytes);
        }
        *trim_space = false;
        Some(bytes.strip_prefix(b" ").unwrap_or(bytes))
    }

    fn mark(&mut self, id: u32, change: impl FnOnce(&mut Attributes)) {
        if let Some(attributes) = self.attributes.get_mut(id as usize) {
            change(attributes);
        }
    }

    /// The first of `texts` that is in the vocabulary becomes a control token, unless `known` is set.
    fn recognise(&mut self, known: Option<u32>, texts: &[&str]) -> Option<u32> {
        known.or_else(|| {
            let id = texts.iter().find_map(|text| self.find(text.as_bytes()))?;
            self.mark(id, |a| a.set(Attributes::CONTROL));
            Some(id)
        })
    }

    fn recognise_special(&mut self) {
        let mut s = std::mem::take(&mut self.special);
        s.eot = self.recognise(s.eot, EOT);
        s.eom = self.recognise(s.eom, EOM);
        s.fim_pre = self.recognise(s.fim_pre, FIM_PRE);
        s.fim_suf = self.recognise(s.fim_suf, FIM_SUF);
        s.fim_mid = self.recognise(s.fim_mid, FIM_MID);
        s.fim_pad = self.recognise(s.fim_pad, FIM_PAD);
        s.fim_rep = self.recognise(s.fim_rep, FIM_REP);
        s.fim_sep = self.recognise(s.fim_sep, FIM_SEP);
        for i in 0..self.attributes.len() {
            let unused = self
                .text(i as u32)
                .is_some_and(|text| text.windows(b"unused".len()).any(|window| window == b"unused"));
            if unused && self.attributes[i].any(Attributes::CONTROL) {
                self.attributes[i].set(Attributes::UNUSED);
            }
        }
        let mut end: Vec<u32> = [s.fim_pad, s.fim_rep, s.fim_sep].into_iter().flatten().collect();
        for text in END {
            if let Some(id) = self.find(text.as_bytes()) {
                end.push(id);
                self.mark(id, |a| a.set(Attributes::CONTROL));
            }
        }
        for text in ALWAYS_SHOWN {
            if let Some(id) = self.find(text.as_bytes()) {
                self.mark(id, |a| *a = Attributes::USER_DEFINED);
            }
        }
        end.extend([s.eos, s.eot, s.eom].into_iter().flatten());
        end.sort_unstable();
        end.dedup();

        // gpt-oss and solar-open: <|end|> only closes a message there
        let listed = |vocabulary: &Self, end: &[u32], text: &str| {
            vocabulary.find(text.as_bytes()).filter(|id| end.contains(id))
        };
        let has = |text: &str| listed(self, &end, text).is_some();
        let calls = has("<|call|>") || has("<|calls|>");
        let closes_only = calls && (has("<|return|>") || has("<|flush|>"));
        let message_end = listed(self, &end, "<|end|>").filter(|_| closes_only);
        // gemma 4, and models that call tools in RFL: </s> is a piece of text there
        let in_text = has("<|tool_response>") || self.find(b"<rfl:parameter name=\"").is_some();
        let text_end = listed(self, &end, "</s>").filter(|_| in_text);
        if let Some(id) = message_end {
            end.retain(|&e| e != id);
            self.mark(id, |a| *a = Attributes::USER_DEFINED);
        }
        if let Some(id) = text_end {
            end.retain(|&e| e != id);
            self.mark(id, |a| *a = Attributes::NORMAL);
        }
        s.end = end;
        self.special = s;
    }

    /// Files do not say which tokens swallow the white space beside them; llama.cpp knows these by name.
    fn apply_strip_rules(&mut self, m: &Metadata) -> Result<()> {
        // a name that is no string is no reason to refuse a model
        let name = m.opt_str("general.name").unwrap_or_default();
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let architecture = m.opt_str("general.architecture")?.unwrap_or_default();
        let pre = m.opt_str("tokenizer.ggml.pre")?.unwrap_or_default();
        let any = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let lstrip = if any(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
            || any(architecture, &["nomic-bert-moe", "jina-bert-v3"])
        {
            self.find(b"<mask>")
        } else if any(&name, &["phi-3", "phi3"]) {
            let special = Attributes::CONTROL | Attributes::UNKNOWN | Attributes::USER_DEFINED;
            for attributes in &mut self.attributes {
                if attributes.any(special) {
                    attributes.set(Attributes::RSTRIP);
                }
            }
            if let Some(id) = self.find(b"</s>") {
                self.mark(id, |a| a.set(Attributes::RSTRIP));
            }
            for text in ["<unk>", "<s>", "<|endoftext|>"] {
                if let Some(id) = self.find(text.as_bytes()) {
                    self.mark(id, |a| a.clear(Attributes::RSTRIP));
                }
            }
            None
        } else if any(&name, &["modern-bert"]) {
            self.find(b"[MASK]")
        } else {
            None
        };
        if let Some(id) = lstrip {
            self.mark(id, |a| a.set(Attributes::LSTRIP));
        }
        Ok(())
    }

    fn write_printed(&mut self, spelling: Spelling) -> Result<()> {
        let as_written = Attributes::CONTROL | Attributes::UNKNOWN | Attributes::USER_DEFINED;
        for id in 0..self.len() as u32 {
            let attributes = self.attributes(id);
            let text = self.texts.text(id).unwrap_or_default();
            let out = &mut self.printed;
            if spelling == Spelling::Escaped {
                byte_text::unescape(text, out);
            } else if attributes.any(as_written) {
                out.extend_from_slice(text);
            } else if attributes.any(Attributes::NORMAL) {
                match spelling {
                    Spelling::ByteAlphabet => print_alphabet(text, out),
                    Spelling::SpaceMark => byte_text::unescape_spaces(text, out),
                    Spelling::Plain | Spelling::Escaped => out.extend_from_slice(text),
                }
            } else if attributes.any(Attributes::BYTE) {
                out.push(byte_text::parse_byte_token(text).ok_or_else(|| Error::Metadata {
                    key: TOKENS.into(),
                    expected: format!("a byte token `<0xXX>` as token {id}, which {TYPES} marks as a byte"),
                    found: format!("`{}`", text.escape_ascii()),
                })?);
            }
            // printed text is never longer than the entries, whose total fits u32
            self.printed_ends.push(out.len() as u32);
        }
        Ok(())
    }
}

/// Writes what `text` stands for in GPT-2's alphabet; a character outside it stands for itself.
fn print_alphabet(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_text::char_to_byte(c) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend_from_slice(chunk.invalid());
    }
}

fn too_short(key: &str, expected: usize, found: usize) -> Error {
    Error::Metadata {
        key: key.into(),
        expected: format!("an entry for each of the {expected} tokens"),
        found: format!("{found} entries"),
    }
}

fn read_types(m: &Metadata, n: usize) -> Result<Vec<Attributes>> {
    let Some(types) = m.opt_ints(TYPES)? else {
        return Ok(vec![Attributes::NORMAL; n]);
    };
    if types.len() < n {
        return Err(too_short(TYPES, n, types.len()));
    }
    Ok(types[..n]
        .iter()
        .map(|&number| Attributes::from_type(number))
        .collect())
}

fn read_scores(m: &Metadata, n: usize) -> Result<Vec<f32>> {
    let scores = match m.get(SCORES) {
        None => return Ok(Vec::new()),
        Some(Value::Array(Array::F32(scores))) => scores.clone(),
        Some(Value::Array(Array::F64(scores))) => scores.iter().map(|&score| score as f32).collect(),
        Some(_) => m
            .opt_ints(SCORES)?
            .unwrap_or_default()
            .into_iter()
            .map(|score| score as f32)
            .collect(),
    };
    if scores.len() < n {
        return Err(too_short(SCORES, n, scores.len()));
    }
    Ok(scores)
}

/// The tokens that are never to be chosen. What cannot be meant is no reason to refuse a model: it is left out, and a
/// note says so.
fn read_suppressed(m: &Metadata, n: usize, notes: &mut Vec<String>) -> Vec<u32> {
    let stated = match m.opt_ints(SUPPRESSED) {
        Ok(stated) => stated.unwrap_or_default(),
        Err(error) => {
            notes.push(format!("no token is suppressed: {error}"));
            return Vec::new();
        }
    };
    let count = stated.len();
    let mut ids: Vec<u32> = stated
        .into_iter()
        .filter_map(|id| u32::try_from(id).ok().filter(|&id| (id as usize) < n))
        .collect();
    if ids.len() < count {
        let outside = count - ids.len();
        notes.push(format!(
            "`{SUPPRESSED}` has {outside} of {count} ids outside the vocabulary of {n} tokens: they are left out"
        ));
    }
    ids.sort_unstable();
    ids.dedup();
    if ids.len() == n {
        notes.push(format!("`{SUPPRESSED}` has every token: none is suppressed"));
        ids.clear();
    }
    ids
}

/// The special ids that the file states, else the defaults. Files are in use whose ids lie outside the vocabulary
/// (4294967295 or -1 for "none", an EOS one past the end); such an id counts as absent, and the note says so.
fn read_special_ids(
    m: &Metadata,
    n: usize,
    defaults: SpecialIds,
    notes: &mut Vec<String>,
) -> Result<SpecialIds> {
    // of two spellings the later one wins: deprecated ones stand first ("seperator" is what files have)
    let mut id = |names: &[&str], default: Option<u32>| {
        let mut id = default.filter(|&id| (id as usize) < n);
        for name in names {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(stated) = m.opt_int(&key)? else {
                continue;
            };
            match u32::try_from(stated) {
                Ok(stated) if (stated as usize) < n => id = Some(stated),
                _ => {
                    let instead = match id {
                        Some(id) => format!("{id} is taken"),
                        None => "the model has no such token".into(),
                    };
                    notes.push(format!(
                        "`{key}` is {stated}, outside the vocabulary of {n} tokens: {instead}"
                    ));
                }
            }
        }
        Ok::<_, Error>(id)
    };
    let cls = id(&["cls"], defaults.cls)?;
    // `bert` has its CLS where others have BOS.
    let bos = if defaults.cls.is_some() { cls } else { defaults.bos };
    let cls = cls.filter(|_| m.get("tokenizer.ggml.cls_token_id").is_some());
    Ok(SpecialIds {
        bos: id(&["bos"], bos)?,
        eos: id(&["eos"], defaults.eos)?,
        eot: id(&["eot"], defaults.eot)?,
        eom: id(&["eom"], defaults.eom)?,
        unk: id(&["unknown"], defaults.unk)?,
        sep: id(&["separator", "seperator"], defaults.sep)?,
        pad: id(&["padding"], defaults.pad)?,
        mask: id(&["mask"], defaults.mask)?,
        cls,
        fim_pre: id(&["prefix", "fim_pre"], defaults.fim_pre)?,
        fim_suf: id(&["suffix", "fim_suf"], defaults.fim_suf)?,
        fim_mid: id(&["middle", "fim_mid"], defaults.fim_mid)?,
        fim_pad: id(&["fim_pad"], defaults.fim_pad)?,
        fim_rep: id(&["fim_rep"], defaults.fim_rep)?,
        fim_sep: id(&["fim_sep"], defaults.fim_sep)?,
        end: Vec::new(),
    })
}
