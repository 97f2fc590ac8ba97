//! A model's headers together with its bytes, however they are held.

use std::collections::HashMap;

use super::{Gguf, GgufSet, Limits, Metadata, TensorInfo, split};
use crate::memory::Bytes;
use crate::{Error, Result};

/// A model whose files are at hand as bytes: mapped, read or embedded. Cheap to clone in its bytes, not in its headers.
#[derive(Debug, Clone)]
pub struct ModelFile {
    set: GgufSet,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    /// The whole files.
    Parts(Vec<Bytes>),
    /// Some tensors' data by name: what a stream kept.
    Tensors(HashMap<String, Bytes>),
}

impl ModelFile {
    /// Parses each part, in order; a model that is not split is one part. Tensor data is checked to lie inside.
    pub fn from_parts(parts: Vec<Bytes>) -> Result<Self> {
        Self::with_limits(parts, Limits::default())
    }

    /// As [`Self::from_parts`], with limits of your own.
    pub fn with_limits(parts: Vec<Bytes>, limits: Limits) -> Result<Self> {
        let headers = parts
            .iter()
            .enumerate()
            .map(|(i, part)| {
                Gguf::parse_with(part, limits).map_err(|error| split::in_part(i, parts.len(), error))
            })
            .collect::<Result<Vec<_>>>()?;
        if let ([part], [header]) = (parts.as_slice(), headers.as_slice()) {
            check_not_joined(header, part)?;
        }
        Ok(ModelFile {
            set: GgufSet::new(headers)?,
            data: Data::Parts(parts),
        })
    }

    /// Headers without data: enough for what a model is and what it will take, not to load it.
    ///
    /// # Errors
    /// Parts that do not belong together.
    pub fn from_headers(headers: Vec<Gguf>) -> Result<Self> {
        Ok(Self::from_tensors(GgufSet::new(headers)?, HashMap::new()))
    }

    /// Headers with the data of some tensors: what a stream kept of a model. The others are as if not there to read.
    pub fn from_tensors(set: GgufSet, tensors: HashMap<String, Bytes>) -> Self {
        ModelFile {
            set,
            data: Data::Tensors(tensors),
        }
    }

    /// The headers alone.
    pub(crate) fn into_set(self) -> GgufSet {
        self.set
    }

    /// The headers.
    pub fn set(&self) -> &GgufSet {
        &self.set
    }

    /// The files' bytes, in order; none where only tensors are at hand.
    pub fn parts(&self) -> &[Bytes] {
        match &self.data {
            Data::Parts(parts) => parts,
            Data::Tensors(_) => &[],
        }
    }

    /// The model's metadata.
    pub fn metadata(&self) -> &Metadata {
        self.set.metadata()
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.set.tensor(name).map(|(_, tensor)| tensor)
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.set.tensors().map(|(_, tensor)| tensor)
    }

    /// The data of the tensor of this name: `TensorInfo::bytes` bytes, not copied.
    pub fn tensor_bytes(&self, name: &str) -> Result<Bytes> {
        let outside = |what: &str| Error::Tensor {
            tensor: name.into(),
            what: what.into(),
        };
        let (part, tensor) = self
            .set
            .tensor(name)
            .ok_or_else(|| outside("the model has no such tensor"))?;
        let bytes = match &self.data {
            Data::Parts(parts) => parts.get(part).ok_or_else(|| outside("its file is missing"))?,
            Data::Tensors(tensors) => {
                let kept = tensors.get(name).filter(|kept| kept.len() as u64 == tensor.bytes);
                return kept.cloned().ok_or_else(|| outside("its data was not kept"));
            }
        };
        match (usize::try_from(tensor.offset), usize::try_from(tensor.end())) {
            (Ok(start), Ok(end)) => bytes.slice(start..end),
            _ => Err(outside("its data is beyond the address space")),
        }
    }
}

/// Refuses the parts of a split model that were joined with `cat`: the first one's header is found, the others' tensors
/// are not.
fn check_not_joined(header: &Gguf, bytes: &[u8]) -> Result<()> {
    let count = split::split_count(header)?;
    if count == 1 || !header.is_followed_by_another(bytes) {
        return Ok(());
    }
    Err(Error::Split {
        what: format!(
            "the {count} parts of a split model were joined with `cat`, which makes no readable file; give the parts \
             as they were (NAME-00001-of-{count:05}.gguf and so on, in one directory), or join them with \
             `llama-gguf-split --merge`"
        ),
    })
}
