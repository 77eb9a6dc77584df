use std::collections::BTreeSet;

use anyhow::Context;
use fairlead_contract::{
    CertificateDir, Configuration, Failure, Files, HostPattern, Issued, Ledger, Paths, remove_if_present,
};
use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use thiserror::Error;

use crate::acme::{AcmeError, Authority, forget_order, remove_leftover_answers};
use crate::backoff::{AskedToWait, Attempt, add_failure, add_hindrance};
use crate::internal::{InternalAuthority, InternalError};
use crate::pair::{Leaf, Pair};
use crate::plan::{Decision, Known, Reason, Stored, counting_failure, decide};
use crate::store::{self, StoreError};
use crate::wanted::{Issuer, Wanted, find_wanted};
use crate::words::chain;

/// How many orders are under way at once.
const ORDERS_AT_ONCE: usize = 4;

/// What a ledger says while an attempt runs, and for ever if nothing ends it.
const UNDER_WAY: &str = "an attempt began and has not ended";

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing failed; what waits for a later try was not tried.
    Done,
    Failed,
}

/// Makes rounds until the files are as they were when the last round began.
///
/// The mark that something changed is removed before the first look, so no change is lost: one that
/// comes later makes a new mark.
pub(crate) async fn run(paths: &Paths) -> anyhow::Result<Outcome> {
    remove_if_present(&paths.certs_dirty_file())?;
    remove_leftover_answers(&paths.challenges_dir())
        .with_context(|| format!("cannot clear {}", paths.challenges_dir().display()))?;
    let mut failed = BTreeSet::new();
    loop {
        let files = Files::read_without_pairs(paths);
        let configuration = Configuration::parse(&files);
        for problem in &configuration.problems {
            tracing::warn!("{problem}");
        }
        anyhow::ensure!(
            !configuration.config_is_faulty,
            "nothing is done before {} is right: its faults hide who should sign",
            paths.config_file().display()
        );
        failed.extend(Round::open(paths, &configuration).make().await);
        if Files::read_without_pairs(paths).digests() == files.digests() {
            break;
        }
    }
    Ok(if failed.is_empty() {
        Outcome::Done
    } else {
        Outcome::Failed
    })
}

/// One look at all certificates, and what follows from it.
struct Round<'a> {
    paths: &'a Paths,
    configuration: &'a Configuration,
    now: Timestamp,
    /// Opened only if some route wants it.
    internal: Option<Result<InternalAuthority, InternalError>>,
}

/// A certificate to be obtained in this round.
struct Task {
    wanted: Wanted,
    known: Known,
    issuer: Issuer,
    reason: Reason,
}

impl<'a> Round<'a> {
    fn open(paths: &'a Paths, configuration: &'a Configuration) -> Self {
        Self {
            paths,
            configuration,
            now: now(),
            internal: None,
        }
    }

    /// Returns the names that failed.
    async fn make(mut self) -> Vec<HostPattern> {
        let wanted = find_wanted(self.configuration, &self.paths.config_file());
        if wanted.iter().any(|wanted| wanted.issuer == Ok(Issuer::Internal)) {
            self.internal = Some(InternalAuthority::open(self.paths, self.now));
        }
        let mut failed = Vec::new();
        let mut tasks = Vec::new();
        for wanted in wanted {
            let known = store::take_stock(self.paths, &wanted.name);
            match self.decide(&wanted, &known) {
                Decision::Keep { due } => self.keep(&wanted, &known, due),
                Decision::Wait { until, reason } => {
                    tracing::debug!(certificate = %wanted.name, "{}; the next try is at {until}", reason.as_str());
                }
                Decision::Hindered(hindrance) => {
                    self.hinder(&wanted, &known, hindrance);
                    failed.push(wanted.name);
                }
                Decision::Obtain { issuer, reason } => tasks.push(Task {
                    wanted,
                    known,
                    issuer,
                    reason,
                }),
            }
        }
        failed.extend(self.obtain_all(tasks).await);
        failed
    }

    fn decide(&self, wanted: &Wanted, known: &Known) -> Decision {
        let authority_key = match &self.internal {
            Some(Ok(authority)) => Some(authority.key_identifier()),
            _ => None,
        };
        decide(wanted, known, authority_key.as_deref(), self.now)
    }

    /// Brings the ledger in line with a certificate that serves, whoever put it there.
    fn keep(&self, wanted: &Wanted, known: &Known, due: Timestamp) {
        let Stored::Whole(leaf) = &known.stored else {
            return;
        };
        // An order may still be kept whose certificate was stored before a crash.
        forget_order(self.paths, &wanted.name);
        let recorded = known.ledger.as_ref().and_then(|ledger| ledger.issued.clone());
        let issued = recorded
            .filter(|issued| issued.not_after == leaf.not_after)
            .or_else(|| {
                let issuer = wanted.issuer.as_ref().ok()?;
                Some(Issued {
                    issuer: issuer.to_string(),
                    at: leaf.not_before,
                    not_after: leaf.not_after,
                    due,
                })
            });
        let ledger = ledger_of(wanted, issued, None);
        if let Err(error) = store::write_ledger(&self.directory(wanted), &ledger) {
            tracing::warn!(certificate = %wanted.name, "{}", chain(&error));
        }
    }

    fn hinder(&self, wanted: &Wanted, known: &Known, hindrance: String) {
        tracing::error!(certificate = %wanted.name, "no certificate: {hindrance}");
        // Whatever cannot be read is not overwritten either.
        if matches!(known.stored, Stored::Unreadable(_)) {
            return;
        }
        let previous = known.ledger.as_ref().and_then(|ledger| ledger.failure.as_ref());
        let failure = add_hindrance(previous, hindrance, self.now);
        if let Err(error) = self.record(wanted, known, failure) {
            tracing::warn!(certificate = %wanted.name, "{}", chain(&error));
        }
    }

    /// New certificates come before renewals: without one a site does not answer at all.
    async fn obtain_all(&self, mut tasks: Vec<Task>) -> Vec<HostPattern> {
        tasks.sort_by_key(|task| task.reason);
        let authority = match tasks.iter().any(|task| matches!(task.issuer, Issuer::Acme(_))) {
            true => self.open_acme().await,
            false => None,
        };
        let attempts = tasks.iter().map(|task| self.attempt(task, authority.as_ref()));
        stream::iter(attempts)
            .buffer_unordered(ORDERS_AT_ONCE)
            .filter_map(async |name| name)
            .collect()
            .await
    }

    async fn open_acme(&self) -> Option<Result<Authority, AcmeError>> {
        let acme = self.configuration.config.acme.as_ref()?;
        Some(Authority::open(self.paths, acme).await)
    }

    /// Obtains and stores one certificate; returns its name if that failed.
    async fn attempt(
        &self,
        task: &Task,
        authority: Option<&Result<Authority, AcmeError>>,
    ) -> Option<HostPattern> {
        let name = &task.wanted.name;
        let obtained = match &task.issuer {
            Issuer::Internal => self.issue(task),
            Issuer::Acme(_) => self.order(task, authority).await,
        };
        match obtained {
            Ok(leaf) => {
                tracing::info!(
                    certificate = %name,
                    "obtained from {} because {}; valid until {}, to be renewed from {}",
                    task.issuer,
                    task.reason.as_str(),
                    leaf.not_after,
                    leaf.due()
                );
                None
            }
            Err(error) => {
                self.fail(task, &error);
                Some(name.clone())
            }
        }
    }

    fn issue(&self, task: &Task) -> Result<Leaf, AttemptError> {
        let authority = match &self.internal {
            Some(Ok(authority)) => authority,
            Some(Err(error)) => return Err(AttemptError::NoInternal(chain(error))),
            None => return Err(AttemptError::NotOpened),
        };
        let pair = authority.issue(&task.wanted.names)?;
        self.store(task, &pair)?;
        Ok(pair.leaf)
    }

    async fn order(
        &self,
        task: &Task,
        authority: Option<&Result<Authority, AcmeError>>,
    ) -> Result<Leaf, AttemptError> {
        let authority = match authority {
            Some(Ok(authority)) => authority,
            Some(Err(error)) => {
                return Err(AttemptError::NoAccount {
                    cause: chain(error),
                    is_local: error.is_local(),
                    asked: error.asked_to_wait(),
                });
            }
            None => return Err(AttemptError::NotOpened),
        };
        // Counted before it begins: whatever kills this pass, the next one waits, and a disk that cannot
        // hold the count spends no order.
        self.record(
            &task.wanted,
            &task.known,
            self.add_failure(task, UNDER_WAY.to_owned(), None),
        )?;
        let pair = authority.obtain(&task.wanted).await?;
        self.store(task, &pair)?;
        forget_order(self.paths, &task.wanted.name);
        Ok(pair.leaf)
    }

    fn store(&self, task: &Task, pair: &Pair) -> Result<(), StoreError> {
        let directory = self.directory(&task.wanted);
        if let Stored::Broken(cause) = &task.known.stored {
            tracing::warn!(certificate = %task.wanted.name, "the stored files are set aside as *.broken: {cause}");
            store::set_aside(&directory)?;
        }
        store::write_pair(&directory, pair)?;
        let issued = Issued {
            issuer: task.issuer.to_string(),
            at: now(),
            not_after: pair.leaf.not_after,
            due: pair.leaf.due(),
        };
        store::write_ledger(&directory, &ledger_of(&task.wanted, Some(issued), None))
    }

    fn fail(&self, task: &Task, error: &AttemptError) {
        let name = &task.wanted.name;
        let cause = chain(error);
        if error.is_local() {
            return self.hinder(&task.wanted, &task.known, cause);
        }
        let failure = self.add_failure(task, cause.clone(), error.asked_to_wait());
        tracing::error!(certificate = %name, "no certificate: {cause}; the next try is at {}", failure.next_try);
        if let Err(error) = self.record(&task.wanted, &task.known, failure) {
            tracing::warn!(certificate = %name, "{}", chain(&error));
        }
    }

    fn add_failure(&self, task: &Task, error: String, asked: Option<AskedToWait>) -> Failure {
        let previous = counting_failure(&task.wanted, &task.issuer, task.known.ledger.as_ref());
        let attempt = Attempt {
            issuer: task.issuer.to_string(),
            error,
            asked,
        };
        add_failure(previous, attempt, now(), fastrand::f64())
    }

    fn record(&self, wanted: &Wanted, known: &Known, failure: Failure) -> Result<(), StoreError> {
        let issued = known.ledger.as_ref().and_then(|ledger| ledger.issued.clone());
        store::write_ledger(&self.directory(wanted), &ledger_of(wanted, issued, Some(failure)))
    }

    fn directory(&self, wanted: &Wanted) -> CertificateDir {
        self.paths.certificate(&wanted.name)
    }
}

/// In whole seconds: people read the ledger.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn ledger_of(wanted: &Wanted, issued: Option<Issued>, failure: Option<Failure>) -> Ledger {
    Ledger {
        names: wanted.names.clone(),
        provider: wanted.provider,
        issued,
        failure,
    }
}

/// Why an attempt brought no certificate into the store.
#[derive(Debug, Error)]
enum AttemptError {
    #[error("the internal certificate authority cannot be used: {0}")]
    NoInternal(String),
    #[error("the account cannot be used: {cause}")]
    NoAccount {
        cause: String,
        is_local: bool,
        asked: Option<AskedToWait>,
    },
    #[error("its issuer was not opened")]
    NotOpened,
    #[error(transparent)]
    Internal(#[from] InternalError),
    #[error(transparent)]
    Acme(#[from] AcmeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AttemptError {
    /// Whether the fault lies on this machine and nobody was asked: then there is nothing to wait for.
    fn is_local(&self) -> bool {
        match self {
            Self::NoAccount { is_local, .. } => *is_local,
            Self::Acme(error) => error.is_local(),
            Self::NoInternal(_) | Self::NotOpened | Self::Internal(_) => true,
            // The authority may have been asked already; what it made is kept for the next try.
            Self::Store(_) => false,
        }
    }

    fn asked_to_wait(&self) -> Option<AskedToWait> {
        match self {
            Self::NoAccount { asked, .. } => *asked,
            Self::Acme(error) => error.asked_to_wait(),
            Self::NoInternal(_) | Self::NotOpened | Self::Internal(_) | Self::Store(_) => None,
        }
    }
}
