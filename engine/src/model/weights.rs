//! Weights bound by name: every tensor's type and shape checked against the configuration.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use super::config::{self, Config, OutputMatrix};
use super::encoder::Encoder;
use super::ffn::Ffn;
use super::mixer::Mixer;
use super::norm::{Norm, NormKind};
use super::per_layer::{LayerPart, PerLayer};
use super::pooling::Heads;
use super::unused;
use crate::gguf::{ModelFile, TensorInfo};
use crate::kernels::{ActFormat, Backend, PackedMatrix, Packing, Storage};
use crate::{Error, Result, quant};

/// A matrix with its optional scale and bias: y = W x, then * s in one product, then + b in one addition. The model
/// computes with nothing else.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: PackedMatrix,
    /// Of the whole product; what files with NVFP4 weights keep beside them.
    pub(crate) scale: Option<f32>,
    pub(crate) bias: Option<Vec<f32>>,
}

/// All weights of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: PackedMatrix,
    /// What is before the layers of an encoder.
    pub(crate) encoder: Option<Encoder>,
    pub(crate) per_layer: Option<PerLayer>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Option<Norm>,
    /// What makes logits.
    pub(crate) output: Option<Linear>,
    /// What is behind pooled hidden states.
    pub(crate) heads: Heads,
    /// The output matrix is the embedding.
    pub(crate) tied: bool,
    /// Bytes of all vectors: norms, biases, scales.
    pub(crate) vector_bytes: u64,
    /// What of the file was left out, a sentence each.
    pub(crate) notes: Vec<String>,
}

/// Weights of one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) mixer_norms: PartNorms,
    pub(crate) mixer: Mixer,
    pub(crate) ffn_norms: PartNorms,
    pub(crate) ffn: Ffn,
    pub(crate) per_layer: Option<LayerPart>,
    /// Factor of what the layer leaves.
    pub(crate) output_scale: Option<f32>,
}

impl Layer {
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let (mixer, ffn) = (self.mixer.linears(), self.ffn.linears());
        let per_layer = self.per_layer.iter().flat_map(LayerPart::linears);
        mixer.into_iter().chain(ffn).chain(per_layer)
    }
}

/// The norms around a part, where it has them.
#[derive(Debug)]
pub(crate) struct PartNorms {
    pub(crate) before: Option<Norm>,
    pub(crate) after: Option<Norm>,
    pub(crate) sum: Option<Norm>,
    pub(crate) sum_again: Option<Norm>,
}

/// What a matrix is to the model: where it lies may depend on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Every token is multiplied with it.
    Dense,
    /// Those of experts, one after the other: a token is multiplied with a few of them.
    Experts,
    /// Rows of it are looked up, and nothing is multiplied.
    Table,
}

/// Where a matrix comes from, once its type and shape are found to be what the configuration asks for.
pub(crate) trait Matrices {
    /// The matrix of a tensor of the file, all its rows.
    fn matrix(&self, info: &TensorInfo, role: Role) -> Result<PackedMatrix>;

    /// Told of each vector that the model uses.
    fn vector(&self, _name: &str) {}
}

/// Made from the file's bytes, one after the other.
pub(crate) struct FromFile<'a> {
    pub(crate) file: &'a ModelFile,
    pub(crate) backend: &'a dyn Backend,
    /// Where matrices lie, and experts.
    pub(crate) storages: (Storage, Storage),
    pub(crate) packing: Packing<'a>,
}

impl Matrices for FromFile<'_> {
    fn matrix(&self, info: &TensorInfo, role: Role) -> Result<PackedMatrix> {
        let bytes = self.file.tensor_bytes(&info.name)?;
        let (n, k) = (info.n_rows(), info.row_len());
        let packing = Packing {
            storage: role.storage(self.storages),
            matrix_rows: role.matrix_rows(info),
            ..self.packing
        };
        self.backend.pack(info.ty, n, k, bytes, &packing)
    }
}

impl Role {
    /// Where it lies, of two places: for most matrices, and for experts.
    pub(crate) fn storage(self, (dense, experts): (Storage, Storage)) -> Storage {
        match self {
            Role::Dense => dense,
            Role::Experts => experts,
            // It may be larger than all others, and a token reads one row.
            Role::Table => Storage::Mapped,
        }
    }

    /// Rows of one matrix of the tensor.
    pub(crate) fn matrix_rows(self, info: &TensorInfo) -> usize {
        match self {
            Role::Dense | Role::Table => info.n_rows(),
            Role::Experts => info.shape.get(1).copied().unwrap_or(1),
        }
    }
}

impl Weights {
    /// Binds all tensors that the configuration asks for. Vectors are read from `file`.
    ///
    /// # Errors
    /// `Tensor` naming one that is missing, that has another type or shape, or that the architecture has no use for.
    pub(crate) fn bind(
        file: &ModelFile,
        config: &Config,
        matrices: &dyn Matrices,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        if file.tensors().next().is_none() {
            return Err(Error::Tensor {
                tensor: EMBEDDING.into(),
                what: "the file has no tensors at all: it is a vocabulary, not a model".into(),
            });
        }
        let binder = Binder {
            file,
            matrices,
            bound: RefCell::default(),
            vector_bytes: Cell::new(0),
            done: Cell::new(0),
            total: file
                .tensors()
                .fold(0, |sum, tensor| sum.saturating_add(tensor.bytes)),
            progress: RefCell::new(progress),
        };
        let (n_embd, n_layers) = (config.n_embd, config.layers.len());
        let embedding = binder.matrix(EMBEDDING, config.n_vocab, n_embd)?;
        let tied = match config.output.matrix {
            OutputMatrix::Own | OutputMatrix::None => false,
            OutputMatrix::Embedding => true,
            OutputMatrix::OwnOrEmbedding => file.tensor("output.weight").is_none(),
        };
        let output = if config.output.matrix == OutputMatrix::None {
            None
        } else if tied {
            Some(Linear {
                weight: embedding.clone(),
                scale: None,
                bias: None,
            })
        } else {
            Some(Linear {
                weight: binder.matrix("output.weight", config.n_vocab, n_embd)?,
                scale: binder.scale("output")?,
                bias: match config.output.bias {
                    true => binder.bias("output", config.n_vocab)?,
                    false => None,
                },
            })
        };
        let encoder = config.encoder.as_ref();
        let encoder = encoder
            .map(|own| Encoder::bind(&binder, config, own))
            .transpose()?;
        let per_layer = config
            .per_layer
            .as_ref()
            .map(|own| PerLayer::bind(&binder, config, own))
            .transpose()?;
        let mut layers = Vec::new();
        for i in 0..n_layers {
            layers.push(binder.layer(config, i)?);
        }
        let output_norm = config.output.norm;
        let output_norm = output_norm.map(|name| binder.norm(name, config)).transpose()?;
        let heads = Heads::bind(&binder, config)?;
        let notes = unused::account(file, config, &binder.bound.take())?;
        binder.advance(u64::MAX);
        Ok(Weights {
            embedding,
            encoder,
            per_layer,
            layers,
            output_norm,
            output,
            heads,
            tied,
            vector_bytes: binder.vector_bytes.get(),
            notes,
        })
    }

    /// All matrices.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        let tables = self.per_layer.iter().map(PerLayer::table);
        let before = self.encoder.iter().flat_map(Encoder::matrices);
        self.multiplied().chain(before).chain(tables)
    }

    /// All but those of which only rows are looked up.
    fn multiplied(&self) -> impl Iterator<Item = &PackedMatrix> {
        let layers = self.layers.iter().flat_map(Layer::linears);
        let output = self.output.iter().filter(|_| !self.tied);
        let per_layer = self.per_layer.iter().map(PerLayer::linear);
        let linears = per_layer.chain(layers).chain(output).chain(self.heads.linears());
        std::iter::once(&self.embedding).chain(linears.map(|linear| &linear.weight))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.matrices().map(PackedMatrix::bytes).sum()
    }

    /// The forms of activations that its matrices multiply with.
    pub(crate) fn formats(&self) -> Vec<ActFormat> {
        let mut formats: Vec<ActFormat> = Vec::new();
        for matrix in self.multiplied() {
            if !formats.contains(&matrix.format()) {
                formats.push(matrix.format());
            }
        }
        formats
    }

    pub(crate) fn parameters(&self) -> usize {
        self.matrices().map(|m| m.n() * m.k()).sum()
    }
}

/// The token embedding; also the output matrix where there is no `output.weight`.
pub(crate) const EMBEDDING: &str = "token_embd.weight";

/// Finds tensors and checks them: what a part's `bind` takes its own from.
pub(super) struct Binder<'a> {
    file: &'a ModelFile,
    matrices: &'a dyn Matrices,
    /// Names of the tensors that the model uses.
    bound: RefCell<HashSet<String>>,
    /// Bytes of the vectors made so far.
    vector_bytes: Cell<u64>,
    /// Bytes bound so far, of all tensors' bytes.
    done: Cell<u64>,
    total: u64,
    progress: RefCell<&'a mut dyn FnMut(u64, u64)>,
}

impl Binder<'_> {
    fn layer(&self, config: &Config, i: usize) -> Result<Layer> {
        let prefix = format!("blk.{i}.");
        let first = format!("{prefix}attn_norm.weight");
        if !self.has(&first) && !self.file.tensors().any(|tensor| tensor.name.starts_with(&prefix)) {
            return Err(Error::Tensor {
                tensor: first,
                what: format!(
                    "it is missing from the file, as is all of layer {i}, but `{}.block_count` is {}",
                    config.arch,
                    config.layers.len()
                ),
            });
        }
        let layer = &config.layers[i];
        Ok(Layer {
            mixer: Mixer::bind(self, config, i)?,
            ffn: Ffn::bind(self, config, i)?,
            mixer_norms: self.norms(&prefix, &layer.mixer_norms, config)?,
            ffn_norms: self.norms(&prefix, &layer.ffn_norms, config)?,
            per_layer: match &config.per_layer {
                Some(own) => Some(LayerPart::bind(self, config, own, i)?),
                None => None,
            },
            output_scale: match layer.output_scale {
                true => self.factor(&format!("{prefix}layer_output_scale.weight"))?,
                false => None,
            },
        })
    }

    /// The norms around a part, by their names behind `prefix`.
    pub(super) fn norms(
        &self,
        prefix: &str,
        names: &config::PartNorms,
        config: &Config,
    ) -> Result<PartNorms> {
        let norm = |name: Option<&str>| {
            name.map(|name| self.norm(&format!("{prefix}{name}"), config))
                .transpose()
        };
        Ok(PartNorms {
            before: norm(names.before)?,
            after: norm(names.after)?,
            sum: norm(names.sum)?,
            sum_again: norm(names.sum_again)?,
        })
    }

    /// A norm of the residual stream, `NAME.weight` with `NAME.bias` where the file has it and layer norms have one.
    pub(super) fn norm(&self, name: &str, config: &Config) -> Result<Norm> {
        self.norm_of(name, config.n_embd, config.norm, config.norm_eps)
    }

    /// A norm of rows of `n`.
    pub(super) fn norm_of(&self, name: &str, n: usize, kind: NormKind, eps: f32) -> Result<Norm> {
        Ok(Norm {
            kind,
            weight: self.vector(&format!("{name}.weight"), n)?,
            bias: match kind {
                NormKind::Rms => None,
                NormKind::Layer => self.bias(name, n)?,
            },
            eps,
        })
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.get().saturating_add(bytes).min(self.total);
        self.done.set(done);
        (self.progress.borrow_mut())(done, self.total);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    pub(super) fn rows(&self, name: &str) -> usize {
        self.file.tensor(name).map_or(0, TensorInfo::n_rows)
    }

    /// `NAME.weight`, n x k, with `NAME.scale` and `NAME.bias` where the file has them.
    pub(super) fn linear(&self, name: &str, n: usize, k: usize) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), n, k)?;
        Ok(Linear {
            weight,
            scale: self.scale(name)?,
            bias: self.bias(name, n)?,
        })
    }

    /// As [`Self::linear`] for families that add no bias though files have one ([`super::unused`] knows of it).
    pub(super) fn linear_without_bias(&self, name: &str, n: usize, k: usize) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), n, k)?;
        Ok(Linear {
            weight,
            scale: self.scale(name)?,
            bias: None,
        })
    }

    /// One tensor that holds several matrices, one after the other in rows: views of it.
    pub(super) fn fused<const N: usize>(
        &self,
        name: &str,
        rows: [usize; N],
        k: usize,
    ) -> Result<[Linear; N]> {
        let n = rows.iter().sum();
        let whole = self.matrix(&format!("{name}.weight"), n, k)?;
        let (scale, bias) = (self.scale(name)?, self.bias(name, n)?);
        let mut parts = Vec::with_capacity(N);
        let mut start = 0;
        for n in rows {
            let range = start..start + n;
            let bias = bias.as_ref().map(|b| b[range.clone()].to_vec());
            parts.push(Linear {
                weight: whole.view(range)?,
                scale,
                bias,
            });
            start += n;
        }
        parts.try_into().map_err(|_| Error::Internal {
            what: "a fused tensor has another number of parts".into(),
        })
    }

    /// The error where a tensor is missing that may be part of another one.
    pub(super) fn neither(&self, name: &str, fused: &str) -> Error {
        Error::Tensor {
            tensor: name.into(),
            what: format!("it is missing from the file, as is `{fused}`"),
        }
    }

    pub(super) fn bias(&self, name: &str, n: usize) -> Result<Option<Vec<f32>>> {
        let name = format!("{name}.bias");
        self.has(&name).then(|| self.vector(&name, n)).transpose()
    }

    /// `NAME.scale`, one number, where the file has it. `NAME.input_scale` beside it is what others need who round
    /// activations to four bits with a fixed scale; here a scale is computed for each step of a row.
    pub(super) fn scale(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.scales(name, 1)?.map(|scales| scales[0]))
    }

    /// As [`Self::scale`], of `count` matrices.
    pub(super) fn scales(&self, name: &str, count: usize) -> Result<Option<Vec<f32>>> {
        self.bound.borrow_mut().insert(format!("{name}.input_scale"));
        self.factors(&format!("{name}.scale"), count)
    }

    /// Some numbers, all finite, where the file has them.
    fn factors(&self, name: &str, count: usize) -> Result<Option<Vec<f32>>> {
        if !self.has(name) {
            return Ok(None);
        }
        self.finite(name, count).map(Some)
    }

    /// One number, finite, where the file has it.
    fn factor(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.factors(name, 1)?.map(|factors| factors[0]))
    }

    /// A tensor that the file may have and that no logit depends on.
    pub(super) fn pass_over(&self, name: &str) {
        self.bound.borrow_mut().insert(name.into());
    }

    /// A vector whose values are all finite.
    pub(super) fn finite(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let values = self.vector(name, len)?;
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => Err(Error::Tensor {
                tensor: name.into(),
                what: format!("expected finite factors, found {value}"),
            }),
        }
    }

    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.vectors(name, 1, len)
    }

    /// `count` vectors, one after the other.
    pub(super) fn vectors(&self, name: &str, count: usize, len: usize) -> Result<Vec<f32>> {
        let values = vectors(self.file, name, count, len)?;
        let bytes = size_of_val(values.as_slice()) as u64;
        self.vector_bytes
            .set(self.vector_bytes.get().saturating_add(bytes));
        self.bound.borrow_mut().insert(name.into());
        self.matrices.vector(name);
        Ok(values)
    }

    fn matrix(&self, name: &str, n: usize, k: usize) -> Result<PackedMatrix> {
        self.matrices(name, Role::Dense, (1, n, k))
    }

    /// A matrix of which rows are looked up and nothing is multiplied.
    pub(super) fn table(&self, name: &str, n: usize, k: usize) -> Result<PackedMatrix> {
        self.matrices(name, Role::Table, (1, n, k))
    }

    /// The rows of `count` matrices of n x k.
    pub(super) fn matrices(
        &self,
        name: &str,
        role: Role,
        (count, n, k): (usize, usize, usize),
    ) -> Result<PackedMatrix> {
        let info = find(self.file, name)?;
        if !info.is_stack(count, n, k) {
            let expected = match count {
                1 => format!("[{k}, {n}]"),
                _ => format!("[{k}, {n}, {count}]"),
            };
            return Err(shape(name, &expected, info));
        }
        self.bound.borrow_mut().insert(name.into());
        let matrix = self.matrices.matrix(info, role);
        let matrix = matrix.map_err(|error| in_tensor(name, error))?;
        self.advance(info.bytes);
        Ok(matrix)
    }
}

/// A vector of `len` values as f32.
pub(crate) fn vector(file: &ModelFile, name: &str, len: usize) -> Result<Vec<f32>> {
    vectors(file, name, 1, len)
}

/// `count` vectors of `len` values, one after the other.
fn vectors(file: &ModelFile, name: &str, count: usize, len: usize) -> Result<Vec<f32>> {
    let info = find(file, name)?;
    if !info.ty.is_float() {
        let what = format!("expected type f32, f16 or bf16, found {}", info.ty.name());
        return Err(Error::Tensor {
            tensor: name.into(),
            what,
        });
    }
    if !info.is_matrix(count, len) {
        let expected = match count {
            1 => format!("[{len}]"),
            _ => format!("[{len}, {count}]"),
        };
        return Err(shape(name, &expected, info));
    }
    let mut out = vec![0.0; info.n_elements()];
    quant::decode(info.ty, &file.tensor_bytes(name)?, &mut out)?;
    Ok(out)
}

fn find<'a>(file: &'a ModelFile, name: &str) -> Result<&'a TensorInfo> {
    file.tensor(name).ok_or_else(|| Error::Tensor {
        tensor: name.into(),
        what: "it is missing from the file".into(),
    })
}

/// An error that names its tensor.
pub(crate) fn in_tensor(name: &str, error: Error) -> Error {
    match error {
        Error::Tensor { .. } | Error::Memory { .. } => error,
        other => Error::Tensor {
            tensor: name.into(),
            what: other.to_string(),
        },
    }
}

fn shape(name: &str, expected: &str, info: &TensorInfo) -> Error {
    let vocabulary = if name == EMBEDDING || name == "output.weight" {
        " (embedding_length, tokens in the vocabulary)"
    } else {
        ""
    };
    let what = format!(
        "the hyperparameters ask for the shape {expected}{vocabulary}, the file has {:?}",
        info.shape
    );
    Error::Tensor {
        tensor: name.into(),
        what,
    }
}
