//! `fairlead-watcher`: writes the routes that running containers ask for.
//!
//! A library beside the program only so that the fuzz targets reach [`fuzzing`].

mod address;
mod allow;
mod arguments;
mod changes;
mod container;
mod daemon;
mod events;
mod follow;
pub mod fuzzing;
mod known;
mod labels;
mod owners;
mod pace;
mod pass;
mod plan;
mod reload;
mod templates;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use fairlead_contract::{chain, start_logging};
use tracing::error;

use crate::arguments::Arguments;

/// The program.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> ExitCode {
    start_logging();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    if arguments.follow {
        match follow::follow(&arguments.paths, arguments.socket.as_deref()).await? {}
    }
    pass::pass(&arguments.paths, arguments.socket.as_deref(), arguments.reload).await
}
