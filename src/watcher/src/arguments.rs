use std::path::PathBuf;

use clap::Parser;
use fairlead_contract::Paths;

/// Writes the routes that running containers ask for.
#[derive(Parser)]
#[command(name = "fairlead-watcher", version)]
pub(crate) struct Arguments {
    /// Write nothing: make the mark that a pass is needed whenever containers change, and print `dirty`
    #[arg(long)]
    pub(crate) follow: bool,
    /// Docker's socket, instead of the one in fairlead.toml
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) paths: Paths,
}
