//! How cached numbers are stored: the formats of keys and values, where a vector lies in a page, and its rounding.

use std::ops::Range;

use crate::kernels::{BLOCK, Backend, KvData, MAX_HEAD_DIM, q8_page_len};
use crate::memory::Buffers;
use crate::{Error, Result};

/// Number format of cached keys or values. They are rounded to it before any use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// 32-bit floats.
    F32,
    /// Half precision: the default.
    #[default]
    F16,
    /// int8 with a scale in half precision per 32 numbers of a position. Head dimensions must be multiples of 32.
    Q8_0,
}

impl CacheType {
    /// All types, with the names that the command line takes.
    pub const ALL: [(CacheType, &'static str); 3] = [
        (CacheType::F32, "f32"),
        (CacheType::F16, "f16"),
        (CacheType::Q8_0, "q8_0"),
    ];

    /// The type's name.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
        }
    }
}

/// Cached numbers of one layer, keys or values.
#[derive(Debug)]
pub(crate) enum Store {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Q8(Vec<u8>),
}

impl Store {
    /// `pages` pages of vectors of `dim`, which are the keys or the values (`what`) of a layer.
    pub(super) fn make(
        ty: CacheType,
        pages: usize,
        dim: usize,
        what: &'static str,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        Ok(match ty {
            CacheType::F32 => Store::F32(buffers.cached(what, pages, f32::page_len(dim))?),
            CacheType::F16 => Store::F16(buffers.cached(what, pages, u16::page_len(dim))?),
            CacheType::Q8_0 if dim.is_multiple_of(32) => {
                Store::Q8(buffers.cached(what, pages, u8::page_len(dim))?)
            }
            CacheType::Q8_0 => {
                return Err(Error::InvalidInput {
                    what: format!(
                        "{what} of {dim} numbers cannot be cached as q8_0, which has blocks of 32; use f16 or f32"
                    ),
                });
            }
        })
    }

    /// All of its memory.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Store::F32(v) => bytemuck::cast_slice(v),
            Store::F16(v) => bytemuck::cast_slice(v),
            Store::Q8(v) => v,
        }
    }

    /// As [`Self::bytes`], to write to.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Store::F32(v) => bytemuck::cast_slice_mut(v),
            Store::F16(v) => bytemuck::cast_slice_mut(v),
            Store::Q8(v) => v,
        }
    }

    /// Bytes of a page of vectors of `dim`.
    pub(super) fn page_bytes(ty: CacheType, dim: usize) -> usize {
        match ty {
            CacheType::F32 => size_of::<f32>() * f32::page_len(dim),
            CacheType::F16 => size_of::<u16>() * u16::page_len(dim),
            CacheType::Q8_0 => u8::page_len(dim),
        }
    }

    /// As [`Self::page_bytes`], in its own type.
    pub(super) fn own_page_bytes(&self, dim: usize) -> usize {
        let ty = match self {
            Store::F32(_) => CacheType::F32,
            Store::F16(_) => CacheType::F16,
            Store::Q8(_) => CacheType::Q8_0,
        };
        Self::page_bytes(ty, dim)
    }

    /// Makes page `to` equal to page `from`.
    pub(super) fn copy_page(&mut self, from: usize, to: usize, dim: usize) {
        match self {
            Store::F32(v) => v.copy_within(of::<f32>(from, dim), of::<f32>(to, dim).start),
            Store::F16(v) => v.copy_within(of::<u16>(from, dim), of::<u16>(to, dim).start),
            Store::Q8(v) => v.copy_within(of::<u8>(from, dim), of::<u8>(to, dim).start),
        }
    }

    pub(super) fn page(&self, page: usize, dim: usize) -> KvData<'_> {
        match self {
            Store::F32(v) => KvData::F32(&v[of::<f32>(page, dim)]),
            Store::F16(v) => KvData::F16(&v[of::<u16>(page, dim)]),
            Store::Q8(v) => KvData::Q8(&v[of::<u8>(page, dim)]),
        }
    }
}

/// Elements of a page.
fn of<T: Stored>(page: usize, dim: usize) -> Range<usize> {
    page * T::page_len(dim)..(page + 1) * T::page_len(dim)
}

/// An element of a page, and how a row of keys or values becomes some of them.
pub(crate) trait Stored: Copy + Send {
    /// Elements of a page of vectors of `dim`.
    fn page_len(dim: usize) -> usize {
        dim * BLOCK
    }

    /// Rounds a vector and puts it at `position` of a page. False if a number is not finite as stored, so that no
    /// reader of the cache meets one.
    fn put<const KEYS: bool>(
        backend: &dyn Backend,
        page: &mut [Self],
        position: usize,
        values: &[f32],
    ) -> bool;
}

/// Keys lie d-major, values position-major.
fn put_numbers<T: Copy, const KEYS: bool>(page: &mut [T], position: usize, values: &[T]) {
    if KEYS {
        for (row, value) in page.chunks_exact_mut(BLOCK).zip(values) {
            row[position] = *value;
        }
    } else {
        page[position * values.len()..(position + 1) * values.len()].copy_from_slice(values);
    }
}

impl Stored for f32 {
    fn put<const KEYS: bool>(_: &dyn Backend, page: &mut [f32], position: usize, values: &[f32]) -> bool {
        let finite = values.iter().all(|v| v.is_finite());
        if finite {
            put_numbers::<_, KEYS>(page, position, values);
        }
        finite
    }
}

impl Stored for u16 {
    fn put<const KEYS: bool>(
        backend: &dyn Backend,
        page: &mut [u16],
        position: usize,
        values: &[f32],
    ) -> bool {
        let mut halves = [0u16; MAX_HEAD_DIM];
        let halves = &mut halves[..values.len()];
        let finite = backend.to_halves(values, halves);
        if finite {
            put_numbers::<_, KEYS>(page, position, halves);
        }
        finite
    }
}

/// q8_0: the page's two parts are described at [`KvData::Q8`].
impl Stored for u8 {
    fn page_len(dim: usize) -> usize {
        q8_page_len(dim)
    }

    fn put<const KEYS: bool>(
        backend: &dyn Backend,
        page: &mut [u8],
        position: usize,
        values: &[f32],
    ) -> bool {
        const MOST: usize = MAX_HEAD_DIM / 32;
        let dim = values.len();
        let steps = dim / 32;
        let (mut q, mut d) = ([0i8; MAX_HEAD_DIM], [0.0f32; MOST]);
        let (mut sums, mut halves) = ([0i16; 2 * MOST], [0u16; MOST]);
        let (q, d, halves) = (&mut q[..dim], &mut d[..steps], &mut halves[..steps]);
        if !backend.quantize(32, values, q, d, &mut sums[..2 * steps]) || !backend.to_halves(d, halves) {
            return false;
        }
        let (quants, scales) = page.split_at_mut(BLOCK * dim);
        let (quads, scales) = (quants.as_chunks_mut::<4>().0, scales.as_chunks_mut::<2>().0);
        for (i, q) in q.as_chunks::<4>().0.iter().enumerate() {
            let slot = if KEYS {
                i * BLOCK + position
            } else {
                position * (dim / 4) + i
            };
            quads[slot] = q.map(|q| q as u8);
        }
        for (i, half) in halves.iter().enumerate() {
            let slot = if KEYS {
                i * BLOCK + position
            } else {
                position * steps + i
            };
            scales[slot] = half.to_le_bytes();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::select;

    /// Number `d` of position `j` of a page of keys or values.
    fn read(page: &[u8], keys: bool, dim: usize, (j, d): (usize, usize)) -> f32 {
        let (quant, scale) = if keys {
            ((d / 4 * BLOCK + j) * 4 + d % 4, d / 32 * BLOCK + j)
        } else {
            (j * dim + d, j * (dim / 32) + d / 32)
        };
        let at = BLOCK * dim + 2 * scale;
        half::f16::from_le_bytes([page[at], page[at + 1]]).to_f32() * f32::from(page[quant] as i8)
    }

    fn put(keys: bool, page: &mut [u8], position: usize, values: &[f32]) -> bool {
        let backend = select::choose(Some("scalar")).unwrap();
        if keys {
            u8::put::<true>(backend, page, position, values)
        } else {
            u8::put::<false>(backend, page, position, values)
        }
    }

    #[test]
    fn q8_0_keeps_numbers_to_half_a_unit() {
        let dim = 96;
        for keys in [true, false] {
            let mut page = vec![0u8; u8::page_len(dim)];
            let value = |j: usize, d: usize| ((j * 31 + d * 7) % 101) as f32 - 50.0;
            for j in 0..BLOCK {
                let values: Vec<f32> = (0..dim).map(|d| value(j, d)).collect();
                assert!(put(keys, &mut page, j, &values));
            }
            for j in 0..BLOCK {
                for d in 0..dim {
                    // Half a unit, which is the scale, and what the scale loses in half precision.
                    let bound = 50.0 / 127.0 * 0.5 + 50.0 / 2048.0;
                    assert!((read(&page, keys, dim, (j, d)) - value(j, d)).abs() <= bound);
                }
            }
        }
    }

    #[test]
    fn q8_0_refuses_what_its_scale_cannot_hold() {
        let mut page = vec![0u8; u8::page_len(32)];
        let largest = 65504.0 * 127.0;
        for (value, finite) in [
            (largest, true),
            (-largest, true),
            // The scale would round to infinity.
            (65520.0 * 127.0, false),
            (f32::MAX, false),
            (f32::NAN, false),
            (f32::INFINITY, false),
            (1e-30, true),
        ] {
            let mut values = [0.5f32; 32];
            values[9] = value;
            assert_eq!(put(true, &mut page, 3, &values), finite, "{value}");
        }
    }
}
