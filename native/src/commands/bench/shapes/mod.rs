//! Shapes of well-known models, from their published configurations: metadata and tensors as converted files have them.
//! `table` has a row or a function for each, `encoders` those of encoders, `parts` the tensors of each kind of part.

mod encoders;
mod parts;
mod table;

use std::collections::HashSet;
use std::mem::{Discriminant, discriminant};

use anyhow::{Result, bail};
use twinfer_engine::gguf::{Array, Value};

use parts::{Ffn, Layer, Mixer};
pub(super) use parts::{Fill, Tensor};
use table::SHAPES;

/// A model's shape, by name.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// Layers of the published model.
    n_layers: usize,
    /// With so many of them.
    build: Build,
}

#[derive(Debug)]
enum Build {
    Dense(table::Dense),
    By(fn(usize) -> Model),
}

/// What a shape is: all that a file of it says beside its weights.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) arch: &'static str,
    pub(super) n_embd: usize,
    pub(super) n_vocab: usize,
    pub(super) vocabulary: Vocabulary,
    /// The mix that its published files have, and that it has unless another one is asked for.
    pub(super) mix: &'static str,
    /// Metadata of the architecture, without `ARCH.`, but for what all have.
    keys: Vec<(&'static str, Value)>,
    n_ctx_train: usize,
    layers: Vec<Layer>,
    output: Output,
    /// Tensors that belong to no layer, but for the embedding and the output.
    others: Vec<Tensor>,
}

/// What makes logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// A matrix of its own.
    Own,
    /// The token embedding.
    Embedding,
    /// Nothing: the model makes vectors.
    None,
}

/// The kind of a made-up vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// GPT-2's, with this pre-tokenizer.
    BytePairs(&'static str),
    /// Byte pairs in SentencePiece's spelling.
    Gemma4,
    SentencePieces,
    /// BERT's.
    WordPieces,
    /// SentencePiece's unigrams.
    Unigrams,
}

impl Shape {
    /// All of it, or its first `n_layers` layers.
    ///
    /// # Errors
    /// More layers than the model has, or so few that a kind of layer is missing.
    pub(super) fn model(&self, n_layers: Option<usize>) -> Result<Model> {
        let build = |n| match &self.build {
            Build::Dense(dense) => dense.model(self.name, n),
            Build::By(build) => build(n),
        };
        let whole = build(self.n_layers);
        let Some(n) = n_layers else { return Ok(whole) };
        let kinds = |layers: &[Layer]| -> HashSet<(Discriminant<Mixer>, Discriminant<Ffn>)> {
            layers
                .iter()
                .map(|layer| (discriminant(&layer.mixer), discriminant(&layer.ffn)))
                .collect()
        };
        let all = kinds(&whole.layers);
        let least = (1..=self.n_layers)
            .find(|&n| kinds(&whole.layers[..n]).len() == all.len())
            .unwrap_or(self.n_layers);
        if !(least..=self.n_layers).contains(&n) {
            let (name, most) = (self.name, self.n_layers);
            bail!(
                "--layers: {name} has every kind of its {most} layers among the first {least}; expected {least} to \
                 {most}, found {n}"
            );
        }
        Ok(build(n))
    }
}

impl Model {
    pub(super) fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// Metadata of the architecture, without `ARCH.`.
    pub(super) fn keys(&self) -> Vec<(&'static str, Value)> {
        let mut keys = vec![
            ("vocab_size", number(self.n_vocab)),
            ("context_length", number(self.n_ctx_train)),
            ("embedding_length", number(self.n_embd)),
            ("block_count", number(self.n_layers())),
        ];
        keys.extend(self.keys.iter().cloned());
        if let Some(experts) = self.layers.iter().find_map(|layer| layer.ffn.experts()) {
            keys.push(("expert_count", number(experts.n)));
            keys.push(("expert_used_count", number(experts.n_used)));
        }
        keys
    }

    /// All tensors, layer by layer.
    pub(super) fn tensors(&self) -> Vec<Tensor> {
        let mut out = vec![Tensor::new("token_embd.weight", &[self.n_embd, self.n_vocab])];
        for (i, layer) in self.layers.iter().enumerate() {
            out.extend(layer.tensors(self.n_embd).into_iter().map(|tensor| Tensor {
                name: format!("blk.{i}.{}", tensor.name),
                ..tensor
            }));
        }
        out.extend(self.others.iter().cloned());
        if self.output == Output::Own {
            out.push(Tensor::new("output.weight", &[self.n_embd, self.n_vocab]));
        }
        out
    }

    /// Kinds of segments that its tokens are told apart by.
    pub(super) fn token_types(&self) -> Option<u32> {
        let tensor = self
            .others
            .iter()
            .find(|tensor| tensor.name == "token_types.weight")?;
        u32::try_from(*tensor.shape.last()?).ok()
    }

    /// Weights in its matrices, and those of them that a token is multiplied with.
    pub(super) fn parameters(&self) -> (usize, usize) {
        let experts = self.layers.iter().find_map(|layer| layer.ffn.experts());
        let (mut all, mut active) = (0, 0);
        for tensor in self.tensors() {
            let n: usize = tensor.shape.iter().product();
            if tensor.shape.len() < 2 {
                continue;
            }
            all += n;
            let by_row = tensor.name == "token_embd.weight" && self.output != Output::Embedding
                || matches!(
                    tensor.name.as_str(),
                    "per_layer_token_embd.weight" | "position_embd.weight" | "token_types.weight"
                );
            active += match experts {
                _ if by_row => tensor.shape[0],
                Some(experts) if tensor.name.contains("_exps.") => n / experts.n * experts.n_used,
                _ => n,
            };
        }
        (all, active)
    }
}

/// The shape of this name.
pub(super) fn find(name: &str) -> Result<&'static Shape> {
    match SHAPES.iter().find(|shape| shape.name.eq_ignore_ascii_case(name)) {
        Some(shape) => Ok(shape),
        None => {
            let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
            bail!("there is no shape `{name}`; there are {}", names.join(", "))
        }
    }
}

/// All shapes, one a line.
pub(super) fn list() -> Result<String> {
    let mut out = String::new();
    for shape in SHAPES {
        let model = shape.model(None)?;
        let (all, active) = model.parameters();
        let billions = |n: usize| n as f64 / 1e9;
        out += &format!(
            "{:16} {:13} {:>7.2} B parameters",
            shape.name,
            model.arch,
            billions(all)
        );
        if model.layers.iter().any(|layer| layer.ffn.experts().is_some()) {
            out += &format!(" ({:.2} B active)", billions(active));
        }
        out += &format!(", {} layers, width {}\n", model.n_layers(), model.n_embd);
    }
    Ok(out)
}

fn number(n: usize) -> Value {
    Value::U32(u32::try_from(n).unwrap_or(u32::MAX))
}

fn numbers(all: impl Iterator<Item = usize>) -> Value {
    let all = all.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
    Value::Array(Array::I32(all.collect()))
}

#[cfg(test)]
mod tests;
