//! Which backends this build knows, and which of them this machine can run: `cargo run --example backends`.
//!
//! It is also the smallest program that holds every kernel, which is what `cargo xtask disasm` looks at.

use twinfer_engine::kernels::select;

fn main() {
    for backend in select::available() {
        println!("{}", backend.name());
    }
    for name in select::missing() {
        println!("{name}: this machine lacks its instructions");
    }
}
