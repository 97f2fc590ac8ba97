//! `quantize`: a smaller copy of a model.

use anyhow::Result;

use crate::args::{GlobalArgs, QuantizeArgs};

pub(super) fn run(_global: &GlobalArgs, _args: &QuantizeArgs) -> Result<()> {
    Ok(())
}
