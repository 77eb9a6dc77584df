//! `fairlead-certs`: one pass over the certificates that routes need.
//!
//! Reads the files, decides what is due by a pure function ([`plan`]), obtains it, stores it, and ends.
//! Time between passes belongs to systemd.

mod acme;
mod archive;
mod arguments;
mod attempt;
mod backoff;
mod commands;
mod dns;
mod internal;
mod kept;
mod key;
mod look;
mod pair;
mod pass;
mod pause;
mod plan;
mod renewal;
mod secret;
mod seen;
mod store;
mod wanted;
mod words;

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Parser;
use fairlead_contract::{Configuration, Confinement, DnsProvider, Files, Paths, chain, start_logging};
use rustls::crypto::aws_lc_rs;

use crate::arguments::Arguments;
use crate::pass::Outcome;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    start(arguments).unwrap_or_else(|fault| {
        tracing::error!("{}", chain(&*fault));
        ExitCode::FAILURE
    })
}

fn start(Arguments { command, paths }: Arguments) -> anyhow::Result<ExitCode> {
    // Before any TLS configuration is made: with two providers in the graph rustls does not choose.
    aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("another cryptography provider is installed already"))?;
    if command.is_some() {
        commands::check_user(&paths)?;
    }
    let _lock = lock(&paths)?;
    confine(&paths);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let Some(command) = command else {
        return Ok(match runtime.block_on(pass::run(&paths))? {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::Failed => ExitCode::FAILURE,
        });
    };
    let done = runtime.block_on(commands::run(&command, &paths))?;
    writeln!(io::stdout(), "{done}")?;
    Ok(ExitCode::SUCCESS)
}

/// Leaves to the program its own directories to write in, unless it is to run one of the operator's, which
/// may do more. It reads anywhere, because secrets and authorities are anywhere.
fn confine(paths: &Paths) {
    // The routes say nothing of that, and to read ten thousand would be felt.
    let configuration = Configuration::parse(&Files {
        routes: Vec::new(),
        discovery: None,
        ..Files::read_without_pairs(paths)
    });
    let authorities = configuration.config.authorities().into_iter();
    let mut dns = authorities.filter_map(|acme| acme.dns);
    if dns.any(|dns| matches!(dns.provider, DnsProvider::Exec(_))) {
        return;
    }
    let confinement = Confinement {
        readable: vec!["/".into()],
        writable: vec![paths.state.clone(), paths.runtime.clone()],
    };
    confinement.enter();
}

/// Waits until no other pass runs: two would order the same certificate twice.
fn lock(paths: &Paths) -> anyhow::Result<File> {
    let path = paths.account_dir().join("lock");
    let context = || format!("cannot lock {}", path.display());
    let lock = File::create(&path).with_context(context)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::info!("another pass is under way; waiting for its end");
            lock.lock().with_context(context)?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(context),
    }
    Ok(lock)
}
