//! Linux machines that boot in an emulator, run a script and print what comes of it to their serial port: what they are
//! made of, whichever emulator it is.

mod files;
mod kernel;
mod serial;

pub(crate) use files::{BUSYBOX, EXIT, Guest};
pub(crate) use kernel::kernel;
pub(crate) use serial::follow;
