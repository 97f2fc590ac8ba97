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

/// Reads a family's metadata.
type Configure = fn(&Keys<'_>, &ModelFile) -> Result<Config>;

/// A supported `general.architecture`.
pub(crate) struct Family {
    name: &'static str,
    pub(crate) configure: Configure,
}

const fn family(name: &'static str, configure: Configure) -> Family {
    Family { name, configure }
}

const FAMILIES: &[Family] = &[
    family("llama", llama::configure),
    family("mistral3", mistral3::configure),
    family("smollm3", smollm3::configure),
    family("granite", granite::configure),
    family("granitemoe", granitemoe::configure),
    family("granitehybrid", granitehybrid::configure),
    family("llama4", llama4::configure),
    family("qwen2", qwen::configure_qwen2),
    family("qwen3", qwen::configure_qwen3),
    family("qwen3moe", qwen3moe::configure),
    family("qwen3next", qwen35::configure_next),
    family("qwen35", qwen35::configure),
    family("qwen35moe", qwen35::configure_moe),
    family("gemma2", gemma2::configure),
    family("gemma3", gemma3::configure),
    family("gemma4", gemma4::configure),
    family("gemma-embedding", gemma_embedding::configure),
    family("phi3", phi3::configure),
    family("gpt-oss", gpt_oss::configure),
    family("deepseek2", deepseek2::configure),
    family("lfm2", lfm2::configure),
    family("lfm2moe", lfm2::configure_moe),
    family("glm4", glm4::configure),
    family("glm4moe", glm4moe::configure),
    family("minimax-m2", minimax::configure),
    family("ernie4_5-moe", ernie::configure),
    family("nemotron_h", nemotron_h::configure),
    family("nemotron_h_moe", nemotron_h::configure),
    family("olmo2", olmo2::configure),
    family("exaone4", exaone4::configure),
    family("seed_oss", seed_oss::configure),
    family("command-r", command_r::configure_command_r),
    family("cohere2", command_r::configure_cohere2),
    family("bert", bert::configure_bert),
    family("nomic-bert", bert::configure_nomic),
    family("nomic-bert-moe", bert::configure_nomic_moe),
    family("jina-bert-v2", bert::configure_jina_v2),
    family("jina-bert-v3", bert::configure_jina_v3),
    family("modern-bert", modern_bert::configure),
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
    let name: String = name.chars().take(64).collect::<String>().to_ascii_lowercase();
    let like = |most: fn(&str) -> usize| {
        let distances = FAMILIES
            .iter()
            .map(|f| (strsim::damerau_levenshtein(f.name, &name), f.name));
        distances
            .min()
            .filter(|(distance, known)| *distance <= most(known))
            .map(|(_, known)| known)
    };
    // A sibling's name goes on where the family's ends: qwen3 and qwen3vl. One wrong letter is a slip: qwen3mo.
    let begins = FAMILIES
        .iter()
        .map(|f| f.name)
        .filter(|known| name.starts_with(known));
    like(|_| 1)
        .or_else(|| begins.max_by_key(|known| known.len()))
        .or_else(|| like(|known| known.len() / 3))
}
