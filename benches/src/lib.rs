//! What the kernel benches and the comparison with other engines share: which machine this is, what it could do, and
//! how programs are run.

pub mod document;
pub mod machine;
pub mod program;
pub mod rates;
pub mod run;
pub mod statistics;
