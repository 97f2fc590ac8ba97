//! Products: rows of activations times matrices, as many of them as do not need one another, in one operation of the team.
//!
//! A list of them says all there is to do: of each the weight (a matrix, or a view of some of its rows), which rows of
//! activations, where the outputs go, and what the worker that made a piece of them does with it. [`Run::products`](super::ops::Run::products) hands
//! out pieces of all of them.

use std::ops::Range;

use super::weights::Linear;
use crate::kernels::{Activation, Activations, Backend};
use crate::team::{Columns, Tile};

/// One product of a list, with where its outputs go.
pub(super) type Product<'a> = Columns<'a, Task<'a>>;

/// What a product computes.
pub(super) struct Task<'a> {
    linear: &'a Linear,
    /// Of the activations.
    rows: Range<usize>,
    gate: Option<Gate<'a>>,
}

/// The matrix whose outputs a gate is multiplied with, in place.
struct Gate<'a> {
    up: &'a Linear,
    activation: Activation,
}

/// `out` = x times a matrix: as many rows from the first one as `out` has.
pub(super) fn product<'a>(linear: &'a Linear, out: &'a mut [f32]) -> Product<'a> {
    product_from(linear, 0, out)
}

/// `out` = x times a matrix: as many rows from row `first` as `out` has.
pub(super) fn product_from<'a>(linear: &'a Linear, first: usize, out: &'a mut [f32]) -> Product<'a> {
    let n = linear.weight.n();
    let task = Task {
        linear,
        rows: first..first + out.len() / n,
        gate: None,
    };
    Columns::of(out, n, linear.weight.grain(), task)
}

/// `gate` = f(x times its matrix) * `up`, and `up` = x times its own. The matrices have one shape.
pub(super) fn gated<'a>(
    (linear, gate): (&'a Linear, &'a mut [f32]),
    (up, up_out): (&'a Linear, &'a mut [f32]),
    activation: Activation,
) -> Product<'a> {
    let n = linear.weight.n();
    let task = Task {
        linear,
        rows: 0..gate.len() / n,
        gate: Some(Gate { up, activation }),
    };
    let grain = linear.weight.grain().max(up.weight.grain());
    Columns::of(gate, n, grain, task).with(up_out)
}

impl Task<'_> {
    /// The matrices that it reads.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        std::iter::once(self.linear).chain(self.gate.as_ref().map(|gate| gate.up))
    }

    /// A piece: of the rows `x` its own, some columns of the outputs, and of the second outputs where there are any.
    pub(super) fn run(
        &self,
        backend: &dyn Backend,
        x: &Activations<'_>,
        mut out: Tile<'_>,
        second: Option<Tile<'_>>,
    ) {
        let x = x.rows(self.rows.clone());
        self.linear.apply(&x, &mut out);
        if let (Some(gate), Some(mut ups)) = (&self.gate, second) {
            gate.up.apply(&x, &mut ups);
            for row in 0..out.rows() {
                backend.gate(gate.activation, out.row(row), ups.row(row));
            }
        }
    }
}

impl Linear {
    /// A tile of the product, scaled, and its part of the bias.
    fn apply(&self, x: &Activations<'_>, tile: &mut Tile<'_>) {
        self.weight.matmul(x, tile);
        if let Some(scale) = self.scale {
            for row in 0..tile.rows() {
                tile.row(row).iter_mut().for_each(|y| *y *= scale);
            }
        }
        if let Some(bias) = &self.bias {
            let bias = &bias[tile.columns()];
            for row in 0..tile.rows() {
                tile.row(row).iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }
}
