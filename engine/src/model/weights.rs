//! Weights bound by name: every tensor's type and shape checked against the configuration.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use super::config::{self, Config, OutputMatrix};
use super::encoder::Encoder;
use super::ffn::Ffn;
use super::mixer::Mixer;
use super::norm::{Norm, NormKind};
use super::pooling::Heads;
use super::unused;
use crate::gguf::{ModelFile, TensorInfo};
use crate::kernels::{ActFormat, Backend, PackedMatrix, Packing};
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
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Option<Norm>,
    /// What makes logits.
    pub(crate) output: Option<Linear>,
    /// What is behind pooled hidden states.
    pub(crate) heads: Heads,
    /// The output matrix is the embedding.
    tied: bool,
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
}

/// The norms around a part, where it has them.
#[derive(Debug)]
pub(crate) struct PartNorms {
    pub(crate) before: Option<Norm>,
    pub(crate) after: Option<Norm>,
    pub(crate) sum: Option<Norm>,
    pub(crate) sum_again: Option<Norm>,
}

/// Where a matrix comes from, once its type and shape are found to be what the configuration asks for.
pub(crate) trait Matrices {
    /// The matrix of a tensor of the file, all its rows.
    fn matrix(&self, info: &TensorInfo) -> Result<PackedMatrix>;
}

/// Made from the file's bytes, one after the other.
pub(crate) struct FromFile<'a> {
    pub(crate) file: &'a ModelFile,
    pub(crate) backend: &'a dyn Backend,
    pub(crate) packing: Packing<'a>,
}

impl Matrices for FromFile<'_> {
    fn matrix(&self, info: &TensorInfo) -> Result<PackedMatrix> {
        let bytes = self.file.tensor_bytes(&info.name)?;
        let (n, k) = (info.n_rows(), info.row_len());
        self.backend.pack(info.ty, n, k, bytes, &self.packing)
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
            layers,
            output_norm,
            output,
            heads,
            tied,
            vector_bytes: binder.vector_bytes.get(),
            notes,
        })
    }

    pub(crate) fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        let layers = self
            .layers
            .iter()
            .flat_map(|layer| layer.mixer.linears().into_iter().chain(layer.ffn.linears()));
        let output = self.output.iter().filter(|_| !self.tied);
        let linears = layers.chain(output).chain(self.heads.linears());
        let before = self.encoder.iter().flat_map(Encoder::matrices);
        std::iter::once(&self.embedding)
            .chain(before)
            .chain(linears.map(|linear| &linear.weight))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.matrices().map(PackedMatrix::bytes).sum()
    }

    /// The forms of activations that its matrices multiply with.
    pub(crate) fn formats(&self) -> Vec<ActFormat> {
        let mut formats: Vec<ActFormat> = Vec::new();
        for matrix in self.matrices() {
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
const EMBEDDING: &str = "token_embd.weight";

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
        if !self.file.tensors().any(|tensor| tensor.name.starts_with(&prefix)) {
            return Err(Error::Tensor {
                tensor: format!("{prefix}attn_norm.weight"),
                what: format!(
                    "it is missing from the file, as is all of layer {i}, but `{}.block_count` is {}",
                    config.arch,
                    config.layers.len()
                ),
            });
        }
        let norm = |name: Option<&str>| {
            name.map(|name| self.norm(&format!("{prefix}{name}"), config))
                .transpose()
        };
        let norms = |names: &config::PartNorms| {
            Ok(PartNorms {
                before: norm(names.before)?,
                after: norm(names.after)?,
                sum: norm(names.sum)?,
                sum_again: norm(names.sum_again)?,
            })
        };
        let layer = &config.layers[i];
        Ok(Layer {
            mixer: Mixer::bind(self, config, i)?,
            ffn: Ffn::bind(self, config, i)?,
            mixer_norms: norms(&layer.mixer_norms)?,
            ffn_norms: norms(&layer.ffn_norms)?,
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
        parts.try_into().map_err(|_| Error::InvalidInput {
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
    fn scale(&self, name: &str) -> Result<Option<f32>> {
        self.bound.borrow_mut().insert(format!("{name}.input_scale"));
        let name = format!("{name}.scale");
        if !self.has(&name) {
            return Ok(None);
        }
        let scale = self.vector(&name, 1)?[0];
        if !scale.is_finite() {
            return Err(Error::Tensor {
                tensor: name,
                what: format!("expected a finite factor, found {scale}"),
            });
        }
        Ok(Some(scale))
    }

    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let values = vector(self.file, name, len)?;
        let bytes = size_of_val(values.as_slice()) as u64;
        self.vector_bytes
            .set(self.vector_bytes.get().saturating_add(bytes));
        self.bound.borrow_mut().insert(name.into());
        Ok(values)
    }

    /// A matrix that only gives out rows, or that [`Self::linear`] multiplies with.
    pub(super) fn matrix(&self, name: &str, n: usize, k: usize) -> Result<PackedMatrix> {
        let info = find(self.file, name)?;
        if !info.is_matrix(n, k) {
            return Err(shape(name, &format!("[{k}, {n}]"), info));
        }
        self.bound.borrow_mut().insert(name.into());
        let matrix = self.matrices.matrix(info).map_err(|e| in_tensor(name, e))?;
        self.advance(info.bytes);
        Ok(matrix)
    }
}

/// A vector of `len` values as f32.
pub(crate) fn vector(file: &ModelFile, name: &str, len: usize) -> Result<Vec<f32>> {
    let info = find(file, name)?;
    if !info.ty.is_float() {
        let what = format!("expected type f32, f16 or bf16, found {}", info.ty.name());
        return Err(Error::Tensor {
            tensor: name.into(),
            what,
        });
    }
    if info.row_len() != len || info.n_rows() != 1 {
        return Err(shape(name, &format!("[{len}]"), info));
    }
    let mut out = vec![0.0; len];
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
