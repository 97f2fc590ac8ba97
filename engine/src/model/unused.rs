//! Tensors of a file that the model does not compute with: each is known to change no logit, or the file is refused.
//!
//! A tensor that is passed over in silence means answers that are wrong in silence: norms, scales and biases that a
//! family does not have look like any other tensor. So binding says which tensors it used, and here the rest is
//! accounted for.

use std::collections::HashSet;

use super::config::Config;
use super::mixer::MixerConfig;
use crate::gguf::ModelFile;
use crate::{Error, Result};

/// Names in an error message before "and so on".
const SHOWN: usize = 3;

/// Notes on what was left out, a sentence each; `bound` has the names of the tensors that the model uses.
///
/// # Errors
/// `Tensor` naming the first tensor that nobody has a use for.
pub(super) fn account(file: &ModelFile, config: &Config, bound: &HashSet<String>) -> Result<Vec<String>> {
    let mut notes: Vec<(Ignorable, usize)> = Vec::new();
    let mut unknown = Vec::new();
    for tensor in file.tensors().filter(|tensor| !bound.contains(&tensor.name)) {
        match ignorable(&tensor.name, config) {
            None => unknown.push(tensor.name.as_str()),
            Some(kind) => match notes.iter_mut().find(|(other, _)| *other == kind) {
                Some((_, count)) => *count += 1,
                None => notes.push((kind, 1)),
            },
        }
    }
    if let Some(error) = refuse(&unknown, config) {
        return Err(error);
    }
    Ok(notes
        .into_iter()
        .filter_map(|(kind, count)| kind.note(count))
        .collect())
}

/// Why a tensor that the model does not use changes no logit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ignorable {
    /// Blocks behind the last layer that guess tokens further ahead (`nextn_predict_layers`). The next token's logits
    /// do not pass through them.
    NextTokens,
    /// Frequencies of the rotation. Those that count are read with the configuration ([`super::rope`]); what is left
    /// is a set of another form beside them, or what conversions of 2023 kept in each layer: the same that follows
    /// from the base.
    Rope,
    /// Biases that files of the family have and the family does not add.
    Bias,
    /// The head of a reranker, which scores the last hidden state and makes no logits.
    Classifier,
    /// Encoders of pictures and sounds, which some programs keep in the model's file. Texts do not pass through them.
    Encoder,
}

impl Ignorable {
    /// What a person should know of it.
    fn note(self, count: usize) -> Option<String> {
        match self {
            Self::NextTokens => Some(format!(
                "the blocks that predict tokens further ahead are left out ({count} tensors)"
            )),
            Self::Rope => None,
            Self::Bias => Some(format!(
                "biases that the architecture does not add are left out ({count} tensors)"
            )),
            Self::Classifier => Some(format!(
                "the head of a reranker is left out ({count} tensors): the model is run as one that writes text"
            )),
            Self::Encoder => Some(format!(
                "an encoder of pictures or sounds is left out ({count} tensors): the model is run on text alone"
            )),
        }
    }
}

fn ignorable(name: &str, config: &Config) -> Option<Ignorable> {
    if let Some((layer, rest)) = in_layer(name) {
        if (config.layers.len()..config.n_blocks).contains(&layer) {
            return Some(Ignorable::NextTokens);
        }
        let mixer = config.layers.get(layer).map(|layer| &layer.mixer);
        let attention = mixer.and_then(MixerConfig::attention);
        if rest == "attn_output.bias" && attention.is_some_and(|attention| !attention.output_bias) {
            return Some(Ignorable::Bias);
        }
        let name = rest.strip_suffix(".weight").unwrap_or(rest);
        return ["rope_freqs", "attn_rot_embd"]
            .contains(&name)
            .then_some(Ignorable::Rope);
    }
    let of = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if of(&["nextn."]) && config.n_blocks > config.layers.len() {
        Some(Ignorable::NextTokens)
    } else if [
        "rope_freqs.weight",
        "rope_factors_short.weight",
        "rope_factors_long.weight",
    ]
    .contains(&name)
    {
        Some(Ignorable::Rope)
    } else if of(&["cls."]) {
        Some(Ignorable::Classifier)
    } else if of(&["v.", "a.", "mm."]) {
        Some(Ignorable::Encoder)
    } else {
        None
    }
}

/// `blk.LAYER.REST`.
fn in_layer(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, rest))
}

fn refuse(unknown: &[&str], config: &Config) -> Option<Error> {
    let (first, others) = unknown.split_first()?;
    let what = match in_layer(first) {
        Some((layer, _)) if layer >= config.n_blocks => format!(
            "it is of layer {layer}, counted from 0, but `{}.block_count` is {}",
            config.arch, config.n_blocks
        ),
        _ => format!(
            "the architecture `{}` has no use for it, and without it the answers could be wrong",
            config.arch
        ),
    };
    let mut others_named = String::new();
    if !others.is_empty() {
        let named: Vec<String> = others
            .iter()
            .take(SHOWN)
            .map(|name| format!("`{name}`"))
            .collect();
        let more = if others.len() > SHOWN { ", ..." } else { "" };
        others_named = format!(" ({} more: {}{more})", others.len(), named.join(", "));
    }
    Some(Error::Tensor {
        tensor: (*first).into(),
        what: what + &others_named,
    })
}
