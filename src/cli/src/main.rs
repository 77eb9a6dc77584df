//! The `fairlead` command: says what fairlead does and why, and asks the proxy for a reload.
//!
//! Each command reads the files and the proxy's status ([`machine`]), derives what it tells by pure
//! functions, and renders that last ([`answer`], [`table`]). It writes nothing but a mark for the certs
//! program; only `fairlead dev` starts programs and keeps files of its own, and only `fairlead deliver`
//! writes where the operator's templates say.

mod admin;
mod answer;
mod arguments;
mod budget;
mod certificates;
mod check;
mod compare;
mod deliver;
mod dev;
mod keeper;
mod machine;
mod programs;
mod reload;
mod routes;
mod service;
mod status;
mod store;
mod table;
mod when;
mod why;

use std::process::ExitCode;
use std::{io, path};

use anyhow::{Context, ensure};
use clap::Parser;
use fairlead_contract::{Paths, start_logging};

use crate::answer::Exit;
use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    if dev::child::is_meant() {
        return dev::child::become_program();
    }
    let arguments = Arguments::parse();
    start_logging();
    match run(arguments) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // If nobody listens any more there is nothing left to do.
            let _ = answer::print_fault(&format!("fairlead: {error:#}"));
            Exit::Unknown.into()
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(obey(arguments))
}

async fn obey(Arguments { command, paths }: Arguments) -> anyhow::Result<Exit> {
    let paths = absolute(&paths).context("the directories cannot be told from here")?;
    if is_about_state(&command) {
        let state = paths.state.display();
        let is_there = paths
            .state
            .try_exists()
            .with_context(|| format!("cannot look for {state}"))?;
        ensure!(is_there, "there is no {state}: is this the right --state-dir?");
    }
    let answer = match command {
        Command::Check(format) => check::run(&paths, format).await?,
        Command::Status(format) => status::run(paths, format).await?,
        Command::Routes(format) => routes::run(paths, format).await?,
        Command::Certs(format) => certificates::run(paths, format).await?,
        Command::Why { name, format } => why::run(paths, &name, format).await?,
        Command::Reload { pid, format } => reload::run(&paths, pid, format).await?,
        Command::Deliver(format) => deliver::run(&paths, format).await?,
        Command::Dev(options) => return dev::run(options).await,
    };
    answer.print().context("cannot print the answer")
}

/// Whether it tells what was found or obtained, so that nothing there would look like nothing known.
fn is_about_state(command: &Command) -> bool {
    use Command::{Certs, Routes, Status, Why};
    matches!(command, Status(_) | Routes(_) | Certs(_) | Why { .. })
}

/// The proxy names its files from the root, and they are compared by name.
fn absolute(paths: &Paths) -> io::Result<Paths> {
    Ok(Paths {
        config: path::absolute(&paths.config)?,
        state: path::absolute(&paths.state)?,
        runtime: path::absolute(&paths.runtime)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_may_be_named_from_where_one_is() {
        let here = Paths {
            config: "try/etc".into(),
            state: "try/var".into(),
            runtime: "/run/try".into(),
        };
        let told = absolute(&here).unwrap();
        let directory = std::env::current_dir().unwrap();
        assert_eq!(told.config, directory.join("try/etc"));
        assert_eq!(told.state, directory.join("try/var"));
        assert_eq!(told.runtime, here.runtime);
    }
}
