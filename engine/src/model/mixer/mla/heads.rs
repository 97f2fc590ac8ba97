//! Matrices of which each head has its own, and the products of heads' rows with them.

use crate::Result;
use crate::memory::Buffers;
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::{ListMemory, product_from};
use crate::model::weights::{Binder, Linear, Role};

/// Rows that are multiplied with heads' own matrices at a time: some rows of some heads. At least
/// [`ROWS`](super::ROWS).
pub(super) const HEAD_ROWS: usize = 2048;

/// A matrix of each head.
#[derive(Debug)]
pub(super) struct HeadMatrices {
    /// All of them, one after the other: what is counted and kept in memory, not computed with.
    whole: Linear,
    heads: Vec<Linear>,
}

impl HeadMatrices {
    /// `n_heads` matrices of n x k.
    pub(super) fn bind(
        binder: &Binder<'_>,
        name: &str,
        (n_heads, n, k): (usize, usize, usize),
    ) -> Result<Self> {
        let linear = |weight| Linear {
            weight,
            scale: None,
            bias: None,
        };
        let whole = binder.matrices(&format!("{name}.weight"), Role::Dense, (n_heads, n, k))?;
        let heads = (0..n_heads)
            .map(|head| whole.view(head * n..(head + 1) * n).map(linear))
            .collect::<Result<_>>()?;
        Ok(HeadMatrices {
            whole: linear(whole),
            heads,
        })
    }

    /// What is counted and kept in memory.
    pub(super) fn whole(&self) -> &Linear {
        &self.whole
    }
}

/// What products of heads with matrices of their own are computed in.
#[derive(Debug)]
pub(super) struct HeadBuffers {
    /// Rows head by head, and their products.
    x: Vec<f32>,
    y: Vec<f32>,
    list: ListMemory,
}

impl HeadBuffers {
    /// For so many heads, and so many numbers of rows and of their products at a time.
    pub(super) fn make(n_heads: usize, (x, y): (usize, usize), buffers: &mut Buffers<'_>) -> Result<Self> {
        Ok(HeadBuffers {
            x: buffers.outputs("rows of heads", 1, x)?,
            y: buffers.outputs("rows of heads", 1, y)?,
            list: ListMemory::make(n_heads, buffers)?,
        })
    }

    /// The first numbers of each head of some rows times the head's matrix: the first numbers of the same head of `to`.
    /// Beside the rows stand the widths of a head.
    pub(super) fn multiply<P: Probe>(
        &mut self,
        run: &mut Run<'_, P>,
        op: &'static str,
        matrices: &HeadMatrices,
        (from, from_head): (&[f32], usize),
        (to, to_head): (&mut [f32], usize),
    ) -> Result<()> {
        let (n_heads, whole) = (matrices.heads.len(), &matrices.whole.weight);
        let (n, k) = (whole.n() / n_heads, whole.k());
        let m = from.len() / (n_heads * from_head);
        let at_once = (HEAD_ROWS / m).clamp(1, n_heads);
        for (part, matrices) in matrices.heads.chunks(at_once).enumerate() {
            let first = part * at_once;
            let x = &mut self.x[..matrices.len() * m * k];
            let y = &mut self.y[..matrices.len() * m * n];
            let ops = &run.ops;
            ops.team.rows(x, k, ops.grain(k), |range, x| {
                for (i, x) in range.zip(x.chunks_exact_mut(k)) {
                    let at = (i % m * n_heads + first + i / m) * from_head;
                    x.copy_from_slice(&from[at..at + k]);
                }
            })?;
            let mut list = self.list.take();
            for (i, (matrix, y)) in matrices.iter().zip(y.chunks_exact_mut(m * n)).enumerate() {
                list.push(product_from(matrix, i * m, y));
            }
            let done = run.products(op, x, &mut list);
            self.list.put_back(list);
            done?;
            let (ops, y, width) = (&run.ops, &*y, n_heads * to_head);
            ops.team.rows(to, width, ops.grain(width), |range, to| {
                for (row, to) in range.zip(to.chunks_exact_mut(width)) {
                    let heads = to.chunks_exact_mut(to_head).skip(first).take(matrices.len());
                    for (i, to) in heads.enumerate() {
                        let at = (i * m + row) * n;
                        to[..n].copy_from_slice(&y[at..at + n]);
                    }
                }
            })?;
        }
        Ok(())
    }
}
