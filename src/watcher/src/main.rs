//! Writes the routes that running containers ask for.

mod address;
mod allow;
mod changes;
mod container;
mod daemon;
mod follow;
mod known;
mod labels;
mod pace;
mod pass;
mod plan;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use fairlead_contract::{Paths, start_logging};
use tracing::error;

/// Writes the routes that running containers ask for.
#[derive(Parser)]
#[command(name = "fairlead-watcher", version)]
struct Args {
    /// Write nothing: make the mark that a pass is needed whenever containers change, and print `dirty`
    #[arg(long)]
    follow: bool,
    /// Docker's socket, instead of the one in fairlead.toml
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    paths: Paths,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    start_logging();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    if args.follow {
        match follow::follow(&args.paths, args.socket.as_deref()).await? {}
    }
    pass::pass(&args.paths, args.socket.as_deref()).await
}
