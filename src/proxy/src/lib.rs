//! `fairlead-proxy`: TLS in, routes to upstreams, nothing else.
//!
//! The sockets are taken before any thread exists; a [`snapshot::Snapshot`] of the files is made; then
//! connections are served until a signal says to reload or to stop.
//!
//! A library beside the program only so that the fuzz targets reach [`fuzzing`].

mod access_log;
mod admin;
mod arguments;
mod authority;
mod balance;
mod basic;
mod body;
mod caller;
mod certificate;
mod checks;
mod compress;
mod date;
mod dial;
mod dispatch;
mod error_pages;
mod forward;
mod forward_auth;
pub mod fuzzing;
mod guard;
mod handshake;
mod headers;
mod health;
mod helper;
mod http1;
mod http2;
mod interim;
mod listeners;
mod message_length;
mod metrics;
mod paths;
mod patience;
mod pool;
mod proxy_protocol;
mod read_ahead;
mod received;
mod reload_callers;
mod reply;
mod sender;
mod server;
mod service;
mod snapshot;
mod sticky;
mod supervisor;
mod upgrade;
mod upload;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use fairlead_contract::{
    CheckReport, Configuration, Confinement, Files, Paths, ReloadAnswer, chain, read_file, start_logging,
};
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use crate::access_log::AccessLog;
use crate::admin::Pages;
use crate::arguments::{Addresses, Arguments};
use crate::listeners::Listeners;
use crate::reload_callers::{ReloadCallers, tell};
use crate::server::{Protocol, serve};
use crate::service::Shared;
use crate::snapshot::{Built, Snapshot};
use crate::supervisor::{History, notify, one_line, summary};

/// The program.
pub fn main() -> ExitCode {
    let args = Arguments::parse();
    start_logging();
    start(args).unwrap_or_else(|fault| {
        error!("{}", chain(&*fault));
        ExitCode::FAILURE
    })
}

fn start(args: Arguments) -> Result<ExitCode> {
    // With several providers in the graph rustls would choose none.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok()
        .context("another cryptography provider is installed already")?;
    // Before there are threads: those that run already would stay free.
    let confinement = confinement(&args.paths);
    if args.check {
        confinement.enter();
        return check(&args.paths);
    }
    let listeners = match Listeners::take()? {
        Some(listeners) => listeners,
        None => bind(&args.addresses)?,
    };
    confinement.enter();
    let access_log = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(run(args, listeners))?;
    // After the runtime: what was cut off with it is written too.
    access_log.finish();
    Ok(ExitCode::SUCCESS)
}

/// The proxy writes nothing, and reads what the files say and what the system is made of.
fn confinement(paths: &Paths) -> Confinement {
    let path = paths.config_file();
    let settings = Configuration::parse(&Files {
        config: Some((path.clone(), read_file(&path))),
        ..Files::default()
    });
    let mut readable = settings.config.proxy.readable;
    readable.extend([paths.config.clone(), paths.state.clone(), paths.runtime.clone()]);
    Confinement {
        readable,
        writable: Vec::new(),
    }
    .with_system()
}

fn check(paths: &Paths) -> Result<ExitCode> {
    let Built {
        snapshot, problems, ..
    } = Snapshot::build(&Files::read(paths), None, Timestamp::now());
    let is_right = problems.is_empty();
    let report = CheckReport {
        routes: snapshot.loaded.routes,
        certificates: snapshot.loaded.certificates,
        problems,
        notes: snapshot.loaded.notes,
    };
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(if is_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn bind(addresses: &Addresses) -> Result<Listeners> {
    ensure!(
        !addresses.http.is_empty() && !addresses.https.is_empty(),
        "there is nothing to listen on: start fairlead-proxy by its sockets (systemctl start fairlead-http.socket \
         fairlead-https.socket), or name addresses with --http and --https"
    );
    Listeners::bind(addresses)
}

async fn run(args: Arguments, mut listeners: Listeners) -> Result<AccessLog> {
    let mut reloads = signal(SignalKind::hangup())?;
    let mut stops = Stops::new()?;
    let built = Snapshot::build(&Files::read(&args.paths), None, Timestamp::now());
    let history = Arc::new(History::begin(&built));
    let shared = Arc::new(Shared::new(built.snapshot, &args.paths, listeners.ports()));
    let mut callers = ReloadCallers::new(std::mem::take(&mut listeners.reload))?;
    start_serving(listeners, &shared, &history)?;
    let status = one_line(&summary(&history.status(&shared)));
    info!("{status}");
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    tokio::spawn(feed_watchdog());
    tokio::spawn(prune_peers(shared.clone()));
    loop {
        tokio::select! {
            _ = reloads.recv() => {
                reload(&history, &shared, &args.paths).await?;
            }
            caller = callers.next() => {
                // To one that broke off there is nothing to say: the caller hears the end.
                if let Some(answer) = reload(&history, &shared, &args.paths).await? {
                    tokio::spawn(tell(caller, answer));
                }
            }
            () = stops.next() => break,
        }
    }
    drain(&shared, &mut stops).await;
    Ok(shared.access_log.clone())
}

fn start_serving(listeners: Listeners, shared: &Arc<Shared>, history: &Arc<History>) -> Result<()> {
    let Listeners {
        http,
        https,
        admin,
        metrics,
        reload: _,
    } = listeners;
    let plain = http.into_iter().map(|listener| (listener, Protocol::Plain));
    let tls = https.into_iter().map(|listener| (listener, Protocol::Tls));
    for (listener, protocol) in plain.chain(tls) {
        let listener = TcpListener::from_std(listener)?;
        info!("listening for {protocol} at {}", listener.local_addr()?);
        // Tracked too: a drain must not end between the acceptance of a connection and its first step.
        shared.tasks.spawn(serve(listener, protocol, shared.clone()));
    }
    for listener in admin {
        let listener = UnixListener::from_std(listener)?;
        tokio::spawn(admin::serve(listener, Pages::all(shared, history)));
    }
    for listener in metrics {
        let listener = TcpListener::from_std(listener)?;
        info!("listening for Prometheus at {}", listener.local_addr()?);
        tokio::spawn(admin::serve(listener, Pages::metrics(shared)));
    }
    Ok(())
}

/// Signals that come while one reload runs are one further reload. `None` is one that broke off.
async fn reload(history: &Arc<History>, shared: &Arc<Shared>, paths: &Paths) -> Result<Option<ReloadAnswer>> {
    notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]);
    let (work, for_whom, from) = (history.clone(), shared.clone(), paths.clone());
    let reloading = tokio::task::spawn_blocking(move || work.reload(&for_whom, &from));
    let answer = reloading
        .await
        .inspect_err(|error| {
            let error = error as &dyn Error;
            error!(error, "the reload broke off; what was loaded before still serves");
        })
        .ok();
    let status = one_line(&summary(&history.status(shared)));
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    Ok(answer)
}

/// What the program may take from the end of the drain to its own: the access log is written.
const AFTER_DRAIN: Duration = Duration::from_secs(30);

/// Finishes exchanges, accepts none; ends at the limit, or at a second signal.
async fn drain(shared: &Shared, stops: &mut Stops) {
    let limit = shared.snapshot().config.proxy.drain_timeout.get();
    // Not the enum's own ExtendTimeoutUsec, whose 32 bits end after an hour.
    let extension = format!("EXTEND_TIMEOUT_USEC={}", (limit + AFTER_DRAIN).as_micros());
    shared.draining.cancel();
    shared.tasks.close();
    // Whoever hears of it finds it begun.
    notify(&[NotifyState::Stopping, NotifyState::Custom(&extension)]);
    tokio::select! {
        waited = timeout(limit, shared.tasks.wait()) => {
            if waited.is_err() {
                warn!("{} exchanges were cut at the limit of drain-timeout", shared.tasks.len());
            }
        }
        () = stops.next() => warn!("{} exchanges were cut at a second signal", shared.tasks.len()),
    }
}

/// systemd takes silence for a hang; this runs where requests are served, so it is silent with them.
async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = interval(limit.max(Duration::from_millis(2)) / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// Between two exchanges nobody looks at a connection: one that its upstream closed would stay half open.
async fn prune_peers(shared: Arc<Shared>) {
    let mut ticks = interval(pool::PRUNING);
    loop {
        ticks.tick().await;
        shared.snapshot().peers().for_each(|peer| peer.prune());
    }
}

/// The signals that end the program.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
