//! Probe: a look at every operation's output during a forward pass, free where nobody looks.

/// Sees the values that operations produce: digests per operation, importance matrices, profiles.
pub trait Probe {
    /// `values` are the rows that operation `op` of `layer` made; the number of layers stands for the output head.
    fn op(&mut self, layer: usize, op: &'static str, values: &[f32]);
}

/// Nobody looks.
impl Probe for () {
    #[inline(always)]
    fn op(&mut self, _: usize, _: &'static str, _: &[f32]) {}
}
