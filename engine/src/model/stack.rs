//! Matrices of one shape in one tensor, one after the other: those of experts. A tensor is one matrix in memory, of the rows
//! of all of them, and each expert's is a view of some rows, with a scale and biases of its own.

use super::weights::{Binder, Linear, Role};
use crate::Result;

/// What is bound of one tensor of a stack.
#[derive(Debug)]
pub(crate) struct Stack<const N: usize> {
    /// The tensor: what is counted and kept in memory, not computed with.
    pub(crate) whole: Linear,
    /// Per part of a matrix, the experts' matrices in order.
    pub(crate) parts: [Vec<Linear>; N],
}

impl Binder<'_> {
    /// `NAME.weight`, `count` matrices of k columns, each of parts of some rows one after the other, with `NAME.scale`, one for
    /// each matrix, and `NAME.bias` where the file has them.
    pub(super) fn stack<const N: usize>(
        &self,
        name: &str,
        count: usize,
        rows: [usize; N],
        k: usize,
    ) -> Result<Stack<N>> {
        let n: usize = rows.iter().sum();
        let whole = self.matrices(&format!("{name}.weight"), Role::Experts, (count, n, k))?;
        let scales = self.scales(name, count)?;
        let bias_name = format!("{name}.bias");
        let biases = self
            .has(&bias_name)
            .then(|| self.vectors(&bias_name, count, n))
            .transpose()?;
        let mut parts = rows.map(|_| Vec::with_capacity(count));
        let mut start = 0;
        for expert in 0..count {
            for (part, rows) in parts.iter_mut().zip(rows) {
                let range = start..start + rows;
                part.push(Linear {
                    weight: whole.view(range.clone())?,
                    scale: scales.as_ref().map(|scales| scales[expert]),
                    bias: biases.as_ref().map(|biases| biases[range].to_vec()),
                });
                start += rows;
            }
        }
        let whole = Linear {
            weight: whole,
            scale: None,
            bias: None,
        };
        Ok(Stack { whole, parts })
    }
}
