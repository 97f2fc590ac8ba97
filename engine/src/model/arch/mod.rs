//! The families of models: one file each, one line each in [`FAMILIES`].
//!
//! A family reads its metadata into a [`Config`]; binding and the forward pass follow from that.

mod gemma3;
mod gemma4;
mod llama;
mod phi3;
mod qwen;
mod qwen3moe;

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
        name: "qwen3moe",
        configure: qwen3moe::configure,
    },
    Family {
        name: "gemma3",
        configure: gemma3::configure,
    },
    Family {
        name: "gemma4",
        configure: gemma4::configure,
    },
    Family {
        name: "phi3",
        configure: phi3::configure,
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
