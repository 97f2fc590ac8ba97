//! The families of models: one file each, one line each in [`FAMILIES`].
//!
//! A family reads its metadata into a [`Config`]; binding and the forward pass follow from that.

mod bert;
mod command_r;
mod deepseek2;
mod ernie;
mod exaone4;
mod gemma2;
mod gemma3;
mod gemma4;
mod gemma_embedding;
mod glm4;
mod glm4moe;
mod gpt_oss;
mod granite;
mod granitehybrid;
mod granitemoe;
mod lfm2;
mod llama;
mod llama4;
mod minimax;
mod mistral3;
mod modern_bert;
mod nemotron_h;
mod olmo2;
mod phi3;
mod qwen;
mod qwen35;
mod qwen3moe;
mod seed_oss;
mod smollm3;

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
        name: "qwen35",
        configure: qwen35::configure,
    },
    Family {
        name: "qwen35moe",
        configure: qwen35::configure_moe,
    },
    Family {
        name: "qwen3next",
        configure: qwen35::configure_next,
    },
    Family {
        name: "lfm2",
        configure: lfm2::configure,
    },
    Family {
        name: "lfm2moe",
        configure: lfm2::configure_moe,
    },
    Family {
        name: "granitehybrid",
        configure: granitehybrid::configure,
    },
    Family {
        name: "nemotron_h",
        configure: nemotron_h::configure,
    },
    Family {
        name: "nemotron_h_moe",
        configure: nemotron_h::configure,
    },
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
        name: "deepseek2",
        configure: deepseek2::configure,
    },
    Family {
        name: "mistral3",
        configure: mistral3::configure,
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
        name: "nomic-bert-moe",
        configure: bert::configure_nomic_moe,
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
    Family {
        name: "granite",
        configure: granite::configure,
    },
    Family {
        name: "smollm3",
        configure: smollm3::configure,
    },
    Family {
        name: "olmo2",
        configure: olmo2::configure,
    },
    Family {
        name: "exaone4",
        configure: exaone4::configure,
    },
    Family {
        name: "seed_oss",
        configure: seed_oss::configure,
    },
    Family {
        name: "command-r",
        configure: command_r::configure_command_r,
    },
    Family {
        name: "cohere2",
        configure: command_r::configure_cohere2,
    },
    Family {
        name: "glm4",
        configure: glm4::configure,
    },
    Family {
        name: "gemma2",
        configure: gemma2::configure,
    },
    Family {
        name: "granitemoe",
        configure: granitemoe::configure,
    },
    Family {
        name: "ernie4_5-moe",
        configure: ernie::configure,
    },
    Family {
        name: "minimax-m2",
        configure: minimax::configure,
    },
    Family {
        name: "glm4moe",
        configure: glm4moe::configure,
    },
    Family {
        name: "llama4",
        configure: llama4::configure,
    },
    Family {
        name: "gpt-oss",
        configure: gpt_oss::configure,
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
            nearest: nearest(name),
            supported: names(),
        })
}

/// The supported name that is most like an unknown one, if any is.
fn nearest(name: &str) -> Option<&'static str> {
    let name: String = name.chars().take(64).collect();
    // A sibling's name goes on where the family's ends: qwen3 and qwen3vl.
    let begins = FAMILIES
        .iter()
        .map(|f| f.name)
        .filter(|known| name.starts_with(known));
    begins.max_by_key(|known| known.len()).or_else(|| {
        let distances = FAMILIES
            .iter()
            .map(|f| (strsim::damerau_levenshtein(f.name, &name), f.name));
        distances
            .min()
            .filter(|(distance, known)| *distance <= known.len() / 3)
            .map(|(_, known)| known)
    })
}
