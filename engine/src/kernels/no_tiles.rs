//! What stands for `tiles` where there is no unit that multiplies whole tiles: a format needs no way by them.

/// Every format.
pub(super) trait Tiled {}

impl<F> Tiled for F {}
