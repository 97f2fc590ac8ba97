//! Probe: a look at every operation's output during a forward pass, free where nobody looks.

/// Sees the values that operations produce: digests per operation ([`crate::trace`]), importance matrices, profiles.
pub trait Probe {
    /// `values` are the rows, `width` numbers each, that operation `op` of `layer` made, in the order of the pass's
    /// rows; the number of layers stands for the output head, which sees only the rows that want an output, some at a
    /// time.
    fn op(&mut self, layer: usize, op: &'static str, width: usize, values: &[f32]);
}

/// Nobody looks.
impl Probe for () {
    #[inline(always)]
    fn op(&mut self, _: usize, _: &'static str, _: usize, _: &[f32]) {}
}

/// Looks where there is somebody to look.
impl<P: Probe> Probe for Option<P> {
    fn op(&mut self, layer: usize, op: &'static str, width: usize, values: &[f32]) {
        if let Some(probe) = self {
            probe.op(layer, op, width, values);
        }
    }
}
