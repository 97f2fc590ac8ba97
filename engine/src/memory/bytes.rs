//! A cheap handle to bytes that something else owns: a memory map, a vector, a slice in the program.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::{Error, Result};

/// What holds bytes for [`Bytes`].
pub trait Owner: Send + Sync {
    /// The bytes: the same ones each time.
    fn bytes(&self) -> &[u8];

    /// Bytes that nobody will read soon. They stay readable; an owner that can fetch them again (a map of a file) may
    /// give their memory back meanwhile. Others do nothing.
    fn release(&self, range: Range<usize>) {
        let _ = range;
    }
}

/// An owner that has nothing to give back.
struct Plain<T>(T);

impl<T: AsRef<[u8]> + Send + Sync> Owner for Plain<T> {
    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// Bytes shared without copying. A clone or a [`slice`](Bytes::slice) keeps the owner alive and costs a reference
/// count. Reading goes through the owner: hold the `&[u8]` over a loop, not the handle.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn Owner>,
    range: Range<usize>,
}

impl Bytes {
    /// Bytes that live as long as the program, such as an embedded model.
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self::from_owner(bytes)
    }

    /// The bytes of a vector.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self::from_owner(bytes)
    }

    /// The bytes of anything that holds some.
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::owned_by(Plain(owner))
    }

    /// The bytes of an owner that may give memory back, such as a memory map.
    pub fn owned_by(owner: impl Owner + 'static) -> Self {
        let range = 0..owner.bytes().len();
        Bytes {
            owner: Arc::new(owner),
            range,
        }
    }

    /// Tells the owner that nobody will read a part of these bytes soon; see [`Owner::release`]. A part that is not
    /// inside is cut.
    pub fn release(&self, range: Range<usize>) {
        let len = self.range.len();
        let (start, end) = (range.start.min(len), range.end.min(len));
        if start < end {
            self.owner
                .release(self.range.start + start..self.range.start + end);
        }
    }

    /// A part of these bytes, with the same owner; an error where `range` is not inside.
    pub fn slice(&self, range: Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return Err(Error::InvalidInput {
                what: format!(
                    "bytes {}..{} are not inside a range of {}",
                    range.start,
                    range.end,
                    self.range.len()
                ),
            });
        }
        Ok(Bytes {
            owner: Arc::clone(&self.owner),
            range: self.range.start + range.start..self.range.start + range.end,
        })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // An owner whose slice shrinks is not a panic here; what reads too few bytes says so.
        self.owner.bytes().get(self.range.clone()).unwrap_or(&[])
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_vec(bytes)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.range.len())
    }
}
