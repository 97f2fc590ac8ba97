//! What the kernel benches and the comparison with other engines share: which machine this is, and what it could do.

pub mod limits;
pub mod machine;
pub mod statistics;
