//! Limits of the parser: what a header may ask for before it is refused.
//!
//! They bound memory and time. Memory stays proportional to the header bytes that arrived, whatever the counts in
//! them claim; the limits bound those bytes, and the small records that each name brings with it.

/// Limits of [`Parser`](super::Parser). The default serves every model file known; a server that takes files from
/// strangers may lower them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes before the tensor data. Default 256 MiB: the largest vocabularies known (262,144 tokens with their
    /// merges) take about 20 MiB.
    pub header_bytes: u64,
    /// Number of metadata keys. Default 65,536.
    pub keys: u64,
    /// Bytes of a key. Default 65,535, the specification's own limit.
    pub key_bytes: u64,
    /// Depth of arrays in arrays; 1 is an array of scalars or strings. Default 4.
    pub array_depth: usize,
    /// Number of tensors. Default 131,072: large mixtures of experts whose experts are stored one by one have about
    /// 50,000.
    pub tensors: u64,
    /// Bytes of a tensor's name. Default 255. The specification says 64, which some writers exceed.
    pub tensor_name_bytes: u64,
    /// `general.alignment`, in bytes. Default 2 MiB, one huge page.
    pub alignment: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_bytes: 256 << 20,
            keys: 1 << 16,
            key_bytes: u16::MAX as u64,
            array_depth: 4,
            tensors: 1 << 17,
            tensor_name_bytes: 255,
            alignment: 2 << 20,
        }
    }
}
