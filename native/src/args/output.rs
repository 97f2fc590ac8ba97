//! What commands that write files take beside the name.

use clap::Args;

use crate::output_file::ReadOnly;

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Write over a file that is read-only.
    #[arg(long)]
    force: bool,
}

impl OutputArgs {
    /// What happens to a target that is read-only.
    pub(crate) fn read_only(&self) -> ReadOnly {
        if self.force {
            ReadOnly::Replace
        } else {
            ReadOnly::Refuse
        }
    }
}
