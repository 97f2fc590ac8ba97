//! The families of models: one file each, one line each in [`FAMILIES`].
//!
//! A family reads its metadata into a [`Config`]; binding and the forward pass follow from that.

mod bert;
mod gemma3;
mod gemma_embedding;
mod llama;
mod modern_bert;
mod phi3;
mod qwen;

use super::config::{Config, Keys};
use crate::gguf::ModelFile;
use crate::{Error, Result};

/// A supported `general.architecture`.
pub(crate) struct Family {
    name: &'static str,
    pub(crate) configure: fn(&Keys<'_>, &ModelFile) -> Result<Config>,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "llama",
        configure: llama::configure,
    },
    Family {
        name: "qwen2",
        configure: qwen::configure_qwen2,
    },
    Family {
        name: "qwen3",
        configure: qwen::configure_qwen3,
    },
    Family {
        name: "gemma3",
        configure: gemma3::configure,
    },
    Family {
        name: "phi3",
        configure: phi3::configure,
    },
    Family {
        name: "bert",
        configure: bert::configure_bert,
    },
    Family {
        name: "nomic-bert",
        configure: bert::configure_nomic,
    },
    Family {
        name: "jina-bert-v2",
        configure: bert::configure_jina_v2,
    },
    Family {
        name: "jina-bert-v3",
        configure: bert::configure_jina_v3,
    },
    Family {
        name: "modern-bert",
        configure: modern_bert::configure,
    },
    Family {
        name: "gemma-embedding",
        configure: gemma_embedding::configure,
    },
];

/// The supported architectures' names, comma separated.
pub fn names() -> String {
    FAMILIES.iter().map(|f| f.name).collect::<Vec<_>>().join(", ")
}

pub(crate) fn find(name: &str) -> Result<&'static Family> {
    FAMILIES
        .iter()
        .find(|f| f.name == name)
        .ok_or_else(|| Error::UnsupportedArchitecture {
            found: name.chars().take(64).flat_map(char::escape_debug).collect(),
            supported: names(),
        })
}
