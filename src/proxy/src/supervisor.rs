use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process;
use std::sync::Mutex;

use fairlead_contract::{Digest, Files, Paths, Problem, Refusal, ReloadAnswer, Status, notify_manager};
use jiff::Timestamp;
use sd_notify::NotifyState;
use tracing::{error, info, warn};

use crate::service::Shared;
use crate::snapshot::{Built, Snapshot};

/// What happened to the snapshots since the start.
pub(crate) struct History {
    started: Timestamp,
    reloads: Mutex<Reloads>,
}

#[derive(Clone, Default)]
struct Reloads {
    count: u64,
    refusal: Option<Refusal>,
}

impl History {
    /// `built` is what the proxy starts with: better a part of the sites than none.
    pub(crate) fn begin(built: &Built) -> Self {
        let Built {
            snapshot,
            problems,
            files,
        } = built;
        let refusal = refuse(snapshot.loaded.at, problems, files);
        report(&snapshot.loaded.notes, refusal.as_ref());
        Self {
            started: snapshot.loaded.at,
            reloads: Mutex::new(Reloads { count: 0, refusal }),
        }
    }

    /// Makes a new snapshot of the files and swaps it in, or keeps the old one and says why.
    pub(crate) fn reload(&self, shared: &Shared, paths: &Paths) -> ReloadAnswer {
        let Built {
            snapshot,
            problems,
            files,
        } = Snapshot::build(&Files::read(paths), Some(&shared.snapshot()), Timestamp::now());
        let refusal = refuse(snapshot.loaded.at, &problems, &files);
        report(&snapshot.loaded.notes, refusal.as_ref());
        shared.metrics.reload(refusal.is_none());
        if refusal.is_none() {
            info!(
                routes = snapshot.loaded.routes,
                certificates = snapshot.loaded.certificates,
                "reloaded"
            );
            shared.swap(snapshot);
        }
        let mut reloads = self.lock();
        reloads.count += 1;
        reloads.refusal = refusal.or_else(|| reloads.refusal.take());
        match problems.is_empty() {
            true => ReloadAnswer::Loaded,
            false => ReloadAnswer::Refused { problems },
        }
    }

    pub(crate) fn status(&self, shared: &Shared) -> Status {
        let Reloads { count, refusal } = self.lock().clone();
        let snapshot = shared.snapshot();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            started: self.started,
            reloads: count,
            loaded: snapshot.loaded.clone(),
            failing_upstreams: snapshot.failing_upstreams(),
            refusal,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reloads> {
        self.reloads
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn refuse(at: Timestamp, problems: &[Problem], files: &BTreeMap<PathBuf, Digest>) -> Option<Refusal> {
    (!problems.is_empty()).then(|| Refusal {
        at,
        files: files.clone(),
        problems: problems.to_vec(),
    })
}

fn report(notes: &[Problem], refusal: Option<&Refusal>) {
    for note in notes {
        warn!(file = %note.file.display(), "{note}");
    }
    for problem in refusal.iter().flat_map(|refusal| &refusal.problems) {
        error!(file = %problem.file.display(), "{problem}");
    }
}

/// The line that `systemctl status` shows.
pub(crate) fn summary(status: &Status) -> String {
    let loaded = &status.loaded;
    let served = format!(
        "{} routes, {} certificates, loaded {:.0}",
        loaded.routes, loaded.certificates, loaded.at
    );
    match status.standing_refusal() {
        Some(Refusal { problems, .. }) => match problems.first() {
            Some(first) => format!("reload refused: {first}; serving {served}"),
            None => served,
        },
        None => served,
    }
}

/// Tells systemd. A state that cannot be told is no reason to stop serving.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = notify_manager(states) {
        warn!(error = &error as &dyn std::error::Error, "cannot notify systemd");
    }
}

/// A line break would begin another assignment.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
