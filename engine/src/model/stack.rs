//! Matrices of one shape, those of experts: in one tensor, one after the other, or in a tensor each. A tensor is one
//! matrix in memory; where it has the rows of all experts, each one's matrix is a view of some of them, with a scale
//! and biases of its own.

use super::weights::{Binder, Linear, Role};
use crate::Result;

/// What is bound of a stack.
#[derive(Debug)]
pub(crate) struct Stack<const N: usize> {
    /// The tensors, one or one for each expert: what is counted and kept in memory, not computed with.
    pub(crate) tensors: Vec<Linear>,
    /// Per part of a matrix, the experts' matrices in order.
    pub(crate) parts: [Vec<Linear>; N],
}

impl Binder<'_> {
    /// `NAME.weight`, `count` matrices of k columns, each of parts of some rows one after the other, with `NAME.scale`,
    /// one for each matrix, and `NAME.bias` where the file has them.
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
        Ok(Stack {
            tensors: vec![whole],
            parts,
        })
    }

    /// The stack `NAME_exps`, or `NAME.0`, `NAME.1` and so on, `count` tensors of one matrix each: so Mixtral's first
    /// files have it (llama.cpp's converter until April 2024). Where the file has neither, it is the stack that is
    /// missing.
    pub(super) fn stack_or_each(&self, name: &str, count: usize, rows: usize, k: usize) -> Result<Stack<1>> {
        let stack = stack_name(name);
        if self.has(&format!("{stack}.weight")) || !self.has(&first_name(name)) {
            return self.stack(&stack, count, [rows], k);
        }
        let (mut tensors, mut part) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for expert in 0..count {
            let name = format!("{name}.{expert}");
            let weight = self.matrices(&format!("{name}.weight"), Role::Experts, (1, rows, k))?;
            tensors.push(Linear {
                weight: weight.clone(),
                scale: None,
                bias: None,
            });
            part.push(Linear {
                weight,
                scale: self.scale(&name)?,
                bias: self.bias(&name, rows)?,
            });
        }
        Ok(Stack {
            tensors,
            parts: [part],
        })
    }

    /// Whether the file has what [`Self::stack_or_each`] binds.
    pub(super) fn has_stack_or_each(&self, name: &str) -> bool {
        self.has(&format!("{}.weight", stack_name(name))) || self.has(&first_name(name))
    }
}

fn stack_name(name: &str) -> String {
    format!("{name}_exps")
}

/// The tensor of the first of several experts.
fn first_name(name: &str) -> String {
    format!("{name}.0.weight")
}

/// Whether a tensor, named without its layer, has matrices of experts, of which a token needs a few.
pub fn is_of_experts(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = name.split('.');
    name.contains("_exps.")
        || parts.next().is_some_and(|part| part.starts_with("ffn_")) && parts.next().is_some_and(is_number)
}
