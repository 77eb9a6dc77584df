use std::path::PathBuf;

use clap::Parser;
use fairlead_contract::Paths;

/// Writes the routes that running containers ask for.
///
/// One pass: it lists the containers, writes docker.toml if it changed, and ends. With --follow it goes on
/// until it is told to stop, and only says when a pass is needed.
#[derive(Parser)]
#[command(
    name = "fairlead-watcher",
    version,
    after_help = "\
Examples:
  systemctl start fairlead-watcher.service
  fairlead-watcher --socket /run/user/1000/docker.sock

Exit codes: 0 what is written is up to date, 1 the containers or files could not be read, or not written, or with
--reload not loaded."
)]
pub(crate) struct Arguments {
    /// Write nothing: make the mark that a pass is needed whenever containers change, and print `dirty`
    #[arg(long)]
    pub(crate) follow: bool,
    /// End only when the proxy serves what was written: ask for the reload at reload.sock in the runtime directory
    #[arg(long, conflicts_with = "follow")]
    pub(crate) reload: bool,
    /// Docker's socket, instead of the one in fairlead.toml
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) paths: Paths,
}
