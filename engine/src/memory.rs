//! Allocations whose size a file or a caller chose: a request that cannot be met is an error, not the end of the process.

use crate::{Error, Result};

/// `n` zeros of a buffer for `what`.
///
/// Room is asked for first and given back at once, because a vector of zeros cannot be asked for in a way that may fail
/// without writing to every page: `vec![0; n]` gets pages from the system that are zero already, and the thread that
/// uses one first places it.
///
/// # Errors
/// `Memory` if the allocator refuses.
pub(crate) fn zeros<T: Copy + Default>(what: &str, n: usize) -> Result<Vec<T>> {
    drop(room::<T>(what, n)?);
    Ok(vec![T::default(); n])
}

/// As [`zeros`], `rows` rows of `width`.
pub(crate) fn zero_rows<T: Copy + Default>(what: &str, rows: usize, width: usize) -> Result<Vec<T>> {
    match rows.checked_mul(width) {
        Some(n) => zeros(what, n),
        None => Err(refused::<T>(what, (rows as u64).saturating_mul(width as u64))),
    }
}

/// An empty vector with room for `n`.
///
/// # Errors
/// `Memory` if the allocator refuses.
pub(crate) fn room<T>(what: &str, n: usize) -> Result<Vec<T>> {
    let mut out = Vec::new();
    match out.try_reserve_exact(n) {
        Ok(()) => Ok(out),
        Err(_) => Err(refused::<T>(what, n as u64)),
    }
}

fn refused<T>(what: &str, n: u64) -> Error {
    Error::Memory {
        what: what.into(),
        bytes: n.saturating_mul(size_of::<T>() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert_eq!(zeros::<f32>("x", 3), Ok(vec![0.0; 3]));
        assert_eq!(zero_rows::<u16>("x", 2, 3), Ok(vec![0; 6]));
        for n in [1usize << 50, usize::MAX / 8, usize::MAX] {
            let bytes = (n as u64).saturating_mul(8);
            let expected = Error::Memory {
                what: "x".into(),
                bytes,
            };
            assert_eq!(zeros::<u64>("x", n), Err(expected.clone()));
            assert_eq!(room::<u64>("x", n).map(drop), Err(expected));
        }
        let overflow = zero_rows::<u8>("x", usize::MAX, usize::MAX);
        assert!(matches!(overflow, Err(Error::Memory { bytes: u64::MAX, .. })));
    }
}
