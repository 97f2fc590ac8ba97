//! `serve-demo`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  twinfer serve-demo
  twinfer serve-demo -m model.gguf
  twinfer serve-demo --port 9000 models/*.gguf

The page runs the model in the browser; this command only hands out files, with the headers that a page
needs for more than one thread. Build the page with `cargo xtask web`.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeDemoArgs {
    /// Models that the page can load from here, beside the one of -m.
    pub(crate) models: Vec<PathBuf>,

    /// Address to listen on. Others than 127.0.0.1 give everyone who reaches it the page and the models.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,

    /// Port to listen on. 0: any free one.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,

    /// The built page. Default: www/dist here, or share/twinfer/www beside the program.
    #[arg(long, value_name = "DIR")]
    pub(crate) page: Option<PathBuf>,
}
