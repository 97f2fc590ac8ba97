//! Scalar definitions of what layers with a state compute, position by position. Columns of a state do not depend on
//! one another: a compiler may take as many at a time as an instruction set has lanes. Sums over the rows of a state
//! are sequential.
//!
//! Other backends compile these loops for their instruction set, so the widths that real models have are known there.

use crate::kernels::CONV_WIDTH;

/// Columns of a state whose sums fill enough registers that their latency does not show; and what is left of other
/// widths.
const WIDE: usize = 32;
const NARROW: usize = 16;

/// Columns that the state of a head with `width` of them is cut into: the widest of those that divide it.
pub(in crate::kernels) fn block_width(width: usize) -> usize {
    let divides = |columns: &usize| width.is_multiple_of(*columns);
    [WIDE, NARROW].into_iter().find(divides).unwrap_or(width)
}

/// See [`crate::kernels::Backend::conv_row`].
#[inline(always)]
pub(in crate::kernels) fn conv_row(
    recent: &mut [f32],
    x: &[f32],
    taps: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    const N: usize = CONV_WIDTH;
    out.fill(0.0);
    let (before, own) = taps.split_at(recent.len());
    for (recent, taps) in recent.chunks_exact(N).zip(before.chunks_exact(N)) {
        add_products(recent, taps, out);
    }
    add_products(x, own, out);
    if let Some(bias) = bias {
        for (out, b) in out.iter_mut().zip(bias) {
            *out += b;
        }
    }
    // The oldest inputs go, these are the last.
    if let Some(last) = recent.len().checked_sub(N) {
        recent.copy_within(N.., 0);
        recent[last..last + x.len()].copy_from_slice(x);
    }
}

#[inline(always)]
fn add_products(x: &[f32], w: &[f32], sums: &mut [f32]) {
    for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
        *sum += x * w;
    }
}

/// See [`crate::kernels::Backend::delta_row`].
#[inline(always)]
pub(in crate::kernels) fn delta_row(
    state: &mut [f32],
    (q, k, v): (&[f32], &[f32], &[f32]),
    (decay, beta): (f32, f32),
    out: &mut [f32],
) {
    match v.len() {
        WIDE => delta_block::<WIDE>(state, (q, k, v), (decay, beta), out),
        NARROW => delta_block::<NARROW>(state, (q, k, v), (decay, beta), out),
        n => {
            for c in 0..n {
                let mut u = 0.0;
                for (row, k) in state.chunks_exact(n).zip(k) {
                    u += (row[c] * decay) * k;
                }
                let d = (v[c] - u) * beta;
                let mut o = 0.0;
                for ((row, k), q) in state.chunks_exact_mut(n).zip(k).zip(q) {
                    row[c] = row[c] * decay + k * d;
                    o += row[c] * q;
                }
                out[c] = o;
            }
        }
    }
}

#[inline(always)]
fn delta_block<const N: usize>(
    state: &mut [f32],
    (q, k, v): (&[f32], &[f32], &[f32]),
    (decay, beta): (f32, f32),
    out: &mut [f32],
) {
    let rows = state.as_chunks_mut::<N>().0;
    let mut u = [0.0f32; N];
    for (row, k) in rows.iter().zip(k) {
        for (u, s) in u.iter_mut().zip(row) {
            *u += (s * decay) * k;
        }
    }
    let mut d = [0.0f32; N];
    for ((d, v), u) in d.iter_mut().zip(v).zip(&u) {
        *d = (v - u) * beta;
    }
    let mut o = [0.0f32; N];
    for ((row, k), q) in rows.iter_mut().zip(k).zip(q) {
        for ((s, d), o) in row.iter_mut().zip(&d).zip(&mut o) {
            *s = *s * decay + k * d;
            *o += *s * q;
        }
    }
    out.copy_from_slice(&o);
}

/// See [`crate::kernels::Backend::scan_row`].
#[inline(always)]
pub(in crate::kernels) fn scan_row(
    state: &mut [f32],
    (b, c, x): (&[f32], &[f32], &[f32]),
    (decay, dt, skip): (f32, f32, f32),
    out: &mut [f32],
) {
    match x.len() {
        WIDE => scan_block::<WIDE>(state, (b, c, x), (decay, dt, skip), out),
        NARROW => scan_block::<NARROW>(state, (b, c, x), (decay, dt, skip), out),
        n => {
            for column in 0..n {
                let u = x[column] * dt;
                let mut y = 0.0;
                for ((row, b), c) in state.chunks_exact_mut(n).zip(b).zip(c) {
                    row[column] = row[column] * decay + b * u;
                    y += row[column] * c;
                }
                out[column] = y + skip * x[column];
            }
        }
    }
}

#[inline(always)]
fn scan_block<const N: usize>(
    state: &mut [f32],
    (b, c, x): (&[f32], &[f32], &[f32]),
    (decay, dt, skip): (f32, f32, f32),
    out: &mut [f32],
) {
    let mut u = [0.0f32; N];
    for (u, x) in u.iter_mut().zip(x) {
        *u = x * dt;
    }
    let mut y = [0.0f32; N];
    for ((row, b), c) in state.as_chunks_mut::<N>().0.iter_mut().zip(b).zip(c) {
        for ((s, u), y) in row.iter_mut().zip(&u).zip(&mut y) {
            *s = *s * decay + b * u;
            *y += *s * c;
        }
    }
    for ((out, y), x) in out.iter_mut().zip(&y).zip(x) {
        *out = y + skip * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut x = seed;
        let next = |_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(next).collect()
    }

    /// A state of a head is computed in blocks of columns: a block has the bits that the whole has.
    #[test]
    fn blocks_of_columns_have_the_bits_of_the_whole() {
        const ROWS: usize = 24;
        let (q, k) = (numbers(ROWS, 1), numbers(ROWS, 2));
        for n in [WIDE, NARROW] {
            let whole = n + 1;
            let v = numbers(whole, 3);
            let (mut state, mut out) = (numbers(ROWS * whole, 4), vec![0.0; whole]);
            let take = |state: &[f32]| -> Vec<f32> {
                state.chunks(whole).flat_map(|row| row[..n].to_vec()).collect()
            };
            let (mut part, mut part_out) = (take(&state), vec![0.0; n]);
            for _ in 0..3 {
                delta_row(&mut state, (&q, &k, &v), (0.9, 0.4), &mut out);
                delta_row(&mut part, (&q, &k, &v[..n]), (0.9, 0.4), &mut part_out);
                assert_eq!((take(&state), &out[..n]), (part.clone(), &part_out[..]));
                scan_row(&mut state, (&q, &k, &v), (0.9, 0.4, 0.3), &mut out);
                scan_row(&mut part, (&q, &k, &v[..n]), (0.9, 0.4, 0.3), &mut part_out);
                assert_eq!((take(&state), &out[..n]), (part.clone(), &part_out[..]));
            }
        }
    }

    #[test]
    fn a_convolution_sees_its_last_inputs() {
        const N: usize = CONV_WIDTH;
        for n in [N, 5] {
            let (taps, bias) = (numbers(4 * N, 7), numbers(n, 8));
            let inputs: Vec<Vec<f32>> = (0..9).map(|i| numbers(n, 20 + i)).collect();
            let (mut recent, mut out) = (vec![0.0; 3 * N], vec![0.0; n]);
            for (t, x) in inputs.iter().enumerate() {
                conv_row(&mut recent, x, &taps, Some(&bias), &mut out);
                for c in 0..n {
                    let mut sum = 0.0f32;
                    for j in 0..4 {
                        sum += (t + j).checked_sub(3).map_or(0.0, |t| inputs[t][c]) * taps[j * N + c];
                    }
                    assert_eq!(out[c], sum + bias[c]);
                }
            }
        }
    }
}
