//! Products: rows of activations times matrices, as many of them as do not need one another, in one operation of the
//! team.
//!
//! A list of them says all there is to do: of each the weight (a matrix, or a view of some of its rows), which rows of
//! activations, where the outputs go, and what the worker that made a piece of them does with it.
//! [`Run::products`](super::ops::Run::products) hands out pieces of all of them.

use std::ops::Range;

use super::weights::Linear;
use crate::Result;
use crate::kernels::{Activation, Activations, Backend};
use crate::memory::Buffers;
use crate::team::{Columns, Tile};

/// One product of a list, with where its outputs go.
pub(super) type Product<'a> = Columns<'a, Task<'a>>;

/// What a product computes.
#[derive(Debug)]
pub(super) struct Task<'a> {
    linear: &'a Linear,
    /// Of the activations.
    rows: Range<usize>,
    then: Then<'a>,
}

/// What is done with a piece of outputs, in place.
#[derive(Debug)]
enum Then<'a> {
    Nothing,
    /// A function of them.
    Activate(Activation),
    /// A function of them times the outputs of another matrix.
    Gate {
        up: &'a Linear,
        gate: Gate,
    },
}

/// What is made of a gate and what it gates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gate {
    activation: Activation,
    limit: Option<f32>,
}

impl From<Activation> for Gate {
    fn from(activation: Activation) -> Self {
        Gate {
            activation,
            limit: None,
        }
    }
}

impl Gate {
    /// With a limit `min(f(gate), limit) * max(min(up, limit), -limit)`.
    pub(super) fn limited(activation: Activation, limit: Option<f32>) -> Self {
        Gate { activation, limit }
    }

    /// `gate` = what is made of it and of `up`.
    fn apply(self, backend: &dyn Backend, gate: &mut [f32], up: &[f32]) {
        let Some(limit) = self.limit else {
            return backend.gate(self.activation, gate, up);
        };
        backend.activate(self.activation, gate);
        for (gate, up) in gate.iter_mut().zip(up) {
            // Comparisons that a number which is none passes through: it ends the pass where rows are rounded next.
            let least = if *gate > limit { limit } else { *gate };
            let up = if *up > limit { limit } else { *up };
            *gate = least * if up < -limit { -limit } else { up };
        }
    }
}

impl<'a> Task<'a> {
    /// Of as many rows from the first one as an output of `len` numbers has.
    fn new(linear: &'a Linear, first: usize, len: usize, then: Then<'a>) -> Self {
        Task {
            linear,
            rows: first..first + len / linear.weight.n(),
            then,
        }
    }
}

/// `out` = x times a matrix: as many rows from the first one as `out` has.
pub(super) fn product<'a>(linear: &'a Linear, out: &'a mut [f32]) -> Product<'a> {
    product_from(linear, 0, out)
}

/// `out` = x times a matrix: as many rows from row `first` as `out` has.
pub(super) fn product_from<'a>(linear: &'a Linear, first: usize, out: &'a mut [f32]) -> Product<'a> {
    with(linear, first, out, Then::Nothing)
}

/// `out` = f(x times a matrix), from row `first`.
pub(super) fn activated<'a>(
    linear: &'a Linear,
    first: usize,
    out: &'a mut [f32],
    activation: Activation,
) -> Product<'a> {
    with(linear, first, out, Then::Activate(activation))
}

fn with<'a>(linear: &'a Linear, first: usize, out: &'a mut [f32], then: Then<'a>) -> Product<'a> {
    let task = Task::new(linear, first, out.len(), then);
    Columns::of(out, linear.weight.n(), linear.weight.grain(), task).placed(linear.weight.shares())
}

/// `gate` = f(x times its matrix) * `up`, and `up` = x times its own. The matrices have one shape.
pub(super) fn gated<'a>(
    gate: (&'a Linear, &'a mut [f32]),
    up: (&'a Linear, &'a mut [f32]),
    activation: Activation,
) -> Product<'a> {
    gated_from(gate, up, 0, activation.into())
}

/// As [`gated`], from row `first` of x.
pub(super) fn gated_from<'a>(
    (linear, out): (&'a Linear, &'a mut [f32]),
    (up, up_out): (&'a Linear, &'a mut [f32]),
    first: usize,
    gate: Gate,
) -> Product<'a> {
    let task = Task::new(linear, first, out.len(), Then::Gate { up, gate });
    let grain = linear.weight.grain().max(up.weight.grain());
    Columns::of(out, linear.weight.n(), grain, task)
        .with(up_out)
        .placed(linear.weight.shares())
}

impl Task<'_> {
    /// The matrices that it reads.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let up = match &self.then {
            Then::Gate { up, .. } => Some(*up),
            Then::Nothing | Then::Activate(_) => None,
        };
        std::iter::once(self.linear).chain(up)
    }

    /// A piece, by a worker of a node: of the rows `x` its own, some columns of the outputs, and of the second outputs
    /// where there are any.
    pub(super) fn run(
        &self,
        backend: &dyn Backend,
        x: &Activations<'_>,
        node: usize,
        mut out: Tile<'_>,
        second: Option<Tile<'_>>,
    ) {
        let x = x.rows(self.rows.clone());
        self.linear.apply(&x, node, &mut out);
        match (&self.then, second) {
            (Then::Gate { up, gate }, Some(mut ups)) => {
                up.apply(&x, node, &mut ups);
                for row in 0..out.rows() {
                    gate.apply(backend, out.row(row), ups.row(row));
                }
            }
            (Then::Activate(activation), _) => {
                for row in 0..out.rows() {
                    backend.activate(*activation, out.row(row));
                }
            }
            _ => {}
        }
    }
}

/// The memory of a list of products, for those who make a long one in each pass: a pass allocates nothing.
#[derive(Debug)]
pub(super) struct ListMemory(Vec<Product<'static>>);

impl ListMemory {
    /// Room for `n` products.
    pub(super) fn make(n: usize, buffers: &mut Buffers<'_>) -> Result<Self> {
        buffers.room("lists of products", n).map(ListMemory)
    }

    /// An empty list.
    pub(super) fn take<'a>(&mut self) -> Vec<Product<'a>> {
        std::mem::take(&mut self.0)
    }

    /// Gives a list's memory back, which a vector made of another one's items in place keeps.
    pub(super) fn put_back(&mut self, mut list: Vec<Product<'_>>) {
        list.clear();
        // The type does change: from products that borrow to products that need not.
        #[expect(clippy::unnecessary_filter_map)]
        let empty = list.into_iter().filter_map(|_| None).collect();
        self.0 = empty;
    }
}

impl Linear {
    /// A tile of the product, scaled, and its part of the bias.
    fn apply(&self, x: &Activations<'_>, node: usize, tile: &mut Tile<'_>) {
        self.weight.matmul(x, node, tile);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::select;
    use crate::math;

    #[test]
    fn a_limit_cuts_the_gate_above_and_what_it_gates_on_both_sides() {
        let values: Vec<f32> = (-40..=40).map(|i| i as f32 * 0.25).collect();
        for backend in select::available() {
            for limit in [0.5f32, 7.0, 1e30] {
                for shift in 0..values.len() {
                    let mut gate = values.clone();
                    let mut up = values.clone();
                    up.rotate_left(shift);
                    Gate::limited(Activation::Silu, Some(limit)).apply(*backend, &mut gate, &up);
                    let mut plain = values.clone();
                    backend.gate(Activation::Silu, &mut plain, &up);
                    for i in 0..gate.len() {
                        let (x, l) = (f64::from(values[i]), f64::from(limit));
                        let silu = x / (1.0 + math::exp(-x));
                        let least = if silu > l { l } else { silu };
                        let expected = least * f64::from(up[i]).clamp(-l, l);
                        let found = f64::from(gate[i]);
                        let close = (found - expected).abs() <= 1e-6 * (1.0 + expected.abs());
                        assert!(close, "{}, {limit}: {found} {expected}", backend.name());
                        // A limit that nothing reaches changes no bit.
                        assert!(limit < 10.0 || gate[i].to_bits() == plain[i].to_bits());
                    }
                }
            }
            let (nan, limit) = (f32::NAN, Some(1.0));
            for (gate, up) in [(nan, 1.0), (1.0, nan)] {
                let mut gate = [gate];
                Gate::limited(Activation::Silu, limit).apply(*backend, &mut gate, &[up]);
                assert!(gate[0].is_nan());
            }
        }
    }
}
