//! What callers hold instead of a sequence or a checkpoint. [`batch`](crate::batch) names sequences by it and
//! [`cache`](crate::cache) finds them, so it lies below both.

/// Names a sequence of one context. It stays valid until the sequence is closed; afterwards, and in another context, it
/// is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeqId(pub(crate) Handle);

/// Names a checkpoint of one context: what a sequence was at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckpointId(pub(crate) Handle);

/// Where something lies, and who may ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Handle {
    /// Of the process: no two contexts have the same one.
    pub(crate) context: u32,
    pub(crate) slot: u32,
    /// How often the slot had been used before.
    pub(crate) generation: u32,
}
